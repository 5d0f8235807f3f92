//! What is matched together: all of it, or as much as memory holds.

use std::collections::HashMap;
use std::ops::Range;
use updraft_manifests::patch::Tree;

/// Old bytes of a part: places in them are 32-bit numbers.
const OLD_BYTES_MAX: u64 = u32::MAX as u64 - (1 << 20);
/// Old bytes taken along on either side of a window, as a part of the window.
const MARGIN: u64 = 4;

/// A range of a file, by its number in its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) file: usize,
    pub(super) range: Range<u64>,
}

/// Old and new bytes that are matched with each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) old: Vec<Piece>,
    pub(super) new: Vec<Piece>,
}

impl Part {
    fn add(&mut self, other: Self) {
        self.old.extend(other.old);
        self.new.extend(other.new);
    }

    fn old_bytes(&self) -> u64 {
        self.old.iter().map(|piece| piece.range.end - piece.range.start).sum()
    }

    fn new_bytes(&self) -> u64 {
        self.new.iter().map(|piece| piece.range.end - piece.range.start).sum()
    }

    fn cost(&self) -> u64 {
        cost(self.old_bytes(), self.new_bytes())
    }

    /// Old bytes that may be matched besides, within `memory`.
    pub(super) fn room(&self, memory: u64) -> u64 {
        let room = memory.saturating_sub(self.cost()) / 5;
        room.min(OLD_BYTES_MAX.saturating_sub(self.old_bytes()))
    }

    fn fits(&self, memory: u64) -> bool {
        fits(self.old_bytes(), self.new_bytes(), memory)
    }
}

/// Memory that matching so many bytes takes: the bytes themselves, and four more for each old one.
fn cost(old: u64, new: u64) -> u64 {
    old * 5 + new
}

fn fits(old: u64, new: u64, memory: u64) -> bool {
    cost(old, new) <= memory && old <= OLD_BYTES_MAX
}

/// Divides the files `old_files` and `new_files` into parts that each take at most `memory` bytes. Files
/// with one path or name stay together; a file that is too large for that is cut, with the old bytes
/// around the same place.
pub(super) fn parts(
    old: &Tree,
    old_files: &[usize],
    new: &Tree,
    new_files: &[usize],
    memory: u64,
) -> Vec<Part> {
    let mut together: Vec<Part> =
        new_files.iter().map(|&file| Part { old: vec![], new: vec![whole(new, file)] }).collect();
    let name = |tree: &'_ Tree, file: usize| tree.files()[file].path.name().to_owned();
    let named: HashMap<String, usize> = new_files
        .iter()
        .enumerate()
        .filter(|(_, file)| old.find(&new.files()[**file].path).is_none())
        .map(|(place, &file)| (name(new, file), place))
        .collect();
    for &file in old_files {
        let path = &old.files()[file].path;
        let place = new_files.partition_point(|&new_file| new.files()[new_file].path < *path);
        let same = new_files.get(place).is_some_and(|&file| new.files()[file].path == *path);
        let place = if same { Some(place) } else { named.get(&name(old, file)).copied() }
            .unwrap_or(place.min(together.len().saturating_sub(1)));
        if let Some(part) = together.get_mut(place) {
            part.old.push(whole(old, file));
        }
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut open = Part::default();
    let mut sums = (0, 0);
    for part in together {
        let (old_bytes, new_bytes) = (part.old_bytes(), part.new_bytes());
        let joined = (sums.0 + old_bytes, sums.1 + new_bytes);
        if fits(joined.0, joined.1, memory) {
            open.add(part);
            sums = joined;
            continue;
        }
        if !open.new.is_empty() {
            parts.push(std::mem::take(&mut open));
        }
        if fits(old_bytes, new_bytes, memory) {
            (open, sums) = (part, (old_bytes, new_bytes));
        } else {
            cut(&part, memory, &mut parts);
            sums = (0, 0);
        }
    }
    if !open.new.is_empty() {
        parts.push(open);
    }
    parts
}

fn whole(tree: &Tree, file: usize) -> Piece {
    Piece { file, range: 0..tree.files()[file].length }
}

/// Cuts a part into windows of the new file, each with the old bytes around the same share of theirs.
fn cut(part: &Part, memory: u64, parts: &mut Vec<Part>) {
    let mut count = 2;
    loop {
        let windows: Vec<Part> = (0..count).map(|window| window_of(part, window, count)).collect();
        // A window of a byte cannot be made smaller; memory is never less than that takes.
        if windows.iter().all(|window| window.fits(memory)) || count > 1 << 16 {
            parts.extend(windows);
            return;
        }
        count = count * 3 / 2 + 1;
    }
}

fn window_of(part: &Part, window: u64, count: u64) -> Part {
    let place = |len: u64, quarters: u64| {
        let share = u128::from(len) * u128::from(quarters) / u128::from(count * MARGIN);
        u64::try_from(share).unwrap_or(len).min(len)
    };
    let piece = |piece: &Piece, before: u64, after: u64| {
        let len = piece.range.end;
        let start = place(len, (window * MARGIN).saturating_sub(before));
        Piece { file: piece.file, range: start..place(len, (window + 1) * MARGIN + after) }
    };
    Part {
        old: part.old.iter().map(|old| piece(old, 1, 1)).collect(),
        new: part.new.iter().map(|new| piece(new, 0, 0)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_manifests::hash::ContentHash;
    use updraft_manifests::patch::TreeFile;
    use updraft_manifests::path::RelPath;

    fn tree(files: &[(&str, u64)]) -> Tree {
        Tree::new(files.iter().map(|(path, length)| TreeFile {
            path: RelPath::parse(path).unwrap(),
            length: *length,
            root: ContentHash::of(path.as_bytes()),
        }))
    }

    fn check(old: &[(&str, u64)], new: &[(&str, u64)], memory: u64, expected: &str) {
        let (old, new) = (tree(old), tree(new));
        let all = |tree: &Tree| (0..tree.files().len()).collect::<Vec<_>>();
        let made = parts(&old, &all(&old), &new, &all(&new), memory);
        let text = |tree: &Tree, pieces: &[Piece]| {
            let one = |piece: &Piece| {
                let Range { start, end } = piece.range;
                format!("{}:{start}-{end}", tree.files()[piece.file].path)
            };
            pieces.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        let text: Vec<_> = made
            .iter()
            .map(|part| format!("{} > {}", text(&old, &part.old), text(&new, &part.new)))
            .collect();
        assert_eq!(text.join("; "), expected);
    }

    #[test]
    fn all_together_when_it_fits() {
        check(&[("a", 10), ("b", 10)], &[("a", 10)], 1000, "a:0-10 b:0-10 > a:0-10");
    }

    #[test]
    fn by_path_and_by_name() {
        let old = [("a", 10), ("old/moved", 10), ("z", 10)];
        let new = [("a", 10), ("m", 10), ("new/moved", 10)];
        check(&old, &new, 120, "a:0-10 > a:0-10 m:0-10; old/moved:0-10 z:0-10 > new/moved:0-10");
    }

    #[test]
    fn a_large_file_is_cut() {
        check(&[("a", 80)], &[("a", 80)], 350, "a:0-50 > a:0-40; a:30-80 > a:40-80");
    }
}
