//! One seed and some leechers, links without limits: what the processors can do.

use std::path::Path;

use serde_json::json;
use updraft_tests::content;

use crate::engine::{Distance, Engine};
use crate::report::{RUN_WAIT, mib, ratio};
use crate::swarm::{Outcome, Swarm};

/// The swarm.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of the file.
    #[arg(long, default_value_t = 512 << 20)]
    bytes: u64,
    /// Leechers.
    #[arg(long, default_value_t = 8)]
    leechers: usize,
    /// Other engines to measure as well.
    #[arg(long, value_delimiter = ',')]
    with: Vec<Engine>,
    /// Use addresses of a local network instead of ones of the internet.
    #[arg(long)]
    near: bool,
}

/// Ours beside the others, a line of JSON for each run and a table of the fastest.
pub(crate) fn run(dir: &Path, rounds: u32, args: &Args) {
    let source = dir.join("source/data.bin");
    content::write_file(&source, 1, args.bytes);
    let mut rows = Vec::new();
    for engine in std::iter::once(Engine::Updraft).chain(args.with.clone()) {
        let mut best: Option<(f64, Outcome)> = None;
        for _ in 0..rounds.max(1) {
            let swarm = Swarm {
                dir,
                source: &source,
                piece_bytes: 1 << 20,
                format: "v1",
                seed: engine,
                leechers: vec![engine; args.leechers],
                seed_up: None,
                peer_up: None,
                distance: if args.near { Distance::Near } else { Distance::Far },
                within: RUN_WAIT,
                http: false,
            };
            let outcome = swarm.run();
            let mut line = outcome.json(args.bytes);
            line["bench"] = json!("many");
            line["engine"] = json!(engine.name());
            println!("{line}");
            let ends = outcome.ends.iter().map(|end| end.unwrap_or(f64::INFINITY));
            let last = ends.fold(0.0, f64::max);
            if best.as_ref().is_none_or(|(seconds, _)| last < *seconds) {
                best = Some((last, outcome));
            }
        }
        rows.extend(best.map(|(last, outcome)| row(engine, last, &outcome, args)));
    }
    println!("\n## One seed, {} leechers, {:.0} MiB, no limits\n", args.leechers, mib(args.bytes));
    println!(
        "| engine | first s | last s | seed sent, copies | wire / N x size | CPU s, seed | a leech |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        println!("{row}");
    }
}

#[allow(clippy::cast_precision_loss)]
fn row(engine: Engine, last: f64, outcome: &Outcome, args: &Args) -> String {
    let count = args.leechers as f64;
    let first = outcome.ends.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    format!(
        "| {} | {first:.2} | {last:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
        engine.name(),
        ratio(outcome.seed_payload, args.bytes),
        ratio(outcome.wire, args.bytes) / count,
        outcome.seed_cpu,
        outcome.peer_cpu / count,
    )
}
