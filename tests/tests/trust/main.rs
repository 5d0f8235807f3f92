//! What a studio does with its keys over the years, and what thieves do with old ones: real programs,
//! a plain web server, a player who was away.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod clocks;
mod preload;
mod prompts;
mod racing;
mod signing;
mod thieves;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use updraft_manifests::document::Signed;
use updraft_manifests::head::{HEAD_PATH, Head};
use updraft_manifests::keys::{Role, SecretKey};
use updraft_tests::content;
use updraft_tests::hostile::WebServer;
use updraft_tests::ours::{Install, Place, Product, STATE_FOLDER, TRANSFER_WAIT};
use updraft_tests::process::Proc;

/// A product on a web server, and its players.
struct World {
    product: Product,
    build: PathBuf,
    web: WebServer,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::served(|_, _| None)
    }

    /// By a web server that may answer otherwise.
    fn served(tamper: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let addr = listener.local_addr().expect("it listens");
        let product = Product::init(&Place::Here, &dir.path().join("product"), "game", addr);
        let web = WebServer::on(listener, &product.repository(), tamper);
        let world = Self { product, build: dir.path().join("build"), web, dir };
        world.publish("1.0", 1);
        world
    }

    fn publish(&self, version: &str, seed: u64) {
        content::write_file(&self.build.join("game.bin"), seed, 40_000);
        self.product.publish(&self.build, version);
    }

    fn publisher(&self, arguments: &[&str]) -> Proc {
        let mut command = self.product.command(arguments[0]);
        command.args(&arguments[1..]);
        Proc::start("publisher", command)
    }

    fn install(&self, name: &str) -> Install {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let install = Install::new(&Place::Here, name, &self.dir.path().join(name), any);
        install.install(self.product.feed(), false).finish(TRANSFER_WAIT);
        install
    }

    fn assert_newest(&self, install: &Install) {
        content::assert_same(&self.build, &install.dir, &[STATE_FOLDER]);
    }

    fn key(&self, file: &str) -> SecretKey {
        let text = fs::read_to_string(self.product.dir.join(file)).expect("it is there");
        SecretKey::parse(&text).expect("it is a key")
    }

    /// The head as it would be if `key` had signed the next one.
    fn forge_head(&self, key: &SecretKey, change: impl FnOnce(&mut Head)) {
        let path = self.product.repository().join(HEAD_PATH);
        let bytes = fs::read(&path).expect("it is there");
        let signed = Signed::parse(Role::Head, &bytes).expect("it is signed");
        let text = std::str::from_utf8(signed.payload()).expect("it is text").to_owned();
        let mut head: Head = toml::from_str(&text).expect("it is a head");
        head.sequence += 1;
        change(&mut head);
        let signed = Signed::create(Role::Head, &head, &[key]).expect("it is signed");
        fs::write(path, signed.to_bytes()).expect("it can be written");
    }
}

fn restore(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("it can be written");
}

/// The routine of every year: all keys are replaced. Whoever was away for two of them walks root by
/// root to the newest release; whoever holds an old key can do nothing with it.
#[test]
fn the_yearly_drill() {
    let world = World::new();
    let away = world.install("away");
    let mut year = 0;
    for version in ["2.0", "3.0"] {
        year += 1;
        world
            .publisher(&[
                "keys",
                "rotate",
                "root",
                "release",
                "launcher",
                "head",
                "--no-passphrase",
            ])
            .finish(TRANSFER_WAIT);
        // Nobody is locked out between the rotation and the next release.
        world.assert_newest(&world.install(&format!("new-{year}")));
        world.publish(version, year + 10);
    }
    assert!(world.product.repository().join("root/3.toml").is_file());
    away.update(false).finish(TRANSFER_WAIT);
    world.assert_newest(&away);
    world.publisher(&["verify"]).finish(TRANSFER_WAIT);

    let head_path = world.product.repository().join(HEAD_PATH);
    let honest = fs::read(&head_path).expect("it is there");
    for old in ["keys/head.until-root-2.key", "keys/head.until-root-3.key"] {
        world.forge_head(&world.key(old), |_| {});
        let text = away.ask("check").fails(TRANSFER_WAIT);
        assert!(text.contains("has 0 valid signatures"), "{old}: {text}");
        restore(&head_path, &honest);
    }
    // The old release key signs nothing that is installed, even beside the new head key.
    let repository = world.product.repository();
    let old_release = world.key("keys/release.until-root-2.key");
    world.forge_head(&world.key("keys/head.key"), |head| {
        let entry = &mut head.releases[0];
        let path = repository.join(entry.manifest_path());
        let signed = Signed::parse(Role::Release, &fs::read(path).expect("it is there"));
        let text = signed.expect("it is signed").payload().to_vec();
        let text = String::from_utf8(text).expect("it is text");
        let mut manifest: updraft_manifests::manifest::Manifest =
            toml::from_str(&text).expect("it is a manifest");
        manifest.sequence += 1;
        let signed = Signed::create(Role::Release, &manifest, &[&old_release]).expect("signed");
        (entry.sequence, entry.manifest) = (manifest.sequence, signed.hash());
        entry.length = signed.payload().len() as u64;
        restore(&repository.join(entry.manifest_path()), &signed.to_bytes());
    });
    let text = away.update(false).fails(TRANSFER_WAIT);
    assert!(text.contains("has 0 valid signatures"), "{text}");
    away.ask("verify").finish(TRANSFER_WAIT);
    world.assert_newest(&away);
}

/// What `check` says: (update, turn).
fn check(install: &Install) -> (bool, String) {
    let mut proc = install.ask("check");
    proc.wait_exit(TRANSFER_WAIT);
    proc.wait_json("what it says", TRANSFER_WAIT, |event| {
        let turn = event["turn"].as_str()?.to_owned();
        (event["event"] == "checked").then_some((event["update"] == true, turn))
    })
}

#[test]
fn a_release_goes_to_some_first_and_can_be_stopped() {
    let world = World::new();
    let players: Vec<_> = (0..8).map(|n| world.install(&format!("player-{n}"))).collect();
    content::write_file(&world.build.join("game.bin"), 2, 40_000);
    let publish = |share: &str| {
        let build = world.build.to_str().expect("it is text");
        let rest = ["--version", "2.0", "--channel", "stable", "--first", share];
        let mut arguments = vec!["publish", build];
        arguments.extend(rest);
        world.publisher(&arguments).finish(TRANSFER_WAIT);
    };
    publish("0%");
    for player in &players {
        assert_eq!(check(player), (false, "later".to_owned()));
        player.update(false).finish(TRANSFER_WAIT);
        content::compare(&world.build, &player.dir, &[STATE_FOLDER]).expect_err("not its turn");
    }
    world.publisher(&["rollout", "stable", "50%"]).finish(TRANSFER_WAIT);
    let due = players.iter().filter(|player| check(player).0).count();
    let again = players.iter().filter(|player| check(player).0).count();
    assert_eq!(due, again, "whose turn it is does not change from look to look");
    // Who asks for it does not wait, who has nothing does not, either; not so when it is stopped.
    world.assert_newest(&world.install("late"));
    world.publisher(&["halt", "stable"]).finish(TRANSFER_WAIT);
    assert_eq!(check(&players[0]), (false, "paused".to_owned()));
    let mut asks = Install::new(
        &Place::Here,
        "asks",
        &players[0].dir,
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    );
    asks.flags = vec!["--now".to_owned()];
    asks.update(false).finish(TRANSFER_WAIT);
    content::compare(&world.build, &asks.dir, &[STATE_FOLDER]).expect_err("it is stopped");
    world.publisher(&["rollout", "stable", "--resume"]).finish(TRANSFER_WAIT);
    asks.update(false).finish(TRANSFER_WAIT);
    world.assert_newest(&asks);
    world.publisher(&["rollout", "stable", "--critical"]).finish(TRANSFER_WAIT);
    for player in &players[1..] {
        player.update(false).finish(TRANSFER_WAIT);
        world.assert_newest(player);
    }
}

#[test]
fn revoked_releases_are_not_installed_and_said_so() {
    let world = World::new();
    let anna = world.install("anna");
    world.publish("2.0", 2);
    anna.update(false).finish(TRANSFER_WAIT);
    world.publisher(&["revoke", "2.0"]).finish(TRANSFER_WAIT);
    let mut check = anna.ask("check");
    check.finish(TRANSFER_WAIT);
    assert!(check.text().contains("\"event\":\"revoked\""), "{}", check.text());
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let ben = Install::new(&Place::Here, "ben", &world.dir.path().join("ben"), any);
    let text = ben.install(world.product.feed(), false).fails(TRANSFER_WAIT);
    assert!(text.contains("was revoked by its publisher"), "{text}");
    // The way on: another release; and there is no way back to the revoked one.
    world.publish("3.0", 3);
    anna.update(false).finish(TRANSFER_WAIT);
    world.assert_newest(&anna);
    let text = anna.rollback().fails(TRANSFER_WAIT);
    assert!(text.contains("was revoked by its publisher"), "{text}");
    world.assert_newest(&anna);
}

#[test]
fn what_was_tried_on_one_channel_comes_to_another() {
    let world = World::new();
    content::write_file(&world.build.join("game.bin"), 2, 40_000);
    let build = world.build.to_str().expect("it is text").to_owned();
    let publish = ["publish", &build, "--version", "2.0", "--channel", "beta"];
    world.publisher(&publish).finish(TRANSFER_WAIT);
    let anna = world.install("anna");
    content::compare(&world.build, &anna.dir, &[STATE_FOLDER]).expect_err("stable has 1.0");
    let promote = ["promote", "2.0", "--from", "beta", "--to", "stable"];
    world.publisher(&promote).finish(TRANSFER_WAIT);
    anna.update(false).finish(TRANSFER_WAIT);
    world.assert_newest(&anna);
    world.publisher(&["verify"]).finish(TRANSFER_WAIT);
}

#[test]
fn nobody_can_be_locked_out_by_mistake() {
    let world = World::new();
    let listed = {
        let mut list = world.publisher(&["--json", "keys", "list"]);
        list.finish(TRANSFER_WAIT);
        list.json()
    };
    assert_eq!(listed.len(), 4, "{listed:?}");
    let release = listed.iter().find(|key| key["role"] == "release").expect("there is one");
    let key = release["key"].as_str().expect("it is text").to_owned();
    let text = world.publisher(&["keys", "revoke", &key]).fails(TRANSFER_WAIT);
    assert!(text.contains("keys rotate release"), "{text}");
    let spare = world.dir.path().join("spare.key");
    let spare = spare.to_str().expect("it is text");
    let new = ["keys", "new", "release", spare, "--no-passphrase"];
    world.publisher(&new).finish(TRANSFER_WAIT);
    world.publisher(&["keys", "revoke", &key]).finish(TRANSFER_WAIT);
    world.assert_newest(&world.install("anna"));
    assert!(!world.product.repository().join("root/4.toml").exists());
}
