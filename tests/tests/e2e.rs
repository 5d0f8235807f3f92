//! The main job with real processes: publish, install, update, seed, and whatever can interrupt it.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use updraft_tests::clients::{Nginx, PEER_PORT, until};
use updraft_tests::content::{self, Noise};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    self, FETCH_FOLDER, Install, Place, Product, READY_WAIT, STATE_FOLDER, TRANSFER_WAIT, progress,
    wait_complete, wait_progress,
};
use updraft_tests::process::Proc;

/// The port of the origin's web server and tracker.
const ORIGIN_PORT: u16 = 8080;
/// The size of the builds.
const BYTES: u64 = 16 << 20;
/// What one piece and its request may waste when a process is killed.
const LOST_BYTES_PER_KILL: u64 = 3 << 20;

/// A lab with an origin, a build, and installs.
struct World {
    lab: Lab,
    origin: Node,
    product: Product,
    build: PathBuf,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new();
        let origin = lab.node();
        Self::with_origin(lab, origin)
    }

    fn with_origin(lab: Lab, origin: Node) -> Self {
        let listen = origin.addr(ORIGIN_PORT);
        Self::listening(lab, origin, listen)
    }

    fn listening(lab: Lab, origin: Node, listen: SocketAddr) -> Self {
        let build = lab.path("build");
        content::game(&build, 1, BYTES);
        let product = Product::init(&Place::from(&origin), &lab.path("product"), "game", listen);
        product.publish(&build, "1.0");
        Self { lab, origin, product, build }
    }

    fn install(&self, name: &str) -> Install {
        self.install_on(&self.lab.node(), name, PEER_PORT)
    }

    fn install_on(&self, node: &Node, name: &str, port: u16) -> Install {
        Install::new(&Place::from(node), name, &self.lab.path(name), node.addr(port))
    }

    /// Changes the build and publishes it.
    fn publish_next(&self, version: &str, seed: u64) {
        content::next_release(&self.build, seed);
        self.product.publish(&self.build, version);
    }

    fn assert_installed(&self, install: &Install) {
        content::assert_same(&self.build, &install.dir, &[STATE_FOLDER]);
    }

    fn bytes(&self) -> u64 {
        content::total_bytes(&self.build, &[])
    }
}

#[test]
fn three_install_at_once_and_update() {
    let world = World::new();
    let origin = world.product.serve();
    let installs = ["anna", "ben", "cleo"].map(|name| world.install(name));
    let feed = world.product.feed();
    let running = installs.each_ref().map(|install| install.install(&feed, true));
    for (install, proc) in installs.iter().zip(&running) {
        let report = wait_complete(proc, TRANSFER_WAIT);
        world.assert_installed(install);
        assert!(report.http <= world.bytes() / 20, "HTTP should be nearly unused: {report:?}");
        assert!(report.peers + report.http >= world.bytes() / 2, "{report:?}");
    }
    for mut proc in running {
        proc.interrupt();
        proc.wait_exit(READY_WAIT);
    }
    drop(origin);
    world.publish_next("1.1", 7);
    let _origin = world.product.serve();
    let running = installs.each_ref().map(|install| install.update(true));
    for (install, proc) in installs.iter().zip(&running) {
        let report = wait_complete(proc, TRANSFER_WAIT);
        world.assert_installed(install);
        assert!(report.reused > world.bytes() * 2 / 5, "unchanged files stay: {report:?}");
    }
}

#[test]
fn an_origin_of_plain_files_is_enough() {
    let world = World::new();
    let web = world.lab.node();
    let nginx = Nginx::start(&world.lab, &web, &world.product.repository());
    let feed = world.product.feed_at(&nginx.url);
    let install = world.install("anna");
    let mut proc = install.install(&feed, false);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    assert_eq!(report.peers, 0, "there is no peer");
    world.assert_installed(&install);
    world.publish_next("1.1", 8);
    let mut proc = install.update(false);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    world.assert_installed(&install);
    assert!(report.http < world.bytes(), "an update fetches what changed: {report:?}");
    let log = nginx.access_log();
    assert!(!log.contains("\" 500 ") && log.contains("/head.toml"), "{log}");
    // Nothing new: nothing fetched.
    let mut proc = install.update(false);
    proc.finish(READY_WAIT);
    world.assert_installed(&install);
}

#[test]
fn the_origin_may_go_once_one_copy_is_out() {
    let lab = Lab::new();
    let slow = lab.slow_node("100mbit");
    let world = World::with_origin(lab, slow);
    let mut origin = world.product.serve();
    let feed = world.product.feed();
    let first = world.install("anna");
    let anna = first.install(&feed, true);
    wait_complete(&anna, TRANSFER_WAIT);
    let others = ["ben", "cleo"].map(|name| world.install(name));
    let running = others.each_ref().map(|install| install.install(&feed, true));
    for proc in &running {
        proc.wait_json("the swarm", READY_WAIT, |event| {
            let some = event["peers_bytes"].as_u64().unwrap_or(0) > 0;
            (some || event["event"] == "complete").then_some(())
        });
    }
    origin.kill();
    for (install, proc) in others.iter().zip(&running) {
        wait_complete(proc, TRANSFER_WAIT);
        world.assert_installed(install);
    }
    // A newcomer, with the origin gone: documents and bytes come from another launcher.
    let mut late = world.install("dora");
    late.flags = vec!["--peer".into(), first.listen().to_string()];
    let proc = late.install(&feed, false);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    world.assert_installed(&late);
    assert_eq!(report.http, 0, "{report:?}");
}

#[test]
fn news_of_a_release_travels_between_launchers() {
    let world = World::new();
    let mut origin = world.product.serve();
    let feed = world.product.feed();
    let (anna, mut ben) = (world.install("anna"), world.install("ben"));
    for install in [&anna, &ben] {
        let mut proc = install.install(&feed, false);
        wait_complete(&proc, TRANSFER_WAIT);
        proc.finish(READY_WAIT);
    }
    world.publish_next("1.1", 9);
    ours::wait_offered(&origin, "1.1");
    let staying = anna.update(true);
    wait_complete(&staying, TRANSFER_WAIT);
    origin.kill();
    // Head, manifest, torrent and content: all of it from another player, verified as ever.
    ben.flags = vec!["--peer".into(), anna.listen().to_string()];
    let mut proc = ben.update(false);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    world.assert_installed(&ben);
    assert!(report.http == 0 && report.peers > 0, "{report:?}");
}

#[test]
fn a_piece_travels_on_before_the_download_ends() {
    let lab = Lab::new();
    let source = lab.path("source/data.bin");
    content::write_file(&source, 5, BYTES);
    let torrent = lab.path("data.torrent");
    ours::create_torrent(&source, &torrent, "hybrid", &[]);
    let (slow, a, b) = (lab.slow_node("40mbit"), lab.node(), lab.node());
    let seed = ours::seed(&Place::from(&slow), &torrent, &lab.path("source"), slow.addr(PEER_PORT));
    ours::wait_seeding(&seed, READY_WAIT);
    let fetch = |node: &Node, name: &str, peer: &Node| {
        let listen = node.addr(PEER_PORT);
        ours::fetch(
            &Place::from(node),
            &torrent,
            &lab.folder(name),
            listen,
            &[peer.addr(PEER_PORT)],
            true,
        )
    };
    let first = fetch(&a, "a", &slow);
    first.wait_line("\"listening\"", READY_WAIT);
    // It knows the first leech only.
    let second = fetch(&b, "b", &a);
    wait_progress(&second, 1, TRANSFER_WAIT);
    assert!(progress(&first).is_some(), "the second had nothing until the first was complete");
    for proc in [&first, &second] {
        wait_complete(proc, TRANSFER_WAIT);
    }
    content::assert_same(&lab.path("source"), &lab.path("b"), &[FETCH_FOLDER]);
}

/// Kills a job again and again while it makes progress, until one run completes.
fn kill_until_complete(world: &World, install: &Install, run: impl Fn() -> Proc, kills: u64) {
    let mut noise = Noise::new(kills);
    let before = world.origin.bytes_sent();
    let mut done = 0;
    for _ in 0..kills {
        let mut proc = run();
        wait_progress(&proc, done + noise.below(world.bytes() / kills), TRANSFER_WAIT);
        done = progress(&proc).unwrap_or(done);
        proc.kill();
    }
    let mut proc = run();
    proc.finish(TRANSFER_WAIT);
    world.assert_installed(install);
    let sent = world.origin.bytes_sent() - before;
    let most = world.bytes() * 12 / 10 + kills * LOST_BYTES_PER_KILL;
    assert!(sent <= most, "{sent} bytes were sent for {} after {kills} kills", world.bytes());
}

fn kill_install_and_update(kills: u64) {
    let lab = Lab::new();
    let slow = lab.slow_node("100mbit");
    let world = World::with_origin(lab, slow);
    let origin = world.product.serve();
    let install = world.install("anna");
    let feed = world.product.feed();
    kill_until_complete(&world, &install, || install.install(&feed, false), kills);
    drop(origin);
    world.publish_next("1.1", 9);
    let _origin = world.product.serve();
    kill_until_complete(&world, &install, || install.update(false), kills);
    let mut verify = install.ask("verify");
    verify.finish(TRANSFER_WAIT);
}

#[test]
fn a_killed_install_or_update_goes_on() {
    kill_install_and_update(4);
}

#[test]
#[ignore = "long"]
fn an_install_or_update_killed_many_times_goes_on() {
    for _ in 0..3 {
        kill_install_and_update(16);
    }
}

/// Kills `publish` at random moments; a launcher finds the old release or the new one, whole.
fn kill_publish(rounds: u32) {
    let world = World::new();
    let web = world.lab.node();
    let nginx = Nginx::start(&world.lab, &web, &world.product.repository());
    let feed = world.product.feed_at(&nginx.url);
    let old = world.lab.path("old");
    let mut noise = Noise::new(3);
    let mut longest = Duration::from_millis(400);
    for round in 0..rounds {
        content::copy_tree(&world.build, &old);
        content::write_file(&world.build.join("data/round.bin"), u64::from(round), 400_000);
        content::damage(&world.build.join("data/world.pak"), 100_000, 5_000, u64::from(round));
        let mut publish = world.product.start_publish(&world.build, &format!("2.{round}"));
        let millis = u64::try_from(longest.as_millis()).unwrap_or(400);
        let ended = publish.try_wait_exit(Duration::from_millis(noise.below(millis)));
        publish.kill();
        if let Some(exit) = ended {
            assert!(exit.success(), "publish failed by itself{}", publish.tail());
            longest = publish.elapsed();
        }
        // What is offered is whole and signed, whenever it stopped.
        Proc::start("verify", world.product.command("verify")).finish(TRANSFER_WAIT);
        let install = world.install(&format!("check{round}"));
        install.install(&feed, false).finish(TRANSFER_WAIT);
        let new = content::compare(&world.build, &install.dir, &[STATE_FOLDER]);
        let unchanged = content::compare(&old, &install.dir, &[STATE_FOLDER]);
        assert!(new.is_ok() || unchanged.is_ok(), "neither old nor new: {new:?} {unchanged:?}");
        // The next attempt, not killed, succeeds whatever lies around.
        world.product.publish(&world.build, &format!("2.{round}.1"));
        fs::remove_dir_all(&old).expect("the copy can be removed");
    }
    let last = world.install("last");
    last.install(&feed, false).finish(TRANSFER_WAIT);
    world.assert_installed(&last);
}

#[test]
fn a_killed_publish_leaves_the_old_or_the_new_release() {
    kill_publish(4);
}

#[test]
#[ignore = "long"]
fn a_publish_killed_many_times_leaves_the_old_or_the_new_release() {
    kill_publish(60);
}

#[test]
fn ctrl_c_leaves_what_the_next_run_goes_on_from() {
    let lab = Lab::new();
    let slow = lab.slow_node("60mbit");
    let world = World::with_origin(lab, slow);
    let _origin = world.product.serve();
    let install = world.install("anna");
    let feed = world.product.feed();
    let mut proc = install.install(&feed, false);
    wait_progress(&proc, world.bytes() / 3, TRANSFER_WAIT);
    proc.interrupt();
    assert_eq!(proc.wait_exit(READY_WAIT).code, Some(130), "{}", proc.tail());
    let mut proc = install.install(&feed, false);
    let report = wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    world.assert_installed(&install);
    assert!(report.reused >= world.bytes() / 4, "verified bytes are not fetched again: {report:?}");
}

#[test]
fn one_launcher_at_a_time() {
    let world = World::new();
    let _origin = world.product.serve();
    let install = world.install("anna");
    let feed = world.product.feed();
    let first = install.install(&feed, true);
    wait_complete(&first, TRANSFER_WAIT);
    let mut second = install.update(false);
    let text = second.fails(READY_WAIT);
    assert!(text.contains("another launcher"), "{text}");
    assert!(text.contains(&*install.dir.to_string_lossy()), "{text}");
    assert_eq!(second.wait_exit(READY_WAIT).code, Some(5));
    world.assert_installed(&install);
}

#[test]
fn verify_finds_and_repair_fetches_the_damage() {
    let world = World::new();
    let _origin = world.product.serve();
    let install = world.install("anna");
    install.install(world.product.feed(), false).finish(TRANSFER_WAIT);
    install.ask("verify").finish(TRANSFER_WAIT);
    content::damage(&install.dir.join("data/world.pak"), 1_000_000, 10, 1);
    fs::remove_file(install.dir.join("data/levels/level 4.bin")).expect("the level is installed");
    let missing =
        fs::metadata(world.build.join("data/levels/level 4.bin")).expect("it was released").len();
    let mut verify = install.ask("verify");
    assert_eq!(verify.wait_exit(TRANSFER_WAIT).code, Some(4), "{}", verify.tail());
    let events = verify.json();
    let mut damaged: Vec<_> = events.iter().filter(|event| event["event"] == "damaged").collect();
    damaged.sort_by_key(|event| event["path"].to_string());
    let paths: Vec<_> =
        damaged.iter().map(|event| event["path"].as_str().unwrap_or_default()).collect();
    assert_eq!(paths, ["data/levels/level 4.bin", "data/world.pak"]);
    let mut repair = install.repair();
    let report = wait_complete(&repair, TRANSFER_WAIT);
    repair.finish(READY_WAIT);
    world.assert_installed(&install);
    assert!(
        report.peers + report.http <= missing + (2 << 20),
        "only the damage is fetched: {report:?}"
    );
    install.ask("verify").finish(TRANSFER_WAIT);
}

#[test]
fn a_swarm_over_ipv6() {
    let lab = Lab::new();
    let source = lab.path("source/data.bin");
    content::write_file(&source, 6, BYTES);
    let torrent = lab.path("data.torrent");
    ours::create_torrent(&source, &torrent, "v2", &[]);
    let (a, b) = (lab.node(), lab.node());
    let seed = ours::seed(&Place::from(&a), &torrent, &lab.path("source"), a.addr6(PEER_PORT));
    ours::wait_seeding(&seed, READY_WAIT);
    let into = lab.folder("into");
    let listen = b.addr6(PEER_PORT);
    ours::fetch(&Place::from(&b), &torrent, &into, listen, &[a.addr6(PEER_PORT)], false)
        .finish(TRANSFER_WAIT);
    content::assert_same(&lab.path("source"), &into, &[FETCH_FOLDER]);
}

#[test]
fn many_peers_on_one_address() {
    let lab = Lab::new();
    let slow = lab.slow_node("100mbit");
    let world = World::with_origin(lab, slow);
    let mut origin = world.product.serve();
    let home = world.lab.node();
    let feed = world.product.feed();
    let installs = [0u16, 1, 2]
        .map(|index| world.install_on(&home, &format!("flat{index}"), PEER_PORT + index));
    let running = installs.each_ref().map(|install| install.install(&feed, true));
    let reports = running.each_ref().map(|proc| wait_complete(proc, TRANSFER_WAIT));
    for install in &installs {
        world.assert_installed(install);
    }
    // Behind one address they still serve each other: the origin did not send three copies.
    let sent = world.origin.bytes_sent();
    assert!(sent < world.bytes() * 5 / 2, "{sent} bytes left the origin: {reports:?}");
    origin.kill();
}

#[test]
fn limits_hold_towards_the_internet() {
    let lab = Lab::new();
    let source = lab.path("source/data.bin");
    content::write_file(&source, 7, 4 << 20);
    let torrent = lab.path("data.torrent");
    ours::create_torrent(&source, &torrent, "hybrid", &[]);
    let (a, b, c) = (lab.node(), lab.node(), lab.node());
    let seed = ours::seed(&Place::from(&a), &torrent, &lab.path("source"), a.wide_addr(PEER_PORT));
    ours::wait_seeding(&seed, READY_WAIT);
    let fetch = |node: &Node, name: &str, peer: &Node, flags: &[&str]| {
        let into = lab.folder(name);
        let (listen, peer) = (node.wide_addr(PEER_PORT), [peer.wide_addr(PEER_PORT)]);
        ours::fetch_with(&Place::from(node), &torrent, &into, listen, &peer, flags)
    };
    let slow = fetch(
        &b,
        "slow",
        &a,
        &["--down-limit", "1M", "--up-limit", "1M", "--upload", "yes", "--stay"],
    );
    let report = wait_complete(&slow, TRANSFER_WAIT);
    assert!((3.0..8.0).contains(&report.seconds), "4 MiB at 1 MiB/s took {report:?}");
    let next = fetch(&c, "next", &b, &[]);
    let report = wait_complete(&next, TRANSFER_WAIT);
    assert!((3.0..8.0).contains(&report.seconds), "4 MiB at 1 MiB/s took {report:?}");
}

#[test]
fn nothing_is_uploaded_to_the_internet_without_consent() {
    let lab = Lab::new();
    let origin = lab.node();
    let far = origin.wide_addr(ORIGIN_PORT);
    let world = World::listening(lab, origin, far);
    let _origin = world.product.serve();
    let feed = world.product.feed();
    let node = world.lab.node();
    let silent = Install::new(
        &Place::from(&node),
        "silent",
        &world.lab.path("silent"),
        node.wide_addr(PEER_PORT),
    );
    let proc = silent.install(&feed, true);
    wait_complete(&proc, TRANSFER_WAIT);
    let before = node.bytes_sent();
    let other = world.lab.node();
    let mut second = Install::new(
        &Place::from(&other),
        "second",
        &world.lab.path("second"),
        other.wide_addr(PEER_PORT),
    );
    second.flags = vec!["--peer".into(), silent.listen().to_string()];
    second.install(&feed, false).finish(TRANSFER_WAIT);
    world.assert_installed(&second);
    let sent = node.bytes_sent() - before;
    assert!(sent < 1 << 20, "{sent} bytes left a launcher whose player was never asked");
}

/// A dozen launchers and an origin whose line is slow: they feed each other.
#[test]
#[ignore = "long"]
fn a_bigger_swarm_needs_the_origin_little() {
    let lab = Lab::new();
    let slow = lab.slow_node("40mbit");
    let world = World::with_origin(lab, slow);
    let _origin = world.product.serve();
    let feed = world.product.feed();
    let installs: Vec<_> = (0..12)
        .map(|index| {
            let node = world.lab.slow_node("40mbit");
            world.install_on(&node, &format!("player{index}"), PEER_PORT)
        })
        .collect();
    let running: Vec<_> = installs.iter().map(|install| install.install(&feed, true)).collect();
    for (install, proc) in installs.iter().zip(&running) {
        wait_complete(proc, TRANSFER_WAIT);
        world.assert_installed(install);
    }
    let sent = world.origin.bytes_sent();
    assert!(sent < 4 * world.bytes(), "{sent} bytes left the origin for {}", world.bytes());
}

/// A server under many small files keeps few of them open.
#[test]
fn few_files_are_open_at_once() {
    let lab = Lab::new();
    let source = lab.path("source/many");
    for index in 0..600u64 {
        content::write_file(
            &source.join(format!("{}/{index}.bin", index % 7)),
            index,
            20_000 + index,
        );
    }
    let torrent = lab.path("many.torrent");
    ours::create_torrent(&source, &torrent, "hybrid", &[]);
    let (a, b) = (lab.slow_node("60mbit"), lab.node());
    let seed = ours::seed(&Place::from(&a), &torrent, &lab.path("source"), a.addr(PEER_PORT));
    ours::wait_seeding(&seed, READY_WAIT);
    let into = lab.folder("into");
    let mut fetch = ours::fetch(
        &Place::from(&b),
        &torrent,
        &into,
        b.addr(PEER_PORT),
        &[a.addr(PEER_PORT)],
        true,
    );
    let mut most = 0;
    until("the fetch completes", TRANSFER_WAIT, || {
        most = most.max(fetch.open_files()).max(seed.open_files());
        assert!(fetch.alive(), "{}", fetch.tail());
        progress(&fetch).is_none().then_some(())
    });
    assert!(most <= 64, "{most} files were open");
    content::assert_same(&lab.path("source"), &into, &[FETCH_FOLDER]);
}
