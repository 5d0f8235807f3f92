//! Whole folders: what is made is applied and compared. There is nothing to fall back to here.

use super::apply::open;
use super::folder::{Folder, make_folder};
use super::make::{Options, make};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// Bytes that do not compress, different for every seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn write(folder: &Path, files: &[(&str, Vec<u8>)]) {
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Makes the patch with these threads and memory, applies it, and returns its bytes.
fn round_trip(
    old: &[(&str, Vec<u8>)],
    new: &[(&str, Vec<u8>)],
    threads: usize,
    memory: u64,
) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("old"), old);
    write(&at("new"), new);
    let (old, new) = (Folder::open(&at("old")).unwrap(), Folder::open(&at("new")).unwrap());
    let listing = |drafts: &_| old.listing(&new, drafts);
    let options = Options { memory, threads };
    make(&old.side, &new.side, Some(&listing), &options, &at("patch")).unwrap();
    let patch = open(&at("patch")).unwrap();
    super::compare(&at("patch"), &old.side, &new.side).unwrap();
    let listing = patch.listing.as_ref().unwrap();
    make_folder(&at("patch"), &patch, listing, &old, &at("made")).unwrap();
    assert_eq!(Folder::open(&at("made")).unwrap().side.tree, new.side.tree);
    fs::read(at("patch")).unwrap()
}

fn check(old: &[(&str, Vec<u8>)], new: &[(&str, Vec<u8>)], size_max: usize) {
    let patch = round_trip(old, new, 1, 1 << 30);
    assert!(patch.len() <= size_max, "{} bytes", patch.len());
    assert_eq!(patch, round_trip(old, new, 4, 1 << 30), "it depends on the number of threads");
}

#[test]
fn content_is_found_anywhere() {
    let (a, b) = (noise(1, 100_000), noise(2, 100_000));
    let mut edited = a.clone();
    edited[50_000] ^= 1;
    edited.splice(70_000..70_000, noise(3, 50));
    check(&[("a", a.clone())], &[("a", edited)], 500);
    check(&[("a", a.clone())], &[("moved/b", a.clone())], 300);
    let merged = [a.clone(), b.clone()].concat();
    check(&[("a", a.clone()), ("b", b.clone())], &[("ab", merged.clone())], 400);
    check(&[("ab", merged)], &[("a", a.clone()), ("b", b.clone())], 400);
    let swapped = [&a[60_000..], &a[..60_000]].concat();
    check(&[("a", a.clone())], &[("a", swapped)], 400);
    check(&[("a", a)], &[("b", b)], 101_000);
}

#[test]
fn files_that_stay_are_copied_from_too() {
    let (a, b) = (noise(1, 100_000), noise(2, 3_000_000));
    let old = [("a", a.clone()), ("b", b.clone()), ("c", noise(3, 50_000))];
    let mut edited = a[1..].to_vec();
    (0..90_000).step_by(400).for_each(|at| edited[at] ^= 0x10);
    let part = [&b[1_000_001..1_900_000], &noise(4, 20)[..], &b[5..100_000]].concat();
    let mut new = old.to_vec();
    new.push(("d", [a, b].concat()));
    check(&old, &new, 400);
    new[3] = ("d", part);
    check(&old, &new, 500);
    new[3] = ("d", edited);
    check(&old, &new, 1500);
}

#[test]
fn little_memory_finds_less_and_is_right() {
    let old = noise(1, 9 << 20);
    let mut new = old.clone();
    new.splice(1_000_000..1_000_000, noise(2, 1000));
    new.rotate_left(17);
    let patch = round_trip(&[("a", old)], &[("a", new)], 2, 0);
    assert!(patch.len() < 1 << 20, "{} bytes", patch.len());
}

/// Parts of a file are replaced, the rest stays where it is: only these parts are new.
#[test]
fn what_is_overwritten_in_many_places_costs_only_that() {
    let old = noise(1, 4 << 20);
    let mut new = old.clone();
    for part in 0..8 {
        let at = 100_001 + 500_000 * part;
        new[at..at + 20_000].copy_from_slice(&noise(100 + part as u64, 20_000));
    }
    let patch = round_trip(&[("a", old)], &[("a", new)], 2, 1 << 30);
    assert!(patch.len() < 8 * 20_000 + 2000, "{} bytes", patch.len());
}

/// Content that moved far within a file of which memory holds a part.
#[test]
fn what_moved_far_is_found_with_little_memory() {
    let old = noise(1, 12 << 20);
    let chunks: Vec<&[u8]> = old.chunks(300_000).collect();
    let new: Vec<u8> =
        (0..chunks.len()).flat_map(|at| chunks[at * 17 % chunks.len()]).copied().collect();
    let patch = round_trip(&[("a", old.clone())], &[("a", new)], 2, 0);
    assert!(patch.len() < 1 << 20, "{} bytes", patch.len());
}

#[test]
fn damage_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("old"), &[("a", noise(1, 50_000)), ("b", vec![1])]);
    write(&at("new"), &[("a", noise(1, 60_000)), ("b", vec![1])]);
    let (old, new) = (Folder::open(&at("old")).unwrap(), Folder::open(&at("new")).unwrap());
    let listing = |drafts: &_| old.listing(&new, drafts);
    make(&old.side, &new.side, Some(&listing), &Options::new(None), &at("patch")).unwrap();
    let good = fs::read(at("patch")).unwrap();
    let apply = |old: &Folder| {
        let patch = open(&at("patch"))?;
        let listing = patch.listing.clone().unwrap();
        make_folder(&at("patch"), &patch, &listing, old, &at("made"))
    };
    let error = apply(&new).unwrap_err().to_string();
    assert!(error.contains("another release"), "{error}");
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 0x10;
    fs::write(at("patch"), &bad).unwrap();
    assert!(apply(&old).is_err());
    fs::write(at("patch"), &good[..last]).unwrap();
    let error = apply(&old).unwrap_err().to_string();
    assert!(error.contains("cut off"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "old, new and the patch");
    fs::write(at("patch"), &good).unwrap();
    apply(&old).unwrap();
    assert!(apply(&old).unwrap_err().to_string().contains("exists"));
}

/// Wherever a patch is damaged or cut off, nothing is made, and nothing is left lying about.
#[test]
fn damage_anywhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (a, b) = (noise(1, 50_000), noise(2, 20_000));
    let mut edited = a.clone();
    (0..edited.len()).step_by(997).for_each(|at| edited[at] ^= 3);
    edited.splice(20_000..20_000, noise(3, 900));
    write(&at("old"), &[("a", a), ("b", b.clone())]);
    write(&at("new"), &[("a", edited), ("c/b", b)]);
    let (old, new) = (Folder::open(&at("old")).unwrap(), Folder::open(&at("new")).unwrap());
    let listing = |drafts: &_| old.listing(&new, drafts);
    make(&old.side, &new.side, Some(&listing), &Options::new(None), &at("patch")).unwrap();
    let good = fs::read(at("patch")).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(at("patch"), bytes).unwrap();
        let made = open(&at("patch")).and_then(|patch| {
            let listing = patch.listing.clone().unwrap_or_default();
            make_folder(&at("patch"), &patch, &listing, &old, &at("made"))
        });
        let right = made.is_ok() && Folder::open(&at("made")).unwrap().side.tree == new.side.tree;
        assert!(made.is_err() || right, "{what}");
        let _ = fs::remove_dir_all(at("made"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "old, new and the patch: {what}");
        made.is_err()
    };
    let places: Vec<usize> = (0..good.len()).step_by(3).collect();
    let count = places
        .iter()
        .filter(|&&at| {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            refused(&bad, &format!("a flip at {at} of {}", good.len()))
        })
        .count();
    // Some bits mean nothing, as in the prefix of a frame.
    assert!(count * 100 >= places.len() * 95, "{count} of {} flips were found", places.len());
    for len in (0..good.len()).step_by(31) {
        assert!(refused(&good[..len], &format!("cut at {len}")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_edits(
        sizes in proptest::collection::vec(1_usize..40_000, 1..4),
        edits in proptest::collection::vec((any::<u16>(), 0_usize..300, 0_usize..300), 0..12),
        memory in 0_u64..(200 << 20),
    ) {
        const NAMES: [&str; 4] = ["a", "b/c", "b/d", "e"];
        let old: Vec<_> = sizes.iter().zip(NAMES).zip(1..).map(|((size, name), seed)| (name, noise(seed, *size))).collect();
        let mut new: Vec<_> = old.iter().rev().zip(NAMES).map(|((_, content), name)| (name, content.clone())).collect();
        for (place, cut, insert) in edits {
            let content = &mut new[usize::from(place) % sizes.len()].1;
            let at = usize::from(place) % (content.len() + 1);
            let end = content.len().min(at + cut);
            content.splice(at..end, noise(u64::from(place), insert));
        }
        round_trip(&old, &new, 2, memory);
    }
}
