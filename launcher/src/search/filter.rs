//! A set of hashes that may say yes to others, but never no to its own: small enough for a cache.

/// Patterns of bits in a word.
const PATTERNS: usize = 1024;
/// Bits of a pattern.
const PATTERN_BITS: u32 = 4;
/// The most bits of a filter.
const BITS_MAX: usize = 1 << 26;

/// Words of which each hash has one, by its upper bits, with the bits of its pattern, by the middle ones.
/// (Putze, Sanders, Singler 2007: a blocked Bloom filter with precomputed patterns.) The bits are set
/// where nothing is, so that one `test` of the processor sees that all of a pattern are clear.
#[derive(Debug)]
pub(super) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// For `count` hashes with at least `bits` bits for each. With 16, less than one other hash of 100 gets
    /// through; with more hashes than fit into the largest filter, more do.
    pub(super) fn new(count: usize, bits: usize) -> Self {
        let bits = count.saturating_mul(bits).clamp(1 << 12, BITS_MAX).next_power_of_two();
        Self { words: vec![!0; bits / 64] }
    }

    pub(super) fn insert(&mut self, hash: u64) {
        let place = self.place(hash);
        self.words[place] &= !pattern(hash);
    }

    #[inline]
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.words[self.place(hash)] & pattern(hash) == 0
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        #[allow(clippy::cast_possible_truncation)] // 2^20 words at most.
        let place = (hash >> 44) as usize;
        place & (self.words.len() - 1)
    }
}

#[inline]
fn pattern(hash: u64) -> u64 {
    #[allow(clippy::cast_possible_truncation)] // It is cut on purpose.
    let number = (hash >> 32) as usize % PATTERNS;
    TABLE[number]
}

static TABLE: [u64; PATTERNS] = {
    let mut table = [0u64; PATTERNS];
    let mut state = 1u64;
    let mut at = 0;
    while at < PATTERNS {
        while table[at].count_ones() < PATTERN_BITS {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            table[at] |= 1 << (state >> 58);
        }
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(count: u64, seed: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |at| {
            let word = (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        })
    }

    #[test]
    fn it_knows_its_own_and_few_others() {
        for count in [0, 1, 1000, 100_000] {
            let mut filter = Filter::new(usize::try_from(count).unwrap(), 16);
            hashes(count, 0).for_each(|hash| filter.insert(hash));
            assert!(hashes(count, 0).all(|hash| filter.may_hold(hash)), "{count}");
            let others = hashes(1 << 20, 1 << 40).filter(|hash| filter.may_hold(*hash)).count();
            assert!(others < (1 << 20) / 100, "{others} others beside {count}");
        }
    }
}
