//! Writing groups: the counterpart of [`super::apply_group`].

use super::SEGMENT_BYTES_MAX;
use super::segment::{STREAM_COUNT, Stream};
use super::varint::{fold, write_number};
use std::io;
use std::ops::Range;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation as _, OutBuffer};

/// A segment ends with the step that brings it here.
const SEGMENT_BYTES: usize = 4 << 20;
/// Longer steps are cut, so that a segment never exceeds [`SEGMENT_BYTES_MAX`].
const STEP_BYTES_MAX: usize = 128 << 10;
/// Compressed bytes taken from zstd at once.
const CHUNK_LEN: usize = 128 << 10;
const _: () = assert!(SEGMENT_BYTES + 4 * STEP_BYTES_MAX <= SEGMENT_BYTES_MAX);

/// Collects the steps of the outputs of one group and compresses them.
#[derive(Debug, Default)]
pub struct GroupWriter {
    streams: [Vec<u8>; STREAM_COUNT],
    /// The length of every stream at the end of every segment.
    segments: Vec<[usize; STREAM_COUNT]>,
    old_end: u64,
}

/// A copy of a step.
#[derive(Debug, Clone, Copy)]
pub struct Copy<'a> {
    /// Where from, counted through all sources of the output.
    pub at: u64,
    /// What lies there.
    pub old: &'a [u8],
    /// What shall become of it; as long as `old`.
    pub new: &'a [u8],
}

impl GroupWriter {
    /// The next output: offsets count from 0 again.
    pub fn begin_output(&mut self) {
        self.old_end = 0;
    }

    /// Bytes of all streams, before compression.
    pub fn plain_len(&self) -> usize {
        self.streams.iter().map(Vec::len).sum()
    }

    /// Some literals, then a copy. A step without both says nothing.
    pub fn step(&mut self, literals: &[u8], copy: Option<Copy<'_>>) {
        let mut literals = literals;
        while literals.len() > STEP_BYTES_MAX {
            let (first, rest) = literals.split_at(STEP_BYTES_MAX);
            self.one_step(first, 0);
            self.end_step();
            literals = rest;
        }
        let Some(copy) = copy.filter(|copy| !copy.old.is_empty()) else {
            if !literals.is_empty() {
                self.one_step(literals, 0);
                self.end_step();
            }
            return;
        };
        assert_eq!(copy.old.len(), copy.new.len(), "a copy has one length");
        let mut at = 0;
        while at < copy.old.len() {
            let end = self.differences(&copy, at);
            self.one_step(std::mem::take(&mut literals), (end - at) as u64);
            let from = copy.at + at as u64;
            let by = from.cast_signed().wrapping_sub(self.old_end.cast_signed());
            write_number(self.stream(Stream::CopyOffsets), fold(by));
            self.old_end = from + (end - at) as u64;
            self.end_step();
            at = end;
        }
    }

    /// The group's bytes. `level` is zstd's.
    ///
    /// # Errors
    /// From zstd, when memory runs out.
    pub fn finish(mut self, level: i32) -> io::Result<Vec<u8>> {
        let ends = self.streams.each_ref().map(Vec::len);
        if self.segments.last() != Some(&ends) {
            self.segments.push(ends);
        }
        let mut parts: Vec<Vec<Vec<u8>>> = Vec::with_capacity(STREAM_COUNT);
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let stream = std::mem::take(stream);
            let ends: Vec<usize> = self.segments.iter().map(|ends| ends[index]).collect();
            parts.push(compress(&stream, &ends, super::segment::WINDOW_LOG_MAX[index], level)?);
        }
        let mut out = Vec::new();
        let mut starts = [0; STREAM_COUNT];
        for (segment, ends) in self.segments.iter().enumerate() {
            for (index, part) in parts.iter().enumerate() {
                write_number(&mut out, part[segment].len() as u64);
                write_number(&mut out, (ends[index] - starts[index]) as u64);
            }
            for part in &parts {
                out.extend_from_slice(&part[segment]);
            }
            starts = *ends;
        }
        Ok(out)
    }

    fn stream(&mut self, stream: Stream) -> &mut Vec<u8> {
        &mut self.streams[stream as usize]
    }

    fn one_step(&mut self, literals: &[u8], copy: u64) {
        write_number(self.stream(Stream::LiteralLens), literals.len() as u64);
        write_number(self.stream(Stream::CopyLens), copy);
        self.stream(Stream::Literals).extend_from_slice(literals);
    }

    fn end_step(&mut self) {
        let begun = self.segments.last().map_or(0, |ends| ends.iter().sum());
        if self.plain_len() - begun >= SEGMENT_BYTES {
            self.segments.push(self.streams.each_ref().map(Vec::len));
        }
    }

    /// Writes the differences of `copy` from `start` on; returns where the step has to end.
    fn differences(&mut self, copy: &Copy<'_>, start: usize) -> usize {
        let (mut at, mut written) = (start, 0);
        loop {
            let equal = equal_len(&copy.old[at..], &copy.new[at..]);
            if at + equal == copy.old.len() {
                if at < copy.old.len() {
                    write_number(self.stream(Stream::Gaps), 0);
                }
                return copy.old.len();
            }
            if written >= STEP_BYTES_MAX {
                // Here the step ends behind a difference, so no gap is owed.
                return at;
            }
            at += equal;
            write_number(self.stream(Stream::Gaps), equal as u64 + 1);
            let word = at..copy.old.len().min(at + 4);
            at = word.end;
            let differences = self.stream(Stream::Differences);
            let before = differences.len();
            write_difference(differences, copy, word);
            written += differences.len() - before + 1;
        }
    }
}

fn write_difference(out: &mut Vec<u8>, copy: &Copy<'_>, word: Range<usize>) {
    let (old, new) = (&copy.old[word.clone()], &copy.new[word]);
    if let (Ok(old), Ok(new)) = (<[u8; 4]>::try_from(old), <[u8; 4]>::try_from(new)) {
        let by = u32::from_le_bytes(new).wrapping_sub(u32::from_le_bytes(old));
        out.extend_from_slice(&by.to_le_bytes());
    } else {
        out.extend(new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
    }
}

/// How many bytes two slices share at their start.
pub fn equal_len(a: &[u8], b: &[u8]) -> usize {
    const STRIDE: usize = 16;
    let whole = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE)).take_while(|(a, b)| a == b);
    let whole = whole.count() * STRIDE;
    let rest = a[whole..].iter().zip(&b[whole..]).take_while(|(a, b)| a == b);
    whole + rest.count()
}

/// One frame, never ended, flushed at each of `ends`: what was added up to each.
fn compress(
    stream: &[u8],
    ends: &[usize],
    window_log: u32,
    level: i32,
) -> io::Result<Vec<Vec<u8>>> {
    let mut encoder = Encoder::new(level)?;
    // A window that covers the stream is enough, and its size need not be said twice.
    let needed = stream.len().next_power_of_two().trailing_zeros();
    encoder.set_parameter(CParameter::WindowLog(needed.clamp(10, window_log)))?;
    encoder.set_parameter(CParameter::ContentSizeFlag(false))?;
    encoder.set_parameter(CParameter::ChecksumFlag(false))?;
    encoder.set_pledged_src_size(Some(stream.len() as u64))?;
    let mut parts = Vec::with_capacity(ends.len());
    let mut chunk = vec![0; CHUNK_LEN];
    let mut start = 0;
    for &end in ends {
        let mut part = Vec::new();
        if end > start {
            let mut input = InBuffer::around(&stream[start..end]);
            while input.pos < end - start {
                let mut output = OutBuffer::around(&mut chunk);
                encoder.run(&mut input, &mut output)?;
                part.extend_from_slice(output.as_slice());
            }
            loop {
                let mut output = OutBuffer::around(&mut chunk);
                let left = encoder.flush(&mut output)?;
                part.extend_from_slice(output.as_slice());
                if left == 0 {
                    break;
                }
            }
        }
        parts.push(part);
        start = end;
    }
    Ok(parts)
}
