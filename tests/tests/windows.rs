//! Windows programs, under wine, together with Linux ones. Run by `tests/windows e2e`, which builds both and
//! tells where they are. All of it is on loopback: wine's sockets are not in the namespaces of the labs.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use updraft_tests::content;
use updraft_tests::ours::{
    Install, Place, Product, STATE_FOLDER, progress, wait_complete, wait_offered, wait_progress,
};
use updraft_tests::process::Proc;

/// How long one command may take: seconds, but for a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// The size of the builds: wine is slow.
const BYTES: u64 = 8 << 20;
/// Any free port of this machine.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A build, its origin on Linux, and a folder for installs.
struct World {
    product: Product,
    build: PathBuf,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let build = dir.path().join("build");
        content::game(&build, 1, BYTES);
        let product =
            Product::init(&Place::Here, &dir.path().join("product"), "game", two_free_ports());
        product.publish(&build, "1.0");
        Self { product, build, dir }
    }

    fn install(&self, place: &Place, name: &str) -> Install {
        Install::new(place, name, &self.dir.path().join(name), ANY)
    }

    fn publish_next(&self, version: &str, seed: u64) {
        content::next_release(&self.build, seed);
        self.product.publish(&self.build, version);
    }

    /// What is installed is the build, but for the marks of programs, which Windows does not have.
    fn assert_installed(&self, install: &Install) {
        content::assert_same_contents(&self.build, &install.dir, &[STATE_FOLDER]);
    }
}

/// An address whose port, and the one above it, are free.
fn two_free_ports() -> SocketAddr {
    (0..100)
        .find_map(|_| {
            let first = TcpListener::bind(ANY).ok()?.local_addr().ok()?;
            let above = SocketAddr::new(first.ip(), first.port().checked_add(1)?);
            TcpListener::bind(above).is_ok().then_some(first)
        })
        .expect("there are two free ports")
}

/// Where a program that goes on seeding listens.
fn listening(proc: &Proc) -> SocketAddr {
    proc.wait_json("where it listens", PATIENCE, |event| {
        let told = event["event"] == "listening";
        told.then(|| event["addresses"][0].as_str()?.parse().ok())?
    })
}

fn finished(mut proc: Proc) {
    proc.finish(PATIENCE);
}

#[test]
fn a_windows_launcher_does_its_job() {
    let world = World::new();
    let origin = world.product.serve();
    let feed = world.product.feed();
    let player = world.install(&Place::Wine, "player");

    // Killed in the middle, told to stop in the middle, and then left alone.
    let mut killed = player.install(&feed, false);
    wait_progress(&killed, 1, PATIENCE);
    killed.kill();
    let mut stopped = player.install(&feed, false);
    wait_progress(&stopped, 1, PATIENCE);
    stopped.interrupt();
    let exit = stopped.wait_exit(PATIENCE);
    let complete = progress(&stopped).is_none();
    assert!(exit.code == Some(130) || complete, "{:?}{}", exit.code, stopped.tail());
    finished(player.install(&feed, false));
    world.assert_installed(&player);
    finished(player.ask("verify"));
    finished(player.ask("status"));

    // Damage is named with the path as it was released, and repaired.
    content::damage(&player.dir.join("data/world.pak"), 1_000_000, 10, 1);
    fs::remove_file(player.dir.join("data/levels/level 4.bin")).expect("it is installed");
    let mut verify = player.ask("verify");
    assert_eq!(verify.wait_exit(PATIENCE).code, Some(4), "{}", verify.tail());
    let events = verify.json();
    let mut damaged: Vec<_> = events.iter().filter(|event| event["event"] == "damaged").collect();
    damaged.sort_by_key(|event| event["path"].to_string());
    let paths: Vec<_> = damaged.iter().filter_map(|event| event["path"].as_str()).collect();
    assert_eq!(paths, ["data/levels/level 4.bin", "data/world.pak"]);
    finished(player.repair());
    world.assert_installed(&player);

    // An update that is killed, over files that the player marked read-only, and back.
    let old = world.dir.path().join("old");
    content::copy_tree(&world.build, &old);
    world.publish_next("1.1", 7);
    wait_offered(&origin, "1.1");
    for name in ["bin/game", "data/world.pak"] {
        set_read_only(&player.dir.join(name));
    }
    let mut killed = player.update(false);
    wait_progress(&killed, 1, PATIENCE);
    killed.kill();
    finished(player.update(false));
    world.assert_installed(&player);
    finished(player.rollback());
    content::assert_same_contents(&old, &player.dir, &[STATE_FOLDER]);
    finished(player.ask("verify"));
}

fn set_read_only(path: &Path) {
    let mut permissions = fs::metadata(path).expect("it is installed").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions).expect("it is ours");
}

#[test]
fn windows_and_linux_launchers_feed_each_other() {
    let world = World::new();
    let mut origin = world.product.serve();
    let feed = world.product.feed();
    let names = [(Place::Wine, "w1"), (Place::Here, "l1"), (Place::Wine, "w2")];
    let players = names.map(|(place, name)| world.install(&place, name));
    let running = players.each_ref().map(|player| player.install(&feed, true));
    for (player, proc) in players.iter().zip(&running) {
        wait_complete(proc, PATIENCE);
        world.assert_installed(player);
    }
    let windows = listening(&running[0]);
    let linux = listening(&running[1]);
    origin.kill();
    let [w1, mut l1, w2] = running;
    l1.kill();
    drop(w2);

    // All that a Linux launcher gets is from a Windows one, and the other way round.
    let mut ben = world.install(&Place::Here, "ben");
    ben.flags = vec!["--peer".into(), windows.to_string()];
    let proc = ben.install(&feed, false);
    let report = wait_complete(&proc, PATIENCE);
    world.assert_installed(&ben);
    assert!(report.http == 0 && report.peers > 0, "{report:?}");
    drop((proc, w1));

    let cleo = Install::new(&Place::Here, "l1", &players[1].dir, linux);
    let seed = cleo.seed();
    let mut dora = world.install(&Place::Wine, "dora");
    dora.flags = vec!["--peer".into(), listening(&seed).to_string()];
    let proc = dora.install(&feed, false);
    let report = wait_complete(&proc, PATIENCE);
    world.assert_installed(&dora);
    assert!(report.http == 0 && report.peers > 0, "{report:?}");
}

/// All files below a folder, by path.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = content::list(dir, &[]).into_keys().filter(|path| dir.join(path).is_file());
    files.map(|path| (path.clone(), fs::read(dir.join(path)).expect("it can be read"))).collect()
}

#[test]
fn both_publishers_make_the_same_of_a_build() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let build = dir.path().join("build");
    let linux = Product::init(&Place::Here, &dir.path().join("linux"), "game", two_free_ports());
    content::copy_tree(&linux.dir, &dir.path().join("windows"));
    let windows = Product::at(&Place::Wine, &dir.path().join("windows"));
    content::game(&build, 1, BYTES / 2);
    for version in ["1.0", "1.1"] {
        if version == "1.1" {
            content::next_release(&build, 7);
        }
        // The marks of programs are the one thing that a Windows build does not have.
        let program = build.join("bin/game");
        let bytes = fs::read(&program).expect("the game has a program");
        fs::remove_file(&program).expect("it is ours");
        fs::write(&program, bytes).expect("it can be written");
        for product in [&linux, &windows] {
            let mut publish = product.command("publish");
            publish.arg(&build).args(["--version", version, "--channel", "stable"]);
            // Or manifests would differ in their time.
            publish.env("SOURCE_DATE_EPOCH", "1700000000");
            Proc::start("publish", publish).finish(PATIENCE);
        }
    }
    let [mut ours, mut theirs] = [&linux, &windows].map(|product| contents(&product.repository()));
    // When a head was signed is part of it.
    assert!(ours.remove("head.toml").is_some() && theirs.remove("head.toml").is_some());
    let names = |all: &BTreeMap<String, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    assert!(
        ours.keys().filter(|path| path.starts_with("torrents/")).count() >= 3,
        "with a patch's"
    );
    for (path, bytes) in &ours {
        assert!(theirs[path] == *bytes, "{path} differs");
    }
}

#[test]
fn a_windows_launcher_updates_itself() {
    let world = World::new();
    let _origin = world.product.serve();
    let home = world.dir.path().join("home");
    let programs = |mark: &str| {
        let dir = world.dir.path().join(format!("programs-{mark}"));
        fs::create_dir_all(dir.join("data")).expect("it can be made");
        for name in ["updraft-launcher", "updraft-stub"] {
            let program = Place::Wine.binary(name);
            let to = dir.join(program.file_name().expect("it has a name"));
            fs::copy(program, to).expect("it can be copied");
        }
        fs::write(dir.join("data/mark"), mark).expect("it can be written");
        dir
    };
    let publish = |dir: &Path, version: &str, ship: Option<&Path>| {
        let mut command = world.product.command("publish-launcher");
        command.arg(dir).args(["--version", version, "--platform", "windows-x86_64"]);
        command.args(ship.map(|to| format!("--ship={}", to.display())));
        Proc::start("publish-launcher", command).finish(PATIENCE);
    };
    publish(&programs("first"), "1.0.0", Some(&home));
    let player = world.install(&Place::Wine, "player");
    finished(player.install(world.product.feed(), false));
    let stub = |verb: &[&str]| {
        let mut command: Command = Place::Wine.command(home.join("updraft-stub.exe"));
        command.arg("--json").args(verb).arg("--dir").arg(&player.dir);
        Proc::start("stub", command)
    };
    let version = || {
        let mut proc = stub(&["self-update", "--check"]);
        proc.wait_exit(PATIENCE);
        let own = |event: &serde_json::Value| event["own"].as_str().map(str::to_owned);
        proc.wait_json("its version", PATIENCE, own)
    };
    assert_eq!(version(), "1.0.0");
    publish(&programs("second"), "1.1.0", None);
    finished(stub(&["self-update"]));
    assert_eq!(version(), "1.1.0");
    publish(&programs("third"), "1.2.0", None);
    finished(stub(&["self-update"]));
    assert_eq!(version(), "1.2.0");
    let mark = fs::read_to_string(home.join("launcher-3/data/mark")).expect("it is there");
    assert_eq!(mark, "third");
    assert!(!home.join("launcher-1").exists(), "only the one before is kept");
    assert!(home.join("launcher-2").exists());
    // Exit codes and complaints come through the stub.
    let mut wrong = Proc::start("stub", Place::Wine.command(home.join("updraft-stub.exe")));
    assert_eq!(wrong.wait_exit(PATIENCE).code, Some(2));
}
