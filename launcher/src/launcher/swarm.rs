//! Our part in the swarms, and where news come from.

use super::Launcher;
use super::ahead::NEWS_EVERY;
use super::bring::{Manner, unusable};
use super::manners::{Manners, limits};
use crate::error::Error;
use crate::events::Event;
use crate::news::{self, News, Origin, Sources};
use crate::release::Release;
use crate::room::Room;
use crate::settings::Circumstances;
use crate::stage::Stage;
use crate::status::Status;
use crate::store::{State, Store};
use crate::transfer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use updraft_manifests::head::HEAD_PATH;
use updraft_manifests::installed::Installed;
use updraft_manifests::plan::Action;
use updraft_protocol::ids::InfoHash;
use updraft_protocol::io::{
    AddTorrent, Have, LocalNetwork, Priority, Session, SessionError, TorrentHandle, UploadPolicy,
};
use url::Url;

/// Repositories that have not answered by now are asked beside other players.
const NEWS_HEAD_START: Duration = Duration::from_millis(500);
/// How long repairing waits for news before old news has to do.
const NEWS_WAIT_MAX: Duration = Duration::from_secs(4);

/// Where the swarm of a release meets, and which web servers have its files.
#[derive(Debug)]
pub(super) struct SwarmSources {
    pub(super) trackers: Vec<Vec<String>>,
    pub(super) http: Vec<Url>,
    /// A repository answered just now.
    pub(super) answers: bool,
}

/// Of each file of the installed release, by number:
pub(super) struct Shared {
    /// where its content is,
    pub(super) paths: Vec<PathBuf>,
    /// whether it is wanted here at all,
    pub(super) wanted: Vec<bool>,
    /// and whether it is there as released, by size and time.
    pub(super) whole: Vec<bool>,
}

impl SwarmSources {
    pub(super) fn of(news: &News, state: &State) -> Self {
        if let Origin::Repository(url) = &news.origin
            && news.is_from_bundle()
        {
            return Self { trackers: Vec::new(), http: vec![url.clone()], answers: true };
        }
        let resolved = news.head.head.sources.resolve(&news.base(state));
        let answers = matches!(news.origin, Origin::Repository(_));
        Self { trackers: resolved.tiers(), http: resolved.http, answers }
    }
}

impl Launcher {
    /// Seeds the installed release until stopped.
    ///
    /// # Errors
    /// Everything in [`Error`].
    pub async fn seed(&mut self) -> Result<(), Error> {
        if self.handle.is_none() {
            // What is known of the swarm does to begin with: who waits for news first keeps others waiting.
            let known = self.known_swarm_sources();
            self.share(&known).await?;
            let Some(heard) = self.go_on_seeding(Some(&known)).await? else { return Ok(()) };
            tracing::info!(trackers = ?heard.trackers, "the swarm meets elsewhere now");
            if let Some(handle) = self.handle.take() {
                handle.remove().await;
            }
            if let Some(patch) = self.patch.take() {
                patch.handle.remove().await;
            }
            self.share(&heard).await?;
        }
        self.go_on_seeding(None).await.map(|_| ())
    }

    /// Adds the torrent of what is installed, and the patch that brought it.
    pub(super) async fn share(&mut self, swarm: &SwarmSources) -> Result<(), Error> {
        let installed = self.installed()?;
        let release = self.installed_release(&installed).await?;
        let Shared { paths, wanted, whole } = self.shared_files(&installed, &release)?;
        let changed = wanted.iter().zip(&whole).filter(|(w, h)| **w && !**h).count();
        if changed > 0 {
            (self.events)(Event::Warning {
                message: format!("{changed} files are not as released and are not shared"),
            });
        }
        let mut add = AddTorrent::new(Arc::clone(&release.info), paths);
        add.priorities = whole.iter().copied().map(Priority::from).collect();
        add.have = Have::Files(whole);
        add.seed_only = true;
        self.add(add, swarm).await?;
        self.share_patch(swarm).await;
        Ok(())
    }

    /// Seeds until stopped, or until a repository names other trackers than are `known`, which are returned.
    pub(super) async fn go_on_seeding(
        &mut self,
        known: Option<&SwarmSources>,
    ) -> Result<Option<SwarmSources>, Error> {
        let handle = self.handle.clone().expect("it was just added");
        let (stop, events) = (self.stop.clone(), Arc::clone(&self.events));
        let seeding = transfer::seed(&handle, &stop, &events);
        tokio::pin!(seeding);
        let mut look = tokio::time::interval(NEWS_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let done = loop {
            tokio::select! {
                done = &mut seeding => break done,
                _ = look.tick() => {
                    tokio::select! {
                        done = &mut seeding => break done,
                        heard = self.look_for_more(known) => if let Some(heard) = heard {
                            return Ok(Some(heard));
                        }
                    }
                }
            }
        };
        // Looking for more may have been stopped halfway.
        self.handle = Some(handle.clone());
        self.remember_peers().await;
        done.map(|()| None)
    }

    /// What there is of the installed release.
    pub(super) fn shared_files(
        &self,
        installed: &Installed,
        release: &Release,
    ) -> Result<Shared, Error> {
        let found = self.look(Some(installed), Some(release), Manner::default())?;
        let (tree, choice) = (self.store.tree(), &self.state.choice);
        let stage = Stage::new(tree, release, Some(installed), choice, found, false)
            .map_err(|error| unusable(release, &error))?;
        let wanted = stage.wanted();
        // Of what is left, there is a copy if it is wanted at all.
        let here = |action: &Action| {
            matches!(action, Action::Keep | Action::SetExecutable(_) | Action::Leave)
        };
        let actions = stage.plan().actions.iter().zip(&wanted);
        let whole = actions.map(|(action, wanted)| *wanted && here(action)).collect();
        Ok(Shared { paths: stage.paths_installed(), wanted, whole })
    }

    /// Adds the torrent of the release that is installed or to be installed.
    pub(super) async fn add(&mut self, add: AddTorrent, swarm: &SwarmSources) -> Result<(), Error> {
        self.handle = Some(self.join(add, swarm).await?);
        self.meet().await
    }

    /// Adds a torrent, with everything that all our torrents have.
    pub(super) async fn join(
        &mut self,
        mut add: AddTorrent,
        swarm: &SwarmSources,
    ) -> Result<TorrentHandle, Error> {
        add.trackers.clone_from(&swarm.trackers);
        add.peers = self.known_peers();
        add.documents = Some(self.documents.clone());
        let session = self.session().await?;
        let handle = session.add(add).await.map_err(|error| session_error(&error))?;
        self.count(&handle);
        Ok(handle)
    }

    /// From now on what this torrent sends is counted.
    pub(super) fn count(&self, handle: &TorrentHandle) {
        if let Some(manners) = &self.manners {
            manners.count(handle);
        }
    }

    /// Opens the meeting place of the product, so that others can ask us for documents.
    pub(super) async fn meet(&mut self) -> Result<(), Error> {
        if self.room.is_none() {
            let installed = self.store.installed()?;
            let status = Status::of(self.network.name.as_ref(), installed.as_ref());
            self.documents.set_status(status);
            let hash = InfoHash(self.state.feed.rendezvous());
            let peers = self.known_peers();
            let documents = self.documents.clone();
            let session = self.session().await?;
            let meeting = session.add_rendezvous(hash, documents, Vec::new(), peers).await;
            self.room = Some(Room::new(meeting.map_err(|error| session_error(&error))?));
        }
        Ok(())
    }

    pub(super) async fn session(&mut self) -> Result<Session, Error> {
        if self.session.is_none() {
            let settings = self.store.settings()?;
            let mut network = self.network.clone();
            // As allowed from the first byte on; afterwards it is followed.
            network.upload &=
                settings.upload_now(Circumstances::default()).0 == UploadPolicy::Everyone;
            (network.up_limit, network.down_limit) = limits(&settings, &network);
            let session = network.start(&self.events).await?;
            let store = Store::open(self.store.tree().path())?;
            self.manners = Some(Manners::start(store, &session, &self.network, &self.events));
            self.session = Some(session);
        }
        Ok(self.session.clone().expect("it was just started"))
    }

    pub(super) fn known_peers(&self) -> Vec<SocketAddr> {
        if self.is_importing() {
            return Vec::new();
        }
        let mut peers = self.network.peers.clone();
        peers.extend(self.store.peers());
        peers.dedup();
        peers
    }

    pub(super) async fn remember_peers(&self) {
        if let Some(handle) = &self.handle {
            let peers: Vec<SocketAddr> =
                handle.peers().await.iter().map(|peer| peer.addr).collect();
            self.store.set_peers(&peers);
        }
    }

    pub(super) fn sources(&self) -> Sources<'_> {
        Sources {
            http: &self.http,
            repositories: match &self.bundle {
                Some(bundle) => vec![bundle.clone()],
                None if self.is_local_only() => Vec::new(),
                None => self.state.feed.urls.clone(),
            },
            room: self.room.as_ref().filter(|_| !self.is_importing()),
            without_origin: self.is_local_only() || self.is_importing(),
            received: &self.documents_bytes,
        }
    }

    /// True if nothing may be sent beyond the local network.
    pub(super) fn is_local_only(&self) -> bool {
        self.network.local == LocalNetwork::Only
    }

    /// News from the repositories; if none answers, from other launchers that are known or near.
    pub(super) async fn news(&mut self) -> Result<News, Error> {
        let stop = self.stop.clone();
        let work = async {
            if self.is_importing() {
                let sources = self.sources();
                let news = news::ask(&self.store, &self.documents, &sources, &self.state).await?;
                if news.origin == Origin::Kept {
                    let why = "it is missing, or older than what is known here already".to_owned();
                    return Err(Error::Network { what: HEAD_PATH.to_owned(), why });
                }
                return Ok(news);
            }
            let mut first = None;
            if !self.is_local_only() {
                let sources = Sources { room: None, ..self.sources() };
                let ask = news::ask(&self.store, &self.documents, &sources, &self.state);
                let alone =
                    self.network.local == LocalNetwork::Off && self.known_peers().is_empty();
                first = match alone {
                    true => Some(ask.await),
                    false => tokio::time::timeout(NEWS_HEAD_START, ask).await.ok(),
                };
                let unheard = match &first {
                    Some(Ok(news)) => news.origin == Origin::Kept,
                    // What is refused may be the page of a network that lets nobody out.
                    Some(Err(Error::Network { .. } | Error::Trust(_) | Error::Refused { .. }))
                    | None => true,
                    Some(Err(_)) => false,
                };
                if let Some(news) = first.take_if(|_| !unheard || alone) {
                    return news;
                }
            }
            self.meet().await?;
            let second =
                news::ask(&self.store, &self.documents, &self.sources(), &self.state).await;
            let news = match (first, second) {
                (_, Ok(news)) | (Some(Ok(news)), Err(Error::Network { .. })) => news,
                (_, Err(error)) => return Err(error),
            };
            if news.origin == Origin::Peer && !self.is_local_only() {
                (self.events)(Event::Warning {
                    message: "no repository answers; the news come from other players".to_owned(),
                });
            }
            Ok(news)
        };
        tokio::select! {
            news = Box::pin(work) => news,
            () = stop.raised() => Err(Error::Interrupted),
        }
    }

    /// Trackers and web servers for a release that is installed already; old news will do.
    pub(super) async fn swarm_sources(&self) -> SwarmSources {
        if self.is_local_only() {
            return self.known_swarm_sources();
        }
        let sources = Sources { room: None, ..self.sources() };
        let ask = Box::pin(news::ask(&self.store, &self.documents, &sources, &self.state));
        let failed = match tokio::time::timeout(NEWS_WAIT_MAX, ask).await {
            Ok(Ok(news)) => return SwarmSources::of(&news, &self.state),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no repository answers".to_owned(),
        };
        (self.events)(Event::Warning { message: failed });
        self.known_swarm_sources()
    }

    /// The same by the news heard last.
    pub(super) fn known_swarm_sources(&self) -> SwarmSources {
        match news::kept(&self.store, &self.documents, &self.state) {
            Some(news) => SwarmSources::of(&news, &self.state),
            None => SwarmSources {
                trackers: Vec::new(),
                http: self.state.feed.urls.clone(),
                answers: false,
            },
        }
    }
}

pub(super) fn session_error(error: &SessionError) -> Error {
    Error::Failed(error.to_string())
}
