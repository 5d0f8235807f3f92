//! The launcher's own updates with real processes: a stub, versions side by side, and whoever would
//! like to put something else there.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use updraft_launcher::store::own_platform;
use updraft_manifests::document::Signed;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::{HEAD_PATH, Head, LauncherRelease};
use updraft_manifests::keys::{Role, SecretKey};
use updraft_manifests::launcher::LauncherManifest;
use updraft_tests::content;
use updraft_tests::disk::{Disk, Fault};
use updraft_tests::hostile::{WebServer, answer};
use updraft_tests::ours::{Install, Place, Product, binary};
use updraft_tests::process::Proc;

/// How long one command may take: a second, but for a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// The exit code of `--check` when there is something newer.
const AVAILABLE: Option<i32> = Some(3);

/// What is answered in place of files whose path begins so.
type Lie = (String, Vec<u8>);

/// A product with a launcher, its repository on a web server that may lie, and a player who has both.
struct World {
    product: Product,
    lie: Arc<Mutex<Option<Lie>>>,
    install: Install,
    build: PathBuf,
    home: PathBuf,
    _web: WebServer,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let home = dir.path().join("home");
        Self::at(dir, home)
    }

    /// With the launcher's home at `home`.
    fn at(dir: tempfile::TempDir, home: PathBuf) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any).expect("a port is free");
        let addr = listener.local_addr().expect("it listens");
        let product = Product::init(&Place::Here, &dir.path().join("product"), "game", addr);
        let lie = Arc::<Mutex<Option<Lie>>>::default();
        let told = Arc::clone(&lie);
        let web = WebServer::on(listener, &product.repository(), move |path, _| {
            let lie = told.lock().expect("nobody panics with it");
            let (prefix, body) = lie.as_ref()?;
            path.starts_with(prefix).then(|| answer("200 OK", body))
        });
        let build = dir.path().join("build");
        content::write_file(&build.join("game.bin"), 1, 50_000);
        product.publish(&build, "1.0");
        let install = Install::new(&Place::Here, "anna", &dir.path().join("game"), any);
        let world = Self { product, lie, install, build, home, _web: web, dir };
        let first = world.programs("first");
        let mut ship = world.publish_launcher(&first, "1.0.0");
        ship.arg("--ship").arg(&world.home);
        Proc::start("publish-launcher", ship).finish(PATIENCE);
        world.install.install(world.product.feed(), false).finish(PATIENCE);
        world
    }

    /// A folder with our programs and something that tells it from others.
    fn programs(&self, mark: &str) -> PathBuf {
        let dir = self.dir.path().join(format!("programs-{mark}"));
        fs::create_dir_all(dir.join("data")).expect("it can be made");
        for name in ["updraft-launcher", "updraft-stub"] {
            fs::copy(binary(name), dir.join(name)).expect("it can be copied");
        }
        fs::write(dir.join("data/mark"), mark).expect("it can be written");
        dir
    }

    /// The same with a shell script for a launcher.
    fn script(&self, mark: &str, text: &str) -> PathBuf {
        let dir = self.programs(mark);
        let program = dir.join("updraft-launcher");
        fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("it can be written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        dir
    }

    fn publish_launcher(&self, dir: &Path, version: &str) -> Command {
        let mut command = self.product.command("publish-launcher");
        command.arg(dir).args(["--version", version, "--platform", own_platform().as_str()]);
        command
    }

    fn publish(&self, dir: &Path, version: &str) {
        let command = self.publish_launcher(dir, version);
        Proc::start("publish-launcher", command).finish(PATIENCE);
    }

    /// A command of the launcher, started as the player does.
    fn stub(&self, verb: &[&str]) -> Proc {
        let mut command = Command::new(self.home.join("updraft-stub"));
        command.arg("--json").args(verb).arg("--dir").arg(&self.install.dir);
        Proc::start("stub", command)
    }

    fn self_update(&self) -> String {
        let mut proc = self.stub(&["self-update"]);
        proc.finish(PATIENCE);
        proc.text()
    }

    /// The version that answers, and what it says of the newest: (own, newest, state).
    fn answers(&self) -> (String, String, String) {
        let mut proc = self.stub(&["self-update", "--check"]);
        let exit = proc.wait_exit(PATIENCE);
        let text = |event: &serde_json::Value, key: &str| {
            event[key].as_str().map(str::to_owned).unwrap_or_default()
        };
        let told = proc.wait_json("its version", PATIENCE, |event| {
            let keys = ["own", "available", "state"].map(|key| text(event, key));
            (event["event"] == "launcher").then_some(keys)
        });
        let [own, available, state] = told;
        assert_eq!(exit.code == AVAILABLE, state == "available", "{}", proc.text());
        (own, available, state)
    }

    fn assert_answers(&self, own: &str, available: &str, state: &str) {
        let expected = (own.to_owned(), available.to_owned(), state.to_owned());
        assert_eq!(self.answers(), expected);
    }

    fn key(&self, role: &str) -> SecretKey {
        let path = self.product.dir.join(format!("keys/{role}.key"));
        SecretKey::parse(&fs::read_to_string(path).expect("it is there")).expect("it is a key")
    }

    /// Whoever holds the head key names another launcher in the next head.
    fn forge_head(&self, change: impl FnOnce(&mut Head)) {
        let path = self.product.repository().join(HEAD_PATH);
        let bytes = fs::read(&path).expect("it is there");
        let signed = Signed::parse(Role::Head, &bytes).expect("it is signed");
        let text = String::from_utf8(signed.payload().to_vec()).expect("it is text");
        let mut head: Head = toml::from_str(&text).expect("it is a head");
        head.sequence += 1;
        change(&mut head);
        let signed = Signed::create(Role::Head, &head, &[&self.key("head")]).expect("it is signed");
        fs::write(path, signed.to_bytes()).expect("it can be written");
    }

    /// A manifest of their own, put into the repository and named by a stolen head key.
    fn forge(&self, key: &SecretKey, change: impl FnOnce(&mut LauncherManifest)) {
        let repository = self.product.repository();
        self.forge_head(|head| {
            let entry = &mut head.launchers[0];
            let bytes = fs::read(repository.join(entry.manifest_path())).expect("it is there");
            let signed = Signed::parse(Role::Launcher, &bytes).expect("it is signed");
            let text = std::str::from_utf8(signed.payload()).expect("it is text").to_owned();
            let mut manifest: LauncherManifest = toml::from_str(&text).expect("it is one");
            manifest.sequence += 1;
            change(&mut manifest);
            let signed = Signed::create(Role::Launcher, &manifest, &[key]).expect("it is signed");
            *entry = LauncherRelease {
                platform: entry.platform.clone(),
                version: manifest.version.clone(),
                sequence: manifest.sequence,
                manifest: signed.hash(),
                length: signed.payload().len() as u64,
            };
            fs::write(repository.join(entry.manifest_path()), signed.to_bytes()).expect("it can");
        });
    }

    /// The update is refused with these words, and the first version goes on.
    fn assert_refused(&self, why: &str) {
        let text = self.stub(&["self-update"]).fails(PATIENCE);
        assert!(text.contains(why), "not `{why}`: {text}");
        let mut status = self.stub(&["status"]);
        status.finish(PATIENCE);
        assert!(!self.home.join("launcher-2").exists());
    }
}

#[test]
fn the_next_start_is_the_new_one() {
    let world = World::new();
    world.assert_answers("1.0.0", "1.0.0", "newest");
    world.publish(&world.programs("second"), "1.1.0");
    world.assert_answers("1.0.0", "1.1.0", "available");
    assert!(world.self_update().contains("launcher-updated"));
    world.assert_answers("1.1.0", "1.1.0", "newest");
    // An update of the game brings the launcher, too.
    world.publish(&world.programs("third"), "1.2.0");
    let mut update = world.stub(&["update"]);
    update.finish(PATIENCE);
    assert!(update.text().contains("launcher-updated"), "{}", update.text());
    world.assert_answers("1.2.0", "1.2.0", "newest");
    let mark = fs::read_to_string(world.home.join("launcher-3/data/mark")).expect("it is there");
    assert_eq!(mark, "third");
    assert!(!world.home.join("launcher-1").exists(), "only the one before is kept");
    assert!(world.home.join("launcher-2").exists());
    // Exit codes and complaints come through the stub.
    let mut wrong = Proc::start("stub", Command::new(world.home.join("updraft-stub")));
    assert_eq!(wrong.wait_exit(PATIENCE).code, Some(2));
}

#[test]
fn one_that_does_not_come_up_is_rolled_back() {
    let world = World::new();
    world.publish(&world.script("broken", "echo broken; exit 9"), "1.1.0");
    world.self_update();
    let mut status = world.stub(&["status"]);
    status.finish(PATIENCE);
    let tries = status.lines().iter().filter(|line| line.text == "broken").count();
    assert_eq!(tries, 2, "{}", status.text());
    world.assert_answers("1.0.0", "1.1.0", "failed");
    assert!(!world.self_update().contains("launcher-updated"), "it is not tried for ever");
    // The next one is.
    world.publish(&world.programs("good"), "1.2.0");
    world.self_update();
    world.assert_answers("1.2.0", "1.2.0", "newest");
    assert!(!world.home.join("launcher-2").exists());
    assert!(world.home.join("launcher-1").exists(), "what works here is what is kept");
}

#[test]
fn a_release_that_needs_a_newer_launcher_says_so() {
    let world = World::new();
    world.publish(&world.programs("second"), "1.1.0");
    let mut publish = world.product.command("publish");
    content::write_file(&world.build.join("game.bin"), 2, 50_000);
    publish.arg(&world.build);
    publish.args(["--version", "2.0", "--channel", "stable", "--minimum-launcher", "99.0.0"]);
    Proc::start("publish", publish).finish(PATIENCE);
    let text = world.stub(&["update"]).fails(PATIENCE);
    assert!(text.contains("launcher-updated"), "first it updates itself: {text}");
    assert!(text.contains("needs launcher 99.0.0"), "{text}");
    world.assert_answers("1.1.0", "1.1.0", "newest");
}

#[test]
fn archives_that_are_not_what_was_signed() {
    let world = World::new();
    world.publish(&world.programs("second"), "1.1.0");
    let launchers = world.product.repository().join("launchers");
    let archives = fs::read_dir(&launchers).expect("it is there").flatten();
    let newest = archives.max_by_key(|a| a.metadata().and_then(|m| m.modified()).ok());
    let bytes = fs::read(newest.expect("there are some").path()).expect("it can be read");
    let serve = |body: Vec<u8>| {
        *world.lie.lock().expect("nobody panics with it") = Some(("launchers/".to_owned(), body));
    };
    serve(bytes[..bytes.len() / 2].to_vec());
    world.assert_refused("too short");
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    serve(flipped);
    world.assert_refused("not the archive that was signed");
    serve(bytes);
    world.self_update();
    world.assert_answers("1.1.0", "1.1.0", "newest");
}

#[test]
fn a_stolen_head_key_brings_no_launcher() {
    let world = World::new();
    let stolen = SecretKey::from_random(Role::Launcher, [7; 32]);
    world.forge(&stolen, |_| {});
    world.assert_refused("has 0 valid signatures");
    // What was signed once, under a number of today.
    let world = World::new();
    world.forge_head(|head| head.launchers[0].sequence = 9);
    world.assert_refused("sequence");
    // A release key signs no launchers.
    let world = World::new();
    let release = world.key("release");
    let path = world.product.dir.join("keys/launcher.key");
    fs::write(path, release.to_text()).expect("it can be written");
    let text =
        Proc::start("publish-launcher", world.publish_launcher(&world.programs("second"), "1.1.0"))
            .fails(PATIENCE);
    assert!(text.contains("release key where a launcher key is needed"), "{text}");
}

#[test]
fn a_stolen_launcher_key_does_not_go_back() {
    let world = World::new();
    // The very programs of today as something new.
    let key = world.key("launcher");
    world.forge(&key, |manifest| manifest.version = "9.0.0".parse().expect("it is a version"));
    world.assert_refused("under another number");
    // Other programs, but an older version.
    let world = World::new();
    let key = world.key("launcher");
    world.forge(&key, |manifest| {
        manifest.version = "0.9.0".parse().expect("it is a version");
        manifest.files[0].sha256 = ContentHash([1; 32]);
    });
    world.assert_refused("not newer than this one");
}

#[test]
fn revoked_launchers_are_not_installed_and_not_kept() {
    let world = World::new();
    world.publish(&world.programs("second"), "1.1.0");
    let revoke = |head: &mut Head| head.revoked.push(head.launchers[0].manifest);
    world.forge_head(revoke);
    world.assert_refused("revoked");
    let world = World::new();
    world.forge_head(revoke);
    world.publish(&world.programs("second"), "1.1.0");
    world.self_update();
    world.assert_answers("1.1.0", "1.1.0", "newest");
    assert!(!world.home.join("launcher-1").exists(), "there is no way back to it");
}

/// Kills the launcher at changes of the disk that its home lies on, spread over the whole update; with
/// `power`, what was not synced is lost, too. Something runs after each, and the next update ends it.
fn check_kills(power: bool, instants: u64) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let mounted = dir.path().join("disk");
    fs::create_dir(&mounted).expect("it can be made");
    let disk = Disk::mount(&mounted);
    let world = World::at(dir, disk.path().join("home"));
    world.assert_answers("1.0.0", "1.0.0", "newest");
    world.publish(&world.script("second", "exec true"), "1.1.0");
    let before = disk.image();
    disk.arm(None);
    world.self_update();
    let changes = disk.changes();
    assert!(changes > 20, "an update changes the disk {changes} times only");
    for at in (0..instants.min(changes)).map(|n| n * changes / instants.min(changes)) {
        disk.restore(&before);
        disk.arm(Some((at, Fault::Kill)));
        let mut proc = world.stub(&["self-update"]);
        disk.watch(&proc);
        proc.wait_exit(PATIENCE);
        if power {
            disk.cut(at % 7);
        }
        disk.arm(None);
        // The new version is a script that never comes up: the one before answers in any case.
        let mut status = world.stub(&["status"]);
        status.finish(PATIENCE);
        assert!(status.text().contains("\"event\":\"status\""), "{at}: {}", status.text());
        world.self_update();
        assert!(world.home.join("launcher-2/updraft-launcher").is_file(), "killed at {at}");
        assert!(!world.home.join(".new").exists(), "killed at {at}");
    }
}

#[test]
fn an_update_of_the_launcher_can_be_killed_at_any_change() {
    check_kills(false, 24);
}

#[test]
fn the_power_can_fail_while_the_launcher_updates_itself() {
    check_kills(true, 24);
}
