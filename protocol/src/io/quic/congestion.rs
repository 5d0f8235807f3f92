//! [`Background`] as quinn's congestion controller.

use crate::policy::background::{Background, Pauses};
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Makes the controllers of one session; they share their pauses.
#[derive(Debug)]
pub(super) struct Yielding {
    epoch: Instant,
    pauses: Arc<Mutex<Pauses>>,
}

impl Default for Yielding {
    fn default() -> Self {
        Self { epoch: Instant::now(), pauses: Arc::default() }
    }
}

impl ControllerFactory for Yielding {
    fn build(self: Arc<Self>, _: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Flow {
            flow: Background::new(current_mtu),
            epoch: self.epoch,
            pauses: Arc::clone(&self.pauses),
        })
    }
}

#[derive(Clone)]
struct Flow {
    flow: Background,
    epoch: Instant,
    pauses: Arc<Mutex<Pauses>>,
}

impl Controller for Flow {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _: &RttEstimator,
    ) {
        let (now, sent) = (now - self.epoch, sent - self.epoch);
        // Nobody panics with it held, and what it holds is right at any time.
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        self.flow.on_ack(now, sent, bytes, app_limited, &mut pauses);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, _: u64) {
        self.flow.on_loss(now - self.epoch, sent - self.epoch, persistent);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.flow.set_packet(new_mtu);
    }

    fn window(&self) -> u64 {
        self.flow.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.flow.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
