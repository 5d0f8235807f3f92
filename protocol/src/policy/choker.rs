//! Whom to serve, and how many at once.
//!
//! What counts is when the whole swarm is done, so an uplink is given to few peers at a time, a piece
//! or more each, in turn: a piece can be passed on only once it is whole, and the fewer share an
//! uplink the sooner that is. [`Slots`] says how many: as many as let a piece take about half a second
//! at each, and more while more of them make the total grow. A peer that has nothing asked of us, or
//! that takes little, leaves its place to others, so the uplink never waits.
//!
//! Peers that run our own client take turns, who has nothing to give yet first, then the longest wait.
//! From other clients a leech wants something back (BEP 3's tit for tat): their share of the places goes
//! to those that send most, and now and then to one at random, so that better partners are found. Their
//! turns are long, so what counts as their share is the places that they hold, not how often one is
//! chosen. Peers on the LAN cost no internet uplink and have places of their own.

use crate::ids::PeerKey;
use std::time::Duration;

/// Fewest places.
const SLOTS_MIN: u32 = 3;
/// Most places, and most peers unchoked at once.
const SLOTS_MAX: u32 = 50;
/// A piece is to take about this long at each place.
const PIECE_TIME: Duration = Duration::from_millis(500);
/// The best rate is forgotten by this share each second.
const FORGET: f64 = 0.02;
/// Growth of the total that shows that another place was of use.
const GROWTH: f64 = 1.05;
/// Seconds until a place that was added without use is taken away.
const EXTRA_SECONDS: u32 = 3;
/// A turn lasts at least this long, for a peer that runs our client or when we have everything: long
/// enough for a connection to come up to speed, and short, since at the start everybody waits for a first
/// piece.
pub const TURN: Duration = Duration::from_millis(500);
/// The same for other clients, some of which look for something to ask for now and then only.
pub const TURN_FOREIGN: Duration = Duration::from_secs(3);
/// An unchoked peer that asked for nothing this long has had its turn.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// A turn ends after so many pieces even if none of them is whole.
const CRISS_CROSS_PIECES: u64 = 4;
/// Time for a peer just unchoked to ask for something, before its place counts as free.
pub const GRACE: Duration = Duration::from_millis(300);
/// Time after which the rate of a turn says something.
const MEASURED: Duration = Duration::from_secs(2);
/// A peer that takes less than this share of what the fastest takes is held up by its own link.
const CLEARLY_SLOWER: f64 = 0.4;
/// A peer that takes next to nothing still counts as this much of a place.
const WEIGHT_MIN: f64 = 0.1;
/// One in so many places for other clients goes to one at random.
const OPTIMISTIC: u8 = 4;

/// A peer that could be served.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The peer.
    pub peer: PeerKey,
    /// It wants something of us, and may have it.
    pub wants: bool,
    /// It runs our client.
    pub ours: bool,
    /// Payload it sends us, in bytes per second.
    pub rate_from: u64,
    /// Payload we sent it in its turn, in bytes per second.
    pub rate_to: u64,
    /// It is being served.
    pub unchoked: bool,
    /// When that last changed.
    pub changed_at: Duration,
    /// Requests of it are waiting or on their way.
    pub busy: bool,
    /// It has had its turn.
    pub turn_over: bool,
    /// It has no piece yet, nor been sent one, so its own uplink lies idle.
    pub has_nothing: bool,
}

/// True if somebody waits that has no piece yet: turns are as short as they can be then.
pub fn newcomers_wait(candidates: &[Candidate]) -> bool {
    candidates.iter().any(|peer| peer.wants && !peer.unchoked && peer.has_nothing)
}

/// What a peer has had since it was unchoked.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The time since then.
    pub lasted: Duration,
    /// Payload read for it, in bytes.
    pub bytes: u64,
    /// The piece it is being sent is not whole.
    pub in_piece: bool,
    /// How long it has asked for nothing.
    pub idle: Duration,
}

impl Turn {
    /// It has had `least` time and whole pieces, or all it asked for. Half a piece is of no use to
    /// anybody, so a turn ends between two, unless the peer takes them criss-cross.
    pub fn is_over(&self, least: Duration, piece_length: u32) -> bool {
        let piece = u64::from(piece_length);
        let served =
            self.bytes >= piece && !self.in_piece || self.bytes >= CRISS_CROSS_PIECES * piece;
        self.lasted >= least && (served || self.idle >= IDLE_MAX)
    }
}

/// How many to serve at once: one for the LAN, one for the rest.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    best: f64,
    extra: u32,
    idle: u32,
}

impl Slots {
    /// A second is over in which `rate` bytes per second were sent; `short` if somebody waited for a
    /// place all the while.
    #[allow(clippy::cast_precision_loss)] // a rate is an estimate
    pub fn on_tick(&mut self, rate: u64, short: bool) {
        let rate = rate as f64;
        if rate > self.best * GROWTH {
            self.extra = (self.extra + u32::from(short)).min(SLOTS_MAX);
            self.idle = 0;
        } else {
            self.idle += 1;
            if self.idle.is_multiple_of(EXTRA_SECONDS) {
                self.extra = self.extra.saturating_sub(1);
            }
        }
        self.best = rate.max(self.best * (1.0 - FORGET));
    }

    /// The most that was sent lately, in bytes per second.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, below 2^64
    pub fn best(&self) -> u64 {
        self.best as u64
    }

    /// Places for pieces of `piece_length` bytes.
    pub fn count(&self, piece_length: u32) -> u32 {
        let fitting = self.best * PIECE_TIME.as_secs_f64() / f64::from(piece_length.max(1));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped before
        let fitting = fitting.clamp(0.0, f64::from(SLOTS_MAX)) as u32;
        (fitting.max(SLOTS_MIN) + self.extra).min(SLOTS_MAX)
    }
}

/// Chooses whom to serve from now on with `count` places. `leech` if we want something ourselves.
pub fn choose(
    now: Duration,
    leech: bool,
    count: u32,
    candidates: &[Candidate],
    rng: &mut fastrand::Rng,
) -> Vec<PeerKey> {
    let waited = |peer: &Candidate| now.saturating_sub(peer.changed_at);
    let measured = |peer: &&Candidate| peer.busy && waited(peer) >= MEASURED;
    let fastest = candidates.iter().filter(measured).map(|peer| peer.rate_to).max();
    // A whole place, unless it asks for nothing, or takes less than others who share the same uplink.
    let weight = |peer: &Candidate| -> f64 {
        match (peer.busy, waited(peer)) {
            (false, waited) => f64::from(u8::from(waited < GRACE)),
            (true, waited) if waited < MEASURED => 1.0,
            (true, _) => {
                #[allow(clippy::cast_precision_loss)] // a rate is an estimate
                let share = peer.rate_to as f64 / fastest.unwrap_or(0).max(1) as f64;
                if share > CLEARLY_SLOWER { 1.0 } else { share.max(WEIGHT_MIN) }
            }
        }
    };
    let mut chosen = Vec::new();
    let mut used = 0.0;
    let is_foreign = |peer: &Candidate| leech && !peer.ours;
    let wanting = || candidates.iter().filter(|peer| peer.wants);
    let mut foreign_places =
        foreign_share(count, wanting().count(), wanting().filter(|peer| is_foreign(peer)).count());
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    for peer in wanting() {
        if peer.unchoked && !peer.turn_over {
            chosen.push(peer.peer);
            used += weight(peer);
            foreign_places = foreign_places.saturating_sub(u32::from(is_foreign(peer)));
        } else if !is_foreign(peer) {
            own.push(peer);
        } else {
            foreign.push(peer);
        }
    }
    // Who has nothing to give yet is taken first, then the longest wait; who had a turn just now comes last.
    rng.shuffle(&mut own);
    let wait = |peer: &&Candidate| if peer.unchoked { Duration::ZERO } else { waited(peer) };
    own.sort_by_key(|peer| (peer.has_nothing && !peer.unchoked, wait(peer)));
    rng.shuffle(&mut foreign);
    foreign.sort_by_key(|peer| peer.rate_from);
    while used + 0.5 <= f64::from(count) && chosen.len() < SLOTS_MAX as usize {
        let theirs = !foreign.is_empty() && (own.is_empty() || foreign_places > 0);
        let next = if !theirs {
            own.pop()
        } else if rng.u8(0..OPTIMISTIC) == 0 {
            Some(foreign.swap_remove(rng.usize(0..foreign.len())))
        } else {
            foreign.pop()
        };
        let Some(next) = next else { break };
        foreign_places = foreign_places.saturating_sub(u32::from(theirs));
        used += if next.unchoked { weight(next) } else { 1.0 };
        chosen.push(next.peer);
    }
    chosen
}

/// How many of `count` places other clients hold at most while our own wait: by their number among those
/// that want something, rounded down, one at least.
fn foreign_share(count: u32, wanting: usize, foreign: usize) -> u32 {
    let share = (count as usize * foreign).checked_div(wanting).unwrap_or(0);
    u32::try_from(share.max(1)).unwrap_or(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each peer as `key:flags:rate from:seconds since it changed`; flags `w`ants, `u`nchoked, `b`usy,
    /// `o`urs, `t`urn over, `s`low, has `n`othing.
    fn check(leech: bool, count: u32, peers: &str, expected: &[u32]) {
        let candidates: Vec<Candidate> = peers
            .split_whitespace()
            .map(|text| {
                let part: Vec<&str> = text.split(':').collect();
                let flag = |flag: char| part[1].contains(flag);
                Candidate {
                    peer: PeerKey(part[0].parse().unwrap()),
                    wants: flag('w'),
                    ours: flag('o'),
                    rate_from: part[2].parse().unwrap(),
                    rate_to: if flag('s') { 1 } else { 1000 },
                    unchoked: flag('u'),
                    changed_at: Duration::from_secs(1000 - part[3].parse::<u64>().unwrap()),
                    busy: flag('b'),
                    turn_over: flag('t'),
                    has_nothing: flag('n'),
                }
            })
            .collect();
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let now = Duration::from_secs(1000);
            let mut got: Vec<u32> = choose(now, leech, count, &candidates, &mut rng)
                .iter()
                .map(|peer| peer.0)
                .collect();
            got.sort_unstable();
            assert_eq!(got, expected, "{peers}");
        }
    }

    #[test]
    fn our_own_clients_take_turns() {
        check(true, 2, "1:wo:0:5 2:wo:0:50 3:wo:0:20", &[2, 3]);
        check(true, 2, "1:woub:0:5 2:woubt:0:50 3:wo:0:20", &[1, 3]);
        check(true, 2, "1:woub:0:5 2:woubt:0:50", &[1, 2]);
        check(true, 2, "1:oub:0:5 2:o:0:50", &[]);
    }

    #[test]
    fn who_has_nothing_yet_comes_first() {
        check(true, 2, "1:wo:0:50 2:won:0:5 3:won:0:1 4:wo:0:60", &[2, 3]);
        check(false, 1, "1:w:0:50 2:wonubt:0:5 3:wn:0:1", &[3]);
    }

    #[test]
    fn a_seed_gives_turns_to_all_clients() {
        check(false, 2, "1:w:0:5 2:w:900:10 3:wo:0:20", &[2, 3]);
    }

    #[test]
    fn who_takes_nothing_or_little_leaves_its_place_to_others() {
        check(true, 2, "1:wou:0:5 2:wou:0:5 3:wo:0:5 4:wo:0:9", &[1, 2, 3, 4]);
        check(
            true,
            3,
            "1:woub:0:5 2:woubs:0:5 3:woubs:0:5 4:wo:0:7 5:wo:0:6 6:wo:0:5",
            &[1, 2, 3, 4, 5],
        );
        check(true, 2, "1:wou:0:0 2:wou:0:0 3:wo:0:5 4:wo:0:9", &[1, 2]);
    }

    #[test]
    fn another_client_pays_back() {
        let text = "1:w:10:5 2:w:900:5";
        let candidates = |flag: &str| text.replace(":w:", &format!(":w{flag}:"));
        check(true, 2, &candidates(""), &[1, 2]);
        let mut rng = fastrand::Rng::with_seed(1);
        let list: Vec<Candidate> = (1..=10)
            .map(|key| Candidate {
                peer: PeerKey(key),
                wants: true,
                ours: false,
                rate_from: u64::from(key),
                rate_to: 0,
                unchoked: false,
                changed_at: Duration::ZERO,
                busy: false,
                turn_over: false,
                has_nothing: false,
            })
            .collect();
        let mut best = 0;
        for _ in 0..1000 {
            let chosen = choose(Duration::from_secs(9), true, 1, &list, &mut rng);
            best += u32::from(chosen == [PeerKey(10)]);
        }
        assert!((700..900).contains(&best), "{best} of 1000 places went to the best partner");
    }

    #[test]
    fn long_turns_give_other_clients_no_more_than_their_share() {
        check(true, 3, "1:wub:9:5 2:w:8:90 3:w:7:90 4:wo:0:1 5:wo:0:2", &[1, 4, 5]);
        check(true, 4, "1:wub:9:5 2:w:8:90 4:wo:0:1 5:wo:0:2 6:woub:0:0", &[1, 4, 5, 6]);
        check(true, 2, "1:w:9:5 4:wo:0:1 5:wo:0:2 6:wo:0:3", &[1, 6]);
        check(true, 3, "1:wub:9:5 2:w:8:90 3:w:7:90 4:o:0:1", &[1, 2, 3]);
    }

    #[test]
    fn a_turn_ends_between_two_pieces() {
        let check = |millis: u64, bytes: u64, in_piece: bool, idle: u64, expected: bool| {
            let (lasted, idle) = (Duration::from_millis(millis), Duration::from_secs(idle));
            let turn = Turn { lasted, bytes, in_piece, idle };
            assert_eq!(turn.is_over(TURN, 100), expected, "{turn:?}");
        };
        check(500, 100, false, 0, true);
        check(499, 100, false, 0, false);
        check(1000, 99, false, 0, false);
        check(1000, 150, true, 0, false);
        check(1000, 400, true, 0, true);
        check(5000, 0, false, 3, true);
    }

    #[test]
    fn places_follow_the_rate_and_the_piece() {
        let mut slots = Slots::default();
        assert_eq!(slots.count(256 << 10), SLOTS_MIN);
        slots.on_tick(2_500_000, false);
        assert_eq!((slots.count(128 << 10), slots.count(1 << 20)), (9, SLOTS_MIN));
        (0..5).for_each(|step| slots.on_tick(2_500_000 * (step + 2), true));
        assert_eq!(slots.count(16 << 20), SLOTS_MIN + 5);
        (0..30).for_each(|_| slots.on_tick(5_000_000, true));
        assert_eq!(slots.count(16 << 20), SLOTS_MIN);
    }
}
