//! Fault campaigns: an update or rollback on a disk that is killed, refused, cut short or loses its
//! power at the n-th change of the disk, for n over all of it and over the recovery after it. The next
//! start ends in the old release or the new one, byte for byte, and the player's own files are as they
//! were. An update in bounded space may stay between the two, and goes on from there.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use updraft_tests::content;
use updraft_tests::disk::{Disk, Fault, Model};
use updraft_tests::hostile::WebServer;
use updraft_tests::ours::{Install, Place, Product, STATE_FOLDER};
use updraft_tests::process::Proc;

/// How long one command may take: milliseconds, but for a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// A product with two releases, and an install of the first on a disk that fails.
struct World {
    install: Install,
    disk: Disk,
    web: WebServer,
    /// What the folder holds with the first release, with the second, with the first again, and with the first
    /// without a component: by [`FIRST`], [`SECOND`], [`BACK`], [`WITHOUT`].
    trees: [PathBuf; 4],
    /// The disk with the first release installed.
    before: Model,
    _dir: tempfile::TempDir,
}

const FIRST: usize = 0;
const SECOND: usize = 1;
const BACK: usize = 2;
const WITHOUT: usize = 3;

/// Settings that the player changes, and a part that can be left out.
const RULES: &str = r#"
[files]
config = ["settings/*"]
[files.components.extra]
files = ["extra/**"]
"#;

/// One way from one tree to another, and what it takes when nothing disturbs it.
struct Journey<'w> {
    world: &'w World,
    start: Model,
    verb: &'static str,
    from: usize,
    to: usize,
    /// Whether it may stop between the two.
    halfway: bool,
    /// Changes of the disk.
    changes: u64,
    /// Bytes of content fetched.
    fetched: u64,
}

/// Everything that an update can do to a file, in a few small ones.
fn releases(first: &Path, second: &Path) {
    let write = |dir: &Path, name: &str, seed: u64, len: u64| {
        content::write_file(&dir.join(name), seed, len);
    };
    for (name, seed, len) in [
        ("stays.bin", 1, 30_000),
        ("data/changed.pak", 2, 90_000),
        ("data/moved.pak", 3, 20_000),
        ("data/gone.pak", 4, 5_000),
        ("case/name.txt", 5, 900),
        ("turns/into-a-folder", 6, 3_000),
        ("folder/turns/file", 7, 3_000),
        ("swap/a", 8, 2_000),
        ("swap/b", 9, 2_500),
        ("tool", 10, 1_000),
        ("settings/kept.ini", 16, 800),
        ("settings/same.ini", 17, 800),
        ("extra/deep/part.pak", 18, 40_000),
        ("extra/small", 19, 500),
    ] {
        write(first, name, seed, len);
        write(second, name, seed, len);
    }
    fs::create_dir_all(first.join("empty/old")).expect("it can be made");
    fs::create_dir_all(second.join("empty/new")).expect("it can be made");
    let at = |name: &str| second.join(name);
    content::damage(&at("data/changed.pak"), 40_000, 700, 11);
    content::damage(&at("settings/kept.ini"), 300, 20, 20);
    content::damage(&at("settings/same.ini"), 300, 20, 21);
    let rename = |from: &str, to: &str| {
        fs::create_dir_all(at(to).parent().expect("below")).expect("it can be made");
        fs::rename(at(from), at(to)).expect("it can be moved");
    };
    rename("data/moved.pak", "elsewhere/moved.pak");
    fs::copy(at("stays.bin"), at("twin.bin")).expect("it can be copied");
    fs::remove_file(at("data/gone.pak")).expect("it is there");
    rename("case/name.txt", "case/Name.txt");
    rename("turns/into-a-folder", "turns/aside");
    rename("turns/aside", "turns/into-a-folder/file");
    fs::remove_dir_all(at("folder/turns")).expect("it is there");
    write(second, "folder/turns", 12, 4_000);
    rename("swap/a", "swap/c");
    rename("swap/b", "swap/a");
    rename("swap/c", "swap/b");
    content::set_executable(&at("tool"));
    write(second, "added.bin", 13, 50_000);
    content::set_executable(&at("added.bin"));
    write(second, "in-the-way", 14, 1_500);
    write(second, "nothing", 15, 0);
    std::os::unix::fs::symlink("stays.bin", at("link")).expect("a link can be made");
}

impl World {
    /// `releases` makes both in the folders given.
    fn new(releases: fn(&Path, &Path)) -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).expect("a folder can be made");
            path
        };
        let trees = [path("first"), path("second"), path("back"), path("without")];
        releases(&trees[FIRST], &trees[SECOND]);
        content::copy_tree(&trees[FIRST], &trees[BACK]);
        let here = Place::Here;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any).expect("a port is free");
        let addr = listener.local_addr().expect("it listens");
        let product = Product::init(&here, &path("product"), "game", addr);
        let text = fs::read_to_string(product.config()).expect("it can be read");
        fs::write(product.config(), text + RULES).expect("it can be written");
        let web = WebServer::on(listener, &product.repository(), |_, _| None);
        let disk = Disk::mount(&path("disk"));
        let install = Install::new(&here, "anna", &disk.path().join("game"), any);
        product.start_publish(&trees[FIRST], "1.0").finish(PATIENCE);
        install.install(product.feed(), false).finish(PATIENCE);
        product.start_publish(&trees[SECOND], "2.0").finish(PATIENCE);
        // The player's own, one of it where the second release has a file.
        for (name, seed) in [("saves/slot1", 21), ("in-the-way", 22)] {
            content::write_file(&install.dir.join(name), seed, 700);
            content::write_file(&trees[FIRST].join(name), seed, 700);
        }
        for tree in [&trees[SECOND], &trees[BACK]] {
            content::write_file(&tree.join("saves/slot1"), 21, 700);
            content::write_file(&tree.join("in-the-way.player"), 22, 700);
        }
        let settings = "settings/kept.ini";
        if trees[FIRST].join(settings).exists() {
            let new = format!("{settings}.new");
            fs::copy(trees[SECOND].join(settings), trees[SECOND].join(new)).expect("a copy");
            for dir in trees[..WITHOUT].iter().chain([&install.dir]) {
                fs::write(dir.join(settings), "the player's").expect("it can be written");
            }
        }
        content::copy_tree(&trees[FIRST], &trees[WITHOUT]);
        if trees[WITHOUT].join("extra").exists() {
            fs::remove_dir_all(trees[WITHOUT].join("extra")).expect("it is there");
        }
        let before = disk.image();
        Self { install, disk, web, trees, before, _dir: dir }
    }

    /// Runs a command to its end, whatever that is.
    fn run(&self, verb: &str, fault: Option<(u64, Fault)>) -> Proc {
        self.disk.arm(fault);
        let mut proc = match verb {
            "update" => self.install.update(false),
            "rollback" => self.install.rollback(),
            "remove" => self.install.components("remove", &["extra"]),
            verb => self.install.ask(verb),
        };
        self.disk.watch(&proc);
        let exit = proc.wait_exit(PATIENCE);
        assert_ne!(exit.code, Some(101), "it panicked{}", proc.tail());
        proc
    }

    fn is(&self, tree: usize) -> Result<(), String> {
        content::compare(&self.trees[tree], &self.install.dir, &[STATE_FOLDER])
    }

    fn assert_is(&self, tree: usize, what: &str) {
        if let Err(why) = self.is(tree) {
            panic!("{what}: the folder is not what it should be: {why}");
        }
    }

    /// Bytes of content that the web server has sent.
    fn sent(&self) -> u64 {
        self.web.count("objects/").1
    }

    /// The update from the first release to the second.
    fn update(&self) -> Journey<'_> {
        Journey::new(self, self.before.clone(), "update", [FIRST, SECOND])
    }

    /// From the first release to the same without a component.
    fn removal(&self) -> Journey<'_> {
        Journey::new(self, self.before.clone(), "remove", [FIRST, WITHOUT])
    }

    /// The way back from there.
    fn rollback(&self) -> Journey<'_> {
        self.disk.restore(&self.before);
        self.run("update", None).finish(PATIENCE);
        Journey::new(self, self.disk.image(), "rollback", [SECOND, BACK])
    }
}

impl<'w> Journey<'w> {
    fn new(world: &'w World, start: Model, verb: &'static str, [from, to]: [usize; 2]) -> Self {
        let halfway = world.install.flags.iter().any(|flag| flag == "--bounded-space");
        let mut journey = Self { world, start, verb, from, to, halfway, changes: 0, fetched: 0 };
        let sent = world.sent();
        journey.begin();
        world.run(verb, None).finish(PATIENCE);
        world.assert_is(to, "undisturbed");
        (journey.changes, journey.fetched) = (world.disk.changes(), world.sent() - sent);
        journey
    }

    fn begin(&self) {
        self.world.disk.restore(&self.start);
    }

    /// Begins anew, up to a fault.
    fn run_into(&self, at: u64, fault: Fault) -> Proc {
        self.begin();
        self.world.run(self.verb, Some((at, fault)))
    }

    /// Starts the launcher again, undisturbed and without a network: afterwards the folder is one of
    /// the two trees. Then goes on to the end.
    fn assert_recovers(&self, what: &str) {
        let world = self.world;
        let mut verify = world.run("verify", None);
        let text = verify.text();
        let exit = verify.wait_exit(PATIENCE);
        let (old, new) = (world.is(self.from), world.is(self.to));
        if !(self.halfway && text.contains("half done")) {
            assert!(exit.success(), "{what}: verify says {:?}: {text}", exit.code);
            if let (Err(old), Err(new)) = (&old, &new) {
                panic!("{what}: neither the old tree: {old}; nor the new one: {new}; {text}");
            }
        }
        let sent = world.sent();
        // A second rollback would go forward again.
        if new.is_err() || self.verb == "update" {
            world.run(self.verb, None).finish(PATIENCE);
        }
        world.assert_is(self.to, what);
        // What is done is done, whatever happens to the power now.
        world.disk.cut(0);
        world.assert_is(self.to, &format!("{what}, and the power cut at the end"));
        let (sent, most) = (world.sent() - sent, if new.is_ok() { 0 } else { self.fetched });
        // In bounded space a patch serves one run; the next one makes do without.
        assert!(sent <= most || self.halfway, "{what}: {sent} bytes fetched again, of {most}");
    }
}

/// `count` numbers below `end`, spread evenly; all of them if there are fewer.
fn spread(end: u64, count: u64) -> impl Iterator<Item = u64> {
    let count = count.min(end);
    (0..count).map(move |at| at * end / count)
}

/// kill -9 at `instants` changes.
fn check_kills(journey: &Journey<'_>, instants: u64) {
    for at in spread(journey.changes, instants) {
        journey.run_into(at, Fault::Kill);
        journey.assert_recovers(&format!("{} killed at change {at}", journey.verb));
    }
}

/// The same, and with the process goes the power: what was not synced is gone, or half of it.
fn check_power_cuts(journey: &Journey<'_>, instants: u64, ways: u64) {
    for at in spread(journey.changes, instants) {
        for way in 0..ways {
            // The four corners, then chance.
            let seed = if way < 4 { (at + way) % 4 } else { 4 + at * ways + way };
            journey.run_into(at, Fault::Kill);
            journey.world.disk.cut(seed);
            let what = format!("{}: power cut at change {at}, seed {seed}", journey.verb);
            journey.assert_recovers(&what);
        }
    }
}

/// A disk that is full from the n-th change on, or refuses or shortens one; `first` says what it does
/// at the first instant.
fn check_refusals(journey: &Journey<'_>, instants: u64, first: usize) {
    let faults = [
        Fault::RefuseAll(Errno::NOSPC.raw_os_error()),
        Fault::Refuse(Errno::NOSPC.raw_os_error()),
        Fault::Refuse(Errno::IO.raw_os_error()),
        Fault::Short,
    ];
    for (at, fault) in spread(journey.changes, instants).zip(faults.iter().cycle().skip(first)) {
        let mut proc = journey.run_into(at, *fault);
        let exit = proc.wait_exit(PATIENCE);
        let what = format!("{}: {fault:?} at change {at}", journey.verb);
        if exit.success() {
            journey.world.assert_is(journey.to, &what);
        } else {
            let said = proc.json().iter().any(|event| event["event"] == "error");
            assert!(said, "{what}: it ends with {:?} and no word{}", exit.code, proc.tail());
        }
        journey.assert_recovers(&what);
    }
}

/// Kills at `instants` places, then the recovery again and again, each time a change later, with power
/// cuts in between, until one runs through.
fn check_recovery(journey: &Journey<'_>, instants: u64) {
    for at in spread(journey.changes, instants) {
        journey.run_into(at, Fault::Kill);
        for step in 0.. {
            assert!(step < 10 * journey.changes, "it never ends");
            journey.world.run("verify", Some((step, Fault::Kill)));
            if !journey.world.disk.happened() {
                break;
            }
            journey.world.disk.cut(at * 1000 + step);
        }
        let what = format!("{} killed at change {at} and in every recovery", journey.verb);
        journey.assert_recovers(&what);
    }
}

#[test]
fn an_update_can_be_killed_at_any_change() {
    check_kills(&World::new(releases).update(), 60);
}

#[test]
fn a_rollback_can_be_killed_at_any_change() {
    check_kills(&World::new(releases).rollback(), 30);
}

#[test]
fn a_component_can_be_removed_whatever_happens() {
    let world = World::new(releases);
    let journey = world.removal();
    assert_eq!(journey.fetched, 0);
    check_kills(&journey, 30);
    check_power_cuts(&journey, 15, 2);
    check_refusals(&journey, 20, 0);
}

#[test]
fn the_power_can_fail_at_any_change() {
    let world = World::new(releases);
    check_power_cuts(&world.update(), 40, 2);
    check_power_cuts(&world.rollback(), 15, 2);
}

#[test]
fn a_refused_change_loses_nothing() {
    let world = World::new(releases);
    check_refusals(&world.update(), 60, 0);
    check_refusals(&world.rollback(), 20, 1);
}

#[test]
fn recovery_can_be_interrupted_again_and_again() {
    check_recovery(&World::new(releases).update(), 4);
}

#[test]
fn going_back_fetches_nothing_and_holds_updates_back() {
    let world = World::new(releases);
    world.disk.restore(&world.before);
    // There is nothing to go back to yet.
    let said = world.run("rollback", None).text();
    assert!(said.contains("no earlier release"), "{said}");
    let back = world.rollback();
    assert_eq!(back.fetched, 0);
    let said = world.run("update", None).text();
    assert!(said.contains("you went back"), "{said}");
    world.assert_is(BACK, "held");
    let said = world.run("status", None).text();
    assert!(said.contains("\"kept\":\"2.0\""), "{said}");
    // Forward again, by the files that are kept now.
    let sent = world.sent();
    world.run("rollback", None).finish(PATIENCE);
    world.assert_is(SECOND, "forward again");
    assert_eq!(world.sent(), sent);
}

#[test]
fn a_held_release_comes_when_asked_for() {
    let mut world = World::new(releases);
    let _ = world.rollback();
    world.install.flags.push("--force".to_owned());
    let sent = world.sent();
    world.run("update", None).finish(PATIENCE);
    world.assert_is(SECOND, "forced");
    assert_eq!(world.sent(), sent, "what is kept is used");
}

/// Files of 1 MiB, all of them changed, each made out of another one too.
fn large_releases(first: &Path, second: &Path) {
    const LEN: u64 = 1 << 20;
    for number in 0..LARGE_FILES {
        let name = format!("data/{number}.pak");
        content::write_file(&first.join(&name), number, LEN);
        content::write_file(&second.join(&name), number, LEN);
        content::damage(&second.join(&name), 100_000, 2_000, 50 + number);
    }
    let at = |name: &str| second.join("data").join(name);
    // A ring of content: 0 -> 1 -> 2 -> 0, and one that moves, and one that is new.
    fs::rename(at("0.pak"), at("x")).expect("it is there");
    fs::rename(at("2.pak"), at("0.pak")).expect("it is there");
    fs::rename(at("1.pak"), at("2.pak")).expect("it is there");
    fs::rename(at("x"), at("1.pak")).expect("it is there");
    content::write_file(&second.join("in-the-way"), 99, 3_000);
    fs::rename(at("5.pak"), at("moved.pak")).expect("it is there");
}

const LARGE_FILES: u64 = 16;

/// A disk that has room for one of the large files more, and one per cent of the install.
fn cramped() -> World {
    let mut world = World::new(large_releases);
    world.disk.restore(&world.before);
    let said = {
        let room = (1 << 20) + (LARGE_FILES << 20) / 100;
        world.disk.set_capacity(Some(world.disk.used() + room));
        world.run("update", None).text()
    };
    assert!(said.contains("--bounded-space"), "{said}");
    world.assert_is(FIRST, "without room");
    world.install.flags.push("--bounded-space".to_owned());
    world
}

#[test]
fn what_has_no_room_for_one_file_is_not_offered_batch_by_batch() {
    let world = World::new(large_releases);
    world.disk.restore(&world.before);
    world.disk.set_capacity(Some(world.disk.used() + (600 << 10)));
    let said = world.run("update", None).text();
    assert!(said.contains("not enough space") && !said.contains("--bounded-space"), "{said}");
    world.assert_is(FIRST, "without room");
}

#[test]
fn an_update_in_bounded_space_needs_room_for_one_file() {
    let world = cramped();
    let said = {
        world.disk.restore(&world.before);
        let mut proc = world.run("update", None);
        proc.finish(PATIENCE);
        proc.json()
    };
    world.assert_is(SECOND, "in bounded space");
    let told = said.iter().find(|event| event["event"] == "bounded").expect("it is said before");
    assert!(told["batches"].as_u64() > Some(8), "{told}");
}

#[test]
fn an_update_in_bounded_space_can_be_killed_at_any_change() {
    let world = cramped();
    let journey = world.update();
    check_kills(&journey, 12);
    check_power_cuts(&journey, 6, 2);
}

/// Ten thousand kills and more, with the next tests.
#[test]
#[ignore = "minutes"]
fn every_change_can_be_the_last() {
    let world = World::new(releases);
    for journey in [world.update(), world.rollback(), world.removal()] {
        check_kills(&journey, u64::MAX);
        check_recovery(&journey, 40);
    }
}

#[test]
#[ignore = "minutes"]
fn the_power_can_fail_at_every_change() {
    let world = World::new(releases);
    for journey in [world.update(), world.rollback(), world.removal()] {
        check_power_cuts(&journey, u64::MAX, 20);
    }
}

#[test]
#[ignore = "minutes"]
fn every_change_can_be_refused() {
    let world = World::new(releases);
    for journey in [world.update(), world.rollback(), world.removal()] {
        (0..4).for_each(|first| check_refusals(&journey, u64::MAX, first));
    }
}

#[test]
#[ignore = "minutes"]
fn every_change_in_bounded_space_can_be_the_last() {
    let world = cramped();
    let journey = world.update();
    check_kills(&journey, 500);
    check_power_cuts(&journey, 250, 4);
}
