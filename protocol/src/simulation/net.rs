//! Links: uplinks shared in turn, delays, downlinks as queues.

use crate::ids::PeerKey;
use crate::wire::message::Message;
use std::collections::VecDeque;
use std::time::Duration;

/// Headers of a packet that carries messages and no payload, in bytes (TCP and IPv4, with time stamps).
const PACKET: u32 = 52;
/// What stands before the payload of a block: length, kind, piece, offset.
const BLOCK_HEAD: u32 = 13;

/// What goes through a link in one go: messages up to and including one block.
#[derive(Debug, Default)]
pub(super) struct Cargo {
    pub(super) messages: Vec<Message>,
    /// Bytes on the link.
    pub(super) len: u32,
    /// Bytes of payload among them.
    pub(super) payload: u32,
}

/// One direction of a connection, or an HTTP answer.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The sender's name for the connection.
    pub(super) near: PeerKey,
    /// The receiver's name for it.
    pub(super) far: PeerKey,
    /// It is an answer to this range request, and whether it comes to its end.
    pub(super) fetch: Option<(PeerKey, bool)>,
    queue: VecDeque<Message>,
    /// It waits for its turn at the uplink.
    waiting: bool,
    open: bool,
    last_arrival: Duration,
    /// Things on their way.
    under_way: u32,
}

#[derive(Debug)]
struct Link {
    up: u64,
    down: Option<u64>,
    delay: Duration,
    loss: f64,
    silent: bool,
    /// Flows with something to send, in turn.
    turns: VecDeque<usize>,
    sending: Option<(usize, Cargo)>,
    idle_since: Duration,
    idle_until_now: Option<Duration>,
    down_free_at: Duration,
}

impl Link {
    fn new(up: u64, down: Option<u64>, delay: Duration, loss: f64) -> Self {
        Self {
            up,
            down,
            delay,
            loss,
            silent: false,
            turns: VecDeque::new(),
            sending: None,
            idle_since: Duration::ZERO,
            idle_until_now: None,
            down_free_at: Duration::ZERO,
        }
    }
}

/// All links and what is on them.
#[derive(Debug, Default)]
pub(super) struct Net {
    links: Vec<Link>,
    flows: Vec<Flow>,
    origin: Option<usize>,
}

fn time(bytes: u32, rate: u64) -> Duration {
    Duration::from_nanos(u64::from(bytes) * 1_000_000_000 / rate.max(1))
}

impl Net {
    pub(super) fn add_host(&mut self, up: u64, down: Option<u64>, delay: Duration, loss: f64) {
        assert!(self.origin.is_none(), "the origin is added after the hosts");
        self.links.push(Link::new(up, down, delay, loss));
    }

    pub(super) fn set_origin(&mut self, rate: u64, delay: Duration) {
        assert!(self.origin.is_none(), "there is one origin");
        self.origin = Some(self.links.len());
        self.links.push(Link::new(rate, None, delay, 0.0));
    }

    pub(super) fn is_origin(&self, host: usize) -> bool {
        self.origin == Some(host)
    }

    pub(super) fn delay(&self, a: usize, b: usize) -> Duration {
        self.links[a].delay + self.links[b].delay
    }

    pub(super) fn silence(&mut self, host: usize) {
        self.links[host].silent = true;
    }

    pub(super) fn is_silent(&self, host: usize) -> bool {
        self.links[host].silent
    }

    /// Opens both directions; the way back is the next number.
    pub(super) fn open(&mut self, a: usize, at_a: PeerKey, b: usize, at_b: PeerKey) -> usize {
        let first = self.flows.len();
        self.push_flow(a, b, at_a, at_b, None);
        self.push_flow(b, a, at_b, at_a, None);
        first
    }

    /// Opens an answer from the origin.
    ///
    /// # Panics
    /// Without an origin.
    pub(super) fn open_fetch(&mut self, host: usize, fetch: PeerKey, complete: bool) -> usize {
        let origin = self.origin.expect("hosts with sources need an origin");
        let first = self.flows.len();
        self.push_flow(origin, host, fetch, fetch, Some((fetch, complete)));
        // Directions come in pairs; the request itself costs a trip and no bytes.
        self.push_flow(host, origin, fetch, fetch, Some((fetch, complete)));
        first
    }

    fn push_flow(
        &mut self,
        from: usize,
        to: usize,
        near: PeerKey,
        far: PeerKey,
        fetch: Option<(PeerKey, bool)>,
    ) {
        self.flows.push(Flow {
            from,
            to,
            near,
            far,
            fetch,
            queue: VecDeque::new(),
            waiting: false,
            open: true,
            last_arrival: Duration::ZERO,
            under_way: 0,
        });
    }

    /// Answers of the origin that are under way.
    pub(super) fn fetches(&self) -> Vec<usize> {
        let from_origin = |flow: &&usize| {
            let flow = &self.flows[**flow];
            flow.open && flow.fetch.is_some() && self.is_origin(flow.from)
        };
        let all: Vec<usize> = (0..self.flows.len()).collect();
        all.iter().filter(from_origin).copied().collect()
    }

    pub(super) fn flow(&self, flow: usize) -> &Flow {
        &self.flows[flow]
    }

    pub(super) fn is_open(&self, flow: usize) -> bool {
        self.flows[flow].open
    }

    /// True if nothing is queued or on its way.
    pub(super) fn is_drained(&self, flow: usize) -> bool {
        self.flows[flow].queue.is_empty() && self.flows[flow].under_way == 0
    }

    pub(super) fn close(&mut self, flow: usize) {
        self.flows[flow].open = false;
        self.flows[flow].queue = VecDeque::new();
    }

    pub(super) fn enqueue(&mut self, flow: usize, message: Message) {
        let state = &mut self.flows[flow];
        if !state.open {
            return;
        }
        state.queue.push_back(message);
        if !std::mem::replace(&mut state.waiting, true) {
            self.links[state.from].turns.push_back(flow);
        }
    }

    /// Begins to send the next thing if the uplink is free; when it will have left.
    pub(super) fn begin(&mut self, now: Duration, host: usize) -> Option<Duration> {
        let link = &mut self.links[host];
        if link.sending.is_some() {
            return None;
        }
        loop {
            let flow = link.turns.pop_front()?;
            let state = &mut self.flows[flow];
            let mut cargo = Cargo::default();
            while let Some(message) = state.queue.pop_front() {
                cargo.len += wire_len(&message);
                let block = matches!(message, Message::Piece { .. });
                if let Message::Piece { data, .. } = &message {
                    cargo.payload = u32::try_from(data.len()).expect("a block is short");
                }
                cargo.messages.push(message);
                if block {
                    break;
                }
            }
            state.waiting = !state.queue.is_empty();
            if state.waiting {
                link.turns.push_back(flow);
            }
            if cargo.messages.is_empty() {
                continue; // Closed in the meantime.
            }
            if cargo.payload == 0 {
                cargo.len += PACKET;
            }
            state.under_way += 1;
            let at = now + time(cargo.len, link.up);
            link.idle_until_now = (now > link.idle_since).then_some(link.idle_since);
            link.sending = Some((flow, cargo));
            return Some(at);
        }
    }

    /// What the uplink was sending has left.
    pub(super) fn departed(&mut self, now: Duration, host: usize) -> Option<(usize, Cargo)> {
        let link = &mut self.links[host];
        link.idle_since = now;
        link.sending.take()
    }

    /// Since when the uplink had been idle before what it sends now, if it had.
    pub(super) fn idle_since(&mut self, host: usize) -> Option<Duration> {
        self.links[host].idle_until_now.take()
    }

    /// When what has left reaches the other end; `None` if it never does.
    pub(super) fn reaches(
        &mut self,
        now: Duration,
        flow: usize,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let (from, to) = (self.flows[flow].from, self.flows[flow].to);
        if self.links[from].silent {
            return None;
        }
        let trip = self.delay(from, to);
        let mut at = now + trip;
        if rng.f64() < self.links[from].loss + self.links[to].loss {
            at += 2 * trip; // Sent again when its acknowledgement is missed.
        }
        let last = &mut self.flows[flow].last_arrival;
        *last = at.max(*last);
        Some(*last)
    }

    pub(super) fn has_downlink(&self, flow: usize) -> bool {
        self.links[self.flows[flow].to].down.is_some()
    }

    /// When something that has reached a downlink is through it.
    pub(super) fn through_downlink(&mut self, now: Duration, flow: usize, len: u32) -> Duration {
        let link = &mut self.links[self.flows[flow].to];
        let Some(rate) = link.down else { return now };
        link.down_free_at = link.down_free_at.max(now) + time(len, rate);
        link.down_free_at
    }

    /// Something has arrived.
    pub(super) fn landed(&mut self, flow: usize) {
        self.flows[flow].under_way -= 1;
    }
}

/// Bytes of a message on the link.
fn wire_len(message: &Message) -> u32 {
    let payload = |bytes: &[u8]| u32::try_from(bytes.len()).expect("messages are short");
    match message {
        Message::Piece { data, .. } => BLOCK_HEAD + payload(data),
        Message::Bitfield(bytes) => 5 + payload(bytes),
        Message::Extended { payload: bytes, .. } => 6 + payload(bytes),
        Message::Request(_) | Message::Cancel(_) | Message::Reject(_) => 17,
        Message::Have(_) | Message::Suggest(_) | Message::AllowedFast(_) => 9,
        _ => 5,
    }
}
