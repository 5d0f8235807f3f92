//! A release that its publisher has announced for later: fetched and verified ahead, so that the switch
//! takes moments when it is offered.
//!
//! Its bytes lie where those of an update lie, in the staging folder of its torrent, so the update that
//! brings it in finds them, and one that brings in another release removes them. Nothing that is
//! installed is touched and no floor rises.

use super::Launcher;
use super::bring::Manner;
use super::swarm::SwarmSources;
use crate::error::Error;
use crate::events::Event;
use crate::news::{self, News};
use crate::release::Release;
use crate::stage::Stage;
use crate::switch::peek;
use std::time::Instant;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::Release as Entry;
use updraft_manifests::rollout::Turn;
use updraft_manifests::trust::Freshness;
use updraft_protocol::ids::{FileIndex, PieceIndex};
use updraft_protocol::io::TorrentHandle;

/// A release that is here ahead, and what shares it with others meanwhile.
#[derive(Debug)]
pub(super) struct Preloaded {
    manifest: ContentHash,
    torrent: ContentHash,
    handle: Option<TorrentHandle>,
}

impl Launcher {
    /// Fetches what the channel announces for later, if it does and something is installed.
    ///
    /// # Errors
    /// Everything in [`Error`]; what is installed is as it was.
    pub async fn preload(&mut self) -> Result<(), Error> {
        // The news of a moment ago say whether it is worth asking.
        let heard = news::kept(&self.store, &self.documents, &self.state);
        if heard.and_then(|news| announced(&news)).is_none() {
            return Ok(());
        }
        let mut news = self.news().await?;
        let Some(entry) = announced(&news) else { return Ok(()) };
        let known = self.preloaded.as_ref().map(|preloaded| preloaded.manifest);
        let Some(installed) = self.store.installed()? else { return Ok(()) };
        if known == Some(entry.manifest) || installed.toward.is_some() || self.has_begun(&news) {
            return Ok(());
        }
        news.entry = entry;
        if news.turn(&self.state) == Turn::Paused {
            return Ok(());
        }
        let sources = self.sources();
        let manifest = news::preload(&self.store, &self.documents, &sources, &mut news).await?;
        drop(sources);
        let release = self.offered_release(&news, &manifest, Some(&installed.release)).await?;
        if release.identity.torrent == installed.release.torrent {
            return Ok(());
        }
        self.end_preload().await;
        let version = release.identity.version.to_string();
        (self.events)(Event::Preloading { version: version.clone() });
        let swarm = SwarmSources::of(&news, &self.state);
        // What is installed is shared on; the other torrent is added beside it.
        let serving = self.handle.take();
        let manner = Manner { ahead: true, ..Manner::default() };
        let done = Box::pin(self.bring(&release, manner, &swarm, Instant::now())).await;
        let handle = std::mem::replace(&mut self.handle, serving);
        let (manifest, torrent) = (release.identity.manifest, release.identity.torrent);
        self.preloaded = Some(Preloaded { manifest, torrent, handle });
        if let Err(error) = done {
            self.end_preload().await;
            return Err(error);
        }
        (self.events)(Event::Preloaded { version });
        Ok(())
    }

    /// True if bytes of the release that is offered now are here: they are not given up for one that is
    /// announced.
    fn has_begun(&self, news: &News) -> bool {
        let current = news.entry.manifest.to_string();
        peek(&self.store).is_some_and(|work| !work.ahead || work.target.manifest == current)
    }

    /// True if this torrent is shared already, since it was announced.
    pub(super) fn is_preloaded(&self, torrent: &ContentHash) -> bool {
        self.preloaded.as_ref().is_some_and(|preloaded| preloaded.torrent == *torrent)
    }

    /// Shares no more what is here ahead; its bytes stay.
    pub(super) async fn end_preload(&mut self) {
        if let Some(Preloaded { handle: Some(handle), .. }) = self.preloaded.take() {
            handle.remove().await;
        }
    }

    /// True if an earlier run has fetched everything that the stage lacks.
    pub(super) fn is_staged(&self, release: &Release, stage: &Stage<'_>) -> bool {
        let done = self.resumed(release);
        let geometry = &release.info.geometry;
        let fetched = (0..).zip(stage.fetched()).filter(|(_, fetched)| *fetched);
        let mut pieces = fetched.flat_map(|(file, _)| geometry.pieces_of(FileIndex(file)));
        !done.is_empty() && pieces.all(|piece| done.has(PieceIndex(piece)))
    }
}

/// What follows the release that is offered now, if a head that is still news says so.
fn announced(news: &News) -> Option<Entry> {
    let entry = news.head.head.preload(&news.entry)?;
    let is_revoked = news.head.head.revoked.contains(&entry.manifest);
    (news.head.freshness == Freshness::Fresh && !is_revoked).then(|| entry.clone())
}
