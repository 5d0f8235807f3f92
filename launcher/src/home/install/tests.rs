//! Installs that are stopped at every step, and archives that are not what was signed.

use super::*;
use crate::home::Choice;
use std::io::Cursor;
use updraft_manifests::document::KeySet;
use updraft_manifests::keys::SecretKey;
use updraft_manifests::launcher::{Archive, LauncherFile};
use updraft_manifests::names::{Name, Version};
use updraft_manifests::path::RelPath;
use updraft_manifests::time::Time;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const PROGRAM: &str = "bin/run";

fn zip_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, content) in files {
        zip.start_file(*path, SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn manifest(sequence: u64, version: &str, files: &[(&str, &str)]) -> Verified<LauncherManifest> {
    let key = SecretKey::from_random(Role::Launcher, [1; 32]);
    let file = |(path, content): &(&str, &str)| LauncherFile {
        path: RelPath::parse(path).unwrap(),
        length: content.len() as u64,
        sha256: ContentHash::of(content.as_bytes()),
        executable: *path == PROGRAM,
    };
    let manifest = LauncherManifest {
        format: 1,
        product: Name::parse("game").unwrap(),
        platform: Name::parse("linux-x86_64").unwrap(),
        version: Version::parse(version).unwrap(),
        sequence,
        created: Time::default(),
        archive: Archive { sha256: ContentHash([0; 32]), length: 1 },
        program: RelPath::parse(PROGRAM).unwrap(),
        files: files.iter().map(file).collect(),
    };
    let signed = Signed::create(Role::Launcher, &manifest, &[&key]).unwrap();
    signed.verify(&KeySet { threshold: 1, keys: [key.public()].into() }).unwrap()
}

/// A home whose version 1 is proven.
fn home(dir: &Path) -> Home {
    let home = Home::at(dir);
    let first = [(PROGRAM, "one")];
    let program = RelPath::parse(PROGRAM).unwrap();
    let start = Slot { sequence: 1, program };
    fs::create_dir_all(dir.join("launcher-1/bin")).unwrap();
    fs::write(dir.join(start.path()), "one").unwrap();
    fs::write(home.record(1, "toml"), manifest(1, "1.0.0", &first).to_bytes()).unwrap();
    home.note_healthy(1).unwrap();
    let current = Current { start, previous: None, root: ContentHash([9; 32]) };
    fs::write(dir.join(CURRENT_NAME), current.to_text()).unwrap();
    home
}

/// What the home would start now, by content.
fn started(home: &Home) -> String {
    let slot = match home.choose().unwrap() {
        Choice::Proven(slot) | Choice::OnTrial(slot) => slot,
    };
    fs::read_to_string(home.dir().join(slot.path())).unwrap()
}

fn put_archive(home: &Home, files: &[(&str, &str)]) -> PathBuf {
    let path = archive_path(home).unwrap();
    fs::write(&path, zip_of(files)).unwrap();
    path
}

const SECOND: [(&str, &str); 2] = [(PROGRAM, "two"), ("data/strings", "words")];

#[test]
fn the_version_is_the_published_one() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    assert_eq!(version_at(Some((home.clone(), 1))), "1.0.0");
    assert_eq!(version_at(Some((home, 2))), env!("CARGO_PKG_VERSION"), "nothing is known of it");
    assert_eq!(version_at(None), env!("CARGO_PKG_VERSION"));
}

#[test]
fn something_runs_whichever_step_it_is_stopped_at() {
    let new = manifest(2, "1.1.0", &SECOND);
    let mut steps = 0;
    for stop_at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let archive = put_archive(&home, &SECOND);
        let mut done = 0;
        let stopped = install(&home, 1, &archive, &new, &mut |step| {
            if done == stop_at {
                return Err(Error::Interrupted);
            }
            done += 1;
            let expected = if step == Step::Tidy { "two" } else { "one" };
            assert_eq!(started(&home), expected, "before {step:?}");
            Ok(())
        });
        if stopped.is_ok() {
            steps = stop_at;
            assert_eq!(started(&home), "two");
            break;
        }
        let now = started(&home);
        assert!(now == "one" || now == "two", "{now}");
        // The next attempt goes through, from whatever is there.
        let archive = put_archive(&home, &SECOND);
        install(&home, 1, &archive, &new, &mut |_| Ok(())).unwrap();
        assert_eq!(started(&home), "two", "after a stop at step {stop_at}");
        assert_eq!(home.choose().unwrap(), Choice::OnTrial(home.current().unwrap().start));
    }
    assert_eq!(steps, 8, "every step was one to stop at");
}

#[test]
fn versions_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let archive = put_archive(&home, &SECOND);
    install(&home, 1, &archive, &manifest(2, "1.1.0", &SECOND), &mut |_| Ok(())).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode("launcher-2/bin/run") & 0o777, 0o755);
        assert_eq!(mode("launcher-2/data/strings") & 0o777, 0o644);
    }
    // Version 2 does not come up, so 1 runs on, and is what stays beside 3.
    home.note_start(2).unwrap();
    home.note_start(2).unwrap();
    assert_eq!(started(&home), "one");
    assert!(admit(&home, 1, &manifest(2, "1.1.0", &SECOND)).unwrap_err().contains("come up"));
    let third = [(PROGRAM, "three")];
    let new = manifest(3, "1.2.0", &third);
    admit(&home, 1, &new).unwrap();
    let archive = put_archive(&home, &third);
    install(&home, 1, &archive, &new, &mut |_| Ok(())).unwrap();
    assert_eq!(started(&home), "three");
    assert!(!dir.path().join("launcher-2").exists() && !home.record(2, "started").exists());
    assert!(dir.path().join("launcher-1").exists() && !dir.path().join(NEW_FOLDER).exists());
    home.note_healthy(3).unwrap();
    withdraw(&home, 3, &|sequence| sequence == 1).unwrap();
    assert!(!dir.path().join("launcher-1").exists());
    assert_eq!(started(&home), "three");
}

#[test]
fn a_revoked_version_that_waits_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let archive = put_archive(&home, &SECOND);
    install(&home, 1, &archive, &manifest(2, "1.1.0", &SECOND), &mut |_| Ok(())).unwrap();
    withdraw(&home, 1, &|sequence| sequence == 2).unwrap();
    assert_eq!(started(&home), "one");
    assert!(!dir.path().join("launcher-2").exists());
    // Were this one revoked, too, it would still be all there is.
    withdraw(&home, 1, &|_| true).unwrap();
    assert_eq!(started(&home), "one");
}

#[test]
fn relabelled_and_older_ones_are_not_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let check = |new: Verified<LauncherManifest>, why: &str| {
        let refused = admit(&home, 1, &new).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    };
    check(manifest(1, "1.1.0", &SECOND), "not newer");
    check(manifest(7, "9.0.0", &[(PROGRAM, "one")]), "under another number");
    check(manifest(7, "0.9.0", &SECOND), "not newer than this one's, 1.0.0");
    check(manifest(7, "1.0.0", &SECOND), "not newer than this one's, 1.0.0");
    admit(&home, 1, &manifest(7, "1.0.1", &SECOND)).unwrap();
}

#[test]
fn archives_that_are_not_what_was_signed() {
    let check = |archive: &[u8], why: &str| {
        let dir = tempfile::tempdir().unwrap();
        let home = home(&dir.path().join("home"));
        let path = archive_path(&home).unwrap();
        fs::write(&path, archive).unwrap();
        let new = manifest(2, "1.1.0", &SECOND);
        let refused = install(&home, 1, &path, &new, &mut |_| Ok(())).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
        assert_eq!(started(&home), "one");
        assert!(!dir.path().join("escaped").exists() && !dir.path().join("home/escaped").exists());
    };
    let with = |path, content| {
        let mut files = SECOND.to_vec();
        files.push((path, content));
        zip_of(&files)
    };
    check(&with("../../escaped", "x"), "cannot be unpacked");
    check(&with("extra", "x"), "`extra`, which is not signed");
    check(&zip_of(&SECOND[..1]), "is missing");
    check(&zip_of(&[(PROGRAM, "two"), ("data/strings", "wordz")]), "not the file that was signed");
    let whole = zip_of(&SECOND);
    check(&whole[..whole.len() / 2], "cannot be unpacked");
    check(b"", "cannot be unpacked");
    let mut links = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, content) in SECOND {
        links.start_file(path, SimpleFileOptions::default()).unwrap();
        links.write_all(content.as_bytes()).unwrap();
    }
    links.add_symlink("link", "bin/run", SimpleFileOptions::default()).unwrap();
    check(&links.finish().unwrap().into_inner(), "which is not signed");
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    out.add_symlink("out", "../..", SimpleFileOptions::default()).unwrap();
    check(&out.finish().unwrap().into_inner(), "");
}
