//! Whom to serve.
//!
//! A leech serves those it gets most from, and one more at random so that better partners are found
//! and newcomers get their first piece (BEP 3's tit for tat). A seed has nothing to gain: it gives
//! every interested peer a turn, longest wait first, for at least [`TURN_MIN`]. Peers on the LAN
//! stand outside the slots: they cost no uplink. A free slot is filled at once, not at the next
//! round, so nobody waits beside an idle uplink.

use crate::ids::PeerKey;
use std::time::Duration;

/// Time between two rounds.
pub const ROUND: Duration = Duration::from_secs(10);
/// Time between two optimistic choices.
pub const OPTIMISTIC_ROUND: Duration = Duration::from_secs(30);
/// A seed does not choke a peer sooner than this after unchoking it.
const TURN_MIN: Duration = Duration::from_secs(20);
/// Peers on the LAN that are served at once, beside the slots.
const LAN_MAX: usize = 50;

/// A peer that could be served.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The peer.
    pub peer: PeerKey,
    /// It wants something of us.
    pub interested: bool,
    /// It may be sent anything at all (consent, not banned).
    pub allowed: bool,
    /// It is on the LAN.
    pub lan: bool,
    /// Payload it sends us, in bytes per second.
    pub rate_from: u64,
    /// It is being served.
    pub unchoked: bool,
    /// When that last changed.
    pub changed_at: Duration,
    /// It is the optimistic choice.
    pub optimistic: bool,
}

/// The outcome of a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Everybody to be served from now on.
    pub unchoked: Vec<PeerKey>,
    /// The one of them served at random.
    pub optimistic: Option<PeerKey>,
}

/// Chooses whom to serve with `slots` places for peers beyond the LAN.
///
/// `full_round` is false for the quick fill between rounds: then nobody loses a place.
pub fn choose(
    now: Duration,
    seeding: bool,
    slots: usize,
    full_round: bool,
    new_optimistic: bool,
    candidates: &[Candidate],
    rng: &mut fastrand::Rng,
) -> Choice {
    let mut wanting: Vec<&Candidate> =
        candidates.iter().filter(|peer| peer.interested && peer.allowed).collect();
    rng.shuffle(&mut wanting);
    let mut choice = Choice::default();
    let (lan, mut rest): (Vec<&Candidate>, Vec<&Candidate>) =
        wanting.into_iter().partition(|peer| peer.lan);
    choice.unchoked.extend(lan.iter().take(LAN_MAX).map(|peer| peer.peer));

    let waited = |peer: &Candidate| now.saturating_sub(peer.changed_at);
    if !full_round {
        // Those who have a place keep it; the others fill what is free, longest wait first.
        rest.sort_by_key(|peer| (!peer.unchoked, std::cmp::Reverse(waited(peer))));
        choice.unchoked.extend(rest.iter().take(slots).map(|peer| peer.peer));
        choice.optimistic = rest
            .iter()
            .take(slots)
            .find(|peer| peer.optimistic && peer.unchoked)
            .map(|peer| peer.peer);
        return choice;
    }
    if seeding {
        rest.sort_by_key(|peer| match (peer.unchoked, waited(peer)) {
            (true, time) if time < TURN_MIN => (0, std::cmp::Reverse(Duration::ZERO)),
            (false, time) => (1, std::cmp::Reverse(time)),
            (true, _) => (2, std::cmp::Reverse(Duration::ZERO)),
        });
        choice.unchoked.extend(rest.iter().take(slots).map(|peer| peer.peer));
        return choice;
    }
    let kept = rest.iter().find(|peer| peer.optimistic && !new_optimistic).map(|peer| peer.peer);
    rest.sort_by_key(|peer| std::cmp::Reverse(peer.rate_from));
    let regular = slots.saturating_sub(1);
    let chosen: Vec<PeerKey> = rest
        .iter()
        .filter(|peer| Some(peer.peer) != kept)
        .take(regular)
        .map(|peer| peer.peer)
        .collect();
    let optimistic = kept.or_else(|| {
        // Never served before the longest; the shuffle decides between equals.
        rest.iter()
            .filter(|peer| !chosen.contains(&peer.peer))
            .max_by_key(|peer| (!peer.unchoked, waited(peer)))
            .map(|peer| peer.peer)
    });
    choice.unchoked.extend(chosen);
    if slots > 0 {
        choice.unchoked.extend(optimistic);
        choice.optimistic = optimistic;
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each peer as `key:flags:rate:seconds`; flags `i`nterested, `u`nchoked, `l`an, `o`ptimistic,
    /// `x` not allowed.
    fn check(seeding: bool, slots: usize, full: bool, peers: &str, expected: &[u32]) {
        let candidates: Vec<Candidate> = peers
            .split_whitespace()
            .map(|text| {
                let part: Vec<&str> = text.split(':').collect();
                Candidate {
                    peer: PeerKey(part[0].parse().unwrap()),
                    interested: part[1].contains('i'),
                    allowed: !part[1].contains('x'),
                    lan: part[1].contains('l'),
                    rate_from: part[2].parse().unwrap(),
                    unchoked: part[1].contains('u'),
                    changed_at: Duration::from_secs(1000 - part[3].parse::<u64>().unwrap()),
                    optimistic: part[1].contains('o'),
                }
            })
            .collect();
        let now = Duration::from_secs(1000);
        let mut rng = fastrand::Rng::with_seed(1);
        let choice = choose(now, seeding, slots, full, false, &candidates, &mut rng);
        let mut got: Vec<u32> = choice.unchoked.iter().map(|peer| peer.0).collect();
        got.sort_unstable();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_leech_pays_back_and_tries_one_more() {
        check(false, 3, true, "1:i:50:5 2:i:90:5 3:i:10:5 4:i:0:60", &[1, 2, 4]);
        check(false, 3, true, "1:i:50:5 2:iu:90:5 3:iuo:0:5 4:i:0:60", &[1, 2, 3]);
        check(false, 3, true, "1:u:50:5 2:ix:90:5 3:i:1:5", &[3]);
    }

    #[test]
    fn a_seed_gives_turns() {
        check(true, 2, true, "1:iu:0:5 2:iu:0:40 3:i:0:10 4:i:0:90", &[1, 4]);
        check(true, 2, true, "1:iu:0:50 2:iu:0:40", &[1, 2]);
    }

    #[test]
    fn the_lan_takes_no_slot() {
        check(true, 1, true, "1:il:0:5 2:il:0:5 3:i:0:5", &[1, 2, 3]);
        check(true, 0, true, "1:il:0:5 3:i:0:5", &[1]);
    }

    #[test]
    fn between_rounds_nobody_loses_a_place() {
        check(false, 2, false, "1:iu:0:5 2:i:90:5 3:i:0:50", &[1, 3]);
        check(false, 2, false, "1:iu:0:5 2:iu:0:5 3:i:900:50", &[1, 2]);
    }
}
