//! The published tree, read and checked as a launcher would.

use crate::{Error, disk};
use std::path::{Path, PathBuf};
use updraft_manifests::document::{Signed, Verified};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::{HEAD_PATH, Head, LauncherRelease, Release};
use updraft_manifests::keys::Role;
use updraft_manifests::launcher::LauncherManifest;
use updraft_manifests::manifest::{self, Manifest};
use updraft_manifests::names::Name;
use updraft_manifests::root::{self, Root};
use updraft_manifests::time::Time;
use updraft_manifests::trust::{AcceptedHead, ROOT_WALK_MAX, TrustError, TrustState};

/// The clock.
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time::from_unix(since.map_or(0, |since| since.as_secs()))
}

/// A published tree whose roots were walked.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The folder.
    pub dir: PathBuf,
    /// What a launcher that came through these roots believes.
    pub trust: TrustState,
    /// SHA-256 of the payload of root 1.
    pub fingerprint: ContentHash,
    /// Every root, from the first to the newest.
    pub roots: Vec<Root>,
}

impl Repository {
    /// Walks the roots of the tree at `dir`, from root 1 as it lies there. `product` is checked when
    /// given.
    ///
    /// # Errors
    /// [`Error::Content`] if there is no tree or a root does not verify; [`Error::Disk`].
    pub fn open(dir: &Path, product: Option<&Name>) -> Result<Self, Error> {
        let first = dir.join(root::path(1));
        let bytes =
            disk::read_if_there(&first, Role::Root.document_bytes_max())?.ok_or_else(|| {
                Error::content(
                    dir,
                    "is no repository (root/1.toml is missing): run `updraft-publisher init`",
                )
            })?;
        let (fingerprint, own) = TrustState::pin(&bytes).map_err(|e| Error::content(&first, e))?;
        if let Some(product) = product
            && product != own.product()
        {
            let why = format!("is the root of `{}`, not of `{product}`", own.product());
            return Err(Error::content(&first, why));
        }
        let mut trust = own;
        let mut roots: Vec<Root> = trust.root().cloned().into_iter().collect();
        for _ in 0..ROOT_WALK_MAX {
            let path = dir.join(root::path(trust.next_root()));
            let Some(bytes) = disk::read_if_there(&path, Role::Root.document_bytes_max())? else {
                break;
            };
            let (next, root) = trust.accept_root(&bytes).map_err(|e| Error::content(&path, e))?;
            trust = next;
            roots.push(root.into_inner());
        }
        Ok(Self { dir: dir.to_path_buf(), trust, fingerprint, roots })
    }

    /// The head, if one was published; `at` decides its freshness.
    ///
    /// # Errors
    /// [`Error::Content`] if it does not verify; [`Error::Disk`].
    pub fn head(&self, at: Time) -> Result<Option<AcceptedHead>, Error> {
        let path = self.dir.join(HEAD_PATH);
        let Some(bytes) = disk::read_if_there(&path, Role::Head.document_bytes_max())? else {
            return Ok(None);
        };
        let (_, head) = self.trust.accept_head(&bytes, at).map_err(|e| Error::content(&path, e))?;
        Ok(Some(head))
    }

    /// The manifest that an entry of `head` names, whether or not the head has expired.
    ///
    /// # Errors
    /// [`Error::Content`] if it does not verify; [`Error::Disk`].
    pub fn manifest(
        &self,
        head: &Verified<Head>,
        release: &Release,
    ) -> Result<Verified<Manifest>, Error> {
        let path = self.dir.join(release.manifest_path());
        let bytes = disk::read_capped(&path, Role::Release.document_bytes_max())?;
        let fresh = updraft_manifests::trust::Freshness::Fresh;
        let head = AcceptedHead { head: head.clone(), freshness: fresh };
        let root = self.trust.root().expect("an open repository has a root");
        let keys = root.roles.release.for_channel(&release.channel);
        let accepted = match self.trust.accept_manifest(&head, release, &bytes) {
            // It is not offered any more, but it is still what it was.
            Err(TrustError::Revoked { .. }) => {
                Signed::parse(Role::Release, &bytes).and_then(|signed| signed.verify(&keys))
            }
            accepted => {
                return accepted.map(|(_, it)| it).map_err(|e| Error::content(&path, e));
            }
        };
        accepted.map_err(|e| Error::content(&path, e))
    }

    /// The manifest of a launcher that `head` names, whether or not the head has expired.
    ///
    /// # Errors
    /// [`Error::Content`] if it does not verify; [`Error::Disk`].
    pub fn launcher(
        &self,
        head: &Verified<Head>,
        release: &LauncherRelease,
    ) -> Result<Verified<LauncherManifest>, Error> {
        let path = self.dir.join(release.manifest_path());
        let bytes = disk::read_capped(&path, Role::Launcher.document_bytes_max())?;
        let fresh = updraft_manifests::trust::Freshness::Fresh;
        let head = AcceptedHead { head: head.clone(), freshness: fresh };
        let root = self.trust.root().expect("an open repository has a root");
        let no_keys = || Error::content(&path, "its root lists no launcher keys");
        let keys = root.roles.launcher.clone().ok_or_else(no_keys)?;
        let accepted = match self.trust.accept_launcher(&head, release, &bytes) {
            Err(TrustError::Revoked { .. }) => {
                Signed::parse(Role::Launcher, &bytes).and_then(|signed| signed.verify(&keys))
            }
            accepted => {
                return accepted.map(|(_, it)| it).map_err(|e| Error::content(&path, e));
            }
        };
        accepted.map_err(|e| Error::content(&path, e))
    }

    /// Where the torrent of a release lies.
    pub fn torrent_path(&self, v2: &ContentHash) -> PathBuf {
        self.dir.join(manifest::torrent_path(v2))
    }

    /// Where the content of a file lies.
    pub fn object_path(&self, root: &ContentHash, length: u64) -> PathBuf {
        self.dir.join(manifest::object_path(root, length))
    }
}
