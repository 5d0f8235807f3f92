//! A flash crowd on shaped uplinks, against the time that no scheduling can beat.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use updraft_tests::content;

use crate::engine::{Distance, Engine};
use crate::report::{median, mib, ratio};
use crate::swarm::{Outcome, Swarm};

/// A leecher that takes so many times the bound will never be done.
const PATIENCE: f64 = 6.0;

/// The crowd.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of the file.
    #[arg(long, default_value_t = 40 << 20)]
    bytes: u64,
    /// Bytes of a piece.
    #[arg(long, default_value_t = 256 << 10)]
    piece_bytes: u64,
    /// The kind of torrent; rqbit reads v1.
    #[arg(long, default_value = "v1")]
    format: String,
    /// Leechers.
    #[arg(long, default_value_t = 16)]
    leechers: usize,
    /// The seed's uplink in Mbit/s.
    #[arg(long, default_value_t = 20.0)]
    seed_up: f64,
    /// The uplink of each leecher in Mbit/s.
    #[arg(long, default_value_t = 10.0)]
    peer_up: f64,
    /// Other engines to measure as well.
    #[arg(long, value_delimiter = ',')]
    with: Vec<Engine>,
    /// Let every second leecher be of the engines named by `--with`, seeded by ours.
    #[arg(long)]
    mixed: bool,
    /// A web server on an unlimited link has the content too.
    #[arg(long)]
    http: bool,
    /// Use addresses of a local network instead of ones of the internet.
    #[arg(long)]
    near: bool,
}

/// Runs ours and the others, a line of JSON for each run and a table of all.
pub(crate) fn run(dir: &Path, rounds: u32, args: &Args) {
    let source = dir.join("source/data.bin");
    content::write_file(&source, 1, args.bytes);
    let seed_up = format!("{}kbit", args.seed_up * 1000.0);
    let peer_up = format!("{}kbit", args.peer_up * 1000.0);
    let bound = bound_seconds(args.bytes, args.leechers, args.seed_up * 1e6, args.peer_up * 1e6);
    let mut rows = Vec::new();
    let crowds: Vec<(Engine, Vec<Engine>)> = if args.mixed {
        let kinds: Vec<_> = std::iter::once(Engine::Updraft).chain(args.with.clone()).collect();
        vec![(Engine::Updraft, kinds.iter().copied().cycle().take(args.leechers).collect())]
    } else {
        let engines = std::iter::once(Engine::Updraft).chain(args.with.clone());
        engines.map(|engine| (engine, vec![engine; args.leechers])).collect()
    };
    for (seed, leechers) in crowds {
        for _ in 0..rounds.max(1) {
            let swarm = Swarm {
                dir,
                source: &source,
                piece_bytes: args.piece_bytes,
                format: &args.format,
                seed,
                leechers: leechers.clone(),
                seed_up: Some(&seed_up),
                peer_up: Some(&peer_up),
                distance: if args.near { Distance::Near } else { Distance::Far },
                within: Duration::from_secs_f64(bound * PATIENCE + 30.0),
                http: args.http,
            };
            let outcome = swarm.run();
            let mut line = outcome.json(args.bytes);
            line["bench"] = json!(if args.mixed { "mixed" } else { "flash" });
            line["seed"] = json!(seed.name());
            line["engines"] =
                json!(leechers.iter().map(|engine| engine.name()).collect::<Vec<_>>());
            line["seed_up_mbit"] = json!(args.seed_up);
            line["peer_up_mbit"] = json!(args.peer_up);
            line["bound_seconds"] = json!(bound);
            println!("{line}");
            rows.extend(table_rows(&swarm, &outcome, bound, args.seed_up * 1e6));
        }
    }
    println!(
        "\n## Flash crowd: {:.0} MiB, seed {} Mbit/s, {} leechers {} Mbit/s; T_min {bound:.1} s{}\n",
        mib(args.bytes),
        args.seed_up,
        args.leechers,
        args.peer_up,
        if args.http { ", with a web server" } else { "" },
    );
    println!(
        "| engine | leechers | first / T_min | median | last | wire / N x size | first copy out, s | \
         seed's payload until then, copies | in all | seed's link busy | HTTP share | CPU s, seed | a leech |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        println!("{row}");
    }
}

/// The least time in which everybody can have everything: seconds, for bits per second.
#[allow(clippy::cast_precision_loss)]
fn bound_seconds(bytes: u64, leechers: usize, seed_up: f64, peer_up: f64) -> f64 {
    let bits = bytes as f64 * 8.0;
    let count = leechers as f64;
    // Downlinks have no limit here.
    (bits / seed_up).max(count * bits / (seed_up + count * peer_up))
}

/// One row for each engine in the swarm.
#[allow(clippy::cast_precision_loss)]
fn table_rows(swarm: &Swarm<'_>, outcome: &Outcome, bound: f64, seed_up: f64) -> Vec<String> {
    let bytes = swarm.bytes();
    let copies = |payload: u64| ratio(payload, bytes);
    let count = swarm.leechers.len() as f64;
    let last = outcome.ends.iter().flatten().copied().fold(0.0, f64::max);
    // How much of what the link could carry until the last was done it did carry.
    let looks = outcome.seed_rates.iter().map(|rate| (rate / seed_up).min(1.0));
    let busy = looks.sum::<f64>() / outcome.seed_rates.len().max(1) as f64;
    let mut engines = swarm.leechers.clone();
    engines.sort_by_key(|engine| engine.name());
    engines.dedup();
    let row = |engine: Engine| {
        let of_engine = swarm.leechers.iter().zip(&outcome.ends).filter(|(of, _)| **of == engine);
        let ends: Vec<_> = of_engine.map(|(_, end)| *end).collect();
        let mut done: Vec<_> = ends.iter().flatten().copied().collect();
        done.sort_by(f64::total_cmp);
        let text = |end: Option<&f64>| {
            end.map_or_else(|| "-".to_owned(), |end| format!("{:.3}", end / bound))
        };
        let all = if done.len() == ends.len() { text(done.last()) } else { "never".to_owned() };
        format!(
            "| {} | {} | {} | {} | {all} | {:.3} | {} | {} | {:.2} | {:.0} % of {last:.1} s | {:.1} % | {:.2} | {:.2} |",
            engine.name(),
            ends.len(),
            text(done.first()),
            text(median(&done).as_ref()),
            ratio(outcome.wire, bytes) / count,
            outcome.first_copy.map_or_else(|| "-".to_owned(), |(at, _)| format!("{at:.1}")),
            outcome
                .first_copy
                .map_or_else(|| "-".to_owned(), |(_, sent)| format!("{:.3}", copies(sent))),
            copies(outcome.seed_payload),
            busy * 100.0,
            ratio(outcome.http_wire, outcome.wire) * 100.0,
            outcome.seed_cpu,
            outcome.peer_cpu / count,
        )
    };
    engines.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::bound_seconds;

    #[test]
    fn the_bound_is_the_slowest_of_what_must_happen() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 0.01, "{found}");
        // Once through the seed's link; then what all links together can carry.
        close(bound_seconds(5 << 20, 1, 1e6, 9e9), 41.94);
        close(bound_seconds(40 << 20, 16, 20e6, 10e6), 29.83);
        close(bound_seconds(40 << 20, 60, 20e6, 10e6), 32.47);
    }
}
