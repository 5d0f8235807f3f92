//! uTP (BEP 29) with other people's clients, where TCP does not get through, and with their defaults.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use updraft_tests::clients::{Client, Libtorrent, PEER_PORT, Transmission};
use updraft_tests::content::{self, parent};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place, READY_WAIT};
use updraft_tests::process::Proc;

/// Transmission waits up to ten seconds between its looks at the list of peers.
const SWARM_WAIT: Duration = Duration::from_secs(90);
const BYTES: u64 = 6 << 20;

/// libtorrent that speaks uTP alone, with `more` settings.
fn without_tcp(node: &Node, more: &Value) -> Libtorrent {
    let mut settings = json!({"enable_outgoing_tcp": false, "enable_incoming_tcp": false});
    let more = more.as_object().into_iter().flatten();
    more.for_each(|(name, value)| settings[name] = value.clone());
    Libtorrent::start_with(node, &settings)
}

/// All of it encrypted, or nothing at all.
fn strict() -> Value {
    json!({"out_enc_policy": 0, "in_enc_policy": 0, "allowed_enc_level": 2})
}

/// A build, and a torrent of it.
fn build(lab: &Lab, format: &str) -> (PathBuf, PathBuf) {
    let source = content::shared_game(lab.path("source/game"), 1, BYTES);
    let torrent = lab.path("game.torrent");
    ours::create_torrent(&source, &torrent, format, &[]);
    (source, torrent)
}

/// Our launcher on a node of its own, told of the client on `node`; waits until all has come.
fn we_download(lab: &Lab, torrent: &Path, node: &Node) -> Proc {
    let (own, into) = (lab.node(), lab.folder("into"));
    let (place, peers) = (Place::from(&own), [node.addr(PEER_PORT)]);
    let flags = ["--no-lan", "--stay"];
    let fetch = ours::fetch_with(&place, torrent, &into, own.addr(PEER_PORT), &peers, &flags);
    ours::wait_complete(&fetch, SWARM_WAIT);
    fetch
}

fn was_utp(fetch: &Proc) -> bool {
    fetch.json().iter().any(|event| event["utp_peers"].as_u64() == Some(1))
}

#[test]
fn we_download_from_libtorrent_that_has_no_tcp() {
    for settings in [json!({}), strict()] {
        let lab = Lab::new();
        let (source, torrent) = build(&lab, "hybrid");
        // Slow enough that the transfer is seen under way.
        let node = lab.slow_node("20mbit");
        let mut client = without_tcp(&node, &settings);
        client.seed(&torrent, parent(&source));
        let fetch = we_download(&lab, &torrent, &node);
        assert!(was_utp(&fetch));
        content::assert_same(&source, &lab.path("into/game"), &[]);
    }
}

#[test]
fn libtorrent_that_has_no_tcp_downloads_from_us() {
    for settings in [json!({}), strict()] {
        let lab = Lab::new();
        let (source, torrent) = build(&lab, "hybrid");
        let node = lab.node();
        let listen = node.addr(PEER_PORT);
        let seed = ours::seed(&Place::from(&node), &torrent, parent(&source), listen);
        ours::wait_seeding(&seed, READY_WAIT);
        let mut client = without_tcp(&lab.node(), &settings);
        client.add(&torrent, &lab.folder("into"), &[listen]);
        client.wait_done(&torrent, SWARM_WAIT);
        content::assert_same_contents(&source, &lab.path("into/game"), &[]);
    }
}

/// Transmission, as it comes; that it downloads from us so is shown with the others in `interop`.
#[test]
fn we_download_from_transmission_by_utp() {
    let lab = Lab::new();
    let (source, torrent) = build(&lab, "v1");
    let node = lab.slow_node("20mbit");
    let listen = node.addr(PEER_PORT);
    let mut client = Transmission::start(&lab, &node);
    client.seed(&torrent, parent(&source));
    let (own, into) = (lab.node(), lab.folder("into"));
    let flags = ["--no-lan", "--stay", "--transport", "utp"];
    let place = Place::from(&own);
    let fetch = ours::fetch_with(&place, &torrent, &into, own.addr(PEER_PORT), &[listen], &flags);
    ours::wait_complete(&fetch, SWARM_WAIT);
    assert!(was_utp(&fetch));
    content::assert_same(&source, &into.join("game"), &[]);
}
