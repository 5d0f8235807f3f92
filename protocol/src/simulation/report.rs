//! How a run compares with what is possible at all.

use super::{Host, World};
use std::time::Duration;

/// The fluid bound on the time until the last leecher has everything, in seconds: the seed must
/// send it once, the slowest must receive it, and all uplinks together must send it so many times
/// (Kumar and Ross, "Peer-assisted file distribution: the minimum distribution time", 2006).
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Seconds.
    pub seconds: f64,
}

impl Bound {
    /// The bound for `size` bytes and these seeds and leechers.
    #[allow(clippy::cast_precision_loss)] // rates and sizes are estimates at this scale
    pub fn new<'a>(size: u64, hosts: impl Iterator<Item = &'a Host>) -> Self {
        let size = size as f64;
        let (mut count, mut seeds, mut peers, mut slowest) = (0.0, 0.0, 0.0, f64::INFINITY);
        for host in hosts {
            if host.seed {
                seeds += host.up as f64;
            } else {
                count += 1.0;
                peers += host.up as f64;
                slowest = host.down.map_or(slowest, |down| slowest.min(down as f64));
            }
        }
        let seconds = (size / seeds).max(size / slowest).max(count * size / (seeds + peers));
        Self { seconds }
    }

    /// The bound for `leechers` of a world, fed by everybody who begins with everything.
    pub fn of(world: &World, leechers: &[usize]) -> Self {
        let counts = |(at, host): (usize, &Host)| host.seed || leechers.contains(&at);
        let hosts = world.nodes.iter().map(|node| &node.host).enumerate();
        Self::new(world.size(), hosts.filter(|&one| counts(one)).map(|(_, host)| host))
    }

    /// The bound if the seed goes when it has sent `sent` bytes: the leechers alone must send the rest.
    #[allow(clippy::cast_precision_loss)] // rates and sizes are estimates at this scale
    pub(super) fn without_seed(self, world: &World, leechers: &[usize], sent: u64) -> Self {
        let up: u64 = leechers.iter().map(|&host| world.nodes[host].host.up).sum();
        let all = world.size() as f64 * leechers.len() as f64;
        Self { seconds: self.seconds.max((all - sent as f64) / up as f64) }
    }

    /// `took` as a multiple of the bound.
    pub fn ratio(self, took: Duration) -> f64 {
        took.as_secs_f64() / self.seconds
    }
}

/// What is told of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The bound, in seconds.
    pub bound: f64,
    /// When the middle one was done, over the bound.
    pub median: f64,
    /// When 99 of 100 were done, over the bound.
    pub p99: f64,
    /// When the last one was done, over the bound.
    pub last: f64,
    /// Copies that the seeds had sent when every piece had reached somebody else.
    pub first_copy: f64,
    /// Copies that the seeds sent in all.
    pub seeds_sent: f64,
    /// Payload over HTTP as a share of all.
    pub http: f64,
    /// Payload that came for nothing, as a share of all.
    pub wasted: f64,
    /// The longest time from 99 of 100 pieces to all, over the whole time of that leecher.
    pub tail: f64,
    /// The same that 99 of 100 leechers stay below.
    pub tail_p99: f64,
    /// The same of the middle one.
    pub tail_median: f64,
    /// Time that the seeds' uplinks stood idle before the first copy was out, in seconds.
    pub seed_idle: f64,
}

/// A leecher that got everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) start: Duration,
    /// When it had 99 of 100 pieces.
    pub(super) nearly_at: Duration,
    pub(super) complete_at: Duration,
}

/// What was sent in a run, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub(super) size: u64,
    pub(super) first_copy: Option<u64>,
    pub(super) seeds_sent: u64,
    pub(super) from_peers: u64,
    pub(super) from_http: u64,
    pub(super) wasted: u64,
    pub(super) seed_idle: Duration,
}

impl Report {
    /// Sums up a run for `leechers`, who all have everything, each timed from its start.
    pub fn of(world: &World, leechers: &[usize]) -> Self {
        let nodes = || leechers.iter().map(|&host| &world.nodes[host]);
        let lives = nodes().filter_map(|node| {
            let (nearly_at, complete_at) = (node.nearly_at?, node.complete_at?);
            Some(Life { start: node.host.start, nearly_at, complete_at })
        });
        let seeds = world.nodes.iter().filter(|node| node.host.seed);
        let totals = Totals {
            size: world.size(),
            first_copy: world.first_copy,
            seeds_sent: seeds.map(|node| node.stats().up).sum(),
            from_peers: nodes().map(|node| node.stats().down_peers).sum(),
            from_http: nodes().map(|node| node.stats().down_http).sum(),
            wasted: nodes().map(|node| node.stats().wasted).sum(),
            seed_idle: world.seed_idle,
        };
        Self::new(Bound::of(world, leechers), lives.collect(), totals)
    }

    /// Sums up.
    #[allow(clippy::cast_precision_loss)] // shares and ratios
    pub(super) fn new(bound: Bound, lives: Vec<Life>, totals: Totals) -> Self {
        let times = lives.iter().map(|life| bound.ratio(life.complete_at - life.start)).collect();
        let tails = lives.iter().map(|life| {
            let whole = life.complete_at - life.start;
            (life.complete_at - life.nearly_at).div_duration_f64(whole)
        });
        let (times, tails) = (Quantiles::new(times), Quantiles::new(tails.collect()));
        let (size, all) = (totals.size as f64, (totals.from_peers + totals.from_http) as f64);
        Self {
            bound: bound.seconds,
            median: times.at(0.5),
            p99: times.at(0.99),
            last: times.at(1.0),
            first_copy: totals.first_copy.map_or(f64::NAN, |bytes| bytes as f64 / size),
            seeds_sent: totals.seeds_sent as f64 / size,
            http: totals.from_http as f64 / all,
            wasted: totals.wasted as f64 / all,
            tail: tails.at(1.0),
            tail_p99: tails.at(0.99),
            tail_median: tails.at(0.5),
            seed_idle: totals.seed_idle.as_secs_f64(),
        }
    }
}

/// Numbers in ascending order.
#[derive(Clone, Debug)]
pub struct Quantiles(Vec<f64>);

impl Quantiles {
    /// Puts them in order.
    pub fn new(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        Self(numbers)
    }

    /// Each over the one at the same place of `other`, which has as many, where that is not below `least`.
    pub(super) fn over(&self, other: &Self, least: f64) -> Vec<f64> {
        assert_eq!(self.0.len(), other.0.len(), "what is compared has the same length");
        self.0.iter().zip(&other.0).map(|(own, other)| own / other.max(least)).collect()
    }

    /// The number that `share` of the others stay below; NaN if there is none.
    pub fn at(&self, share: f64) -> f64 {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let index = (self.0.len().saturating_sub(1) as f64 * share).round() as usize;
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }
}
