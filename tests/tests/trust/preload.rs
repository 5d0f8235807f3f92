//! A release that is fetched before it is offered.

use super::World;
use std::fs;
use updraft_tests::content;
use updraft_tests::ours::{Install, STATE_FOLDER, TRANSFER_WAIT, wait_complete};

impl World {
    fn announce(&self, version: &str, seed: u64) {
        let path = self.build.join("game.bin");
        let before = fs::read(&path).expect("it is there");
        content::write_file(&path, seed, 40_000);
        let build = self.build.to_str().expect("it is text");
        let publish = ["publish", build, "--version", version, "--channel", "stable", "--preload"];
        self.publisher(&publish).finish(TRANSFER_WAIT);
        // What is current is still the build before.
        fs::write(path, before).expect("it can be written");
    }

    fn content_requests(&self) -> u64 {
        self.web.count("objects/").0 + self.web.count("packs/").0
    }
}

#[test]
fn an_announced_release_is_fetched_ahead_and_switched_to_at_once() {
    let world = World::new();
    let anna = world.install("anna");
    world.announce("2.0", 2);
    let mut ahead = anna.update(false);
    ahead.finish(TRANSFER_WAIT);
    assert!(ahead.text().contains("\"event\":\"preloaded\""), "{}", ahead.text());
    world.assert_newest(&anna);
    assert_eq!(pending(&anna), Some("2.0".to_owned()));
    // Who comes now gets what is current, and then what is announced.
    let ben = world.install("ben");
    world.assert_newest(&ben);
    let fetched = world.content_requests();
    anna.update(false).finish(TRANSFER_WAIT);
    assert_eq!(world.content_requests(), fetched, "it is here already");

    world.publisher(&["release", "2.0", "--channel", "stable"]).finish(TRANSFER_WAIT);
    content::write_file(&world.build.join("game.bin"), 2, 40_000);
    for player in [&anna, &ben] {
        let update = player.update(false);
        let report = wait_complete(&update, TRANSFER_WAIT);
        assert_eq!((report.http, report.peers), (0, 0), "all of it came before");
        let mut update = update;
        update.finish(TRANSFER_WAIT);
        world.assert_newest(player);
    }
    assert_eq!(world.content_requests(), fetched);
    world.publisher(&["verify"]).finish(TRANSFER_WAIT);
}

/// Whoever has it hands it on, so the publisher's server need not send it to everybody.
#[test]
fn what_is_announced_comes_from_other_players_too() {
    let world = World::new();
    let (anna, mut ben) = (world.install("anna"), world.install("ben"));
    world.announce("2.0", 2);
    let seeding = anna.seed();
    let addr = seeding.wait_json("where it listens", TRANSFER_WAIT, |event| {
        let addr = event["addresses"][0].as_str()?.to_owned();
        (event["event"] == "listening").then_some(addr)
    });
    let is_here = |event: &serde_json::Value| (event["event"] == "preloaded").then_some(());
    seeding.wait_json("what is announced", TRANSFER_WAIT, is_here);
    let objects = world.product.repository().join("objects");
    fs::rename(&objects, world.dir.path().join("away")).expect("it can be moved");
    ben.flags = vec!["--peer".to_owned(), addr];
    let mut ahead = ben.update(false);
    ahead.finish(TRANSFER_WAIT);
    ahead.wait_json("what is announced", TRANSFER_WAIT, is_here);
    assert_eq!(pending(&ben), Some("2.0".to_owned()));
}

/// What `status` says is fetched ahead.
fn pending(install: &Install) -> Option<String> {
    let mut status = install.ask("status");
    status.finish(TRANSFER_WAIT);
    status.json().iter().find_map(|event| Some(event["ahead"].as_str()?.to_owned()))
}

#[test]
fn a_hotfix_overtakes_what_was_announced() {
    let world = World::new();
    let anna = world.install("anna");
    world.announce("2.0", 2);
    anna.update(false).finish(TRANSFER_WAIT);
    let staging = anna.dir.join(STATE_FOLDER).join("staging");
    let staged = || fs::read_dir(&staging).expect("it is there").count();
    assert_eq!(staged(), 1);
    world.publish("1.1", 3);
    anna.update(false).finish(TRANSFER_WAIT);
    world.assert_newest(&anna);
    assert_eq!((staged(), pending(&anna)), (0, None), "it is dropped");
    // It was not believed to be newer than the hotfix, so it can be announced again.
    world.announce("2.0", 2);
    anna.update(false).finish(TRANSFER_WAIT);
    world.publisher(&["release", "2.0", "--channel", "stable"]).finish(TRANSFER_WAIT);
    anna.update(false).finish(TRANSFER_WAIT);
    content::write_file(&world.build.join("game.bin"), 2, 40_000);
    world.assert_newest(&anna);
}
