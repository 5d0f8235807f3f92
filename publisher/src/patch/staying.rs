//! Old files beside those that are matched as a whole: those that the new release has as well, and, when memory
//! does not hold all that changed, those of other parts. Pieces of them may turn up in new files, too.
//!
//! There is much more of them than memory holds: the new bytes that nothing explains yet are indexed, and the
//! old files are read past them, once.

use super::index::{Index, Rolling};
use super::parts::Piece;
use super::side::{Reader, Side};
use crate::Error;
use std::ops::Range;
use updraft_manifests::patch::equal_len;

/// Blocks of the old files, at multiples of their length.
const BLOCK: usize = 32;
/// A block of new bytes is indexed at every so many of them, at least: what is equal for three blocks and one
/// more is always found.
const STEP_MIN: u64 = 3;
/// New bytes that a part must explain alone to be of use.
const GAIN_MIN: usize = 64;
/// Places of one hash that are looked at.
const PLACES_MAX: usize = 8;
/// Bytes before and behind what is equal: more may be alike there.
const MARGIN: u64 = 4 << 10;
/// With fewer new bytes unexplained, nothing is read.
const WANTED_MIN: usize = 4 << 10;
/// Bytes read for each new byte unexplained: reading is a thousand times faster than what the byte
/// costs all players together.
const READ_FACTOR: u64 = 1 << 10;
/// Bytes read at once.
const CHUNK_LEN: usize = 1 << 20;

/// These old files.
pub(super) struct Staying<'a> {
    pub(super) side: &'a Side,
    pub(super) files: &'a [usize],
}

impl Staying<'_> {
    /// Parts of the files, at most `room` bytes, that have something in common with `new` within `gaps`,
    /// which are sorted. Takes about as much memory as `room`.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub(super) fn useful(
        &self,
        new: &[u8],
        gaps: &[Range<usize>],
        room: u64,
    ) -> Result<Vec<Piece>, Error> {
        let wanted: usize = gaps.iter().map(Range::len).sum();
        let worth = wanted >= WANTED_MIN && !self.files.is_empty();
        let Some(step) = step(new.len(), room).filter(|_| worth) else { return Ok(vec![]) };
        let index = Index::build(new, gaps, BLOCK, step);
        let mut search = Search { new, gaps, index, explained: vec![false; new.len() / BLOCK + 1] };
        let mut read_max = (wanted as u64).saturating_mul(READ_FACTOR);
        let (mut found, mut total) = (Vec::new(), 0);
        let (mut reader, mut buffer) = (Reader::default(), vec![0; CHUNK_LEN]);
        for &file in self.files {
            let length = self.side.tree.files()[file].length;
            if length > read_max {
                continue;
            }
            read_max -= length;
            let mut at = 0;
            while at < length {
                let chunk = usize::try_from(length - at).map_or(CHUNK_LEN, |l| l.min(CHUNK_LEN));
                let buffer = &mut buffer[..chunk];
                let read = reader.read(self.side, file, at, buffer);
                read.map_err(Error::disk("read", &self.side.paths[file]))?;
                for part in search.parts(buffer) {
                    let start = (at + part.start as u64).saturating_sub(MARGIN);
                    let end = (at + part.end as u64 + MARGIN).min(length);
                    total += add(&mut found, file, start..end);
                    if total > room {
                        found.pop();
                        return Ok(found);
                    }
                }
                at += chunk as u64;
            }
        }
        Ok(found)
    }
}

/// Every how many new bytes a block is indexed, so that the index fits beside them. Odd, so that blocks of
/// both sides meet again and again wherever they begin. `None` if next to nothing would be found so.
fn step(new_len: usize, room: u64) -> Option<usize> {
    let step = (4 * new_len as u64).div_ceil(room.max(1)).max(STEP_MIN) | 1;
    usize::try_from(step).ok().filter(|step| *step < 256)
}

/// Adds a part behind those before it; returns how many bytes that adds.
fn add(found: &mut Vec<Piece>, file: usize, range: Range<u64>) -> u64 {
    match found.last_mut() {
        Some(last) if last.file == file && range.start <= last.range.end => {
            let more = range.end.saturating_sub(last.range.end);
            last.range.end += more;
            more
        }
        Some(_) | None => {
            let len = range.end - range.start;
            found.push(Piece { file, range });
            len
        }
    }
}

struct Search<'a> {
    new: &'a [u8],
    gaps: &'a [Range<usize>],
    index: Index,
    /// By blocks of the new bytes.
    explained: Vec<bool>,
}

impl Search<'_> {
    /// The parts of `old` that explain new bytes, in order.
    fn parts(&mut self, old: &[u8]) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at + BLOCK <= old.len() {
            let best = self.best(old, at);
            at += BLOCK;
            if let Some((part, new)) = best {
                // Useful or not, what lies within it would only be found again.
                at = at.max(part.end / BLOCK * BLOCK);
                if self.explain(new) >= GAIN_MIN {
                    parts.push(part);
                }
            }
        }
        parts
    }

    /// The longest match through the block at `at`, on both sides.
    fn best(&self, old: &[u8], at: usize) -> Option<(Range<usize>, Range<usize>)> {
        let hash = Rolling::new(&old[at..at + BLOCK]);
        let mut best: Option<(Range<usize>, Range<usize>)> = None;
        for place in self.index.places(hash).take(PLACES_MAX) {
            let gap = &self.gaps[self.gaps.partition_point(|gap| gap.end <= place)];
            let forward = equal_len(&old[at..], &self.new[place..gap.end]);
            if forward < BLOCK {
                continue;
            }
            let before = old[..at].iter().rev().zip(self.new[gap.start..place].iter().rev());
            let back = before.take_while(|(a, b)| a == b).count();
            if best.as_ref().is_none_or(|(part, _)| forward + back > part.len()) {
                best = Some((at - back..at + forward, place - back..place + forward));
            }
        }
        best
    }

    /// Remembers that these new bytes are explained; returns how many were not, about.
    fn explain(&mut self, new: Range<usize>) -> usize {
        let blocks = &mut self.explained[new.start / BLOCK..new.end.div_ceil(BLOCK)];
        let gain = blocks.iter().filter(|block| !**block).count() * BLOCK;
        if gain >= GAIN_MIN {
            blocks.fill(true);
        }
        gain
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    /// Where the parts of `old` begin and end.
    fn parts(new: &[u8], gaps: &[Range<usize>], step: usize, old: &[u8]) -> Vec<(usize, usize)> {
        let index = Index::build(new, gaps, BLOCK, step);
        let explained = vec![false; new.len() / BLOCK + 1];
        let parts = Search { new, gaps, index, explained }.parts(old);
        parts.into_iter().map(|part| (part.start, part.end)).collect()
    }

    #[test]
    fn what_is_explained_is_not_explained_again() {
        let (shared, other) = (noise(1, 5000), noise(2, 3000));
        let new = [&other[..1001], &shared[..]].concat();
        let old = [&noise(3, 777)[..], &shared, &noise(4, 100), &shared].concat();
        let all = [0..1001, 1001..new.len()];
        assert_eq!(parts(&new, &all, 1, &old), [(777, 5777)]);
        // What another match explains is not looked for.
        assert_eq!(parts(&new, &[0..1001, 1001..4001], 1, &old), [(777, 3777)]);
        assert_eq!(parts(&new, &all[..1], 1, &old), []);
        // With a coarser index, too.
        assert_eq!(parts(&new, &all, 7, &old), [(777, 5777)]);
    }

    #[test]
    fn steps_are_odd_and_bounded_by_the_room() {
        assert_eq!(step(1000, 4000), Some(3));
        assert_eq!(step(1000, 800), Some(5));
        assert_eq!(step(1_000_000, 100_000), Some(41));
        assert_eq!(step(1_000_000, 0), None);
    }

    #[test]
    fn parts_that_touch_are_one() {
        let mut found = vec![];
        assert_eq!(add(&mut found, 3, 0..100), 100);
        assert_eq!(add(&mut found, 3, 50..150), 50);
        assert_eq!(add(&mut found, 3, 20..30), 0);
        assert_eq!(add(&mut found, 4, 100..200), 100);
        let piece = |file, range| Piece { file, range };
        assert_eq!(found, [piece(3, 0..150), piece(4, 100..200)]);
    }
}
