//! What is sent beyond the LAN goes compressed between our own programs where that pays: real processes,
//! bytes counted on the wire.
#![cfg(target_os = "linux")]

use std::path::Path;

use updraft_tests::clients::{Client, Libtorrent, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place, READY_WAIT, TRANSFER_WAIT};
use updraft_tests::process::Proc;

/// Fetches the folder `source/game` from one host to another; says how many bytes the sender put on the
/// wire, and what the report says were spared.
fn transfer(lab: &Lab, far: bool, flags: &[&str]) -> (u64, u64) {
    let torrent = lab.path("game.torrent");
    ours::create_torrent(&lab.path("source/game"), &torrent, "hybrid", &[]);
    let (from, to) = (lab.slow_node("100mbit"), lab.node());
    let addr = |node: &Node| if far { node.wide_addr(PEER_PORT) } else { node.addr(PEER_PORT) };
    let _seed = seed(lab, &from, addr(&from), flags);
    let before = from.bytes_sent();
    let into = lab.folder("into");
    let place = Place::from(&to);
    let peers = [addr(&from)];
    let mut fetch = ours::fetch(&place, &torrent, &into, addr(&to), &peers, false);
    let spared = fetch.wait_json("its completion", TRANSFER_WAIT, |event| {
        (event["event"] == "complete").then(|| event["spared_bytes"].as_u64().unwrap_or(0))
    });
    fetch.finish(READY_WAIT);
    content::assert_same(&lab.path("source/game"), &into.join("game"), &[]);
    (from.bytes_sent() - before, spared)
}

fn seed(lab: &Lab, node: &Node, listen: std::net::SocketAddr, flags: &[&str]) -> Proc {
    let mut command = Place::from(node).publisher();
    command.arg("seed").arg(lab.path("game.torrent")).arg("--dir").arg(lab.path("source"));
    command.args(["--listen", &listen.to_string()]).args(flags);
    let seed = Proc::start("our seed", command);
    ours::wait_seeding(&seed, READY_WAIT);
    seed
}

/// Small texts and a large one, 6 MB together.
fn texts(dir: &Path) -> u64 {
    for at in 0..300 {
        let path = dir.join(format!("scripts/{}/script {at}.lua", at % 7));
        content::write_text(&path, at, 10_000);
    }
    content::write_text(&dir.join("data/strings.txt"), 999, 3_000_000);
    content::total_bytes(dir, &[])
}

#[test]
fn texts_take_a_third_of_their_bytes_and_nobody_compresses_on_the_lan() {
    let lab = Lab::new();
    let bytes = texts(&lab.path("source/game"));
    let (wire, spared) = transfer(&lab, true, &[]);
    assert!(wire < bytes * 45 / 100, "{wire} of {bytes}");
    assert!(spared > bytes * 55 / 100, "{spared} of {bytes}");

    let lab = Lab::new();
    let bytes = texts(&lab.path("source/game"));
    let (wire, spared) = transfer(&lab, false, &[]);
    assert!(wire > bytes && spared == 0, "{wire} of {bytes}, {spared} spared");
}

#[test]
fn over_quic_too() {
    let lab = Lab::new();
    let bytes = texts(&lab.path("source/game"));
    let (wire, _) = transfer(&lab, true, &["--transport", "background"]);
    assert!(wire < bytes * 55 / 100, "{wire} of {bytes}");
}

#[test]
fn noise_costs_nothing_extra() {
    let lab = Lab::new();
    let bytes = 8 << 20;
    content::write_file(&lab.path("source/game/noise.pak"), 1, bytes);
    let (wire, spared) = transfer(&lab, true, &[]);
    assert_eq!(spared, 0);
    // Headers of TCP, Ethernet and the blocks.
    assert!(wire < bytes * 107 / 100, "{wire} of {bytes}");
}

/// A limit is kept on the wire, not in what the blocks become.
#[test]
fn under_a_limit_more_arrives_than_is_sent() {
    let lab = Lab::new();
    let bytes = texts(&lab.path("source/game"));
    let began = std::time::Instant::now();
    let (wire, _) = transfer(&lab, true, &["--up-limit", "500KiB"]);
    let most = 600 * 1024 * (began.elapsed().as_secs() + 1);
    assert!(wire < bytes * 60 / 100 && wire < most, "{wire} of {bytes}, at most {most}");
}

/// Other clients get plain blocks of the same seed.
#[test]
fn a_foreign_client_gets_plain_blocks() {
    let lab = Lab::new();
    texts(&lab.path("source/game"));
    let torrent = lab.path("game.torrent");
    ours::create_torrent(&lab.path("source/game"), &torrent, "v2", &[]);
    let (from, to) = (lab.node(), lab.node());
    let _seed = seed(&lab, &from, from.wide_addr(PEER_PORT), &[]);
    let settings = serde_json::json!({
        "enable_outgoing_utp": false, "enable_incoming_utp": false,
    });
    let mut theirs = Libtorrent::start_on(&to, &to.wide_addr(PEER_PORT).to_string(), &settings);
    let into = lab.folder("theirs");
    theirs.add(&torrent, &into, &[from.wide_addr(PEER_PORT)]);
    theirs.wait_done(&torrent, TRANSFER_WAIT);
    content::assert_same(&lab.path("source"), &into, &[]);
}
