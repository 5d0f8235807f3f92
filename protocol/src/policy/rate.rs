//! How fast something goes: a moving average over about five seconds of one-second ticks.

use std::time::Duration;

/// Bytes counted into a rate.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    total: u64,
    since_tick: u64,
    per_second: f64,
    ticks: u32,
}

/// The weight of the newest second once the average has settled.
const NEWEST: f64 = 0.33;

impl Rate {
    /// Counts `bytes`.
    pub fn add(&mut self, bytes: u64) {
        self.total += bytes;
        self.since_tick += bytes;
    }

    /// Closes an interval of `passed`.
    pub fn tick(&mut self, passed: Duration) {
        let seconds = passed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        #[allow(clippy::cast_precision_loss)] // a rate is an estimate
        let newest = self.since_tick as f64 / seconds;
        self.since_tick = 0;
        self.ticks = self.ticks.saturating_add(1);
        // The first seconds count fully, so that a new peer's rate is known at once.
        let weight = NEWEST.max(1.0 / f64::from(self.ticks));
        self.per_second += (newest - self.per_second) * weight;
        if self.per_second < 1.0 {
            self.per_second = 0.0;
        }
    }

    /// True once an interval has passed: before that the rate says nothing.
    pub fn is_known(&self) -> bool {
        self.ticks > 0
    }

    /// All bytes ever counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes per second.
    pub fn get(&self) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // positive and far below 2^64
        let rate = self.per_second as u64;
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_steady_stream_and_forgets_it() {
        let mut rate = Rate::default();
        for _ in 0..10 {
            rate.add(1000);
            rate.tick(Duration::from_secs(1));
        }
        assert!(rate.get().abs_diff(1000) <= 1);
        (0..30).for_each(|_| rate.tick(Duration::from_secs(1)));
        assert_eq!((rate.get(), rate.total()), (0, 10_000));
    }
}
