//! A release day of whole engines: a thousand of them, under virtual time.

use super::at_least_one;
use std::time::{Duration, Instant};
use updraft_protocol::simulation::{Crowd, Report};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leechers beside the one seed.
    #[arg(long, default_value_t = 16, value_parser = at_least_one::<usize>)]
    leechers: usize,
    /// Pieces of the release.
    #[arg(long, default_value_t = 160, value_parser = at_least_one::<u32>)]
    pieces: u32,
    /// Bytes of a piece.
    #[arg(long, default_value_t = 256 << 10, value_parser = piece_length)]
    piece_length: u32,
    /// Home links of all kinds instead of equal ones.
    #[arg(long)]
    mixed: bool,
    /// The seed's upstream rate, in bytes per second.
    #[arg(long, value_parser = at_least_one::<u64>)]
    seed_up: Option<u64>,
    /// The leechers' upstream rate, in bytes per second.
    #[arg(long, value_parser = at_least_one::<u64>)]
    up: Option<u64>,
    /// An HTTP origin with this rate, in bytes per second.
    #[arg(long, value_parser = at_least_one::<u64>)]
    origin: Option<u64>,
    /// One in so many leaves when it is complete.
    #[arg(long, default_value_t = 0)]
    leaves: usize,
    /// One in so many is ten times slower.
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// One in so many lies.
    #[arg(long, default_value_t = 0)]
    liars: usize,
    /// The seed of every choice.
    #[arg(long, default_value_t = 1)]
    random: u64,
}

fn piece_length(text: &str) -> Result<u32, String> {
    let length = text.parse().ok().filter(|length: &u32| length.is_power_of_two());
    let length = length.filter(|length| (16 << 10..=64 << 20).contains(length));
    length.ok_or_else(|| "a power of two from 16384 to 67108864, in bytes".to_owned())
}

pub(crate) fn run(args: &Args) {
    let base = if args.mixed { Crowd::mixed } else { Crowd::plain };
    let mut crowd = base(args.leechers, args.pieces, args.piece_length);
    crowd.seed_up = args.seed_up.unwrap_or(crowd.seed_up);
    if let Some(up) = args.up {
        crowd.up = vec![up];
    }
    (crowd.origin, crowd.random) = (args.origin, args.random);
    (crowd.leaves, crowd.slow, crowd.liars) = (args.leaves, args.slow, args.liars);
    let began = Instant::now();
    let (mut world, leechers) = crowd.world();
    let last = world.run(&leechers, Duration::from_secs(100_000));
    let report = Report::of(&world, &leechers);
    println!("{report:.3?}");
    let all: u64 = world.nodes.iter().map(|node| node.host.up).sum();
    let shares: Vec<u64> = world.sent.iter().map(|sent| sent * 100 / all).collect();
    println!("uplinks in use, percent by second: {shares:?}");
    println!("virtual {:.1} s, real {:.1} s", last.as_secs_f64(), began.elapsed().as_secs_f64());
}
