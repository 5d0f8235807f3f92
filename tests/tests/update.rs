//! Updates with real processes: what is fetched is what changed, wherever the rest lies.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "every line of this file is a test")]

use std::fs;
use std::path::{Path, PathBuf};

use updraft_tests::clients::{Nginx, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    self, Install, Place, Product, READY_WAIT, Report, STATE_FOLDER, TRANSFER_WAIT, wait_complete,
};
use updraft_tests::process::Proc;

/// The port of the origin's web server and tracker.
const ORIGIN_PORT: u16 = 8080;
/// The unit that is found and fetched.
const LEAF: u64 = 16 << 10;
/// The size of the big files.
const BIG: u64 = 4 << 20;

struct World {
    lab: Lab,
    product: Product,
    origin: Option<Proc>,
    build: PathBuf,
}

impl World {
    /// A published build of two big files and a small one, and its origin; it makes no patches.
    fn new() -> Self {
        Self::with_patches(0)
    }

    /// The same, with patches from so many releases.
    fn with_patches(patches: u16) -> Self {
        let lab = Lab::new();
        let origin = lab.node();
        let build = lab.path("build");
        content::write_file(&build.join("a.pak"), 1, BIG + 5000);
        content::write_file(&build.join("b.pak"), 2, BIG);
        content::write_file(&build.join("small.txt"), 3, 900);
        let product = Product::init(
            &Place::from(&origin),
            &lab.path("product"),
            "game",
            origin.addr(ORIGIN_PORT),
        );
        product.configure("patches", &patches.to_string());
        let mut world = Self { lab, product, origin: None, build };
        world.publish("1.0");
        world
    }

    /// Publishes the next release while the origin serves.
    fn publish(&mut self, version: &str) {
        self.product.publish(&self.build, version);
        self.origin.get_or_insert_with(|| self.product.serve());
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        edit(&self.build.join(name), change);
    }

    fn install(&self, node: &Node, name: &str) -> Install {
        let place = Place::from(node);
        Install::new(&place, name, &self.lab.path(name), node.addr(PEER_PORT))
    }

    fn installed(&self) -> Install {
        self.installed_in("anna")
    }

    fn installed_in(&self, name: &str) -> Install {
        let install = self.install(&self.lab.node(), name);
        let mut proc = install.install(self.product.feed(), false);
        wait_complete(&proc, TRANSFER_WAIT);
        proc.finish(READY_WAIT);
        install
    }

    /// Updates; says what came and what was planned.
    fn bring(&self, install: &Install) -> (Report, serde_json::Value) {
        let mut proc = install.update(false);
        let report = wait_complete(&proc, TRANSFER_WAIT);
        let plan = planned(&proc);
        proc.finish(READY_WAIT);
        content::assert_same(&self.build, &install.dir, &[STATE_FOLDER]);
        (report, plan)
    }

    /// Says what an update would do, does it, and compares the two and the trees.
    fn update(&self, install: &mut Install) -> Update {
        install.flags = vec!["--dry-run".into(), "--explain".into()];
        let before = content::list(&install.dir, &[STATE_FOLDER]);
        let mut proc = install.update(false);
        proc.finish(TRANSFER_WAIT);
        assert_eq!(
            content::list(&install.dir, &[STATE_FOLDER]),
            before,
            "a dry run changes nothing"
        );
        let said = planned(&proc);
        let ways = proc.json().into_iter().filter(|event| event["event"] == "planned-file");
        let ways = ways.map(|event| {
            let text = |key: &str| event[key].as_str().unwrap().to_owned();
            (text("path"), text("way"))
        });
        let ways = ways.collect();
        install.flags.clear();
        let (report, does) = self.bring(install);
        for key in ["fetch_bytes", "found_bytes", "kept_bytes", "disk_write_bytes"] {
            assert_eq!(said[key], does[key], "{key} of the dry run");
        }
        let fetched = said["fetch_bytes"].as_u64().unwrap();
        assert_eq!(report.peers + report.http - report.wasted, fetched, "{report:?} {said}");
        Update { fetched, report, ways }
    }
}

struct Update {
    fetched: u64,
    report: Report,
    ways: Vec<(String, String)>,
}

impl Update {
    fn check(&self, leaves_max: u64, ways: &[(&str, &str)]) {
        assert!(
            self.fetched <= leaves_max * LEAF,
            "{} bytes are {} leaves, not {leaves_max}: {:?}",
            self.fetched,
            self.fetched / LEAF,
            self.report
        );
        let mut found: Vec<_> =
            self.ways.iter().map(|(path, way)| (path.as_str(), way.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, ways);
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn planned(proc: &Proc) -> serde_json::Value {
    let event = proc.json().into_iter().find(|event| event["event"] == "planned");
    event.expect("the plan was told")
}

#[test]
fn only_changed_leaves_are_fetched_wherever_the_rest_lies() {
    let mut world = World::new();
    let mut install = world.installed();
    // Overwritten in the middle; bytes inserted near the start; content moved to another file.
    world.edit("a.pak", |bytes| {
        bytes[1_000_000..1_001_000].fill(7);
        bytes.splice(5000..5000, *b"some inserted bytes");
    });
    let b = fs::read(world.build.join("b.pak")).unwrap();
    fs::write(world.build.join("c.pak"), [&b[2_000_000..], &content::noise(9, 100)].concat())
        .unwrap();
    world.edit("b.pak", |bytes| bytes.truncate(2_500_000));
    world.publish("1.1");
    // Until it is seeded, the web server gives it.
    ours::wait_offered(world.origin.as_ref().unwrap(), "1.1");
    let update = world.update(&mut install);
    // Two edits at a border at worst, an end each, and the end of the moved part.
    let ways =
        [("a.pak", "leaves"), ("b.pak", "leaves"), ("c.pak", "leaves"), ("small.txt", "keep")];
    update.check(2 + 2 + 1 + 1, &ways);
    assert_eq!(update.report.http, 0, "{:?}", update.report);
}

#[test]
fn a_release_that_was_skipped_and_one_that_was_taken_back() {
    let mut world = World::new();
    let mut install = world.installed();
    let first = world.lab.path("first");
    copy_tree(&world.build, &first);
    world.edit("a.pak", |bytes| bytes[100_000..100_010].fill(1));
    world.publish("1.1");
    world.edit("a.pak", |bytes| bytes[3_000_000..3_000_010].fill(2));
    world.edit("small.txt", |bytes| bytes[0] ^= 1);
    world.publish("1.2");
    let ways = [("a.pak", "leaves"), ("b.pak", "keep"), ("small.txt", "whole")];
    world.update(&mut install).check(3, &ways);
    // The studio goes back to what was first, a new release with old content: that is kept still.
    copy_tree(&first, &world.build);
    world.publish("1.3");
    let ways = [("a.pak", "move"), ("b.pak", "keep"), ("small.txt", "move")];
    world.update(&mut install).check(0, &ways);
}

#[test]
fn a_file_that_the_player_changed_costs_only_itself() {
    let mut world = World::new();
    let mut install = world.installed();
    edit(&install.dir.join("a.pak"), |bytes| {
        bytes[2_000_000..2_000_100].fill(9);
        bytes.extend_from_slice(b"and more");
    });
    world.edit("b.pak", |bytes| bytes[10] ^= 1);
    world.publish("1.1");
    let ways = [("a.pak", "leaves"), ("b.pak", "leaves"), ("small.txt", "keep")];
    world.update(&mut install).check(2, &ways);
}

#[test]
fn a_foreign_copy_of_an_older_version_is_of_use() {
    let mut world = World::new();
    let node = world.lab.node();
    let mut install = world.install(&node, "ben");
    copy_tree(&world.build, &install.dir);
    // Nothing is recorded of this folder, so what is in the way is moved aside; a file has another name.
    fs::rename(install.dir.join("b.pak"), install.dir.join("old b.pak")).unwrap();
    world.edit("a.pak", |bytes| bytes[1_000_000] ^= 1);
    world.edit("b.pak", |bytes| bytes.insert(1_000_000, 5));
    world.publish("1.1");
    install.flags = vec!["--adopt".into()];
    let mut proc = install.install(world.product.feed(), false);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    content::assert_same(&world.build, &install.dir, &[STATE_FOLDER, "old b.pak", "a.pak.player"]);
    assert!(report.peers + report.http <= 3 * LEAF, "{report:?}");
}

/// Who seeds the old release serves what of the new one it has, before it is updated: the web server only
/// gives what has changed.
#[test]
fn the_old_release_serves_the_new_one() {
    let mut world = World::new();
    let anna = world.installed();
    world.edit("b.pak", |bytes| bytes[10] ^= 1);
    world.publish("1.1");
    let seeding = anna.seed();
    let here = seeding.wait_json("the newer release", TRANSFER_WAIT, |event| {
        (event["event"] == "serving-ahead").then(|| event["bytes"].as_u64())
    });
    assert_eq!(here, Some(BIG + 5000 + 900), "all but the file that has changed");
    world.origin.take().unwrap().kill();
    let web = world.lab.node();
    let nginx = Nginx::start(&world.lab, &web, &world.product.repository());
    let mut ben = world.install(&world.lab.node(), "ben");
    ben.flags = vec!["--peer".into(), anna.listen().to_string()];
    let mut proc = ben.install(world.product.feed_at(&nginx.url), false);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    content::assert_same(&world.build, &ben.dir, &[STATE_FOLDER]);
    assert_eq!((report.peers, report.http), (BIG + 5000 + 900, BIG), "{report:?}");
    // What anna has stays as it was released.
    drop(seeding);
    anna.ask("verify").finish(TRANSFER_WAIT);
}

/// Killed at some point of the update, it goes on and fetches nothing twice.
#[test]
fn a_killed_update_searches_again_and_goes_on() {
    let mut world = World::new();
    let install = world.installed();
    world.edit("a.pak", |bytes| bytes[1_000_000..1_400_000].fill(7));
    world.publish("1.1");
    for needle in ["\"planned\"", "\"listening\"", "\"progress\""] {
        let mut proc = install.update(false);
        proc.wait_json("the kill", TRANSFER_WAIT, |event| {
            let text = event.to_string();
            (text.contains(needle) || text.contains("\"complete\"")).then_some(())
        });
        proc.kill();
    }
    let mut proc = install.update(false);
    proc.finish(TRANSFER_WAIT);
    content::assert_same(&world.build, &install.dir, &[STATE_FOLDER]);
    install.ask("verify").finish(TRANSFER_WAIT);
}

/// Where files can share blocks, the new version of one takes room for what has changed only, though the old
/// one is kept; so it was not written either. By leaves and by a patch.
#[test]
fn what_stays_equal_is_not_written_where_blocks_are_shared() {
    /// Documents, records and the file system's own.
    const SIDES: u64 = 1 << 20;
    for patches in [0, 1] {
        let mut world = World::with_patches(patches);
        let disk = world.lab.sharing_disk("disk");
        let install = world.installed_in("disk/anna");
        world.edit("a.pak", |bytes| bytes[1_000_000..1_001_000].fill(7));
        world.edit("b.pak", |bytes| bytes[2_000_000..2_200_000].fill(8));
        world.publish("1.1");
        let before = used(&disk);
        let (_, plan) = world.bring(&install);
        let took = used(&disk) - before;
        assert_eq!(plan["patched_bytes"].as_u64() > Some(0), patches > 0, "{plan}");
        assert!(took < 201_000 + SIDES, "{took} bytes with {patches} patches");
    }
}

/// Bytes in use on a file system, after all that was written is there.
fn used(disk: &Path) -> u64 {
    let folder = fs::File::open(disk).unwrap();
    rustix::fs::syncfs(&folder).unwrap();
    let stat = rustix::fs::fstatvfs(&folder).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// Bytes inserted in every leaf leave no leaf as it was, so that leaves are of no use: only a patch can
/// make this update small.
#[test]
fn a_patch_makes_what_no_leaf_could() {
    let mut world = World::with_patches(2);
    let install = world.installed();
    let strewn = |bytes: &mut Vec<u8>| {
        // Three in every leaf.
        let places = (0..bytes.len()).step_by(5000).rev();
        places.for_each(|at| bytes.insert(at, 5));
    };
    world.edit("a.pak", strewn);
    world.edit("b.pak", strewn);
    world.publish("1.1");
    let (report, plan) = world.bring(&install);
    let number = |key: &str| plan[key].as_u64().unwrap();
    assert_eq!((number("fetch_bytes"), number("patched_bytes") > 2 * BIG), (0, true), "{plan}");
    assert!(number("patch_bytes") < BIG / 50, "{plan}");
    let fetched = report.peers + report.http - report.wasted;
    assert!(fetched < BIG / 40, "{report:?} {plan}");
    // The origin learns of a patch when it is asked for it: that is no reason to take it over HTTP.
    assert_eq!(report.http, 0, "{report:?}");
}

/// The torrent of a new release comes as the difference to the old one's: of a thousand files it lists all
/// but says only what is new. With that difference damaged it comes whole.
#[test]
fn the_torrent_of_an_update_comes_as_a_difference() {
    let mut world = World::new();
    for file in 0..1000 {
        let path = world.build.join(format!("many/{file}"));
        content::write_file(&path, file, 100 + file);
    }
    world.publish("1.1");
    let install = world.installed();
    let metadata = |world: &mut World, version: &str, damage: bool| {
        world.edit("many/500", |bytes| bytes[0] = bytes[0].wrapping_add(1));
        world.publish(version);
        let deltas = fs::read_dir(world.product.repository().join("deltas")).unwrap();
        for delta in deltas.filter(|_| damage) {
            edit(&delta.unwrap().path(), |bytes| bytes[20] ^= 1);
        }
        let (_, plan) = world.bring(&install);
        plan["metadata_bytes"].as_u64().unwrap()
    };
    let little = metadata(&mut world, "1.2", false);
    assert!(little < 8 << 10, "{little} bytes of documents");
    let whole = metadata(&mut world, "1.3", true);
    assert!(whole > 100 << 10, "{whole} bytes of documents");
}

/// A patch whose old file the player changed makes the other file; this one is made of its leaves.
#[test]
fn a_changed_old_file_costs_a_patch_only_what_needs_it() {
    let mut world = World::with_patches(2);
    let install = world.installed();
    edit(&install.dir.join("a.pak"), |bytes| bytes[2_000_000..2_000_100].fill(9));
    world.edit("a.pak", |bytes| bytes[10] ^= 1);
    world.edit("b.pak", |bytes| bytes[10] ^= 1);
    world.publish("1.1");
    let (_, plan) = world.bring(&install);
    assert_eq!(plan["patched_bytes"].as_u64(), Some(BIG), "{plan}");
    let fetched = plan["fetch_bytes"].as_u64().unwrap();
    assert!((1..=3 * LEAF).contains(&fetched), "{plan}");
}

/// Of a patch with much new content only the group is fetched that makes the file that can be made.
#[test]
fn of_a_large_patch_only_what_is_needed_is_fetched() {
    let mut world = World::with_patches(2);
    let install = world.installed();
    edit(&install.dir.join("a.pak"), |bytes| bytes[3_500_000] ^= 1);
    let renew = |seed| {
        let new = content::noise(seed, 2_500_000);
        move |bytes: &mut Vec<u8>| bytes[500_000..3_000_000].copy_from_slice(&new)
    };
    world.edit("a.pak", renew(77));
    world.edit("b.pak", renew(78));
    world.publish("1.1");
    let (report, plan) = world.bring(&install);
    let number = |key: &str| plan[key].as_u64().unwrap();
    assert_eq!(number("patched_bytes"), BIG, "{plan}");
    let bytes = number("patch_bytes");
    assert!((2_500_000..2_600_000).contains(&bytes), "{plan}");
    // The group of `b.pak`, at most a piece more on either side, and what is new in `a.pak`.
    let fetched = report.peers + report.http - report.wasted;
    assert!(fetched < bytes + number("fetch_bytes") + (1 << 20), "{report:?} {plan}");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
