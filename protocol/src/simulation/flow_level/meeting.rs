//! Who knows whom, and what they hear of each other.

use super::super::{ANNOUNCE, ANNOUNCE_SOON, FEW_PEERS, TRACKER_PEERS};
use super::FlowLevel;
use super::peer::Neighbour;
use crate::bitfield::Bitfield;
use crate::policy::dialer;

/// Steps until neighbours are told of a piece at the latest, as the engine does…
pub(super) const TELL_STEPS: u64 = 4;
/// …and pieces that are told of at once.
const TELL_AT_ONCE: u32 = 8;

impl FlowLevel {
    /// Asks the tracker and dials, as far as it is due.
    pub(super) fn meet(&mut self, at: usize) {
        let number = u32::try_from(at).expect("peers are counted in u32");
        if self.peers[at].announce_at <= self.now {
            self.announce(at, number);
        }
        let waited = self.now.saturating_sub(self.peers[at].start);
        let wanted = dialer::dial_until(waited, self.peers[at].places);
        let mut tries = dialer::HALF_OPEN_MAX;
        while self.peers[at].connections < wanted && tries > 0 {
            let Some(other) = self.peers[at].known.pop() else { return };
            tries -= 1;
            let other = other as usize;
            let there = &self.peers[other];
            let takes = !there.nat && !there.gone && there.connections < there.places;
            let both_done = self.have[at].is_full() && self.have[other].is_full();
            let known = self.peers[at].neighbours.iter().any(|one| one.peer as usize == other);
            if takes && !both_done && !known && other != at {
                self.connect(at, other);
            }
        }
    }

    fn announce(&mut self, at: usize, number: u32) {
        let peer = &mut self.peers[at];
        let few = peer.connections < FEW_PEERS && !peer.picker.is_complete();
        peer.announce_at = self.now + if few { ANNOUNCE_SOON } else { ANNOUNCE };
        let count = self.tracked.len();
        let known = (0..TRACKER_PEERS.min(count)).map(|_| self.tracked[self.rng.usize(0..count)]);
        peer.known = known.collect();
        if !std::mem::replace(&mut peer.tracked, true) {
            self.tracked.push(number);
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        for (at, other) in [(a, b), (b, a)] {
            let back = self.peers[other].neighbours.len() - usize::from(at == b);
            let neighbour = Neighbour {
                peer: u32::try_from(other).expect("peers are counted in u32"),
                back: u32::try_from(back).expect("neighbours are few"),
                heard: 0,
                useful: false,
                interested: false,
                unchoked: false,
                gone: false,
                served: false,
                changed_at: self.now,
            };
            self.peers[at].neighbours.push(neighbour);
            self.peers[at].connections += 1;
            // What it has got will be heard of piece by piece.
            let count = self.geometry.piece_count();
            let seed = self.peers[other].seed;
            let began = if seed { Bitfield::full(count) } else { Bitfield::empty(count) };
            self.peers[at].picker.peer_joined(&began);
        }
    }

    /// Hears of the pieces that neighbours have got, and says of whom it wants any.
    pub(super) fn hear(&mut self, at: usize, due: bool) {
        let count = self.geometry.piece_count();
        let complete = self.have[at].is_full();
        if !due && self.got_count[at] > TELL_AT_ONCE {
            return;
        }
        for place in 0..self.peers[at].neighbours.len() {
            let peer = &mut self.peers[at];
            let neighbour = &mut peer.neighbours[place];
            let other = neighbour.peer as usize;
            let got = self.got_count[other];
            if neighbour.gone || !due && (got > TELL_AT_ONCE || got == neighbour.heard) {
                continue;
            }
            while neighbour.heard < got {
                let piece = self.got[other][neighbour.heard as usize];
                neighbour.heard += 1;
                peer.picker.peer_gained(piece, neighbour.heard == count);
                if let Some(spread) = &mut peer.spread {
                    spread.take(piece);
                }
            }
            let useful = !complete && self.have[at].lacks_any_of(&self.have[other]);
            if useful != neighbour.useful {
                neighbour.useful = useful;
                let back = neighbour.back as usize;
                let there = &mut self.peers[other];
                there.neighbours[back].interested = useful;
                there.choke_now |= useful != there.neighbours[back].unchoked;
            }
        }
        self.end_spread_if_over(at);
    }

    /// When everything has reached somebody, everybody may ask the seed for anything.
    fn end_spread_if_over(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let Some(spread) = &peer.spread else { return };
        let arrived = |piece| peer.picker.availability(piece) > 0;
        if spread.is_over() && self.geometry.pieces().all(arrived) {
            peer.spread = None;
        }
    }

    /// A complete peer goes.
    pub(super) fn leave(&mut self, at: usize) {
        while let Some(flow) = self.peers[at].flows.pop() {
            self.end_flow(at, flow);
        }
        for place in 0..self.peers[at].neighbours.len() {
            let neighbour = &self.peers[at].neighbours[place];
            let (other, back) = (neighbour.peer as usize, neighbour.back as usize);
            self.hear(other, true);
            let there = &mut self.peers[other];
            let one = &mut there.neighbours[back];
            (one.gone, one.useful, one.interested) = (true, false, false);
            there.connections -= 1;
            there.picker.peer_left(&self.have[at]);
        }
        self.peers[at].gone = true;
        let number = u32::try_from(at).expect("peers are counted in u32");
        self.tracked.retain(|&tracked| tracked != number);
    }
}
