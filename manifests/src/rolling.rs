//! A rolling hash over windows of 16 KiB: the one that leaf indexes are made of and searched by.
//!
//! `hash(b) = Σ T[b_i] · M^(W-1-i) mod 2^64`: a polynomial over a table of random words, so that one
//! byte in and one byte out cost a multiplication and an addition. It finds, it proves nothing: equal
//! hashes of unlike windows can be made by anybody who wants to, and cost a fetch.

/// Bytes under the hash: a leaf of BEP 52.
pub const WINDOW: usize = 16 << 10;

/// The multiplier: odd and 5 mod 8, so that its powers repeat as late as they can.
const M: u64 = 0xd6e8_feb8_6659_fd95;

/// What a byte counts when it comes in.
const IN: [u64; 256] = words();

/// What it has become when it goes out.
const OUT: [u64; 256] = {
    let mut power = 1u64;
    let mut at = 0;
    while at < WINDOW {
        power = power.wrapping_mul(M);
        at += 1;
    }
    let mut out = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        out[byte] = IN[byte].wrapping_mul(power);
        byte += 1;
    }
    out
};

/// 256 words of SplitMix64 (Steele, Lea, Flood 2014), which every index must agree on for ever.
const fn words() -> [u64; 256] {
    let mut words = [0; 256];
    let mut state = 0x7570_6472_6166_7421u64;
    let mut at = 0;
    while at < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        words[at] = word ^ (word >> 31);
        at += 1;
    }
    words
}

/// The hash of one window.
///
/// # Panics
/// If `window` has not [`WINDOW`] bytes.
pub fn hash(window: &[u8]) -> u64 {
    assert_eq!(window.len(), WINDOW, "one window");
    // Four parts side by side, as each waits for its own multiplications only, put together after.
    const PART: usize = WINDOW / 4;
    const SHIFT: u64 = {
        let mut power = 1u64;
        let mut at = 0;
        while at < PART {
            power = power.wrapping_mul(M);
            at += 1;
        }
        power
    };
    let mut sums = [0u64; 4];
    for at in 0..PART {
        for (part, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_mul(M).wrapping_add(IN[usize::from(window[part * PART + at])]);
        }
    }
    sums.iter().fold(0u64, |hash, sum| hash.wrapping_mul(SHIFT).wrapping_add(*sum))
}

/// The window moves on by a byte: `gone` leaves it at the front, `next` enters at the end.
#[inline]
pub fn roll(hash: u64, gone: u8, next: u8) -> u64 {
    let change = IN[usize::from(next)].wrapping_sub(OUT[usize::from(gone)]);
    hash.wrapping_mul(M).wrapping_add(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize, mut seed: u64) -> Vec<u8> {
        let step = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        };
        (0..len).map(step).collect()
    }

    #[test]
    fn rolling_on_is_hashing_anew() {
        let data = bytes(WINDOW + 300, 1);
        let mut rolled = hash(&data[..WINDOW]);
        for at in 0..300 {
            assert_eq!(rolled, hash(&data[at..at + WINDOW]), "at {at}");
            rolled = roll(rolled, data[at], data[at + WINDOW]);
        }
    }

    #[test]
    fn it_is_the_polynomial_and_never_changes() {
        let data = bytes(WINDOW, 2);
        let slow = data
            .iter()
            .fold(0u64, |hash, byte| hash.wrapping_mul(M).wrapping_add(IN[usize::from(*byte)]));
        assert_eq!(hash(&data), slow);
        // Published indexes hold these values.
        assert_eq!(hash(&[0; WINDOW]), ZEROS);
        assert_eq!(hash(&data), DATA);
    }

    const ZEROS: u64 = 0xfcfb_522e_15be_0000;
    const DATA: u64 = 0x78bd_6161_50bf_0b47;

    #[test]
    fn order_counts() {
        let mut data = bytes(WINDOW, 3);
        let before = hash(&data);
        for distance in [1, 64, 256, 4096, 8192] {
            data.swap(100, 100 + distance);
            assert_ne!(hash(&data), before, "bytes {distance} apart changed places");
            data.swap(100, 100 + distance);
        }
    }
}
