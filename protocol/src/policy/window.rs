//! How many requests to keep out at a peer: enough to cover bandwidth times delay.
//!
//! It starts small and doubles each round trip (one more for each block that comes) while the rate
//! keeps growing; then it follows the rate: what the peer sends in [`WINDOW`], which is far more
//! than any round trip and so never the bottleneck.

use crate::geometry::BLOCK_LEN;
use std::time::Duration;

/// A settled window holds what the peer sends in this time.
const WINDOW: Duration = Duration::from_millis(1500);
/// Requests out at a peer from which nothing has come yet.
const START: u32 = 8;
/// Fewest requests out at a settled peer.
const MIN: u32 = 3;
/// Most requests out at one peer: 512 x 16 KiB is 8 MiB, 1 Gbit/s at 64 ms and more than any peer
/// buffers at higher rates.
pub const REQUESTS_OUT_MAX: u32 = 512;

/// The window of one peer.
#[derive(Debug, Clone)]
pub struct Window {
    size: u32,
    max: u32,
    growing: bool,
    last_rate: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: START, max: 250, growing: true, last_rate: 0 }
    }
}

impl Window {
    /// Blocks from a peer that has not been found right yet that may be out or await their verdict, in a
    /// torrent with `piece_blocks` blocks a piece: more are wasted if it lies. Two pieces, so that the
    /// second comes while the first is hashed.
    pub fn trial(piece_blocks: u32) -> u32 {
        piece_blocks.saturating_mul(2).max(START)
    }

    /// Requests to keep out.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The peer said how many requests it keeps (`reqq` of BEP 10).
    pub fn set_peer_max(&mut self, requests: u32) {
        self.max = requests.clamp(1, REQUESTS_OUT_MAX);
        self.size = self.size.min(self.max);
    }

    /// A block came.
    pub fn on_block(&mut self) {
        if self.growing {
            self.size = (self.size + 1).min(self.max);
        }
    }

    /// A second is over; `rate` in bytes per second.
    pub fn on_tick(&mut self, rate: u64) {
        if self.growing && rate > self.last_rate + self.last_rate / 10 {
            self.last_rate = rate;
            return;
        }
        if rate > 0 {
            self.growing = false;
        }
        self.last_rate = rate;
        if !self.growing {
            let bytes = u128::from(rate) * WINDOW.as_millis() / 1000;
            let blocks = bytes.div_ceil(u128::from(BLOCK_LEN)).min(u128::from(self.max));
            let blocks = u32::try_from(blocks).expect("at most max");
            self.size = blocks.max(MIN).min(self.max);
        }
    }

    /// Nothing came for too long: one request at a time, until it does again.
    pub fn on_snub(&mut self) {
        *self = Self { size: 1, max: self.max, growing: true, last_rate: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_each_round_trip_then_follows_the_rate() {
        let mut window = Window::default();
        window.set_peer_max(2000);
        for _ in 0..3 {
            (0..window.size()).for_each(|_| window.on_block());
        }
        assert_eq!(window.size(), 64);
        window.on_tick(10 << 20);
        assert_eq!(window.size(), 64, "still growing");
        window.on_tick(10 << 20);
        assert_eq!(window.size(), REQUESTS_OUT_MAX, "15 MiB of requests, capped");
        window.on_tick(100 << 10);
        assert_eq!(window.size(), 10);
        window.on_tick(0);
        assert_eq!(window.size(), MIN);
        window.on_snub();
        assert_eq!(window.size(), 1);
        window.on_block();
        assert_eq!(window.size(), 2);
    }

    #[test]
    fn the_peers_own_bound_holds() {
        let mut window = Window::default();
        window.set_peer_max(4);
        (0..100).for_each(|_| window.on_block());
        assert_eq!(window.size(), 4);
    }
}
