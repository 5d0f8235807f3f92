//! The state as it is stored: sealed text.

use super::floor::Floor;
use super::{LauncherFloor, ManifestFloor, STATE_BYTES_MAX, TrustState};
use crate::document::read_payload;
use crate::hash::ContentHash;
use crate::keys::Role;
use crate::names::Name;
use crate::sealed::{self, SealError};
use crate::time::Time;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct StateText {
    #[serde(rename = "updraft-trust")]
    format: u32,
    product: Name,
    fingerprint: ContentHash,
    time_floor: Time,
    root: Option<String>,
    head: Option<Floor>,
    #[serde(default)]
    manifests: Vec<ManifestFloor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    launchers: Vec<LauncherFloor>,
}

impl TrustState {
    /// The sealed text to store.
    pub fn to_text(&self) -> String {
        let text = StateText {
            format: 1,
            product: self.product.clone(),
            fingerprint: self.fingerprint,
            time_floor: self.time_floor,
            root: self.root.is_some().then(|| self.root_text.clone()),
            head: self.head,
            manifests: self.manifests.clone(),
            launchers: self.launchers.clone(),
        };
        sealed::seal(toml::to_string(&text).expect("plain fields serialise"))
    }

    /// Reads a stored state.
    ///
    /// # Errors
    /// [`SealError`]. Starting over with [`TrustState::new`] gives up the floors: say so to the user.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() > STATE_BYTES_MAX {
            return Err(SealError::Content("it is too large".to_owned()));
        }
        let text = sealed::open(bytes)?;
        let state: StateText =
            toml::from_str(text).map_err(|error| SealError::Content(error.message().to_owned()))?;
        if state.format != 1 {
            return Err(SealError::Newer);
        }
        let root = match &state.root {
            None => None,
            Some(text) => Some(
                read_payload(Role::Root, text.as_bytes())
                    .map_err(|error| SealError::Content(error.to_string()))?,
            ),
        };
        Ok(Self {
            product: state.product,
            fingerprint: state.fingerprint,
            root,
            root_text: state.root.unwrap_or_default(),
            head: state.head,
            manifests: state.manifests,
            launchers: state.launchers,
            time_floor: state.time_floor,
        })
    }
}
