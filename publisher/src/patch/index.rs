//! Where blocks of the old bytes lie, by hash.

use std::ops::Range;

/// Any odd number with well-spread bits: the base of the rolling hash.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Another: what mixes a hash into a slot.
const MIX: u64 = 0xd6e8_feb8_6659_fd93;
/// The most slots, as a power of two: 64 MiB.
const SLOTS_LOG_MAX: u32 = 24;

/// Chains of the places whose block has one hash, the last first.
pub(super) struct Index {
    /// The last place of each slot, in steps, plus one; 0 for none.
    heads: Vec<u32>,
    /// For each step of the old bytes the place before it in its chain, in the same way.
    chain: Vec<u32>,
    slots_log: u32,
    step: usize,
    /// Bytes of a block.
    pub(super) window: usize,
}

/// The hash of a block, which can be moved on by one byte.
#[derive(Clone, Copy)]
pub(super) struct Rolling {
    value: u64,
    /// `BASE` to the power of the window.
    out: u64,
}

impl Index {
    /// Indexes the blocks of `window` bytes that begin at multiples of `step` within `ranges`. What
    /// repeats after a few bytes is left out: it is found everywhere and says nothing.
    #[expect(clippy::cast_possible_truncation, reason = "parts are smaller than 2^32 bytes")]
    pub(super) fn build(old: &[u8], ranges: &[Range<usize>], window: usize, step: usize) -> Self {
        let blocks: usize = ranges.iter().map(|range| range.len() / step).sum();
        let slots_log =
            (blocks.max(1 << 10).next_power_of_two().trailing_zeros()).min(SLOTS_LOG_MAX);
        // Pages of the chain that no range touches are never made.
        let chain = vec![0; old.len() / step + 1];
        let mut index = Self { heads: vec![0; 1 << slots_log], chain, slots_log, step, window };
        for range in ranges {
            let mut at = range.start.next_multiple_of(step);
            while at + window <= range.end {
                let block = &old[at..at + window];
                if !repeats(block) {
                    let slot = index.slot(Rolling::new(block).value);
                    index.chain[at / step] = index.heads[slot];
                    index.heads[slot] = (at / step + 1) as u32;
                }
                at += step;
            }
        }
        index
    }

    fn slot(&self, hash: u64) -> usize {
        usize::try_from(hash.wrapping_mul(MIX) >> (64 - self.slots_log)).unwrap_or(0)
    }

    /// Places whose block may have this hash, the last first.
    pub(super) fn places(&self, hash: Rolling) -> impl Iterator<Item = usize> + '_ {
        let mut next = self.heads[self.slot(hash.value)];
        std::iter::from_fn(move || {
            let place = (next as usize).checked_sub(1)?;
            next = self.chain[place];
            Some(place * self.step)
        })
    }
}

fn repeats(block: &[u8]) -> bool {
    let after = |period: usize| {
        block.len() >= 2 * period && block[period..] == block[..block.len() - period]
    };
    after(1) || block.len() > 8 && (after(2) || after(4) || after(8))
}

impl Rolling {
    pub(super) fn new(block: &[u8]) -> Self {
        let mut hash = Self { value: 0, out: 1 };
        for &byte in block {
            hash.value = hash.value.wrapping_mul(BASE).wrapping_add(u64::from(byte) + 1);
            hash.out = hash.out.wrapping_mul(BASE);
        }
        hash
    }

    /// Moves the block on by one byte: `first` leaves, `next` comes.
    pub(super) fn roll(&mut self, first: u8, next: u8) {
        let leaves = self.out.wrapping_mul(u64::from(first) + 1);
        let value = self.value.wrapping_mul(BASE).wrapping_add(u64::from(next) + 1);
        self.value = value.wrapping_sub(leaves);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_is_hashing_anew() {
        let bytes: Vec<u8> = (0..100_u8).map(|at| at.wrapping_mul(37)).collect();
        let mut hash = Rolling::new(&bytes[..16]);
        for at in 1..80 {
            hash.roll(bytes[at - 1], bytes[at + 15]);
            assert_eq!(hash.value, Rolling::new(&bytes[at..at + 16]).value);
        }
    }

    #[test]
    fn blocks_are_found_where_they_lie() {
        let old: Vec<u8> = (0..1000_u32).map(|at| ((at * at) >> 3).to_le_bytes()[0]).collect();
        let index = Index::build(&old, &[100..500, 500..900], 16, 16);
        let places: Vec<usize> = index.places(Rolling::new(&old[208..224])).collect();
        assert!(places.contains(&208), "{places:?}");
        assert!(!index.places(Rolling::new(&old[96..112])).any(|at| at < 100));
        assert!(repeats(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 2]) && !repeats(&[1, 2, 1, 2]));
    }
}
