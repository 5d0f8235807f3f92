//! When HTTP carries what the swarm does not deliver, how much of it, and which part.
//!
//! HTTP is the origin's own bandwidth, so it is not raced against peers. It steps in when there is no
//! peer to ask, when peers deliver less than anybody would wait for, for the last percent when that is
//! predicted to hang, for what is needed first and would come late, and for pieces that nobody here
//! has. As soon as peers deliver, no new range is begun.
//!
//! Who is alone with the origin takes what it needs. In a swarm everybody decides by these rules, so
//! each has a [`Budget`] that shrinks with the number of others: together they take about one copy, and
//! a little more for as long as the swarm is slow. Which part of it is whose follows from a hash over
//! the names of those who know each other ([`place`]): they seldom meet, without a word.

use std::ops::Range;
use std::time::Duration;

/// Time given to trackers and peers before HTTP begins, if the trackers have not yet said that
/// there is nobody.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// …and if the tracker knows of somebody who has everything.
const PATIENCE_SEEDED: Duration = Duration::from_secs(6);
/// Peers that are connected but deliver nothing for this long are helped out.
const STALLED: Duration = Duration::from_secs(8);
/// A piece that no connected peer has is fetched after this time without it.
const RARE: Duration = Duration::from_secs(15);
/// Peers that together deliver less than this, in bytes per second, are helped out: 4 Mbit/s, a
/// gigabyte in half an hour…
const RATE_MIN: u64 = 512 * 1024;
/// …once they have had this time to get going.
const SLOW_AFTER: Duration = Duration::from_secs(10);
/// What is needed first should be there in this time.
const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// The last percent should take no longer than this share of the time before, but for what
/// a round trip and a look at the clock take.
const TAIL_SHARE: f64 = 0.01;
const TAIL_MIN: Duration = Duration::from_millis(300);
const TAIL_BYTES_MIN: u64 = 64 * 1024;
/// Peers get this time first, however little there is to fetch: nothing can be predicted of them before.
const TAIL_AFTER: Duration = Duration::from_secs(1);
/// Ranges in flight at once per source, and in all.
pub const SPANS_MAX: usize = 4;
/// Ranges in flight at once over all sources.
pub const SPANS_TOTAL_MAX: usize = 16;
/// Bytes of one range request, when nothing limits it.
pub const SPAN_BYTES: u64 = 4 << 20;
/// A torrent is shared out in parts of so many bytes, or pieces where these are larger. All clients must
/// agree on it.
pub const PART_BYTES: u64 = 1 << 20;
/// Whoever is next at a part takes it when the one before has had this time.
const PLACE_WAIT: Duration = Duration::from_secs(4);
/// What all who collect may together take of the origin for as long as the swarm is slow, in bytes per
/// second, beyond one copy in all…
const SWARM_RATE: u64 = 1 << 20;
/// …and for as long as there are pieces that nobody has: then the origin does a seed's work.
const SEED_RATE: u64 = 8 << 20;
/// Somebody is behind if most of its peers are ahead by a tenth of the torrent.
const BEHIND: u64 = 10;

/// A pack is fetched where that costs no more than what is missing of it, and so many bytes for each piece:
/// a small file is a request of its own.
const REQUEST_BYTES: u64 = 512;
/// A source of which so many packs could not be had is asked for no more of them.
pub const PACKS_LOST_MAX: usize = 3;

/// A run of pieces that HTTP sources may have compressed as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The pieces.
    pub pieces: Range<u32>,
    /// Compressed bytes.
    pub bytes: u64,
}

impl Packed {
    /// True if it is cheaper than to fetch `missing` bytes in `pieces` pieces as they are.
    pub fn pays(&self, missing: u64, pieces: u32) -> bool {
        self.bytes <= missing + u64::from(pieces) * REQUEST_BYTES
    }
}

/// What the decision rests on.
#[derive(Debug, Clone)]
pub struct Situation {
    /// Now.
    pub now: Duration,
    /// When the download began.
    pub began: Duration,
    /// Every tracker has answered at least once (or there is none), and dialling has ended.
    pub nobody_left_to_try: bool,
    /// Connected peers that have something we want, choking or not.
    pub useful_peers: usize,
    /// The tracker knows of somebody who has everything.
    pub seeded: bool,
    /// How much later than others we step in, so that a crowd does not do so in one moment.
    pub jitter: Duration,
    /// When payload last came from a peer, or the download began.
    pub last_payload: Duration,
    /// Payload from all peers, in bytes per second.
    pub peer_rate: u64,
    /// The download limit, in bytes per second.
    pub limit: Option<u64>,
    /// Wanted pieces that no connected peer has.
    pub nobody_has: u32,
    /// Bytes wanted and not here of what is needed first.
    pub first_left: u64,
    /// How long the last percent is predicted to take with peers alone, if it has begun.
    pub tail: Option<Duration>,
}

/// The decision: what HTTP should fetch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// All there is.
    pub everything: bool,
    /// What is needed first.
    pub first: bool,
    /// Pieces that nobody here has.
    pub rare: bool,
    /// The last percent, also where peers were asked for it and will be late.
    pub tail: bool,
}

impl Need {
    /// The swarm delivers: HTTP is left alone.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// Decides what HTTP should fetch.
pub fn need(situation: &Situation) -> Need {
    let &Situation { now, peer_rate, first_left, .. } = situation;
    let waited = now.saturating_sub(situation.began + situation.jitter);
    if situation.useful_peers == 0 {
        let patience = if situation.seeded { PATIENCE_SEEDED } else { PATIENCE };
        let everything = situation.nobody_left_to_try || waited >= patience;
        return Need { everything, ..Need::default() };
    }
    let floor = RATE_MIN.min(situation.limit.unwrap_or(u64::MAX) / 2);
    let slow = waited >= SLOW_AFTER && peer_rate < floor;
    let stalled = now.saturating_sub(situation.last_payload) >= STALLED;
    let first_in = Duration::from_secs(first_left / peer_rate.max(1));
    Need {
        everything: slow || stalled,
        first: first_left > 0 && waited >= PATIENCE && waited + first_in > FIRST_WITHIN,
        rare: situation.nobody_has > 0 && waited >= RARE,
        tail: waited >= TAIL_AFTER && situation.tail.is_some_and(|due| due > tail_patience(waited)),
    }
}

/// What all who collect may together take of the origin, in bytes per second.
pub fn swarm_rate(situation: &Situation) -> u64 {
    let seedless = situation.useful_peers == 0 || situation.nobody_has > 0;
    if seedless { SEED_RATE } else { SWARM_RATE }
}

/// How long the last percent may take, after so long for all before it.
pub fn tail_patience(waited: Duration) -> Duration {
    waited.mul_f64(TAIL_SHARE).max(TAIL_MIN)
}

/// True if `left` of `wanted` bytes are the last percent, or the last blocks of little.
pub fn is_tail(left: u64, wanted: u64) -> bool {
    left > 0 && left <= (wanted / 100).max(TAIL_BYTES_MIN)
}

/// The size of a range under a download limit in bytes per second: two seconds' worth.
pub fn span_bytes(limit: Option<u64>) -> u64 {
    limit.map_or(SPAN_BYTES, |rate| (2 * rate).clamp(1, SPAN_BYTES))
}

/// True if most of those who collect beside us have far more than we do: then it is not the swarm that
/// is slow, and we need not share what little the origin gives to all.
pub fn is_behind(ours: u64, theirs: &mut [u64], total: u64) -> bool {
    theirs.sort_unstable();
    let median = theirs.get(theirs.len() / 2);
    median.is_some_and(|&median| median >= ours.saturating_add(total / BEHIND))
}

/// What one of a swarm may take over HTTP, in bytes.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// What may be taken now; below zero what was taken too much, since pieces are whole.
    credit: i64,
    /// The credit at which the next range begins: drawn anew for each, up to a piece, so that of many
    /// who may take little few begin, and not all at once.
    threshold: i64,
    open: bool,
}

impl Budget {
    /// HTTP has been needed for `passed` more, at `rate` for all: us, and `rivals` who collect `total`
    /// bytes as well, in pieces of `piece` bytes.
    pub fn grow(
        &mut self,
        passed: Duration,
        rate: u64,
        rivals: u32,
        (total, piece): (u64, u32),
        rng: &mut fastrand::Rng,
    ) {
        let share = |bytes: u64| signed(bytes / (u64::from(rivals) + 1));
        if !self.open {
            (self.open, self.credit) = (true, share(total));
            self.threshold = rng.i64(1..=piece.max(1).into());
        }
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.credit = self.credit.saturating_add(share(rate.saturating_mul(millis) / 1000));
        self.credit = self.credit.min(share(total).max(piece.into()));
    }

    /// The bytes that the next range may have; `None` if it has to wait.
    pub fn room(&self) -> Option<u64> {
        let ready = self.open && self.credit >= self.threshold;
        ready.then(|| self.credit.unsigned_abs().min(SPAN_BYTES))
    }

    /// A range of `bytes` has begun.
    pub fn take(&mut self, bytes: u64, piece: u32, rng: &mut fastrand::Rng) {
        self.credit = self.credit.saturating_sub(signed(bytes));
        self.threshold = rng.i64(1..=piece.max(1).into());
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Whose turn it is at part number `chunk` of a torrent, by the hashes of all who may fetch it: how many
/// of `others` come before `own`. Everybody who knows the same peers finds the same order, and another
/// one for each part (rendezvous hashing: Thaler and Ravishankar, 1996), so those at place 0 share out
/// the parts among themselves.
pub fn place(own: u64, others: &[u64], chunk: u32) -> usize {
    let ours = weight(own, chunk);
    others.iter().filter(|&&other| weight(other, chunk) < ours).count()
}

/// The last place that may take its parts, when HTTP has been needed for so long: if it is still
/// needed, those before did not.
pub fn last_place(needed: Duration) -> usize {
    usize::try_from(needed.as_secs() / PLACE_WAIT.as_secs()).unwrap_or(usize::MAX)
}

/// All clients must agree on it. The mixing steps are those of `splitmix64` (Steele, Lea and Flood,
/// 2014).
pub fn weight(name: u64, chunk: u32) -> u64 {
    let mut mixed = name ^ u64::from(chunk).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A quarter of a minute into a download from two peers that deliver 1 MiB/s.
    fn fine() -> Situation {
        Situation {
            now: secs(1000),
            began: secs(980),
            nobody_left_to_try: true,
            useful_peers: 2,
            seeded: true,
            jitter: Duration::ZERO,
            last_payload: secs(1000),
            peer_rate: 1 << 20,
            limit: None,
            nobody_has: 0,
            first_left: 0,
            tail: None,
        }
    }

    /// The letters of `expected`: everything, first, rare, tail.
    fn check(change: impl Fn(&mut Situation), expected: &str) {
        let mut situation = fine();
        change(&mut situation);
        let need = need(&situation);
        let letters =
            [(need.everything, 'e'), (need.first, 'f'), (need.rare, 'r'), (need.tail, 't')];
        let got: String = letters.iter().filter(|(set, _)| *set).map(|(_, at)| at).collect();
        assert_eq!(got, expected, "{situation:?}");
    }

    fn alone(waited: u64, tried: bool, seeded: bool) -> impl Fn(&mut Situation) {
        move |at| {
            (at.useful_peers, at.began) = (0, at.now - secs(waited));
            (at.nobody_left_to_try, at.seeded) = (tried, seeded);
        }
    }

    #[test]
    fn http_waits_for_peers_and_not_for_long() {
        check(alone(0, false, false), "");
        check(alone(0, true, false), "e");
        check(alone(3, false, false), "e");
        check(|at| (alone(3, false, false)(at), at.jitter = secs(1)).1, "");
        check(alone(3, false, true), "");
        check(alone(6, false, true), "e");
    }

    #[test]
    fn http_steps_in_where_peers_fail() {
        check(|_| {}, "");
        check(|at| at.last_payload = secs(992), "e");
        check(|at| at.peer_rate = 50 << 10, "e");
        check(|at| (at.peer_rate, at.began) = (50 << 10, secs(995)), "");
        check(|at| (at.peer_rate, at.limit) = (50 << 10, Some(60 << 10)), "");
        check(|at| at.nobody_has = 3, "r");
        check(|at| (at.nobody_has, at.began) = (3, secs(990)), "");
    }

    #[test]
    fn what_is_needed_first_and_would_be_late_comes_over_http() {
        check(|at| at.first_left = 5 << 20, "");
        check(|at| at.first_left = 11 << 20, "f");
        check(|at| (at.first_left, at.began) = (11 << 20, secs(998)), "");
        check(|at| (at.first_left, at.began) = (1, secs(960)), "f");
    }

    #[test]
    fn the_last_percent_is_not_left_hanging() {
        check(|at| at.tail = Some(Duration::from_millis(290)), "");
        check(|at| at.tail = Some(Duration::from_millis(310)), "t");
        check(|at| (at.tail, at.began) = (Some(secs(5)), secs(400)), "");
        check(|at| (at.tail, at.began) = (Some(secs(7)), secs(400)), "t");
        check(|at| (at.tail, at.began) = (Some(secs(60)), secs(1000)), "");
        let mib = |count: u64| count << 20;
        assert!(!is_tail(0, mib(100)) && is_tail(mib(1), mib(100)) && !is_tail(mib(2), mib(100)));
    }

    /// `rivals` beside us collect 1 GiB; so much is taken within `seconds` of need, in MiB.
    fn check_budget(rivals: u32, seconds: u64, expected: std::ops::RangeInclusive<u64>) {
        const PIECE: u32 = 1 << 20;
        let (total, mut sum) = (1 << 30, 0);
        for seed in 0..100 {
            let (mut budget, mut rng) = (Budget::default(), fastrand::Rng::with_seed(seed));
            for _ in 0..seconds {
                budget.grow(secs(1), SWARM_RATE, rivals, (total, PIECE), &mut rng);
                while let Some(room) = budget.room() {
                    let bytes = room.next_multiple_of(PIECE.into());
                    budget.take(bytes, PIECE, &mut rng);
                    sum += bytes;
                }
            }
        }
        let mean = (sum / 100) >> 20;
        assert!(expected.contains(&mean), "{rivals} rivals, {seconds} s: {mean} MiB");
    }

    #[test]
    fn a_swarm_takes_a_copy_and_little_more_over_http() {
        check_budget(1, 60, 530..=550);
        check_budget(15, 60, 64..=72);
        // With fewer bytes each than a range has, some take one and others none.
        check_budget(1023, 60, 1..=1);
        check_budget(4095, 0, 0..=0);
        check_budget(4095, 100, 0..=1);
    }

    #[test]
    fn those_who_know_each_other_share_out_the_parts() {
        let names: Vec<u64> = (0..10).map(|name| weight(name, 77)).collect();
        for chunk in 0..1000 {
            let mut places: Vec<usize> = names
                .iter()
                .map(|own| {
                    let others: Vec<u64> =
                        names.iter().copied().filter(|other| other != own).collect();
                    place(*own, &others, chunk)
                })
                .collect();
            places.sort_unstable();
            assert_eq!(places, (0..10).collect::<Vec<_>>());
        }
        let firsts = (0..1000).filter(|&chunk| place(names[0], &names[1..], chunk) == 0).count();
        assert!((70..130).contains(&firsts), "{firsts} of 1000 for one of ten");
    }

    #[test]
    fn who_is_behind_is_told_from_who_shares_a_slow_swarm() {
        let check = |ours: u64, theirs: &[u64], expected: bool| {
            assert_eq!(is_behind(ours, &mut theirs.to_vec(), 1000), expected);
        };
        check(0, &[], false);
        check(100, &[90, 110, 120], false);
        check(100, &[90, 250, 300], true);
        check(100, &[90, 100, 110, 900], false);
    }
}
