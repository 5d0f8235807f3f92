//! One leech and whoever feeds it: ours and libtorrent, alike.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use updraft_tests::clients::{Client, Libtorrent, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place};
use updraft_tests::process::Cost;

use crate::report::RUN_WAIT;

/// What one transfer cost both ends.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    /// The leech, from its first step to the last verified byte.
    pub(crate) leech: Cost,
    /// Processor seconds of the seed meanwhile.
    pub(crate) seed_cpu: f64,
    /// Bytes resident at most in the seed.
    pub(crate) seed_peak: u64,
}

/// libtorrent without uTP.
pub(crate) fn tcp() -> Value {
    json!({"enable_outgoing_utp": false, "enable_incoming_utp": false})
}

/// libtorrent without uTP, with the settings that make a fast pair faster.
pub(crate) fn tuned() -> Value {
    json!({
        "enable_outgoing_utp": false, "enable_incoming_utp": false, "hashing_threads": 2,
        "max_out_request_queue": 1500, "send_buffer_watermark": 5 << 20,
    })
}

/// The run whose leech was fastest.
pub(crate) fn fastest(rounds: u32, run: impl Fn() -> Transfer) -> Transfer {
    let runs = (0..rounds.max(1)).map(|_| run());
    runs.min_by(|a, b| a.leech.seconds.total_cmp(&b.leech.seconds))
        .expect("there is at least one round")
}

/// The folder that holds the content, as seeds are told.
pub(crate) fn parent(source: &Path) -> &Path {
    source.parent().expect("the content lies in a folder")
}

fn fresh(dir: &Path) -> PathBuf {
    let into = dir.join("into");
    let _ = fs::remove_dir_all(&into);
    fs::create_dir_all(&into).expect("the folder can be made");
    into
}

/// Our leech on `node`, fed by `peers` or by what the torrent names. What came is compared.
pub(crate) fn our_leech(
    dir: &Path,
    source: &Path,
    node: &Node,
    torrent: &Path,
    peers: &[SocketAddr],
    flags: &[&str],
) -> Cost {
    let into = fresh(dir);
    let listen = node.addr(PEER_PORT);
    let mut fetch = ours::fetch_with(&Place::from(node), torrent, &into, listen, peers, flags);
    let cost = fetch.cost(RUN_WAIT);
    content::assert_same(parent(source), &into, &[ours::FETCH_FOLDER]);
    cost
}

/// libtorrent's leech, the same way.
pub(crate) fn their_leech(
    dir: &Path,
    node: &Node,
    torrent: &Path,
    peers: &[SocketAddr],
    settings: &Value,
) -> Cost {
    let mut leech = Libtorrent::start_with(node, settings);
    let before = leech.proc.cpu_seconds();
    let into = fresh(dir);
    let start = Instant::now();
    leech.add(torrent, &into, peers);
    leech.wait_finished(torrent, RUN_WAIT);
    Cost {
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: leech.proc.cpu_seconds() - before,
        resident_peak: leech.proc.resident_peak(),
    }
}

/// Ours seeds, ours leeches with these flags.
pub(crate) fn our_pair(dir: &Path, source: &Path, torrent: &Path, flags: &[&str]) -> Transfer {
    let lab = Lab::new();
    let (a, b) = (lab.node(), lab.node());
    let seed = ours::seed(&Place::from(&a), torrent, parent(source), a.addr(PEER_PORT));
    ours::wait_seeding(&seed, RUN_WAIT);
    let before = seed.cpu_seconds();
    let leech = our_leech(dir, source, &b, torrent, &[a.addr(PEER_PORT)], flags);
    let seed_cpu = seed.cpu_seconds() - before;
    Transfer { leech, seed_cpu, seed_peak: seed.resident_peak() }
}

/// libtorrent seeds, libtorrent leeches.
pub(crate) fn their_pair(dir: &Path, source: &Path, torrent: &Path, settings: &Value) -> Transfer {
    let lab = Lab::new();
    let (a, b) = (lab.node(), lab.node());
    let mut seed = Libtorrent::start_with(&a, settings);
    seed.seed(torrent, parent(source));
    let before = seed.proc.cpu_seconds();
    let leech = their_leech(dir, &b, torrent, &[a.addr(PEER_PORT)], settings);
    let seed_cpu = seed.proc.cpu_seconds() - before;
    Transfer { leech, seed_cpu, seed_peak: seed.proc.resident_peak() }
}
