//! Announcing on the local network, and what to believe of what others announce there.
//!
//! [`Schedule`] says when our torrents are named on one link: at once, then every five minutes, sooner
//! when somebody new is heard, never twice within a minute. [`Heard`] lets through what is worth a
//! dial: anybody on the link can send any number of announcements with invented ports.

use crate::ids::InfoHash;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// BEP 14: every five minutes.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// BEP 14: no torrent more often than once a minute.
const INTERVAL_MIN: Duration = Duration::from_secs(60);
/// Somebody new is answered within this time: not by all of a room in one moment.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Torrents announced at most.
pub const TORRENTS_MAX: usize = 60;

/// Senders remembered.
const SOURCES_MAX: usize = 512;
/// Ports of one sender that are believed: several programs may run there, and be started again.
const PORTS_MAX: usize = 8;
/// How long what was heard counts as known: one announcement may be lost.
const REMEMBERED: Duration = Duration::from_secs(11 * 60);
/// The same again within this time, from the same program by its cookie, is an answer to somebody else.
const AGAIN: Duration = Duration::from_secs(4 * 60);
/// Dials that one sender may cause at once, and each second afterwards.
const DIALS_OF_ONE: Allowance = Allowance { burst: 48, per_second: 1 };
/// The same for all of them: a room of 250 that all appear in one moment is through after half a minute.
const DIALS_OF_ALL: Allowance = Allowance { burst: 64, per_second: 8 };

/// When to name which of our torrents on one link.
#[derive(Debug, Default)]
pub struct Schedule {
    torrents: BTreeMap<InfoHash, Turn>,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    last: Option<Duration>,
    due: Duration,
}

impl Turn {
    /// The first moment at which it may be named again.
    fn earliest(&self, at: Duration) -> Duration {
        self.last.map_or(at, |last| at.max(last + INTERVAL_MIN))
    }
}

impl Schedule {
    /// These are our torrents now; the first [`TORRENTS_MAX`] of them count. New ones are due.
    pub fn set(&mut self, now: Duration, torrents: &[InfoHash]) {
        let torrents = &torrents[..torrents.len().min(TORRENTS_MAX)];
        self.torrents.retain(|hash, _| torrents.contains(hash));
        for hash in torrents {
            self.torrents.entry(*hash).or_insert(Turn { last: None, due: now });
        }
    }

    /// The link was away and is back, perhaps with others on it.
    pub fn link_is_back(&mut self, now: Duration) {
        for turn in self.torrents.values_mut() {
            turn.due = turn.due.min(turn.earliest(now));
        }
    }

    /// Somebody new named one of our torrents: they are told of us soon, `after` a part (0 to 1) of the
    /// time there is for that.
    pub fn answer(&mut self, now: Duration, hash: InfoHash, after: f64) {
        if let Some(turn) = self.torrents.get_mut(&hash) {
            let soon = now + ANSWER_WITHIN.mul_f64(after.clamp(0.0, 1.0));
            turn.due = turn.due.min(turn.earliest(soon));
        }
    }

    /// The torrents to name now; they count as named.
    pub fn take_due(&mut self, now: Duration) -> Vec<InfoHash> {
        let due = self.torrents.iter_mut().filter(|(_, turn)| turn.due <= now);
        due.map(|(hash, turn)| {
            *turn = Turn { last: Some(now), due: now + INTERVAL };
            *hash
        })
        .collect()
    }

    /// What was taken could not be sent: again at `at`.
    pub fn put_back(&mut self, at: Duration, torrents: &[InfoHash]) {
        for hash in torrents {
            if let Some(turn) = self.torrents.get_mut(hash) {
                *turn = Turn { last: None, due: at };
            }
        }
    }

    /// When [`Schedule::take_due`] will next give something.
    pub fn next_due(&self) -> Option<Duration> {
        self.torrents.values().map(|turn| turn.due).min()
    }
}

/// What was heard on all links, within bounds.
#[derive(Debug, Default)]
pub struct Heard {
    sources: BTreeMap<IpAddr, Source>,
    dials: Spent,
}

#[derive(Debug, Default)]
struct Source {
    places: Vec<Place>,
    dials: Spent,
}

#[derive(Debug)]
struct Place {
    port: u16,
    hash: InfoHash,
    cookie: Option<String>,
    at: Duration,
}

/// What to make of one torrent in an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody new: dial, and tell them of us.
    New,
    /// Somebody known, after a while: dial.
    Known,
    /// Known already, or too much.
    Ignored,
}

impl Heard {
    /// A torrent of ours was announced at `from`, by a program that calls itself `cookie`.
    pub fn hear(
        &mut self,
        now: Duration,
        from: SocketAddr,
        hash: InfoHash,
        cookie: Option<&str>,
    ) -> Verdict {
        self.make_room(from.ip());
        let source = self.sources.entry(from.ip()).or_default();
        source.places.retain(|place| !place.is_old(now));
        let port = from.port();
        let there = source.places.iter().position(|place| place.port == port && place.hash == hash);
        // Who was started again is new, and knows nobody.
        let known = there.filter(|at| source.places[*at].cookie.as_deref() == cookie);
        let is_again = known.is_some_and(|at| now.saturating_sub(source.places[at].at) < AGAIN);
        if is_again || (there.is_none() && !source.has_room_for(port)) {
            return Verdict::Ignored;
        }
        if !DIALS_OF_ONE.take(&mut source.dials, now) || !DIALS_OF_ALL.take(&mut self.dials, now) {
            return Verdict::Ignored;
        }
        let place = Place { port, hash, cookie: cookie.map(str::to_owned), at: now };
        match there {
            Some(at) => source.places[at] = place,
            None => source.places.push(place),
        }
        if known.is_some() { Verdict::Known } else { Verdict::New }
    }

    /// Whoever was not believed for the longest time makes place for `source`.
    fn make_room(&mut self, source: IpAddr) {
        if self.sources.len() < SOURCES_MAX || self.sources.contains_key(&source) {
            return;
        }
        let last = |source: &Source| source.places.iter().map(|place| place.at).max();
        let oldest = self.sources.iter().min_by_key(|(_, source)| last(source));
        if let Some(oldest) = oldest.map(|(source, _)| *source) {
            self.sources.remove(&oldest);
        }
    }
}

impl Source {
    fn has_room_for(&self, port: u16) -> bool {
        let mut ports: Vec<u16> = self.places.iter().map(|place| place.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.len() < PORTS_MAX || ports.contains(&port)
    }
}

impl Place {
    fn is_old(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) > REMEMBERED
    }
}

/// So many at once, and so many a second.
struct Allowance {
    burst: u32,
    per_second: u32,
}

/// What of an [`Allowance`] is left, in thousandths, and when that was so; none for all of it.
#[derive(Debug, Default)]
struct Spent(Option<(u64, Duration)>);

impl Allowance {
    fn take(&self, spent: &mut Spent, now: Duration) -> bool {
        const ONE: u64 = 1000;
        let full = u64::from(self.burst) * ONE;
        let (left, since) = spent.0.unwrap_or((full, now));
        let passed = u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX);
        let left = left.saturating_add(passed.saturating_mul(self.per_second.into())).min(full);
        let enough = left >= ONE;
        // What is less than a thousandth must not be lost to a flood.
        if enough || passed > 0 || spent.0.is_none() {
            spent.0 = Some((left - if enough { ONE } else { 0 }, now));
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u8) -> InfoHash {
        InfoHash([number; 20])
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn from(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    #[test]
    fn at_once_and_then_every_five_minutes() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.next_due(), None);
        schedule.set(seconds(1), &[hash(1)]);
        assert_eq!(schedule.take_due(seconds(1)), [hash(1)]);
        assert_eq!(schedule.next_due(), Some(seconds(301)));
        schedule.set(seconds(2), &[hash(1), hash(2)]);
        assert_eq!(schedule.take_due(seconds(2)), [hash(2)], "a new one does not wait");
        assert_eq!(schedule.take_due(seconds(302)), [hash(1), hash(2)], "then they go together");
        schedule.set(seconds(303), &[]);
        assert_eq!(schedule.next_due(), None);
        let many: Vec<_> = (0..=u8::MAX).map(hash).collect();
        schedule.set(seconds(304), &many);
        assert_eq!(schedule.take_due(seconds(304)).len(), TORRENTS_MAX);
    }

    #[test]
    fn somebody_new_is_answered_soon_but_never_twice_within_a_minute() {
        let mut schedule = Schedule::default();
        schedule.set(seconds(0), &[hash(1), hash(2)]);
        schedule.take_due(seconds(0));
        schedule.answer(seconds(100), hash(1), 1.0);
        schedule.answer(seconds(100), hash(9), 0.0);
        assert_eq!(schedule.next_due(), Some(seconds(100) + ANSWER_WITHIN));
        assert_eq!(schedule.take_due(seconds(101)), [hash(1)]);
        (101..161).for_each(|at| schedule.answer(seconds(at), hash(1), 0.0));
        schedule.link_is_back(seconds(102));
        assert_eq!(schedule.take_due(seconds(102)), [hash(2)]);
        assert_eq!(schedule.next_due(), Some(seconds(161)));
        let mut sent = 0;
        for at in 200..500 {
            (0..100).for_each(|_| schedule.answer(seconds(at), hash(1), 0.0));
            schedule.link_is_back(seconds(at));
            sent += schedule.take_due(seconds(at)).iter().filter(|due| **due == hash(1)).count();
        }
        assert_eq!(sent, 5);
    }

    #[test]
    fn what_could_not_be_sent_is_sent_later() {
        let mut schedule = Schedule::default();
        schedule.set(seconds(0), &[hash(1)]);
        let due = schedule.take_due(seconds(0));
        schedule.put_back(seconds(1), &due);
        assert_eq!(schedule.take_due(seconds(0)), []);
        assert_eq!(schedule.take_due(seconds(1)), [hash(1)]);
    }

    #[test]
    fn who_is_known_is_dialled_again_after_a_while_and_not_answered() {
        let mut heard = Heard::default();
        for (at, expected) in [
            (0, Verdict::New),
            (60, Verdict::Ignored),
            (239, Verdict::Ignored),
            (240, Verdict::Known),
            (900, Verdict::Known),
            (1561, Verdict::New),
        ] {
            assert_eq!(heard.hear(seconds(at), from(1, 5), hash(1), None), expected, "at {at} s");
        }
        assert_eq!(heard.hear(seconds(1561), from(1, 5), hash(2), None), Verdict::New);
        assert_eq!(heard.hear(seconds(1561), from(2, 5), hash(1), None), Verdict::New);
        let again =
            |heard: &mut Heard, cookie| heard.hear(seconds(1562), from(1, 5), hash(1), cookie);
        assert_eq!(again(&mut heard, Some("a")), Verdict::New, "it was started again");
        assert_eq!(again(&mut heard, Some("a")), Verdict::Ignored);
        assert_eq!(again(&mut heard, Some("b")), Verdict::New);
    }

    #[test]
    fn invented_ports_cost_a_few_dials() {
        let mut heard = Heard::default();
        let passed =
            |heard: &mut Heard, at, from| heard.hear(at, from, hash(1), None) == Verdict::New;
        let ports = (1..=u16::MAX).filter(|port| passed(&mut heard, seconds(0), from(1, *port)));
        assert_eq!(ports.count(), PORTS_MAX);
        assert!(passed(&mut heard, seconds(0), from(2, 1)), "others are heard as before");
    }

    #[test]
    fn who_is_new_again_and_again_is_believed_within_bounds() {
        let (mut heard, mut passed) = (Heard::default(), 0);
        for tenth in 0..10_000u64 {
            let (now, cookie) = (Duration::from_millis(100 * tenth), tenth.to_string());
            for number in 0..20 {
                let verdict = heard.hear(now, from(1, 1), hash(number), Some(&cookie));
                passed += u32::from(verdict != Verdict::Ignored);
            }
        }
        let most = DIALS_OF_ONE.burst + 1000 * DIALS_OF_ONE.per_second;
        assert!((most / 2..=most).contains(&passed), "{passed}");
    }

    #[test]
    fn invented_senders_cost_bounded_memory_and_dials() {
        let (mut heard, mut passed) = (Heard::default(), 0);
        for number in 0..100_000u32 {
            let now = Duration::from_millis(number.into());
            let source = SocketAddr::from((number.to_be_bytes(), 1));
            passed += u32::from(heard.hear(now, source, hash(1), None) == Verdict::New);
        }
        let most = DIALS_OF_ALL.burst + 100 * DIALS_OF_ALL.per_second;
        assert!((most / 2..=most).contains(&passed), "{passed}");
        assert!(heard.sources.len() <= SOURCES_MAX);
        assert!(heard.sources.values().all(|source| source.places.len() <= PORTS_MAX));
    }
}
