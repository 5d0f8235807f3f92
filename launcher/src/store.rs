//! The launcher's own records in `.updraft/`, and nothing that is in the game.
//!
//! | path below `.updraft/` | what |
//! |---|---|
//! | `lock` | held by the launcher at work |
//! | `playing` | locked while the game runs |
//! | `state`, `state.copy` | feed, channel, platform, components; TOML, kept twice ([`crate::twin`]) |
//! | `settings`, `settings.copy` | what the player wants ([`crate::settings`]), consent among it; TOML, kept twice |
//! | `uploaded`, `uploaded.copy` | bytes sent to others so far |
//! | `trust`, `trust.copy` | roots, floors and the time floor of `updraft_manifests::trust`, kept twice |
//! | `installed`, `installed.copy` | the release that is installed, file by file, kept twice |
//! | `installed.next` | the same of the release that is being switched to |
//! | `journal` | where an unfinished switch stands ([`crate::journal`]) |
//! | `staging/<v2 info-hash>/<number>` | files of a release that is being fetched |
//! | `resume/<v2 info-hash>` | which of its pieces are verified; written by the engine |
//! | `old/` | replaced files, until the switch is committed |
//! | `kept/` | the same afterwards, for a while ([`crate::kept`]) |
//! | `pristine/` | copies of what the player may change, as released ([`crate::pristine`]) |
//! | `documents/` | verified documents by repository path ([`crate::documents`]) |
//! | `peers` | addresses of peers seen last, one a line |
//! | `evidence/` | contradicting signed documents |

mod player;

pub use player::Uploaded;

use crate::apply::{Ending, OLD_FOLDER, STATE_FOLDER, Transaction};
use crate::error::Error;
use crate::kept;
use crate::tree::Tree;
use crate::twin::{self, Found};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use updraft_manifests::feed::Feed;
use updraft_manifests::hash::{ContentHash, from_hex, hex};
use updraft_manifests::installed::{INSTALLED_BYTES_MAX, Installed};
use updraft_manifests::names::Name;
use updraft_manifests::rules::Selection;
use updraft_manifests::trust::TrustState;

/// The journal, below the install.
pub const JOURNAL_PATH: &str = ".updraft/journal";
const STATE_PATH: &str = ".updraft/state";
const TRUST_PATH: &str = ".updraft/trust";
const INSTALLED_PATH: &str = ".updraft/installed";
const SETTINGS_PATH: &str = ".updraft/settings";
const NEXT_PATH: &str = ".updraft/installed.next";
const PEERS_PATH: &str = ".updraft/peers";
const EVIDENCE_FOLDER: &str = ".updraft/evidence";
/// Where the engine keeps its resume logs, below the install.
pub const RESUME_FOLDER: &str = ".updraft/resume";

/// The most peer addresses remembered.
const PEERS_MAX: usize = 64;
/// The most contradicting documents kept.
const EVIDENCE_MAX: usize = 16;

/// What the player decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where the product comes from.
    pub feed: Feed,
    /// The channel that is followed.
    pub channel: Name,
    /// The platform whose releases are installed.
    pub platform: Name,
    /// The player went back from this release: no update up to this sequence comes by itself.
    pub held: Option<u64>,
    /// This install's own number, which nobody else is told: it decides when staged releases come.
    pub number: InstallNumber,
    /// Which components are wanted.
    pub choice: Selection,
}

/// 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstallNumber(pub [u8; 16]);

impl InstallNumber {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system has no randomness.
    pub fn random() -> Result<Self, Error> {
        let mut number = [0; 16];
        getrandom::fill(&mut number)
            .map_err(|error| Error::Failed(format!("no randomness from the system: {error}")))?;
        Ok(Self(number))
    }
}

impl From<InstallNumber> for String {
    fn from(number: InstallNumber) -> Self {
        hex(&number.0)
    }
}

impl TryFrom<String> for InstallNumber {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        from_hex(&text).map(Self).ok_or("an install's number is 32 hexadecimal digits")
    }
}

#[derive(Serialize, Deserialize)]
struct StateText {
    #[serde(rename = "updraft-state")]
    format: u32,
    feed: String,
    channel: Name,
    platform: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<u64>,
    number: InstallNumber,
    #[serde(flatten)]
    choice: Selection,
}

impl State {
    /// As it is recorded.
    pub fn to_text(&self) -> String {
        let Self { feed, channel, platform, held, number, choice } = self;
        toml::to_string(&StateText {
            format: 1,
            feed: feed.to_link(),
            channel: channel.clone(),
            platform: platform.clone(),
            held: *held,
            number: *number,
            choice: choice.clone(),
        })
        .expect("plain fields serialise")
    }

    /// Reads what [`State::to_text`] wrote.
    ///
    /// # Errors
    /// In words: what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text: StateText = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        if text.format != 1 {
            return Err("it was written by a newer version of this program".into());
        }
        let feed = Feed::parse(&text.feed).map_err(|error| error.to_string())?;
        let StateText { channel, platform, held, number, choice, .. } = text;
        Ok(Self { feed, channel, platform, held, number, choice })
    }
}

/// The records of one install.
#[derive(Debug)]
pub struct Store {
    tree: Tree,
}

impl Store {
    /// The records below `dir`; the state folder is made if it is missing.
    ///
    /// # Errors
    /// From the file system; [`Error::NotOurs`] if `.updraft` is something else than a folder.
    pub fn create(dir: &Path) -> Result<Self, Error> {
        let tree = Tree::open(dir).map_err(Error::disk("open the folder", dir))?;
        let make = |folder: &str| {
            tree.make_folders(folder).map_err(Error::disk("make the folder", dir.join(folder)))
        };
        make(STATE_FOLDER)?;
        make(RESUME_FOLDER)?;
        make(".updraft/staging")?;
        Ok(Self { tree })
    }

    /// The records below `dir`, which has a state folder.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] if it has none.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        match Tree::open(dir) {
            Ok(tree) if tree.exists(STATE_PATH).unwrap_or(false) => Ok(Self { tree }),
            Ok(tree) if tree.exists(&format!("{STATE_PATH}.copy")).unwrap_or(false) => {
                Ok(Self { tree })
            }
            Ok(_) => Err(Error::NotInstalled(dir.to_path_buf())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotInstalled(dir.to_path_buf()))
            }
            Err(error) => Err(Error::disk("open the folder", dir)(error)),
        }
    }

    /// The install folder.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The absolute path of something below the install.
    pub fn path(&self, below: &str) -> PathBuf {
        self.tree.path().join(below)
    }

    /// What the player decided; `None` if nothing was recorded yet.
    ///
    /// # Errors
    /// [`Error::State`] if no copy can be read.
    pub fn state(&self) -> Result<Option<State>, Error> {
        let Some(bytes) = self.read_twin(STATE_PATH)? else { return Ok(None) };
        let wrong = |why: String| Error::State { path: self.path(STATE_PATH), why };
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        State::parse(&text).map(Some).map_err(wrong)
    }

    /// Records what the player decided.
    ///
    /// # Errors
    /// From the file system.
    pub fn set_state(&self, state: &State) -> Result<(), Error> {
        self.write_twin(STATE_PATH, state.to_text().as_bytes())
    }

    /// What is believed of the product of `feed`. A record of another feed counts as none.
    ///
    /// # Errors
    /// [`Error::State`] if no copy can be read: starting over would forget the floors.
    pub fn trust(&self, feed: &Feed) -> Result<TrustState, Error> {
        let Some(bytes) = self.read_twin(TRUST_PATH)? else { return Ok(TrustState::new(feed)) };
        let trust = TrustState::parse(&bytes)
            .map_err(|e| Error::State { path: self.path(TRUST_PATH), why: e.to_string() })?;
        Ok(if trust.is_of(feed) { trust } else { TrustState::new(feed) })
    }

    /// True if there is a record of what is believed, be it damaged.
    pub fn has_trust(&self) -> bool {
        !matches!(twin::read(&self.tree, TRUST_PATH), Ok(Found::Nothing))
    }

    /// Records what is believed.
    ///
    /// # Errors
    /// From the file system.
    pub fn set_trust(&self, trust: &TrustState) -> Result<(), Error> {
        self.write_twin(TRUST_PATH, trust.to_text().as_bytes())
    }

    /// Forgets a trust record that no copy of can be read; for `install --adopt`.
    ///
    /// # Errors
    /// From the file system.
    pub fn reset_damaged(&self) -> Result<(), Error> {
        for path in [STATE_PATH, TRUST_PATH, INSTALLED_PATH, SETTINGS_PATH] {
            let found = twin::read(&self.tree, path);
            if matches!(found, Ok(Found::Damaged)) {
                for copy in [path.to_owned(), format!("{path}.copy")] {
                    let full = self.path(&copy);
                    self.tree.remove_file(&copy).map_err(Error::disk("remove", full))?;
                }
            }
        }
        Ok(())
    }

    /// What is installed; `None` if nothing is, or the record is damaged (then every file is looked
    /// at anew).
    ///
    /// # Errors
    /// From the file system.
    pub fn installed(&self) -> Result<Option<Installed>, Error> {
        match twin::read(&self.tree, INSTALLED_PATH) {
            Ok(Found::Payload(bytes)) => Ok(Installed::parse(&bytes).ok()),
            Ok(Found::Nothing | Found::Damaged) => Ok(None),
            Err(error) => Err(Error::disk("read", self.path(INSTALLED_PATH))(error)),
        }
    }

    /// Records what is installed.
    ///
    /// # Errors
    /// From the file system.
    pub fn set_installed(&self, installed: &Installed) -> Result<(), Error> {
        self.write_twin(INSTALLED_PATH, installed.to_text().as_bytes())
    }

    /// Records what will be installed once the switch is through.
    ///
    /// # Errors
    /// From the file system.
    pub fn set_next(&self, next: &Installed) -> Result<(), Error> {
        let write = || {
            let mut file = self.tree.create_file(NEXT_PATH)?;
            file.write_all(next.to_text().as_bytes())?;
            file.sync_all()?;
            self.tree.sync_folder(STATE_FOLDER)
        };
        write().map_err(Error::disk("write", self.path(NEXT_PATH)))
    }

    /// Makes what was recorded by [`Store::set_next`] what is installed. Files of `missing` are
    /// marked as not known to be right.
    ///
    /// # Errors
    /// From the file system.
    pub fn promote_next(&self, work: &Transaction, missing: &[String]) -> Result<(), Error> {
        let path = self.path(NEXT_PATH);
        if !self.tree.exists(NEXT_PATH).map_err(Error::disk("look at", &path))? {
            return Ok(()); // Promoted before a stop.
        }
        let mut bytes = Vec::new();
        self.tree
            .open_file(NEXT_PATH)
            .and_then(|file| file.take(INSTALLED_BYTES_MAX as u64).read_to_end(&mut bytes))
            .map_err(Error::disk("read", &path))?;
        let fits = |next: &Installed| {
            let leads_to = next.toward.unwrap_or(next.release.manifest);
            leads_to.to_string() == work.target.manifest
        };
        // A record that rotted meanwhile: without one, every file is looked at anew.
        if let Some(mut next) = Installed::parse(&bytes).ok().filter(fits) {
            if work.ending == Ending::Keep
                && let Some(old) = self.installed()?
                // Else it was labelled before a stop.
                && old.release.manifest != next.release.manifest
            {
                kept::label(&self.tree, &old)
                    .map_err(Error::disk("write", self.path(OLD_FOLDER)))?;
            }
            for file in &mut next.files {
                if missing.iter().any(|path| path == file.path.as_str()) {
                    file.mtime_ns = 0;
                }
            }
            self.set_installed(&next)?;
        }
        self.tree.remove_file(NEXT_PATH).map_err(Error::disk("remove", path))
    }

    /// Addresses of peers seen last.
    pub fn peers(&self) -> Vec<SocketAddr> {
        let mut text = String::new();
        let read = self.tree.open_file(PEERS_PATH);
        if read.and_then(|file| file.take(64 << 10).read_to_string(&mut text)).is_err() {
            return Vec::new();
        }
        text.lines().filter_map(|line| line.parse().ok()).take(PEERS_MAX).collect()
    }

    /// Remembers peers; a failure is no harm.
    pub fn set_peers(&self, peers: &[SocketAddr]) {
        if peers.is_empty() {
            return;
        }
        let text: String = peers.iter().take(PEERS_MAX).map(|addr| format!("{addr}\n")).collect();
        let fresh = format!("{PEERS_PATH}.new");
        let write = || {
            self.tree.create_file(&fresh)?.write_all(text.as_bytes())?;
            self.tree.rename(&fresh, PEERS_PATH)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "peers are not remembered");
        }
    }

    /// Keeps a signed document that contradicts another one; a failure is no harm.
    pub fn keep_evidence(&self, bytes: &[u8]) {
        let write = || {
            self.tree.make_folders(EVIDENCE_FOLDER)?;
            if self.tree.list(EVIDENCE_FOLDER)?.len() >= EVIDENCE_MAX {
                return Ok(());
            }
            let path = format!("{EVIDENCE_FOLDER}/{}.toml", ContentHash::of(bytes));
            self.tree.create_file(&path)?.write_all(bytes)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "evidence is not kept");
        }
    }

    fn read_twin(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match twin::read(&self.tree, path) {
            Ok(Found::Payload(bytes)) => Ok(Some(bytes)),
            Ok(Found::Nothing) => Ok(None),
            Ok(Found::Damaged) => {
                let why = "neither of its two copies is whole".to_owned();
                Err(Error::State { path: self.path(path), why })
            }
            Err(error) => Err(Error::disk("read", self.path(path))(error)),
        }
    }

    fn write_twin(&self, path: &str, payload: &[u8]) -> Result<(), Error> {
        twin::write(&self.tree, path, payload).map_err(Error::disk("write", self.path(path)))
    }
}

/// The platform this program runs on, in the form that manifests use.
pub fn own_platform() -> Name {
    let text = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    Name::parse(&text).unwrap_or_else(|_| Name::any_platform())
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Url;

    #[test]
    fn state_survives_one_lost_copy_and_says_when_both_are() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Store::open(dir.path()), Err(Error::NotInstalled(_))));
        let store = Store::create(dir.path()).unwrap();
        assert_eq!(store.state().unwrap(), None);
        let url = Url::parse("http://localhost:1/").unwrap();
        let name = |text| Name::parse(text).unwrap();
        let feed = Feed::new(name("game"), ContentHash::of(b"root"), vec![url]).unwrap();
        let state = State {
            feed: feed.clone(),
            channel: name("stable"),
            platform: own_platform(),
            held: Some(7),
            number: InstallNumber([5; 16]),
            choice: Selection { with: [name("french")].into(), without: [name("hd")].into() },
        };
        store.set_state(&state).unwrap();
        store.set_trust(&TrustState::new(&feed)).unwrap();
        std::fs::write(dir.path().join(STATE_PATH), [0; 300]).unwrap();
        std::fs::write(dir.path().join(TRUST_PATH), [0; 300]).unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.state().unwrap(), Some(state));
        assert_eq!(store.trust(&feed).unwrap(), TrustState::new(&feed));
        std::fs::write(dir.path().join(".updraft/state.copy"), []).unwrap();
        assert!(matches!(store.state(), Err(Error::State { .. })));
        store.reset_damaged().unwrap();
        assert_eq!(store.state().unwrap(), None);
    }
}
