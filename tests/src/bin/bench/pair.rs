//! One seed, one leech, a link without limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use updraft_tests::clients::{Client, Libtorrent, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::Lab;
use updraft_tests::ours::{self, Place};

use crate::report::{RUN_WAIT, mib};

/// How much to move.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of the file.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
}

/// What one transfer cost both ends.
#[derive(Clone, Copy)]
struct Transfer {
    seconds: f64,
    seed_cpu: f64,
    leech_cpu: f64,
    seed_peak: u64,
    leech_peak: u64,
}

/// Measures every format beside libtorrent with three sets of settings.
pub(crate) fn run(dir: &Path, rounds: u32, args: Args) {
    let bytes = args.bytes;
    let source = dir.join("source/data.bin");
    content::write_file(&source, 1, bytes);
    println!("\n## One seed, one leech: {:.0} MiB over a veth pair\n", mib(bytes));
    println!(
        "| format | engine | MiB/s | CPU s/GiB both | seed | leech | seed peak MiB | leech peak MiB |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    let tuned = json!({
        "enable_outgoing_utp": false, "enable_incoming_utp": false, "hashing_threads": 2,
        "max_out_request_queue": 1500, "send_buffer_watermark": 5 << 20,
    });
    let tcp = json!({"enable_outgoing_utp": false, "enable_incoming_utp": false});
    for format in ["v1", "v2", "hybrid"] {
        let torrent = dir.join(format!("{format}.torrent"));
        ours::create_torrent(&source, &torrent, format, &[]);
        let fastest = |rounds: u32, run: &dyn Fn() -> Transfer| {
            let runs = (0..rounds.max(1)).map(|_| run());
            runs.min_by(|a, b| a.seconds.total_cmp(&b.seconds))
                .expect("there is at least one round")
        };
        let ours = fastest(rounds, &|| our_transfer(dir, &source, &torrent));
        row(format, "Updraft", bytes, ours);
        let mut ratios = Vec::new();
        for (name, settings) in [
            ("libtorrent, as it comes (uTP)", json!({})),
            ("libtorrent, TCP", tcp.clone()),
            ("libtorrent, TCP, tuned", tuned.clone()),
        ] {
            // uTP is ten times slower: one run tells enough.
            let runs = if settings == json!({}) { 1 } else { rounds };
            let theirs = fastest(runs, &|| their_transfer(dir, &source, &torrent, &settings));
            row(format, name, bytes, theirs);
            let cpu = (ours.seed_cpu + ours.leech_cpu) / (theirs.seed_cpu + theirs.leech_cpu);
            ratios.push(format!(
                "{name}: speed x {:.2}, CPU x {cpu:.2}",
                theirs.seconds / ours.seconds
            ));
        }
        println!("| {format} | ours against {} | | | | | | |", ratios.join("; "));
    }
}

fn row(format: &str, engine: &str, bytes: u64, run: Transfer) {
    let gib = mib(bytes) / 1024.0;
    println!(
        "| {format} | {engine} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
        mib(bytes) / run.seconds,
        (run.seed_cpu + run.leech_cpu) / gib,
        run.seed_cpu / gib,
        run.leech_cpu / gib,
        mib(run.seed_peak),
        mib(run.leech_peak)
    );
}

fn fresh(dir: &Path) -> PathBuf {
    let into = dir.join("into");
    let _ = fs::remove_dir_all(&into);
    fs::create_dir_all(&into).expect("the folder can be made");
    into
}

fn our_transfer(dir: &Path, source: &Path, torrent: &Path) -> Transfer {
    let lab = Lab::new();
    let (a, b) = (lab.node(), lab.node());
    let folder = source.parent().expect("the file lies in a folder");
    let seed = ours::seed(&Place::from(&a), torrent, folder, a.addr(PEER_PORT));
    ours::wait_seeding(&seed, RUN_WAIT);
    let before = seed.cpu_seconds();
    let into = fresh(dir);
    let mut fetch = ours::fetch(
        &Place::from(&b),
        torrent,
        &into,
        b.addr(PEER_PORT),
        &[a.addr(PEER_PORT)],
        false,
    );
    let cost = fetch.cost(RUN_WAIT);
    let seed_cpu = seed.cpu_seconds() - before;
    content::assert_same(folder, &into, &[ours::FETCH_FOLDER]);
    Transfer {
        seconds: cost.seconds,
        seed_cpu,
        leech_cpu: cost.cpu_seconds,
        seed_peak: seed.resident_peak(),
        leech_peak: cost.resident_peak,
    }
}

fn their_transfer(
    dir: &Path,
    source: &Path,
    torrent: &Path,
    settings: &serde_json::Value,
) -> Transfer {
    let lab = Lab::new();
    let (a, b) = (lab.node(), lab.node());
    let folder = source.parent().expect("the file lies in a folder");
    let mut seed = Libtorrent::start_with(&a, settings);
    seed.seed(torrent, folder);
    let mut leech = Libtorrent::start_with(&b, settings);
    let before = (seed.proc.cpu_seconds(), leech.proc.cpu_seconds());
    let into = fresh(dir);
    let start = Instant::now();
    leech.add(torrent, &into, &[a.addr(PEER_PORT)]);
    leech.wait_finished(torrent, RUN_WAIT);
    let seconds = start.elapsed().as_secs_f64();
    Transfer {
        seconds,
        seed_cpu: seed.proc.cpu_seconds() - before.0,
        leech_cpu: leech.proc.cpu_seconds() - before.1,
        seed_peak: seed.proc.resident_peak(),
        leech_peak: leech.proc.resident_peak(),
    }
}
