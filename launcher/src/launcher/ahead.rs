//! A release that is newer than the installed one: what of it lies here already is served to those who
//! fetch it, before it is installed here.
//!
//! On release day most of a build is what everybody has. Launchers that only seed the old release help
//! the new one's swarm with that, as partial seeds (BEP 21), read where it lies.

use super::Launcher;
use super::bring::{Manner, unusable};
use super::swarm::SwarmSources;
use crate::error::Error;
use crate::events::Event;
use crate::release::length;
use crate::stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use updraft_manifests::plan::Action;
use updraft_protocol::io::{AddTorrent, Have, Priority, TorrentHandle};

/// How often a launcher that seeds looks for a newer release.
pub(super) const NEWS_EVERY: Duration = Duration::from_secs(5 * 60);

/// The newer release that is served in part.
#[derive(Debug)]
pub(super) struct Ahead {
    sequence: u64,
    handle: Option<TorrentHandle>,
}

impl Launcher {
    /// What a launcher that seeds does now and then: a newer release is served in part, an announced one is fetched.
    /// If a repository names other trackers than are `known`, these are returned.
    pub(super) async fn look_for_more(
        &mut self,
        known: Option<&SwarmSources>,
    ) -> Option<SwarmSources> {
        let heard = self.look_ahead().await;
        if let (Some(known), Some(heard)) = (known, heard)
            && known.trackers != heard.trackers
        {
            return Some(heard);
        }
        if let Err(error) = self.preload().await {
            tracing::info!(%error, "cannot fetch what is announced");
        }
        None
    }

    /// Looks for a newer release and serves the part of it that is here. What fails is logged: it is
    /// no reason to stop seeding. Returns where the swarm meets, if a repository answered.
    async fn look_ahead(&mut self) -> Option<SwarmSources> {
        let mut heard = None;
        if let Err(error) = self.try_look_ahead(&mut heard).await {
            tracing::info!(%error, "cannot serve what is here of a newer release");
        }
        heard
    }

    async fn try_look_ahead(&mut self, heard: &mut Option<SwarmSources>) -> Result<(), Error> {
        let installed = self.installed()?;
        let known = self.ahead.as_ref().map_or(installed.release.sequence, |ahead| ahead.sequence);
        let news = self.news().await?;
        let swarm = SwarmSources::of(&news, &self.state);
        *heard = Some(swarm).filter(|swarm| swarm.answers);
        if news.entry.sequence <= known {
            return Ok(());
        }
        let Some(offer) = self.offer(false).await? else { return Ok(()) };
        let release = offer.release;
        let sequence = release.identity.sequence;
        let torrent = &release.identity.torrent;
        if *torrent == installed.release.torrent || self.is_preloaded(torrent) {
            return Ok(());
        }
        if let Some(Ahead { handle: Some(handle), .. }) = self.ahead.take() {
            handle.remove().await;
        }
        let found = self.look(Some(&installed), Some(&release), Manner::default())?;
        let (tree, choice) = (self.store.tree(), &self.state.choice);
        let stage = Stage::new(tree, &release, Some(&installed), choice, found, false)
            .map_err(|error| unusable(&release, &error))?;
        let is_here = |action: &Action| !matches!(action, Action::Make | Action::Fetch);
        let here: Vec<bool> = stage
            .plan()
            .actions
            .iter()
            .zip(stage.wanted())
            .map(|(action, wanted)| wanted && is_here(action))
            .collect();
        let files = release.files.iter().zip(&here).filter(|(_, here)| **here);
        let bytes: u64 = files.map(|(file, _)| length(&file.content)).sum();
        let mut handle = None;
        if bytes > 0 {
            let mut add = AddTorrent::new(Arc::clone(&release.info), stage.paths_here());
            add.priorities = here.iter().copied().map(Priority::from).collect();
            add.have = Have::Files(here);
            add.seed_only = true;
            handle = Some(self.join(add, &offer.swarm).await?);
            let version = release.identity.version.to_string();
            (self.events)(Event::ServingAhead { version, bytes });
        }
        self.ahead = Some(Ahead { sequence, handle });
        Ok(())
    }
}
