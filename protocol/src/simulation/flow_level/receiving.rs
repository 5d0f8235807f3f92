//! What is asked for, and what has come.

use super::peer::Flow;
use super::{FlowLevel, STEPS_PER_SECOND};
use crate::geometry::Block;
use crate::ids::{PeerKey, PieceIndex};
use crate::policy::endgame;
use crate::policy::picker::{Ask, Receipt};
use std::time::Duration;

impl FlowLevel {
    /// Keeps the window of a flow from `from` full; the flow has been taken out.
    pub(super) fn request(&mut self, from: usize, flow: &mut Flow) {
        let (size, outstanding) = (flow.window.size() as usize, flow.requests.len());
        let room = size.saturating_sub(outstanding);
        let to = flow.peer;
        // In batches, as the engine does.
        if room == 0 || (room < size / 4 && outstanding > 0) || self.have[to].is_full() {
            return;
        }
        let endgame = self.peers[to].picker.free_blocks() == 0;
        // Where nothing was found, only what the sender got or others gave up since can be found.
        let seen = (self.got_count[from], self.peers[to].given_up);
        let in_vain = endgame || flow.found_nothing == Some(seen);
        let mut blocks = if in_vain { Vec::new() } else { self.pick(from, flow, room) };
        flow.found_nothing = blocks.is_empty().then_some(seen);
        while blocks.is_empty() && outstanding == 0 && self.suggest(from, flow) {
            blocks = self.pick(from, flow, room);
        }
        let spreads = self.peers[from].spread.is_some();
        if blocks.is_empty() && outstanding == 0 && !spreads && endgame {
            blocks = self.steal(from, flow, room.min(endgame::at_once(flow.rate.get())));
        }
        flow.current = blocks.last().map(|block| block.piece).or(flow.current);
        flow.requests.extend(blocks);
    }

    fn pick(&mut self, from: usize, flow: &Flow, room: usize) -> Vec<Block> {
        let ask = Ask {
            peer: PeerKey(flow.back),
            have: &self.have[from],
            current: flow.current,
            exclusive: false,
            // When all has been given to somebody, the rarest of the rest may be had twice.
            only: (self.peers[from].spread.as_ref())
                .filter(|spread| !spread.is_over() || self.owes(flow))
                .map(|_| flow.suggested.as_slice()),
        };
        let mut blocks = Vec::new();
        let there = &mut self.peers[flow.peer];
        there.picker.pick(&ask, room, &mut there.rng, &mut blocks);
        blocks
    }

    /// The peer has not got all that a seed gave it.
    pub(super) fn owes(&self, flow: &Flow) -> bool {
        flow.suggested.iter().any(|&piece| !self.have[flow.peer].has(piece))
    }

    /// A seed that spreads gives one more piece. False if there is none.
    fn suggest(&mut self, from: usize, flow: &mut Flow) -> bool {
        let Some(spread) = &mut self.peers[from].spread else { return false };
        let Some(piece) = spread.next(&self.have[flow.peer]) else { return false };
        flow.suggested.push(piece);
        true
    }

    /// The endgame: blocks that are out elsewhere and would come sooner from here.
    fn steal(&mut self, from: usize, flow: &Flow, count: usize) -> Vec<Block> {
        let (rate, (until, best)) = (flow.rate.get(), self.peers[flow.peer].no_steal);
        // Where a faster one found nothing just now, this one will not.
        if !flow.rate.is_known() || (self.step < until && rate <= best) {
            return Vec::new();
        }
        let mut out_there: Vec<(Duration, Block)> = Vec::new();
        let sources = self.peers[flow.peer].sources.clone();
        for source in sources.into_iter().map(|source| source as usize) {
            let Some(other) = self.peers[source].flow_to(flow.peer) else { continue };
            if !other.rate.is_known() {
                continue;
            }
            let its_rate = other.rate.get();
            let due = (1..).zip(&other.requests);
            out_there.extend(
                due.filter(|(_, block)| self.have[from].has(block.piece))
                    .map(|(place, &block)| (endgame::eta(place, its_rate), block)),
            );
        }
        let mut chosen = endgame::steal(out_there, 0, rate, count);
        chosen.retain(|&block| self.peers[flow.peer].picker.request_again(block));
        if chosen.is_empty() {
            self.peers[flow.peer].no_steal = (self.step + STEPS_PER_SECOND, rate);
        }
        chosen
    }

    /// A block has come through a flow that has been taken out.
    pub(super) fn received(&mut self, flow: &Flow, block: Block) {
        let to = flow.peer;
        let peer = &mut self.peers[to];
        match peer.picker.received(block, PeerKey(flow.back)) {
            Receipt::Duplicate => {
                self.wasted += u64::from(block.len);
                return;
            }
            Receipt::Needed { others: 0 } => {}
            Receipt::Needed { .. } => {
                for source in self.peers[to].sources.clone() {
                    if let Some(other) = self.peers[source as usize].flow_to(to) {
                        other.requests.retain(|&asked| asked != block);
                    }
                }
            }
        }
        let blocks = self.geometry.block_count(block.piece);
        let begun = &mut self.peers[to].begun;
        let at = begun.iter().position(|&(piece, _)| piece == block.piece).unwrap_or(begun.len());
        if at == begun.len() {
            begun.push((block.piece, 0));
        }
        begun[at].1 += 1;
        if begun[at].1 == blocks {
            begun.swap_remove(at);
            self.stored(to, block.piece);
        }
    }

    fn stored(&mut self, at: usize, piece: PieceIndex) {
        let peer = &mut self.peers[at];
        peer.picker.verified(piece);
        self.have[at].insert(piece);
        self.got[at].push(piece);
        self.got_count[at] += 1;
        let count = self.geometry.piece_count();
        if peer.nearly_at.is_none() && self.got_count[at] >= count - count / 100 {
            peer.nearly_at = Some(self.now);
        }
        if self.copies_out.insert(piece) && self.copies_out.is_full() {
            let seeds = self.peers.iter().filter(|peer| peer.seed);
            self.first_copy = Some(seeds.map(|peer| peer.up_rate.total()).sum());
        }
        if self.have[at].is_full() {
            self.completed(at);
        }
    }
}
