//! What a client believes, and the only steps by which it may come to believe more.
//!
//! The workflow of The Update Framework as a state machine without I/O. Every step takes bytes as
//! they were fetched and returns verified content and the next [`TrustState`], which the caller
//! stores before it acts on the content. The order is: fix the time; [`TrustState::accept_root`]
//! for 1, 2, 3… until one is missing; [`TrustState::accept_head`]; [`TrustState::accept_manifest`]
//! or [`TrustState::accept_launcher`].
//!
//! Nothing here lowers a floor, but a root that changes keys: that is how a stolen head key that
//! signed an absurdly high sequence is recovered from.

#[cfg(test)]
mod conformance;
mod error;
mod floor;
mod launchers;
mod stored;
#[cfg(test)]
mod tests;

pub use error::TrustError;
pub use floor::Floor;
pub use launchers::check_launcher;

use crate::document::{KeySet, Signed, Verified, read_payload};
use crate::feed::Feed;
use crate::hash::ContentHash;
use crate::head::{Head, Release};
use crate::installed::InstalledRelease;
use crate::keys::Role;
use crate::manifest::Manifest;
use crate::names::{Name, Version};
use crate::root::Root;
use crate::time::Time;
use floor::raise;
use serde::{Deserialize, Serialize};

/// The largest step of a sequence number. A stolen key cannot use up the number space in one go.
pub const SEQUENCE_JUMP_MAX: u64 = 1 << 20;

/// The most roots walked in one go.
pub const ROOT_WALK_MAX: u64 = 1024;

/// The most floors kept: channels × platforms that this install ever followed.
pub const FLOORS_MAX: usize = 1024;

/// The largest stored state in bytes.
pub const STATE_BYTES_MAX: usize = 1 << 20;

/// Everything a client has to remember to not be fooled with old or false news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustState {
    product: Name,
    fingerprint: ContentHash,
    root: Option<Root>,
    root_text: String,
    head: Option<Floor>,
    manifests: Vec<ManifestFloor>,
    launchers: Vec<LauncherFloor>,
    time_floor: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ManifestFloor {
    platform: Name,
    channel: Name,
    #[serde(flatten)]
    floor: Floor,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LauncherFloor {
    platform: Name,
    #[serde(flatten)]
    floor: Floor,
}

/// A head that passed its checks. Whether it may install is another question: see
/// [`AcceptedHead::freshness`].
#[derive(Clone, Debug)]
pub struct AcceptedHead {
    /// The head.
    pub head: Verified<Head>,
    /// Whether it is still news.
    pub freshness: Freshness,
}

/// Whether a head is still news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Not expired.
    Fresh,
    /// Expired: nothing is installed from it; playing, verifying and seeding go on. To be shown as
    /// "newest version unknown since …".
    ExpiredSince(Time),
    /// Expired, but it may install: see [`AcceptedHead::excused`].
    ExcusedSince(Time),
}

/// For how long after its expiry a head may be excused, in seconds: 30 days.
const EXCUSED_SECONDS: u64 = 30 * 24 * 3600;

impl AcceptedHead {
    /// The same where the player chose to rely on other players alone, so that no source can be asked: an
    /// expired head may install for 30 days more. `now` as from [`TrustState::fix_time`].
    pub fn excused(self, now: Time) -> Self {
        match self.freshness {
            Freshness::ExpiredSince(since) if now < since.after(EXCUSED_SECONDS) => {
                Self { freshness: Freshness::ExcusedSince(since), ..self }
            }
            Freshness::Fresh | Freshness::ExpiredSince(_) | Freshness::ExcusedSince(_) => self,
        }
    }
}

impl TrustState {
    /// What a client believes that was told a feed and nothing else.
    pub fn new(feed: &Feed) -> Self {
        Self::of(feed.product.clone(), feed.root)
    }

    /// What a publisher believes of its own tree: root 1 as it lies there, whose fingerprint is
    /// returned. A client must not do this; it is told the fingerprint by a feed.
    ///
    /// # Errors
    /// [`TrustError`] if this is no root 1, signed by its own keys.
    pub fn pin(first_root: &[u8]) -> Result<(ContentHash, Self), TrustError> {
        let signed = Signed::parse(Role::Root, first_root)?;
        let root: Root = read_payload(Role::Root, signed.payload())?;
        let (state, _) = Self::of(root.product, signed.hash()).accept_root(first_root)?;
        Ok((signed.hash(), state))
    }

    fn of(product: Name, fingerprint: ContentHash) -> Self {
        Self {
            product,
            fingerprint,
            root: None,
            root_text: String::new(),
            head: None,
            manifests: Vec::new(),
            launchers: Vec::new(),
            time_floor: Time::default(),
        }
    }

    /// True if this state belongs to that feed; with another one, none of it means anything.
    pub fn is_of(&self, feed: &Feed) -> bool {
        self.product == feed.product && self.fingerprint == feed.root
    }

    /// The product.
    pub fn product(&self) -> &Name {
        &self.product
    }

    /// SHA-256 of the first root's payload.
    pub fn fingerprint(&self) -> ContentHash {
        self.fingerprint
    }

    /// The newest root, once one was accepted.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// The version of the root to ask for next ([`crate::root::path`]). That it is missing (403, 404)
    /// ends the walk; for version 1 it is an error.
    pub fn next_root(&self) -> u64 {
        self.root.as_ref().map_or(1, |root| root.version.saturating_add(1))
    }

    /// The highest head seen.
    pub fn head_floor(&self) -> Option<Floor> {
        self.head
    }

    /// The highest manifest seen of that platform and channel.
    pub fn manifest_floor(&self, platform: &Name, channel: &Name) -> Option<Floor> {
        let same = |m: &&ManifestFloor| m.platform == *platform && m.channel == *channel;
        self.manifests.iter().find(same).map(|m| m.floor)
    }

    /// The time to judge by: the clock, but never earlier than what was signed before.
    pub fn fix_time(&self, clock: Time) -> Time {
        clock.max(self.time_floor)
    }

    /// Step 1, repeated: root `next_root()`. Root 1 must be the one that the feed pins; every later
    /// one must be signed by the keys of the one before and by its own.
    ///
    /// # Errors
    /// [`TrustError`]; the walk then stays where it is.
    pub fn accept_root(&self, bytes: &[u8]) -> Result<(Self, Verified<Root>), TrustError> {
        let signed = Signed::parse(Role::Root, bytes)?;
        let expected = self.next_root();
        match &self.root {
            None if signed.hash() != self.fingerprint => {
                let (expected, found) = (self.fingerprint, signed.hash());
                return Err(TrustError::Fingerprint { expected, found });
            }
            None => {}
            Some(root) => signed.check_signatures(&root.roles.root)?,
        }
        // Read before its own signatures are checked, to learn the keys for that check. It is either
        // pinned by its hash or signed by the keys before it.
        let root: Root = read_payload(Role::Root, signed.payload())?;
        let own_keys = root.roles.root.clone();
        let verified: Verified<Root> = signed.verify(&own_keys)?;
        self.check_product(Role::Root, &root.product)?;
        if root.version != expected {
            return Err(TrustError::RootVersion { expected, found: root.version });
        }
        let mut next = self.clone();
        if let Some(old) = &self.root {
            // Only where a key is gone: one more takes nothing back that the others signed.
            let gone = |old: &KeySet, new: &KeySet| !old.keys.is_subset(&new.keys);
            let head = gone(&old.roles.head, &root.roles.head);
            let release = gone(&old.roles.release.keys, &root.roles.release.keys);
            let launcher = match (&old.roles.launcher, &root.roles.launcher) {
                (Some(old), Some(new)) => gone(old, new),
                (Some(_), None) => true,
                (None, _) => false,
            };
            if head {
                next.head = None;
            }
            if release {
                next.manifests.clear();
            }
            if launcher {
                next.launchers.clear();
            }
            if head || release || launcher {
                // A stolen key may have signed any time; the clock would never get past it.
                next.time_floor = root.created;
            }
        }
        next.time_floor = next.time_floor.max(root.created);
        next.root_text = String::from_utf8_lossy(verified.payload()).into_owned();
        next.root = Some(root);
        Ok((next, verified))
    }

    /// Step 2: a head. Store the new state at once, so that what it revokes stays revoked even if no
    /// manifest can be had. `now` comes from [`TrustState::fix_time`].
    ///
    /// # Errors
    /// [`TrustError::Older`] means "no news" when another source may have a newer one. With
    /// [`TrustError::Equivocation`] a state comes along that is to be stored.
    pub fn accept_head(&self, bytes: &[u8], now: Time) -> Result<(Self, AcceptedHead), TrustError> {
        let root = self.root.as_ref().ok_or(TrustError::NoRoot)?;
        let head: Verified<Head> = Signed::parse(Role::Head, bytes)?.verify(&root.roles.head)?;
        self.check_product(Role::Head, &head.product)?;
        let mut next = self.clone();
        let step = raise(self.head, head.sequence, head.hash(), "head");
        next.head = Some(step.floor);
        step.result(&next)?;
        next.time_floor = next.time_floor.max(head.created);
        let freshness = if self.fix_time(now) < head.expires {
            Freshness::Fresh
        } else {
            Freshness::ExpiredSince(head.expires)
        };
        Ok((next, AcceptedHead { head, freshness }))
    }

    /// Step 3: the manifest that `release`, an entry of that head, names.
    ///
    /// # Errors
    /// [`TrustError`]; with [`TrustError::Equivocation`] a state comes along that is to be stored.
    pub fn accept_manifest(
        &self,
        head: &AcceptedHead,
        release: &Release,
        bytes: &[u8],
    ) -> Result<(Self, Verified<Manifest>), TrustError> {
        let root = self.root.as_ref().ok_or(TrustError::NoRoot)?;
        let named = (release.manifest, release.length, &release.version);
        let (signed, hash) = self.named_by(head, Role::Release, named, bytes)?;
        let keys = root.roles.release.for_channel(&release.channel);
        let manifest: Verified<Manifest> = signed.verify(&keys)?;
        self.check_product(Role::Release, &manifest.product)?;
        for (what, same) in [
            ("platform", manifest.platform == release.platform),
            ("channel", manifest.channel == release.channel),
            ("sequence", manifest.sequence == release.sequence),
            ("version", manifest.version == release.version),
        ] {
            if !same {
                return Err(TrustError::ManifestMismatch { hash, what });
            }
        }
        let mut next = self.clone();
        let what = format!("manifest of `{}` on `{}`", manifest.channel, manifest.platform);
        let old = self.manifest_floor(&manifest.platform, &manifest.channel);
        let step = raise(old, manifest.sequence, hash, &what);
        next.set_manifest_floor(&manifest.platform, &manifest.channel, step.floor);
        step.result(&next)?;
        next.time_floor = next.time_floor.max(manifest.created);
        Ok((next, manifest))
    }

    /// The manifest of a release that is announced for later. It raises no floor: what is not current yet may still
    /// be overtaken.
    ///
    /// # Errors
    /// As [`TrustState::accept_manifest`].
    pub fn check_preload(
        &self,
        head: &AcceptedHead,
        release: &Release,
        bytes: &[u8],
    ) -> Result<Verified<Manifest>, TrustError> {
        self.accept_manifest(head, release, bytes).map(|(_, manifest)| manifest)
    }

    /// Reads a manifest that `head` names with this hash, payload length and version. Its signatures are
    /// not checked here.
    fn named_by(
        &self,
        head: &AcceptedHead,
        role: Role,
        (expected, length, version): (ContentHash, u64, &Version),
        bytes: &[u8],
    ) -> Result<(Signed, ContentHash), TrustError> {
        if let Freshness::ExpiredSince(since) = head.freshness {
            return Err(TrustError::HeadExpired(since));
        }
        let signed = Signed::parse(role, bytes)?;
        let hash = signed.hash();
        if hash != expected || signed.payload().len() as u64 != length {
            return Err(TrustError::ManifestHash { expected });
        }
        if head.head.revoked.contains(&hash) {
            let (product, version) = (self.product.clone(), version.clone());
            return Err(TrustError::Revoked { product, version });
        }
        Ok((signed, hash))
    }

    /// What that head offers on `channel` and `platform`.
    ///
    /// # Errors
    /// [`TrustError::NoRelease`] naming what there is.
    pub fn find_release<'h>(
        &self,
        head: &'h Head,
        channel: &Name,
        platform: &Name,
    ) -> Result<&'h Release, TrustError> {
        head.release(channel, platform).ok_or_else(|| {
            let mut list: Vec<_> =
                head.releases.iter().map(|r| format!("{} ({})", r.channel, r.platform)).collect();
            list.truncate(16);
            TrustError::NoRelease {
                product: self.product.clone(),
                channel: channel.clone(),
                platform: platform.clone(),
                available: if list.is_empty() { "none yet".to_owned() } else { list.join(", ") },
            }
        })
    }

    /// The same where nothing else is remembered than what is installed: no older release of its channel is taken.
    pub fn knowing(&self, release: &InstalledRelease) -> Self {
        let InstalledRelease { platform, channel, sequence, manifest, .. } = release;
        let mut next = self.clone();
        let step = raise(self.manifest_floor(platform, channel), *sequence, *manifest, "");
        next.set_manifest_floor(platform, channel, step.floor);
        next
    }

    fn set_manifest_floor(&mut self, platform: &Name, channel: &Name, floor: Floor) {
        self.manifests.retain(|m| m.platform != *platform || m.channel != *channel);
        // A bound on the state; the oldest entry is the one least likely to be followed again.
        if self.manifests.len() >= FLOORS_MAX {
            self.manifests.remove(0);
        }
        let (platform, channel) = (platform.clone(), channel.clone());
        self.manifests.push(ManifestFloor { platform, channel, floor });
    }

    fn check_product(&self, role: Role, found: &Name) -> Result<(), TrustError> {
        if *found == self.product {
            return Ok(());
        }
        let (expected, found) = (self.product.clone(), found.clone());
        Err(TrustError::Product { role, expected, found })
    }
}
