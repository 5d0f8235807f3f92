//! Ranges for HTTP: runs of blocks that are reserved, and given back where they did not come.

use super::{Open, Picker, Slot, State};
use crate::geometry::Span;
use crate::ids::{PeerKey, PieceIndex};

impl Picker {
    /// Reserves pieces for HTTP that nobody is at work on: from `first`, which [`Self::next_idle`] gave, on
    /// those that follow it and have the same first part of the `rank`, as many as fit in `bytes_max`, none from piece
    /// `until` on. What has no rank is left alone. A piece that somebody began and left is a range of its own, of what it
    /// lacks.
    pub fn take_span<G: Ord, N: Ord>(
        &mut self,
        fetch: PeerKey,
        bytes_max: u64,
        (first, until): (PieceIndex, u32),
        rank: impl Fn(PieceIndex) -> Option<(G, N)>,
    ) -> Span {
        let best = rank(first);
        if self.state[first.get()] == State::Open {
            return self.take_rest(fetch, first);
        }
        let mut bytes = u64::from(self.geometry.data_len(first));
        let mut end = first.0 + 1;
        while let Some(next) = self.geometry.piece(end).filter(|next| next.0 < until) {
            bytes += u64::from(self.geometry.data_len(next));
            let alike = rank(next).zip(best.as_ref()).is_some_and(|(next, best)| next.0 == best.0);
            if self.state[next.get()] != State::Free || !alike || bytes > bytes_max {
                break;
            }
            end += 1;
        }
        self.take_untouched(fetch, (first.0..end).map(PieceIndex));
        Span::of_pieces(first.0..end)
    }

    /// The piece of the least `rank` among those that nobody is at work on, where [`Self::take_span`] begins.
    pub fn next_idle<R: Ord>(
        &self,
        untouched: bool,
        rank: impl Fn(PieceIndex) -> Option<R>,
    ) -> Option<PieceIndex> {
        let left_over = |open: &Open| {
            open.free > 0
                && open.owner.is_none()
                && open.slots.iter().all(|slot| slot.requesters == 0)
        };
        let (mut first, mut best) = (None, None);
        for piece in self.geometry.pieces() {
            let idle = match self.state[piece.get()] {
                State::Free => true,
                State::Open => !untouched && self.open.get(&piece).is_some_and(left_over),
                State::Unwanted | State::Have => false,
            };
            let rank = if idle { rank(piece) } else { None };
            if rank.is_some() && (best.is_none() || rank < best) {
                (first, best) = (Some(piece), rank);
            }
        }
        first
    }

    /// True if nobody has begun `piece`, which is wanted.
    pub fn is_untouched(&self, piece: PieceIndex) -> bool {
        self.state[piece.get()] == State::Free
    }

    /// Reserves pieces for HTTP that nobody has begun.
    pub fn take_untouched(&mut self, fetch: PeerKey, pieces: impl Iterator<Item = PieceIndex>) {
        for piece in pieces {
            assert!(self.is_untouched(piece), "whoever began it goes on");
            self.begin(piece, Some(fetch));
            let open = self.open.get_mut(&piece).expect("begun just now");
            open.ranges.push(fetch);
            open.slots.iter_mut().for_each(|slot| slot.requesters = 1);
            self.free_blocks -= u64::from(open.free);
            open.free = 0;
        }
    }

    /// Reserves what an open piece lacks, from its first missing block to its last.
    fn take_rest(&mut self, fetch: PeerKey, piece: PieceIndex) -> Span {
        let open = self.open.get_mut(&piece).expect("it is open");
        let missing = |slot: &Slot| !slot.received;
        let first = open.slots.iter().position(missing).expect("it has free blocks");
        let last = open.slots.iter().rposition(missing).expect("it has free blocks");
        open.owner = Some(fetch);
        open.ranges.push(fetch);
        open.slots.iter_mut().filter(|slot| !slot.received).for_each(|slot| slot.requesters = 1);
        self.free_blocks -= u64::from(open.free);
        open.free = 0;
        let index = |at: usize| u32::try_from(at).expect("blocks are counted in u32");
        Span { start: (piece, index(first)), end: (piece, index(last) + 1) }
    }

    /// Has an HTTP range fetch blocks that others were asked for already: the endgame.
    pub fn double_span(&mut self, fetch: PeerKey, span: Span) {
        for piece in span.pieces().map(PieceIndex) {
            let Some(open) = self.open.get_mut(&piece) else { continue };
            open.ranges.push(fetch);
            for (slot, _) in open
                .slots
                .iter_mut()
                .zip(0..)
                .filter(|(slot, index)| !slot.received && span.contains(piece, *index))
            {
                if slot.requesters == 0 {
                    open.free -= 1;
                    self.free_blocks -= 1;
                }
                slot.requesters = slot.requesters.saturating_add(1);
            }
        }
    }

    /// Gives back what is left of an HTTP range: its blocks may be asked for elsewhere.
    pub fn return_span(&mut self, fetch: PeerKey, span: Span) {
        for piece in span.pieces().map(PieceIndex) {
            let Some(open) = self.open.get_mut(&piece) else { continue };
            // A piece that came in wrong and was begun anew has nothing to do with it.
            let Some(at) = open.ranges.iter().position(|range| *range == fetch) else { continue };
            open.ranges.swap_remove(at);
            open.owner = open.owner.filter(|owner| *owner != fetch);
            for (slot, _) in
                open.slots.iter_mut().zip(0..).filter(|(_, index)| span.contains(piece, *index))
            {
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
}
