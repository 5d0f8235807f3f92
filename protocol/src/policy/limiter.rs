//! Rate limits as token buckets over virtual time: the average is exact at any rate, because a take
//! may go below zero and is paid back before the next.

use std::time::Duration;

/// A burst is what the rate allows in this time…
const BURST: Duration = Duration::from_millis(100);
/// …but at least one block with its header.
const BURST_BYTES_MIN: u64 = 16 * 1024 + 13;

/// One direction's limit.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Bytes per second; `None` lets everything through.
    rate: Option<u64>,
    /// Bytes that may go now, in millionths, so that slow rates are not rounded away.
    micro_tokens: i128,
    filled_at: Duration,
}

impl Bucket {
    /// A bucket that starts full. A rate of 0 lets nothing through.
    pub fn new(rate: Option<u64>) -> Self {
        let mut bucket = Self { rate, micro_tokens: 0, filled_at: Duration::ZERO };
        bucket.micro_tokens = bucket.burst();
        bucket
    }

    /// Changes the rate from now on.
    pub fn set_rate(&mut self, now: Duration, rate: Option<u64>) {
        self.refill(now);
        self.rate = rate;
        self.micro_tokens = self.micro_tokens.min(self.burst());
    }

    /// Takes `bytes` if anything may go now; true if they may go.
    pub fn take(&mut self, now: Duration, bytes: u64) -> bool {
        if self.rate.is_none() {
            return true;
        }
        self.refill(now);
        if self.rate == Some(0) || self.micro_tokens <= 0 {
            return false;
        }
        self.micro_tokens -= i128::from(bytes) * 1_000_000;
        true
    }

    /// Takes `bytes` that go at once, for what is small and is waited for: true unless more than a second's
    /// worth is owed already.
    pub fn owe(&mut self, now: Duration, bytes: u64) -> bool {
        let Some(rate) = self.rate else { return true };
        self.refill(now);
        if rate == 0 || self.micro_tokens <= -i128::from(rate) * 1_000_000 {
            return false;
        }
        self.micro_tokens -= i128::from(bytes) * 1_000_000;
        true
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.micro_tokens =
                (self.micro_tokens + i128::from(bytes) * 1_000_000).min(self.burst());
        }
    }

    /// When [`Bucket::take`] will next succeed; `None` if it would now, or never.
    pub fn ready_at(&self) -> Option<Duration> {
        let rate = self.rate.filter(|&rate| rate > 0)?;
        if self.micro_tokens > 0 {
            return None;
        }
        let micros = (1 - self.micro_tokens).div_euclid(i128::from(rate)) + 1;
        Some(self.filled_at + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX >> 8)))
    }

    /// The limit in bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    fn burst(&self) -> i128 {
        let rate = self.rate.unwrap_or(0);
        let bytes = (i128::from(rate) * BURST.as_millis().cast_signed() / 1000)
            .max(i128::from(BURST_BYTES_MIN));
        bytes * 1_000_000
    }

    fn refill(&mut self, now: Duration) {
        let Some(rate) = self.rate else { return };
        let passed = now.saturating_sub(self.filled_at).as_micros();
        let added = i128::try_from(passed).unwrap_or(i128::MAX >> 64) * i128::from(rate);
        self.micro_tokens = (self.micro_tokens + added).min(self.burst());
        self.filled_at = self.filled_at.max(now);
    }
}

/// The limits of a session: every swarm draws on the same two buckets, peers on the LAN on none.
#[derive(Debug, Clone)]
pub struct Limiter {
    /// Payload sent.
    pub up: Bucket,
    /// Payload requested.
    pub down: Bucket,
}

impl Limiter {
    /// Limits in bytes per second.
    pub fn new(up: Option<u64>, down: Option<u64>) -> Self {
        Self { up: Bucket::new(up), down: Bucket::new(down) }
    }

    /// Fills both up to `now`, so that neither claims to be due for what it has long got.
    pub fn refill(&mut self, now: Duration) {
        self.up.refill(now);
        self.down.refill(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_exact_at_any_rate() {
        for rate in [1_000, 20_000, 1_000_000, 1_234_567_890u64] {
            let mut bucket = Bucket::new(Some(rate));
            let (mut now, mut sent) = (Duration::ZERO, 0u64);
            let end = Duration::from_secs(200);
            let step = if rate > 100_000_000 { 1 << 20 } else { 16 * 1024 };
            while now < end {
                if bucket.take(now, step) {
                    sent += step;
                } else {
                    let at = bucket.ready_at().unwrap();
                    assert!(at > now, "{at:?} {now:?}");
                    now = at;
                }
            }
            let fair = rate * 200;
            let slack = (rate / 5).max(2 * step) + 2 * BURST_BYTES_MIN;
            assert!(sent.abs_diff(fair) <= slack, "{rate}: {sent} of {fair}");
        }
    }

    #[test]
    fn what_is_owed_is_paid_back_and_has_an_end() {
        let (mut bucket, now) = (Bucket::new(Some(100_000)), Duration::ZERO);
        let owed = std::iter::from_fn(|| bucket.owe(now, 16_384).then_some(16_384)).sum::<u64>();
        assert!((100_000..150_000).contains(&owed), "{owed}");
        assert!(!bucket.take(now, 1));
        assert!(bucket.ready_at().unwrap() > Duration::from_secs(1));
        assert!(!Bucket::new(Some(0)).owe(now, 1) && Bucket::new(None).owe(now, u64::MAX));
    }

    #[test]
    fn no_limit_and_a_limit_of_nothing() {
        let mut open = Bucket::new(None);
        assert!(open.take(Duration::ZERO, u64::MAX) && open.ready_at().is_none());
        let mut shut = Bucket::new(Some(0));
        assert!(!shut.take(Duration::from_secs(1000), 1) && shut.ready_at().is_none());
        shut.set_rate(Duration::from_secs(1000), Some(1000));
        assert!(shut.take(Duration::from_secs(1001), 1));
    }
}
