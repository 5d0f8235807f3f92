use super::{CreateError, Format, Options, Plan, Source, SourceFile};
use crate::ids::{Sha1Hash, Sha256Hash};
use crate::metainfo::hash::PieceDigests;
use crate::metainfo::{Info, Metainfo, MetainfoError};
use proptest::prelude::*;

fn file(path: &str, length: u64) -> SourceFile {
    let path: Vec<_> = path.split('/').map(str::to_owned).collect();
    SourceFile { path, source: "/".into(), length, executable: false, symlink: None }
}

fn folder(files: Vec<SourceFile>) -> Source {
    Source { name: "game".into(), single_file: false, files }
}

/// The torrent of `source`, every piece with a digest of its own.
fn make(source: &Source, options: &Options) -> Result<Metainfo, CreateError> {
    let plan = Plan::new(source, options)?;
    let digests = |number: u32| {
        let (mut sha1, mut sha256) = ([1; 20], [2; 32]);
        sha1[..4].copy_from_slice(&number.to_be_bytes());
        sha256[..4].copy_from_slice(&number.to_be_bytes());
        PieceDigests {
            sha1: plan.digests().sha1.then_some(Sha1Hash(sha1)),
            sha256: plan.digests().sha256.then_some(Sha256Hash(sha256)),
        }
    };
    let found = (0..plan.geometry().piece_count()).map(digests).collect();
    plan.finish(found)
}

/// The reader makes the same of the bytes, without the layers that are not in them.
fn check_reads_back(source: &Source, options: &Options) {
    let made = make(source, options).unwrap();
    let layers = made.info.piece_layers();
    let bytes = |layer: &[Sha256Hash]| layer.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>();
    let layers: Vec<_> = layers.iter().map(|(root, layer)| (*root, bytes(layer))).collect();
    let layers: Vec<_> = layers.iter().map(|(root, layer)| (*root, layer.as_slice())).collect();
    let read = Info::parse(made.info.raw.clone(), &layers).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", made.info));
    let again = Metainfo::parse(&made.encode()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{made:?}"));
}

fn check_refuses(source: &Source, expected: &str) {
    for format in [Format::V1, Format::V2, Format::Hybrid] {
        let options = Options { format, ..Options::default() };
        let error = Plan::new(source, &options).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{format:?}: {error}");
    }
}

#[test]
fn a_file_alone_reads_back() {
    for (name, single_file) in [("game", true), ("game", false), ("other", false)] {
        for format in [Format::V1, Format::V2, Format::Hybrid] {
            let source = Source { single_file, ..folder(vec![file(name, 100_000)]) };
            check_reads_back(&source, &Options { format, ..Options::default() });
        }
    }
}

#[test]
fn what_a_reader_would_refuse_is_refused_before_the_hashing() {
    let one = |path: &str| folder(vec![file(path, 1)]);
    check_refuses(&one("a/../b"), "another folder");
    check_refuses(&one("a//b"), "empty");
    check_refuses(&one("a\\b"), "path separator");
    check_refuses(&one(&"a/".repeat(96)), "too deep");
    check_refuses(&folder(vec![SourceFile { path: Vec::new(), ..file("a", 1) }]), "path is empty");
    check_refuses(&Source { name: "..".into(), ..one("a") }, "another folder");
    check_refuses(&folder(vec![file("a", 1), file("b", 2), file("a", 3)]), "`a` is listed more");
    check_refuses(
        &folder(vec![file("a/b", 1), file("a-b", 2), file("a", 3)]),
        "`a` is listed more",
    );
    let link = |target: &str, length| {
        let target = Some(target.split('/').map(str::to_owned).collect());
        folder(vec![file("a", 1), SourceFile { symlink: target, ..file("b", length) }])
    };
    check_refuses(&link("../a", 0), "another folder");
    check_refuses(&link("a", 5), "symlink has no content");
    check_refuses(&Source { single_file: true, ..one("a") }, "named as that file is");
    let two = folder(vec![file("game", 1), file("a", 1)]);
    check_refuses(&Source { single_file: true, ..two }, "named as that file is");
}

#[test]
fn a_torrent_that_no_reader_takes_is_not_made() {
    let check = |files: u32, path: &str, expected: fn(&MetainfoError) -> bool| {
        let files = (0..files).map(|number| file(&format!("{path}{number}"), 1)).collect();
        let options = Options { format: Format::V1, ..Options::default() };
        match make(&folder(files), &options) {
            Err(CreateError::Invalid(error)) => assert!(expected(&error), "{error}"),
            other => panic!("{:?}", other.map(|made| made.info.raw.len())),
        }
    };
    // Four items for each file.
    check(530_000, "", |error| matches!(error, MetainfoError::Bencode(_)));
    check(33_000, &"x".repeat(1000), |error| matches!(error, MetainfoError::TooLarge { .. }));
}

prop_compose! {
    fn sources()(
        names in prop::collection::btree_map("[ab](-|/[a-c]|/d/[ab\u{e9}])?", (0u64..200_000, any::<bool>(), 0u8..5), 1..12),
        last in 1u64..70_000,
    ) -> Source {
        let entry = |(path, (length, executable, kind)): (String, (u64, bool, u8))| match kind {
            0 => SourceFile { executable, symlink: Some(vec!["zz".into()]), ..file(&path, 0) },
            1 => SourceFile { executable, ..file(&path, 0) },
            _ => SourceFile { executable, ..file(&path, length) },
        };
        let mut files: Vec<_> = names.into_iter().map(entry).collect();
        files.push(file("zz", last));
        folder(files)
    }
}

proptest! {
    #[test]
    fn what_is_made_is_what_is_read(source in sources(), format in 0..3, blocks in 0u32..4, private: bool) {
        let format = [Format::V1, Format::V2, Format::Hybrid][format as usize];
        let options = Options {
            format, private, piece_length: Some((16 << 10) << blocks), ..Options::default()
        };
        match make(&source, &options) {
            Ok(_) => check_reads_back(&source, &options),
            // A file that is also a folder: what is read cannot be asked for.
            Err(CreateError::Invalid(MetainfoError::Duplicate { .. })) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
