//! Flows at one narrow link under virtual time.

use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const PACKET: u64 = 1400;

/// Who sends.
enum Sender {
    Background(Box<Background>),
    /// As TCP Reno: a packet more each round trip, half of it after a loss.
    Reno {
        window: f64,
        recovered: Duration,
    },
}

struct Flow {
    sender: Sender,
    begins: Duration,
    ends: Duration,
    /// The round trip without a queue.
    trip: Duration,
    in_flight: u64,
    next_send: Duration,
    smoothed: Duration,
    delivered: u64,
}

impl Flow {
    fn background(begins: u64, trip: u64) -> Self {
        Self::new(Sender::Background(Box::new(Background::new(1400))), begins, trip)
    }

    fn reno(begins: u64, trip: u64) -> Self {
        let sender = Sender::Reno { window: 10.0, recovered: Duration::ZERO };
        Self::new(sender, begins, trip)
    }

    /// Begins after so many seconds, with a round trip of so many milliseconds.
    fn new(sender: Sender, begins: u64, trip: u64) -> Self {
        let (begins, trip) = (Duration::from_secs(begins), Duration::from_millis(trip));
        let (next_send, smoothed) = (begins, trip);
        let ends = Duration::MAX;
        Self { sender, begins, ends, trip, in_flight: 0, next_send, smoothed, delivered: 0 }
    }

    fn window(&self) -> u64 {
        match &self.sender {
            Sender::Background(flow) => flow.window(),
            Sender::Reno { window, .. } => {
                (1..10_000).take_while(|&packets| f64::from(packets) <= *window).count() as u64
                    * PACKET
            }
        }
    }
}

/// What was seen at the link.
struct Seen {
    /// Of the link's capacity, by flow.
    shares: Vec<f64>,
    /// Time that a packet of somebody else would have waited, every millisecond.
    waits: Vec<Duration>,
}

impl Seen {
    fn used(&self) -> f64 {
        self.shares.iter().sum()
    }

    fn wait(&self, percentile: usize) -> Duration {
        self.waits[self.waits.len() * percentile / 100]
    }
}

/// Runs `flows` for `seconds` at a link of `rate` bytes per second with a queue of `queue` bytes, and tells
/// what was seen there from `measured_from` on.
fn run(rate: u64, queue: u64, mut flows: Vec<Flow>, seconds: u64, measured_from: u64) -> Seen {
    let (end, from) = (Duration::from_secs(seconds), Duration::from_secs(measured_from));
    let time = |bytes: u64| Duration::from_secs_f64(bytes as f64 / rate as f64);
    let mut pauses = Pauses::default();
    let mut free_at = Duration::ZERO;
    let mut waits = Vec::new();
    // Time, order, flow, and when the packet was sent: `None` for a chance to send.
    let mut events = BinaryHeap::new();
    let mut order = 0_u64;
    for (number, flow) in flows.iter().enumerate() {
        events.push(Reverse((flow.begins, order, number, None::<Duration>, false)));
        order += 1;
    }
    let mut sampled = from;
    while let Some(Reverse((now, _, number, sent, lost))) = events.pop() {
        while sampled <= now.min(end) {
            waits.push(free_at.saturating_sub(sampled));
            sampled += Duration::from_millis(1);
        }
        if now >= end {
            break;
        }
        let flow = &mut flows[number];
        if let Some(sent) = sent {
            flow.in_flight -= PACKET;
            let trip = now - sent;
            flow.smoothed = (flow.smoothed * 7 + trip) / 8;
            if now >= from && !lost {
                flow.delivered += PACKET;
            }
            match &mut flow.sender {
                Sender::Background(flow) if lost => flow.on_loss(now, sent, false),
                Sender::Background(flow) => flow.on_ack(now, sent, PACKET, false, &mut pauses),
                Sender::Reno { window, recovered } if lost => {
                    if sent >= *recovered {
                        (*window, *recovered) = ((*window / 2.0).max(2.0), now);
                    }
                }
                Sender::Reno { window, .. } => *window += 1.0 / *window,
            }
        }
        let sends = now >= flow.next_send && now < flow.ends;
        while sends && flow.in_flight + PACKET <= flow.window() && now >= flow.next_send {
            flow.in_flight += PACKET;
            let queued = free_at.saturating_sub(now);
            let dropped = queued > time(queue);
            if !dropped {
                free_at = free_at.max(now) + time(PACKET);
            }
            let back = free_at.max(now) + flow.trip;
            events.push(Reverse((back, order, number, Some(now), dropped)));
            order += 1;
            // Paced a little faster than the window fills, as by quinn.
            let gap = flow.smoothed.as_secs_f64() * PACKET as f64 / (1.25 * flow.window() as f64);
            flow.next_send = flow.next_send.max(now) + Duration::from_secs_f64(gap);
            events.push(Reverse((flow.next_send, order, number, None, false)));
            order += 1;
        }
    }
    waits.sort();
    let capacity = rate as f64 * (end - from).as_secs_f64();
    let shares = flows.iter().map(|flow| flow.delivered as f64 / capacity).collect();
    Seen { shares, waits }
}

const MBIT: u64 = 125_000;

#[test]
fn alone_it_fills_the_link_and_nobody_waits_long() {
    for (rate, trip) in
        [(2 * MBIT, 20), (10 * MBIT, 1), (10 * MBIT, 40), (50 * MBIT, 100), (200 * MBIT, 20)]
    {
        let seen = run(rate, 4 * rate, vec![Flow::background(0, trip)], 120, 5);
        let text = format!(
            "{} Mbit/s, {trip} ms: {:.3} used, median {:?}, p95 {:?}",
            rate / MBIT,
            seen.used(),
            seen.wait(50),
            seen.wait(95)
        );
        assert!(seen.used() >= 0.9, "{text}");
        assert!(seen.wait(95) <= Duration::from_millis(45), "{text}");
    }
}

#[test]
fn several_share_it_and_keep_no_longer_queue_than_one() {
    let flows = (0..6).map(|flow| Flow::background(flow * 7, 20 + 10 * flow)).collect();
    let seen = run(20 * MBIT, 80 * MBIT, flows, 180, 60);
    assert!(seen.used() >= 0.9);
    assert!(seen.wait(95) <= Duration::from_millis(45), "{:?}", seen.wait(95));
    let (least, most) = seen
        .shares
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), &share| (least.min(share), most.max(share)));
    assert!(most <= 4.0 * least, "{:?}", seen.shares);
}

#[test]
fn it_leaves_the_link_to_whoever_needs_it_and_comes_back() {
    let other = Flow { ends: Duration::from_secs(60), ..Flow::reno(20, 30) };
    let flows = |other| vec![Flow::background(0, 30), other];
    // A queue of a quarter of a second, as in many a home.
    let seen = run(10 * MBIT, 10 * MBIT / 4, flows(other), 120, 63);
    assert!(seen.shares[0] >= 0.9, "{:?}", seen.shares);
    let seen = run(10 * MBIT, 10 * MBIT / 4, flows(Flow::reno(20, 30)), 100, 30);
    assert!(seen.shares[0] <= 0.1, "{:?}", seen.shares);
    assert!(seen.shares[1] >= 0.8, "{:?}", seen.shares);
}

#[test]
fn losses_halve_it_and_it_never_stops() {
    let (mut flow, mut pauses) = (Background::new(1400), Pauses::default());
    let at = Duration::from_millis;
    for round in 1..200 {
        flow.on_ack(at(round * 10), at(round * 10 - 10), 1400, false, &mut pauses);
    }
    let before = flow.window();
    flow.on_loss(at(2000), at(1999), false);
    flow.on_loss(at(2001), at(1999), false);
    assert_eq!(flow.window(), before / 2, "losses of one round trip count once");
    flow.on_loss(at(2100), at(2099), true);
    assert_eq!(flow.window(), 2800);
}

#[test]
fn who_has_nothing_to_send_does_not_grow() {
    let (mut flow, mut pauses) = (Background::new(1400), Pauses::default());
    let at = Duration::from_millis;
    for round in 1..500 {
        flow.on_ack(at(round * 10), at(round * 10 - 10), 1400, true, &mut pauses);
    }
    assert_eq!(flow.window(), 2800);
}

#[test]
fn flows_that_come_and_go_do_not_make_pauses_follow_each_other() {
    let (mut pauses, trip, mut held) = (Pauses::default(), Duration::from_millis(500), 0);
    for tenth in 0..6000_u64 {
        let now = Duration::from_millis(100 * tenth);
        if tenth % 10 == 0 {
            pauses.ask(now + trip * 2);
        }
        held += u32::from(pauses.holds(now, trip));
    }
    assert!(held < 750, "{held} of 6000");
}
