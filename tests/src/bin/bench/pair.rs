//! One seed, one leech, a link without limits.

use std::path::Path;

use serde_json::json;
use updraft_tests::content;
use updraft_tests::ours;

use crate::report::{mib, small_files};
use crate::transfer::{Transfer, fastest, our_pair, tcp, their_pair, tuned};

/// How much to move.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of the file.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// The kinds of torrent.
    #[arg(long, value_delimiter = ',', default_value = "v1,v2,hybrid")]
    format: Vec<String>,
}

/// How many files to move.
#[derive(clap::Args)]
pub(crate) struct SmallArgs {
    /// Number of files.
    #[arg(long, default_value_t = 20_000)]
    files: u64,
    /// Bytes of the files together.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// The kinds of torrent.
    #[arg(long, value_delimiter = ',', default_value = "v1,v2")]
    format: Vec<String>,
}

/// One big file.
pub(crate) fn run(dir: &Path, rounds: u32, args: &Args) {
    let source = dir.join("source/data.bin");
    content::write_file(&source, 1, args.bytes);
    println!("\n## One seed, one leech: {:.0} MiB over a veth pair\n", mib(args.bytes));
    table(dir, rounds, &source, args.bytes, &args.format);
}

/// Many small files.
pub(crate) fn run_small(dir: &Path, rounds: u32, args: &SmallArgs) {
    let source = dir.join("source/small");
    small_files(&source, args.files, args.bytes / args.files.max(1));
    let bytes = content::total_bytes(&source, &[]);
    println!("\n## One seed, one leech: {} files, {:.0} MiB\n", args.files, mib(bytes));
    table(dir, rounds, &source, bytes, &args.format);
}

fn table(dir: &Path, rounds: u32, source: &Path, bytes: u64, formats: &[String]) {
    println!(
        "| format | engine | s | MiB/s | CPU s/GiB both | seed | leech | seed peak MiB | leech peak MiB |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
    for format in formats {
        let torrent = dir.join(format!("{format}.torrent"));
        ours::create_torrent(source, &torrent, format, &[]);
        let ours = fastest(rounds, || our_pair(dir, source, &torrent, &[]));
        row(format, "Updraft", bytes, ours);
        let quic = || our_pair(dir, source, &torrent, &["--transport", "quic"]);
        row(format, "Updraft, QUIC", bytes, fastest(rounds, quic));
        let utp = || our_pair(dir, source, &torrent, &["--transport", "utp"]);
        row(format, "Updraft, uTP", bytes, fastest(1, utp));
        let mut ratios = Vec::new();
        for (name, settings) in [
            ("libtorrent, as it comes (uTP)", json!({})),
            ("libtorrent, TCP", tcp()),
            ("libtorrent, TCP, tuned", tuned()),
        ] {
            // uTP is ten times slower: one run tells enough.
            let runs = if settings == json!({}) { 1 } else { rounds };
            let theirs = fastest(runs, || their_pair(dir, source, &torrent, &settings));
            row(format, name, bytes, theirs);
            let cpu = |run: Transfer| run.seed_cpu + run.leech.cpu_seconds;
            ratios.push(format!(
                "{name}: speed x {:.2}, CPU x {:.2}",
                theirs.leech.seconds / ours.leech.seconds,
                cpu(ours) / cpu(theirs),
            ));
        }
        println!("| {format} | ours against {} | | | | | | | |", ratios.join("; "));
    }
}

fn row(format: &str, engine: &str, bytes: u64, run: Transfer) {
    let gib = mib(bytes) / 1024.0;
    let leech = run.leech;
    println!(
        "| {format} | {engine} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
        leech.seconds,
        mib(bytes) / leech.seconds,
        (run.seed_cpu + leech.cpu_seconds) / gib,
        run.seed_cpu / gib,
        leech.cpu_seconds / gib,
        mib(run.seed_peak),
        mib(leech.resident_peak)
    );
}
