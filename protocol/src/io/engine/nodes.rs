//! The engine's part in the DHT (BEP 5): which torrents are in it, and what peers and we tell of our nodes.

use super::{Engine, Torrent};
use crate::ids::{InfoHash, PeerKey};
use crate::io::storage::TorrentKey;
use crate::swarm::Input;
use crate::wire::message::Message;
use std::net::SocketAddr;

impl Engine {
    /// Whether peers of a torrent are looked for in the DHT.
    pub(super) fn is_in_dht(&self, key: TorrentKey) -> bool {
        let wants = |torrent: &Torrent| torrent.dht && !torrent.info.private;
        self.dht.is_some() && self.torrents.get(&key).is_some_and(wants)
    }

    /// The DHT knows of peers.
    pub(super) fn on_heard(&mut self, hash: InfoHash, addrs: Vec<SocketAddr>) {
        let Some(&key) = self.by_hash.get(&hash) else { return };
        if self.is_in_dht(key) {
            tracing::debug!(%hash, count = addrs.len(), "found in the DHT");
            self.input(key, Input::Peers(addrs));
        }
    }

    /// Our node is there: who has one itself is told.
    pub(super) fn on_dht_port(&mut self, port: u16) {
        let Some(dht) = &mut self.dht else { return };
        dht.set_port(port);
        let peers: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.node.is_some())
            .map(|(&key, _)| key)
            .collect();
        peers.into_iter().for_each(|peer| self.tell_node(peer));
    }

    /// Tells a peer that has a node where ours is, if it is there yet.
    pub(super) fn tell_node(&mut self, peer: PeerKey) {
        let has_one = self.peers.get(&peer).is_some_and(|peer| peer.node.is_some());
        if let Some(port) = self.dht.as_ref().and_then(|dht| dht.port()).filter(|_| has_one) {
            self.send(peer, vec![Message::Port(port)]);
        }
    }

    /// A peer tells where its node is.
    pub(super) fn on_node(&self, peer: PeerKey, port: u16) {
        let addr = self.peers.get(&peer).and_then(|peer| peer.node);
        if let Some((addr, dht)) = addr.zip(self.dht.as_ref()) {
            dht.hear(addr, port);
        }
    }
}
