//! The launcher's own releases: a role of their own, a floor of their own.

use super::floor::raise;
use super::{AcceptedHead, FLOORS_MAX, LauncherFloor, TrustError, TrustState};
use crate::document::Verified;
use crate::head::LauncherRelease;
use crate::keys::Role;
use crate::launcher::LauncherManifest;
use crate::manifest::Manifest;
use crate::names::Name;

impl TrustState {
    /// The manifest that `release`, the launcher that a head names for a platform, points at: signed by
    /// enough keys of the role launcher, and not older than any seen before.
    ///
    /// # Errors
    /// [`TrustError`]; with [`TrustError::Equivocation`] a state comes along that is to be stored.
    pub fn accept_launcher(
        &self,
        head: &AcceptedHead,
        release: &LauncherRelease,
        bytes: &[u8],
    ) -> Result<(Self, Verified<LauncherManifest>), TrustError> {
        let root = self.root.as_ref().ok_or(TrustError::NoRoot)?;
        let no_keys = || TrustError::NoLauncherKeys { product: self.product.clone() };
        let keys = root.roles.launcher.as_ref().ok_or_else(no_keys)?;
        let named = (release.manifest, release.length, &release.version);
        let (signed, hash) = self.named_by(head, Role::Launcher, named, bytes)?;
        let manifest: Verified<LauncherManifest> = signed.verify(keys)?;
        self.check_product(Role::Launcher, &manifest.product)?;
        for (what, same) in [
            ("platform", manifest.platform == release.platform),
            ("sequence", manifest.sequence == release.sequence),
            ("version", manifest.version == release.version),
        ] {
            if !same {
                return Err(TrustError::ManifestMismatch { hash, what });
            }
        }
        let what = format!("launcher for `{}`", manifest.platform);
        let old = self.launcher_floor(&manifest.platform);
        let step = raise(old, manifest.sequence, hash, &what);
        let mut next = self.clone();
        next.launchers.retain(|known| known.platform != manifest.platform);
        if next.launchers.len() >= FLOORS_MAX {
            next.launchers.remove(0);
        }
        let platform = manifest.platform.clone();
        next.launchers.push(LauncherFloor { platform, floor: step.floor });
        step.result(&next)?;
        next.time_floor = next.time_floor.max(manifest.created);
        Ok((next, manifest))
    }

    /// The highest launcher seen for that platform.
    pub fn launcher_floor(&self, platform: &Name) -> Option<super::Floor> {
        self.launchers.iter().find(|known| known.platform == *platform).map(|known| known.floor)
    }
}

/// Checks that a release can be installed by a launcher of version `own` (`major.minor.patch`).
///
/// # Errors
/// [`TrustError::LauncherTooOld`], also when the needed version cannot be read.
pub fn check_launcher(manifest: &Manifest, own: &str) -> Result<(), TrustError> {
    let Some(needed) = &manifest.minimum_launcher else {
        return Ok(());
    };
    let numbers =
        |text: &str| -> Option<Vec<u64>> { text.split('.').map(|n| n.parse().ok()).collect() };
    match (numbers(needed.as_str()), numbers(own)) {
        (Some(least), Some(have)) if have >= least => Ok(()),
        _ => Err(TrustError::LauncherTooOld { needed: needed.clone(), own: own.to_owned() }),
    }
}
