//! Message stream encryption with other people's clients that take nothing else, both ways.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use updraft_tests::clients::{Aria2, Client, Libtorrent, PEER_PORT, Transmission};
use updraft_tests::content::{self, parent};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place, READY_WAIT};

/// Transmission alone waits up to ten seconds between its looks at the list of peers.
const SWARM_WAIT: Duration = Duration::from_secs(90);
const BYTES: u64 = 6 << 20;

/// libtorrent that speaks nothing else: all of it encrypted, and no uTP.
fn strict_libtorrent(node: &Node) -> Libtorrent {
    let settings = json!({
        "out_enc_policy": 0, "in_enc_policy": 0, "allowed_enc_level": 2,
        "enable_outgoing_utp": false, "enable_incoming_utp": false,
    });
    Libtorrent::start_with(node, &settings)
}

fn strict_transmission(lab: &Lab, node: &Node) -> Transmission {
    Transmission::start_with(lab, node, &json!({"encryption": 2}))
}

fn strict_aria2(node: &Node) -> Aria2 {
    let options = ["--enable-dht=false", "--bt-require-crypto=true", "--bt-min-crypto-level=arc4"];
    Aria2::start_with(node, &options.map(str::to_owned))
}

fn build(lab: &Lab, seed: u64) -> PathBuf {
    content::shared_game(lab.path("source/game"), seed, BYTES)
}

/// A torrent of the build in each format.
fn torrents(lab: &Lab, source: &Path, formats: &[&str]) -> Vec<PathBuf> {
    let make = |format: &&str| {
        let torrent = lab.path(&format!("{format}.torrent"));
        ours::create_torrent(source, &torrent, format, &[]);
        torrent
    };
    formats.iter().map(make).collect()
}

/// Our launcher dials a client that hangs up on whoever begins without encryption.
fn we_download(lab: &Lab, client: &mut dyn Client, node: &Node, formats: &[&str], flags: &[&str]) {
    let source = build(lab, 1);
    for torrent in torrents(lab, &source, formats) {
        client.seed(&torrent, parent(&source));
        let own = lab.node();
        let into = lab.folder(&format!("into-{}", own.ip));
        let (place, peers) = (Place::from(&own), [node.addr(PEER_PORT)]);
        let flags = [&["--no-lan"], flags].concat();
        let listen = own.addr(PEER_PORT);
        let mut fetch = ours::fetch_with(&place, &torrent, &into, listen, &peers, &flags);
        fetch.finish(SWARM_WAIT);
        content::assert_same(&source, &into.join("game"), &[]);
    }
}

#[test]
fn libtorrent_that_requires_it_serves_us() {
    let (lab, formats) = (Lab::new(), ["v1", "hybrid", "v2"]);
    let node = lab.node();
    we_download(&lab, &mut strict_libtorrent(&node), &node, &formats, &[]);
}

#[test]
fn transmission_that_requires_it_serves_us() {
    let lab = Lab::new();
    let node = lab.node();
    we_download(&lab, &mut strict_transmission(&lab, &node), &node, &["v1"], &[]);
}

#[test]
fn aria2_that_requires_it_serves_us() {
    let lab = Lab::new();
    let node = lab.node();
    we_download(&lab, &mut strict_aria2(&node), &node, &["v1"], &[]);
}

/// And clients as they come, when it is we who require it.
#[test]
fn we_require_it_of_others() {
    let lab = Lab::new();
    let node = lab.node();
    let settings = json!({"enable_outgoing_utp": false, "enable_incoming_utp": false});
    let mut client = Libtorrent::start_with(&node, &settings);
    we_download(&lab, &mut client, &node, &["hybrid"], &["--encryption", "require"]);
}

/// They dial our seed, and take nothing else.
#[test]
fn clients_that_require_it_are_served_by_us() {
    let lab = Lab::new();
    let source = build(&lab, 2);
    let formats = ["v1", "hybrid", "v2"];
    for (format, torrent) in formats.iter().zip(torrents(&lab, &source, &formats)) {
        let node = lab.node();
        let seed_at = node.addr(PEER_PORT);
        let seed = ours::seed(&Place::from(&node), &torrent, parent(&source), seed_at);
        ours::wait_seeding(&seed, READY_WAIT);
        let into = lab.folder(&format!("libtorrent-{format}"));
        let mut client = strict_libtorrent(&lab.node());
        client.add(&torrent, &into, &[seed_at]);
        client.wait_done(&torrent, SWARM_WAIT);
        content::assert_same_contents(&source, &into.join("game"), &[]);
    }
}

/// Ours among themselves: all of it, and whoever speaks none of it is told nothing.
#[test]
fn ours_require_it_of_each_other_or_refuse() {
    let lab = Lab::new();
    let source = build(&lab, 3);
    let torrent = torrents(&lab, &source, &["hybrid"]).remove(0);
    let (seed_node, node) = (lab.node(), lab.node());
    let seed_at = seed_node.addr(PEER_PORT);
    let dir = lab.folder("strict");
    content::copy_tree(&source, &dir.join("game"));
    let (strict, off) = (["--encryption", "require"], ["--encryption", "off"]);
    let flags = [&["--no-lan", "--stay"], &strict[..]].concat();
    let seed = ours::fetch_with(&Place::from(&seed_node), &torrent, &dir, seed_at, &[], &flags);
    seed.wait_json("seeding", READY_WAIT, |event| (event["event"] == "seeding").then_some(()));
    let fetch = |name: &str, more: &[&str]| {
        let flags = [&["--no-lan"], more].concat();
        let (place, into) = (Place::from(&node), lab.folder(name));
        ours::fetch_with(&place, &torrent, &into, node.addr(PEER_PORT), &[seed_at], &flags)
    };
    fetch("into", &strict).finish(SWARM_WAIT);
    content::assert_same(&source, &lab.path("into/game"), &[]);
    // By default it is found out at the second try.
    fetch("by-default", &[]).finish(SWARM_WAIT);
    content::assert_same(&source, &lab.path("by-default/game"), &[]);
    let without = fetch("without", &off);
    without.wait_json("a warning", SWARM_WAIT, |event| {
        let message = event["message"].as_str().unwrap_or_default();
        message.starts_with("nothing has come from anywhere").then_some(())
    });
}
