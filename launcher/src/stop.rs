//! The player's wish to stop, told to everything that works.

use std::sync::Arc;
use tokio::sync::watch;

/// A flag that is raised once; clones share it.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Arc<watch::Sender<bool>>,
}

impl Stop {
    /// Not raised.
    pub fn new() -> Self {
        Self { flag: Arc::new(watch::Sender::new(false)) }
    }

    /// Raises it. True if it was raised before.
    pub fn raise(&self) -> bool {
        self.flag.send_replace(true)
    }

    /// True once raised.
    pub fn is_raised(&self) -> bool {
        *self.flag.borrow()
    }

    /// Returns once raised.
    pub async fn raised(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.flag.subscribe().wait_for(|raised| *raised).await;
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}
