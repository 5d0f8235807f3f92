//! SHA-1 and SHA-256 of many messages at once.
//!
//! Leaves do not depend on each other, nor do pieces: where the processor has AVX-512, sixteen are
//! hashed side by side. Measured per core: SHA-256 twice, SHA-1 three times as fast as one message
//! after the other with the processor's own SHA instructions. Everywhere else, and for what is left
//! over, the crates `sha1` and `sha2` hash one message after the other.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_avx512.rs"]
mod avx512;
mod lanes;

use crate::ids::{Sha1Hash, Sha256Hash};
use lanes::Job;
use lanes::{SHA1_LANES_MIN, SHA256_LANES_MIN};
use sha1::block_api::compress as compress1;
use sha2::Digest as _;
use sha2::block_api::compress256;

/// The step of both digests.
type Block = [u8; 64];
const BLOCK_LEN: usize = 64;

/// Messages hashed side by side.
pub const LANES: usize = 16;

/// FIPS 180-4, 5.3.1.
const SHA1_START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// FIPS 180-4, 5.3.3.
const SHA256_START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The SHA-256 of each message. They may differ in length; like lengths are fastest.
pub fn sha256_many(messages: &[&[u8]]) -> Vec<Sha256Hash> {
    if messages.len() >= SHA256_LANES_MIN
        && let Some(wide) = avx512::Avx512::detect()
    {
        let mut states = vec![SHA256_START; messages.len()];
        let jobs = states.iter_mut().zip(messages);
        let jobs = jobs.map(|(state, message)| Job { state, blocks: message.as_chunks().0 });
        lanes::run(jobs, SHA256_LANES_MIN, |s, l, count| wide.sha256(s, l, count), compress256);
        let ends = states.into_iter().zip(messages);
        let finish = |(mut state, message): (_, &&[u8])| {
            let (end, count) = end_of(message.as_chunks::<BLOCK_LEN>().1, message.len() as u64);
            compress256(&mut state, &end[..count]);
            Sha256Hash(bytes_of(&state))
        };
        return ends.map(finish).collect();
    }
    messages.iter().map(|message| Sha256Hash(sha2::Sha256::digest(message).into())).collect()
}

/// A SHA-1 under way that can go on beside others.
#[derive(Clone, Debug)]
pub struct Sha1Stream {
    state: [u32; 5],
    /// Bytes taken so far; what is beyond the last full block waits in `partial`.
    len: u64,
    partial: Block,
}

impl Sha1Stream {
    /// A digest of nothing yet.
    pub const fn new() -> Self {
        Self { state: SHA1_START, len: 0, partial: [0; BLOCK_LEN] }
    }

    fn waiting(&self) -> usize {
        usize::try_from(self.len % BLOCK_LEN as u64).expect("below 64")
    }

    /// Takes more of the message.
    pub fn update(&mut self, data: &[u8]) {
        let job = self.start(data);
        compress1(job.state, job.blocks);
    }

    /// Takes all of `data` except for the full blocks left to do, which it gives.
    fn start<'a>(&'a mut self, mut data: &'a [u8]) -> Job<'a, 5> {
        let waiting = self.waiting();
        self.len += data.len() as u64;
        if waiting > 0 {
            let (now, later) = data.split_at(data.len().min(BLOCK_LEN - waiting));
            self.partial[waiting..waiting + now.len()].copy_from_slice(now);
            if waiting + now.len() == BLOCK_LEN {
                compress1(&mut self.state, &[self.partial]);
            } else {
                assert!(later.is_empty(), "a block that is not full takes all there is");
                return Job { state: &mut self.state, blocks: &[] };
            }
            data = later;
        }
        let (blocks, rest) = data.as_chunks();
        self.partial[..rest.len()].copy_from_slice(rest);
        Job { state: &mut self.state, blocks }
    }

    /// The digest of all that was taken.
    pub fn finish(mut self) -> Sha1Hash {
        let (end, count) = end_of(&self.partial[..self.waiting()], self.len);
        compress1(&mut self.state, &end[..count]);
        Sha1Hash(bytes_of(&self.state))
    }
}

impl Default for Sha1Stream {
    fn default() -> Self {
        Self::new()
    }
}

/// Each stream takes its data, side by side.
pub fn sha1_update_many<'a>(work: impl IntoIterator<Item = (&'a mut Sha1Stream, &'a [u8])>) {
    let jobs = work.into_iter().map(|(stream, data)| stream.start(data));
    if let Some(wide) = avx512::Avx512::detect() {
        lanes::run(jobs, SHA1_LANES_MIN, |s, l, count| wide.sha1(s, l, count), compress1);
        return;
    }
    jobs.for_each(|job| compress1(job.state, job.blocks));
}

/// What ends a message of `len` bytes, from what did not fill a block: a one bit, zeros, the length
/// in bits (FIPS 180-4, 5.1.1). The number is that of the blocks in use.
fn end_of(rest: &[u8], len: u64) -> ([Block; 2], usize) {
    let mut end = [0; BLOCK_LEN * 2];
    end[..rest.len()].copy_from_slice(rest);
    end[rest.len()] = 0x80;
    let count = (rest.len() + 9).div_ceil(BLOCK_LEN);
    end[count * BLOCK_LEN - 8..count * BLOCK_LEN].copy_from_slice(&(len * 8).to_be_bytes());
    let (blocks, _) = end.as_chunks();
    ([blocks[0], blocks[1]], count)
}

fn bytes_of<const WORDS: usize, const BYTES: usize>(state: &[u32; WORDS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(seed: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 253 + seed * 31).to_le_bytes()[0]).collect()
    }

    fn lens() -> impl Strategy<Value = Vec<usize>> {
        let len = prop_oneof![0usize..200, 16_380usize..16_390, Just(16_384)];
        prop::collection::vec(len, 0..50)
    }

    fn check_sha256(lens: &[usize]) {
        let messages: Vec<_> = lens.iter().enumerate().map(|(n, len)| message(n, *len)).collect();
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        for (found, message) in sha256_many(&messages).iter().zip(&messages) {
            assert_eq!(found.0, <[u8; 32]>::from(sha2::Sha256::digest(message)), "{lens:?}");
        }
    }

    fn check_sha1(turns: &[Vec<usize>]) {
        let count = turns.iter().map(Vec::len).max().unwrap_or(0);
        let mut streams = vec![Sha1Stream::new(); count];
        let mut oracles = vec![sha1::Sha1::new(); count];
        for (seed, lens) in turns.iter().enumerate() {
            let parts: Vec<_> =
                lens.iter().enumerate().map(|(n, len)| message(seed + n, *len)).collect();
            sha1_update_many(streams.iter_mut().zip(parts.iter().map(Vec::as_slice)));
            oracles.iter_mut().zip(&parts).for_each(|(oracle, part)| oracle.update(part));
        }
        for (stream, oracle) in streams.into_iter().zip(oracles) {
            assert_eq!(stream.finish().0, <[u8; 20]>::from(oracle.finalize()), "{turns:?}");
        }
    }

    #[test]
    fn every_length_agrees_with_the_crates() {
        for len in 0..300 {
            check_sha256(&[len; LANES]);
            check_sha1(&[vec![len; LANES]]);
        }
    }

    #[test]
    fn every_number_of_messages_agrees_with_the_crates() {
        for count in 0..3 * LANES {
            check_sha256(&vec![1000; count]);
            check_sha1(&[vec![1000; count]]);
        }
    }

    proptest! {
        #[test]
        fn mixed_lengths_agree_with_the_crates(lens in lens()) {
            check_sha256(&lens);
        }

        #[test]
        fn streams_in_several_turns_agree_with_the_crates(turns in prop::collection::vec(lens(), 0..4)) {
            check_sha1(&turns);
        }
    }
}
