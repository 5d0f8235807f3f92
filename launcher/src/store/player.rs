//! The player's own records: what they want, and what was uploaded in their name.

use super::{SETTINGS_PATH, Store};
use crate::error::Error;
use crate::settings::Settings;
use crate::tree::Tree;
use crate::twin::{self, Found};
use serde::{Deserialize, Serialize};

const UPLOADED_PATH: &str = ".updraft/uploaded";

/// Bytes of payload sent since the install was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// To the local network.
    pub lan: u64,
    /// Beyond it.
    pub internet: u64,
}

impl Store {
    /// What the player wants of every launcher here; the defaults if nothing was set.
    ///
    /// # Errors
    /// [`Error::State`] if no copy can be read.
    pub fn settings(&self) -> Result<Settings, Error> {
        Self::settings_in(&self.tree)
    }

    /// [`Store::settings`] of the install in `tree`.
    ///
    /// # Errors
    /// Likewise.
    pub fn settings_in(tree: &Tree) -> Result<Settings, Error> {
        let path = || tree.path().join(SETTINGS_PATH);
        let wrong = |why: String| Error::State { path: path(), why };
        let text = match twin::read(tree, SETTINGS_PATH) {
            Ok(Found::Nothing) => return Ok(Settings::default()),
            Ok(Found::Payload(bytes)) => {
                String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?
            }
            Ok(Found::Damaged) => return Err(wrong("neither of its two copies is whole".into())),
            Err(error) => return Err(Error::disk("read", path())(error)),
        };
        toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))
    }

    /// Records what the player wants.
    ///
    /// # Errors
    /// From the file system.
    pub fn set_settings(&self, settings: &Settings) -> Result<(), Error> {
        let text = toml::to_string(settings).expect("plain fields serialise");
        self.write_twin(SETTINGS_PATH, text.as_bytes())
    }

    /// What was uploaded from this install so far; nothing if that cannot be read.
    pub fn uploaded(&self) -> Uploaded {
        match twin::read(&self.tree, UPLOADED_PATH) {
            Ok(Found::Payload(bytes)) => {
                let text = std::str::from_utf8(&bytes).ok();
                text.and_then(|text| toml::from_str(text).ok()).unwrap_or_default()
            }
            Ok(Found::Nothing | Found::Damaged) | Err(_) => Uploaded::default(),
        }
    }

    /// Remembers what was uploaded; a failure is no harm.
    pub fn set_uploaded(&self, uploaded: Uploaded) {
        let text = toml::to_string(&uploaded).expect("plain fields serialise");
        if let Err(error) = twin::write(&self.tree, UPLOADED_PATH, text.as_bytes()) {
            tracing::debug!(%error, "what was uploaded is not remembered");
        }
    }
}
