//! What was read for peers, on its way out: plainly, or several blocks together and compressed.

use super::{Engine, State};
use crate::geometry::Block;
use crate::ids::PeerKey;
use crate::io::parcels::{Order, Packed, plainly};
use crate::io::storage::TorrentKey;
use crate::swarm::Input;
use crate::wire::message::Message;
use crate::wire::parcel::Parcel;
use bytes::Bytes;

/// Blocks that were read for one peer and wait for those that go with them.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    parcel: Parcel,
    /// Blocks ordered from the disk that have not come.
    pub(super) awaited: usize,
}

impl Engine {
    /// Blocks for a peer came from the disk; of those ordered `failed` will not.
    pub(super) fn on_read(
        &mut self,
        torrent: TorrentKey,
        peer: PeerKey,
        blocks: Vec<(Block, Bytes)>,
        failed: Vec<Block>,
    ) {
        let id = self.parcels_id(torrent, peer);
        let looks = self.torrents.get_mut(&torrent).is_some_and(|torrent| torrent.content.looks());
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.gathered.awaited = entry.gathered.awaited.saturating_sub(blocks.len() + failed.len());
        let goes_with_others = !entry.gathered.parcel.is_empty();
        if !failed.is_empty() {
            self.input(torrent, Input::Unsent { peer, blocks: failed });
        }
        let Some(id) = id.filter(|_| looks || goes_with_others) else {
            // It no longer takes parcels: what was gathered for one goes, too.
            let gathered =
                self.peers.get_mut(&peer).map(|entry| std::mem::take(&mut entry.gathered.parcel));
            self.send(peer, gathered.map_or_else(Vec::new, plainly));
            let messages = blocks.into_iter().map(|(block, data)| Message::Piece {
                piece: block.piece,
                offset: block.offset,
                data,
            });
            return self.send(peer, messages.collect());
        };
        for (block, data) in blocks {
            // Copied, so that the disk has its buffer back before the rest is there.
            let Some(entry) = self.peers.get_mut(&peer) else { return };
            if !entry.gathered.parcel.push(block, &data) {
                let full = std::mem::take(&mut entry.gathered.parcel);
                entry.gathered.parcel.push(block, &data);
                self.pack(Order { torrent, peer, id, parcel: full });
            }
        }
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.gathered.awaited == 0 && !entry.gathered.parcel.is_empty() {
            let parcel = std::mem::take(&mut entry.gathered.parcel);
            self.pack(Order { torrent, peer, id, parcel });
        }
    }

    fn pack(&mut self, order: Order) {
        if let Err(order) = self.packer.take(order) {
            self.send(order.peer, plainly(order.parcel));
        }
    }

    pub(super) fn on_packed(&mut self, packed: Packed) {
        let Packed { torrent, peer, messages, saved, tried, took } = packed;
        if let Some(of) = self.torrents.get_mut(&torrent) {
            of.packing += took;
            let before = of.content.pays();
            tried.into_iter().for_each(|(plain, packed)| of.content.saw(plain, packed));
            let pays = of.content.pays();
            if pays != before {
                self.input(torrent, Input::Shrinks(pays));
            }
        }
        if saved > 0 {
            self.input(torrent, Input::Saved { peer, bytes: saved as u64 });
        }
        self.send(peer, messages);
    }

    fn parcels_id(&self, torrent: TorrentKey, peer: PeerKey) -> Option<u8> {
        match &self.torrents.get(&torrent)?.state {
            State::Running(swarm) => swarm.parcels_id(peer),
            State::Checking { .. } | State::Failed(_) => None,
        }
    }
}
