//! The window of a flow that yields: it fills what others leave of an uplink, and goes out of their
//! way within a round trip.
//!
//! In the manner of LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus, after RFC 6817): the round trip is
//! compared with the least seen in ten minutes; what it is longer by lies in a queue, and the window is
//! steered so that this is [`TARGET`]. Above it the window shrinks, to half of it in a round trip at the
//! most, so that any traffic that fills the queue takes the link over. By how much is not as in the
//! draft, which swings where the round trip is longer than the target: the window becomes what would
//! queue the target if the flow were alone, and is judged again by what was sent with it.
//!
//! A flow that begins while others fill the queue would take the full queue for an empty one. All flows
//! of a host therefore hold back together ([`Pauses`]), a little after each one's beginning and every
//! [`PAUSE_EVERY`], for two round trips: the first empties the queue, the second measures. Other than in
//! the draft they go on with the window that fills the link without a queue, since they remember it,
//! instead of finding it again; so pauses cost 2 to 3 % of a link instead of up to 10.

use std::time::Duration;

/// What a flow may keep queued at the narrowest link, as time. The draft says 60 ms; a player notices
/// that, and half of it still keeps any link busy.
pub const TARGET: Duration = Duration::from_millis(30);
/// Time between two pauses, and the least ratio of it to their length.
const PAUSE_EVERY: Duration = Duration::from_secs(10);
const PAUSE_SHARE: u32 = 9;
/// The longest round trip that a pause is made for.
const PAUSE_TRIP_MAX: Duration = Duration::from_millis(500);
/// Packets in flight at the least, and at first.
const PACKETS_MIN: u64 = 2;
/// The slowest growth: one packet in so many round trips.
const GAIN_MAX: u32 = 16;
/// Round trips with less than half of the target queued after which the window grows fast again.
const QUIET_ROUNDS: u32 = 8;
/// The base round trip is the least of so many spans of [`BASE_SPAN`].
const BASE_SPANS: usize = 10;
const BASE_SPAN: Duration = Duration::from_secs(60);
/// The round trip now is the least of the last samples: one alone may have waited for its
/// acknowledgement.
const SAMPLES: usize = 4;

/// When all background flows of this host hold back. Times are since any fixed instant.
#[derive(Debug, Default)]
pub struct Pauses {
    until: Duration,
    /// How long the last one was.
    length: Duration,
    next: Option<Duration>,
    longest_trip: Duration,
}

impl Pauses {
    /// Asks for a pause at `at`, if none comes sooner; not so soon after the last one that pauses would
    /// cost more than they may, whoever comes and goes.
    fn ask(&mut self, at: Duration) {
        let at = at.max(self.until + self.length * PAUSE_SHARE);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Whether it is a pause, of which `trip` is somebody's round trip.
    fn holds(&mut self, now: Duration, trip: Duration) -> bool {
        self.longest_trip = self.longest_trip.max(trip.min(PAUSE_TRIP_MAX));
        if self.next.is_some_and(|next| next <= now) {
            let length = self.longest_trip * 2;
            (self.until, self.length) = (now + length, length);
            self.next = Some(self.until + PAUSE_EVERY.max(length * PAUSE_SHARE));
            self.longest_trip = Duration::ZERO;
        }
        now < self.until
    }
}

/// One flow. Sizes are bytes, times since the same instant as those of its [`Pauses`].
#[derive(Clone, Debug)]
pub struct Background {
    packet: u64,
    window: f64,
    base: BaseTrip,
    samples: [Duration; SAMPLES],
    sampled: usize,
    trip: Duration,
    slow_start: bool,
    /// It has not yet asked for the pause that every flow begins with.
    new: bool,
    /// The window to go on with after the pause under way.
    resume: Option<f64>,
    /// The window is judged by what was sent since.
    round_began: Duration,
    quiet_rounds: u32,
    /// Losses of what was sent before this have been answered.
    recovered: Duration,
    /// Something was acknowledged in this round that was sent with a full window.
    used: bool,
}

impl Background {
    /// A flow that begins, with packets of `packet` bytes.
    pub fn new(packet: u16) -> Self {
        let packet = u64::from(packet);
        Self {
            packet,
            window: (PACKETS_MIN * packet) as f64,
            base: BaseTrip::default(),
            samples: [Duration::MAX; SAMPLES],
            sampled: 0,
            trip: Duration::ZERO,
            slow_start: true,
            new: true,
            resume: None,
            round_began: Duration::ZERO,
            quiet_rounds: 0,
            recovered: Duration::ZERO,
            used: false,
        }
    }

    /// Packets have another size from now on.
    pub fn set_packet(&mut self, packet: u16) {
        self.packet = u64::from(packet);
        self.window = self.window.max(self.least());
    }

    /// Bytes that may be in flight.
    pub fn window(&self) -> u64 {
        // A window is far below 2^53 bytes and never negative.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let window = self.window as u64;
        window
    }

    /// `bytes` sent at `sent` were acknowledged now; `idle` if the sender had less to send than it might.
    pub fn on_ack(
        &mut self,
        now: Duration,
        sent: Duration,
        bytes: u64,
        idle: bool,
        pauses: &mut Pauses,
    ) {
        let sample = now.saturating_sub(sent);
        self.base.add(now, sample);
        self.samples[self.sampled % SAMPLES] = sample;
        self.sampled += 1;
        self.trip = if self.trip.is_zero() { sample } else { (self.trip * 7 + sample) / 8 };
        self.used |= !idle;
        if pauses.holds(now, self.trip) {
            if self.resume.is_none() {
                self.resume = Some(self.without_queue());
                self.window = self.least();
            }
            return;
        }
        if let Some(window) = self.resume.take() {
            self.window = window.max(self.least());
            self.samples = [sample; SAMPLES];
            self.round_began = now;
        }
        let queued = self.queued();
        if self.slow_start {
            if queued > TARGET * 3 / 4 {
                self.leave_slow_start(now, pauses);
            } else if !idle {
                self.window += self.gain() * bytes as f64;
            }
        }
        if sent >= self.round_began {
            self.on_round(queued);
            self.round_began = now;
            self.used = false;
        }
    }

    /// Something sent at `sent` was lost; `persistent` if nothing has come through for long.
    pub fn on_loss(&mut self, now: Duration, sent: Duration, persistent: bool) {
        if sent < self.recovered {
            return;
        }
        self.recovered = now;
        self.slow_start = false;
        let window = self.resume.as_mut().unwrap_or(&mut self.window);
        *window /= 2.0;
        if persistent {
            *window = 0.0;
        }
        self.window = self.window.max(self.least());
    }

    fn leave_slow_start(&mut self, now: Duration, pauses: &mut Pauses) {
        self.slow_start = false;
        self.quiet_rounds = 0;
        if std::mem::take(&mut self.new) {
            pauses.ask(now + self.trip * 2);
        }
    }

    /// A round trip is over, with `queued` in front of us.
    fn on_round(&mut self, queued: Duration) {
        if self.slow_start {
            return;
        }
        let step = self.gain() * self.packet as f64;
        if queued > TARGET {
            let base = self.base.get();
            let fitting = (base + TARGET).as_secs_f64() / (base + queued).as_secs_f64();
            self.window = (self.window * fitting.max(0.5)).max(self.least());
        } else if self.used {
            self.window += step;
        }
        let quiet = queued < TARGET / 2 && self.used;
        self.quiet_rounds = if quiet { self.quiet_rounds + 1 } else { 0 };
        if self.quiet_rounds >= QUIET_ROUNDS {
            self.slow_start = true;
        }
    }

    fn least(&self) -> f64 {
        (PACKETS_MIN * self.packet) as f64
    }

    /// How long the last packets waited in a queue.
    fn queued(&self) -> Duration {
        let trip = self.samples.iter().min().copied().unwrap_or_default();
        trip.saturating_sub(self.base.get())
    }

    /// The part of the window that is on its way and not in a queue.
    fn without_queue(&self) -> f64 {
        let (base, queued) = (self.base.get().as_secs_f64(), self.queued().as_secs_f64());
        if base + queued > 0.0 { self.window * base / (base + queued) } else { self.window }
    }

    /// Packets to grow by in a round trip: where the target is many times the round trip the same step
    /// would come too often.
    fn gain(&self) -> f64 {
        let base = self.base.get().as_nanos().max(1);
        let ratio = (TARGET.as_nanos() * 2).div_ceil(base);
        1.0 / f64::from(u32::try_from(ratio).unwrap_or(GAIN_MAX).min(GAIN_MAX))
    }
}

/// The least round trip of the last ten minutes.
#[derive(Clone, Debug, Default)]
struct BaseTrip {
    spans: [Option<Duration>; BASE_SPANS],
    at: usize,
    span_ends: Duration,
}

impl BaseTrip {
    fn add(&mut self, now: Duration, sample: Duration) {
        if now >= self.span_ends {
            self.at = (self.at + 1) % BASE_SPANS;
            self.spans[self.at] = None;
            self.span_ends = now + BASE_SPAN;
        }
        let least = &mut self.spans[self.at];
        *least = Some(least.map_or(sample, |least| least.min(sample)));
    }

    fn get(&self) -> Duration {
        self.spans.iter().flatten().min().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
