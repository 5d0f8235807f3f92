//! Connections as they come about: dialled, taken in, or replaced by one over QUIC.

use super::packing::Gathered;
use super::{Engine, PeerEntry, State};
use crate::ids::PeerKey;
use crate::io::connection::{self, Dial, NetEvent, Route};
use crate::io::documents::Lookups;
use crate::io::lsd;
use crate::io::storage::TorrentKey;
use crate::io::stream::Stream;
use crate::policy::locality::is_lan;
use crate::swarm::Input;
use crate::wire::handshake::Handshake;
use std::net::SocketAddr;

impl Engine {
    pub(super) fn on_incoming(&mut self, stream: Stream, addr: SocketAddr, theirs: Handshake) {
        let now = self.now();
        let Some(&key) = self.by_hash.get(&theirs.info_hash) else {
            tracing::debug!(%addr, hash = %theirs.info_hash, "asked for a torrent that is not here");
            return;
        };
        let Some(torrent) = self.torrents.get(&key) else { return };
        let State::Running(swarm) = &torrent.state else { return };
        if self.is_local_only() && !lsd::is_on_link(addr.ip()) {
            return;
        }
        let twin = swarm.place_of(now, theirs.peer_id, addr, stream.transport());
        if swarm.refuses(now, addr, is_lan(addr.ip()), twin) {
            return;
        }
        let hashes = torrent.info.hashes;
        // BEP 52: whoever shows the v2 bit under the v1 hash of a hybrid is answered with the v2 hash.
        let hash = match hashes.v2 {
            Some(v2) if theirs.abilities.v2 => v2.truncated(),
            _ => theirs.info_hash,
        };
        let (id, dht) = (self.setup.peer_id, self.is_in_dht(key));
        let hello = connection::handshake(hashes, hash, id, dht).encode().to_vec();
        if twin.is_none() && swarm.has_peer(theirs.peer_id) {
            // At another of its addresses it is told whom it reached, or it would try again and again.
            return connection::decline(&self.shared, stream, hello);
        }
        self.connect(key, stream, addr, false, theirs, hello);
    }

    pub(super) fn connect(
        &mut self,
        torrent: TorrentKey,
        stream: Stream,
        addr: SocketAddr,
        outgoing: bool,
        theirs: Handshake,
        hello: Vec<u8>,
    ) {
        let Some(running) = self.torrents.get(&torrent) else { return };
        let State::Running(_) = &running.state else { return };
        let hashes = running.info.hashes;
        let peer = PeerKey(self.next_peer);
        self.next_peer = (self.next_peer + 1) & (u32::MAX >> 1);
        let transport = stream.transport();
        tracing::debug!(%peer, %addr, %transport, outgoing, "connected");
        let connection = connection::start(&self.shared, peer, stream, hello);
        let (lan, gathered) = (is_lan(addr.ip()), Gathered::default());
        let lookups = Lookups::default();
        let node = (theirs.abilities.dht && self.is_in_dht(torrent)).then_some(addr);
        self.peers.insert(peer, PeerEntry { torrent, lan, connection, gathered, lookups, node });
        let (id, mut abilities) = (theirs.peer_id, theirs.abilities);
        // Who uses the v2 hash knows v2, and need not say so.
        abilities.v2 |= hashes.v2.is_some_and(|hash| hash.truncated() == theirs.info_hash);
        self.input(
            torrent,
            Input::Connected { peer, addr, outgoing, id, abilities, lan, transport },
        );
        if node.is_some() {
            // What we have comes before anything else (BEP 3).
            self.carry_out(torrent);
            self.tell_node(peer);
        }
    }

    pub(super) fn dial(&self, key: TorrentKey, addr: SocketAddr, route: Route) {
        let Some(dial) = self.dial_setup(key) else { return };
        let events = self.shared.events.clone();
        let local_only = self.is_local_only();
        tokio::spawn(async move {
            let result = if local_only && !lsd::is_on_link(addr.ip()) {
                None
            } else {
                dial.dial(addr, route).await
            };
            let _ = events.send(NetEvent::Dialled { torrent: key, addr, result }).await;
        });
    }

    pub(super) fn upgrade(&self, torrent: TorrentKey, addr: SocketAddr, quic: u16) {
        let Some(dial) = self.dial_setup(torrent) else { return };
        if self.is_local_only() && !lsd::is_on_link(addr.ip()) {
            return;
        }
        let events = self.shared.events.clone();
        tokio::spawn(async move {
            let Some((stream, handshake)) = dial.dial(addr, Route::Quic(quic)).await else {
                return;
            };
            let _ = events.send(NetEvent::Upgraded { torrent, addr, stream, handshake }).await;
        });
    }

    fn dial_setup(&self, key: TorrentKey) -> Option<Dial> {
        Some(Dial {
            bind: self.setup.bind,
            quic: self.setup.quic.clone(),
            utp: self.setup.utp.clone(),
            ways: self.setup.config.transport.ways(),
            hashes: self.torrents.get(&key)?.info.hashes,
            peer_id: self.setup.peer_id,
            encryption: self.setup.config.encryption,
            dht: self.is_in_dht(key),
        })
    }
}
