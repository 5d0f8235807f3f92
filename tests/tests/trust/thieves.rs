//! Who serves lies, and who stole a key: what must hold, with real programs.

use super::{World, restore};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use updraft_manifests::document::Signed;
use updraft_manifests::head::{HEAD_PATH, Head, Release};
use updraft_manifests::keys::{Role, SecretKey};
use updraft_manifests::manifest::Manifest;
use updraft_tests::content;
use updraft_tests::hostile::{WebServer, answer};
use updraft_tests::ours::{Install, Place, STATE_FOLDER, TRANSFER_WAIT};
use updraft_tests::process::Proc;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl World {
    fn head_path(&self) -> PathBuf {
        self.product.repository().join(HEAD_PATH)
    }

    fn head_bytes(&self) -> Vec<u8> {
        fs::read(self.head_path()).expect("it is there")
    }

    /// The first release that the head names.
    fn entry(&self) -> Release {
        let signed = Signed::parse(Role::Head, &self.head_bytes()).expect("it is signed");
        signed.unverified::<Head>().expect("it is a head").releases[0].clone()
    }

    fn url(&self) -> String {
        self.web.url.clone()
    }

    /// A feed of this product with these addresses.
    fn feed_with(&self, name: &str, urls: &[&str]) -> PathBuf {
        let text = fs::read_to_string(self.product.feed()).expect("it is there");
        let kept = text.lines().filter(|line| !line.starts_with("urls"));
        let urls: Vec<_> = urls.iter().map(|url| format!("\"{url}\"")).collect();
        let kept: String = kept.map(|line| format!("{line}\n")).collect();
        let path = self.dir.path().join(name);
        fs::write(&path, format!("{kept}urls = [{}]\n", urls.join(", "))).expect("it is written");
        path
    }

    pub(crate) fn nobody(&self, name: &str) -> Install {
        Install::new(&Place::Here, name, &self.dir.path().join(name), ANY)
    }

    /// A release of the thief's: the newest one with another number, named by a head that `head_key` signs.
    fn forge_release(&self, release_key: &SecretKey, head_key: &SecretKey) {
        let repository = self.product.repository();
        let entry = self.entry();
        let bytes = fs::read(repository.join(entry.manifest_path())).expect("it is there");
        let signed = Signed::parse(Role::Release, &bytes).expect("it is signed");
        let mut manifest: Manifest = signed.unverified().expect("it is a manifest");
        manifest.sequence += 1;
        manifest.notes = Some("from the thief".to_owned());
        let signed = Signed::create(Role::Release, &manifest, &[release_key]).expect("signed");
        self.forge_head(head_key, |head| {
            let entry = &mut head.releases[0];
            (entry.sequence, entry.manifest) = (manifest.sequence, signed.hash());
            entry.length = signed.payload().len() as u64;
            restore(&repository.join(entry.manifest_path()), &signed.to_bytes());
        });
    }
}

/// What the folder holds before and after, and what was said in between.
pub(crate) fn stays(install: &Install, attempt: impl FnOnce() -> Proc, refusal: &str) {
    let held = || {
        let game = fs::read(install.dir.join("game.bin")).expect("it is there");
        (content::list(&install.dir, &[STATE_FOLDER]), game)
    };
    let before = held();
    let mut proc = attempt();
    proc.wait_exit(TRANSFER_WAIT);
    assert!(proc.text().contains(refusal), "{refusal} in {}", proc.text());
    assert!(held() == before, "{refusal}: something changed");
}

#[test]
fn a_malicious_origin_takes_nobody_back() {
    let world = World::new();
    let (old_head, old_entry) = (world.head_bytes(), world.entry());
    let anna = world.install("anna");
    world.publish("2.0", 2);
    anna.update(false).finish(TRANSFER_WAIT);
    let new_head = world.head_bytes();

    // An older head is no news.
    restore(&world.head_path(), &old_head);
    stays(&anna, || anna.update(false), "up-to-date");
    // The old manifest under the new head's name.
    restore(&world.head_path(), &new_head);
    let repository = world.product.repository();
    let new_path = repository.join(world.entry().manifest_path());
    let (new_manifest, old_manifest) = (
        fs::read(&new_path).expect("it is there"),
        fs::read(repository.join(old_entry.manifest_path())).expect("it is there"),
    );
    restore(&new_path, &old_manifest);
    let ben = world.nobody("ben");
    let text = ben.install(world.product.feed(), false).fails(TRANSFER_WAIT);
    assert!(text.contains("is not the one that the head names"), "{text}");
    restore(&new_path, &new_manifest);
    ben.install(world.product.feed(), false).finish(TRANSFER_WAIT);
    world.assert_newest(&ben);
}

/// Answers every request with bytes without an end, and counts them.
fn endless() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let url = format!("http://{}/", listener.local_addr().expect("it listens"));
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                let block = vec![b'#'; 1 << 16];
                while stream.write_all(&block).is_ok() {
                    counter.fetch_add(block.len() as u64, Ordering::Relaxed);
                }
            });
        }
    });
    (url, sent)
}

/// Records are lost, and then somebody serves the old tree, signed as it is and not expired.
#[test]
fn who_lost_the_records_is_not_taken_back() {
    let world = World::new();
    let mut anna = world.install("anna");
    let head = world.product.repository().join(HEAD_PATH);
    let old = fs::read(&head).expect("it is there");
    world.publish("2.0", 2);
    anna.update(false).finish(TRANSFER_WAIT);
    let new = fs::read(&head).expect("it is there");
    let state = anna.dir.join(STATE_FOLDER);
    let lose = |name: &str| {
        let path = state.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.expect("it was there");
    };
    for lost in [&["trust", "trust.copy"][..], &["trust", "trust.copy", "documents"]] {
        lost.iter().copied().for_each(lose);
        fs::write(&head, &old).expect("it can be written");
        let mut update = anna.update(false);
        update.wait_exit(TRANSFER_WAIT);
        world.assert_newest(&anna);
        fs::write(&head, &new).expect("it can be written");
        anna.update(false).finish(TRANSFER_WAIT);
        world.assert_newest(&anna);
    }
    // Both copies torn: that is told, and what to do.
    for name in ["trust", "trust.copy"] {
        fs::write(state.join(name), [0; 100]).expect("it can be written");
    }
    let text = anna.update(false).fails(TRANSFER_WAIT);
    assert!(text.contains("neither of its two copies is whole"), "{text}");
    fs::write(&head, &old).expect("it can be written");
    anna.flags = vec!["--adopt".to_owned()];
    anna.install(world.product.feed(), false).wait_exit(TRANSFER_WAIT);
    world.assert_newest(&anna);
}

#[test]
fn documents_without_an_end_are_cut_off() {
    let world = World::new();
    let (url, sent) = endless();
    let ben = world.nobody("ben");
    let text = ben.install(world.feed_with("endless.toml", &[&url]), false).fails(TRANSFER_WAIT);
    assert!(text.contains("is larger than the"), "{text}");
    // What was on its way when the launcher hung up: socket buffers, per request.
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 64 << 20, "{sent} bytes");
    let both = world.feed_with("both.toml", &[&url, &world.url()]);
    let carl = world.nobody("carl");
    carl.install(both, false).finish(TRANSFER_WAIT);
    world.assert_newest(&carl);
}

#[test]
fn a_malicious_mirror_wastes_bytes_and_changes_none() {
    let world = World::new();
    let old_head = world.head_bytes();
    let root = std::fs::read(world.product.repository().join("root/1.toml")).unwrap();
    // It has an old head, calls the first root the second, and lies about everything else.
    let mirror = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let mirror = WebServer::on(mirror, &world.product.repository(), move |path, bytes| {
        if path == HEAD_PATH {
            return Some(answer("200 OK", &old_head));
        }
        if path == "root/2.toml" {
            return Some(answer("200 OK", &root));
        }
        (!path.starts_with("root/"))
            .then(|| answer("200 OK", &bytes.iter().map(|byte| !byte).collect::<Vec<_>>()))
    });
    world.product.configure("http", &format!("[\"{}\", \".\"]", mirror.url));
    world.publish("2.0", 2);
    let feed = world.feed_with("both.toml", &[&mirror.url, &world.url()]);
    let ben = world.nobody("ben");
    ben.install(feed, false).finish(TRANSFER_WAIT);
    world.assert_newest(&ben);
    assert!(mirror.count(HEAD_PATH).0 > 0, "it was asked");
}

/// What the README says that a theft of the head key allows, and no more.
#[test]
fn a_stolen_head_key_chooses_among_what_was_signed_until_it_is_replaced() {
    let world = World::new();
    let old_entry = world.entry();
    let anna = world.install("anna");
    world.publish("2.0", 2);
    anna.update(false).finish(TRANSFER_WAIT);
    let thief = world.key("keys/head.key");
    let honest = world.head_bytes();

    // Back to 1.0, under its own number and under another one.
    world.forge_head(&thief, |head| head.releases[0] = old_entry.clone());
    stays(&anna, || anna.update(false), "older than 2 seen before");
    restore(&world.head_path(), &honest);
    world.forge_head(&thief, |head| {
        let sequence = head.releases[0].sequence + 1;
        head.sequence += 1;
        head.releases[0] = Release { sequence, ..old_entry.clone() };
    });
    stays(&anna, || anna.update(false), "its sequence differs");
    // A release of the thief's own, signed with what the thief has.
    let as_release = SecretKey::from_random(Role::Release, [7; 32]);
    world.forge_release(&as_release, &thief);
    stays(&anna, || anna.update(false), "has 0 valid signatures");
    // The number space used up: it takes a root with another head key, and no player loses anything.
    world.forge_head(&thief, |head| head.sequence += 1 << 19);
    anna.ask("check").wait_exit(TRANSFER_WAIT);
    restore(&world.head_path(), &honest);
    world.publisher(&["keys", "rotate", "head"]).finish(TRANSFER_WAIT);
    world.publish("3.0", 3);
    anna.update(false).finish(TRANSFER_WAIT);
    world.assert_newest(&anna);
    let honest = world.head_bytes();
    world.forge_head(&thief, |_| {});
    stays(&anna, || anna.update(false), "has 0 valid signatures");
    restore(&world.head_path(), &honest);
}

#[test]
fn a_stolen_release_key_is_not_enough_where_two_have_to_sign() {
    let world = World::new();
    let spare = world.dir.path().join("spare.key");
    let spare = spare.to_str().expect("it is text");
    world.publisher(&["keys", "new", "release", spare, "--no-passphrase"]).finish(TRANSFER_WAIT);
    world.publisher(&["keys", "threshold", "release", "2"]).finish(TRANSFER_WAIT);
    let anna = world.install("anna");
    let honest = world.head_bytes();
    world.forge_release(&world.key("keys/release.key"), &world.key("keys/head.key"));
    stays(&anna, || anna.update(false), "has 1 valid signatures of trusted keys; 2 are needed");
    // The studio replaces the stolen key; the other one signs beside the new one.
    restore(&world.head_path(), &honest);
    world
        .publisher(&["keys", "rotate", "head", "release", "--no-passphrase"])
        .finish(TRANSFER_WAIT);
    world.assert_newest(&world.install("ben"));
    world.publisher(&["verify"]).finish(TRANSFER_WAIT);
}
