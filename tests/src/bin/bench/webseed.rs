//! A web server alone: nobody else has anything.

use std::path::Path;

use updraft_tests::clients::Nginx;
use updraft_tests::content;
use updraft_tests::lab::Lab;
use updraft_tests::process::{Cost, Proc};

use crate::report::{RUN_WAIT, create_torrent, mib};
use crate::transfer::{our_leech, parent, tcp, their_leech};

/// How much to move, and over what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of the file.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// The web server's uplink in Mbit/s; no limit if not given.
    #[arg(long)]
    rate: Option<f64>,
}

/// Ours beside libtorrent and curl.
pub(crate) fn run(dir: &Path, rounds: u32, args: &Args) {
    let source = dir.join("source/data.bin");
    content::write_file(&source, 1, args.bytes);
    let limit = args.rate.map(|rate| format!("{}kbit", rate * 1000.0));
    let title = limit.as_ref().map_or_else(String::new, |limit| format!(", {limit}/s"));
    println!("\n## nginx alone: {:.0} MiB{title}\n", mib(args.bytes));
    println!("| who | s | MiB/s | CPU s | peak MiB | curl's speed x |");
    println!("|---|---:|---:|---:|---:|---:|");
    let mut curl_seconds = None;
    for who in ["curl", "Updraft", "libtorrent"] {
        let one = || {
            let lab = Lab::new();
            let web_node = limit.as_ref().map_or_else(|| lab.node(), |limit| lab.slow_node(limit));
            let web = Nginx::start(&lab, &web_node, parent(&source));
            let node = lab.node();
            let torrent = dir.join("web.torrent");
            create_torrent(&source, &torrent, &["--format", "v1", "--web-seed", &web.url]);
            match who {
                "curl" => {
                    let mut command = node.command("curl");
                    command.args(["-s", "-o"]).arg(dir.join("curl.bin"));
                    command.arg(format!("{}data.bin", web.url));
                    Proc::start("curl", command).cost(RUN_WAIT)
                }
                "Updraft" => our_leech(dir, &source, &node, &torrent, &[], &[]),
                _ => their_leech(dir, &node, &torrent, &[], &tcp()),
            }
        };
        let best = (0..rounds.max(1)).map(|_| one());
        let best = best.min_by(|a: &Cost, b| a.seconds.total_cmp(&b.seconds));
        let best = best.expect("there is at least one round");
        let curl = *curl_seconds.get_or_insert(best.seconds);
        println!(
            "| {who} | {:.2} | {:.0} | {:.2} | {:.0} | {:.2} |",
            best.seconds,
            mib(args.bytes) / best.seconds,
            best.cpu_seconds,
            mib(best.resident_peak),
            curl / best.seconds,
        );
    }
}
