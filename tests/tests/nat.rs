//! Players behind routers that let nobody in.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::time::Duration;

use updraft_tests::clients::PEER_PORT;
use updraft_tests::content;
use updraft_tests::lab::Lab;
use updraft_tests::ours::{self, Place, READY_WAIT};
use updraft_tests::process::Proc;

/// The seed needs half a minute for one copy; peers tell of each other every minute.
const SWARM_WAIT: Duration = Duration::from_secs(170);
const BYTES: u64 = 12 << 20;

/// Two players, each behind a router of its own, and a seed that both reach: they meet through it (BEP 55).
#[test]
fn two_players_behind_routers_meet_through_the_seed() {
    let lab = Lab::new();
    content::write_file(&lab.path("source/data.bin"), 1, BYTES);
    let torrent = lab.path("data.torrent");
    ours::create_torrent(&lab.path("source/data.bin"), &torrent, "hybrid", &[]);
    let seed_node = lab.node();
    let mut command = Place::from(&seed_node).publisher();
    command.arg("seed").arg(&torrent).arg("--dir").arg(lab.path("source"));
    command.args(["--listen", &seed_node.wide_addr(PEER_PORT).to_string()]);
    command.args(["--up-limit", "300000", "--no-dht"]);
    let seed = Proc::start("our seed", command);
    ours::wait_seeding(&seed, READY_WAIT);
    let players: Vec<(Proc, PathBuf)> = (0..2)
        .map(|number| {
            let node = lab.node_behind(&lab.node());
            let into = lab.folder(&format!("into{number}"));
            let (place, own) = (Place::from(&node), node.addr(PEER_PORT));
            let flags = ["--no-lan", "--no-dht", "--no-port-mapping", "--stay", "--upload", "yes"];
            let peers = [seed_node.wide_addr(PEER_PORT)];
            (ours::fetch_with(&place, &torrent, &into, own, &peers, &flags), into)
        })
        .collect();
    for (player, _) in &players {
        player.wait_json("the other player", SWARM_WAIT, |event| {
            (event["utp_peers"].as_u64() >= Some(1) && event["peers"].as_u64() >= Some(2))
                .then_some(())
        });
    }
    for (player, into) in &players {
        ours::wait_complete(player, SWARM_WAIT);
        content::assert_same(&lab.path("source"), into, &[ours::FETCH_FOLDER]);
    }
}
