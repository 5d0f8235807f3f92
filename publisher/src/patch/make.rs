//! Making a patch: which bytes are looked at, and how hard.

use super::groups::{self, Copied, Draft};
use super::index::Index;
use super::parallel::{cores, each};
use super::parts::{Part, Piece, parts};
use super::seeds::{Effort, Match, Old, seeds};
use super::side::Side;
use super::staying::Staying;
use super::stretch::{equal_bytes, stretch};
use crate::{Error, disk};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::ops::Range;
use std::path::Path;
use updraft_manifests::patch::{Listing, Patch};
use updraft_protocol::io::held::patiently;

/// Blocks of the coarse pass: what is unchanged for twice as long is always found.
const COARSE_BLOCK: usize = 32;
const COARSE: Effort = Effort { places_max: 16, margin: 8 };
/// Blocks of the fine pass, which begin anywhere.
const FINE_BLOCK: usize = 8;
const FINE: Effort = Effort { places_max: 64, margin: 4 };
/// Copies with fewer equal bytes cost more than they save.
const EQUAL_BYTES_MIN: usize = 16;
/// New bytes that one thread looks at in one go.
const STRETCH_LEN: usize = 8 << 20;
/// Gaps that one thread looks at in one go.
const GAPS_LEN: usize = 64;
/// Memory that is not for matching: slots of the index, and the program itself.
const MEMORY_FIXED: u64 = 108 << 20;
/// The least memory that matching is given: what is less finds next to nothing.
const MEMORY_MIN: u64 = 16 << 20;

/// With several parts, one of so many shares of the memory is for what they need of each other's old bytes.
const SHARES: u64 = 3;

/// How a patch is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of memory to keep to.
    pub memory: u64,
    /// Threads to use.
    pub threads: usize,
}

impl Options {
    /// All cores, and at most `memory` bytes; half of the machine's if not given.
    pub fn new(memory: Option<u64>) -> Self {
        Self { memory: memory.unwrap_or_else(half_of_the_machine), threads: cores() }
    }
}

/// Memory to use when the machine does not say how much it has.
const MEMORY_DEFAULT: u64 = 2 << 30;

#[cfg(target_os = "linux")]
fn half_of_the_machine() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(MEMORY_DEFAULT, |kib| kib * 1024 / 2)
}

#[cfg(not(target_os = "linux"))]
fn half_of_the_machine() -> u64 {
    MEMORY_DEFAULT
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The header.
    pub patch: Patch,
    /// Bytes of the patch file.
    pub size: u64,
}

/// Says what else differs between two folders, given the outputs.
pub type ListChanges<'a> = dyn Fn(&[Draft]) -> Listing + 'a;

/// Writes the patch from `old` to `new` to `path`, atomically.
///
/// # Errors
/// [`Error::Disk`]; `path` then holds what it held before.
pub fn make(
    old: &Side,
    new: &Side,
    listing: Option<&ListChanges<'_>>,
    options: &Options,
    path: &Path,
) -> Result<Made, Error> {
    let (old_files, staying, new_files) = differing(old, new);
    let mut drafts: Vec<Draft> =
        new_files.iter().map(|&file| Draft::new(file, new.tree.files()[file].length)).collect();
    let memory = options.memory.saturating_sub(MEMORY_FIXED).max(MEMORY_MIN);
    let divided = |memory| parts(&old.tree, &old_files, &new.tree, &new_files, memory);
    let (mut parts, mut others) = (divided(memory), staying);
    if parts.len() > 1 {
        // What a part needs may lie in the old bytes of any other: it is looked for like what stays.
        parts = divided(memory / SHARES * (SHARES - 1));
        others.extend(&old_files);
    }
    let others = Staying { side: old, files: &others };
    for part in parts {
        match_part(&others, new, part, memory, options.threads, &mut drafts)?;
    }
    let listing = listing.map(|listing| listing(&drafts));
    let folder = disk::folder_of(path);
    let mut body = tempfile::tempfile_in(folder).map_err(Error::disk("write in", folder))?;
    let mut patch = groups::write(old, new, &mut drafts, options, folder, &mut body)?;
    patch.listing = listing;
    let header = patch
        .encode(groups::LEVEL)
        .map_err(|error| Error::Refused { problems: vec![error.to_string()] })?;
    let temporary = disk::temporary(path);
    let mut write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&header)?;
        body.rewind()?;
        io::copy(&mut body, &mut file)?;
        file.sync_all()?;
        drop(file);
        patiently(|| std::fs::rename(&temporary, path))
    };
    write().map_err(Error::disk("write", path))?;
    disk::sync_folder_of(path)?;
    let patch = Patch::parse(&header).map_err(|error| Error::Internal(error.to_string()))?;
    // Without outputs there are no groups, and the header is all.
    Ok(Made { size: patch.len().max(header.len() as u64), patch })
}

/// The old files that have no equal on the new side, those that have one, and the new ones that have none
/// on the old side; of equal ones the first.
fn differing(old: &Side, new: &Side) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let identities = |side: &Side| -> HashSet<_> {
        side.tree.files().iter().map(|file| (file.length, file.root)).collect()
    };
    let (in_old, in_new) = (identities(old), identities(new));
    let divided = |side: &Side, other: &HashSet<_>| -> (Vec<usize>, Vec<usize>) {
        let (mut seen, files) = (HashSet::new(), side.tree.files().iter().enumerate());
        let first = files.filter(|(_, file)| seen.insert((file.length, file.root)));
        let (same, other): (Vec<_>, Vec<_>) =
            first.partition(|(_, file)| other.contains(&(file.length, file.root)));
        let numbers =
            |files: Vec<(usize, _)>| files.into_iter().map(|(number, _)| number).collect();
        (numbers(same), numbers(other))
    };
    let (staying, old_files) = divided(old, &in_new);
    let (_, new_files) = divided(new, &in_old);
    (old_files, staying, new_files)
}

/// The bytes of many pieces, and where each begins.
struct Loaded {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Loaded {
    fn append(&mut self, mut other: Self) {
        let end = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        self.starts.extend(other.starts[1..].iter().map(|start| end + start));
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        self.starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }
}

fn load(side: &Side, pieces: &[Piece]) -> Result<Loaded, Error> {
    let total: u64 = pieces.iter().map(|piece| piece.range.end - piece.range.start).sum();
    let total = usize::try_from(total).map_err(|_| Error::Usage("--memory is too much".into()))?;
    let mut loaded = Loaded { bytes: vec![0; total], starts: vec![0] };
    let mut rest = loaded.bytes.as_mut_slice();
    for piece in pieces {
        let len = usize::try_from(piece.range.end - piece.range.start).unwrap_or(0);
        let (buffer, after) = rest.split_at_mut(len);
        side.read(piece.file, piece.range.start, buffer)?;
        rest = after;
        loaded.starts.push(loaded.starts.last().map_or(0, |start| start + len));
    }
    Ok(loaded)
}

fn match_part(
    staying: &Staying<'_>,
    new_side: &Side,
    mut part: Part,
    memory: u64,
    threads: usize,
    drafts: &mut [Draft],
) -> Result<(), Error> {
    let mut old = load(staying.side, &part.old)?;
    let new = load(new_side, &part.new)?;
    let pieces = new.ranges();
    let mut coarse = coarse_matches(&old, &new.bytes, &pieces, threads);
    let gaps: Vec<_> = gaps(&pieces, &coarse).into_iter().map(|(_, gap)| gap).collect();
    let more = staying.useful(&new.bytes, &gaps, part.room(memory))?;
    if !more.is_empty() {
        old.append(load(staying.side, &more)?);
        part.old.extend(more);
        coarse = coarse_matches(&old, &new.bytes, &pieces, threads);
    }
    let found = fine_matches(&old, &new.bytes, &pieces, coarse, threads);
    let old_bytes = Old { bytes: &old.bytes, starts: &old.starts };
    for ((piece, range), matches) in part.new.iter().zip(&pieces).zip(found) {
        let place = drafts.binary_search_by_key(&piece.file, |draft| draft.file);
        let draft =
            &mut drafts[place.map_err(|_| Error::Internal("a part has no draft".into()))?];
        for found in matches {
            let equal = equal_bytes(&old_bytes, &new.bytes, &found);
            if equal < EQUAL_BYTES_MIN {
                continue;
            }
            let from = old.starts.partition_point(|start| *start <= found.old) - 1;
            let from_piece = &part.old[from];
            draft.copies.push(Copied {
                new: piece.range.start + (found.new - range.start) as u64,
                file: from_piece.file,
                old: from_piece.range.start + (found.old - old.starts[from]) as u64,
                len: found.len as u64,
                differences: (found.len - equal) as u64,
            });
        }
    }
    Ok(())
}

/// What moved or stayed, for every piece of the new bytes.
fn coarse_matches(
    old: &Loaded,
    new: &[u8],
    pieces: &[Range<usize>],
    threads: usize,
) -> Vec<Vec<Match>> {
    let bytes = Old { bytes: &old.bytes, starts: &old.starts };
    let mut work = Vec::new();
    for (piece, range) in pieces.iter().enumerate() {
        let starts = range.clone().step_by(STRETCH_LEN);
        work.extend(starts.map(|start| (piece, start..range.end.min(start + STRETCH_LEN))));
    }
    let index = Index::build(&old.bytes, &old.ranges(), COARSE_BLOCK, COARSE_BLOCK);
    let found =
        each(work.len(), threads, &|at| seeds(&bytes, new, work[at].1.clone(), &index, COARSE));
    drop(index);
    let mut coarse = vec![Vec::new(); pieces.len()];
    for ((piece, _), found) in work.iter().zip(found) {
        coarse[*piece].extend(found);
    }
    each(pieces.len(), threads, &|at| stretch(&bytes, new, pieces[at].clone(), &coarse[at]))
}

/// What the matches leave of each piece.
fn gaps(pieces: &[Range<usize>], matches: &[Vec<Match>]) -> Vec<(usize, Range<usize>)> {
    let mut gaps = Vec::new();
    for (piece, range) in pieces.iter().enumerate() {
        let mut at = range.start;
        for found in &matches[piece] {
            gaps.push((piece, at..found.new));
            at = found.new + found.len;
        }
        gaps.push((piece, at..range.end));
    }
    gaps
}

/// The coarse matches and what else is alike, over the old bytes that those leave.
fn fine_matches(
    loaded: &Loaded,
    new: &[u8],
    pieces: &[Range<usize>],
    coarse: Vec<Vec<Match>>,
    threads: usize,
) -> Vec<Vec<Match>> {
    let old = &Old { bytes: &loaded.bytes, starts: &loaded.starts };
    let left = unused(&loaded.ranges(), &coarse);
    let mut gaps = gaps(pieces, &coarse);
    gaps.retain(|(_, gap)| gap.len() >= FINE_BLOCK);
    // Where the coarse pass left nothing, none of the old bytes is of any more use.
    let index = Index::build(old.bytes, if gaps.is_empty() { &[] } else { &left }, FINE_BLOCK, 1);
    let work: Vec<_> = gaps.chunks(GAPS_LEN).collect();
    let found = each(work.len(), threads, &|at| {
        let gaps = work[at].iter();
        gaps.map(|(_, gap)| seeds(old, new, gap.clone(), &index, FINE)).collect::<Vec<_>>()
    });
    drop(index);
    let mut all_found = coarse;
    for ((piece, _), found) in gaps.iter().zip(found.into_iter().flatten()) {
        all_found[*piece].extend(found);
    }
    each(pieces.len(), threads, &|at| {
        let mut found = all_found[at].clone();
        found.sort_by_key(|found| (found.new, found.old));
        stretch(old, new, pieces[at].clone(), &found)
    })
}

/// The old bytes that no match uses, with some on either side.
fn unused(ranges: &[Range<usize>], matches: &[Vec<Match>]) -> Vec<Range<usize>> {
    let mut used: Vec<_> =
        matches.iter().flatten().map(|found| found.old..found.old + found.len).collect();
    used.sort_by_key(|range| range.start);
    let mut used = used.into_iter().peekable();
    let mut left: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        let mut at = range.start;
        let mut gap = |from: usize, to: usize| {
            if to > from {
                let start = from.saturating_sub(2 * FINE_BLOCK).max(range.start);
                let end = range.end.min(to + 2 * FINE_BLOCK);
                match left.last_mut() {
                    // No place is to stand in the index twice.
                    Some(last) if last.start >= range.start && start <= last.end => last.end = end,
                    _ => left.push(start..end),
                }
            }
        };
        while let Some(next) = used.next_if(|next| next.start < range.end) {
            gap(at, next.start);
            at = at.max(next.end);
        }
        gap(at, range.end);
    }
    left
}
