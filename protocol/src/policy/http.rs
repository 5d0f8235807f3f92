//! When HTTP carries what the swarm does not deliver.
//!
//! HTTP is the origin's own bandwidth, so it is not raced against peers: it steps in when there is
//! no peer to ask, when the peers have stopped delivering, or for pieces that nobody here has. As
//! soon as peers deliver, no new range is begun.

use std::time::Duration;

/// Time given to trackers and peers before HTTP begins, if the trackers have not yet said that
/// there is nobody.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Peers that are connected but deliver nothing for this long are helped out.
const STALLED: Duration = Duration::from_secs(8);
/// A piece that no connected peer has is fetched after this time without it.
const RARE: Duration = Duration::from_secs(15);
/// Peers that together deliver less than this, in bytes per second, are as good as none.
const RATE_MIN: u64 = 16 * 1024;
/// Ranges in flight at once per source.
pub const SPANS_MAX: usize = 4;
/// Bytes of one range request, when nothing limits it.
pub const SPAN_BYTES: u64 = 4 << 20;

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
    /// When payload last came from a peer, or the download began.
    pub last_payload: Duration,
    /// Payload from all peers, in bytes per second.
    pub peer_rate: u64,
    /// The download limit, in bytes per second.
    pub limit: Option<u64>,
    /// Wanted pieces that no connected peer has.
    pub nobody_has: u32,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The swarm delivers: leave HTTP alone.
    Nothing,
    /// Only pieces that nobody here has.
    Rare,
    /// All there is.
    Everything,
}

/// Decides what HTTP should fetch.
pub fn need(situation: &Situation) -> Need {
    let waited = situation.now.saturating_sub(situation.began);
    if situation.useful_peers == 0 {
        let give_up = situation.nobody_left_to_try || waited >= PATIENCE;
        return if give_up { Need::Everything } else { Need::Nothing };
    }
    let floor = RATE_MIN.min(situation.limit.unwrap_or(u64::MAX) / 2);
    let trickle = waited >= RARE && situation.peer_rate < floor;
    if trickle || situation.now.saturating_sub(situation.last_payload) >= STALLED {
        return Need::Everything;
    }
    if situation.nobody_has > 0 && waited >= RARE {
        return Need::Rare;
    }
    Need::Nothing
}

/// The size of a range under a download limit in bytes per second: two seconds' worth.
pub fn span_bytes(limit: Option<u64>) -> u64 {
    limit.map_or(SPAN_BYTES, |rate| (2 * rate).clamp(1, SPAN_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(waited: u64, tried: bool, useful_peers: usize, idle: u64, rare: u32, expected: Need) {
        let now = Duration::from_secs(1000);
        let situation = Situation {
            now,
            began: now - Duration::from_secs(waited),
            nobody_left_to_try: tried,
            useful_peers,
            last_payload: now - Duration::from_secs(idle),
            peer_rate: 1 << 20,
            limit: None,
            nobody_has: rare,
        };
        assert_eq!(need(&situation), expected);
        if waited >= 20 && useful_peers > 0 {
            let trickle = Situation { peer_rate: 1000, ..situation };
            assert_eq!(need(&trickle), Need::Everything);
        }
    }

    #[test]
    fn http_waits_for_the_swarm_and_steps_in_where_it_fails() {
        check(0, false, 0, 0, 9, Need::Nothing);
        check(0, true, 0, 0, 9, Need::Everything);
        check(3, false, 0, 3, 9, Need::Everything);
        check(5, true, 2, 0, 0, Need::Nothing);
        check(20, true, 2, 0, 4, Need::Rare);
        check(20, true, 2, 8, 0, Need::Everything);
    }
}
