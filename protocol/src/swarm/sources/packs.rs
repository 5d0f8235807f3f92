//! Packs: runs of pieces that come compressed, where that is cheaper than to fetch what is missing of them.

use super::Source;
use crate::geometry::Span;
use crate::ids::{PeerKey, PieceIndex};
use crate::policy::http;
use crate::swarm::Swarm;

/// Packs remembered for each source until all their pieces are verified: far more than are under way.
const TRIED_MAX: usize = 64;

/// A pack under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unpacking {
    number: usize,
    /// Compressed, unpacked, and what has come of the latter, in bytes.
    packed: u64,
    length: u64,
    done: u64,
}

impl Unpacking {
    /// Which pack it is.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Compressed bytes.
    pub(super) fn packed(&self) -> u64 {
        self.packed
    }

    /// `bytes` more have been unpacked: how many compressed ones that makes. In all exactly its length.
    pub(super) fn share(&mut self, bytes: u64) -> u64 {
        let came = |done: u64| self.packed * done.min(self.length) / self.length.max(1);
        let before = came(self.done);
        self.done += bytes;
        came(self.done) - before
    }
}

impl Source {
    /// `fetch` brings `pack`.
    pub(super) fn try_pack(&mut self, fetch: PeerKey, pack: usize) {
        self.packs_tried.truncate(TRIED_MAX - 1);
        self.packs_tried.push_front((fetch, pack));
    }

    /// If `fetch` brought a pack, this is asked for no more. True if so.
    pub(super) fn lose_pack_of(&mut self, fetch: PeerKey) -> bool {
        let tried = self.packs_tried.iter().find(|(name, _)| *name == fetch);
        let pack = tried.map(|(_, pack)| *pack);
        self.packs_lost.extend(pack);
        pack.is_some()
    }

    fn gave_up_packs(&self) -> bool {
        self.packs_lost.len() >= http::PACKS_LOST_MAX
    }
}

impl Swarm {
    /// The pack that `piece` is in, by number.
    pub(super) fn pack_of(&self, piece: PieceIndex) -> Option<usize> {
        let packs = &self.http.packs;
        let pack = packs.partition_point(|pack| pack.pieces.end <= piece.0);
        packs.get(pack).is_some_and(|pack| pack.pieces.contains(&piece.0)).then_some(pack)
    }

    /// The piece after `first` where a range has to end that brings pieces as they are: a pack of which a
    /// part is there already is worth less.
    pub(super) fn next_pack_border(&self, source: usize, first: PieceIndex) -> u32 {
        let packs = &self.http.packs;
        let pack = packs.partition_point(|pack| pack.pieces.end <= first.0);
        match packs.get(pack) {
            Some(_) if self.http.sources[source].gave_up_packs() => u32::MAX,
            Some(pack) if pack.pieces.start > first.0 => pack.pieces.start,
            Some(pack) => pack.pieces.end,
            None => u32::MAX,
        }
    }

    /// Reserves what nobody has begun in the pack that `first` is in, if the pack is cheaper than that and
    /// has at most `bytes_max` bytes, or one piece. `wanted` are pieces that the source may bring now.
    pub(super) fn take_pack(
        &mut self,
        source: usize,
        fetch: PeerKey,
        bytes_max: u64,
        first: PieceIndex,
        wanted: impl Fn(PieceIndex) -> bool,
    ) -> Option<(Span, Unpacking)> {
        let number = self.pack_of(first)?;
        let pack = &self.http.packs[number];
        let from = &self.http.sources[source];
        let fits = pack.bytes <= bytes_max || pack.pieces.len() == 1;
        if from.gave_up_packs() || from.packs_lost.contains(&number) || !fits {
            return None;
        }
        let idle = |&piece: &PieceIndex| self.picker.is_untouched(piece) && wanted(piece);
        let idle: Vec<PieceIndex> = pack.pieces.clone().map(PieceIndex).filter(idle).collect();
        let missing = idle.iter().map(|&piece| u64::from(self.geometry.data_len(piece))).sum();
        let count = u32::try_from(idle.len()).expect("pieces are counted in u32");
        if !pack.pays(missing, count) {
            return None;
        }
        let (span, packed) = (Span::of_pieces(pack.pieces.clone()), pack.bytes);
        self.picker.take_untouched(fetch, idle.into_iter());
        self.http.sources[source].try_pack(fetch, number);
        let length = self.geometry.bytes_of(span);
        Some((span, Unpacking { number, packed, length, done: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_pack() {
        for (packed, length) in [(10, 1000), (1000, 10), (7, 7), (1, 0)] {
            let mut pack = Unpacking { number: 0, packed, length, done: 0 };
            let sum: u64 = (0..length).map(|_| pack.share(1)).sum();
            assert_eq!(sum, if length == 0 { 0 } else { packed });
            assert_eq!(pack.share(5), 0, "no more than all of it");
        }
    }

    #[test]
    fn a_source_without_packs_is_found_out() {
        let mut source = Source::default();
        assert!(!source.lose_pack_of(PeerKey(1)), "no pack came by that name");
        for name in 1..100 {
            source.try_pack(PeerKey(name), name as usize);
        }
        assert!(!source.lose_pack_of(PeerKey(1)), "long ago");
        assert!((0..3).all(|_| source.lose_pack_of(PeerKey(98))) && !source.gave_up_packs());
        assert!(source.lose_pack_of(PeerKey(97)) && source.lose_pack_of(PeerKey(96)));
        assert!(source.gave_up_packs());
    }
}
