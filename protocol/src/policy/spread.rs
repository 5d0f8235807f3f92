//! The publisher's seed gives each piece to somebody once before any twice, so that a full copy is out
//! when it has sent little more than one: then the crowd can do without it.
//!
//! What BEP 16 does by hiding pieces, this does by suggesting them (BEP 6) to peers that agreed to
//! ask for nothing else; only from others are pieces hidden. A peer is given as much as keeps it busy,
//! whatever became of what it was given before: the seed never waits while anybody wants data.

use crate::bitfield::Bitfield;
use crate::ids::PieceIndex;
use std::collections::VecDeque;

/// The pieces that nobody has been given.
#[derive(Debug)]
pub struct Spread {
    /// In the order they will be given; some have been seen elsewhere since.
    order: VecDeque<PieceIndex>,
    waiting: Bitfield,
}

impl Spread {
    /// Begins with all of `have`: runs of so many pieces in random order.
    pub fn new(have: &Bitfield, run: u32, rng: &mut fastrand::Rng) -> Self {
        let pieces: Vec<PieceIndex> = have.iter().collect();
        let mut runs: Vec<&[PieceIndex]> = pieces.chunk_by(|a, b| a.0 / run == b.0 / run).collect();
        rng.shuffle(&mut runs);
        Self { order: runs.concat().into(), waiting: have.clone() }
    }

    /// Takes the next piece for a peer that has `theirs`.
    pub fn next(&mut self, theirs: &Bitfield) -> Option<PieceIndex> {
        while self.order.front().is_some_and(|&piece| !self.waiting.has(piece)) {
            self.order.pop_front();
        }
        let fits = |&piece: &PieceIndex| self.waiting.has(piece) && !theirs.has(piece);
        let at = self.order.iter().position(fits)?;
        let piece = self.order.remove(at).expect("the position was found just now");
        self.waiting.remove(piece);
        Some(piece)
    }

    /// Takes `piece` if nobody has been given it.
    pub fn take(&mut self, piece: PieceIndex) -> bool {
        self.waiting.remove(piece)
    }

    /// Who was given `piece` will not have it: somebody else is to.
    pub fn give_back(&mut self, piece: PieceIndex) {
        if self.waiting.insert(piece) {
            self.order.push_front(piece);
        }
    }

    /// True when everything has been given to somebody.
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stay_together() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut spread = Spread::new(&Bitfield::full(22), 4, &mut rng);
        let nothing = Bitfield::empty(22);
        let given: Vec<u32> =
            std::iter::from_fn(|| spread.next(&nothing)).map(|piece| piece.0).collect();
        assert_ne!(given, (0..22).collect::<Vec<u32>>(), "in random order");
        let firsts = given.chunk_by(|a, b| a + 1 == *b).filter(|run| run[0] % 4 == 0).count();
        assert!(firsts <= 6 && given.len() == 22, "{given:?}");
    }

    #[test]
    fn each_piece_is_given_once() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut spread = Spread::new(&Bitfield::full(20), 1, &mut rng);
        let mut theirs = Bitfield::empty(20);
        theirs.insert(PieceIndex(7));
        assert!(spread.take(PieceIndex(3)) && !spread.take(PieceIndex(3)));
        let mut given: Vec<u32> =
            std::iter::from_fn(|| spread.next(&theirs)).map(|piece| piece.0).collect();
        assert_ne!(given, (0..20).collect::<Vec<u32>>(), "in random order");
        given.sort_unstable();
        assert_eq!(given, (0..20).filter(|piece| ![3, 7].contains(piece)).collect::<Vec<u32>>());
        assert!(!spread.is_over());
        spread.give_back(PieceIndex(9));
        let nothing = Bitfield::empty(20);
        assert_eq!(spread.next(&nothing), Some(PieceIndex(9)));
        assert_eq!(spread.next(&nothing), Some(PieceIndex(7)));
        assert!(spread.is_over() && spread.next(&nothing).is_none());
    }
}
