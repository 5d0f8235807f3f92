//! `fetch --only` and `--first`: some files of a torrent, and some before others, with real processes.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};

use updraft_tests::clients::{Client, Libtorrent, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    self, FETCH_FOLDER, Place, READY_WAIT, Report, TRANSFER_WAIT, wait_complete,
};
use updraft_tests::process::Proc;

/// Files of a torrent whose pieces do not end with them: path, bytes.
const FILES: [(&str, u64); 5] = [
    ("bin/game.exe", 1_500_000),
    ("data/levels.pak", 3_000_000),
    ("data/music/theme.ogg", 2_000_000),
    ("extras/artbook.pdf", 2_500_000),
    ("readme.txt", 1000),
];

/// A seed of such a torrent, and a place for its only leecher.
struct World {
    lab: Lab,
    torrent: PathBuf,
    seed_node: Node,
    _seed: Proc,
    node: Node,
    into: PathBuf,
}

impl World {
    fn new(rate: &str) -> Self {
        let lab = Lab::new();
        for ((path, bytes), seed) in FILES.iter().zip(1..) {
            content::write_file(&lab.path("source/game").join(path), seed, *bytes);
        }
        let torrent = lab.path("game.torrent");
        // v1, so that neighbours share pieces.
        ours::create_torrent(&lab.path("source/game"), &torrent, "v1", &[]);
        let (seed_node, node) = (lab.slow_node(rate), lab.node());
        let listen = seed_node.addr(PEER_PORT);
        let seed = ours::seed(&Place::from(&seed_node), &torrent, &lab.path("source"), listen);
        ours::wait_seeding(&seed, READY_WAIT);
        let into = lab.folder("into");
        Self { lab, torrent, seed_node, _seed: seed, node, into }
    }

    fn fetch(&self, flags: &[&str]) -> Proc {
        let (listen, peer) = (self.node.addr(PEER_PORT), self.seed_node.addr(PEER_PORT));
        let place = Place::from(&self.node);
        ours::fetch_with(&place, &self.torrent, &self.into, listen, &[peer], flags)
    }

    fn run(&self, flags: &[&str]) -> Report {
        let mut proc = self.fetch(flags);
        let report = wait_complete(&proc, TRANSFER_WAIT);
        proc.finish(READY_WAIT);
        report
    }

    /// These files are there as in the source, and no others.
    fn assert_there(&self, paths: &[&str]) {
        for (path, _) in FILES {
            let found = fs::read(self.into.join("game").join(path)).ok();
            let expected = fs::read(self.lab.path("source/game").join(path)).ok();
            assert!(found == expected.filter(|_| paths.contains(&path)), "{path}");
        }
    }
}

/// Files that a link selects (BEP 53) are the same ones to libtorrent and to us.
#[test]
fn a_link_selects_files() {
    let world = World::new("1gbit");
    let hybrid = world.lab.path("hybrid.torrent");
    ours::create_torrent(&world.lab.path("source/game"), &hybrid, "hybrid", &[]);
    let seed_node = world.lab.node();
    let listen = seed_node.addr(PEER_PORT);
    // A publisher's seed would show libtorrent one piece after the other, wanted or not.
    let (seeds, whole) = (["--no-lan", "--no-dht", "--stay"], world.lab.path("source"));
    let seed_place = Place::from(&seed_node);
    let seed = ours::fetch_with(&seed_place, &hybrid, &whole, listen, &[], &seeds);
    seed.wait_json("seeding", READY_WAIT, |event| (event["event"] == "seeding").then_some(()));
    // Every file ends within a piece, so each is followed by padding, which has a number as well.
    let link = format!("{}&so=2,8", ours::magnet(&hybrid));
    let place = Place::from(&world.node);
    let own = world.node.addr(PEER_PORT);
    let flags = ["--no-lan", "--no-dht"];
    ours::fetch_with(&place, Path::new(&link), &world.into, own, &[listen], &flags)
        .finish(TRANSFER_WAIT);
    world.assert_there(&["data/levels.pak", "readme.txt"]);
    let mut theirs = Libtorrent::start(&world.lab.node());
    let into = world.lab.folder("theirs");
    theirs.add_magnet(&link, &into, &[listen]);
    theirs.wait_done(Path::new(&link), TRANSFER_WAIT);
    for (path, _) in FILES {
        let found = fs::read(into.join("game").join(path)).ok();
        let ours = fs::read(world.into.join("game").join(path)).ok();
        assert!(found == ours, "{path}");
    }
}

#[test]
fn only_what_was_chosen_is_fetched_and_the_choice_may_change() {
    let world = World::new("200mbit");
    let report = world.run(&["--only", "data/**"]);
    world.assert_there(&["data/levels.pak", "data/music/theme.ogg"]);
    // The two files, and what shares a piece with them.
    assert!(report.peers < 6_000_000, "{report:?}");
    // Another choice: what is there stays, and is not fetched again.
    let report = world.run(&["--only", "bin/*", "--only", "*.txt"]);
    let all_but_extras = ["bin/game.exe", "data/levels.pak", "data/music/theme.ogg", "readme.txt"];
    world.assert_there(&all_but_extras);
    assert!(report.peers < 2_500_000, "{report:?}");
    // Somebody spoils a file that the next choice leaves out, and another that it does not.
    content::damage(&world.into.join("game/bin/game.exe"), 700_000, 10, 3);
    content::damage(&world.into.join("game/data/levels.pak"), 1_500_000, 10, 3);
    let report = world.run(&["--only", "data/levels.pak"]);
    assert!(report.peers > 0 && report.peers < 2_500_000, "{report:?}");
    let found = fs::read(world.into.join("game/data/levels.pak")).expect("it was chosen");
    let expected = fs::read(world.lab.path("source/game/data/levels.pak")).expect("it is ours");
    assert!(found == expected, "the chosen file is right again");
    let report = world.run(&[]);
    assert!(report.peers < 6_000_000, "the rest and what was spoilt: {report:?}");
    content::assert_same(&world.lab.path("source"), &world.into, &[FETCH_FOLDER]);
}

#[test]
fn what_is_to_come_first_comes_first() {
    let world = World::new("20mbit");
    let proc = world.fetch(&["--first", "extras/*", "--first", "bin/*"]);
    proc.wait_json("the files that come first", TRANSFER_WAIT, |event| {
        (event["event"] == "first-ready").then_some(())
    });
    for path in ["extras/artbook.pdf", "bin/game.exe"] {
        let found = fs::read(world.into.join("game").join(path)).expect("it is there");
        let expected = fs::read(world.lab.path("source/game").join(path)).expect("it is ours");
        assert!(found == expected, "{path}");
    }
    // Files share pieces with their neighbours, and a piece more may be under way.
    let events = proc.json();
    let ready = events.iter().position(|event| event["event"] == "first-ready");
    let before = &events[..ready.expect("it was waited for")];
    let done = before.iter().rev().find_map(|event| event["done"].as_u64()).unwrap_or(0);
    assert!(done <= 4_000_000 + (1 << 20), "{done} bytes are there");
    wait_complete(&proc, TRANSFER_WAIT);
    content::assert_same(&world.lab.path("source"), &world.into, &[FETCH_FOLDER]);
}

#[test]
fn a_pattern_that_fits_nothing_says_so() {
    let world = World::new("200mbit");
    for flags in [["--only", "*.pak"], ["--first", "nothing/**"]] {
        let mut proc = world.fetch(&flags);
        let text = proc.fails(READY_WAIT);
        assert!(text.contains("fits no file"), "{text}");
    }
    assert!(!world.into.join("game").exists());
}
