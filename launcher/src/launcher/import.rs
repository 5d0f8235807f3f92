//! Installing and updating from a bundle, with no network at all.

use super::{Launcher, UpdateRequest, Updated};
use crate::error::Error;
use std::time::Duration;

/// How long nothing may come out of a bundle before it is given up. Sticks are slow, but not silent.
pub(super) const BUNDLE_PATIENCE: Duration = Duration::from_secs(15);

impl Launcher {
    /// True if everything comes from a bundle.
    pub(super) fn is_importing(&self) -> bool {
        self.bundle.is_some()
    }

    /// [`Launcher::update`] from the bundle that this launcher was opened with.
    ///
    /// # Errors
    /// [`Error::Bundle`] if it is damaged, incomplete, older than what is known here, or of another product; those of
    /// [`Launcher::update`].
    pub async fn import(&mut self, how: UpdateRequest) -> Result<Updated, Error> {
        let updated = self.update(how).await;
        updated.map_err(|error| match (&self.network.bundle, error) {
            (
                Some(dir),
                why @ (Error::Network { .. }
                | Error::Trust(_)
                | Error::Refused { .. }
                | Error::Release { .. }),
            ) => Error::Bundle { dir: dir.clone(), why: Box::new(why) },
            (_, error) => error,
        })
    }
}
