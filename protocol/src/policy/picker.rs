//! Which blocks to ask a peer for: the open piece it is on, then any piece begun, then the rarest
//! piece it has (a random one while we have next to nothing to trade).
//!
//! Pieces not begun stand in buckets by availability, so the rarest is found without sorting. Peers
//! that have everything raise all pieces alike, and are therefore only counted.

use crate::bitfield::Bitfield;
use crate::geometry::{Block, Geometry};
use crate::ids::{PeerKey, PieceIndex};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// While we have fewer pieces than this, pieces are begun at random: something to trade soon is
/// worth more than something rare late.
const RANDOM_FIRST_PIECES: u32 = 4;

/// A piece begun goes before one that so many fewer peers have, if anybody but seeds has that: half a
/// piece is of no use to others.
const FINISH_FIRST: u16 = 2;

/// The state of a piece, as far as requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody here wants it.
    Unwanted,
    /// Wanted, not begun: in a bucket.
    Free,
    /// Begun: in `open`.
    Open,
    /// Verified and on disk.
    Have,
}

/// A block of an open piece.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requesters: u8,
    received: bool,
}

#[derive(Debug)]
struct Open {
    slots: Vec<Slot>,
    /// Slots that nobody was asked for and that have not come.
    free: u32,
    received: u32,
    /// If set, nobody else may add blocks: the blame for a wrong piece must be clear, or an HTTP
    /// range must stay contiguous.
    owner: Option<PeerKey>,
    /// Who delivered at least one block, without repetition.
    contributors: Vec<PeerKey>,
}

/// Who asks [`Picker::pick`] for work.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The peer that will be asked.
    pub peer: PeerKey,
    /// What it has.
    pub have: &'a Bitfield,
    /// The piece it was last asked for.
    pub current: Option<PieceIndex>,
    /// Only whole pieces of its own: for a peer on parole.
    pub exclusive: bool,
    /// Only these pieces, in this order: it chokes us but for them, or suggests them (BEP 6).
    pub only: Option<&'a [PieceIndex]>,
}

/// What became of a block that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Write it. `others` requests for it are out at other peers.
    Needed {
        /// Requests for the same block elsewhere.
        others: u8,
    },
    /// It is there already.
    Duplicate,
}

/// Picks blocks, and knows of each whether it is wanted, asked for, or in.
#[derive(Debug)]
pub struct Picker {
    geometry: Arc<Geometry>,
    state: Vec<State>,
    have: Bitfield,
    /// Peers without everything that have the piece.
    availability: Vec<u16>,
    /// Peers that have everything.
    full_peers: u16,
    buckets: Vec<Vec<u32>>,
    place: Vec<u32>,
    open: BTreeMap<PieceIndex, Open>,
    /// Blocks that may be asked for: of free pieces, and free slots of open ones.
    free_blocks: u64,
    wanted_left: u32,
}

impl Picker {
    /// Starts from what is on disk and what is wanted. Pieces without data count as had.
    pub fn new(geometry: Arc<Geometry>, have: &Bitfield, wanted: &Bitfield) -> Self {
        let count = geometry.piece_count();
        let mut picker = Self {
            state: vec![State::Unwanted; count as usize],
            have: Bitfield::empty(count),
            availability: vec![0; count as usize],
            full_peers: 0,
            buckets: vec![Vec::new()],
            place: vec![0; count as usize],
            open: BTreeMap::new(),
            free_blocks: 0,
            wanted_left: 0,
            geometry,
        };
        for piece in (0..count).map(PieceIndex) {
            if have.has(piece) || picker.geometry.data_len(piece) == 0 {
                picker.state[piece.get()] = State::Have;
                picker.have.insert(piece);
            } else if wanted.has(piece) {
                picker.wanted_left += 1;
                picker.free_piece(piece);
            }
        }
        picker
    }

    /// The pieces on disk.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// True when nothing wanted is missing.
    pub fn is_complete(&self) -> bool {
        self.wanted_left == 0
    }

    /// Wanted pieces not yet verified.
    pub fn wanted_left(&self) -> u32 {
        self.wanted_left
    }

    /// True if `piece` is wanted and not yet verified.
    pub fn wants(&self, piece: PieceIndex) -> bool {
        matches!(self.state[piece.get()], State::Free | State::Open)
    }

    /// Blocks that nobody has been asked for. At 0 the endgame begins.
    pub fn free_blocks(&self) -> u64 {
        self.free_blocks
    }

    /// How many peers have `piece`.
    pub fn availability(&self, piece: PieceIndex) -> u16 {
        self.availability[piece.get()].saturating_add(self.full_peers)
    }

    /// The number of wanted pieces that `have` could give.
    pub fn useful(&self, have: &Bitfield) -> u32 {
        if have.is_full() {
            return self.wanted_left;
        }
        let count = have.iter().filter(|&piece| self.wants(piece)).count();
        u32::try_from(count).expect("pieces are counted in u32")
    }

    /// A peer came (or told its BITFIELD).
    pub fn peer_joined(&mut self, have: &Bitfield) {
        if counts_as_full(have) {
            self.full_peers += 1;
        } else {
            have.iter().for_each(|piece| self.shift(piece, true));
        }
    }

    /// A peer left; `have` is all that was counted of it.
    pub fn peer_left(&mut self, have: &Bitfield) {
        if counts_as_full(have) {
            self.full_peers -= 1;
        } else {
            have.iter().for_each(|piece| self.shift(piece, false));
        }
    }

    /// A peer told a HAVE. `complete` if it has everything with it: then it counts as a full peer.
    pub fn peer_gained(&mut self, piece: PieceIndex, complete: bool) {
        if complete {
            let all = (0..self.geometry.piece_count()).map(PieceIndex);
            all.filter(|&other| other != piece).for_each(|other| self.shift(other, false));
            self.full_peers += 1;
        } else {
            self.shift(piece, true);
        }
    }

    /// A peer's claim to a piece no longer counts. `was_full` if it had everything until now.
    pub fn peer_lost(&mut self, piece: PieceIndex, was_full: bool) {
        if was_full {
            self.full_peers -= 1;
            let all = (0..self.geometry.piece_count()).map(PieceIndex);
            all.filter(|&other| other != piece).for_each(|other| self.shift(other, true));
        } else {
            self.shift(piece, false);
        }
    }

    /// Appends up to `count` blocks for the asking peer to `out` and counts them as requested.
    pub fn pick(&mut self, ask: &Ask, count: usize, rng: &mut fastrand::Rng, out: &mut Vec<Block>) {
        let goal = out.len() + count;
        if let Some(only) = ask.only {
            for &piece in only.iter().filter(|&&piece| ask.have.has(piece)) {
                if out.len() >= goal {
                    break;
                }
                if self.state[piece.get()] == State::Free {
                    self.begin(piece, ask.exclusive.then_some(ask.peer));
                }
                self.pick_open(ask, piece, goal, out);
            }
            return;
        }
        if let Some(current) = ask.current {
            self.pick_open(ask, current, goal, out);
        }
        if out.len() >= goal {
            return; // Most often: nothing else need be looked at.
        }
        // The rarest of those begun, last.
        let mut begun: Vec<(Reverse<u16>, PieceIndex)> = self
            .open
            .iter()
            .filter(|(piece, open)| {
                let free = open.owner.map_or(!ask.exclusive, |owner| owner == ask.peer);
                open.free > 0 && free && ask.have.has(**piece)
            })
            .map(|(&piece, _)| (Reverse(self.availability[piece.get()]), piece))
            .collect();
        begun.sort_unstable();
        let mut rarest = self.rarest(ask, rng);
        while out.len() < goal {
            let finish = begun.last().is_some_and(|&(Reverse(peers), _)| {
                rarest.is_none_or(|piece| {
                    let fewest = self.availability[piece.get()];
                    peers <= fewest || (fewest > 0 && peers <= fewest + FINISH_FIRST)
                })
            });
            let next = if finish { begun.pop().map(|(_, piece)| piece) } else { rarest };
            let Some(piece) = next else { break };
            if !finish {
                self.begin(piece, ask.exclusive.then_some(ask.peer));
                rarest = self.rarest(ask, rng);
            }
            self.pick_open(ask, piece, goal, out);
        }
        if ask.exclusive && out.is_empty() {
            // No piece is left to be its own: shared blame is better than none to ask.
            let begun: Vec<PieceIndex> = self.open.keys().copied().collect();
            for piece in begun {
                self.pick_open(ask, piece, goal, out);
            }
        }
    }

    /// Reserves a run of pieces that nobody is at work on for HTTP: as many as fit in `bytes_max` (at least one), the
    /// longest run looked for from a random place so that different clients take different ranges.
    /// With `nobody_only` just pieces that no peer has.
    pub fn take_span(
        &mut self,
        owner: PeerKey,
        bytes_max: u64,
        nobody_only: bool,
        rng: &mut fastrand::Rng,
    ) -> Option<Range<u32>> {
        let count = self.geometry.piece_count();
        let fits = |picker: &Self, piece: u32| {
            let piece = PieceIndex(piece);
            let idle = match picker.state[piece.get()] {
                State::Free => true,
                // Begun, and left by whoever began it.
                State::Open => picker.open.get(&piece).is_some_and(|open| {
                    open.free > 0
                        && open.owner.is_none()
                        && open.slots.iter().all(|slot| slot.requesters == 0)
                }),
                State::Unwanted | State::Have => false,
            };
            idle && (!nobody_only || picker.availability(piece) == 0)
        };
        let from = rng.u32(0..count.max(1));
        let first = (from..count).chain(0..from).find(|&piece| fits(self, piece))?;
        let mut bytes = u64::from(self.geometry.data_len(PieceIndex(first)));
        let mut end = first + 1;
        while end < count && fits(self, end) {
            bytes += u64::from(self.geometry.data_len(PieceIndex(end)));
            if bytes > bytes_max {
                break;
            }
            end += 1;
        }
        for piece in (first..end).map(PieceIndex) {
            if self.state[piece.get()] == State::Free {
                self.begin(piece, Some(owner));
            }
            let open = self.open.get_mut(&piece).expect("free pieces were begun just now");
            open.owner = Some(owner);
            for slot in open.slots.iter_mut().filter(|slot| !slot.received) {
                slot.requesters = 1;
            }
            self.free_blocks -= u64::from(open.free);
            open.free = 0;
        }
        Some(first..end)
    }

    /// Gives back what is left of an HTTP span: its blocks may be asked for elsewhere.
    pub fn return_span(&mut self, span: Range<u32>) {
        for piece in span.map(PieceIndex) {
            let Some(open) = self.open.get_mut(&piece) else { continue };
            open.owner = None;
            for slot in &mut open.slots {
                if !slot.received && slot.requesters > 0 {
                    slot.requesters -= 1;
                    if slot.requesters == 0 {
                        open.free += 1;
                        self.free_blocks += 1;
                    }
                }
            }
            self.close_if_untouched(piece);
        }
    }

    /// Counts one more request for a block that is out already: the endgame.
    pub fn request_again(&mut self, block: Block) -> bool {
        let Some(index) = self.geometry.block_index(block) else { return false };
        let Some(open) = self.open.get_mut(&block.piece) else { return false };
        let slot = &mut open.slots[index as usize];
        if slot.received || slot.requesters == 0 || slot.requesters == u8::MAX {
            return false;
        }
        slot.requesters += 1;
        true
    }

    /// A request will not be answered: rejected, timed out, or its peer is gone.
    pub fn release(&mut self, block: Block) {
        let Some(index) = self.geometry.block_index(block) else { return };
        let Some(open) = self.open.get_mut(&block.piece) else { return };
        let slot = &mut open.slots[index as usize];
        if slot.received || slot.requesters == 0 {
            return;
        }
        slot.requesters -= 1;
        if slot.requesters == 0 {
            open.free += 1;
            self.free_blocks += 1;
            // Nobody is at work on it any more, so nobody's claim on it stands.
            if open.slots.iter().all(|slot| slot.requesters == 0) {
                open.owner = None;
            }
            self.close_if_untouched(block.piece);
        }
    }

    /// What `peer` had to itself is anybody's.
    pub fn disown(&mut self, peer: PeerKey) {
        for open in self.open.values_mut().filter(|open| open.owner == Some(peer)) {
            open.owner = None;
        }
    }

    /// A block came that `peer` was asked for.
    pub fn received(&mut self, block: Block, peer: PeerKey) -> Receipt {
        let Some(index) = self.geometry.block_index(block) else { return Receipt::Duplicate };
        if self.state[block.piece.get()] == State::Free {
            self.begin(block.piece, None); // It was given up, and came all the same.
        }
        let Some(open) = self.open.get_mut(&block.piece) else { return Receipt::Duplicate };
        let slot = &mut open.slots[index as usize];
        if slot.received {
            return Receipt::Duplicate;
        }
        slot.received = true;
        let others = slot.requesters.saturating_sub(1);
        if slot.requesters == 0 {
            // It was given up and came all the same.
            open.free -= 1;
            self.free_blocks -= 1;
        }
        slot.requesters = 0;
        open.received += 1;
        if !open.contributors.contains(&peer) {
            open.contributors.push(peer);
        }
        Receipt::Needed { others }
    }

    /// True if the block is missing and somebody has been asked for it.
    pub fn is_out(&self, block: Block) -> bool {
        let Some(index) = self.geometry.block_index(block) else { return false };
        self.open.get(&block.piece).is_some_and(|open| {
            let slot = open.slots[index as usize];
            !slot.received && slot.requesters > 0
        })
    }

    /// `piece` is on disk and right. Returns those who delivered it.
    pub fn verified(&mut self, piece: PieceIndex) -> Vec<PeerKey> {
        let contributors = match self.state[piece.get()] {
            State::Have => return Vec::new(),
            State::Open => {
                let open = self.open.remove(&piece).expect("open pieces are in the map");
                self.free_blocks -= u64::from(open.free);
                self.wanted_left -= 1;
                open.contributors
            }
            State::Free => {
                self.unplace(piece);
                self.wanted_left -= 1;
                Vec::new()
            }
            State::Unwanted => Vec::new(),
        };
        self.state[piece.get()] = State::Have;
        self.have.insert(piece);
        contributors
    }

    /// `piece` came in whole and is wrong: it is wanted anew. Returns those who delivered it.
    pub fn wrong(&mut self, piece: PieceIndex) -> Vec<PeerKey> {
        let Some(open) = self.open.remove(&piece) else { return Vec::new() };
        self.free_blocks -= u64::from(open.free);
        self.free_piece(piece);
        open.contributors
    }

    /// `piece` was on disk and no longer is: wanted anew if `want`.
    pub fn lost(&mut self, piece: PieceIndex, want: bool) {
        if self.state[piece.get()] != State::Have || self.geometry.data_len(piece) == 0 {
            return;
        }
        self.have.remove(piece);
        if want {
            self.wanted_left += 1;
            self.free_piece(piece);
        } else {
            self.state[piece.get()] = State::Unwanted;
        }
    }

    fn pick_open(&mut self, ask: &Ask, piece: PieceIndex, goal: usize, out: &mut Vec<Block>) {
        if !ask.have.has(piece) {
            return;
        }
        let Some(open) = self.open.get_mut(&piece) else { return };
        if open.free == 0 || open.owner.is_some_and(|owner| owner != ask.peer) {
            return;
        }
        for (slot, index) in open.slots.iter_mut().zip(0..) {
            if out.len() >= goal || open.free == 0 {
                break;
            }
            if !slot.received && slot.requesters == 0 {
                slot.requesters = 1;
                open.free -= 1;
                self.free_blocks -= 1;
                out.push(self.geometry.block(piece, index));
            }
        }
    }

    fn rarest(&self, ask: &Ask, rng: &mut fastrand::Rng) -> Option<PieceIndex> {
        let fits = |&piece: &u32| ask.have.has(PieceIndex(piece));
        if self.have.count() < RANDOM_FIRST_PIECES {
            let from = rng.u32(0..self.geometry.piece_count().max(1));
            let order = (from..self.geometry.piece_count()).chain(0..from);
            return order
                .filter(|&piece| self.state[piece as usize] == State::Free)
                .find(fits)
                .map(PieceIndex);
        }
        self.buckets.iter().filter(|bucket| !bucket.is_empty()).find_map(|bucket| {
            let (after, before) = bucket.split_at(rng.usize(0..bucket.len()));
            before.iter().chain(after).copied().find(fits).map(PieceIndex)
        })
    }

    fn begin(&mut self, piece: PieceIndex, owner: Option<PeerKey>) {
        self.unplace(piece);
        let blocks = self.geometry.block_count(piece);
        self.free_blocks += u64::from(blocks);
        self.state[piece.get()] = State::Open;
        let slots = vec![Slot::default(); blocks as usize];
        let open = Open { slots, free: blocks, received: 0, owner, contributors: Vec::new() };
        self.open.insert(piece, open);
    }

    /// An open piece without blocks or requests goes back to its bucket.
    fn close_if_untouched(&mut self, piece: PieceIndex) {
        let untouched = |open: &Open| open.received == 0 && open.free as usize == open.slots.len();
        if self.open.get(&piece).is_some_and(untouched) {
            let open = self.open.remove(&piece).expect("looked up in the line before");
            self.free_blocks -= u64::from(open.free);
            self.free_piece(piece);
        }
    }

    fn free_piece(&mut self, piece: PieceIndex) {
        self.state[piece.get()] = State::Free;
        self.free_blocks += u64::from(self.geometry.block_count(piece));
        self.put(piece);
    }

    /// Takes a free piece out of its bucket, and its blocks out of the count.
    fn unplace(&mut self, piece: PieceIndex) {
        assert_eq!(self.state[piece.get()], State::Free, "only free pieces are in buckets");
        self.free_blocks -= u64::from(self.geometry.block_count(piece));
        self.cut(piece);
    }

    fn shift(&mut self, piece: PieceIndex, up: bool) {
        let placed = self.state[piece.get()] == State::Free;
        if placed {
            self.cut(piece);
        }
        let availability = &mut self.availability[piece.get()];
        *availability = if up {
            availability.saturating_add(1)
        } else {
            availability.checked_sub(1).expect("only what was counted is taken back")
        };
        if placed {
            self.put(piece);
        }
    }

    fn put(&mut self, piece: PieceIndex) {
        let at = usize::from(self.availability[piece.get()]);
        if self.buckets.len() <= at {
            self.buckets.resize_with(at + 1, Vec::new);
        }
        let bucket = &mut self.buckets[at];
        self.place[piece.get()] = u32::try_from(bucket.len()).expect("pieces are counted in u32");
        bucket.push(piece.0);
    }

    fn cut(&mut self, piece: PieceIndex) {
        let bucket = &mut self.buckets[usize::from(self.availability[piece.get()])];
        let place = self.place[piece.get()];
        let removed = bucket.swap_remove(place as usize);
        assert_eq!(removed, piece.0, "the place of a piece is kept in step");
        if let Some(&moved) = bucket.get(place as usize) {
            self.place[moved as usize] = place;
        }
    }
}

/// A torrent without pieces has nobody who has everything.
fn counts_as_full(have: &Bitfield) -> bool {
    have.is_full() && !have.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BLOCK_LEN, FileSpan};
    use proptest::prelude::*;

    fn picker(pieces: u32, have: &str) -> Picker {
        let total = u64::from(pieces) * 32_768;
        let files = vec![FileSpan { offset: 0, length: total }];
        let geometry = Arc::new(Geometry::new(32_768, total, files).unwrap());
        Picker::new(geometry, &field(have), &Bitfield::full(pieces))
    }

    fn field(text: &str) -> Bitfield {
        let mut field = Bitfield::empty(u32::try_from(text.len()).unwrap());
        for (at, bit) in (0..).zip(text.chars()) {
            if bit == '1' {
                field.insert(PieceIndex(at));
            }
        }
        field
    }

    /// `have` ours, `others` the bitfields of the peers around, `theirs` of the peer that is asked.
    fn check(have: &str, others: &[&str], theirs: &str, expected: &[u32]) {
        let mut picker = picker(u32::try_from(have.len()).unwrap(), have);
        others.iter().for_each(|other| picker.peer_joined(&field(other)));
        picker.peer_joined(&field(theirs));
        let their_field = field(theirs);
        let ask = Ask {
            peer: PeerKey(1),
            have: &their_field,
            current: None,
            exclusive: false,
            only: None,
        };
        let mut out = Vec::new();
        picker.pick(&ask, 2 * expected.len(), &mut fastrand::Rng::with_seed(1), &mut out);
        let mut pieces: Vec<u32> = out.iter().map(|block| block.piece.0).collect();
        pieces.dedup();
        assert_eq!(pieces, expected);
    }

    #[test]
    fn rarest_first() {
        check("11110000", &["00001110", "00000110", "00000010"], "11111110", &[4, 5, 6]);
        check("11110000", &["00001111", "00000111"], "11110001", &[7]);
    }

    #[test]
    fn what_the_peer_lacks_is_never_picked() {
        check("11110000", &["00001111"], "11110000", &[]);
    }

    #[test]
    fn a_piece_begun_is_finished_before_another_is_begun() {
        let mut picker = picker(6, "111100");
        let full = Bitfield::full(6);
        picker.peer_joined(&full);
        let ask = |peer| Ask {
            peer: PeerKey(peer),
            have: &full,
            current: None,
            exclusive: false,
            only: None,
        };
        let (mut rng, mut out) = (fastrand::Rng::with_seed(3), Vec::new());
        picker.pick(&ask(1), 1, &mut rng, &mut out);
        picker.pick(&ask(2), 1, &mut rng, &mut out);
        assert_eq!(out[0].piece, out[1].piece);
        assert_ne!(out[0].offset, out[1].offset);
    }

    #[test]
    fn a_piece_on_parole_is_one_peers_alone() {
        let mut picker = picker(6, "111100");
        let full = Bitfield::full(6);
        let ask = |peer, exclusive| Ask {
            peer: PeerKey(peer),
            have: &full,
            current: None,
            exclusive,
            only: None,
        };
        let (mut rng, mut out) = (fastrand::Rng::with_seed(3), Vec::new());
        picker.pick(&ask(1, true), 1, &mut rng, &mut out);
        picker.pick(&ask(2, false), 1, &mut rng, &mut out);
        assert_ne!(out[0].piece, out[1].piece);
    }

    proptest! {
        /// Whatever happens to requests, no block is lost and the counters agree with the slots.
        #[test]
        fn no_block_is_ever_lost(
            pieces in 1u32..12,
            ops in prop::collection::vec((0u8..8, any::<u32>(), 0u32..3), 0..300),
        ) {
            let mut picker = picker(pieces, &"0".repeat(pieces as usize));
            let mut rng = fastrand::Rng::with_seed(5);
            let full = Bitfield::full(pieces);
            let mut out: Vec<(u32, Block)> = Vec::new();
            let mut spans: Vec<Range<u32>> = Vec::new();
            picker.peer_joined(&full);
            for (op, any, peer) in ops {
                match op {
                    0 | 1 => {
                        let ask = Ask { peer: PeerKey(peer), have: &full, current: None, exclusive: op == 1, only: None };
                        let mut got = Vec::new();
                        picker.pick(&ask, (any % 5) as usize, &mut rng, &mut got);
                        out.extend(got.into_iter().map(|block| (peer, block)));
                    }
                    2 if !out.is_empty() => {
                        let (_, block) = out.swap_remove(any as usize % out.len());
                        picker.release(block);
                    }
                    3 | 4 if !out.is_empty() => {
                        let (peer, block) = out.swap_remove(any as usize % out.len());
                        picker.received(block, PeerKey(peer));
                    }
                    5 => spans.extend(picker.take_span(PeerKey(9), u64::from(any % 100_000), false, &mut rng)),
                    6 => if let Some(span) = spans.pop() { picker.return_span(span); },
                    7 => {
                        let whole: Vec<_> = picker.open.iter()
                            .filter(|(_, open)| open.received as usize == open.slots.len())
                            .map(|(&piece, _)| piece).collect();
                        for piece in whole {
                            let held = spans.iter().any(|span| span.contains(&piece.0));
                            if any % 2 == 0 { picker.verified(piece); }
                            else if !held { picker.wrong(piece); out.retain(|(_, block)| block.piece != piece); }
                        }
                    }
                    _ => {}
                }
                let free: u64 = picker.geometry.pieces().map(|piece| match picker.state[piece.get()] {
                    State::Free => u64::from(picker.geometry.block_count(piece)),
                    State::Open => picker.open[&piece].slots.iter()
                        .filter(|slot| !slot.received && slot.requesters == 0).count() as u64,
                    State::Have | State::Unwanted => 0,
                }).sum();
                prop_assert_eq!(picker.free_blocks(), free);
                prop_assert_eq!(picker.wanted_left() + picker.have().count(), pieces);
            }
            for span in spans { picker.return_span(span); }
            for (_, block) in out { picker.release(block); }
            let ask = Ask { peer: PeerKey(1), have: &full, current: None, exclusive: false, only: None };
            let mut rest = Vec::new();
            picker.pick(&ask, usize::MAX >> 1, &mut rng, &mut rest);
            for block in rest {
                prop_assert!(block.len <= BLOCK_LEN);
                picker.received(block, PeerKey(1));
            }
            let open: Vec<_> = picker.open.keys().copied().collect();
            for piece in open { picker.verified(piece); }
            prop_assert!(picker.is_complete());
        }
    }
}
