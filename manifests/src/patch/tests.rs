//! Patches of small random trees, whole and damaged.

#![allow(clippy::cast_possible_truncation, reason = "bytes made of numbers")]

use super::*;
use crate::hash::ContentHash;
use crate::path::RelPath;
use proptest::prelude::*;
use std::io::Cursor;

/// A patch of one group, and what it is to make.
struct Sample {
    bytes: Vec<u8>,
    old: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
}

fn tree(prefix: &str, files: &[Vec<u8>]) -> Tree {
    Tree::new(files.iter().enumerate().map(|(index, content)| TreeFile {
        path: RelPath::parse(&format!("{prefix}/{index:04}")).unwrap(),
        length: content.len() as u64,
        root: ContentHash::of(content),
    }))
}

/// What to do for one output: literals, then a copy of (old file, start, length) with some bytes changed.
#[derive(Debug, Clone)]
struct Step {
    literals: Vec<u8>,
    copy: Option<(usize, usize, usize)>,
    changes: Vec<(usize, u8)>,
}

fn sample(old: Vec<Vec<u8>>, outputs: &[Vec<Step>], listing: Option<Listing>) -> Sample {
    let sources: Vec<Source> = (0_u32..)
        .zip(&old)
        .map(|(file, content)| {
            let leaves = content.len().div_ceil(LEAF_LEN as usize) as u32;
            Source { file, first_leaf: 0, leaves }
        })
        .collect();
    let mut starts = vec![0];
    for source in &sources {
        starts.push(starts.last().unwrap() + source.bytes().end);
    }
    let mut writer = GroupWriter::new(&Cursor::<Vec<u8>>::default);
    let (mut new, mut headers) = (Vec::new(), Vec::new());
    for (file, steps) in (0_u32..).zip(outputs) {
        writer.begin_output();
        let mut content = Vec::new();
        for step in steps {
            let copied = step.copy.map(|(file, start, len)| {
                let start = start % old[file % old.len()].len();
                let from = &old[file % old.len()][start..];
                (starts[file % old.len()] + start as u64, &from[..len.min(from.len())])
            });
            let mut changed = copied.map_or(vec![], |(_, from)| from.to_vec());
            for (at, by) in &step.changes {
                let len = changed.len();
                if let Some(byte) = changed.get_mut(at % len.max(1)) {
                    *byte = byte.wrapping_add(*by);
                }
            }
            let copy = copied.map(|(at, old)| Copy { at, old, new: &changed });
            writer.step(&step.literals, copy).unwrap();
            content.extend_from_slice(&step.literals);
            content.extend_from_slice(&changed);
        }
        headers.push(Output { file, length: content.len() as u64, sources: sources.clone() });
        new.push(content);
    }
    let mut group = Vec::new();
    assert_eq!(writer.finish(3, &mut group).unwrap(), group.len() as u64);
    let patch = Patch {
        from: tree("old", &old).digest(),
        to: tree("new", &new).digest(),
        groups: vec![Group { outputs: 0..headers.len(), bytes: 0..group.len() as u64 }],
        outputs: headers,
        listing,
    };
    let mut bytes = patch.encode(3).unwrap();
    bytes.extend_from_slice(&group);
    Sample { bytes, old, new }
}

/// Applies a whole patch; checks that it keeps to what it was given.
fn apply(bytes: &[u8], old: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ApplyError> {
    let patch = Patch::parse(bytes)?;
    patch.check_from(&tree("old", old))?;
    let mut new = vec![Vec::new(); patch.outputs.len()];
    for (index, group) in patch.groups.iter().enumerate() {
        let start = usize::try_from(group.bytes.start).unwrap().min(bytes.len());
        let mut input = &bytes[start..];
        let mut current = 0;
        apply_group(
            &patch,
            index,
            &mut input,
            &mut |output| {
                assert!(group.outputs.contains(&output));
                current = output;
                true
            },
            &mut |file, offset, buffer| {
                let end = usize::try_from(offset).unwrap() + buffer.len();
                let from = old[file as usize].get(end - buffer.len()..end);
                let from = from.ok_or(std::io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(from);
                Ok(())
            },
            &mut |output, bytes| {
                new[output].extend_from_slice(bytes);
                assert!(new[output].len() as u64 <= patch.outputs[output].length);
                Ok(())
            },
        )?;
    }
    Ok(new)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..200);
    let copy = proptest::option::of((any::<usize>(), any::<usize>(), 1_usize..60_000));
    let changes = proptest::collection::vec((any::<usize>(), any::<u8>()), 0..40);
    let step = (bytes, copy, changes).prop_map(|(literals, copy, changes)| Step {
        literals,
        copy,
        changes,
    });
    proptest::collection::vec(step, 1..6)
}

fn old_files() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let file = (any::<u8>(), 1_usize..50_000).prop_map(|(seed, len)| {
        (0..len).map(|at| (at / 3) as u8 ^ ((at * at) >> 7) as u8 ^ seed).collect()
    });
    proptest::collection::vec(file, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_applied(
        old in old_files(),
        outputs in proptest::collection::vec(steps(), 1..5),
    ) {
        let sample = sample(old, &outputs, None);
        let new = apply(&sample.bytes, &sample.old).unwrap();
        prop_assert_eq!(new, sample.new);
    }

    /// Flipped bits end in an error or in other bytes, never in a panic or in too many of them.
    #[test]
    fn flipped_bits(
        old in old_files(),
        outputs in proptest::collection::vec(steps(), 1..4),
        flips in proptest::collection::vec((any::<usize>(), 0_u8..8), 1..4),
        cut in proptest::option::of(any::<usize>()),
    ) {
        let mut sample = sample(old, &outputs, None);
        for (at, bit) in flips {
            let at = at % sample.bytes.len();
            sample.bytes[at] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            sample.bytes.truncate(cut % sample.bytes.len());
        }
        let _ = apply(&sample.bytes, &sample.old);
    }
}

fn one_step() -> Vec<Step> {
    let changes = vec![(0, 1), (100, 7), (101, 7), (29_999, 3)];
    vec![Step { literals: b"new".to_vec(), copy: Some((0, 0, 30_000)), changes }]
}

fn plain() -> Sample {
    sample(vec![vec![5; 30_000], vec![6; 20]], &[one_step()], None)
}

#[test]
fn long_steps_are_cut() {
    let old: Vec<u8> =
        (0..9_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let changes = (0..2_000_000).map(|at| (at * 4, (at % 251) as u8 | 1)).collect();
    let steps =
        vec![Step { literals: old[..5_000_000].to_vec(), copy: Some((0, 7, 9_000_000)), changes }];
    let sample = sample(vec![old], &[steps], None);
    assert!(apply(&sample.bytes, &sample.old).unwrap() == sample.new);
}

#[test]
fn what_is_not_wanted_is_not_read() {
    let sample = sample(vec![vec![5; 30_000]], &[one_step(), one_step(), one_step()], None);
    let patch = Patch::parse(&sample.bytes).unwrap();
    let start = usize::try_from(patch.groups[0].bytes.start).unwrap();
    assert_eq!(patch.len(), sample.bytes.len() as u64);
    let mut made = Vec::new();
    apply_group(
        &patch,
        0,
        &mut &sample.bytes[start..],
        &mut |output| output == 1,
        &mut |_, _, buffer| {
            buffer.fill(5);
            Ok(())
        },
        &mut |output, bytes| {
            assert_eq!(output, 1);
            made.extend_from_slice(bytes);
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(made, sample.new[1]);
}

fn check(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut sample = plain();
    change(&mut sample.bytes);
    let error = apply(&sample.bytes, &sample.old).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn damage_is_told() {
    check(|bytes| bytes[0] = b'X', "no patch file");
    check(|bytes| bytes.truncate(10), "no patch file");
    check(|bytes| bytes[7] = 2, "format 2");
    check(|bytes| bytes[8] = 0x80, "features");
    check(|bytes| bytes.truncate(20), "ends too early");
    check(|bytes| bytes[20] ^= 0xff, "decompress");
    check(|bytes| bytes.truncate(bytes.len() - 1), "cannot be read");
}

#[test]
fn another_base_is_refused() {
    let mut sample = plain();
    sample.old[0][77] ^= 1;
    let error = apply(&sample.bytes, &sample.old).unwrap_err();
    assert!(error.to_string().contains("another release"), "{error}");
    let patch = Patch::parse(&plain().bytes).unwrap();
    let (from, to) = (tree("old", &plain().old), tree("new", &plain().new));
    patch.check(&from, &to).unwrap();
    assert!(matches!(patch.check(&from, &from), Err(PatchError::Mismatch(_))));
}

/// A header by hand, with a group of these bytes.
fn forged(output: Output, group: &[u8]) -> Vec<u8> {
    let old = plain().old;
    let patch = Patch {
        from: tree("old", &old).digest(),
        to: ContentHash::of(b""),
        groups: vec![Group { outputs: 0..1, bytes: 0..group.len() as u64 }],
        outputs: vec![output],
        listing: None,
    };
    let mut bytes = patch.encode(3).unwrap();
    bytes.extend_from_slice(group);
    bytes
}

type Writer = GroupWriter<'static, Cursor<Vec<u8>>>;

fn check_forged(
    steps: impl FnOnce(&mut Writer) -> std::io::Result<()>,
    length: u64,
    leaves: u32,
    expected: &str,
) {
    let source = Source { file: 0, first_leaf: 0, leaves };
    let output = Output { file: 0, length, sources: vec![source] };
    let (mut writer, mut group) = (Writer::new(&Cursor::default), Vec::new());
    steps(&mut writer).unwrap();
    writer.finish(3, &mut group).unwrap();
    let error = apply(&forged(output, &group), &plain().old).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn forgeries() {
    let zeros = [0; 100];
    let copy = |at| Some(Copy { at, old: &zeros, new: &zeros });
    check_forged(|w| w.step(&[], copy(u64::MAX - 200)), 100, 2, "outside of its sources");
    check_forged(|w| w.step(&[], copy(32_700)), 100, 2, "outside of its sources");
    check_forged(|w| w.step(&[], copy(29_990)), 100, 2, "old file cannot be read");
    check_forged(|w| w.step(&[], copy(0)), 100, 3, "beyond an old file's end");
    check_forged(|w| w.step(&[], copy(0)), 99, 2, "longer than its output");
    check_forged(|w| w.step(&[], copy(0)), 101, 2, "cannot be read");
    check_forged(|w| w.step(&[1], None), 2, 2, "cannot be read");
    check_forged(
        |w| {
            w.step(&[1], None)?;
            w.step(&[1], None)
        },
        1,
        2,
        "more than its steps use",
    );
}

/// Streams that claim, or grow to, more than a segment may have are refused before they are made.
#[test]
fn bombs() {
    let bomb = |claimed: u64| {
        let zeros = vec![0; 200 << 20];
        let frame = zstd::bulk::compress(&zeros, 3).unwrap();
        let mut group = Vec::new();
        for stream in 0..6 {
            let (compressed, plain) =
                if stream == 5 { (frame.len() as u64, claimed) } else { (0, 0) };
            varint::write_number(&mut group, compressed);
            varint::write_number(&mut group, plain);
        }
        group.extend_from_slice(&frame);
        let output = Output { file: 0, length: 200 << 20, sources: vec![] };
        apply(&forged(output, &group), &plain().old).unwrap_err().to_string()
    };
    assert!(bomb(200 << 20).contains("too large"));
    assert!(bomb(1 << 20).contains("decompress"));
    let header = zstd::bulk::compress(&vec![0; HEADER_BYTES_MAX + 1], 3).unwrap();
    let mut bytes = b"UDPATCH\x01\0\0\0\0".to_vec();
    bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&header);
    assert!(Patch::parse(&bytes).unwrap_err().to_string().contains("decompress"));
}

/// Paths that share nearly all of the one before are short in a header and long in memory.
#[test]
fn a_listing_that_grows_without_bound_is_refused() {
    let deep = format!("{}/", "d".repeat(200)).repeat(9);
    let remove = |count: u32| {
        let path = |number| RelPath::parse(&format!("{deep}{number:07}")).unwrap();
        Some(Listing { remove: (0..count).map(path).collect(), put: Vec::new() })
    };
    let few = sample(vec![vec![5; 30_000]], &[one_step()], remove(1000));
    assert!(Patch::parse(&few.bytes).is_ok());
    let many = sample(vec![vec![5; 30_000]], &[one_step()], remove(20_000));
    assert!(many.bytes.len() < 1 << 20);
    assert!(Patch::parse(&many.bytes).is_err());
}

#[test]
fn listings_come_back() {
    let path = |text: &str| RelPath::parse(text).unwrap();
    let put = |text: &str, shape| Put { path: path(text), shape };
    let listing = Listing {
        remove: vec![path("a/b"), path("a/ä"), path("a/ö")],
        put: vec![
            put("a/é", Shape::Empty { executable: true }),
            put("b", Shape::Old { executable: false, file: 70_000 }),
            put("b2", Shape::Output { executable: true, output: 3, root: ContentHash([7; 32]) }),
            put("c", Shape::Symlink { target: path("b") }),
            put("d", Shape::Folder),
        ],
    };
    let sample = sample(vec![vec![5; 30_000]], &[one_step()], Some(listing.clone()));
    assert_eq!(Patch::parse(&sample.bytes).unwrap().listing, Some(listing));
}
