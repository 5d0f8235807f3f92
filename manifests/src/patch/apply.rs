//! Applying: from segments and old ranges to the bytes of the outputs.

use super::segment::{STREAM_COUNT, SegmentError, Segments, Stream};
use super::varint::{Bytes, unfold};
use super::{Output, Patch, PatchError};
use std::io::{self, Read};

/// Bytes handed on, or read from an old file, at once.
const BUFFER_LEN: usize = 256 << 10;

/// Fills a buffer from an old file, by its number in the old tree, at an offset.
pub type ReadOld<'a> = dyn FnMut(u32, u64, &mut [u8]) -> io::Result<()> + 'a;
/// Takes the next bytes of an output, by its number in [`Patch::outputs`].
pub type WriteNew<'a> = dyn FnMut(usize, &[u8]) -> io::Result<()> + 'a;

/// Why a group could not be applied. The outputs before the one under way are whole.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The patch is not what a publisher writes.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The patch's bytes could not be read, or end too early.
    #[error("the patch cannot be read: {0}")]
    Input(#[source] io::Error),
    /// An old file could not be read.
    #[error("an old file cannot be read: {0}")]
    Old(#[source] io::Error),
    /// An output could not be written.
    #[error("a new file cannot be written: {0}")]
    Sink(#[source] io::Error),
}

impl From<SegmentError> for ApplyError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Input(error) => Self::Input(error),
            SegmentError::Corrupt(why) => Self::Patch(PatchError::Corrupt(why)),
        }
    }
}

/// Applies one group while its bytes arrive; takes at most [`super::MEMORY_MAX`] of memory.
///
/// `input` has exactly the bytes `patch.groups[group].bytes` of the file. `wanted` is asked once for
/// each output of the group, by its number in [`Patch::outputs`]; for one that is not wanted nothing is
/// read or written. `read_old(file, offset, buffer)` fills the buffer from an old file, by its number
/// in the old tree; it is only asked for ranges within the output's sources. `write(output, bytes)` gets the
/// bytes of each wanted output in order, one output after the other, in all as many as its length says.
/// What was written counts for nothing until the file's root was compared.
///
/// A segment has six streams: lengths of literals, lengths of copies, offsets of copies (less the end of
/// the one before, folded), gaps before differences, differences, literals. An output is a row of steps: some literals, then a copy
/// with differences, until its length is reached. Offsets start anew at 0 for each output; a copy lies
/// within one source.
///
/// # Errors
/// [`ApplyError`]; nothing is written beyond an output's length, whatever the patch says.
pub fn apply_group(
    patch: &Patch,
    group: usize,
    input: &mut dyn Read,
    wanted: &mut dyn FnMut(usize) -> bool,
    read_old: &mut ReadOld<'_>,
    write: &mut WriteNew<'_>,
) -> Result<(), ApplyError> {
    let Some(group) = patch.groups.get(group) else {
        return Err(corrupt("it has no such group"));
    };
    let mut input = input.take(group.bytes.end - group.bytes.start);
    let mut segments = Segments::new().map_err(ApplyError::Input)?;
    let mut machine = Machine { read_old, write, out: Vec::with_capacity(BUFFER_LEN), old: vec![] };
    let mut index = group.outputs.start;
    let mut file = Progress::new(patch, index, wanted(index));
    while index < group.outputs.end {
        let mut streams = segments.next(&mut input)?.map(Bytes);
        if streams[Stream::LiteralLens as usize].0.is_empty() {
            return Err(corrupt("a segment has no steps"));
        }
        while index < group.outputs.end && !streams[Stream::LiteralLens as usize].0.is_empty() {
            machine.step(&mut file, &mut streams)?;
            if file.left == 0 {
                machine.hand_on(file.index)?;
                index += 1;
                if index < group.outputs.end {
                    file = Progress::new(patch, index, wanted(index));
                }
            }
        }
        if streams.iter().any(|stream| !stream.0.is_empty()) {
            return Err(corrupt("a segment has more than its steps use"));
        }
    }
    if input.limit() > 0 {
        return Err(corrupt("a group is longer than its outputs"));
    }
    Ok(())
}

fn corrupt(why: &'static str) -> ApplyError {
    ApplyError::Patch(PatchError::Corrupt(why))
}

/// A value of a stream that may end too early.
fn some<T>(value: Option<T>) -> Result<T, ApplyError> {
    value.ok_or(corrupt("a stream ends too early"))
}

/// How far an output is.
struct Progress<'a> {
    index: usize,
    output: &'a Output,
    wanted: bool,
    /// Bytes to come.
    left: u64,
    /// Where the last copy ended, through all sources.
    old_end: u64,
    /// Where each source begins, through all sources, and where the last one ends.
    starts: Vec<u64>,
}

impl<'a> Progress<'a> {
    fn new(patch: &'a Patch, index: usize, wanted: bool) -> Self {
        let output = &patch.outputs[index];
        let mut starts = vec![0];
        let mut end = 0;
        for source in &output.sources {
            // At most 2^16 sources of 2^32 leaves of 2^14 bytes.
            let bytes = source.bytes();
            end += bytes.end - bytes.start;
            starts.push(end);
        }
        Self { index, output, wanted, left: output.length, old_end: 0, starts }
    }

    /// The old file and the offset in it of a copy, which must lie within one source.
    fn locate(&self, at: u64, len: u64) -> Option<(u32, u64)> {
        let after = self.starts.partition_point(|start| *start <= at);
        let source = self.output.sources.get(after.checked_sub(1)?)?;
        let inside = at - self.starts[after - 1];
        let end = at.checked_add(len)?;
        (end <= *self.starts.get(after)?).then_some((source.file, source.bytes().start + inside))
    }
}

struct Machine<'a, 'b, 'c> {
    read_old: &'a mut ReadOld<'b>,
    write: &'a mut WriteNew<'c>,
    /// Bytes of the output under way that are not handed on yet.
    out: Vec<u8>,
    /// Old bytes, differences applied.
    old: Vec<u8>,
}

impl Machine<'_, '_, '_> {
    /// Some literals, then a copy.
    fn step(
        &mut self,
        file: &mut Progress<'_>,
        streams: &mut [Bytes<'_>; STREAM_COUNT],
    ) -> Result<(), ApplyError> {
        let literals = some(streams[Stream::LiteralLens as usize].number())?;
        let copy = some(streams[Stream::CopyLens as usize].number())?;
        let len = literals.checked_add(copy).filter(|len| (1..=file.left).contains(len));
        let len = len.ok_or(corrupt("a step is longer than its output, or does nothing"))?;
        let literals = usize::try_from(literals).ok();
        let literals = some(literals.and_then(|len| streams[Stream::Literals as usize].take(len)))?;
        if file.wanted {
            self.put(file.index, literals)?;
        }
        if copy > 0 {
            let by = unfold(some(streams[Stream::CopyOffsets as usize].number())?);
            let outside = corrupt("a copy is from outside of its sources");
            let Some(at) = file.old_end.checked_add_signed(by) else { return Err(outside) };
            let Some(place) = file.locate(at, copy) else { return Err(outside) };
            file.old_end = at + copy;
            let [.., gaps, differences, _] = streams;
            self.copy(file, place, copy, gaps, differences)?;
        }
        file.left -= len;
        Ok(())
    }

    /// Copies from an old file, with differences.
    #[expect(clippy::cast_possible_truncation, reason = "a place within a chunk, and at most 4")]
    fn copy(
        &mut self,
        file: &Progress<'_>,
        (old_file, start): (u32, u64),
        len: u64,
        gaps: &mut Bytes<'_>,
        differences: &mut Bytes<'_>,
    ) -> Result<(), ApplyError> {
        let mut done = 0;
        let mut next = next_difference(gaps, 0, len)?;
        while done < len {
            let chunk = usize::try_from(len - done).map_or(BUFFER_LEN, |left| left.min(BUFFER_LEN));
            if file.wanted {
                self.old.resize(chunk, 0);
                (self.read_old)(old_file, start + done, &mut self.old).map_err(ApplyError::Old)?;
            }
            let mut end = chunk;
            while next < done + chunk as u64 {
                let at = (next - done) as usize;
                let word = (len - next).min(4) as usize;
                if at + word > chunk {
                    // It begins the next chunk, so that no word is cut.
                    end = at;
                    break;
                }
                let by = some(differences.take(word))?;
                if file.wanted {
                    add(&mut self.old[at..at + word], by);
                }
                next = next_difference(gaps, next + word as u64, len)?;
            }
            if file.wanted {
                let old = std::mem::take(&mut self.old);
                self.put(file.index, &old[..end])?;
                self.old = old;
            }
            done += end as u64;
        }
        Ok(())
    }

    /// Hands bytes on, many at a time.
    fn put(&mut self, index: usize, bytes: &[u8]) -> Result<(), ApplyError> {
        if self.out.len() + bytes.len() > BUFFER_LEN {
            self.hand_on(index)?;
        }
        if bytes.len() >= BUFFER_LEN {
            return (self.write)(index, bytes).map_err(ApplyError::Sink);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn hand_on(&mut self, index: usize) -> Result<(), ApplyError> {
        if !self.out.is_empty() {
            (self.write)(index, &self.out).map_err(ApplyError::Sink)?;
            self.out.clear();
        }
        Ok(())
    }
}

/// Where the next difference of a copy begins, from `at` on; its end if there is none.
fn next_difference(gaps: &mut Bytes<'_>, at: u64, len: u64) -> Result<u64, ApplyError> {
    if at == len {
        return Ok(len);
    }
    let gap = some(gaps.number())?;
    if gap == 0 {
        return Ok(len);
    }
    let next = at.checked_add(gap - 1).filter(|next| *next < len);
    next.ok_or(corrupt("a difference lies beyond its copy"))
}

/// Adds a difference: a word of 4 bytes carries, fewer bytes do not.
fn add(old: &mut [u8], by: &[u8]) {
    if let (Ok(word), Ok(by)) = (<[u8; 4]>::try_from(&*old), <[u8; 4]>::try_from(by)) {
        let new = u32::from_le_bytes(word).wrapping_add(u32::from_le_bytes(by));
        old.copy_from_slice(&new.to_le_bytes());
    } else {
        for (old, by) in old.iter_mut().zip(by) {
            *old = old.wrapping_add(*by);
        }
    }
}
