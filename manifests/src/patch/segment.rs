//! Segments: the streams of a group, a few MiB at a time.

use super::SEGMENT_BYTES_MAX;
use std::io::{self, Read};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

/// The streams of a group, in the order in which a segment has them. Each is compressed by itself, as
/// one zstd frame that is flushed, not ended, at the end of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// For each step: how many literals come first.
    LiteralLens = 0,
    /// For each step: how many bytes are copied then.
    CopyLens = 1,
    /// For each copy: where from, less the end of the copy before, folded.
    CopyOffsets = 2,
    /// For each copy: equal bytes up to the next difference, plus one; 0 for no more of them.
    Gaps = 3,
    /// Differences: new less old as words of 4 bytes, little endian; single bytes for the last three.
    Differences = 4,
    /// Literals.
    Literals = 5,
}

/// How many streams there are.
pub(super) const STREAM_COUNT: usize = 6;

/// The largest window of each stream, as a power of two: 35 MiB in all.
pub(super) const WINDOW_LOG_MAX: [u32; STREAM_COUNT] = [20, 20, 20, 23, 23, 24];

/// What compression may add at most to bytes that cannot be compressed.
const SEGMENT_OVERHEAD_MAX: usize = 256 << 10;

/// Why a segment could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentError {
    /// The caller's reader failed, or ended too early.
    #[error(transparent)]
    Input(#[from] io::Error),
    /// Not what a publisher writes.
    #[error("{0}")]
    Corrupt(&'static str),
}

/// Reads the segments of one group.
pub(super) struct Segments {
    decoders: [Decoder<'static>; STREAM_COUNT],
    /// The plain bytes of the segment read last.
    plain: [Vec<u8>; STREAM_COUNT],
    compressed: Vec<u8>,
}

impl Segments {
    pub(super) fn new() -> io::Result<Self> {
        let mut decoders = Vec::with_capacity(STREAM_COUNT);
        for window_log in WINDOW_LOG_MAX {
            let mut decoder = Decoder::new()?;
            decoder.set_parameter(DParameter::WindowLogMax(window_log))?;
            decoders.push(decoder);
        }
        let Ok(decoders) = decoders.try_into() else {
            unreachable!("there is one decoder for each window");
        };
        Ok(Self { decoders, plain: Default::default(), compressed: Vec::new() })
    }

    /// The streams of the next segment, plain.
    pub(super) fn next(
        &mut self,
        input: &mut dyn Read,
    ) -> Result<[&[u8]; STREAM_COUNT], SegmentError> {
        let mut lens = [(0, 0); STREAM_COUNT];
        for (compressed, plain) in &mut lens {
            *compressed = read_len(input)?;
            *plain = read_len(input)?;
        }
        let compressed: usize = lens.iter().map(|(compressed, _)| compressed).sum();
        let plain: usize = lens.iter().map(|(_, plain)| plain).sum();
        if plain > SEGMENT_BYTES_MAX || compressed > SEGMENT_BYTES_MAX + SEGMENT_OVERHEAD_MAX {
            return Err(SegmentError::Corrupt("a segment is too large"));
        }
        for (index, (compressed, plain)) in lens.into_iter().enumerate() {
            self.compressed.resize(compressed, 0);
            input.read_exact(&mut self.compressed)?;
            self.plain[index].clear();
            self.plain[index].resize(plain, 0);
            decode(&mut self.decoders[index], &self.compressed, &mut self.plain[index])?;
        }
        Ok(self.plain.each_ref().map(Vec::as_slice))
    }
}

/// Decompresses `compressed` to exactly `plain`.
fn decode(
    decoder: &mut Decoder<'_>,
    compressed: &[u8],
    plain: &mut [u8],
) -> Result<(), SegmentError> {
    let corrupt = SegmentError::Corrupt("a segment does not decompress");
    let len = plain.len();
    let mut input = InBuffer::around(compressed);
    let mut output = OutBuffer::around(plain);
    loop {
        let before = (input.pos, output.pos());
        if before == (compressed.len(), len) {
            return Ok(());
        }
        if decoder.run(&mut input, &mut output).is_err() {
            return Err(corrupt);
        }
        if (input.pos, output.pos()) == before {
            return Err(corrupt);
        }
    }
}

fn read_len(input: &mut dyn Read) -> Result<usize, SegmentError> {
    let mut len = 0;
    for shift in [0, 7, 14, 21] {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        len |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(len);
        }
    }
    Err(SegmentError::Corrupt("a segment is too large"))
}
