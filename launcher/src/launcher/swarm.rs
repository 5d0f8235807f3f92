//! Our part in the swarms, and where news come from.

use super::Launcher;
use super::ahead::NEWS_EVERY;
use super::bring::{Manner, unusable};
use crate::error::Error;
use crate::events::Event;
use crate::news::{self, News, Origin, Sources};
use crate::room::Room;
use crate::stage::Stage;
use crate::status::Status;
use crate::store::State;
use crate::transfer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use updraft_manifests::plan::Action;
use updraft_protocol::ids::InfoHash;
use updraft_protocol::io::{
    AddTorrent, Have, LocalNetwork, Priority, Session, SessionError, TorrentHandle,
};
use url::Url;

/// Repositories that have not answered by now are asked beside other players.
const NEWS_HEAD_START: Duration = Duration::from_millis(500);
/// How long seeding and repairing wait for news before old news has to do.
const NEWS_WAIT_MAX: Duration = Duration::from_secs(4);

/// Where the swarm of a release meets, and which web servers have its files.
#[derive(Debug)]
pub(super) struct SwarmSources {
    pub(super) trackers: Vec<Vec<String>>,
    pub(super) http: Vec<Url>,
    /// A repository answered just now.
    pub(super) answers: bool,
}

impl SwarmSources {
    pub(super) fn of(news: &News, state: &State) -> Self {
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
            let installed = self.installed()?;
            let release = self.installed_release(&installed).await?;
            let swarm = self.swarm_sources().await;
            let found = self.look(Some(&installed), Some(&release), Manner::default())?;
            let (tree, choice) = (self.store.tree(), &self.state.choice);
            let stage = Stage::new(tree, &release, Some(&installed), choice, found, false)
                .map_err(|error| unusable(&release, &error))?;
            let whole: Vec<bool> = stage
                .plan()
                .actions
                .iter()
                .zip(stage.wanted())
                .map(|(action, wanted)| {
                    // Of what is left, there is a copy if it is wanted at all.
                    wanted
                        && matches!(action, Action::Keep | Action::SetExecutable(_) | Action::Leave)
                })
                .collect();
            let changed = stage.wanted().iter().zip(&whole).filter(|(w, h)| **w && !**h).count();
            if changed > 0 {
                (self.events)(Event::Warning {
                    message: format!("{changed} files are not as released and are not shared"),
                });
            }
            let mut add = AddTorrent::new(Arc::clone(&release.info), stage.paths_installed());
            add.priorities = whole.iter().copied().map(Priority::from).collect();
            add.have = Have::Files(whole);
            add.seed_only = true;
            self.add(add, &swarm).await?;
            self.share_patch(&swarm).await;
        }
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
                        () = self.look_for_more() => {}
                    }
                }
            }
        };
        // Looking for more may have been stopped halfway.
        self.handle = Some(handle.clone());
        self.remember_peers().await;
        done
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
        session.add(add).await.map_err(|error| session_error(&error))
    }

    /// Opens the meeting place of the product, so that others can ask us for documents.
    pub(super) async fn meet(&mut self) -> Result<(), Error> {
        if self.room.is_none() {
            self.documents.set_status(self.store.installed()?.as_ref().and_then(Status::of));
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
            self.session = Some(self.network.start(&self.events).await?);
        }
        Ok(self.session.clone().expect("it was just started"))
    }

    pub(super) fn known_peers(&self) -> Vec<SocketAddr> {
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
            repositories: if self.is_local_only() {
                Vec::new()
            } else {
                self.state.feed.urls.clone()
            },
            room: self.room.as_ref(),
            room_only: self.is_local_only(),
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
                    Some(Err(Error::Network { .. } | Error::Trust(_))) | None => true,
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
