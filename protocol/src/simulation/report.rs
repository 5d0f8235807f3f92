//! How a run compares with what is possible at all.

use super::World;
use std::time::Duration;

/// The fluid bound on the time until the last of `leechers` has everything, in seconds: the seed must
/// send it once, the slowest must receive it, and all uplinks together must send it so many times
/// (Kumar and Ross, "Peer-assisted file distribution: the minimum distribution time", 2006).
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Seconds.
    pub seconds: f64,
}

impl Bound {
    /// The bound for `leechers` fed by everybody who begins with everything.
    pub fn of(world: &World, leechers: &[usize]) -> Self {
        #[allow(clippy::cast_precision_loss)] // rates and sizes are estimates at this scale
        let (size, count) = (world.size() as f64, leechers.len() as f64);
        #[allow(clippy::cast_precision_loss)]
        let rate = |hosts: &mut dyn Iterator<Item = usize>| {
            hosts.map(|host| world.nodes[host].host.up as f64).sum::<f64>()
        };
        let seeds = rate(&mut (0..world.nodes.len()).filter(|&host| world.nodes[host].host.seed));
        let peers = rate(&mut leechers.iter().copied());
        #[allow(clippy::cast_precision_loss)]
        let slowest = leechers
            .iter()
            .filter_map(|&host| world.nodes[host].host.down)
            .min()
            .map_or(0.0, |down| size / down as f64);
        let seconds = (size / seeds).max(slowest).max(count * size / (seeds + peers));
        Self { seconds }
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
    /// The same of the middle one.
    pub tail_median: f64,
    /// Time that the seeds' uplinks stood idle before the first copy was out, in seconds.
    pub seed_idle: f64,
}

impl Report {
    /// Sums up a run for `leechers`, who all have everything, each timed from its start.
    #[allow(clippy::cast_precision_loss)] // shares and ratios
    pub fn of(world: &World, leechers: &[usize]) -> Self {
        let bound = Bound::of(world, leechers);
        let mut times: Vec<Duration> = leechers
            .iter()
            .filter_map(|&host| {
                let node = &world.nodes[host];
                Some(node.complete_at? - node.host.start)
            })
            .collect();
        times.sort_unstable();
        let at = |share: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let index = ((times.len() - 1) as f64 * share).round() as usize;
            bound.ratio(times[index])
        };
        let tail = leechers.iter().filter_map(|&host| {
            let node = &world.nodes[host];
            let whole = node.complete_at?.saturating_sub(node.host.start).as_secs_f64();
            Some((node.complete_at? - node.nearly_at?).as_secs_f64() / whole)
        });
        let mut tail: Vec<f64> = tail.collect();
        tail.sort_by(f64::total_cmp);
        let size = world.size() as f64;
        let sum = |of: &dyn Fn(&super::Node) -> u64| {
            leechers.iter().map(|&host| of(&world.nodes[host])).sum::<u64>() as f64
        };
        let http = sum(&|node| node.stats().down_http);
        let all = sum(&|node| node.stats().down_peers) + http;
        let seeds = world.nodes.iter().filter(|node| node.host.seed);
        Self {
            bound: bound.seconds,
            median: at(0.5),
            p99: at(0.99),
            last: at(1.0),
            first_copy: world.first_copy.map_or(f64::NAN, |bytes| bytes as f64 / size),
            seeds_sent: seeds.map(|node| node.stats().up).sum::<u64>() as f64 / size,
            http: http / all,
            wasted: sum(&|node| node.stats().wasted) / all,
            tail: tail.last().copied().unwrap_or_default(),
            tail_median: tail.get(tail.len() / 2).copied().unwrap_or_default(),
            seed_idle: world.seed_idle.as_secs_f64(),
        }
    }
}
