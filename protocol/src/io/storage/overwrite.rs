//! Writing over a file that lay there already: only pages that differ are written.
//!
//! A caller may put a clone of an older version where a file is to be built; on file systems that share
//! blocks (XFS, btrfs) what stays equal then takes neither writes nor room.

use super::handles::{read_full_at, write_all_at};
use crate::geometry::BLOCK_LEN;
use std::fs::File;
use std::io::{self, IoSlice};

/// What file systems write and share at once, in bytes.
const PAGE: usize = 4096;

/// Brings `bytes` to `at` in `file`, writing only the pages that hold something else.
///
/// # Errors
/// From the file system.
pub(super) fn write_differing(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    let mut old = [0; BLOCK_LEN as usize];
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(bytes.len().min(old.len()));
        let old = &mut old[..now.len()];
        if read_full_at(file, old, at)? == now.len() {
            for run in differing(now, old, at) {
                let from = at + run.start as u64;
                write_all_at(file, &mut [IoSlice::new(&now[run])], from)?;
            }
        } else {
            write_all_at(file, &mut [IoSlice::new(now)], at)?;
        }
        (bytes, at) = (later, at + now.len() as u64);
    }
    Ok(())
}

/// Runs of pages of a file in which `new` and `old`, which begin at `at`, differ: ranges of `new`.
fn differing(new: &[u8], old: &[u8], at: u64) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    let mut start = 0;
    while start < new.len() {
        let into = usize::try_from((at + start as u64) % PAGE as u64).expect("below a page");
        let end = new.len().min(start + PAGE - into);
        if new[start..end] != old[start..end] {
            match runs.last_mut() {
                Some(run) if run.end == start => run.end = end,
                Some(_) | None => runs.push(start..end),
            }
        }
        start = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `changed` places of three pages at `at` in a file.
    fn check(changed: &[usize], at: u64, expected: &[(usize, usize)]) {
        let old = [0; 3 * PAGE];
        let mut new = old;
        changed.iter().for_each(|&place| new[place] = 1);
        let found = differing(&new, &old, at);
        let found: Vec<_> = found.iter().map(|run| (run.start, run.end)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn pages_of_the_file_are_compared() {
        check(&[], 0, &[]);
        check(&[PAGE], 0, &[(PAGE, 2 * PAGE)]);
        check(&[PAGE], 100, &[(PAGE - 100, 2 * PAGE - 100)]);
        check(&[PAGE, 2 * PAGE], 0, &[(PAGE, 3 * PAGE)]);
        check(&[0, 3 * PAGE - 1], 0, &[(0, PAGE), (2 * PAGE, 3 * PAGE)]);
        check(&[3 * PAGE - 1], 4090, &[(2 * PAGE + 6, 3 * PAGE)]);
    }

    proptest! {
        #[test]
        fn the_file_holds_what_was_written(
            old in prop::collection::vec(0..2u8, 0..20_000),
            new in prop::collection::vec(0..2u8, 1..20_000),
            at in 0..20_000u64,
        ) {
            use std::io::{Read as _, Seek as _, Write as _};
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&old).unwrap();
            write_differing(&file, &new, at).unwrap();
            let mut expected = old.clone();
            let end = usize::try_from(at).unwrap() + new.len();
            expected.resize(expected.len().max(end), 0);
            expected[end - new.len()..end].copy_from_slice(&new);
            let mut found = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut found).unwrap();
            prop_assert!(found == expected);
        }
    }
}
