//! Whether what is sent is worth compressing, and how much processor time that may take.
//!
//! A game runs beside us, so compression has a share of one core and no more; with much of it left it
//! is done well, with little fast, with none not at all. Content that does not shrink is found out
//! after a parcel and looked at again now and then.

use std::time::Duration;

/// The part of one core that compression may take.
const SHARE: u32 = 4;
/// Processor time that may be saved up.
const SAVED_MAX: Duration = Duration::from_secs(1);
/// With more than this it is done well.
const MUCH: Duration = Duration::from_millis(300);
/// With less than this it is not done.
const LITTLE: Duration = Duration::from_millis(20);
/// A sample or a parcel must shrink at least to this, of 100.
const PAYS: u64 = 90;
/// Of content that does not pay one parcel in so many is looked at.
const LOOK_EVERY: u32 = 16;

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// 60 MB/s and more.
    Well,
    /// 300 MB/s and more, a tenth larger.
    Fast,
}

impl Effort {
    /// The level of zstd.
    pub fn level(self) -> i32 {
        match self {
            Self::Well => 9,
            Self::Fast => 3,
        }
    }
}

/// The processor time there is.
#[derive(Debug)]
pub struct Share {
    left: Duration,
    at: Duration,
}

impl Default for Share {
    fn default() -> Self {
        Self { left: SAVED_MAX, at: Duration::ZERO }
    }
}

impl Share {
    /// How hard to try now; `None` to send plainly.
    pub fn effort(&mut self, now: Duration) -> Option<Effort> {
        self.left = (self.left + now.saturating_sub(self.at) / SHARE).min(SAVED_MAX);
        self.at = self.at.max(now);
        match self.left {
            left if left > MUCH => Some(Effort::Well),
            left if left > LITTLE => Some(Effort::Fast),
            _ => None,
        }
    }

    /// Compressing took so long.
    pub fn spent(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }
}

/// What is known of one torrent's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pays: Option<bool>,
    passed: u32,
}

impl Content {
    /// Whether to look at the next parcel at all.
    pub fn looks(&mut self) -> bool {
        if self.pays != Some(false) {
            return true;
        }
        self.passed += 1;
        self.passed.is_multiple_of(LOOK_EVERY)
    }

    /// So many bytes became so many.
    pub fn saw(&mut self, plain: usize, packed: usize) {
        self.pays = Some(is_worth(plain, packed));
    }

    /// Whether compression is known to pay.
    pub fn pays(self) -> bool {
        self.pays == Some(true)
    }
}

/// Whether sending `packed` bytes instead of `plain` ones is worth the receiver's trouble.
pub fn is_worth(plain: usize, packed: usize) -> bool {
    packed as u64 * 100 <= plain as u64 * PAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_has_a_quarter_of_a_core() {
        let (mut share, mut busy, mut now) = (Share::default(), Duration::ZERO, Duration::ZERO);
        let mut kinds = [0; 3];
        while now < Duration::from_secs(100) {
            // There is always a next parcel; plain ones take as long to send as fast ones to compress.
            let (kind, took) = match share.effort(now) {
                Some(Effort::Well) => (0, Duration::from_millis(9)),
                Some(Effort::Fast) => (1, Duration::from_millis(2)),
                None => (2, Duration::ZERO),
            };
            kinds[kind] += 1;
            share.spent(took);
            busy += took;
            now += took.max(Duration::from_millis(2));
        }
        assert!(busy <= Duration::from_millis(26_000), "{busy:?}");
        assert!(busy >= Duration::from_millis(24_000), "{busy:?}");
        assert!(kinds[1] > kinds[0], "when it is short, fast: {kinds:?}");
    }

    #[test]
    fn content_that_does_not_shrink_is_left_alone_and_looked_at_again() {
        let mut content = Content::default();
        assert!(content.looks() && !content.pays());
        content.saw(100, 99);
        assert_eq!((0..160).filter(|_| content.looks()).count(), 10);
        content.saw(100, 40);
        assert!(content.pays());
        assert_eq!((0..160).filter(|_| content.looks()).count(), 160);
    }
}
