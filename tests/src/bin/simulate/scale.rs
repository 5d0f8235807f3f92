//! How the time of a release day grows with the crowd.

use super::{at_least_one, plot};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use updraft_protocol::simulation::{Crowd, FlowLevel, Report};

/// A run that takes so many times the fluid bound is given up.
const GIVE_UP: f64 = 20.0;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The crowds, by their leechers.
    #[arg(long, visible_alias = "peers", value_delimiter = ',', value_parser = at_least_one::<usize>)]
    #[arg(default_value = "100,1000,10000,100000")]
    leechers: Vec<usize>,
    /// Bytes of the release.
    #[arg(long, default_value_t = 64 << 20, value_parser = at_least_one::<u64>)]
    size: u64,
    /// Pieces it is cut into: more are nearer to a large release, and slower to run.
    #[arg(long, default_value_t = 128, value_parser = at_least_one::<u32>)]
    pieces: u32,
    /// Blocks that each piece is cut into.
    #[arg(long, default_value_t = 4, value_parser = at_least_one::<u32>)]
    blocks: u32,
    /// The seed's upstream rate, in bytes per second.
    #[arg(long, value_parser = at_least_one::<u64>)]
    seed_up: Option<u64>,
    /// The leechers' upstream rates in turn, in bytes per second, instead of home links of all kinds.
    #[arg(long, value_delimiter = ',', value_parser = at_least_one::<u64>)]
    up: Vec<u64>,
    /// One in so many leaves when it is complete.
    #[arg(long, default_value_t = 0)]
    leaves: usize,
    /// One in so many is ten times slower.
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// The seed of every choice.
    #[arg(long, default_value_t = 1)]
    random: u64,
    /// Draws the result into this file (SVG).
    #[arg(long)]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let piece_length = u32::try_from(args.size.div_ceil(u64::from(args.pieces)))
        .map_err(|_| "a piece would have 4 GiB or more: name more --pieces".to_owned())?;
    let mut points = Vec::new();
    for &leechers in &args.leechers {
        let mut crowd = Crowd::mixed(leechers, args.pieces, piece_length);
        crowd.seed_up = args.seed_up.unwrap_or(crowd.seed_up);
        if !args.up.is_empty() {
            crowd.up.clone_from(&args.up);
        }
        (crowd.leaves, crowd.slow, crowd.random) = (args.leaves, args.slow, args.random);
        let began = Instant::now();
        let mut world = FlowLevel::new(&crowd, args.blocks)
            .ok_or("the pieces cannot be cut into so many --blocks: name fewer")?;
        let limit = Duration::from_secs_f64(world.bound().seconds * GIVE_UP);
        if !world.run(limit) {
            let left = world.incomplete();
            return Err(format!("{left} of {leechers} were not done after {limit:.0?}"));
        }
        let report = world.report();
        println!("{}", line(leechers, args, &report, began.elapsed()));
        points.push((leechers, report));
        if let Some(file) = &args.plot {
            plot::draw(file, &points).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(())
}

fn line(leechers: usize, args: &Args, report: &Report, took: Duration) -> serde_json::Value {
    let round = |number: f64| (number * 1000.0).round() / 1000.0;
    serde_json::json!({
        "leechers": leechers,
        "size_bytes": args.size,
        "pieces": args.pieces,
        "t_min_seconds": round(report.bound),
        "median": round(report.median),
        "p99": round(report.p99),
        "last": round(report.last),
        "tail_median": round(report.tail_median),
        "tail_p99": round(report.tail_p99),
        "tail_worst": round(report.tail),
        "first_copy": round(report.first_copy),
        "seed_copies": round(report.seeds_sent),
        "wasted": round(report.wasted),
        "real_seconds": round(took.as_secs_f64()),
        "memory_peak_mib": memory_peak_mib(),
    })
}

/// The most memory this process has held, where the system tells.
fn memory_peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}
