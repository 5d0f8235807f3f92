//! Peer exchange (BEP 11): who is connected to whom goes round, so that a swarm holds together without
//! a tracker.
//!
//! Told are peers we are connected to, by the address they listen at, and only to those who could
//! reach it. What we are told is a hint: the dialler keeps a few of each peer, tries them after all
//! others and forgets them soon.

use super::{Misbehaviour, Swarm};
use crate::ids::PeerKey;
use crate::policy::locality::is_lan;
use crate::wire::message::Message;
use crate::wire::pex::{ADDED_MAX, Contact, PexMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// BEP 11: one message a minute.
const INTERVAL: Duration = Duration::from_secs(60);
/// Until there is something to tell, this often is looked.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Messages of one peer that come sooner after each other than this are not read: others may count a
/// minute less exactly, and a network may hold a message up.
const INTERVAL_MIN: Duration = Duration::from_secs(30);
/// So many of these between two that are read are a flood.
const EARLY_MAX: u32 = 10;

/// Addresses kept of what a peer tells.
const HEARD_MAX: usize = 200;

/// What a peer and we have told each other.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// What it believes us to be connected to.
    told: BTreeSet<SocketAddr>,
    /// Whom it says that it is connected to.
    heard: BTreeSet<SocketAddr>,
    /// When it is told again.
    due: Duration,
    /// When its last message was read.
    read_at: Option<Duration>,
    /// Messages that came too early since.
    early: u32,
}

impl Exchange {
    /// Whether it says that it is connected to `addr`.
    pub(super) fn knows(&self, addr: SocketAddr) -> bool {
        self.heard.contains(&SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }

    fn hear(&mut self, message: &PexMessage) {
        self.heard.retain(|addr| !message.dropped.contains(addr));
        let room = HEARD_MAX.saturating_sub(self.heard.len());
        self.heard.extend(message.added.iter().map(|contact| contact.addr).take(room));
    }
}

impl Swarm {
    /// Tells everybody whose turn it is of what has changed.
    pub(super) fn exchange_peers(&mut self, now: Duration) {
        let due: Vec<(PeerKey, u8)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.exchange.due <= now)
            .filter_map(|(&key, peer)| Some((key, peer.extensions.pex?)))
            .collect();
        if due.is_empty() || self.config.private {
            return;
        }
        let all: BTreeMap<SocketAddr, (Contact, bool)> = self
            .peers
            .values()
            .filter_map(|peer| {
                let addr = if peer.outgoing { peer.addr } else { peer.listens? };
                let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
                if is_nowhere(addr.ip()) {
                    return None;
                }
                let seed = peer.have.is_full() || peer.extensions.upload_only;
                let quic = peer.extensions.quic == Some(addr.port());
                let contact = Contact { addr, seed, reachable: peer.outgoing, quic };
                Some((addr, (contact, peer.lan)))
            })
            .collect();
        for (key, id) in due {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let own = if peer.outgoing { Some(peer.addr) } else { peer.listens };
            let own = own.map(|own| SocketAddr::new(own.ip().to_canonical(), own.port()));
            // Who is beyond the LAN can do nothing with its addresses, and need not know them.
            let near = peer.lan;
            let tells = |addr: &SocketAddr| {
                Some(*addr) != own && all.get(addr).is_some_and(|(_, lan)| near || !lan)
            };
            let told = &mut peer.exchange.told;
            let dropped: Vec<SocketAddr> =
                told.iter().filter(|addr| !tells(addr)).take(ADDED_MAX).copied().collect();
            told.retain(|addr| !dropped.contains(addr));
            let new = all.iter().filter(|(addr, _)| tells(addr) && !told.contains(addr));
            let new = new.map(|(_, (contact, _))| *contact);
            let mut added = self.rng.choose_multiple(new, ADDED_MAX);
            added.sort();
            told.extend(added.iter().map(|contact| contact.addr));
            if added.is_empty() && dropped.is_empty() {
                peer.exchange.due = now + LOOK_AGAIN;
                continue;
            }
            peer.exchange.due = now + INTERVAL;
            let payload = PexMessage { added, dropped }.encode();
            self.send(now, key, Message::Extended { id, payload });
        }
    }

    /// A peer tells whom it is connected to.
    pub(super) fn on_peer_exchange(&mut self, now: Duration, key: PeerKey, payload: &[u8]) {
        let complete = self.picker.is_complete();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if self.config.private {
            return;
        }
        let exchange = &mut peer.exchange;
        if exchange.read_at.is_some_and(|at| now.saturating_sub(at) < INTERVAL_MIN) {
            exchange.early += 1;
            if exchange.early > EARLY_MAX {
                self.ban(now, key, Misbehaviour::AddressFlood);
            }
            return;
        }
        (exchange.read_at, exchange.early) = (Some(now), 0);
        let Some(message) = PexMessage::parse(payload) else {
            return self.ban(now, key, Misbehaviour::MalformedExtension);
        };
        peer.exchange.hear(&message);
        let near = peer.lan;
        let places = self.peers.values().flat_map(|peer| [Some(peer.addr), peer.listens]);
        let connected: BTreeSet<SocketAddr> = places.flatten().collect();
        let mut hosts = BTreeSet::new();
        for contact in message.added.into_iter().filter(|told| !connected.contains(&told.addr)) {
            // BEP 11: of several ports of one host beyond the LAN the first counts.
            let ip = contact.addr.ip().to_canonical();
            // Nobody beyond the LAN sends us to hosts within.
            let reachable = !is_nowhere(ip) && (near || !is_lan(ip));
            let useful = !(complete && contact.seed);
            if reachable && useful && (hosts.insert(ip) || is_lan(ip)) {
                self.dialer.hint(now, contact.addr, contact.quic, key);
            }
        }
    }
}

/// True for what means something else to everybody: no host to tell of, or to dial on hearsay.
pub(super) fn is_nowhere(ip: IpAddr) -> bool {
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || match ip {
            IpAddr::V4(ip) => ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
}
