//! What peers that came by a magnet link lack: the info dictionary (BEP 9) and hashes of pieces (BEP 52).

use super::{Misbehaviour, Swarm};
use crate::ids::PeerKey;
use crate::metainfo::trees::HASHES_MAX;
use crate::policy::limiter::Limiter;
use crate::wire::extension::{METADATA_PIECE, MetadataMessage};
use crate::wire::message::{HashRange, Message};
use bytes::Bytes;
use std::time::Duration;

/// How often one peer may ask for the whole info dictionary.
const METADATA_ROUNDS_MAX: u32 = 4;

impl Swarm {
    pub(super) fn on_metadata_message(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        payload: &Bytes,
    ) {
        let Some(MetadataMessage::Request { piece }) = MetadataMessage::parse(payload) else {
            return;
        };
        let Some(id) = self.peers.get(&key).and_then(|peer| peer.extensions.metadata) else {
            return;
        };
        let metadata = self.metadata();
        let pieces = u32::try_from(metadata.len().div_ceil(METADATA_PIECE)).unwrap_or(u32::MAX);
        let may = self.peers.get(&key).is_some_and(|peer| self.may_send(peer.lan));
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.metadata_sent += 1;
        if peer.metadata_sent > METADATA_ROUNDS_MAX.saturating_mul(pieces) {
            return self.ban(now, key, Misbehaviour::RequestFlood);
        }
        let from = (piece as usize).saturating_mul(METADATA_PIECE);
        // A piece is small: it goes at once, and payload waits for it.
        let may = may && (peer.lan || limiter.up.owe(now, METADATA_PIECE as u64));
        let answer = if may && from < metadata.len() {
            let data = metadata.slice(from..metadata.len().min(from + METADATA_PIECE));
            let total = u32::try_from(metadata.len()).expect("an info dictionary is below 4 GiB");
            MetadataMessage::Data { piece, total, data }
        } else {
            MetadataMessage::Reject { piece }
        };
        self.send(now, key, Message::Extended { id, payload: answer.encode() });
    }

    /// The info dictionary; empty if it is not served.
    pub(super) fn metadata(&self) -> Bytes {
        self.config.info.as_ref().map_or_else(Bytes::new, |info| info.raw.clone())
    }

    /// Hashes of pieces for who has none, four times at the most (BEP 52).
    pub(super) fn on_hash_request(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        range: HashRange,
    ) {
        let may = self.peers.get(&key).is_some_and(|peer| self.may_send(peer.lan));
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let may = may && (peer.lan || limiter.up.owe(now, 32 * u64::from(range.length)));
        // Each layer is filled up to a power of two, a request has at least two, and as many uncles come
        // with it.
        let most = self.geometry.piece_count().saturating_mul(4 * METADATA_ROUNDS_MAX);
        let hashes = (may && peer.hashes_sent <= most.max(HASHES_MAX))
            .then(|| self.trees.as_mut()?.answer(&range))
            .flatten();
        let cost = hashes.as_ref().map_or(2, Vec::len);
        peer.hashes_sent = peer.hashes_sent.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        let message = match hashes {
            Some(hashes) => {
                let hashes = hashes.iter().flat_map(|hash| hash.0).collect();
                Message::Hashes { range, hashes }
            }
            None => Message::HashReject(range),
        };
        self.send(now, key, message);
    }
}
