//! Blocks that the caller has already: found in other files, or made by a patch. They go the way of
//! every block, to the disk and into the hash of their piece, so a wrong guess costs its piece once
//! more and nothing else.

use super::{Output, Swarm};
use crate::geometry::Block;
use crate::ids::PeerKey;
use crate::policy::limiter::Limiter;
use crate::policy::picker::Receipt;
use bytes::Bytes;
use std::time::Duration;

/// The name of the caller among those who deliver blocks: above all connections and HTTP ranges.
pub(super) const SUPPLY: PeerKey = PeerKey(u32::MAX);

impl Swarm {
    pub(super) fn on_supplied(&mut self, block: Block, data: Bytes) {
        if !self.picker.wants(block.piece) {
            return;
        }
        match self.picker.received(block, SUPPLY) {
            Receipt::Duplicate => {}
            Receipt::Needed { .. } => {
                self.stats.supplied += u64::from(block.len);
                self.outputs.push_back(Output::Write { block, data });
            }
        }
    }

    /// From here on peers are asked.
    pub(super) fn on_supply_ended(&mut self, now: Duration, limiter: &mut Limiter) {
        self.supplying = false;
        // The wait was ours: no peer has had the chance to deliver.
        self.began = Some(now);
        self.last_payload = now;
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        keys.into_iter().for_each(|key| self.request(now, limiter, key));
    }
}
