//! What is kept of a peer, of its neighbours, and of what flows between them.

use super::super::Host;
use super::STEP;
use crate::bitfield::Bitfield;
use crate::geometry::{Block, Geometry};
use crate::ids::PieceIndex;
use crate::policy::choker::Slots;
use crate::policy::picker::{Picker, Priority};
use crate::policy::rate::Rate;
use crate::policy::spread::Spread;
use crate::policy::window::Window;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A player, or the seed.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) seed: bool,
    pub(super) up: f64,
    pub(super) down: Option<f64>,
    pub(super) delay: Duration,
    pub(super) nat: bool,
    pub(super) leaves: bool,
    pub(super) places: usize,
    pub(super) start: Duration,
    pub(super) complete_at: Option<Duration>,
    pub(super) nearly_at: Option<Duration>,
    pub(super) gone: bool,
    pub(super) picker: Picker,
    /// Blocks that have come of pieces that are not whole.
    pub(super) begun: Vec<(PieceIndex, u32)>,
    pub(super) neighbours: Vec<Neighbour>,
    /// Those of them that have not gone.
    pub(super) connections: usize,
    /// The tracker knows it.
    pub(super) tracked: bool,
    /// Addresses not tried yet.
    pub(super) known: Vec<u32>,
    pub(super) announce_at: Duration,
    /// Those it serves.
    pub(super) flows: Vec<Flow>,
    /// Those that serve it.
    pub(super) sources: Vec<u32>,
    /// How often blocks were given up that had been asked for.
    pub(super) given_up: u32,
    /// Until this step nothing is to be gained by asking for a block twice at such a rate or less.
    pub(super) no_steal: (u64, u64),
    /// The flow whose turn it is.
    pub(super) turn: usize,
    pub(super) slots: Slots,
    pub(super) up_rate: Rate,
    /// Somebody waits for a place.
    pub(super) short: bool,
    /// Somebody waits who has no piece yet.
    pub(super) newcomers: bool,
    pub(super) choke_now: bool,
    pub(super) rechoke_at: Option<Duration>,
    /// What it may still send in this step, in bytes.
    pub(super) credit: f64,
    /// What it may still receive, refilled in the step `down_step`.
    pub(super) down_credit: f64,
    pub(super) down_step: u64,
    pub(super) spread: Option<Spread>,
    /// Time that a seed's uplink stood idle before the first copy was out.
    pub(super) idle_time: Duration,
    /// Nobody asks it for anything.
    pub(super) idle: bool,
    pub(super) rng: fastrand::Rng,
}

/// A connection, as one end sees it.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) peer: u32,
    /// Which neighbour we are to it.
    pub(super) back: u32,
    /// Pieces of it that we have heard of.
    pub(super) heard: u32,
    /// It has something that we want.
    pub(super) useful: bool,
    /// We have something that it wants.
    pub(super) interested: bool,
    pub(super) unchoked: bool,
    pub(super) gone: bool,
    /// We have sent it a piece or more.
    pub(super) served: bool,
    pub(super) changed_at: Duration,
}

/// What one end sends the other while it is unchoked.
#[derive(Debug)]
pub(super) struct Flow {
    /// To whom: an index of [`Peer::neighbours`], and of all.
    pub(super) neighbour: usize,
    pub(super) peer: usize,
    /// Which neighbour the sender is to it.
    pub(super) back: u32,
    /// When its first request is here.
    pub(super) ready_at: Duration,
    /// Nothing more could be asked for: it is not looked at for so many steps, until then.
    pub(super) dry_steps: u64,
    pub(super) dry_until: u64,
    pub(super) busy_at: Duration,
    pub(super) requests: VecDeque<Block>,
    /// When nothing was found to ask for: what the sender had got, and what the receiver had given up.
    pub(super) found_nothing: Option<(u32, u32)>,
    pub(super) window: Window,
    pub(super) rate: Rate,
    pub(super) current: Option<PieceIndex>,
    pub(super) sent: u64,
    /// The piece that is being sent, and how much of it.
    pub(super) serving: Option<(PieceIndex, u32)>,
    /// The pieces to ask for, of a seed that spreads.
    pub(super) suggested: Vec<PieceIndex>,
}

impl Peer {
    /// A peer where a byte stands for `scale` of the host's.
    #[allow(clippy::cast_precision_loss)] // rates are far below 2^52
    pub(super) fn new(
        host: &Host,
        scale: f64,
        geometry: &Arc<Geometry>,
        rng: fastrand::Rng,
    ) -> Self {
        let count = geometry.piece_count();
        let wanted = vec![Priority::NORMAL; count as usize];
        let have = if host.seed { Bitfield::full(count) } else { Bitfield::empty(count) };
        let scaled = |rate: u64| rate as f64 / scale;
        Self {
            seed: host.seed,
            up: scaled(host.up),
            down: host.down.map(scaled),
            delay: host.delay,
            nat: host.nat,
            leaves: host.leaves,
            places: host.connections,
            start: host.start,
            complete_at: None,
            nearly_at: None,
            gone: false,
            picker: Picker::new(Arc::clone(geometry), &have, &wanted),
            begun: Vec::new(),
            neighbours: Vec::new(),
            connections: 0,
            tracked: false,
            known: Vec::new(),
            announce_at: host.start,
            flows: Vec::new(),
            sources: Vec::new(),
            given_up: 0,
            no_steal: (0, 0),
            turn: 0,
            slots: Slots::default(),
            up_rate: Rate::default(),
            short: false,
            newcomers: false,
            choke_now: false,
            rechoke_at: None,
            credit: 0.0,
            down_credit: 0.0,
            down_step: 0,
            spread: None,
            idle_time: Duration::ZERO,
            idle: true,
            rng,
        }
    }

    /// A second is over.
    pub(super) fn tick(&mut self) {
        const SECOND: Duration = Duration::from_secs(1);
        self.up_rate.tick(SECOND);
        self.slots.on_tick(self.up_rate.get(), self.short);
        for flow in &mut self.flows {
            flow.rate.tick(SECOND);
            flow.window.on_tick(flow.rate.get());
        }
        self.choke_now = true;
    }

    /// Takes `len` bytes of what the downlink has room for in this step, if it has any.
    pub(super) fn take_room(&mut self, step: u64, len: f64) -> bool {
        let Some(down) = self.down else { return true };
        if self.down_step < step {
            let room = down * STEP.as_secs_f64();
            // What was taken too much in a step is missing in the next.
            #[allow(clippy::cast_precision_loss)] // steps are far below 2^52
            let passed = (step - self.down_step) as f64;
            self.down_credit = (self.down_credit + room * passed).min(room);
            self.down_step = step;
        }
        let room = self.down_credit > 0.0;
        if room {
            self.down_credit -= len;
        }
        room
    }

    /// The flow to a peer.
    pub(super) fn flow_to(&mut self, peer: usize) -> Option<&mut Flow> {
        self.flows.iter_mut().find(|flow| flow.peer == peer)
    }
}
