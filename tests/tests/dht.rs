//! The distributed hash table (BEP 5): a link without a tracker is enough, both ways. The hosts have addresses
//! that look far away from each other.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use updraft_tests::clients::{Client, Libtorrent, PEER_PORT, read_torrent, until};
use updraft_tests::content::{self, parent};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place, READY_WAIT};
use updraft_tests::process::Proc;

/// Look-ups are repeated at growing intervals.
const SWARM_WAIT: Duration = Duration::from_secs(120);
const BYTES: u64 = 2 << 20;

/// libtorrent with a node in the DHT, which it enters by `entry`; without one it waits to be found.
fn libtorrent(node: &Node, entry: Option<SocketAddr>) -> Libtorrent {
    libtorrent_with(node, entry, true)
}

/// The same that speaks to peers by uTP or not.
fn libtorrent_with(node: &Node, entry: Option<SocketAddr>, utp: bool) -> Libtorrent {
    let settings = json!({
        "enable_incoming_utp": utp, "enable_outgoing_utp": utp,
        "enable_dht": true,
        "dht_bootstrap_nodes": entry.map(|entry| entry.to_string()).unwrap_or_default(),
        // All hosts here are of one network.
        "dht_restrict_routing_ips": false, "dht_restrict_search_ips": false,
    });
    Libtorrent::start_on(node, &node.wide_addr(PEER_PORT).to_string(), &settings)
}

/// A network with one node that is known from the start, and a torrent without a tracker.
struct World {
    lab: Lab,
    entry: SocketAddr,
    _first: Libtorrent,
    source: PathBuf,
    torrent: PathBuf,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new();
        let node = lab.node();
        let first = libtorrent(&node, None);
        let source = content::shared_game(lab.path("source/game"), 1, BYTES);
        let torrent = lab.path("game.torrent");
        ours::create_torrent(&source, &torrent, "hybrid", &[]);
        Self { lab, entry: node.wide_addr(PEER_PORT), _first: first, source, torrent }
    }

    /// Links to the torrent by each of its names alone.
    fn links(&self) -> [String; 2] {
        let reading = read_torrent(&self.torrent);
        let (v1, v2) = (reading.v1.expect("a hybrid"), reading.v2.expect("a hybrid"));
        [format!("magnet:?xt=urn:btih:{v1}"), format!("magnet:?xt=urn:btmh:1220{v2}")]
    }

    fn seed(&self, node: &Node, torrents: &[&Path]) -> Proc {
        let mut command = Place::from(node).publisher();
        command.arg("seed").args(torrents).arg("--dir").arg(parent(&self.source));
        command.args(["--listen", &node.wide_addr(PEER_PORT).to_string()]);
        command.args(["--dht-bootstrap", &self.entry.to_string()]);
        let seed = Proc::start("our seed", command);
        ours::wait_seeding(&seed, READY_WAIT);
        seed
    }

    /// Our launcher, without anybody to ask but the DHT, which it enters by `entry`, and `peers`.
    fn fetch(
        &self,
        what: &Path,
        entry: &str,
        peers: &[SocketAddr],
        more: &[&str],
    ) -> (Proc, PathBuf) {
        let node = self.lab.node();
        let into = self.lab.folder(&format!("into-{}", node.ip));
        let flags = [&["--no-lan", "--dht-bootstrap", entry], more].concat();
        let (place, listen) = (Place::from(&node), node.wide_addr(PEER_PORT));
        (ours::fetch_with(&place, what, &into, listen, peers, &flags), into)
    }
}

#[test]
fn a_link_alone_leads_us_to_what_libtorrent_seeds() {
    let world = World::new();
    let mut seed = libtorrent(&world.lab.node(), Some(world.entry));
    seed.seed(&world.torrent, parent(&world.source));
    for link in world.links() {
        let (mut fetch, into) = world.fetch(Path::new(&link), &world.entry.to_string(), &[], &[]);
        fetch.finish(SWARM_WAIT);
        content::assert_same(&world.source, &into.join("game"), &[]);
    }
}

#[test]
fn a_link_alone_leads_libtorrent_to_what_we_seed() {
    let world = World::new();
    let _seed = world.seed(&world.lab.node(), &[&world.torrent]);
    for (at, link) in world.links().iter().enumerate() {
        let mut leech = libtorrent(&world.lab.node(), Some(world.entry));
        let into = world.lab.folder(&format!("libtorrent-{at}"));
        leech.add_magnet(link, &into, &[]);
        leech.wait_done(Path::new(link), SWARM_WAIT);
        content::assert_same_contents(&world.source, &into.join("game"), &[]);
    }
}

/// Whose entries do not answer enters by the nodes of peers, since these tell where they are (message 9): it is
/// found there by somebody else when that peer takes no connections any more.
#[test]
fn peers_lead_into_the_network() {
    let world = World::new();
    let (nobody, node, seed_node) = (world.lab.node(), world.lab.node(), world.lab.node());
    let mut seed = libtorrent_with(&seed_node, Some(world.entry), false);
    seed.seed(&world.torrent, parent(&world.source));
    let mut command = Place::from(&node).launcher();
    command.env("UPDRAFT_LOG", "updraft_protocol::io::dht=debug");
    command
        .args(["--json", "fetch"])
        .arg(&world.torrent)
        .arg("--dir")
        .arg(world.lab.folder("ours"));
    command.args(["--listen", &node.wide_addr(PEER_PORT).to_string()]);
    command.args(["--peer", &seed_node.wide_addr(PEER_PORT).to_string()]);
    command.args(["--dht-bootstrap", &nobody.wide_addr(PEER_PORT).to_string()]);
    command.args(["--no-lan", "--no-port-mapping", "--stay", "--upload", "yes"]);
    let ours = Proc::start("our fetch", command);
    ours::wait_complete(&ours, SWARM_WAIT);
    until("an announcement of both names", SWARM_WAIT, || {
        (ours.text().matches("announced in the DHT").count() >= 2).then_some(())
    });
    let mut wall = seed_node.command("iptables");
    assert!(wall.args(["-A", "INPUT", "-p", "tcp", "-j", "DROP"]).status().unwrap().success());
    let (link, entry) = (&world.links()[0], seed_node.wide_addr(PEER_PORT).to_string());
    let (mut fetch, into) = world.fetch(Path::new(link), &entry, &[], &[]);
    fetch.finish(SWARM_WAIT);
    content::assert_same(&world.source, &into.join("game"), &[]);
}

/// BEP 27: of a private torrent nobody hears in the DHT, whatever else the same seed announces there.
#[test]
fn private_torrents_are_not_announced() {
    let world = World::new();
    let (node, private) = (world.lab.node(), world.lab.path("private.torrent"));
    let mut create = Place::from(&node).publisher();
    create.args(["torrent", "create"]).arg(&world.source).arg("-o").arg(&private).arg("--private");
    assert!(create.status().expect("our publisher runs").success());
    let _seed = world.seed(&node, &[&world.torrent, &private]);
    let entry = world.entry.to_string();
    let (mut public, _) = world.fetch(Path::new(&world.links()[0]), &entry, &[], &[]);
    public.finish(SWARM_WAIT);
    let hash = read_torrent(&private).v1.expect("a hybrid");
    let link = format!("magnet:?xt=urn:btih:{hash}");
    let (fetch, _) = world.fetch(Path::new(&link), &entry, &[], &[]);
    fetch.wait_json("a warning", SWARM_WAIT, |event| {
        let message = event["message"].as_str().unwrap_or_default();
        (event["event"] == "warning" && message.contains("nobody has given")).then_some(())
    });
}
