//! The end of a download: every missing block has been asked for somewhere, and a slow peer must not
//! hold up the last of them.
//!
//! A block is asked for a second time only where the second peer is predicted to deliver it clearly
//! sooner than the first, so the endgame costs few duplicate bytes whatever the windows are.

use crate::geometry::{BLOCK_LEN, Block};
use std::time::Duration;

/// The second peer must need less than this share of the first one's time.
const FASTER: f64 = 0.5;
/// Predictions are not better than this.
const SLACK: Duration = Duration::from_millis(100);
/// What a web server brings is more certain: it chokes nobody.
const SLACK_HTTP: Duration = Duration::from_millis(200);
/// A silence shorter than this says nothing.
const HICCUP: Duration = Duration::from_millis(400);
/// A rate below this counts as this, in bytes per second.
const RATE_MIN: u64 = 256;

/// A peer is asked at once for what it delivers in this time: what it has sent when somebody else's copy
/// comes first was sent in vain.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The most blocks asked for at once.
const AT_ONCE_MAX: u64 = 8;

/// How many blocks to ask a peer of `rate` bytes per second for at once, beside others.
pub fn at_once(rate: u64) -> usize {
    let bytes = u128::from(rate) * AT_ONCE.as_millis() / 1000;
    let blocks = u64::try_from(bytes / u128::from(BLOCK_LEN)).unwrap_or(AT_ONCE_MAX);
    usize::try_from(blocks.clamp(1, AT_ONCE_MAX)).expect("at most eight")
}

/// When `blocks` blocks will be through at `rate` bytes per second.
pub fn eta(blocks: usize, rate: u64) -> Duration {
    let bytes = u64::try_from(blocks).unwrap_or(u64::MAX).saturating_mul(u64::from(BLOCK_LEN));
    Duration::from_millis(bytes.saturating_mul(1000) / rate.max(RATE_MIN))
}

/// The rate of a peer that was asked and delivered nothing for `idle`: what it was, or what that
/// silence leaves of it.
pub fn rate_after(idle: Duration, rate: u64) -> u64 {
    let millis = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    if idle < HICCUP { rate } else { rate.min(u64::from(BLOCK_LEN) * 1000 / millis) }
}

/// True if what is due in `theirs` would come clearly sooner over HTTP if that took `ours`.
pub fn is_late(theirs: Duration, ours: Duration) -> bool {
    theirs.mul_f64(FASTER) >= ours + SLACK_HTTP
}

/// Of the blocks that others were asked for (with their predicted time to come, once for each that was
/// asked), those that a peer with `outstanding` requests and `rate` should be asked for as well: at most
/// `count`, the latest first.
pub fn steal(
    mut out_there: Vec<(Duration, Block)>,
    outstanding: usize,
    rate: u64,
    count: usize,
) -> Vec<Block> {
    // The first to deliver counts: what was asked for twice already is not late any more.
    out_there.sort_by_key(|&(due, block)| (block, due));
    out_there.dedup_by_key(|&mut (_, block)| block);
    out_there.sort_by_key(|&(due, block)| (std::cmp::Reverse(due), block));
    let mut chosen = Vec::new();
    for &(due, block) in out_there.iter() {
        if chosen.len() >= count {
            break;
        }
        let ours = eta(outstanding + chosen.len() + 1, rate);
        if due.mul_f64(FASTER) < ours + SLACK {
            break;
        }
        chosen.push(block);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PieceIndex;

    fn block(piece: u32) -> Block {
        Block { piece: PieceIndex(piece), offset: 0, len: BLOCK_LEN }
    }

    fn check(theirs_ms: &[u64], outstanding: usize, rate: u64, count: usize, expected: &[u32]) {
        let list: Vec<_> = theirs_ms
            .iter()
            .zip(0..)
            .map(|(&ms, piece)| (Duration::from_millis(ms), block(piece)))
            .collect();
        let got: Vec<u32> =
            steal(list, outstanding, rate, count).into_iter().map(|block| block.piece.0).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn what_somebody_faster_was_asked_for_is_left_alone() {
        let late = |piece, ms| (Duration::from_millis(ms), block(piece));
        let list = vec![late(1, 60_000), late(2, 50_000), late(1, 100)];
        assert_eq!(steal(list, 0, 1 << 20, 10), [block(2)]);
    }

    #[test]
    fn slow_peers_are_asked_for_little_at_once() {
        assert_eq!([0, 200_000, 500_000, 1 << 30].map(at_once), [1, 1, 3, 8]);
    }

    #[test]
    fn silence_counts_at_once() {
        let check = |idle_ms, expected| {
            assert_eq!(rate_after(Duration::from_millis(idle_ms), 1_000_000), expected);
        };
        check(0, 1_000_000);
        check(399, 1_000_000);
        check(500, 32_768);
        check(4000, 4096);
    }

    #[test]
    fn only_what_comes_clearly_sooner_is_asked_for_twice() {
        check(&[100, 10_000, 60_000], 0, 1 << 20, 10, &[2, 1]);
        check(&[100, 10_000, 60_000], 0, 1 << 20, 1, &[2]);
        check(&[100, 150, 220], 0, 1 << 20, 10, &[]);
        check(&[10_000], 1000, 1 << 20, 10, &[]);
        check(&[3_000, 3_000, 3_000], 0, 16 * 1024, 10, &[0]);
    }
}
