//! Which blocks to ask a peer for: the open piece it is on, then any piece begun, then the rarest
//! piece it has (a random one while we have next to nothing to trade).
//!
//! Pieces of a higher priority go first, the rarest first among equals. So that rarity is not starved
//! when everybody puts the same files first, every fourth piece is begun by rarity alone while others
//! collect pieces, too.
//!
//! Pieces not begun stand in buckets by priority and availability, so the rarest is found without
//! sorting. Peers that have everything raise all pieces alike, and are therefore only counted.

mod spans;

use crate::bitfield::Bitfield;
use crate::geometry::{Block, Geometry};
use crate::ids::{PeerKey, PieceIndex};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// While we have fewer pieces than this, pieces are begun at random: something to trade soon is
/// worth more than something rare late.
const RANDOM_FIRST_PIECES: u32 = 4;

/// A piece begun goes before one that so many fewer peers have, if anybody but seeds has that: half a
/// piece is of no use to others.
const FINISH_FIRST: u16 = 2;

/// With several priorities, one piece in so many is begun by rarity alone, as long as anybody but
/// seeds is there: pieces that everybody puts last must not die out.
const RARITY_EVERY: u32 = 4;

/// How much a file or a piece is wanted: 0 not at all, then the higher the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(pub u8);

impl Priority {
    /// Not to be fetched.
    pub const UNWANTED: Self = Self(0);
    /// To be fetched; above it is what is needed to start.
    pub const NORMAL: Self = Self(1);

    /// True if it is to be fetched at all.
    pub fn is_wanted(self) -> bool {
        self > Self::UNWANTED
    }

    /// True if somebody waits for it, and not just for the whole.
    pub fn is_first(self) -> bool {
        self > Self::NORMAL
    }
}

impl From<bool> for Priority {
    fn from(wanted: bool) -> Self {
        if wanted { Self::NORMAL } else { Self::UNWANTED }
    }
}

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
    /// HTTP ranges that have blocks of it, whole or in part.
    ranges: Vec<PeerKey>,
    /// Who delivered at least one block, without repetition.
    contributors: Vec<PeerKey>,
}

/// Pieces that go together, in bytes of the torrent: neighbours are alike, and compress well together;
/// more of them would leave a crowd with less to exchange.
const RUN_BYTES: u32 = 1 << 20;

/// How many pieces make a run; runs begin at multiples of that.
pub fn run_pieces(geometry: &Geometry) -> u32 {
    (RUN_BYTES / geometry.piece_length()).max(1)
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
    /// Peers that have everything, and others.
    full_peers: u16,
    partial_peers: u16,
    /// The free pieces, the highest priority first.
    classes: Vec<Class>,
    /// The class of each piece.
    class_of: Vec<u8>,
    place: Vec<u32>,
    /// Pieces begun so far.
    begun: u32,
    open: BTreeMap<PieceIndex, Open>,
    /// Blocks that may be asked for: of free pieces, and free slots of open ones.
    free_blocks: u64,
    wanted_left: u32,
}

/// The free pieces of one priority, by availability.
#[derive(Debug)]
struct Class {
    priority: Priority,
    /// Wanted pieces of it that are not verified.
    left: u32,
    buckets: Vec<Vec<u32>>,
}

impl Class {
    fn rarest(&self, rng: &mut fastrand::Rng, fits: impl Fn(&u32) -> bool) -> Option<PieceIndex> {
        self.buckets.iter().filter(|bucket| !bucket.is_empty()).find_map(|bucket| {
            let (after, before) = bucket.split_at(rng.usize(0..bucket.len()));
            before.iter().chain(after).copied().find(&fits).map(PieceIndex)
        })
    }
}

impl Picker {
    /// Starts from what is on disk and how much each piece is wanted. Pieces without data count as
    /// had.
    ///
    /// # Panics
    /// If there is not one priority for each piece.
    pub fn new(geometry: Arc<Geometry>, have: &Bitfield, priorities: &[Priority]) -> Self {
        let count = geometry.piece_count();
        assert_eq!(priorities.len(), count as usize, "one priority for each piece");
        let mut levels = priorities.to_vec();
        levels.sort_unstable();
        levels.dedup();
        let class_of = |priority: &Priority| {
            let below = levels.partition_point(|level| level <= priority);
            u8::try_from(levels.len() - below).expect("priorities are bytes")
        };
        let mut picker = Self {
            state: vec![State::Unwanted; count as usize],
            have: Bitfield::empty(count),
            availability: vec![0; count as usize],
            full_peers: 0,
            partial_peers: 0,
            class_of: priorities.iter().map(class_of).collect(),
            classes: levels
                .iter()
                .rev()
                .map(|&priority| Class { priority, left: 0, buckets: Vec::new() })
                .collect(),
            place: vec![0; count as usize],
            begun: 0,
            open: BTreeMap::new(),
            free_blocks: 0,
            wanted_left: 0,
            geometry,
        };
        for (piece, priority) in (0..count).map(PieceIndex).zip(priorities) {
            if have.has(piece) || picker.geometry.data_len(piece) == 0 {
                picker.state[piece.get()] = State::Have;
                picker.have.insert(piece);
            } else if priority.is_wanted() {
                picker.miss(piece);
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

    /// True if anything is needed first, there or not.
    pub fn has_first(&self) -> bool {
        self.classes.iter().any(|class| class.priority.is_first())
    }

    /// True if something that is needed first is not yet verified.
    pub fn lacks_first(&self) -> bool {
        self.classes.iter().any(|class| class.left > 0 && class.priority.is_first())
    }

    /// True if there are pieces that are neither there nor wanted.
    pub fn is_partial(&self) -> bool {
        self.have.count() + self.wanted_left < self.have.len()
    }

    /// True if `piece` is wanted and not yet verified.
    pub fn wants(&self, piece: PieceIndex) -> bool {
        matches!(self.state[piece.get()], State::Free | State::Open)
    }

    /// How much `piece` is wanted.
    pub fn priority(&self, piece: PieceIndex) -> Priority {
        self.classes[usize::from(self.class_of[piece.get()])].priority
    }

    /// Blocks of `piece` that are missing, by number, each with whether somebody was asked for it.
    pub fn missing_blocks(&self, piece: PieceIndex) -> impl Iterator<Item = (u32, bool)> + '_ {
        let free = if self.state[piece.get()] == State::Free {
            0..self.geometry.block_count(piece)
        } else {
            0..0
        };
        let slots = self.open.get(&piece).map_or(&[][..], |open| &open.slots);
        let missing = (0..).zip(slots).filter(|(_, slot)| !slot.received);
        let asked = missing.map(|(index, slot)| (index, slot.requesters > 0));
        free.map(|index| (index, false)).chain(asked)
    }

    /// Blocks that nobody has been asked for. At 0 the endgame begins.
    pub fn free_blocks(&self) -> u64 {
        self.free_blocks
    }

    /// How many peers have `piece`.
    pub fn availability(&self, piece: PieceIndex) -> u16 {
        self.availability[piece.get()].saturating_add(self.full_peers)
    }

    /// True if a peer that is itself collecting has `piece`.
    pub fn is_spread(&self, piece: PieceIndex) -> bool {
        self.availability[piece.get()] > 0
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
            self.partial_peers += 1;
            have.iter().for_each(|piece| self.shift(piece, true));
        }
    }

    /// A peer left; `have` is all that was counted of it.
    pub fn peer_left(&mut self, have: &Bitfield) {
        if counts_as_full(have) {
            self.full_peers -= 1;
        } else {
            self.partial_peers -= 1;
            have.iter().for_each(|piece| self.shift(piece, false));
        }
    }

    /// A peer told a HAVE. `complete` if it has everything with it: then it counts as a full peer.
    pub fn peer_gained(&mut self, piece: PieceIndex, complete: bool) {
        if complete {
            let all = (0..self.geometry.piece_count()).map(PieceIndex);
            all.filter(|&other| other != piece).for_each(|other| self.shift(other, false));
            self.full_peers += 1;
            self.partial_peers -= 1;
        } else {
            self.shift(piece, true);
        }
    }

    /// A peer's claim to a piece no longer counts. `was_full` if it had everything until now.
    pub fn peer_lost(&mut self, piece: PieceIndex, was_full: bool) {
        if was_full {
            self.full_peers -= 1;
            self.partial_peers += 1;
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
        // The first to go on with of those begun, last.
        let mut begun: Vec<(Reverse<(u8, u16)>, PieceIndex)> = self
            .open
            .iter()
            .filter(|(piece, open)| {
                let free = open.owner.map_or(!ask.exclusive, |owner| owner == ask.peer);
                open.free > 0 && free && ask.have.has(**piece)
            })
            .map(|(&piece, _)| {
                (Reverse((self.class_of[piece.get()], self.availability[piece.get()])), piece)
            })
            .collect();
        begun.sort_unstable();
        let mut rarest = self.next_free(ask, ask.current, rng);
        while out.len() < goal {
            let finish = begun.last().is_some_and(|&(Reverse((class, peers)), _)| {
                rarest.is_none_or(|piece| {
                    let fewest = self.availability[piece.get()];
                    let alike = peers <= fewest || (fewest > 0 && peers <= fewest + FINISH_FIRST);
                    let free = self.class_of[piece.get()];
                    class < free || (class == free && alike)
                })
            });
            let next = if finish { begun.pop().map(|(_, piece)| piece) } else { rarest };
            let Some(piece) = next else { break };
            if !finish {
                self.begin(piece, ask.exclusive.then_some(ask.peer));
                rarest = self.next_free(ask, Some(piece), rng);
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

    /// Blocks of pieces that are in, await their verdict, and that `peer` had a hand in.
    pub fn unjudged(&self, peer: PeerKey) -> usize {
        let full = |open: &&Open| open.received as usize == open.slots.len();
        let theirs = self.open.values().filter(|open| open.contributors.contains(&peer));
        theirs.filter(full).map(|open| open.slots.len()).sum()
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
                self.found(piece);
                open.contributors
            }
            State::Free => {
                self.unplace(piece);
                self.found(piece);
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
            self.miss(piece);
            self.free_piece(piece);
        } else {
            self.state[piece.get()] = State::Unwanted;
        }
    }

    fn miss(&mut self, piece: PieceIndex) {
        self.wanted_left += 1;
        self.classes[usize::from(self.class_of[piece.get()])].left += 1;
    }

    fn found(&mut self, piece: PieceIndex) {
        self.wanted_left -= 1;
        self.classes[usize::from(self.class_of[piece.get()])].left -= 1;
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

    /// The free piece to begin after `last`: the next one of the same run, if none is rarer.
    fn next_free(
        &self,
        ask: &Ask,
        last: Option<PieceIndex>,
        rng: &mut fastrand::Rng,
    ) -> Option<PieceIndex> {
        let rarest = self.rarest(ask, rng)?;
        let peers = |piece: PieceIndex| self.availability[piece.get()];
        let next = last.map(|last| PieceIndex(last.0.saturating_add(1))).filter(|&next| {
            self.state.get(next.get()) == Some(&State::Free)
                && next.0 % run_pieces(&self.geometry) != 0
                && ask.have.has(next)
                && self.class_of[next.get()] == self.class_of[rarest.get()]
                && peers(next) <= peers(rarest)
        });
        next.or(Some(rarest))
    }

    fn rarest(&self, ask: &Ask, rng: &mut fastrand::Rng) -> Option<PieceIndex> {
        let fits = |&piece: &u32| ask.have.has(PieceIndex(piece));
        if self.have.count() < RANDOM_FIRST_PIECES {
            let from = rng.u32(0..self.geometry.piece_count().max(1));
            let free = |class: usize, piece: usize| {
                self.state[piece] == State::Free && usize::from(self.class_of[piece]) == class
            };
            return (0..self.classes.len()).find_map(|class| {
                let mut order = (from..self.geometry.piece_count()).chain(0..from);
                order.find(|piece| free(class, *piece as usize) && fits(piece)).map(PieceIndex)
            });
        }
        let by_rarity = self.begun % RARITY_EVERY == RARITY_EVERY - 1 && self.partial_peers > 0;
        let mut found = self.classes.iter().filter_map(|class| class.rarest(rng, fits));
        if by_rarity {
            found.min_by_key(|piece| self.availability[piece.get()])
        } else {
            found.next()
        }
    }

    fn begin(&mut self, piece: PieceIndex, owner: Option<PeerKey>) {
        self.unplace(piece);
        let blocks = self.geometry.block_count(piece);
        self.free_blocks += u64::from(blocks);
        self.state[piece.get()] = State::Open;
        self.begun = self.begun.wrapping_add(1);
        let slots = vec![Slot::default(); blocks as usize];
        let (ranges, contributors) = (Vec::new(), Vec::new());
        let open = Open { slots, free: blocks, received: 0, owner, ranges, contributors };
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
        let buckets = &mut self.classes[usize::from(self.class_of[piece.get()])].buckets;
        if buckets.len() <= at {
            buckets.resize_with(at + 1, Vec::new);
        }
        let bucket = &mut buckets[at];
        self.place[piece.get()] = u32::try_from(bucket.len()).expect("pieces are counted in u32");
        bucket.push(piece.0);
    }

    fn cut(&mut self, piece: PieceIndex) {
        let class = &mut self.classes[usize::from(self.class_of[piece.get()])];
        let bucket = &mut class.buckets[usize::from(self.availability[piece.get()])];
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
mod tests;
