//! Staged rollout: who gets a release when, computed by every launcher for itself from signed data.
//!
//! An install has a number that nobody else knows. With the release's salt it gives a bucket from 0 to
//! 9999: evenly spread, the same at every look, another one for the next release. The schedule says
//! how many of the 10 000 buckets may have the release from when on. Static hosts can serve it, and
//! nobody is counted.

use crate::hash::ContentHash;
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// Buckets in all.
pub const BUCKETS: u16 = 10_000;
/// The most steps of a schedule.
pub const STEPS_MAX: usize = 64;

/// How a release of a head reaches those who have one already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Makes the buckets of this release others than those of the last.
    pub salt: ContentHash,
    /// Nobody gets it, whatever the schedule says; also nobody who asks for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Everybody gets it at once, whatever the schedule says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub critical: bool,
    /// In order of time; the last one whose time has come counts. None: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// From a time on, so many buckets may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// From when on.
    pub from: Time,
    /// How many of the 10 000.
    pub buckets: u16,
}

/// Whether a release may come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Yes.
    Now,
    /// Not by itself yet; who asks for it may have it.
    Later,
    /// It is paused.
    Paused,
}

impl Rollout {
    /// Whether the install with this number has its turn at `now`.
    pub fn turn(&self, install: &[u8; 16], now: Time) -> Turn {
        if self.paused {
            return Turn::Paused;
        }
        let due = self.steps.iter().rev().find(|step| step.from <= now);
        let open = match due {
            _ if self.critical || self.steps.is_empty() => BUCKETS,
            Some(step) => step.buckets,
            None => 0,
        };
        if bucket(&self.salt, install) < open { Turn::Now } else { Turn::Later }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.steps.len() > STEPS_MAX {
            return Err(format!("a rollout has more than {STEPS_MAX} steps"));
        }
        if self.steps.iter().any(|step| step.buckets > BUCKETS) {
            return Err(format!("a rollout goes to more than {BUCKETS} of {BUCKETS}"));
        }
        if !self.steps.is_sorted_by_key(|step| step.from) {
            return Err("the steps of a rollout are not in order of time".to_owned());
        }
        Ok(())
    }
}

/// The bucket of an install: the first 8 bytes, big-endian, of SHA-256 over salt and number, modulo
/// 10 000.
pub fn bucket(salt: &ContentHash, install: &[u8; 16]) -> u16 {
    let hash = ContentHash::of(&[&salt.0[..], install].concat());
    let first = u64::from_be_bytes(hash.0[..8].try_into().expect("a hash has 32 bytes"));
    u16::try_from(first % u64::from(BUCKETS)).expect("it is less than the modulus")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(number: u32) -> [u8; 16] {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_le_bytes());
        id
    }

    fn at(hour: u64) -> Time {
        Time::from_unix(1_800_000_000 + hour * 3600)
    }

    fn rollout(steps: &[(u64, u16)]) -> Rollout {
        let steps = steps.iter().map(|(hour, buckets)| Step { from: at(*hour), buckets: *buckets });
        let salt = ContentHash([3; 32]);
        Rollout { salt, paused: false, critical: false, steps: steps.collect() }
    }

    /// How many of 1000 installs have their turn.
    fn turns(rollout: &Rollout, hour: u64) -> usize {
        (0..1000).filter(|n| rollout.turn(&install(*n), at(hour)) == Turn::Now).count()
    }

    #[test]
    fn the_share_grows_with_time_and_nobody_loses_a_turn() {
        let rollout = rollout(&[(0, 500), (24, 2500), (48, 10_000)]);
        rollout.check().unwrap();
        assert_eq!(rollout.turn(&install(1), Time::from_unix(0)), Turn::Later, "not begun");
        let shares = [0, 24, 48].map(|hour| turns(&rollout, hour));
        assert!((20..90).contains(&shares[0]) && (200..300).contains(&shares[1]), "{shares:?}");
        assert_eq!(shares[2], 1000);
        for n in 0..1000 {
            let turn = |hour| rollout.turn(&install(n), at(hour)) == Turn::Now;
            assert!(turn(24) || !turn(0));
        }
    }

    #[test]
    fn another_release_takes_others_first() {
        let first = rollout(&[(0, 1000)]);
        let second = Rollout { salt: ContentHash([4; 32]), ..first.clone() };
        let both = (0..1000)
            .filter(|n| [&first, &second].iter().all(|r| r.turn(&install(*n), at(0)) == Turn::Now));
        assert!(both.count() < 40);
    }

    #[test]
    fn pause_and_critical() {
        let none = rollout(&[]);
        assert_eq!(turns(&none, 0), 1000);
        let slow = rollout(&[(0, 0)]);
        assert_eq!(turns(&slow, 0), 0);
        assert_eq!(turns(&Rollout { critical: true, ..slow.clone() }, 0), 1000);
        let halted = Rollout { critical: true, paused: true, ..slow };
        assert_eq!(halted.turn(&install(1), at(0)), Turn::Paused);
    }

    #[test]
    fn bounds() {
        assert!(rollout(&[(0, BUCKETS + 1)]).check().is_err());
        assert!(rollout(&[(1, 1), (0, 2)]).check().is_err());
        let many: Vec<(u64, u16)> = (0..65).map(|n| (n, 1)).collect();
        assert!(rollout(&many).check().is_err());
    }
}
