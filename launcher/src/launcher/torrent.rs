//! The torrent of the release that the channel offers: as the difference to the installed one's where
//! that is offered, or whole.

use super::Launcher;
use crate::error::Error;
use crate::news::{self, News};
use crate::release::{Release, identity};
use bytes::Bytes;
use updraft_manifests::document::Verified;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::installed::InstalledRelease;
use updraft_manifests::manifest::{Manifest, torrent_path};
use updraft_manifests::patchlist::{PatchList, PatchListRef};
use updraft_manifests::torrent_delta;
use updraft_protocol::metainfo::{Metainfo, TORRENT_BYTES_MAX};

impl Launcher {
    /// The release of `manifest`. `installed` is the one whose torrent is at hand.
    ///
    /// # Errors
    /// [`Error::Network`] if no source has its torrent.
    pub(super) async fn offered_release(
        &self,
        news: &News,
        manifest: &Verified<Manifest>,
        installed: Option<&InstalledRelease>,
    ) -> Result<Release, Error> {
        let identity = identity(manifest);
        let path = torrent_path(&identity.torrent);
        let parse = |bytes: &Bytes| {
            let release = Release::parse(identity.clone(), bytes)?;
            release.check(manifest)?;
            let (leaf_index, packs, patches) =
                (manifest.leaf_index, manifest.packs, news.entry.patches);
            Ok(Release { leaf_index, packs, patches, ..release })
        };
        if let Some(installed) = installed.filter(|_| self.documents.read(&path).is_none())
            && let Some(list) = news.entry.patches
            && let Some(torrent) = self.made_from(&list, installed, &identity.torrent).await
        {
            let made: Result<Release, String> = parse(&torrent);
            match made {
                Ok(release) => {
                    news::keep(&self.documents, &path, &torrent)?;
                    return Ok(release);
                }
                Err(error) => tracing::warn!(error, "the torrent delta makes something else"),
            }
        }
        news::checked(&self.documents, &self.sources(), &path, parse).await
    }

    /// The patch list that the head names for the release with that torrent, if it can be had.
    pub(super) async fn patch_list(
        &self,
        named: &PatchListRef,
        to: &ContentHash,
    ) -> Option<PatchList> {
        let parse =
            |bytes: &Bytes| PatchList::parse(bytes, named, to).map_err(|error| error.to_string());
        let sources = self.sources();
        let list = news::checked(&self.documents, &sources, &named.path(), parse).await;
        list.inspect_err(|error| tracing::warn!(%error, "no patch list")).ok()
    }

    /// The patch list that the news name, if it is kept here.
    pub(super) fn kept_patch_list(&self, news: &News, to: &ContentHash) -> Option<PatchList> {
        let named = news.entry.patches?;
        PatchList::parse(&self.documents.read(&named.path())?, &named, to).ok()
    }

    /// What a delta from the installed release's torrent makes; nothing vouches for it yet.
    async fn made_from(
        &self,
        named: &PatchListRef,
        installed: &InstalledRelease,
        to: &ContentHash,
    ) -> Option<Bytes> {
        let old = self.documents.read(&torrent_path(&installed.torrent))?;
        let old = Metainfo::parse(&old).ok()?.bare();
        let list = self.patch_list(named, to).await?;
        let delta = list.torrent_from(&installed.torrent)?;
        let good = |bytes: &Bytes| {
            let right = bytes.len() as u64 == delta.length && ContentHash::of(bytes) == delta.hash;
            right.then(|| bytes.clone()).ok_or_else(|| "it is not what the list names".to_owned())
        };
        let fetched = news::checked(&self.documents, &self.sources(), &delta.path(), good).await;
        let fetched =
            fetched.inspect_err(|error| tracing::warn!(%error, "no torrent delta")).ok()?;
        torrent_delta::decode(&old, &fetched, TORRENT_BYTES_MAX)
            .inspect_err(|error| tracing::warn!(%error, "a torrent delta is damaged"))
            .ok()
            .map(Bytes::from)
    }
}
