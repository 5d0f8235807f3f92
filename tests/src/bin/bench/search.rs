//! The leaf search alone: one core over bytes in memory, of which nothing is found.

use std::time::Instant;

use updraft_launcher::search::Search;
use updraft_tests::content::{Noise, noise};

use crate::report::mib;

/// What is searched for in what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of old files.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: usize,
    /// Windows looked for.
    #[arg(long, default_value_t = 100_000)]
    windows: usize,
}

/// Measures.
pub(crate) fn run(rounds: u32, args: &Args) {
    let data = noise(1, args.bytes);
    let mut hashes = Noise::new(2);
    let hashes: Vec<u64> = (0..args.windows).map(|_| hashes.number()).collect();
    let mut best = f64::INFINITY;
    for _ in 0..rounds.max(1) {
        let mut search = Search::new(hashes.clone());
        let began = Instant::now();
        search.scan(data.as_slice(), 0, &mut Vec::new(), |_| true).expect("memory can be read");
        best = best.min(began.elapsed().as_secs_f64());
        assert_eq!(search.missing(), args.windows, "noise is not found in noise");
    }
    println!(
        "searched {:.0} MiB for {} windows: {:.0} MiB/s on one core",
        mib(args.bytes as u64),
        args.windows,
        mib(args.bytes as u64) / best
    );
}
