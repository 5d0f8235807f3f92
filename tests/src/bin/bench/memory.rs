//! Resident memory where it could grow: with the size of the content, and with the number of peers.

use std::fs::{self, File};
use std::path::Path;

use updraft_tests::clients::PEER_PORT;
use updraft_tests::content;
use updraft_tests::lab::Lab;
use updraft_tests::ours::{self, Place};

use crate::report::{RUN_WAIT, create_torrent, mib};
use crate::transfer::{our_pair, parent};

/// What to move, and to how many.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of the big file. It is a hole, but becomes as many bytes where it is downloaded to.
    #[arg(long, default_value_t = 12 << 30)]
    bytes: u64,
    /// The kind of torrent.
    #[arg(long, default_value = "v2")]
    format: String,
    /// Leechers at one seed.
    #[arg(long, default_value_t = 50)]
    leechers: usize,
    /// Bytes that each of them gets.
    #[arg(long, default_value_t = 64 << 20)]
    leech_bytes: u64,
}

/// One big transfer; then one seed and many leechers.
pub(crate) fn run(dir: &Path, args: &Args) {
    if args.bytes > 0 {
        big(dir, args);
    }
    if args.leechers > 0 {
        crowd(dir, args);
    }
}

fn big(dir: &Path, args: &Args) {
    let source = dir.join("big/data.bin");
    fs::create_dir_all(parent(&source)).expect("the folder can be made");
    let hole = File::create(&source).and_then(|file| file.set_len(args.bytes));
    hole.expect("the file system makes holes");
    let torrent = dir.join("big.torrent");
    create_torrent(&source, &torrent, &["--format", &args.format]);
    println!("\n## One seed, one leech: a {} torrent of {:.0} MiB\n", args.format, mib(args.bytes));
    println!("| engine | s | seed peak MiB | leech peak MiB |");
    println!("|---|---:|---:|---:|");
    let run = our_pair(dir, &source, &torrent, &[]);
    let (seed, leech) = (mib(run.seed_peak), mib(run.leech.resident_peak));
    println!("| Updraft | {:.1} | {seed:.0} | {leech:.0} |", run.leech.seconds);
    let _ = fs::remove_dir_all(dir.join("into"));
}

fn crowd(dir: &Path, args: &Args) {
    let source = dir.join("crowd/data.bin");
    content::write_file(&source, 1, args.leech_bytes);
    let torrent = dir.join("crowd.torrent");
    create_torrent(&source, &torrent, &["--format", &args.format]);
    let lab = Lab::new();
    let node = lab.node();
    let at = node.addr(PEER_PORT);
    let seed = ours::seed(&Place::from(&node), &torrent, parent(&source), at);
    ours::wait_seeding(&seed, RUN_WAIT);
    let nodes: Vec<_> = (0..args.leechers).map(|_| lab.node()).collect();
    let leeches = nodes.iter().enumerate().map(|(number, node)| {
        let into = dir.join(format!("leech-{number}"));
        ours::fetch(&Place::from(node), &torrent, &into, node.addr(PEER_PORT), &[at], false)
    });
    let leeches: Vec<_> = leeches.collect();
    let peaks = leeches.into_iter().map(|mut leech| leech.cost(RUN_WAIT).resident_peak);
    let leech_peak = peaks.max().unwrap_or(0);
    println!("\n## One seed, {} leeches of {:.0} MiB\n", args.leechers, mib(args.leech_bytes));
    println!("| engine | seed peak MiB | largest leech peak MiB |\n|---|---:|---:|");
    println!("| Updraft | {:.0} | {:.0} |", mib(seed.resident_peak()), mib(leech_peak));
}
