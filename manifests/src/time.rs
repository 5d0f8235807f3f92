//! Moments as seconds since 1970, written as RFC 3339 in UTC (`2026-11-22T19:20:00Z`).

use serde::{Deserialize, Serialize};
use std::fmt;

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds; at most the end of year 9999.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Time(u64);

/// A text that is no [`Time`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a UTC time like `2026-11-22T19:20:00Z`")]
pub struct TimeError(String);

const SECONDS_MAX: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z
const DAY: u64 = 86_400;

impl Time {
    /// That many seconds after 1970 began; later than year 9999 becomes the end of year 9999.
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds.min(SECONDS_MAX))
    }

    /// Seconds since 1970 began.
    pub fn unix(self) -> u64 {
        self.0
    }

    /// This moment `seconds` later.
    pub fn after(self, seconds: u64) -> Self {
        Self::from_unix(self.0.saturating_add(seconds))
    }

    /// Reads `YYYY-MM-DDTHH:MM:SSZ` and nothing else.
    ///
    /// # Errors
    /// [`TimeError`] for any other form and for days that do not exist.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        parse(text).ok_or_else(|| TimeError(crate::names::shown(text)))
    }
}

fn parse(text: &str) -> Option<Time> {
    let b = text.as_bytes();
    if b.len() != 20 {
        return None;
    }
    for (at, expected) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')] {
        if b[at] != expected {
            return None;
        }
    }
    let number = |from: usize, to: usize| {
        b[from..to].iter().try_fold(0u64, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_before(year, month, day)?;
    Some(Time(days * DAY + hour * 3600 + minute * 60 + second))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_len(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(is_leap(year)),
        _ => 31,
    }
}

/// Days between 1970-01-01 and that day; `None` if there is no such day.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || day == 0 || day > month_len(year, month) {
        return None;
    }
    let leaps = |y: u64| y / 4 - y / 100 + y / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    let months: u64 = (1..month).map(|m| month_len(year, m)).sum();
    Some(years + months + day - 1)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut days, rest) = (self.0 / DAY, self.0 % DAY);
        let mut year = 1970;
        // 400 years are always 146 097 days; the loop below then runs at most 400 times.
        year += days / 146_097 * 400;
        days %= 146_097;
        while days >= 365 + u64::from(is_leap(year)) {
            days -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let mut month = 1;
        while days >= month_len(year, month) {
            days -= month_len(year, month);
            month += 1;
        }
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
    }
}

impl TryFrom<String> for Time {
    type Error = TimeError;
    fn try_from(text: String) -> Result<Self, TimeError> {
        Self::parse(&text)
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (SECONDS_MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Time::from_unix(seconds).to_string(), text);
            assert_eq!(Time::parse(text), Ok(Time(seconds)));
        }
        for bad in [
            "",
            "2023-02-29T00:00:00Z",
            "2023-01-01 00:00:00Z",
            "2023-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2023-01-01T24:00:00Z",
            "+023-01-01T00:00:00Z",
        ] {
            assert!(Time::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(seconds in 0..=SECONDS_MAX) {
            let time = Time(seconds);
            prop_assert_eq!(Time::parse(&time.to_string()), Ok(time));
        }
    }
}
