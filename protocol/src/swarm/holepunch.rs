//! Peers that cannot be dialled (BEP 55): who is connected to both ends tells each to dial the other by uTP at the
//! same time, so that the routers before them take what comes in for answers.
//!
//! Whom a peer is connected to it says by peer exchange. What it makes us dial, and what it makes us have others
//! dial, is bounded: it may be anybody's address.

use super::peer::Peer;
use super::pex::is_nowhere;
use super::{Output, Swarm};
use crate::ids::PeerKey;
use crate::policy::locality::is_lan;
use crate::policy::transport::Transport;
use crate::wire::holepunch::{HolepunchMessage, Refusal};
use crate::wire::message::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// So often one peer may ask within [`WINDOW`].
const ASKED_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// A relay is asked for the same peer again after this.
const AGAIN: Duration = Duration::from_secs(300);
/// Addresses remembered for that.
const REMEMBERED_MAX: usize = 200;

/// What one peer has asked for of late.
#[derive(Debug, Default)]
pub(super) struct Asked {
    since: Duration,
    count: u32,
}

impl Asked {
    fn once_more(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= WINDOW {
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        self.count <= ASKED_MAX
    }
}

/// For whom a relay was asked, and when.
#[derive(Debug, Default)]
pub(super) struct Tried(BTreeMap<SocketAddr, Duration>);

impl Tried {
    fn first_time(&mut self, now: Duration, addr: SocketAddr) -> bool {
        self.0.retain(|_, at| now.saturating_sub(*at) < AGAIN);
        self.0.len() < REMEMBERED_MAX && self.0.insert(addr, now).is_none()
    }
}

impl Swarm {
    /// Whether this is spoken: it takes UDP, and of private torrents peers tell nobody.
    pub(super) fn punches(&self) -> bool {
        self.config.quic_port.is_some() && !self.config.private
    }

    /// Nobody answered at `addr`: who is connected with it may bring us together.
    pub(super) fn ask_relay(&mut self, now: Duration, addr: SocketAddr) {
        if !self.punches() {
            return;
        }
        let relay = self.peers.iter().find_map(|(&key, peer)| {
            let id = peer.extensions.holepunch.filter(|_| peer.exchange.knows(addr))?;
            Some((key, id))
        });
        if let Some((key, id)) = relay
            && self.tried.first_time(now, addr)
        {
            let payload = HolepunchMessage::Rendezvous(addr).encode();
            self.send(now, key, Message::Extended { id, payload });
        }
    }

    /// A peer asks for somebody, or says whom to dial.
    pub(super) fn on_holepunch(&mut self, now: Duration, key: PeerKey, payload: &[u8]) {
        let punches = self.punches();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        // BEP 55: who does not say that it speaks it is passed over.
        if !punches || peer.extensions.holepunch.is_none() || !peer.asked.once_more(now) {
            return;
        }
        match HolepunchMessage::parse(payload) {
            Some(HolepunchMessage::Rendezvous(addr)) => self.relay(now, key, addr),
            Some(HolepunchMessage::Connect(addr)) => self.punch(now, key, addr),
            // It is dialled again by and by, as everybody is.
            Some(HolepunchMessage::Error(..)) | None => {}
        }
    }

    /// Tells both ends to dial each other.
    fn relay(&mut self, now: Duration, asker: PeerKey, wanted: SocketAddr) {
        let at = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let is_meant = |peer: &Peer| {
            [Some(peer.addr), peer.listens].into_iter().flatten().any(|addr| at(addr) == wanted)
        };
        let Some(from) = self.peers.get(&asker) else { return };
        let found = self.peers.iter().find(|(_, peer)| is_meant(peer));
        let answer = match found {
            Some((&key, _)) if key == asker => Err(Refusal::NoSelf),
            // Who is beyond the LAN is told nothing of it.
            Some((_, peer)) if peer.lan != from.lan => Err(Refusal::NotConnected),
            Some((&key, peer)) => match peer.extensions.holepunch {
                Some(id) => Ok((key, id, at(place(peer)))),
                None => Err(Refusal::NoSupport),
            },
            None => Err(Refusal::NotConnected),
        };
        let own_id = from.extensions.holepunch;
        let (asking, reply) = (
            at(place(from)),
            match answer {
                Ok((_, _, addr)) => HolepunchMessage::Connect(addr),
                Err(why) => HolepunchMessage::Error(wanted, why),
            },
        );
        if let Ok((key, id, _)) = answer {
            let payload = HolepunchMessage::Connect(asking).encode();
            self.send(now, key, Message::Extended { id, payload });
        }
        if let Some(id) = own_id {
            self.send(now, asker, Message::Extended { id, payload: reply.encode() });
        }
    }

    /// Dials whom a relay names, who dials us.
    fn punch(&mut self, now: Duration, relay: PeerKey, addr: SocketAddr) {
        let Some(near) = self.peers.get(&relay).map(|peer| peer.lan) else { return };
        let connected =
            self.peers.values().any(|peer| [Some(peer.addr), peer.listens].contains(&Some(addr)));
        let reachable = !is_nowhere(addr.ip()) && near == is_lan(addr.ip());
        let room = self.peers.len() < self.config.connections_max;
        if reachable && room && !connected && self.dialer.punch(now, addr, relay) {
            self.tried.first_time(now, addr);
            self.outputs.push_back(Output::Dial { addr, quic: None, punch: true });
        }
    }
}

/// Where others reach a peer: where it listens, or, if it came by UDP, where it came from, as one port is all that it
/// has there.
fn place(peer: &Peer) -> SocketAddr {
    match peer.transport {
        Transport::Tcp if !peer.outgoing => peer.listens.unwrap_or(peer.addr),
        Transport::Tcp | Transport::Utp | Transport::Quic => peer.addr,
    }
}
