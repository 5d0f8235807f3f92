//! Whom to dial: known addresses, how often they failed, and how many connections may be open; and who
//! makes place for somebody new when that many are.

use super::bans::HostAddr;
use super::locality::is_lan;
use crate::ids::PeerKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses kept per swarm.
const ADDRESSES_MAX: usize = 1000;
/// Attempts under way at once.
pub const HALF_OPEN_MAX: usize = 8;
/// Nobody is dialled at first beyond so many connections: enough to begin.
const DIAL_UNTIL: usize = 16;
/// Failures in a row after which an address is forgotten, if others are left to try.
const FAILURES_MAX: u32 = 5;
/// Addresses below which none is forgotten.
const ADDRESSES_FEW: usize = 50;
/// Addresses heard of from one peer and not yet connected to, and from all of them: the rest of the
/// places is for what trackers and users tell.
const HINTS_PER_PEER_MAX: usize = 50;
const HINTS_MAX: usize = ADDRESSES_MAX / 2;
/// Addresses at one host beyond the LAN that peers there say they listen at.
const LISTENS_PER_HOST_MAX: usize = 8;
/// Failures in a row after which such an address is forgotten in any case.
const HINT_FAILURES_MAX: u32 = 2;
/// Wait after the first failure; doubles with each, up to a minute and a half, or to 25 minutes.
const RETRY: Duration = Duration::from_secs(3);
const DOUBLINGS_MAX: u32 = 6;
const DOUBLINGS_CALM: u32 = 10;
/// An address of somebody we are connected with by another one is left alone for this time, however often it
/// is named.
const TWIN: Duration = Duration::from_secs(15 * 60);
/// Wait before dialling a peer again that we, or it, closed in peace.
const REDIAL: Duration = Duration::from_secs(60);

/// A connection that has carried nothing for so long is worth no more than one to somebody unknown.
const IDLE: Duration = Duration::from_secs(120);

/// Who makes place for somebody new: of `connections`, each with the time when it last carried payload
/// either way or began, the one that has been idle the longest, if that is long.
pub fn makes_place(
    now: Duration,
    connections: impl Iterator<Item = (PeerKey, Duration)>,
) -> Option<PeerKey> {
    let idle = connections.filter(|(_, carried_at)| now.saturating_sub(*carried_at) >= IDLE);
    idle.min_by_key(|(_, carried_at)| *carried_at).map(|(peer, _)| peer)
}

/// How many connections to dial for, `waited` after the beginning. Half of the places are for those who
/// come: in a swarm larger than that, whoever appears last must find somebody with a place. Few at
/// once, more by and by: when a crowd appears in one moment, everybody dials everybody.
pub fn dial_until(waited: Duration, connections_max: usize) -> usize {
    let more = usize::try_from(waited.as_secs()).unwrap_or(usize::MAX);
    DIAL_UNTIL.saturating_add(more).min(connections_max.div_ceil(2))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until: Duration,
    },
    Dialling,
    Connected,
    /// It leads to a peer that we are connected with by another address.
    Twin {
        until: Duration,
    },
}

impl State {
    /// When it may be dialled, if ever while it is so.
    fn due(self) -> Option<Duration> {
        match self {
            Self::Waiting { until } | Self::Twin { until } => Some(until),
            Self::Dialling | Self::Connected => None,
        }
    }
}

#[derive(Debug, Clone)]
struct Known {
    state: State,
    failures: u32,
    /// The UDP port at which it has QUIC, as far as we know.
    quic: Option<u16>,
    /// The peer that it was heard of from, while nothing else speaks for it.
    hint: Option<PeerKey>,
    /// Its own announcement is all that speaks for it. It comes again, with every address that it has.
    announced: bool,
}

impl Known {
    fn new(now: Duration, quic: Option<u16>, hint: Option<PeerKey>) -> Self {
        Self { state: State::Waiting { until: now }, failures: 0, quic, hint, announced: false }
    }
}

fn wait(doublings: u32) -> Duration {
    RETRY * (1 << doublings) / 2
}

/// The addresses of one swarm.
#[derive(Debug, Default)]
pub struct Dialer {
    known: BTreeMap<SocketAddr, Known>,
    banned: BTreeMap<SocketAddr, Duration>,
}

impl Dialer {
    /// An address was told by a tracker, a user or a peer. Addresses without a port or a host are
    /// dropped, as is what does not fit. One that failed once is tried again at once: it may have been
    /// dialled from memory, before it had the torrent.
    pub fn add(&mut self, now: Duration, addr: SocketAddr) {
        if !self.takes(now, addr) {
            return;
        }
        let new = Known::new(now, None, None);
        let known = self.known.entry(addr).or_insert(new);
        (known.hint, known.announced) = (None, false);
        if let State::Waiting { until } = &mut known.state
            && known.failures == 1
        {
            *until = now;
        }
    }

    /// The peer at `addr` says itself that it is there, as it does every few minutes: as [`Dialer::add`], and
    /// if a connection to it has ended it is dialled at once, since it may have been started again.
    pub fn announced(&mut self, now: Duration, addr: SocketAddr) {
        let alone = self.known.get(&addr).is_none_or(|known| known.announced);
        self.add(now, addr);
        let Some(known) = self.known.get_mut(&addr) else { return };
        known.announced = alone;
        if let State::Waiting { until } = &mut known.state {
            // It is there, whether it takes us or not.
            let soon = if known.failures == 0 { now } else { now + wait(DOUBLINGS_MAX) };
            *until = soon.min(*until);
        }
    }

    /// A peer says that it is connected to `addr`, which has QUIC at the same port number or not. That is
    /// hearsay: it is dialled after addresses from
    /// elsewhere, forgotten soon, and one peer can name only so many.
    pub fn hint(&mut self, now: Duration, addr: SocketAddr, quic: bool, by: PeerKey) {
        let hints = || self.known.values().filter_map(|known| known.hint);
        let room = hints().count() < HINTS_MAX
            && hints().filter(|&other| other == by).count() < HINTS_PER_PEER_MAX;
        if room && self.takes(now, addr) {
            let quic = quic.then_some(addr.port());
            self.known.entry(addr).or_insert(Known::new(now, quic, Some(by)));
        }
    }

    /// A connected peer says where it listens, so that it is not dialled as well and can be dialled later. Nobody
    /// has seen that it does: that is hearsay too, and one host beyond the LAN names only so many.
    pub fn listens(&mut self, now: Duration, addr: SocketAddr, by: PeerKey) {
        if !self.known.contains_key(&addr) {
            let host = HostAddr::of(addr.ip());
            let of_host = self
                .known
                .iter()
                .filter(|(other, known)| known.hint.is_some() && HostAddr::of(other.ip()) == host);
            if !is_lan(addr.ip()) && of_host.count() >= LISTENS_PER_HOST_MAX {
                return;
            }
            self.hint(now, addr, false, by);
        }
        if let Some(known) = self.known.get_mut(&addr) {
            (known.state, known.failures) = (State::Connected, 0);
        }
    }

    /// A peer says that the one at `addr` dials us, and is to be dialled at once. True if it is from now on.
    pub fn punch(&mut self, now: Duration, addr: SocketAddr, by: PeerKey) -> bool {
        if self.dialling() >= HALF_OPEN_MAX || !self.takes(now, addr) {
            return false;
        }
        let known = self.known.entry(addr).or_insert(Known::new(now, None, Some(by)));
        let waits = matches!(known.state, State::Waiting { .. });
        if waits {
            known.state = State::Dialling;
        }
        waits
    }

    /// False for what cannot or must not be dialled, and when there is no room.
    fn takes(&self, now: Duration, addr: SocketAddr) -> bool {
        let ip = addr.ip();
        let impossible = addr.port() == 0 || ip.is_unspecified() || ip.is_multicast();
        !impossible && self.known.len() < ADDRESSES_MAX && !self.is_banned(now, addr)
    }

    /// The next addresses to dial, given the connections there are and may be: in no order, or a crowd
    /// would meet at the same few and know nobody else.
    pub fn due(
        &mut self,
        now: Duration,
        connected: usize,
        connections_max: usize,
        rng: &mut fastrand::Rng,
    ) -> Vec<SocketAddr> {
        let dialling = self.dialling();
        let room = connections_max
            .saturating_sub(connected + dialling)
            .min(HALF_OPEN_MAX.saturating_sub(dialling));
        let mut due: Vec<(u32, bool, SocketAddr)> = self
            .known
            .iter()
            .filter(|(_, known)| known.state.due().is_some_and(|due| due <= now))
            .map(|(addr, known)| (known.failures, known.hint.is_some(), *addr))
            .collect();
        rng.shuffle(&mut due);
        due.sort_by_key(|(failures, hint, _)| (*failures, *hint));
        due.truncate(room);
        for (_, _, addr) in &due {
            if let Some(known) = self.known.get_mut(addr) {
                known.state = State::Dialling;
            }
        }
        due.into_iter().map(|(_, _, addr)| addr).collect()
    }

    /// Attempts under way.
    pub fn dialling(&self) -> usize {
        self.known.values().filter(|known| known.state == State::Dialling).count()
    }

    /// True while an address is being dialled or could be now.
    pub fn is_busy(&self, now: Duration) -> bool {
        self.known.values().any(|known| match known.state.due() {
            Some(due) => due <= now,
            None => known.state == State::Dialling,
        })
    }

    /// When [`Dialer::due`] will next give an address, if nothing else changes before.
    pub fn next_due(&self, connected: usize, connections_max: usize) -> Option<Duration> {
        let dialling = self.dialling();
        if dialling >= HALF_OPEN_MAX || connected + dialling >= connections_max {
            return None;
        }
        self.known.values().filter_map(|known| known.state.due()).min()
    }

    /// The attempt failed. Who wants nothing from anybody is `calm`, and tries again ever later.
    pub fn failed(&mut self, now: Duration, addr: SocketAddr, calm: bool) {
        let Some(known) = self.known.get_mut(&addr) else { return };
        known.failures += 1;
        let doublings = known.failures.min(if calm { DOUBLINGS_CALM } else { DOUBLINGS_MAX });
        known.state = State::Waiting { until: now + wait(doublings) };
        let hearsay = known.hint.is_some() && known.failures >= HINT_FAILURES_MAX;
        // Somebody with several addresses is connected by one and refuses us at the others.
        if hearsay
            || known.announced
            || (known.failures >= FAILURES_MAX && self.known.len() > ADDRESSES_FEW)
        {
            self.known.remove(&addr);
        }
    }

    /// The attempt succeeded.
    pub fn connected(&mut self, addr: SocketAddr) {
        if let Some(known) = self.known.get_mut(&addr) {
            *known = Known {
                state: State::Connected,
                failures: 0,
                quic: known.quic,
                hint: None,
                announced: false,
            };
        }
    }

    /// The peer at `addr` has QUIC at this UDP port, or not.
    pub fn set_quic(&mut self, addr: SocketAddr, port: Option<u16>) {
        if let Some(known) = self.known.get_mut(&addr) {
            known.quic = port;
        }
    }

    /// The UDP port at which the peer at `addr` has QUIC, as far as is known.
    pub fn quic(&self, addr: SocketAddr) -> Option<u16> {
        self.known.get(&addr)?.quic
    }

    /// A connection to `addr` ended in peace.
    pub fn closed(&mut self, now: Duration, addr: SocketAddr) {
        if let Some(known) = self.known.get_mut(&addr) {
            known.state = State::Waiting { until: now + REDIAL };
        }
    }

    /// `addr` leads to somebody we are connected with already.
    pub fn leads_to_twin(&mut self, now: Duration, addr: SocketAddr) {
        if let Some(known) = self.known.get_mut(&addr) {
            known.state = State::Twin { until: now + TWIN };
        }
    }

    /// Nobody at the address has anything for us, now or later.
    pub fn forget(&mut self, addr: SocketAddr) {
        self.known.remove(&addr);
    }

    /// The peer at `addr` misbehaved: not dialled for `ban`.
    pub fn ban(&mut self, now: Duration, addr: SocketAddr, ban: Duration) {
        self.known.remove(&addr);
        self.banned.retain(|_, until| *until > now);
        if self.banned.len() >= ADDRESSES_MAX
            && let Some((&soonest, _)) = self.banned.iter().min_by_key(|(_, until)| **until)
        {
            self.banned.remove(&soonest);
        }
        self.banned.insert(addr, now + ban);
    }

    /// True if `addr` is not to be dialled.
    pub fn is_banned(&self, now: Duration, addr: SocketAddr) -> bool {
        self.banned.get(&addr).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(1)
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn dials_within_bounds_backs_off_and_gives_up() {
        let (mut dialer, now) = (Dialer::default(), Duration::ZERO);
        (1..=40).for_each(|port| dialer.add(now, addr(port)));
        dialer.add(now, addr(0));
        let dialled = dialer.due(now, 0, 50, &mut rng());
        assert_eq!(dialled.len(), HALF_OPEN_MAX);
        assert_eq!(dialer.next_due(0, 50), None, "as many as may are being dialled");
        assert_eq!(dialer.due(now, 0, 50, &mut rng()).len(), 0);
        dialled.into_iter().for_each(|addr| dialer.connected(addr));
        assert_eq!(dialer.due(now, 16, 20, &mut rng()).len(), 4);
        (1..=40).for_each(|port| dialer.forget(addr(port)));
        assert!(!dialer.is_busy(now));
    }

    #[test]
    fn what_peers_say_of_themselves_leaves_room_for_others() {
        let (mut dialer, mut now) = (Dialer::default(), Duration::ZERO);
        let near = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        for port in 1..5000 {
            dialer.listens(now, addr(port), PeerKey(port.into()));
            dialer.closed(now, addr(port));
            dialer.listens(now, near(port), PeerKey(port.into()));
            dialer.closed(now, near(port));
        }
        assert_eq!(dialer.known.len(), HINTS_MAX);
        let far = dialer.known.keys().filter(|addr| !is_lan(addr.ip())).count();
        assert_eq!(far, LISTENS_PER_HOST_MAX);
        dialer.add(now, addr(6000));
        assert!(dialer.known.contains_key(&addr(6000)));
        // What does not answer is soon forgotten.
        while now < Duration::from_secs(3000) {
            now += Duration::from_secs(1);
            let due = dialer.due(now, 0, 50, &mut rng());
            due.into_iter().for_each(|addr| dialer.failed(now, addr, false));
        }
        assert!(dialer.known.len() <= 1, "{}", dialer.known.len());
    }

    #[test]
    fn who_wants_nothing_tries_ever_later() {
        for (calm, attempts) in [(true, 8..=14), (false, 70..=90)] {
            let (mut dialer, mut now, mut failed) = (Dialer::default(), Duration::ZERO, 0);
            dialer.add(now, addr(1));
            while now < Duration::from_secs(2 * 3600) {
                now += Duration::from_secs(1);
                for due in dialer.due(now, 0, 50, &mut rng()) {
                    failed += 1;
                    dialer.failed(now, due, calm);
                }
            }
            assert!(attempts.contains(&failed), "calm {calm}: {failed} attempts in two hours");
        }
    }

    #[test]
    fn another_address_of_a_connected_peer_is_left_alone_for_a_while() {
        let (mut dialer, mut now) = (Dialer::default(), Duration::ZERO);
        dialer.announced(now, addr(1));
        assert_eq!(dialer.due(now, 0, 50, &mut rng()), [addr(1)]);
        dialer.leads_to_twin(now, addr(1));
        while now < TWIN {
            dialer.announced(now, addr(1));
            dialer.add(now, addr(1));
            assert_eq!(dialer.due(now, 0, 50, &mut rng()), [], "{now:?}");
            now += Duration::from_secs(60);
        }
        assert_eq!(dialer.due(now, 0, 50, &mut rng()), [addr(1)]);
    }

    #[test]
    fn half_of_the_places_are_left_to_those_who_come() {
        let check = |seconds: u64, places: usize, expected: usize| {
            assert_eq!(dial_until(Duration::from_secs(seconds), places), expected);
        };
        check(0, 50, 16);
        check(4, 50, 20);
        check(u64::MAX, 50, 25);
        check(0, 9, 5);
    }

    #[test]
    fn an_address_that_never_answers_is_forgotten_where_there_are_others() {
        for (others, attempts) in [(0, 100..=120), (60, 5..=5)] {
            let (mut dialer, mut now) = (Dialer::default(), Duration::ZERO);
            (101..101 + others).for_each(|port| dialer.add(now, addr(port)));
            (101..101 + others).for_each(|port| dialer.connected(addr(port)));
            dialer.add(now, addr(99));
            let mut failed = 0;
            for _ in 0..10_000 {
                now += Duration::from_secs(1);
                for due in dialer.due(now, 16, 50, &mut rng()) {
                    failed += 1;
                    dialer.failed(now, due, false);
                }
            }
            assert!(attempts.contains(&failed), "{failed} attempts beside {others} others");
        }
    }

    #[test]
    fn an_address_that_failed_and_is_named_again_is_tried_again_once() {
        let mut dialer = Dialer::default();
        let mut now = Duration::ZERO;
        for expected in [true, true, false, false] {
            now += Duration::from_millis(10);
            dialer.add(now, addr(1));
            let due = dialer.due(now, 0, 50, &mut rng());
            assert_eq!(due.len(), usize::from(expected), "{dialer:?}");
            due.into_iter().for_each(|addr| dialer.failed(now, addr, false));
        }
    }

    #[test]
    fn who_left_in_peace_and_announces_itself_is_dialled_at_once() {
        let (mut dialer, now) = (Dialer::default(), Duration::from_secs(9));
        let due = |dialer: &mut Dialer| dialer.due(now, 0, 50, &mut rng()).len();
        dialer.announced(now, addr(1));
        assert_eq!(due(&mut dialer), 1);
        dialer.connected(addr(1));
        dialer.announced(now, addr(1));
        assert_eq!(due(&mut dialer), 0, "it is connected");
        dialer.closed(now, addr(1));
        dialer.add(now, addr(1));
        assert_eq!(due(&mut dialer), 0, "a tracker need not know");
        dialer.announced(now, addr(1));
        assert_eq!(due(&mut dialer), 1);
        (0..2).for_each(|_| dialer.failed(now, addr(1), false));
        dialer.announced(now, addr(1));
        assert_eq!(due(&mut dialer), 0, "it does not answer");
        // Its announcement is all that speaks for it, until somebody else does.
        for (told, expected) in [(false, 0), (true, 1)] {
            dialer.announced(now, addr(2));
            dialer.announced(now, addr(2));
            if told {
                dialer.add(now, addr(2));
            }
            assert_eq!(due(&mut dialer), 1);
            dialer.failed(now, addr(2), false);
            assert_eq!(usize::from(dialer.known.contains_key(&addr(2))), expected);
        }
    }

    #[test]
    fn hearsay_comes_last_goes_first_and_has_few_places() {
        let (mut dialer, now) = (Dialer::default(), Duration::ZERO);
        (1..=200).for_each(|port| dialer.hint(now, addr(port), false, PeerKey(1)));
        assert_eq!(dialer.known.len(), HINTS_PER_PEER_MAX);
        (1000..1004).for_each(|port| dialer.add(now, addr(port)));
        let first = dialer.due(now, 0, 50, &mut rng());
        assert_eq!(first.len(), HALF_OPEN_MAX);
        assert_eq!(first.iter().filter(|addr| addr.port() >= 1000).count(), 4);

        let hint = *first.iter().find(|addr| addr.port() <= 50).unwrap();
        dialer.failed(now, hint, false);
        dialer.failed(now, hint, false);
        assert!(!dialer.known.contains_key(&hint), "forgotten, although few others are known");
        let heard = *first.iter().rfind(|addr| addr.port() <= 50).unwrap();
        dialer.add(now, heard);
        dialer.failed(now, heard, false);
        dialer.failed(now, heard, false);
        assert!(dialer.known.contains_key(&heard), "the tracker told of it as well");

        let many = (2..100).flat_map(|by| (1..=50).map(move |port| (by, by * 100 + port)));
        for (by, port) in many {
            dialer.hint(now, addr(u16::try_from(port).unwrap()), false, PeerKey(by));
        }
        let hints = dialer.known.values().filter(|known| known.hint.is_some()).count();
        assert_eq!(hints, HINTS_MAX);
        dialer.add(now, addr(60_000));
        assert!(dialer.known.contains_key(&addr(60_000)), "a tracker still finds a place");
    }

    /// Sixty dial sixteen of each other, all told the same addresses: nobody is left with few who know it.
    #[test]
    fn a_crowd_does_not_meet_at_the_same_few() {
        let mut dialled = [0; 60];
        for own in 0..60 {
            let (mut dialer, mut rng) = (Dialer::default(), fastrand::Rng::with_seed(own));
            (1..=60).for_each(|port| dialer.add(Duration::ZERO, addr(port)));
            for round in 0..2 {
                for due in dialer.due(Duration::ZERO, 8 * round, DIAL_UNTIL, &mut rng) {
                    dialled[usize::from(due.port()) - 1] += 1;
                    dialer.connected(due);
                }
            }
        }
        assert_eq!(dialled.iter().sum::<usize>(), 60 * DIAL_UNTIL);
        assert!(dialled.iter().all(|count| (5..=30).contains(count)), "{dialled:?}");
    }

    #[test]
    fn who_carried_nothing_for_the_longest_time_makes_place() {
        let check = |carried_at: &[u64], expected: Option<u32>| {
            let ties = (1..).map(PeerKey).zip(carried_at.iter().map(|at| Duration::from_secs(*at)));
            assert_eq!(makes_place(Duration::from_secs(1000), ties), expected.map(PeerKey));
        };
        check(&[], None);
        check(&[1000, 990, 881], None);
        check(&[1000, 700, 500, 800], Some(3));
    }

    #[test]
    fn a_banned_address_is_not_dialled_until_its_time_is_over() {
        let mut dialer = Dialer::default();
        let hour = Duration::from_secs(3600);
        dialer.ban(Duration::ZERO, addr(1), hour);
        dialer.add(Duration::ZERO, addr(1));
        assert_eq!(dialer.next_due(0, 50), None);
        assert!(dialer.due(hour, 0, 50, &mut rng()).is_empty());
        dialer.add(hour, addr(1));
        assert_eq!(dialer.due(hour, 0, 50, &mut rng()), [addr(1)]);
    }
}
