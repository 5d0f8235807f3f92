//! What a host of the simulated world is like.

use crate::bitfield::Bitfield;
use crate::policy::picker::Priority;
use std::time::Duration;

/// How a host treats others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It does what the engine says.
    Honest,
    /// Every block it sends is wrong.
    Liar,
    /// It says what it has, unchokes, and sends nothing.
    Hoarder,
    /// It chokes at random, and relents after two seconds.
    Fickle,
    /// It says that it has everything, and rejects requests for what it has not.
    Boaster,
}

/// A host to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// It begins with everything.
    pub seed: bool,
    /// It begins with these pieces (a seed may have fewer than all; then it lies about the rest).
    pub have: Option<Bitfield>,
    /// Payload it can send, in bytes per second.
    pub up: u64,
    /// Payload it can receive, in bytes per second; `None` for any amount.
    pub down: Option<u64>,
    /// From here to the middle of the network; twice that and the other's is a one-way trip.
    pub delay: Duration,
    /// How likely a block is to be lost on the way once.
    pub loss: f64,
    /// Nobody can dial it.
    pub nat: bool,
    /// When it appears.
    pub start: Duration,
    /// It goes as soon as it has everything.
    pub leaves: bool,
    /// Time from the last block of a piece to its being on disk and hashed.
    pub disk: Duration,
    /// How it treats others.
    pub behaviour: Behaviour,
    /// As a publisher's seed it gives each piece to somebody once before any twice.
    pub spread: bool,
    /// It names itself as another client.
    pub foreign: bool,
    /// It asks the tracker for peers; otherwise it is connected by hand.
    pub tracked: bool,
    /// HTTP sources it may use.
    pub sources: usize,
    /// This one of them sends wrong blocks.
    pub lying_source: Option<usize>,
    /// How much it wants each piece; `None` to want everything alike.
    pub priorities: Option<Vec<Priority>>,
    /// Connections it holds.
    pub connections: usize,
    /// Upload limit, in bytes per second.
    pub limit_up: Option<u64>,
    /// Download limit, in bytes per second.
    pub limit_down: Option<u64>,
}

impl Host {
    /// A player's host with `up` bytes per second upstream, that begins with nothing.
    pub fn leech(up: u64) -> Self {
        Self {
            seed: false,
            have: None,
            up,
            down: None,
            delay: Duration::from_millis(10),
            loss: 0.0,
            nat: false,
            start: Duration::ZERO,
            leaves: false,
            disk: Duration::from_millis(1),
            behaviour: Behaviour::Honest,
            spread: false,
            foreign: false,
            tracked: false,
            sources: 0,
            lying_source: None,
            priorities: None,
            connections: 50,
            limit_up: None,
            limit_down: None,
        }
    }

    /// The publisher's seed.
    pub fn seed(up: u64) -> Self {
        Self { seed: true, spread: true, ..Self::leech(up) }
    }
}
