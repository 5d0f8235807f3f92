//! SHA-1 and SHA-256 of sixteen messages at a time: one in each 32-bit lane of AVX-512 registers.
//!
//! The only file of the workspace with `unsafe`: calls of functions that need the feature, and plain
//! casts between registers and arrays. There is no pointer in it.
#![allow(unsafe_code)]

use super::lanes::States;
use super::{Block, LANES};
use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_rol_epi32, _mm512_ror_epi32, _mm512_set1_epi32,
    _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4,
    _mm512_srli_epi32, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};
use std::mem::transmute;

/// Proof that this processor has AVX-512 F and BW.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"))
            .then_some(Self(()))
    }

    /// Takes the first `count` blocks of every lane into `states`.
    ///
    /// Panics if a lane has fewer.
    pub(super) fn sha1(self, states: &mut States<5>, lanes: &[&[Block]; LANES], count: usize) {
        // SAFETY: `self` exists only where the processor has the features.
        unsafe { sha1(states, lanes, count) }
    }

    /// As [`Self::sha1`].
    pub(super) fn sha256(self, states: &mut States<8>, lanes: &[&[Block]; LANES], count: usize) {
        // SAFETY: `self` exists only where the processor has the features.
        unsafe { sha256(states, lanes, count) }
    }
}

/// Bits of `_mm512_ternarylogic_epi32`, from the truth tables of FIPS 180-4, 4.1.
const CH: i32 = 0xca;
const PARITY: i32 = 0x96;
const MAJ: i32 = 0xe8;

/// FIPS 180-4, 4.1.1 and 4.2.1: function and constant of each 20 rounds.
const SHA1_F: [i32; 4] = [CH, PARITY, MAJ, PARITY];
const SHA1_K: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];

/// FIPS 180-4, 4.2.2.
#[rustfmt::skip]
const SHA256_K: [[u32; 16]; 4] = [
    [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    ],
    [
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    ],
    [
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    ],
    [
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ],
];

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn from_words(words: [u32; LANES]) -> __m512i {
    // SAFETY: both are 64 bytes without padding, and every bit pattern is valid.
    unsafe { transmute(words) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn to_words(vector: __m512i) -> [u32; LANES] {
    // SAFETY: as above.
    unsafe { transmute(vector) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn from_block(block: Block) -> __m512i {
    // SAFETY: as above.
    unsafe { transmute(block) }
}

/// Block `number` of every lane: the vector at `i` has word `i` of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transposed(lanes: &[&[Block]; LANES], number: usize) -> [__m512i; 16] {
    // Message words are big endian.
    let swap = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    let mut a = [_mm512_setzero_si512(); 16];
    let mut b = a;
    for (row, lane) in a.iter_mut().zip(lanes) {
        *row = _mm512_shuffle_epi8(from_block(lane[number]), swap);
    }
    // Within quarters of registers: pairs of rows, then fours.
    for i in (0..16).step_by(2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for i in (0..16).step_by(4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    // Quarter q of a[4 * rows + i] has word 4 * q + i of four rows: now the quarters change places.
    for i in 0..4 {
        b[i] = _mm512_shuffle_i32x4::<0x88>(a[i], a[4 + i]);
        b[4 + i] = _mm512_shuffle_i32x4::<0xdd>(a[i], a[4 + i]);
        b[8 + i] = _mm512_shuffle_i32x4::<0x88>(a[8 + i], a[12 + i]);
        b[12 + i] = _mm512_shuffle_i32x4::<0xdd>(a[8 + i], a[12 + i]);
    }
    for i in 0..4 {
        a[i] = _mm512_shuffle_i32x4::<0x88>(b[i], b[8 + i]);
        a[4 + i] = _mm512_shuffle_i32x4::<0x88>(b[4 + i], b[12 + i]);
        a[8 + i] = _mm512_shuffle_i32x4::<0xdd>(b[i], b[8 + i]);
        a[12 + i] = _mm512_shuffle_i32x4::<0xdd>(b[4 + i], b[12 + i]);
    }
    a
}

/// Repeats a macro for literal numbers: with loops the words would live in memory instead of
/// registers, at half the speed.
macro_rules! unrolled {
    ($each:ident: $($number:literal)*) => { $($each!($number);)* };
}

#[target_feature(enable = "avx512f,avx512bw")]
fn sha1(states: &mut States<5>, lanes: &[&[Block]; LANES], count: usize) {
    let mut state = [_mm512_setzero_si512(); 5];
    for (state, words) in state.iter_mut().zip(states.iter()) {
        *state = from_words(*words);
    }
    for number in 0..count {
        let mut w = transposed(lanes, number);
        let [mut a, mut b, mut c, mut d, mut e] = state;
        macro_rules! round {
            ($t:literal) => {
                if $t >= 16 {
                    let three = (w[($t + 13) % 16], w[($t + 8) % 16], w[($t + 2) % 16]);
                    let three = _mm512_ternarylogic_epi32::<PARITY>(three.0, three.1, three.2);
                    w[$t % 16] = _mm512_rol_epi32::<1>(_mm512_xor_si512(three, w[$t % 16]));
                }
                let k = _mm512_set1_epi32(SHA1_K[$t / 20].cast_signed());
                let f = _mm512_ternarylogic_epi32::<{ SHA1_F[$t / 20] }>(b, c, d);
                let early = _mm512_add_epi32(_mm512_add_epi32(e, k), w[$t % 16]);
                let late = _mm512_add_epi32(_mm512_rol_epi32::<5>(a), f);
                let next = _mm512_add_epi32(early, late);
                (a, b, c, d, e) = (next, a, _mm512_rol_epi32::<30>(b), c, d);
            };
        }
        unrolled!(round: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        unrolled!(round: 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39);
        unrolled!(round: 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59);
        unrolled!(round: 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79);
        for (state, change) in state.iter_mut().zip([a, b, c, d, e]) {
            *state = _mm512_add_epi32(*state, change);
        }
    }
    for (words, state) in states.iter_mut().zip(state) {
        *words = to_words(state);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn sha256(states: &mut States<8>, lanes: &[&[Block]; LANES], count: usize) {
    let mut state = [_mm512_setzero_si512(); 8];
    for (state, words) in state.iter_mut().zip(states.iter()) {
        *state = from_words(*words);
    }
    for number in 0..count {
        let mut w = transposed(lanes, number);
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        for (turn, k) in SHA256_K.iter().enumerate() {
            macro_rules! expand {
                ($i:literal) => {
                    let (early, late) = (w[($i + 1) % 16], w[($i + 14) % 16]);
                    let s0 = _mm512_ternarylogic_epi32::<PARITY>(
                        _mm512_ror_epi32::<7>(early),
                        _mm512_ror_epi32::<18>(early),
                        _mm512_srli_epi32::<3>(early),
                    );
                    let s1 = _mm512_ternarylogic_epi32::<PARITY>(
                        _mm512_ror_epi32::<17>(late),
                        _mm512_ror_epi32::<19>(late),
                        _mm512_srli_epi32::<10>(late),
                    );
                    w[$i] = _mm512_add_epi32(
                        _mm512_add_epi32(w[$i], s0),
                        _mm512_add_epi32(w[($i + 9) % 16], s1),
                    );
                };
            }
            macro_rules! round {
                ($i:literal) => {
                    let s1 = _mm512_ternarylogic_epi32::<PARITY>(
                        _mm512_ror_epi32::<6>(e),
                        _mm512_ror_epi32::<11>(e),
                        _mm512_ror_epi32::<25>(e),
                    );
                    let ch = _mm512_ternarylogic_epi32::<CH>(e, f, g);
                    let kw = _mm512_add_epi32(w[$i], _mm512_set1_epi32(k[$i].cast_signed()));
                    let t1 = _mm512_add_epi32(_mm512_add_epi32(h, kw), _mm512_add_epi32(s1, ch));
                    let s0 = _mm512_ternarylogic_epi32::<PARITY>(
                        _mm512_ror_epi32::<2>(a),
                        _mm512_ror_epi32::<13>(a),
                        _mm512_ror_epi32::<22>(a),
                    );
                    let t2 = _mm512_add_epi32(s0, _mm512_ternarylogic_epi32::<MAJ>(a, b, c));
                    (h, g, f, e) = (g, f, e, _mm512_add_epi32(d, t1));
                    (d, c, b, a) = (c, b, a, _mm512_add_epi32(t1, t2));
                };
            }
            if turn > 0 {
                unrolled!(expand: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            }
            unrolled!(round: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        }
        for (state, change) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *state = _mm512_add_epi32(*state, change);
        }
    }
    for (words, state) in states.iter_mut().zip(state) {
        *words = to_words(state);
    }
}
