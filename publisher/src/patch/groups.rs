//! From matches to the compressed groups of a patch.

use super::make::Options;
use super::parallel::each;
use super::side::{Reader, Side};
use crate::Error;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::ops::Range;
use std::path::Path;
use tempfile::SpooledTempFile;
use updraft_manifests::patch::{
    Copy, Group, GroupWriter, LEAF_LEN, Output, Patch, SOURCES_MAX, Source,
};

/// zstd's level: the highest that decompresses in the windows that a patch may use.
pub(super) const LEVEL: i32 = 19;
/// Compressed bytes that a group is meant to have, by the estimate: well above the 256 KiB below which
/// compressing apart costs more than fetching apart saves.
const GROUP_BYTES: u64 = 1 << 20;
/// Sources of one file that are no further apart become one: each costs some bytes of the header.
const SOURCE_GAP_LEAVES: u32 = 64;
/// Bytes of a copy, or of literals, that are held at once.
const STEP_LEN: u64 = 4 << 20;

/// A stream, or a group, up to this size is kept in memory, and in a file beyond.
const SPOOL_BYTES: usize = 4 << 20;
/// Memory that one group takes at most while it is made: its spools, steps of old and new bytes, and
/// zstd's tables for its largest window.
const GROUP_MEMORY: u64 = 192 << 20;
/// Groups that are made before they are written, for each thread.
const GROUPS_AHEAD: usize = 8;

/// What is known of one output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its number in the new tree.
    pub file: usize,
    /// Its bytes.
    pub length: u64,
    /// What it copies, by place; they do not overlap.
    pub(super) copies: Vec<Copied>,
}

/// A copy from an old file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) new: u64,
    pub(super) file: usize,
    pub(super) old: u64,
    pub(super) len: u64,
    pub(super) differences: u64,
}

impl Draft {
    pub(super) fn new(file: usize, length: u64) -> Self {
        Self { file, length, copies: vec![] }
    }

    /// Copies from at most so many old files, those that give the most: what the others have comes along.
    fn keep_best_files(&mut self, count: usize) {
        let mut given: HashMap<usize, u64> = HashMap::new();
        for copy in &self.copies {
            *given.entry(copy.file).or_default() += copy.len;
        }
        if given.len() <= count {
            return;
        }
        let mut best: Vec<(u64, usize)> = given.iter().map(|(&file, &len)| (len, file)).collect();
        best.sort_unstable_by_key(|&(len, file)| (std::cmp::Reverse(len), file));
        best.iter().skip(count).for_each(|(_, file)| _ = given.remove(file));
        self.copies.retain(|copy| given.contains_key(&copy.file));
    }

    /// About how many bytes it will take: literals and differences halve, a copy takes four.
    fn estimate(&self) -> u64 {
        let copied: u64 = self.copies.iter().map(|copy| copy.len).sum();
        let differences: u64 = self.copies.iter().map(|copy| copy.differences).sum();
        (self.length - copied + differences) / 2 + 4 * self.copies.len() as u64
    }
}

/// Writes the groups, compressed, to `body`, and returns the header to go before them. Large ones need
/// room in `folder` meanwhile.
pub(super) fn write(
    old: &Side,
    new: &Side,
    drafts: &mut [Draft],
    options: &Options,
    folder: &Path,
    body: &mut File,
) -> Result<Patch, Error> {
    let mut outputs = Vec::with_capacity(drafts.len());
    for draft in drafts.iter_mut() {
        draft.keep_best_files(SOURCES_MAX);
        let file =
            u32::try_from(draft.file).map_err(|_| Error::Internal("too many files".into()))?;
        outputs.push(Output { file, length: draft.length, sources: sources(draft)? });
    }
    let at_once = usize::try_from(options.memory / GROUP_MEMORY).unwrap_or(usize::MAX).max(1);
    let threads = options.threads.min(at_once);
    let (mut groups, mut at) = (Vec::new(), 0);
    for ranges in group(drafts).chunks(threads * GROUPS_AHEAD) {
        let made = each(ranges.len(), threads, &|at| {
            let range = ranges[at].clone();
            write_group(old, new, &drafts[range.clone()], &outputs[range], folder)
        });
        for (outputs, made) in ranges.iter().zip(made) {
            let (mut bytes, len) = made?;
            io::copy(&mut bytes, body).map_err(Error::disk("write", folder))?;
            groups.push(Group { outputs: outputs.clone(), bytes: at..at + len });
            at += len;
        }
    }
    body.flush().map_err(Error::disk("write", folder))?;
    Ok(Patch { from: old.tree.digest(), to: new.tree.digest(), groups, outputs, listing: None })
}

/// Which outputs are compressed together: neighbours by path, which are most alike.
fn group(drafts: &[Draft]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, draft) in drafts.iter().enumerate() {
        bytes += draft.estimate();
        if bytes >= GROUP_BYTES {
            groups.push(start..index + 1);
            (start, bytes) = (index + 1, 0);
        }
    }
    if start < drafts.len() {
        match groups.last_mut() {
            Some(last) if bytes < GROUP_BYTES / 2 => last.end = drafts.len(),
            _ => groups.push(start..drafts.len()),
        }
    }
    groups
}

/// The old ranges of an output: the fewest that do not take in too much.
fn sources(draft: &Draft) -> Result<Vec<Source>, Error> {
    let number = |value: u64| {
        u32::try_from(value).map_err(|_| Error::Refused {
            problems: vec!["a file is larger than a patch can refer to (64 TiB)".to_owned()],
        })
    };
    let mut leaves = Vec::with_capacity(draft.copies.len());
    for copy in &draft.copies {
        let first = number(copy.old / LEAF_LEN)?;
        let end = number((copy.old + copy.len).div_ceil(LEAF_LEN))?;
        leaves.push((number(copy.file as u64)?, first, end));
    }
    leaves.sort_unstable();
    let mut gap = SOURCE_GAP_LEAVES;
    loop {
        let mut sources: Vec<Source> = Vec::new();
        for &(file, first_leaf, end) in &leaves {
            match sources.last_mut() {
                Some(last)
                    if last.file == file
                        && first_leaf <= (last.first_leaf + last.leaves).saturating_add(gap) =>
                {
                    last.leaves = last.leaves.max(end - last.first_leaf);
                }
                _ => sources.push(Source { file, first_leaf, leaves: end - first_leaf }),
            }
        }
        if sources.len() <= SOURCES_MAX {
            return Ok(sources);
        }
        assert!(gap < u32::MAX, "no more files than sources were kept");
        gap = gap.saturating_mul(4);
    }
}

/// Where a copy begins, counted through all sources.
fn place(sources: &[Source], copy: &Copied) -> u64 {
    let mut before = 0;
    for source in sources {
        let bytes = source.bytes();
        if source.file as usize == copy.file && bytes.contains(&copy.old) {
            return before + copy.old - bytes.start;
        }
        before += bytes.end - bytes.start;
    }
    unreachable!("every copy is within a source")
}

fn write_group(
    old: &Side,
    new: &Side,
    drafts: &[Draft],
    outputs: &[Output],
    folder: &Path,
) -> Result<(SpooledTempFile, u64), Error> {
    let spool = || tempfile::spooled_tempfile_in(SPOOL_BYTES, folder);
    let failed = |error| Error::disk("write the streams of a patch in", folder)(error);
    let mut writer = GroupWriter::new(&spool);
    let (mut old_reader, mut new_reader) = (Reader::default(), Reader::default());
    let (mut old_bytes, mut new_bytes) = (Vec::new(), Vec::new());
    for (draft, output) in drafts.iter().zip(outputs) {
        let path = &new.paths[draft.file];
        let mut read_new = |at: u64, len: u64, buffer: &mut Vec<u8>| {
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            new_reader.read(new, draft.file, at, buffer).map_err(Error::disk("read", path))
        };
        writer.begin_output();
        let mut at = 0;
        for copy in &draft.copies {
            while copy.new - at > STEP_LEN {
                read_new(at, STEP_LEN, &mut new_bytes)?;
                writer.step(&new_bytes, None).map_err(failed)?;
                at += STEP_LEN;
            }
            let mut literals = copy.new - at;
            let from = place(&output.sources, copy);
            let mut done = 0;
            while done < copy.len {
                let len = (copy.len - done).min(STEP_LEN);
                read_new(at, literals + len, &mut new_bytes)?;
                old_bytes.resize(usize::try_from(len).unwrap_or(0), 0);
                old_reader
                    .read(old, copy.file, copy.old + done, &mut old_bytes)
                    .map_err(Error::disk("read", &old.paths[copy.file]))?;
                let (before, copied) = new_bytes.split_at(usize::try_from(literals).unwrap_or(0));
                let copy = Copy { at: from + done, old: &old_bytes, new: copied };
                writer.step(before, Some(copy)).map_err(failed)?;
                at += literals + len;
                done += len;
                literals = 0;
            }
        }
        while at < draft.length {
            let len = (draft.length - at).min(STEP_LEN);
            read_new(at, len, &mut new_bytes)?;
            writer.step(&new_bytes, None).map_err(failed)?;
            at += len;
        }
    }
    let mut made = spool();
    let len = writer.finish(LEVEL, &mut made).map_err(failed)?;
    made.rewind().map_err(failed)?;
    Ok((made, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of more old files than a patch can name is made of those that give the most.
    #[test]
    fn a_file_of_very_many_old_ones_is_made_of_the_best() {
        let count = SOURCES_MAX + 100;
        let mut draft = Draft::new(0, 20 * count as u64);
        for file in 0..count {
            let (len, new) = (10 + (file % 3) as u64, 20 * file as u64);
            draft.copies.push(Copied { new, file, old: 0, len, differences: 0 });
        }
        let long = draft.copies.iter().filter(|copy| copy.len > 10).count();
        draft.keep_best_files(SOURCES_MAX);
        assert_eq!(sources(&draft).unwrap().len(), SOURCES_MAX);
        assert_eq!(draft.copies.iter().filter(|copy| copy.len > 10).count(), long);
        assert!(draft.copies.is_sorted_by_key(|copy| copy.new));
        let before = draft.copies.clone();
        draft.keep_best_files(SOURCES_MAX);
        assert_eq!(draft.copies, before);
    }
}
