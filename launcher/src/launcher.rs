//! One install and what can be done with it: the handle behind every face.
//!
//! A [`Launcher`] holds the install's lock. Opening it finishes whatever a crash left half done.
//! Every command is one method; while it works it tells [`Event`]s to the sink it was given, and it
//! ends early when its [`Stop`] is raised, leaving a folder from which the same command goes on.

mod ahead;
mod bounded;
mod bring;
mod components;
mod export;
mod gather;
mod host;
mod import;
mod lan;
mod look;
mod manners;
mod patches;
mod preload;
mod renew;
mod rollback;
mod run;
mod swarm;
mod torrent;

pub use renew::Renewed;

use crate::apply::Report;
use crate::bundle;
use crate::documents::Documents;
use crate::error::Error;
use crate::events::{Event, Sink};
use crate::feed;
use crate::home::report_healthy;
use crate::http::Http;
use crate::lock::Lock;
use crate::news;
use crate::release::Release;
use crate::restore::restore;
use crate::room::Room;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::store::{InstallNumber, State, Store, own_platform};
use crate::switch::{Switch, peek};
use crate::transfer::Network;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use updraft_manifests::installed::Installed;
use updraft_manifests::manifest::torrent_path;
use updraft_manifests::names::Name;
use updraft_manifests::rules::Selection;
use updraft_protocol::io::{LocalNetwork, Session, TorrentHandle};
use url::Url;

/// An install that this process works on.
pub struct Launcher {
    store: Store,
    documents: Arc<Documents>,
    http: Http,
    network: Network,
    /// Where everything comes from instead of any network.
    bundle: Option<Url>,
    events: Sink,
    stop: Stop,
    state: State,
    switch: Switch,
    session: Option<Session>,
    manners: Option<manners::Manners>,
    room: Option<Room>,
    handle: Option<TorrentHandle>,
    /// The release after the installed one, as far as it is here already.
    ahead: Option<ahead::Ahead>,
    /// The release that is announced, once it is here.
    preloaded: Option<preload::Preloaded>,
    /// Components that were asked for, until there is a release that can have them.
    asked: Selection,
    /// Bytes of documents that came.
    documents_bytes: AtomicU64,
    /// The patch of this update: others may want it, too.
    patch: Option<KeptPatch>,
    _lock: Lock,
}

/// What an install is made from.
#[derive(Debug, Clone)]
pub struct InstallRequest {
    /// Feed link, path or URL.
    pub feed: String,
    /// The channel to follow; `None` for the one followed so far, or `stable`.
    pub channel: Option<Name>,
    /// The platform; `None` for the one this program runs on.
    pub platform: Option<Name>,
    /// Use what is right in a folder that is not empty.
    pub adopt: bool,
    /// Components that are wanted or not, besides what was chosen before.
    pub components: Selection,
}

/// How to update.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpdateRequest {
    /// See [`InstallRequest::adopt`].
    pub adopt: bool,
    /// Tell of every file how it comes to be.
    pub explain: bool,
    /// Bring in a release that the player went back from, too.
    pub force: bool,
    /// Do not wait for this install's turn in a staged rollout.
    pub now: bool,
    /// Where there is no room for the old and the new of all files, replace them batch by batch.
    pub bounded: bool,
}

/// What came of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    /// The release is installed (or planned).
    Done,
    /// It was there already.
    UpToDate,
    /// The player went back from it.
    Held,
    /// It goes to others first.
    Later,
    /// Its publisher has stopped it.
    Paused,
}

/// A patch that was fetched.
#[derive(Debug)]
struct KeptPatch {
    handle: TorrentHandle,
    /// Its torrent, by path in the repository.
    document: String,
}

impl Launcher {
    /// Opens the install at `dir`.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Busy`], [`Error::State`], and from the file system.
    pub fn open(dir: &Path, network: Network, events: Sink, stop: Stop) -> Result<Self, Error> {
        let store = Store::open(dir)?;
        let lock = Lock::take(store.tree())?;
        let state = store.state()?.ok_or_else(|| Error::NotInstalled(dir.to_path_buf()))?;
        Self::start(Store::create(dir)?, lock, state, network, events, stop)
    }

    /// Opens the install at `dir`, or makes it: an empty folder, or one that is adopted.
    ///
    /// # Errors
    /// [`Error::NotOurs`] for a folder with other things in it, [`Error::OtherProduct`], those of
    /// [`feed::read`] and [`Launcher::open`].
    pub async fn create(
        dir: &Path,
        request: &InstallRequest,
        network: Network,
        events: Sink,
        stop: Stop,
    ) -> Result<Self, Error> {
        let http = Http::new().map_err(Error::Failed)?;
        // Before anything is made.
        network.bundle.as_deref().map(bundle::url).transpose()?;
        let offline = network.local == LocalNetwork::Only || network.bundle.is_some();
        let ask = (!offline).then_some(&http);
        let feed = feed::read(&request.feed, ask).await?;
        std::fs::create_dir_all(dir).map_err(Error::disk("make the folder", dir))?;
        let known = Store::open(dir).is_ok();
        if !known && !request.adopt && !is_empty(dir)? {
            return Err(Error::NotOurs(dir.to_path_buf()));
        }
        let store = Store::create(dir)?;
        let lock = Lock::take(store.tree())?;
        if request.adopt {
            store.reset_damaged()?;
        }
        let old = store.state()?;
        if let Some(old) = &old
            && (old.feed.product != feed.product || old.feed.root != feed.root)
            // A feed that never led to anything may be corrected.
            && (store.installed()?.is_some() || store.trust(&old.feed)?.root().is_some())
        {
            let found = old.feed.product.to_string();
            return Err(Error::OtherProduct { dir: dir.to_path_buf(), found });
        }
        let stable = || Name::parse("stable").expect("it is a name");
        // So may a channel that does not exist.
        let trust = store.trust(&feed)?;
        let followed = |old: &&State| {
            [&old.platform, &Name::any_platform()]
                .iter()
                .any(|platform| trust.manifest_floor(platform, &old.channel).is_some())
        };
        let kept = old.as_ref().filter(followed);
        let channel = request
            .channel
            .clone()
            .or_else(|| kept.map(|old| old.channel.clone()))
            .unwrap_or_else(stable);
        let state = State {
            platform: request
                .platform
                .clone()
                .or_else(|| kept.map(|old| old.platform.clone()))
                .unwrap_or_else(own_platform),
            held: kept.filter(|old| old.channel == channel).and_then(|old| old.held),
            number: match &old {
                Some(old) => old.number,
                None => InstallNumber::random()?,
            },
            choice: old.as_ref().map(|old| old.choice.clone()).unwrap_or_default(),
            channel,
            feed,
        };
        // What is installed follows what it did until the new choice has led to a release.
        if store.installed()?.is_none() && old.as_ref() != Some(&state) {
            store.set_state(&state)?;
        }
        let mut launcher = Self::start(store, lock, state, network, events, stop)?;
        launcher.asked.clone_from(&request.components);
        Ok(launcher)
    }

    fn start(
        store: Store,
        lock: Lock,
        state: State,
        mut network: Network,
        events: Sink,
        stop: Stop,
    ) -> Result<Self, Error> {
        let dir = store.tree().path().to_path_buf();
        let documents =
            Documents::open(&dir).map_err(Error::disk("open the documents in", &dir))?;
        restore(&store, &documents, &state.feed)?;
        let (switch, recovery) = Switch::recover(&store)?;
        if let Some((target, report)) = recovery.finished {
            events(Event::Recovered { version: target.version });
            tell_report(&events, &report);
        }
        let settings = store.settings()?;
        network.follow(&settings);
        let bundle = network.bundle.as_deref().map(bundle::url).transpose()?;
        let launcher = Self {
            store,
            documents: Arc::new(documents),
            http: Http::new().map_err(Error::Failed)?,
            network,
            bundle,
            events,
            stop,
            state,
            switch,
            session: None,
            manners: None,
            room: None,
            handle: None,
            ahead: None,
            preloaded: None,
            asked: Selection::default(),
            documents_bytes: AtomicU64::new(0),
            patch: None,
            _lock: lock,
        };
        launcher.expire_kept();
        // State, records and documents can be read, what was half done is finished: it works here.
        if launcher.store.trust(&launcher.state.feed).is_ok() {
            report_healthy();
        }
        Ok(launcher)
    }

    /// Whether the player agreed to upload to the internet; `None` if that was never decided.
    ///
    /// # Errors
    /// [`Error::State`] if the settings cannot be read.
    pub fn upload(&self) -> Result<Option<bool>, Error> {
        Ok(self.store.settings()?.upload)
    }

    /// Records whether the player agreed to upload to the internet; acts within a second.
    ///
    /// # Errors
    /// From the file system.
    pub fn set_upload(&mut self, upload: bool) -> Result<(), Error> {
        self.network.upload = upload;
        let settings = self.store.settings()?;
        if settings.upload != Some(upload) {
            let settings = Settings { upload: Some(upload), ..settings };
            self.store.set_settings(&settings)?;
        }
        Ok(())
    }

    /// Says goodbye to the swarm; takes at most a few seconds.
    pub async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            self.remember_peers().await;
            session.stop().await;
        }
        // Its last count is that of an engine that has ended.
        self.manners = None;
    }

    /// True if any release is installed, or was begun to be.
    ///
    /// # Errors
    /// [`Error::State`] if the record cannot be read.
    pub fn has_release(&self) -> Result<bool, Error> {
        Ok(self.store.installed()?.is_some())
    }

    fn installed(&self) -> Result<Installed, Error> {
        let installed = self.store.installed()?;
        if installed.as_ref().is_some_and(|installed| installed.toward.is_some()) {
            let version = peek(&self.store).map_or_else(String::new, |work| work.target.version);
            return Err(Error::Halfway { version });
        }
        installed.ok_or_else(|| match peek(&self.store) {
            Some(work) => Error::Failed(format!(
                "the first install, of {}, is not finished: run `updraft-launcher update` to go on",
                work.target.version
            )),
            None => Error::NotInstalled(self.store.tree().path().to_path_buf()),
        })
    }

    /// The torrent of what is installed: from the store, or the sources, by its hash.
    async fn installed_release(&self, installed: &Installed) -> Result<Release, Error> {
        let path = torrent_path(&installed.release.torrent);
        let parse = |bytes: &Bytes| Release::parse(installed.release.clone(), bytes);
        news::checked(&self.documents, &self.sources(), &path, parse).await
    }
}

fn tell_report(events: &Sink, report: &Report) {
    for (path, to) in &report.aside {
        events(Event::Aside { path: path.clone(), to: to.clone() });
    }
}

/// True if there is nothing in the folder but perhaps our own state folder.
fn is_empty(dir: &Path) -> Result<bool, Error> {
    for entry in std::fs::read_dir(dir).map_err(Error::disk("look into", dir))? {
        let entry = entry.map_err(Error::disk("look into", dir))?;
        if entry.file_name() != crate::apply::STATE_FOLDER {
            return Ok(false);
        }
    }
    Ok(true)
}
