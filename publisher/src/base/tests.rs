use super::*;
use crate::channels::{Pace, pace};
use crate::init::init;
use crate::publish::{Publish, publish};
use crate::serve::sign_head;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use updraft_manifests::names::Name;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn product(dir: &Path) -> Home {
    init(&dir.join("home"), &name("game"), &[], None).unwrap()
}

/// Publishes a version on a channel; the numbers of the head and the release.
fn put(home: &Home, version: &str, channel: &str) -> Result<(u64, u64), Error> {
    let build = tempfile::tempdir().unwrap();
    fs::write(build.path().join("game"), version).unwrap();
    let what = Publish { channel: name(channel), ..Publish::stable(build.path(), version) };
    let published = publish(home, &what, &mut |_| Ok(()), &|_, _| {})?;
    Ok((published.head_sequence, published.sequence))
}

fn open(home: &Home) -> Repository {
    Repository::open(&home.repository(), None).unwrap()
}

fn head_path(home: &Home) -> PathBuf {
    home.repository().join(HEAD_PATH)
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Another machine with the same keys and the same tree.
fn twin(home: &Home, dir: &Path) -> Home {
    copy_tree(&home.dir, &dir.join("twin"));
    Home::open(&dir.join("twin")).unwrap()
}

fn served_by(home: &Home) -> Vec<(Url, Vec<u8>)> {
    vec![(Url::parse("http://game.example/").unwrap(), fs::read(head_path(home)).unwrap())]
}

#[test]
fn a_backup_is_no_way_back_to_old_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    assert_eq!(put(&home, "1.0", "stable").unwrap(), (1, 1));
    let backup = dir.path().join("backup");
    copy_tree(&home.repository(), &backup);
    assert_eq!(put(&home, "2.0", "stable").unwrap(), (2, 2));
    assert_eq!(behind(&home, &open(&home)).unwrap(), None);
    // All of the tree is as it was, and 2.0 is nowhere.
    fs::remove_dir_all(home.repository()).unwrap();
    fs::rename(&backup, home.repository()).unwrap();
    let why = behind(&home, &open(&home)).unwrap().unwrap();
    assert!(why.contains("head 2 was signed here, and this is head 1"), "{why}");
    assert_eq!(put(&home, "3.0", "stable").unwrap(), (3, 3));
    crate::verify::verify(&home.repository(), None, &mut |fault| panic!("{fault}")).unwrap();
}

#[test]
fn a_lost_head_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    put(&home, "1.0", "stable").unwrap();
    put(&home, "1.1", "beta").unwrap();
    let before = fs::read(head_path(&home)).unwrap();
    fs::remove_file(head_path(&home)).unwrap();
    assert!(behind(&home, &open(&home)).unwrap().unwrap().contains("this is gone"));
    let mut faults = vec![];
    crate::verify::verify(&home.repository(), None, &mut |fault| faults.push(fault)).unwrap_err();
    assert!(faults[0].contains("head.toml: is missing"), "{faults:?}");
    drop(begin_here(&home).unwrap());
    assert_eq!(fs::read(head_path(&home)).unwrap(), before);
    assert_eq!(sign_head(&home, None).unwrap().0.releases.len(), 2);
}

#[test]
fn what_another_machine_serves_goes_on_here() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    put(&home, "1.0", "stable").unwrap();
    let other = twin(&home, dir.path());
    // It signed anew at half time.
    sign_head(&other, None).unwrap();
    sign_head(&other, None).unwrap();
    let (lock, repository) = start(&home, served_by(&other)).unwrap();
    assert_eq!(lock.head_floor, 3);
    assert_eq!(repository.head(now()).unwrap().unwrap().head.sequence, 3);
    drop(lock);
    // Meanwhile there was a release here, which was not copied yet.
    put(&home, "2.0", "stable").unwrap();
    for _ in 0..3 {
        sign_head(&other, None).unwrap();
    }
    let (mut lock, repository) = start(&home, served_by(&other)).unwrap();
    let here = repository.head(now()).unwrap().unwrap().head;
    assert_eq!((lock.head_floor, here.sequence, here.releases[0].sequence), (6, 4, 2));
    let key = home.key(Role::Head).unwrap();
    assert_eq!(crate::head::sign(&home, &key, &repository, &mut lock, |_| {}).unwrap().sequence, 7);
}

#[test]
fn what_cannot_go_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    put(&home, "1.0", "stable").unwrap();
    let other = twin(&home, dir.path());
    put(&other, "2.0", "stable").unwrap();
    let before = fs::read(head_path(&home)).unwrap();
    let error = start(&home, served_by(&other)).unwrap_err().to_string();
    assert!(error.contains("offers 2.0 on `stable` (any), and that is not here"), "{error}");
    assert!(error.contains("http://game.example/"), "{error}");
    pace(&home, &name("stable"), None, &Pace::Pause).unwrap();
    let error = start(&home, served_by(&other)).unwrap_err().to_string();
    assert!(error.contains("copy the tree from there first"), "{error}");
    let third = twin(&home, &dir.path().join("third"));
    pace(&third, &name("stable"), None, &Pace::Resume).unwrap();
    pace(&home, &name("stable"), None, &Pace::Critical).unwrap();
    let error = start(&home, served_by(&third)).unwrap_err().to_string();
    assert!(error.contains("two machines have signed heads"), "{error}");
    assert_ne!(fs::read(head_path(&home)).unwrap(), before);
    // Strangers are nobody.
    let stranger = init(&dir.path().join("stranger"), &name("game"), &[], None).unwrap();
    for _ in 0..9 {
        put(&stranger, "1.0", "stable").unwrap();
        sign_head(&stranger, None).unwrap();
    }
    start(&home, served_by(&stranger)).unwrap();
}

#[test]
fn the_configured_urls_are_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = product(dir.path());
    put(&home, "1.0", "stable").unwrap();
    let other = twin(&home, dir.path());
    sign_head(&other, None).unwrap();
    let head = fs::read(head_path(&other)).unwrap();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap();
        assert!(request[..read].starts_with(b"GET /game/head.toml "));
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len()).unwrap();
        stream.write_all(&head).unwrap();
    });
    // Nobody listens at the second: that is no reason to wait or to fail.
    home.config.urls = vec![
        Url::parse(&format!("http://{addr}/game")).unwrap(),
        Url::parse("http://127.0.0.1:1/").unwrap(),
    ];
    assert_eq!(put(&home, "2.0", "stable").unwrap(), (3, 2));
    serving.join().unwrap();
}
