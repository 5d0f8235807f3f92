//! The policy alone, for crowds of 100 000: what a release day is like where an engine for each player
//! would not fit.
//!
//! Peers are what [`crate::policy`] needs to decide and no more: the shipping picker, choker, slots,
//! spread, windows, endgame and dialling, over real blocks. There are no messages. Payload flows as in
//! the flow-level models of networks: time goes in steps of [`STEP`], in each an uplink sends as many
//! blocks as fit, in turn, and a downlink takes as many. Whoever is served asks at once; what has come is
//! heard of by neighbours with the delay that the engine allows itself.
//!
//! Left out, beside what [`World`](super::World) leaves out: loss, lies, HTTP, disks, time-outs, and the
//! bytes of messages. A test compares both worlds; they differ by less than a tenth.
//!
//! Availability is counters inside the pickers: a HAVE costs an increment and a change of bucket, made for
//! all of a neighbour's news at once while the picker is in the cache. That, and flat arrays for what is
//! looked up of others, is what makes 100 000 peers a matter of minutes.

mod meeting;
mod peer;
mod receiving;
mod sending;

use super::report::{Life, Report, Totals};
use super::{Bound, Crowd};
use crate::bitfield::Bitfield;
use crate::geometry::{BLOCK_LEN, FileSpan, Geometry};
use crate::ids::PieceIndex;
use crate::policy::spread::Spread;
use meeting::TELL_STEPS;
use peer::Peer;
use std::sync::Arc;
use std::time::Duration;

/// What is decided and sent between two looks at the world.
const STEP: Duration = Duration::from_millis(100);
/// Steps in a second: rates are ticked once in so many.
const STEPS_PER_SECOND: u64 = 10;

/// A crowd of which only the policy is real.
#[derive(Debug)]
pub struct FlowLevel {
    geometry: Arc<Geometry>,
    bound: Bound,
    now: Duration,
    step: u64,
    /// The seed, then the leechers.
    peers: Vec<Peer>,
    /// What each has.
    have: Vec<Bitfield>,
    /// What each has got, in that order: neighbours read it as they hear of it.
    got: Vec<Vec<PieceIndex>>,
    /// How long those are, close together.
    got_count: Vec<u32>,
    /// Whom the tracker knows.
    tracked: Vec<u32>,
    incomplete: usize,
    copies_out: Bitfield,
    first_copy: Option<u64>,
    wasted: u64,
    rng: fastrand::Rng,
}

impl FlowLevel {
    /// The world of a crowd, each of whose pieces is cut into `blocks`: fewer are faster to run, and
    /// coarser. `None` if that makes no torrent.
    pub fn new(crowd: &Crowd, blocks: u32) -> Option<Self> {
        // A block has 16 KiB in here, whatever it stands for: rates are scaled with it.
        let piece_length = blocks.checked_mul(BLOCK_LEN)?;
        let scale = f64::from(crowd.piece_length) / f64::from(piece_length);
        let total = u64::from(crowd.pieces) * u64::from(piece_length);
        let files = vec![FileSpan { offset: 0, length: total }];
        let geometry = Arc::new(Geometry::new(piece_length, total, files)?);
        let hosts = crowd.hosts();
        let size = u64::from(crowd.pieces) * u64::from(crowd.piece_length);
        let mut rng = fastrand::Rng::with_seed(crowd.random);
        let seed = Bitfield::full(crowd.pieces);
        let peers: Vec<Peer> = hosts
            .iter()
            .map(|host| Peer::new(host, scale, &geometry, fastrand::Rng::with_seed(rng.u64(..))))
            .collect();
        let mut world = Self {
            bound: Bound::new(size, hosts.iter()),
            now: Duration::ZERO,
            step: 0,
            have: peers.iter().map(|peer| peer.picker.have().clone()).collect(),
            got: peers.iter().map(|_| Vec::new()).collect(),
            got_count: vec![0; peers.len()],
            tracked: Vec::new(),
            incomplete: peers.iter().filter(|peer| !peer.picker.is_complete()).count(),
            copies_out: Bitfield::empty(crowd.pieces),
            first_copy: None,
            wasted: 0,
            rng,
            geometry,
            peers,
        };
        for peer in world.peers.iter_mut().filter(|peer| peer.seed) {
            peer.spread = Some(Spread::new(&seed, 1, &mut world.rng));
        }
        Some(world)
    }

    /// Runs until everybody has everything, at most until `limit`. True if everybody has.
    pub fn run(&mut self, limit: Duration) -> bool {
        while self.incomplete > 0 && self.now < limit {
            self.step += 1;
            self.now += STEP;
            // Nobody comes first always.
            let count = self.peers.len();
            let first = usize::try_from(self.step.wrapping_mul(7919)).unwrap_or_default() % count;
            for at in (first..count).chain(0..first) {
                if self.peers[at].start <= self.now {
                    self.visit(at);
                }
            }
        }
        self.incomplete == 0
    }

    /// The fluid bound.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// Those that lack something.
    pub fn incomplete(&self) -> usize {
        self.incomplete
    }

    /// Sums up a run in which everybody got everything.
    pub fn report(&self) -> Report {
        let lives = self.peers.iter().filter(|peer| !peer.seed);
        let lives = lives.filter_map(|peer| {
            Some(Life {
                start: peer.start,
                nearly_at: peer.nearly_at?,
                complete_at: peer.complete_at?,
            })
        });
        let seeds = self.peers.iter().filter(|peer| peer.seed);
        let totals = Totals {
            size: self.geometry.content_len(),
            first_copy: self.first_copy,
            seeds_sent: seeds.map(|peer| peer.up_rate.total()).sum(),
            from_peers: self.peers.iter().map(|peer| peer.up_rate.total()).sum(),
            from_http: 0,
            wasted: self.wasted,
            seed_idle: self.peers.iter().map(|peer| peer.idle_time).sum(),
        };
        Report::new(self.bound, lives.collect(), totals)
    }

    /// One step of one peer.
    fn visit(&mut self, at: usize) {
        if self.peers[at].gone {
            return;
        }
        let index = u64::try_from(at).unwrap_or_default();
        let ticks = (self.step + index).is_multiple_of(STEPS_PER_SECOND);
        if ticks {
            self.peers[at].tick();
        }
        self.meet(at);
        self.hear(at, (self.step + index).is_multiple_of(TELL_STEPS));
        self.serve(at);
    }

    /// `at` has everything.
    fn completed(&mut self, at: usize) {
        self.peers[at].complete_at = Some(self.now);
        self.incomplete -= 1;
        if self.peers[at].leaves {
            self.leave(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slowly(crowd: Crowd) -> Crowd {
        Crowd { seed_up: crowd.seed_up / 6, up: vec![200_000], ..crowd }
    }

    fn run(crowd: &Crowd, blocks: u32) -> Report {
        let mut world = FlowLevel::new(crowd, blocks).unwrap();
        assert!(world.run(Duration::from_secs(10_000)), "{} are not done", world.incomplete());
        world.report()
    }

    /// Both worlds tell the same story: within a seventh.
    #[test]
    fn the_policy_alone_agrees_with_whole_engines() {
        let crowd = slowly(Crowd::plain(60, 160, 4 * BLOCK_LEN));
        let (mut world, leechers) = crowd.world();
        world.run(&leechers, Duration::from_secs(10_000));
        let (engines, policy) = (Report::of(&world, &leechers), run(&crowd, 4));
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1.0 / 7.0;
        assert!(close(policy.median, engines.median), "{policy:?}\n{engines:?}");
        assert!(close(policy.p99, engines.p99), "{policy:?}\n{engines:?}");
        assert!(close(policy.last, engines.last), "{policy:?}\n{engines:?}");
        assert!(policy.first_copy < 1.3 && policy.seed_idle < 1.0, "{policy:?}");
    }

    #[test]
    fn the_same_seed_is_the_same_run() {
        let crowd = |random| Crowd { leaves: 10, random, ..Crowd::mixed(100, 32, 8 * BLOCK_LEN) };
        let run = |random| format!("{:?}", run(&crowd(random), 2));
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_piece_of_no_blocks_or_too_many_is_no_torrent() {
        let crowd = Crowd::plain(1, 8, BLOCK_LEN);
        assert!(FlowLevel::new(&crowd, 0).is_none());
        assert!(FlowLevel::new(&crowd, u32::MAX).is_none());
    }
}
