//! What connections run over: QUIC for uploads that nobody waits for, TCP for everybody else and wherever
//! UDP does not get through. Real processes on hosts whose addresses look far away.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::path::PathBuf;

use updraft_tests::clients::{Client, Libtorrent, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    self, Install, Place, Product, READY_WAIT, STATE_FOLDER, TRANSFER_WAIT, wait_complete,
};
use updraft_tests::process::Proc;

const ORIGIN_PORT: u16 = 8080;
/// Long enough on the links here that a second connection comes about meanwhile.
const BYTES: u64 = 8 << 20;

/// A torrent with a seed on an uplink of 40 Mbit/s, far from everybody else.
struct World {
    lab: Lab,
    torrent: PathBuf,
    seed_node: Node,
    _seed: Proc,
}

impl World {
    fn new(transport: &str) -> Self {
        let lab = Lab::new();
        content::write_file(&lab.path("source/data.bin"), 1, BYTES);
        let torrent = lab.path("data.torrent");
        ours::create_torrent(&lab.path("source/data.bin"), &torrent, "hybrid", &[]);
        let seed_node = lab.queueing_node("40mbit", "1s");
        let mut command = Place::from(&seed_node).publisher();
        command.arg("seed").arg(&torrent).arg("--dir").arg(lab.path("source"));
        command.args(["--listen", &seed_node.wide_addr(PEER_PORT).to_string()]);
        command.args(["--transport", transport]);
        let seed = Proc::start("our seed", command);
        ours::wait_seeding(&seed, READY_WAIT);
        Self { lab, torrent, seed_node, _seed: seed }
    }

    fn seed_addr(&self) -> SocketAddr {
        self.seed_node.wide_addr(PEER_PORT)
    }

    fn fetch(&self, node: &Node, name: &str, flags: &[&str]) -> (Proc, PathBuf) {
        let into = self.lab.folder(name);
        let place = Place::from(node);
        let peers = [self.seed_addr()];
        let listen = node.wide_addr(PEER_PORT);
        (ours::fetch_with(&place, &self.torrent, &into, listen, &peers, flags), into)
    }

    fn assert_came(&self, mut fetch: Proc, into: &std::path::Path) {
        wait_complete(&fetch, TRANSFER_WAIT);
        fetch.finish(READY_WAIT);
        content::assert_same(&self.lab.path("source"), into, &[ours::FETCH_FOLDER]);
    }
}

/// Waits until a job says that it is connected with a peer over QUIC.
fn wait_quic(proc: &Proc) {
    proc.wait_json("a peer over QUIC", TRANSFER_WAIT, |event| {
        (event["quic_peers"].as_u64() == Some(1)).then_some(())
    });
}

fn never_quic(proc: &Proc) -> bool {
    proc.json().iter().all(|event| event["quic_peers"].as_u64().unwrap_or(0) == 0)
}

#[test]
fn an_upload_in_the_background_moves_to_quic_and_arrives_whole() {
    let world = World::new("background");
    let (fetch, into) = world.fetch(&world.lab.node(), "into", &[]);
    wait_quic(&fetch);
    world.assert_came(fetch, &into);
}

#[test]
fn where_udp_does_not_get_through_tcp_goes_on() {
    let world = World::new("background");
    let node = world.lab.node();
    node.drop_udp();
    let (fetch, into) = world.fetch(&node, "into", &["--transport", "quic"]);
    wait_complete(&fetch, TRANSFER_WAIT);
    assert!(never_quic(&fetch), "{}", fetch.tail());
    world.assert_came(fetch, &into);
}

#[test]
fn who_waits_and_who_wants_tcp_stay_with_it() {
    for (seeds, fetches) in [("now", "now"), ("background", "tcp"), ("tcp", "quic")] {
        let world = World::new(seeds);
        let (fetch, into) = world.fetch(&world.lab.node(), "into", &["--transport", fetches]);
        wait_complete(&fetch, TRANSFER_WAIT);
        assert!(never_quic(&fetch), "{seeds} to {fetches}: {}", fetch.tail());
        world.assert_came(fetch, &into);
    }
}

/// Somebody whom two know over TCP and QUIC is one peer to both, and a client that knows nothing of QUIC is
/// served beside it.
#[test]
fn a_foreign_client_is_served_beside_quic() {
    let world = World::new("background");
    let (ours_node, theirs_node) = (world.lab.node(), world.lab.node());
    let listen = theirs_node.wide_addr(PEER_PORT).to_string();
    let settings = serde_json::json!({
        "enable_outgoing_utp": false, "enable_incoming_utp": false,
    });
    let mut theirs = Libtorrent::start_on(&theirs_node, &listen, &settings);
    let their_folder = world.lab.folder("theirs");
    theirs.add(&world.torrent, &their_folder, &[world.seed_addr()]);
    let (fetch, into) = world.fetch(&ours_node, "ours", &["--upload", "yes"]);
    wait_quic(&fetch);
    theirs.wait_done(&world.torrent, TRANSFER_WAIT);
    content::assert_same(&world.lab.path("source"), &their_folder, &[]);
    world.assert_came(fetch, &into);
}

/// `seed` is background work without being told.
#[test]
fn a_player_who_seeds_makes_way_and_one_who_installs_does_not_wait() {
    let lab = Lab::new();
    let (origin_node, seeder_node) = (lab.node(), lab.queueing_node("40mbit", "1s"));
    let build = lab.path("build");
    content::game(&build, 5, BYTES);
    let listen = origin_node.wide_addr(ORIGIN_PORT);
    let product = Product::init(&Place::from(&origin_node), &lab.path("product"), "game", listen);
    product.publish(&build, "1.0");
    let origin = product.serve();
    let player = |node: &Node, name: &str| {
        Install::new(&Place::from(node), name, &lab.path(name), node.wide_addr(PEER_PORT))
    };
    let mut seeder = player(&seeder_node, "seeder");
    seeder.flags = vec!["--upload".into(), "yes".into()];
    let mut install = seeder.install(product.feed(), false);
    wait_complete(&install, TRANSFER_WAIT);
    assert!(never_quic(&install));
    install.finish(READY_WAIT);

    let seed = seeder.seed();
    seed.wait_json("seeding", READY_WAIT, |event| (event["event"] == "seeding").then_some(()));
    // Only the player is left to fetch from.
    drop(origin);
    let mut late = player(&lab.node(), "late");
    late.flags = vec!["--peer".into(), seeder_node.wide_addr(PEER_PORT).to_string()];
    let mut install = late.install(product.feed(), false);
    wait_quic(&seed);
    wait_complete(&install, TRANSFER_WAIT);
    install.finish(READY_WAIT);
    content::assert_same(&build, &late.dir, &[STATE_FOLDER]);
}
