//! Torrent files against the world: libtorrent's own test torrents, libtorrent's info-hashes for the
//! same content, and damage of every kind.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "every line of this file is a test"
)]

use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use updraft_protocol::ids::{FileIndex, InfoHashes, PieceIndex};
use updraft_protocol::io::check::{self, FileState, PieceState};
use updraft_protocol::io::create;
use updraft_protocol::metainfo::create::{CreateError, Format, Options};
use updraft_protocol::metainfo::{Info, Metainfo, MetainfoError};

fn data(folder: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/torrents").join(folder);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn name_of(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn parse(path: &Path) -> Result<Metainfo, MetainfoError> {
    Metainfo::parse(&fs::read(path).unwrap())
}

/// What libtorrent says; each answer as (v1, v2).
fn libtorrent(args: &[&str]) -> Vec<(Option<String>, Option<String>)> {
    let python = std::env::var_os("UPDRAFT_TEST_PYTHON")
        .expect("UPDRAFT_TEST_PYTHON names a Python with libtorrent 2.1.1: run `bash tests/run`, which makes one");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/golden_hashes.py");
    let output = Command::new(&python).arg(script).args(args).output();
    let output = output
        .unwrap_or_else(|error| panic!("{}: {error}: run `bash tests/run`", python.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let answer = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let hash = |key: &str| line[key].as_str().map(str::to_owned);
        (hash("v1"), hash("v2"))
    };
    text.lines().map(answer).collect()
}

fn shown(hashes: InfoHashes) -> (Option<String>, Option<String>) {
    (hashes.v1.map(|hash| hash.to_string()), hashes.v2.map(|hash| hash.to_string()))
}

#[test]
fn well_formed_torrents_load_with_libtorrents_hashes() {
    let files = data("accept");
    let mut args = vec!["read"];
    args.extend(files.iter().map(|file| file.to_str().unwrap()));
    for (file, golden) in files.iter().zip(libtorrent(&args)) {
        let torrent = parse(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(shown(torrent.info.hashes), golden, "{}", file.display());
        // What is written back is the same torrent.
        let again = Metainfo::parse(&torrent.encode()).unwrap();
        assert_eq!((again.info.raw, again.info.files), (torrent.info.raw, torrent.info.files));
        assert_eq!((again.trackers, again.web_seeds), (torrent.trackers, torrent.web_seeds));
    }
}

#[test]
fn details_of_well_formed_torrents() {
    let load = |name: &str| {
        let files = data("accept");
        parse(files.iter().find(|file| name_of(file) == name).unwrap()).unwrap()
    };
    assert_eq!(load("whitespace_url").trackers, [["udp://test.com/announce"]]);
    assert_eq!(load("sample").trackers.len(), 2);
    assert_eq!(load("sample").info.geometry.content_len(), 45);
    assert_eq!(load("duplicate_web_seeds").web_seeds.len(), 3);
    assert!(load("url_list2").web_seeds.is_empty());
    assert_eq!(load("url_seed_multi").web_seeds, ["http://test.com/file"]);
    assert_eq!(load("base").creation_date, Some(1_359_599_503));
    let links = load("v2_symlinks").info;
    assert_eq!(links.files[2].symlink.as_deref().unwrap(), ["Versions", "Current", "SDL2"]);
    assert!(links.files[5].executable && !links.files[2].executable);
    let incomplete = load("v2_incomplete_piece_layer").info;
    let known: Vec<_> = incomplete.files.iter().map(|file| file.layer.len()).collect();
    assert_eq!(known, [1000, 0, 1001]);
    assert_eq!(incomplete.v2_root(PieceIndex(1000)), None);
    assert!(load("v2_multipiece_file").info.single_file);
}

#[test]
fn malformed_torrents_are_refused_for_their_reason() {
    let reasons = [
        ("bad_name", "duplicate key"),
        ("duplicate_files2", "`foo/bar.txt` is listed more than once"),
        ("invalid_file_size", "`length`"),
        ("invalid_info", "`info`"),
        ("invalid_path_list", "a component is not a string"),
        ("invalid_piece_len", "`piece length`"),
        ("invalid_pieces", "`pieces`"),
        ("invalid_symlink", "a component is not a string"),
        ("many_pieces", "too many pieces"),
        ("missing_piece_len", "`piece length` is missing"),
        ("negative_file_size", "-45 is negative"),
        ("no_name", "`name` is missing"),
        ("unaligned_pieces", "24 bytes are not 1 hashes"),
        ("v2_bad_file_alignment", "padding is wrong"),
        ("v2_deep_recursion", "nested deeper"),
        ("v2_invalid_pad_file", "pad files exist only in v1"),
        ("v2_invalid_piece_layer", "a layer is not a string"),
        ("v2_invalid_piece_layer_root", "does not have the file's root"),
        ("v2_mismatching_metadata", "`/est1MB`"),
        ("v2_overlong_integer", "the integer at byte 97"),
        ("v2_piece_size", "`piece length`"),
        ("v2_unknown_piece_layer_entry", "no file of several pieces has the root"),
        ("v2_unordered_files", "keys out of order"),
        ("v2_zero_root", "a root of zeros"),
        ("v2_zero_root_small", "a root of zeros"),
        ("zero", "holds no bytes"),
    ];
    let files = data("reject");
    assert_eq!(
        files.iter().map(|file| name_of(file)).collect::<Vec<_>>(),
        reasons.map(|(name, _)| name)
    );
    for (file, (name, reason)) in files.iter().zip(reasons) {
        let error = parse(file).expect_err(name).to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn hostile_names_are_refused_or_harmless() {
    for file in data("names") {
        match parse(&file) {
            // Symlinks within the folder, and nothing lies behind one of them.
            Ok(torrent) => {
                assert_eq!(name_of(&file), "overlapping_symlinks");
                assert_harmless(&torrent.info);
            }
            Err(MetainfoError::Name { .. }) => {}
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }
}

/// Every path stays below its folder on every system, and no path leads through a file or a link.
fn assert_harmless(info: &Info) {
    let fine = |part: &String| {
        let bytes = part.as_bytes();
        let hostile = matches!(bytes, b"" | b"." | b"..")
            || bytes.iter().any(|byte| b"/\\\0".contains(byte))
            || (bytes.len() > 1 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':');
        !hostile
    };
    assert!(fine(&info.name));
    let mut paths: Vec<_> = info.files.iter().map(|file| &file.path).collect();
    for file in &info.files {
        assert!(
            !file.path.is_empty()
                && file.path.iter().chain(file.symlink.iter().flatten()).all(fine)
        );
    }
    paths.sort();
    assert!(!paths.windows(2).any(|pair| pair[1].starts_with(pair[0])));
}

fn write(path: &Path, len: usize, seed: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let byte = |at: usize| (at.wrapping_mul(31) >> 3) as u8 ^ (at >> 11) as u8 ^ seed;
    fs::write(path, (0..len).map(byte).collect::<Vec<_>>()).unwrap();
}

/// Nested folders, empty files first and last, lengths around block and piece bounds, an executable,
/// a symlink, names beyond ASCII. None sorts differently by tree and by joined path: there
/// libtorrent's creator contradicts its own reader (see `where_libtorrent_contradicts_itself`).
fn sample(dir: &Path) -> PathBuf {
    let root = dir.join("sample");
    write(&root.join("a-empty"), 0, 0);
    for (number, len) in
        [1, 16_383, 16_384, 16_385, 65_536, 131_073, 300_000].into_iter().enumerate()
    {
        write(&root.join(format!("bin/{number}.dat")), len, number as u8);
    }
    write(&root.join("data/deep/er/ünïcode ☃"), 70_000, 9);
    write(&root.join("data/deep/same"), 16_384, 2);
    write(&root.join("data/Upper"), 5, 3);
    write(&root.join("zz-empty"), 0, 0);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.join("bin/6.dat"), mode).unwrap();
        symlink("deep/same", root.join("data/link")).unwrap();
    }
    root
}

fn make(path: &Path, format: Format, piece_length: u32) -> Metainfo {
    let options = Options { format, piece_length: Some(piece_length), ..Options::default() };
    create::create(&create::scan(path).unwrap(), &options, &|_, _| {}).unwrap()
}

const FORMATS: [(Format, &str); 3] =
    [(Format::V1, "v1"), (Format::V2, "v2"), (Format::Hybrid, "hybrid")];

#[test]
fn created_torrents_have_libtorrents_hashes() {
    let dir = tempfile::tempdir().unwrap();
    let root = sample(dir.path());
    // The tree; a file of several pieces, executable; one of one piece; one of less than a block.
    for path in
        [root.clone(), root.join("bin/6.dat"), root.join("bin/4.dat"), root.join("bin/0.dat")]
    {
        let path = path.canonicalize().unwrap();
        for (format, name) in FORMATS {
            for piece_length in [16_384, 65_536, 1 << 20] {
                let golden = libtorrent(&[
                    "create",
                    path.to_str().unwrap(),
                    name,
                    &piece_length.to_string(),
                ]);
                let ours = shown(make(&path, format, piece_length).info.hashes);
                assert_eq!(ours, golden[0], "{} {name} {piece_length}", path.display());
            }
        }
    }
}

/// `a-b` sorts before `a/b` as text and after it in a tree. libtorrent lists the v1 half of a hybrid
/// by text, the v2 half as the tree that it is, and then refuses its own torrent. Ours are in tree
/// order; libtorrent reads them.
#[test]
fn where_libtorrent_contradicts_itself() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("odd");
    for (seed, name) in [(1, "a/x"), (2, "a-b/y"), (3, "a b"), (4, "a.txt"), (5, "a0"), (6, "A")] {
        write(&root.join(name), 20_000, seed);
    }
    let golden = libtorrent(&["create", root.to_str().unwrap(), "v2", "16384"]);
    assert_eq!(shown(make(&root, Format::V2, 16_384).info.hashes), golden[0]);
    let golden = libtorrent(&["create", root.to_str().unwrap(), "v1", "16384"]);
    assert_eq!(shown(make(&root, Format::V1, 16_384).info.hashes), golden[0]);
    let hybrid = make(&root, Format::Hybrid, 16_384);
    let file = dir.path().join("odd.torrent");
    fs::write(&file, hybrid.encode()).unwrap();
    assert_eq!(libtorrent(&["read", file.to_str().unwrap()]), [shown(hybrid.info.hashes)]);
}

#[test]
fn creation_is_reproducible_and_readable() {
    let dir = tempfile::tempdir().unwrap();
    let root = sample(dir.path());
    for (format, _) in FORMATS {
        let options = Options {
            format,
            trackers: vec![
                vec!["http://t/1".into(), "http://t/2".into()],
                vec!["udp://t:3".into()],
            ],
            web_seeds: vec!["http://w/".into()],
            private: true,
            comment: Some("ünï".into()),
            ..Options::default()
        };
        let source = create::scan(&root).unwrap();
        let torrent = create::create(&source, &options, &|_, _| {}).unwrap();
        let bytes = torrent.encode();
        let again = create::create(&create::scan(&root).unwrap(), &options, &|_, _| {}).unwrap();
        assert_eq!(again.encode(), bytes);
        let read = Metainfo::parse(&bytes).unwrap();
        assert_eq!(read.info.hashes, torrent.info.hashes);
        assert_eq!(read.info.files, torrent.info.files);
        assert_eq!((&read.trackers, &read.web_seeds), (&options.trackers, &options.web_seeds));
        assert!(
            read.info.private && read.comment == options.comment && read.creation_date.is_none()
        );
        // The whole file is there, whatever order the files were listed in.
        let mut shuffled = source;
        shuffled.files.reverse();
        assert_eq!(create::create(&shuffled, &options, &|_, _| {}).unwrap().encode(), bytes);
    }
}

#[test]
fn a_check_finds_exactly_the_damage() {
    for (format, name) in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let root = sample(dir.path());
        let info = make(&root, format, 16_384).info;
        let paths = check::locate(&info, dir.path());
        assert_eq!(check::locate(&info, &root), paths);
        let report = check::check(&info, &paths, &|_, _| {}).unwrap();
        assert!(report.is_good(), "{name}: {report:?}");

        let file = |path: &str| {
            let found = info.files.iter().position(|file| file.path.join("/") == path).unwrap();
            FileIndex(found as u32)
        };
        let (flipped, cut, gone, long) =
            (file("bin/6.dat"), file("bin/5.dat"), file("data/Upper"), file("bin/1.dat"));
        let mut bytes = fs::read(&paths[flipped.get()]).unwrap();
        bytes[100_000] ^= 1;
        fs::write(&paths[flipped.get()], bytes).unwrap();
        fs::File::options().write(true).open(&paths[cut.get()]).unwrap().set_len(131_072).unwrap();
        fs::remove_file(&paths[gone.get()]).unwrap();
        fs::File::options().write(true).open(&paths[long.get()]).unwrap().set_len(16_390).unwrap();
        let report = check::check(&info, &paths, &|_, _| {}).unwrap();
        let of = |file: FileIndex| &report.files[file.get()];
        assert_eq!((of(flipped).state, of(flipped).bad), (FileState::Present, 1), "{name}");
        assert_eq!((of(cut).state, of(cut).missing), (FileState::Length(131_072), 1), "{name}");
        assert_eq!((of(gone).state, of(gone).missing), (FileState::Absent, 1), "{name}");
        assert_eq!(of(long).state, FileState::Length(16_390), "{name}");
        assert_eq!(report.count(PieceState::Bad), 1, "{name}");
        assert_eq!(report.count(PieceState::Missing), 2, "{name}");
    }
}

#[test]
fn a_file_that_is_not_what_was_listed_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let root = sample(dir.path());
    let source = create::scan(&root).unwrap();
    let file = root.join("bin/3.dat");
    fs::write(&file, b"shorter").unwrap();
    let run = || create::create(&source, &Options::default(), &|_, _| {});
    assert!(matches!(run(), Err(CreateError::Changed { path }) if path.ends_with("bin/3.dat")));
    fs::remove_file(&file).unwrap();
    assert!(matches!(run(), Err(CreateError::Io { path, .. }) if path.ends_with("bin/3.dat")));
}

#[cfg(unix)]
#[test]
fn what_no_torrent_can_hold_is_refused() {
    use std::os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener};
    let check = |make: &dyn Fn(&Path), reason: &str| {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        write(&root.join("file"), 10, 0);
        make(&root);
        let error = create::scan(&root).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    check(&|root| symlink("/etc/passwd", root.join("x")).unwrap(), "outside the folder");
    check(&|root| symlink("../../x", root.join("sub/x")).unwrap(), "outside the folder");
    check(&|root| symlink("..", root.join("sub/x")).unwrap(), "own folder");
    check(&|root| write(&root.join("a\\b"), 1, 0), "path separator");
    check(&|root| write(&root.join("C:x"), 1, 0), "drive letter");
    check(&|root| write(&root.join(std::ffi::OsStr::from_bytes(b"\xff")), 1, 0), "not UTF-8");
    check(
        &|root| drop(UnixListener::bind(root.join("socket")).unwrap()),
        "neither a file nor a folder",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever happens to a torrent, it is read or refused; what is read is harmless.
    #[test]
    fn damaged_torrents_never_panic(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
        spliced in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let small = |file: &PathBuf| file.metadata().unwrap().len() < 20_000;
        let files: Vec<_> = [data("accept"), data("names"), data("reject")].concat().into_iter().filter(small).collect();
        let mut bytes = fs::read(&files[which.index(files.len())]).unwrap();
        for (at, byte) in flips {
            // Structure is where the bytes are few: most flips fall on the first kilobyte.
            let at = at.index(bytes.len().min(1024));
            bytes[at] = byte;
        }
        if let Some((from, to, at)) = spliced {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            let at = at.index(bytes.len());
            bytes.splice(at..at, part);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(torrent) = Metainfo::parse(&bytes) {
            assert_harmless(&torrent.info);
            let again = Metainfo::parse(&torrent.encode());
            prop_assert_eq!(again.map(|again| again.info.hashes), Ok(torrent.info.hashes));
        }
    }
}
