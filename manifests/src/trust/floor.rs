//! Sequence numbers that only rise.

use super::{SEQUENCE_JUMP_MAX, TrustError, TrustState};
use crate::hash::ContentHash;
use serde::{Deserialize, Serialize};

/// The highest sequence seen, and the payload that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The sequence.
    pub sequence: u64,
    /// SHA-256 of the payload.
    pub hash: ContentHash,
    /// Two payloads were signed with this sequence: neither is used until a higher one comes.
    #[serde(default)]
    pub disputed: bool,
}

pub(super) struct Step {
    pub(super) floor: Floor,
    refusal: Option<Refusal>,
    what: String,
}

enum Refusal {
    Older { floor: u64, found: u64 },
    Jump { floor: u64, found: u64 },
    Equivocation { sequence: u64, known: ContentHash, found: ContentHash },
}

/// Holds a sequence against its floor. The returned floor is never lower than `old`.
pub(super) fn raise(old: Option<Floor>, sequence: u64, hash: ContentHash, what: &str) -> Step {
    let new = Floor { sequence, hash, disputed: false };
    let what = what.to_owned();
    let Some(old) = old else {
        return Step { floor: new, refusal: None, what };
    };
    let (floor, found) = (old.sequence, sequence);
    if sequence < old.sequence {
        return Step { floor: old, refusal: Some(Refusal::Older { floor, found }), what };
    }
    if sequence == old.sequence {
        if hash == old.hash && !old.disputed {
            return Step { floor: old, refusal: None, what };
        }
        let refusal = Refusal::Equivocation { sequence, known: old.hash, found: hash };
        return Step { floor: Floor { disputed: true, ..old }, refusal: Some(refusal), what };
    }
    if sequence - old.sequence > SEQUENCE_JUMP_MAX {
        return Step { floor: old, refusal: Some(Refusal::Jump { floor, found }), what };
    }
    assert!(new.sequence > old.sequence, "a floor only rises");
    Step { floor: new, refusal: None, what }
}

impl Step {
    /// What came of it, for the state that was made with its floor.
    pub(super) fn result(self, next: &TrustState) -> Result<(), TrustError> {
        let what = self.what;
        match self.refusal {
            None => Ok(()),
            Some(Refusal::Older { floor, found }) => Err(TrustError::Older { what, floor, found }),
            Some(Refusal::Jump { floor, found }) => Err(TrustError::Jump { what, floor, found }),
            Some(Refusal::Equivocation { sequence, known, found }) => {
                let state = Box::new(next.clone());
                Err(TrustError::Equivocation { what, sequence, known, found, state })
            }
        }
    }
}
