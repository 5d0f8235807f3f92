//! Going back to the release before, as long as its files are kept.

use super::Launcher;
use super::bring::Manner;
use crate::error::Error;
use crate::events::Event;
use crate::kept;
use crate::news;
use std::time::{Instant, SystemTime};
use updraft_manifests::installed::Installed;
use updraft_manifests::manifest::torrent_path;
use updraft_manifests::trust::TrustError;

impl Launcher {
    /// Goes back to the release that was installed before this one; downloads nothing if its files
    /// are as they were. No update up to the release that is left comes by itself from then on; going forward
    /// again, to what was left by the last rollback, ends that. What is believed of the product stays: floors
    /// are not lowered.
    ///
    /// # Errors
    /// [`Error::NothingKept`], and everything that an update can meet.
    pub async fn rollback(&mut self) -> Result<(), Error> {
        let since = Instant::now();
        let kept = self.kept()?.ok_or(Error::NothingKept)?;
        let left = self.installed()?.release;
        if let Some(news) = news::kept(&self.store, &self.documents, &self.state)
            && news.head.head.revoked.contains(&kept.release.manifest)
        {
            let (product, version) = (kept.release.product, kept.release.version);
            return Err(TrustError::Revoked { product, version }.into());
        }
        // First: an update that runs by itself after a stop must not bring it back.
        let forward = kept.release.sequence > left.sequence;
        self.hold(if forward { None } else { self.state.held.max(Some(left.sequence)) })?;
        let release = self.installed_release(&kept).await?;
        let swarm = self.known_swarm_sources();
        self.bring(&release, Manner::default(), &swarm, since).await?;
        if !forward {
            let version = left.version.to_string();
            (self.events)(Event::Held { version });
        }
        Ok(())
    }

    /// The record of the release that can be gone back to.
    pub(super) fn kept(&self) -> Result<Option<Installed>, Error> {
        let tree = self.store.tree();
        kept::record(tree).map_err(Error::disk("read what is kept in", tree.path()))
    }

    /// Throws away what has been kept for long enough. A failure is no harm.
    pub(super) fn expire_kept(&self) {
        if let Err(error) = kept::expire(self.store.tree(), SystemTime::now()) {
            tracing::warn!(%error, "old files are not removed");
        }
    }

    /// What is kept gives way when the disk is short of room for something else than itself. True if
    /// there was something.
    pub(super) fn give_way(&self, torrent: &str) -> Result<bool, Error> {
        let goes = self.kept()?.is_some_and(|kept| kept.release.torrent.to_string() != torrent);
        if goes {
            let tree = self.store.tree();
            kept::forget(tree).map_err(Error::disk("remove what is kept in", tree.path()))?;
        }
        Ok(goes)
    }

    /// The document that a rollback needs.
    pub(super) fn kept_document(&self) -> Result<Option<String>, Error> {
        Ok(self.kept()?.map(|kept| torrent_path(&kept.release.torrent)))
    }

    /// Holds back updates up to this sequence, or none.
    pub(super) fn hold(&mut self, held: Option<u64>) -> Result<(), Error> {
        if self.state.held != held {
            self.state.held = held;
            self.store.set_state(&self.state)?;
        }
        Ok(())
    }
}
