//! Manners: what the player sets is followed at once by a launcher that runs, nothing is uploaded and nothing replaced
//! while the game runs, and what was uploaded is told.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "every line of this file is a test")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use updraft_tests::clients::{Nginx, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    Install, Place, Product, READY_WAIT, STATE_FOLDER, TRANSFER_WAIT, wait_complete,
};
use updraft_tests::process::Proc;

const ORIGIN_PORT: u16 = 8080;
const BYTES: u64 = 4 << 20;
/// Says that it runs, with what, and goes on until it is told to end.
const GAME: &str =
    "#!/bin/sh\necho \"$@\" > started\nuntil [ -e quit ]; do sleep 0.1; done\nexit $(cat quit)\n";

/// A product whose game can be started, somebody who has it, and no origin any more.
struct World {
    lab: Lab,
    product: Product,
    build: PathBuf,
    host: Install,
    host_node: Node,
    documents: Nginx,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new();
        let origin = lab.node();
        let build = content::shared_game(lab.path("build"), 1, BYTES);
        fs::write(build.join("play.sh"), GAME).unwrap();
        content::set_executable(&build.join("play.sh"));
        let listen = origin.addr(ORIGIN_PORT);
        let product = Product::init(&Place::from(&origin), &lab.path("product"), "game", listen);
        let mut publish = product.command("publish");
        publish.arg(&build).args(["--version", "1.0", "--channel", "stable"]);
        publish.args(["--launch", "play.sh"]);
        Proc::start("publish", publish).finish(TRANSFER_WAIT);
        let mut serving = product.serve();
        let host_node = lab.node();
        let any = SocketAddr::from(([0, 0, 0, 0], PEER_PORT));
        let host = Install::new(&Place::from(&host_node), "host", &lab.path("host"), any);
        wait_complete(&host.install(product.feed(), false), TRANSFER_WAIT);
        serving.kill();
        let documents = lab.path("documents");
        content::copy_tree(&product.repository(), &documents);
        for folder in ["objects", "packs"] {
            fs::remove_dir_all(documents.join(folder)).unwrap_or_default();
        }
        let documents = Nginx::start(&lab, &lab.node(), &documents);
        Self { lab, product, build, host, host_node, documents }
    }

    /// Somebody who dials the host, on the same network or from far away. A web server has the documents and no content.
    fn guest(&self, name: &str, far: bool) -> (Install, Proc) {
        let node = self.lab.node();
        let at = |node: &Node| if far { node.wide_addr(PEER_PORT) } else { node.addr(PEER_PORT) };
        let place = Place::from(&node);
        let mut guest = Install::new(&place, name, &self.lab.path(name), at(&node));
        guest.flags = vec!["--peer".to_owned(), at(&self.host_node).to_string()];
        let install = guest.install(self.product.feed_at(&self.documents.url), false);
        (guest, install)
    }

    fn config(&self, setting: &str, value: &str) -> Value {
        let mut config = self.host.config(setting, value);
        config.finish(READY_WAIT);
        config.json().pop().unwrap()
    }

    fn status(&self) -> Value {
        let mut status = self.host.ask("status");
        status.finish(READY_WAIT);
        status.json().pop().unwrap()
    }

    fn assert_installed(&self, install: &Install) {
        content::assert_same(&self.build, &install.dir, &[STATE_FOLDER]);
    }
}

/// Waits until a download is connected and has said a few times more that nothing has come.
fn wait_for_nothing(install: &Proc) {
    let mut said = 0;
    let done = install.wait_json("that it waits", READY_WAIT, |event| {
        let waits = event["event"] == "progress" && event["peers"].as_u64() > Some(0);
        said += u32::from(waits);
        (said > 8).then(|| event["done"].as_u64())
    });
    assert_eq!(done, Some(0), "{}", install.tail());
}

fn wait_warning(proc: &Proc, words: &str) {
    proc.wait_json(words, TRANSFER_WAIT, |event| {
        let told = event["event"] == "warning";
        (told && event["message"].as_str().unwrap().contains(words)).then_some(())
    });
}

/// Waits until the game said that it runs.
fn wait_running(world: &World, run: &Proc) -> String {
    run.wait_json("the start of the game", READY_WAIT, |event| {
        (event["event"] == "running").then_some(())
    });
    let (started, deadline) = (world.host.dir.join("started"), Instant::now() + READY_WAIT);
    loop {
        if let Some(text) = fs::read_to_string(&started).ok().filter(|text| text.ends_with('\n')) {
            return text;
        }
        assert!(Instant::now() < deadline, "the game does not start{}", run.tail());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_uploaded_while_the_game_runs() {
    let world = World::new();
    let sharing = world.host.seed();
    sharing.wait_json("that it shares", READY_WAIT, |event| {
        (event["event"] == "seeding").then_some(())
    });
    let mut run = world.host.run(&["--level", "3"]);
    assert_eq!(wait_running(&world, &run), "--level 3\n");
    wait_warning(&sharing, "nothing is uploaded while the game runs");
    let (guest, install) = world.guest("guest", false);
    wait_for_nothing(&install);
    fs::write(world.host.dir.join("quit"), "0").unwrap();
    run.finish(READY_WAIT);
    wait_complete(&install, TRANSFER_WAIT);
    fs::remove_file(world.host.dir.join("quit")).unwrap();
    world.assert_installed(&guest);
    // One that ends with a failure, and one that is not there to be started.
    fs::write(world.host.dir.join("quit"), "3").unwrap();
    let text = world.host.run(&[]).fails(READY_WAIT);
    assert!(text.contains("ended with a failure"), "{text}");
    fs::remove_file(world.host.dir.join("play.sh")).unwrap();
    let text = world.host.run(&[]).fails(READY_WAIT);
    assert!(text.contains("play.sh"), "{text}");
}

#[test]
fn an_update_is_put_in_place_when_the_game_has_ended() {
    let world = World::new();
    content::next_release(&world.build, 5);
    world.product.publish(&world.build, "2.0");
    let _serving = world.product.serve();
    let mut run = world.host.run(&[]);
    wait_running(&world, &run);
    let update = world.host.update(false);
    wait_warning(&update, "the update is put in place when it has ended");
    assert_eq!(world.status()["version"], "1.0");
    fs::write(world.host.dir.join("quit"), "0").unwrap();
    run.finish(READY_WAIT);
    wait_complete(&update, TRANSFER_WAIT);
    for name in ["quit", "started"] {
        fs::remove_file(world.host.dir.join(name)).unwrap();
    }
    world.assert_installed(&world.host);
}

#[test]
fn what_is_set_is_followed_at_once_and_what_was_uploaded_is_told() {
    let world = World::new();
    assert_eq!(world.status()["upload"], "ask");
    let mut sharing = world.host.seed();
    let (far, install) = world.guest("far", true);
    wait_for_nothing(&install);
    assert_eq!(world.config("upload", "yes")["upload"], true);
    wait_complete(&install, TRANSFER_WAIT);
    world.assert_installed(&far);
    world.config("upload", "no");
    assert_eq!(world.config("lan", "no")["lan"], false);
    sharing.wait_json("that it follows", READY_WAIT, |event| {
        (event["event"] == "uploading" && event["to"] == "nobody").then_some(())
    });
    let (near, install) = world.guest("near", false);
    wait_for_nothing(&install);
    world.config("lan", "yes");
    wait_complete(&install, TRANSFER_WAIT);
    world.assert_installed(&near);
    sharing.interrupt();
    sharing.wait_exit(READY_WAIT);
    let status = world.status();
    let bytes = content::total_bytes(&world.build, &[]);
    for network in ["uploaded_lan_bytes", "uploaded_internet_bytes"] {
        let sent = status[network].as_u64().unwrap();
        // Twins in the release travel once; compressed, less may.
        assert!((bytes / 2..bytes * 3 / 2).contains(&sent), "{network}: {sent} of {bytes}");
    }
    let text = world.host.config("up-limit", "much").fails(READY_WAIT);
    assert!(text.contains("much"), "{text}");
}
