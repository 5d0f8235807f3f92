//! Bundles: what a launcher exports to a folder or a stick installs and updates elsewhere with no network at all, is
//! served by any web server, and is refused in words where it is damaged, old or another product's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "every line of this file is a test")]

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use updraft_tests::clients::{Nginx, PEER_PORT};
use updraft_tests::content;
use updraft_tests::disk::{Disk, Fault};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    Install, Place, Product, READY_WAIT, Report, STATE_FOLDER, TRANSFER_WAIT, wait_complete,
    wait_progress,
};
use updraft_tests::process::Proc;

const ORIGIN_PORT: u16 = 8080;
const BYTES: u64 = 6 << 20;

/// A product, and somebody who has its newest release.
struct World {
    lab: Lab,
    product: Product,
    build: PathBuf,
    host: Install,
}

impl World {
    fn new(bytes: u64) -> Self {
        let lab = Lab::new();
        let origin = lab.node();
        let build = content::shared_game(lab.path("build"), 1, bytes);
        let product = Product::init(
            &Place::from(&origin),
            &lab.path("product"),
            "game",
            origin.addr(ORIGIN_PORT),
        );
        let host = install(&lab.node(), &lab, "host");
        let world = Self { lab, product, build, host };
        world.product.publish(&world.build, "1.0");
        world.fetch(true);
        world
    }

    /// The host gets the newest release.
    fn fetch(&self, first: bool) {
        let mut origin = self.product.serve();
        let fetch = match first {
            true => self.host.install(self.product.feed(), false),
            false => self.host.update(false),
        };
        wait_complete(&fetch, TRANSFER_WAIT);
        origin.kill();
    }

    /// The next release is published, and the host has it.
    fn next_release(&self) {
        content::next_release(&self.build, 7);
        self.product.publish(&self.build, "2.0");
        self.fetch(false);
    }

    /// Somebody whose machine has no network.
    fn alone(&self, name: &str) -> (Node, Install) {
        let node = self.lab.node();
        node.cut();
        let install = install(&node, &self.lab, name);
        (node, install)
    }

    fn export(&self, bundle: &Path) -> Exported {
        exported(&mut self.host.export(bundle))
    }

    fn assert_installed(&self, install: &Install) {
        content::assert_same(&self.build, &install.dir, &[STATE_FOLDER]);
    }
}

fn install(node: &Node, lab: &Lab, name: &str) -> Install {
    Install::new(&Place::from(node), name, &lab.path(name), node.addr(PEER_PORT))
}

/// What an export said at its end, in bytes.
struct Exported {
    all: u64,
    written: u64,
}

fn exported(proc: &mut Proc) -> Exported {
    proc.finish(TRANSFER_WAIT);
    let events = proc.json();
    let end = events.iter().find(|event| event["event"] == "exported").expect("it says so");
    let number = |key: &str| end[key].as_u64().unwrap();
    Exported { all: number("bytes"), written: number("written_bytes") }
}

/// Installs from a bundle, whose feed is all that the player has.
fn install_from(install: &Install, bundle: &Path) -> Report {
    let mut proc = install.install_from(&bundle.join("feed.toml"), bundle);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    report
}

/// A bundle goes to somebody without a network, twice: the second release shares what it has in common with the
/// first, and travels as the patch that the host came by it with.
#[test]
fn a_bundle_installs_and_updates_without_a_network() {
    let world = World::new(BYTES);
    let bundle = world.lab.path("stick/game");
    let first = world.export(&bundle);
    assert_eq!((first.all, first.written), (first.all, first.all));
    assert_eq!(world.export(&bundle).written, 0, "all of it is there");

    let (node, player) = world.alone("player");
    let sent = node.packets_sent();
    let report = install_from(&player, &bundle);
    assert_eq!(report.peers, 0, "{report:?}");
    world.assert_installed(&player);

    world.next_release();
    let second = world.export(&bundle);
    assert!(second.written < second.all, "what both have is there already");
    let mut import = player.import(&bundle);
    let report = wait_complete(&import, TRANSFER_WAIT);
    import.finish(READY_WAIT);
    world.assert_installed(&player);
    assert!(report.http < BYTES / 4, "a patch does: {report:?}");
    let events = import.json();
    let checked = events.iter().find(|event| event["event"] == "checked").unwrap();
    assert_eq!((&checked["heard_from"], &checked["fresh"]), (&"bundle".into(), &false.into()));
    let mut again = player.import(&bundle);
    again.finish(READY_WAIT);
    assert!(again.json().iter().any(|event| event["event"] == "up-to-date"));

    // Somebody who never had the first release.
    let (_node, late) = world.alone("late");
    install_from(&late, &bundle);
    world.assert_installed(&late);
    assert_eq!(node.packets_sent(), sent, "not one packet was sent");
    // The publisher's own tree is a bundle, too.
    let (_node, other) = world.alone("other");
    let feed = world.product.feed();
    let mut proc = other.install_from(&feed, &world.product.repository());
    wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    world.assert_installed(&other);
}

/// It is laid out as a repository is, so a web server that knows nothing of it is an origin.
#[test]
fn any_web_server_serves_a_bundle() {
    let world = World::new(BYTES);
    let bundle = world.lab.path("bundle");
    world.export(&bundle);
    let web = Nginx::start(&world.lab, &world.lab.node(), &bundle);
    let player = install(&world.lab.node(), &world.lab, "player");
    let proc = player.install(world.product.feed_at(&web.url), false);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    assert!(report.http > 0, "{report:?}");
    world.assert_installed(&player);
}

/// What is wrong with a bundle is said, nothing that is installed changes, and `export` mends it.
#[test]
fn what_is_wrong_with_a_bundle_is_said() {
    let world = World::new(BYTES);
    let old = world.lab.path("old");
    world.export(&old);
    let (_node, player) = world.alone("player");
    install_from(&player, &old);
    let before = world.lab.folder("before");
    content::copy_tree(&player.dir, &before);
    world.next_release();
    let bundle = world.lab.path("bundle");
    world.export(&bundle);
    let refused = |what: &str, bundle: &Path, exit: i32, words: &str| {
        let mut import = player.import(bundle);
        let text = import.fails(TRANSFER_WAIT);
        assert!(text.contains(words), "{what}: {text}");
        assert_eq!(import.wait_exit(READY_WAIT).code, Some(exit), "{what}: {text}");
        content::assert_same(&before, &player.dir, &[STATE_FOLDER]);
    };

    // One content that rotted, and one that is gone. Both are needed where there is no patch.
    let broken = world.lab.folder("broken");
    content::copy_tree(&bundle, &broken);
    fs::remove_dir_all(broken.join("patchlists")).unwrap();
    let largest = objects(&broken);
    content::damage(&largest[0], 100_000, 3, 1);
    fs::remove_file(&largest[1]).unwrap();
    refused("damaged", &broken, 6, "nothing can be brought in from the bundle");
    let healed = exported(&mut world.host.export(&broken));
    assert!(healed.written > 0 && healed.written < healed.all, "only what was wrong");

    // A head that nobody signed, or that is not there.
    let text = fs::read_to_string(broken.join("head.toml")).unwrap();
    fs::write(broken.join("head.toml"), text.replace("2.0", "9.0")).unwrap();
    refused("forged", &broken, 7, "nothing can be brought in from the bundle");
    fs::remove_file(broken.join("head.toml")).unwrap();
    refused("without a head", &broken, 6, "missing, or older");

    // Of another product, and no bundle at all.
    let other_node = world.lab.node();
    let other = Product::init(
        &Place::from(&other_node),
        &world.lab.path("other"),
        "other",
        other_node.addr(ORIGIN_PORT),
    );
    other.publish(&world.build, "9.0");
    refused("another product's", &other.repository(), 7, "nothing can be brought in");
    refused("no bundle", &world.build, 2, "this is no bundle");

    // Older than what is known.
    let mut import = player.import(&bundle);
    wait_complete(&import, TRANSFER_WAIT);
    import.finish(READY_WAIT);
    world.assert_installed(&player);
    let text = player.import(&old).fails(TRANSFER_WAIT);
    assert!(text.contains("older than what is known here"), "{text}");
    world.assert_installed(&player);

    // What is no place to export to.
    let taken = |bundle: &Path, words: &str| {
        let text = world.host.export(bundle).fails(TRANSFER_WAIT);
        assert!(text.contains(words), "{text}");
    };
    taken(&other.repository(), "another product's bundle");
    taken(&world.build, "has other things in it");
}

/// A stick that is pulled out before everything is read: what was read stays, and the next run takes the rest.
#[test]
fn a_stick_that_is_pulled_out_loses_nothing() {
    let world = World::new(BYTES);
    let bundle = world.lab.path("bundle");
    let all = world.export(&bundle).all;
    let (_node, player) = world.alone("player");
    let feed = world.lab.path("feed.toml");
    fs::copy(bundle.join("feed.toml"), &feed).unwrap();
    // The last to be read is out of reach, then all is.
    let (last, away) = (objects(&bundle)[0].clone(), world.lab.path("away"));
    fs::rename(&last, &away).unwrap();
    let mut import = player.install_from(&feed, &bundle);
    wait_progress(&import, BYTES / 4, TRANSFER_WAIT);
    let pulled = world.lab.path("pulled");
    fs::rename(&bundle, &pulled).unwrap();
    let text = import.fails(TRANSFER_WAIT);
    assert!(text.contains("nothing can be brought in from the bundle"), "{text}");
    fs::rename(&pulled, &bundle).unwrap();
    fs::rename(&away, &last).unwrap();
    let again = install_from(&player, &bundle);
    world.assert_installed(&player);
    assert!(again.http < all - BYTES / 4 && again.reused > 0, "{again:?} of {all}");
}

/// An export that is killed, refused or cut off from power at any change of the stick, and one that does not fit: the
/// same command goes on, and the bundle of before is not lost meanwhile.
#[test]
fn an_export_can_fail_anywhere() {
    let world = World::new(1 << 20);
    let stick = Disk::mount(&world.lab.folder("stick"));
    let bundle = stick.path().join("game");
    world.export(&bundle);
    let first_build = world.lab.folder("first");
    content::copy_tree(&world.build, &first_build);
    let before = stick.image();
    world.next_release();
    stick.arm(None);
    world.export(&bundle);
    let changes = stick.changes();
    let faults = [
        Fault::Kill,
        Fault::RefuseAll(Errno::NOSPC.raw_os_error()),
        Fault::Kill,
        Fault::Refuse(Errno::IO.raw_os_error()),
        Fault::Short,
    ];
    let instants: u64 = 15;
    for (round, fault) in (0..instants.min(changes)).zip(faults.into_iter().cycle()) {
        let at = round * changes / instants;
        let what = format!("{fault:?} at change {at} of {changes}");
        stick.restore(&before);
        stick.arm(Some((at, fault)));
        let mut export = world.host.export(&bundle);
        stick.watch(&export);
        let exit = export.wait_exit(TRANSFER_WAIT);
        stick.arm(None);
        if let Fault::Kill = fault {
            stick.cut(round);
        } else if !exit.success() {
            assert!(export.json().iter().any(|event| event["event"] == "error"), "{what}");
        }
        // Either release, whole.
        let (_node, player) = world.alone(&format!("player{round}"));
        install_from(&player, &bundle);
        let is = |build: &Path| content::compare(build, &player.dir, &[STATE_FOLDER]);
        assert!(is(&first_build).is_ok() || is(&world.build).is_ok(), "{what}");
        world.export(&bundle);
        let mut import = player.import(&bundle);
        import.finish(TRANSFER_WAIT);
        world.assert_installed(&player);
    }
    // Too small for all of it: said before a byte is written.
    stick.restore(&before);
    stick.set_capacity(Some(stick.used() + (100 << 10)));
    let mut export = world.host.export(&bundle);
    let text = export.fails(TRANSFER_WAIT);
    assert!(text.contains("not enough space"), "{text}");
    stick.set_capacity(None);
    world.export(&bundle);
}

/// The contents in a bundle, the largest first.
fn objects(bundle: &Path) -> Vec<PathBuf> {
    let mut objects: Vec<PathBuf> =
        fs::read_dir(bundle.join("objects")).unwrap().map(|entry| entry.unwrap().path()).collect();
    objects.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    objects
}
