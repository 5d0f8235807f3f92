//! Writing groups: the counterpart of [`super::apply_group`].

use super::SEGMENT_BYTES_MAX;
use super::segment::{STREAM_COUNT, Stream};
use super::varint::{fold, write_number};
use std::io::{self, Read, Seek, SeekFrom, Write};
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
///
/// A group may be of any size, since one output may: what was collected goes to a spool for each stream
/// after every segment, and memory holds no more than that and one encoder. A spool is a file, or memory
/// where little is to come.
pub struct GroupWriter<'a, S> {
    new_spool: &'a dyn Fn() -> S,
    spools: [S; STREAM_COUNT],
    /// The streams of the segment under way.
    streams: [Vec<u8>; STREAM_COUNT],
    /// The length of every stream of every segment before it.
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

impl<'a, S: Read + Write + Seek> GroupWriter<'a, S> {
    /// An empty group. `new_spool` makes a place that can be written, then read from its start.
    pub fn new(new_spool: &'a dyn Fn() -> S) -> Self {
        Self {
            new_spool,
            spools: std::array::from_fn(|_| new_spool()),
            streams: Default::default(),
            segments: Vec::new(),
            old_end: 0,
        }
    }

    /// The next output: offsets count from 0 again.
    pub fn begin_output(&mut self) {
        self.old_end = 0;
    }

    /// Some literals, then a copy. A step without both says nothing.
    ///
    /// # Errors
    /// Of the spools.
    pub fn step(&mut self, literals: &[u8], copy: Option<Copy<'_>>) -> io::Result<()> {
        let mut literals = literals;
        while literals.len() > STEP_BYTES_MAX {
            let (first, rest) = literals.split_at(STEP_BYTES_MAX);
            self.one_step(first, 0);
            self.end_step()?;
            literals = rest;
        }
        let Some(copy) = copy.filter(|copy| !copy.old.is_empty()) else {
            if !literals.is_empty() {
                self.one_step(literals, 0);
                self.end_step()?;
            }
            return Ok(());
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
            self.end_step()?;
            at = end;
        }
        Ok(())
    }

    /// Writes the group to `out` and returns its bytes. `level` is zstd's.
    ///
    /// # Errors
    /// Of the spools and of `out`; from zstd, when memory runs out.
    pub fn finish(mut self, level: i32, out: &mut dyn Write) -> io::Result<u64> {
        if self.pending() > 0 || self.segments.is_empty() {
            self.end_segment()?;
        }
        let mut parts = Vec::with_capacity(STREAM_COUNT);
        for (index, mut plain) in self.spools.into_iter().enumerate() {
            let lens: Vec<usize> = self.segments.iter().map(|lens| lens[index]).collect();
            let mut part = (self.new_spool)();
            let window_log = super::segment::WINDOW_LOG_MAX[index];
            let part_lens = compress(&mut plain, &lens, window_log, level, &mut part)?;
            part.seek(SeekFrom::Start(0))?;
            parts.push((part, part_lens));
        }
        let (mut written, mut head) = (0, Vec::new());
        for (segment, lens) in self.segments.iter().enumerate() {
            head.clear();
            for ((_, part_lens), len) in parts.iter().zip(lens) {
                write_number(&mut head, part_lens[segment]);
                write_number(&mut head, *len as u64);
            }
            out.write_all(&head)?;
            written += head.len() as u64;
            for (part, part_lens) in &mut parts {
                let len = part_lens[segment];
                if io::copy(&mut part.take(len), out)? != len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                written += len;
            }
        }
        Ok(written)
    }

    fn stream(&mut self, stream: Stream) -> &mut Vec<u8> {
        &mut self.streams[stream as usize]
    }

    fn one_step(&mut self, literals: &[u8], copy: u64) {
        write_number(self.stream(Stream::LiteralLens), literals.len() as u64);
        write_number(self.stream(Stream::CopyLens), copy);
        self.stream(Stream::Literals).extend_from_slice(literals);
    }

    /// Bytes of the segment under way, before compression.
    fn pending(&self) -> usize {
        self.streams.iter().map(Vec::len).sum()
    }

    fn end_step(&mut self) -> io::Result<()> {
        if self.pending() >= SEGMENT_BYTES { self.end_segment() } else { Ok(()) }
    }

    fn end_segment(&mut self) -> io::Result<()> {
        self.segments.push(self.streams.each_ref().map(Vec::len));
        for (stream, spool) in self.streams.iter_mut().zip(&mut self.spools) {
            spool.write_all(stream)?;
            stream.clear();
        }
        Ok(())
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

/// One frame, never ended, flushed after each of `lens` bytes of `plain`; returns how much each came to
/// in `out`.
fn compress(
    plain: &mut (impl Read + Seek),
    lens: &[usize],
    window_log: u32,
    level: i32,
    out: &mut impl Write,
) -> io::Result<Vec<u64>> {
    plain.seek(SeekFrom::Start(0))?;
    let total: u64 = lens.iter().map(|len| *len as u64).sum();
    let mut encoder = Encoder::new(level)?;
    // A window that covers the stream is enough, and its size need not be said twice.
    let needed = total.next_power_of_two().trailing_zeros();
    encoder.set_parameter(CParameter::WindowLog(needed.clamp(10, window_log)))?;
    encoder.set_parameter(CParameter::ContentSizeFlag(false))?;
    encoder.set_parameter(CParameter::ChecksumFlag(false))?;
    encoder.set_pledged_src_size(Some(total))?;
    let mut parts = Vec::with_capacity(lens.len());
    let (mut segment, mut chunk) = (Vec::new(), vec![0; CHUNK_LEN]);
    for &len in lens {
        let mut part = 0;
        if len > 0 {
            segment.resize(len, 0);
            plain.read_exact(&mut segment)?;
            let mut input = InBuffer::around(&segment);
            while input.pos < len {
                let mut output = OutBuffer::around(&mut chunk);
                encoder.run(&mut input, &mut output)?;
                part += output.pos() as u64;
                out.write_all(output.as_slice())?;
            }
            loop {
                let mut output = OutBuffer::around(&mut chunk);
                let left = encoder.flush(&mut output)?;
                part += output.pos() as u64;
                out.write_all(output.as_slice())?;
                if left == 0 {
                    break;
                }
            }
        }
        parts.push(part);
    }
    Ok(parts)
}
