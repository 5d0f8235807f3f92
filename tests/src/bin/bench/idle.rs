//! Many torrents and no peers: what it costs to be there.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use updraft_tests::clients::{Libtorrent, PEER_PORT, until};
use updraft_tests::content;
use updraft_tests::lab::Lab;
use updraft_tests::ours::{self, Place};
use updraft_tests::process::Proc;

use crate::report::{RUN_WAIT, create_torrent, mib};
use crate::transfer::tcp;

/// What to seed, and how long to look.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Torrents.
    #[arg(long, default_value_t = 200)]
    torrents: u64,
    /// Bytes of each.
    #[arg(long, default_value_t = 4 << 20)]
    bytes: u64,
    /// Seconds to look, once all is checked.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Ours and libtorrent, one after the other.
pub(crate) fn run(dir: &Path, args: &Args) {
    let content = dir.join("content");
    let torrents: Vec<PathBuf> = (0..args.torrents)
        .map(|number| {
            let file = content.join(format!("{number}.bin"));
            content::write_file(&file, number, args.bytes);
            let torrent = dir.join(format!("{number}.torrent"));
            create_torrent(&file, &torrent, &[]);
            torrent
        })
        .collect();
    println!("\n## {} torrents of {:.0} MiB, no peers\n", args.torrents, mib(args.bytes));
    println!("| engine | CPU, % of a core | resident MiB | peak MiB |");
    println!("|---|---:|---:|---:|");

    let lab = Lab::new();
    let node = lab.node();
    let ours = ours::seed_all(&Place::from(&node), &torrents, &content, node.addr(PEER_PORT));
    // They are told in order.
    ours.wait_line(&format!("`{}.bin`", args.torrents.saturating_sub(1)), RUN_WAIT);
    row("Updraft", &ours, args.seconds);
    drop(ours);

    let node = lab.node();
    let mut theirs = Libtorrent::start_with(&node, &tcp());
    for torrent in &torrents {
        theirs.add(torrent, &content, &[]);
    }
    // With this many the script cannot always tell which torrent an event is of.
    until("that libtorrent has checked all", RUN_WAIT, || {
        let events = theirs.proc.json();
        let checked = events.iter().filter(|event| event["event"] == "checked").count();
        (checked >= torrents.len()).then_some(())
    });
    row("libtorrent", &theirs.proc, args.seconds);
}

#[allow(clippy::cast_precision_loss)]
fn row(engine: &str, proc: &Proc, seconds: u64) {
    let before = proc.cpu_seconds();
    thread::sleep(Duration::from_secs(seconds));
    println!(
        "| {engine} | {:.3} | {:.0} | {:.0} |",
        (proc.cpu_seconds() - before) * 100.0 / seconds as f64,
        mib(proc.resident()),
        mib(proc.resident_peak())
    );
}
