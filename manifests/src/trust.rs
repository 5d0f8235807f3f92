//! What a client believes, and the only steps by which it may come to believe more.
//!
//! The workflow of The Update Framework as a state machine without I/O. Every step takes bytes as
//! they were fetched and returns verified content and the next [`TrustState`], which the caller
//! stores before it acts on the content. The order is: fix the time; [`TrustState::accept_root`]
//! for 1, 2, 3… until one is missing; [`TrustState::accept_head`]; [`TrustState::accept_manifest`].
//!
//! Nothing here lowers a floor, but a root that changes keys: that is how a stolen head key that
//! signed an absurdly high sequence is recovered from.

use crate::document::{DocumentError, Signed, Verified, read_payload};
use crate::feed::Feed;
use crate::hash::ContentHash;
use crate::head::{Head, Release};
use crate::keys::Role;
use crate::manifest::Manifest;
use crate::names::{Name, Version};
use crate::root::Root;
use crate::sealed::{self, SealError};
use crate::time::Time;
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
    time_floor: Time,
}

/// The highest sequence seen, and the payload that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The sequence.
    pub sequence: u64,
    /// SHA-256 of the payload.
    pub hash: ContentHash,
    /// Two payloads were signed with this sequence: neither is used until a higher one comes.
    #[serde(default)]
    pub disputed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ManifestFloor {
    platform: Name,
    channel: Name,
    #[serde(flatten)]
    floor: Floor,
}

#[derive(Serialize, Deserialize)]
struct StateText {
    #[serde(rename = "updraft-trust")]
    format: u32,
    product: Name,
    fingerprint: ContentHash,
    time_floor: Time,
    root: Option<String>,
    head: Option<Floor>,
    #[serde(default)]
    manifests: Vec<ManifestFloor>,
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

/// Why a step was refused. The state the caller holds stays valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The document itself is bad.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Root 1 is not the one that the feed names.
    #[error(
        "the first root has the fingerprint {found}, the feed says {expected}: \
         the feed is of another product, or the server is not to be trusted"
    )]
    Fingerprint {
        /// What the feed pins.
        expected: ContentHash,
        /// What was served.
        found: ContentHash,
    },
    /// Roots must come one by one.
    #[error("root {expected} was asked for and root {found} was served: tell the publisher")]
    RootVersion {
        /// The version asked for.
        expected: u64,
        /// The version served.
        found: u64,
    },
    /// No root is known yet.
    #[error("no root is known yet: {path} has to be fetched first", path = crate::root::path(1))]
    NoRoot,
    /// The document is of another product.
    #[error("the {role} document is of the product `{found}`, not `{expected}`: check the feed")]
    Product {
        /// Whose document.
        role: Role,
        /// Ours.
        expected: Name,
        /// Theirs.
        found: Name,
    },
    /// An older document than one already seen. For a head that is "no news", not an attack.
    #[error(
        "the {what} served has sequence {found}, older than {floor} seen before: try another source"
    )]
    Older {
        /// What it is.
        what: String,
        /// The highest sequence seen.
        floor: u64,
        /// The sequence served.
        found: u64,
    },
    /// A jump that no honest publisher makes.
    #[error("the {what} jumps from sequence {floor} to {found}: refused, tell the publisher")]
    Jump {
        /// What it is.
        what: String,
        /// The highest sequence seen.
        floor: u64,
        /// The sequence served.
        found: u64,
    },
    /// Two payloads with one sequence. `state` is to be stored: neither is used until a higher
    /// sequence comes. Both payloads should be kept as evidence.
    #[error(
        "two different {what} documents were signed with sequence {sequence} ({known} and {found}): \
         nothing is installed until a newer one comes; tell the publisher"
    )]
    Equivocation {
        /// What it is.
        what: String,
        /// The sequence of both.
        sequence: u64,
        /// The payload seen first.
        known: ContentHash,
        /// The payload served now; equal to `known` when a dispute from before goes on.
        found: ContentHash,
        /// The next state.
        state: Box<TrustState>,
    },
    /// The head has expired.
    #[error(
        "the newest version is unknown since {0}: the publisher has to sign a new head; \
         nothing is installed until then, playing is not affected"
    )]
    HeadExpired(Time),
    /// The head knows no such channel.
    #[error("`{product}` has no channel `{channel}` for `{platform}`; there are: {available}")]
    NoRelease {
        /// The product.
        product: Name,
        /// The channel asked for.
        channel: Name,
        /// The platform asked for.
        platform: Name,
        /// What there is, for people.
        available: String,
    },
    /// The manifest is not the one that the head names.
    #[error(
        "the manifest served is not the one that the head names ({expected}): try another source"
    )]
    ManifestHash {
        /// The hash in the head.
        expected: ContentHash,
    },
    /// The manifest says something else than the head.
    #[error("the manifest {hash} contradicts the head: its {what} differs; tell the publisher")]
    ManifestMismatch {
        /// Its hash.
        hash: ContentHash,
        /// The field.
        what: &'static str,
    },
    /// The release needs a newer launcher.
    #[error("this release needs launcher {needed} or newer, this is {own}: update the launcher")]
    LauncherTooOld {
        /// The version needed.
        needed: Version,
        /// This program's.
        own: String,
    },
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
            if old.roles.head.keys != root.roles.head.keys {
                next.head = None;
            }
            if old.roles.release.keys.keys != root.roles.release.keys.keys {
                next.manifests.clear();
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
        if let Freshness::ExpiredSince(since) = head.freshness {
            return Err(TrustError::HeadExpired(since));
        }
        let signed = Signed::parse(Role::Release, bytes)?;
        let hash = signed.hash();
        if hash != release.manifest || signed.payload().len() as u64 != release.length {
            return Err(TrustError::ManifestHash { expected: release.manifest });
        }
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

    /// The sealed text to store.
    pub fn to_text(&self) -> String {
        let text = StateText {
            format: 1,
            product: self.product.clone(),
            fingerprint: self.fingerprint,
            time_floor: self.time_floor,
            root: self.root.is_some().then(|| self.root_text.clone()),
            head: self.head,
            manifests: self.manifests.clone(),
        };
        sealed::seal(toml::to_string(&text).expect("plain fields serialise"))
    }

    /// Reads a stored state.
    ///
    /// # Errors
    /// [`SealError`]. Starting over with [`TrustState::new`] gives up the floors: say so to the user.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() > STATE_BYTES_MAX {
            return Err(SealError::Content("it is too large".to_owned()));
        }
        let text = sealed::open(bytes)?;
        let state: StateText =
            toml::from_str(text).map_err(|error| SealError::Content(error.message().to_owned()))?;
        if state.format != 1 {
            return Err(SealError::Newer);
        }
        let root = match &state.root {
            None => None,
            Some(text) => Some(
                read_payload(Role::Root, text.as_bytes())
                    .map_err(|error| SealError::Content(error.to_string()))?,
            ),
        };
        Ok(Self {
            product: state.product,
            fingerprint: state.fingerprint,
            root,
            root_text: state.root.unwrap_or_default(),
            head: state.head,
            manifests: state.manifests,
            time_floor: state.time_floor,
        })
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

struct Step {
    floor: Floor,
    refusal: Option<Refusal>,
    what: String,
}

enum Refusal {
    Older { floor: u64, found: u64 },
    Jump { floor: u64, found: u64 },
    Equivocation { sequence: u64, known: ContentHash, found: ContentHash },
}

/// Holds a sequence against its floor. The returned floor is never lower than `old`.
fn raise(old: Option<Floor>, sequence: u64, hash: ContentHash, what: &str) -> Step {
    let new = Floor { sequence, hash, disputed: false };
    let what = what.to_owned();
    let Some(old) = old else {
        return Step { floor: new, refusal: None, what };
    };
    let (floor, found) = (old.sequence, sequence);
    if sequence < old.sequence {
        return Step { floor: old, refusal: Some(Refusal::Older { floor, found }), what };
    }
    if sequence == old.sequence {
        if hash == old.hash && !old.disputed {
            return Step { floor: old, refusal: None, what };
        }
        let refusal = Refusal::Equivocation { sequence, known: old.hash, found: hash };
        return Step { floor: Floor { disputed: true, ..old }, refusal: Some(refusal), what };
    }
    if sequence - old.sequence > SEQUENCE_JUMP_MAX {
        return Step { floor: old, refusal: Some(Refusal::Jump { floor, found }), what };
    }
    assert!(new.sequence > old.sequence, "a floor only rises");
    Step { floor: new, refusal: None, what }
}

impl Step {
    fn result(self, next: &TrustState) -> Result<(), TrustError> {
        let what = self.what;
        match self.refusal {
            None => Ok(()),
            Some(Refusal::Older { floor, found }) => Err(TrustError::Older { what, floor, found }),
            Some(Refusal::Jump { floor, found }) => Err(TrustError::Jump { what, floor, found }),
            Some(Refusal::Equivocation { sequence, known, found }) => {
                let state = Box::new(next.clone());
                Err(TrustError::Equivocation { what, sequence, known, found, state })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, World, name};
    use proptest::prelude::*;

    fn now() -> Time {
        Time::from_unix(NOW + 60)
    }

    fn rooted(world: &World) -> TrustState {
        let bytes = world.sign(&world.root(), &world.root_key);
        TrustState::new(&world.feed()).accept_root(&bytes).unwrap().0
    }

    #[test]
    fn first_contact_to_manifest() {
        let world = World::new();
        let state = rooted(&world);
        assert_eq!(state.next_root(), 2);
        let head = world.sign(&world.head(), &world.head_key);
        let (state, accepted) = state.accept_head(&head, now()).unwrap();
        assert_eq!(accepted.freshness, Freshness::Fresh);
        let release = state.find_release(&accepted.head, &name("stable"), &name("linux")).unwrap();
        let manifest = world.sign(&world.manifest(), &world.release_key);
        let (state, manifest) = state.accept_manifest(&accepted, release, &manifest).unwrap();
        assert_eq!(manifest.total_size, 10);
        assert_eq!(state.manifest_floor(&name("any"), &name("stable")).unwrap().sequence, 1);
        assert_eq!(TrustState::parse(state.to_text().as_bytes()).unwrap(), state);
        assert!(state.is_of(&world.feed()));
        assert!(matches!(
            state.find_release(&accepted.head, &name("beta"), &name("linux")),
            Err(TrustError::NoRelease { .. })
        ));
    }

    #[test]
    fn false_roots() {
        let world = World::new();
        let fresh = TrustState::new(&world.feed());
        let mut other = world.root();
        other.created = other.created.after(1);
        let bytes = world.sign(&other, &world.root_key);
        assert!(matches!(fresh.accept_root(&bytes), Err(TrustError::Fingerprint { .. })));
        let head = world.sign(&world.head(), &world.head_key);
        assert_eq!(fresh.accept_head(&head, now()).unwrap_err(), TrustError::NoRoot);
    }

    #[test]
    fn roots_are_signed_by_the_old_and_the_new_keys() {
        let world = World::new();
        let state = rooted(&world);
        let new_key = SecretKey::from_random(Role::Root, [99; 32]);
        let mut second = world.root();
        second.version = 2;
        second.roles.root.keys = [new_key.public()].into();
        let sign = |keys: &[&SecretKey], root: &Root| {
            Signed::create(Role::Root, root, keys).unwrap().to_bytes()
        };
        assert!(state.accept_root(&sign(&[&new_key], &second)).is_err());
        assert!(state.accept_root(&sign(&[&world.root_key], &second)).is_err());
        let (next, _) = state.accept_root(&sign(&[&world.root_key, &new_key], &second)).unwrap();
        assert_eq!(next.next_root(), 3);
        second.version = 4;
        assert!(matches!(
            next.accept_root(&sign(&[&new_key], &second)),
            Err(TrustError::RootVersion { expected: 3, found: 4 })
        ));
    }

    use crate::keys::SecretKey;

    #[test]
    fn new_head_keys_drop_the_head_floor() {
        let world = World::new();
        let mut head = world.head();
        head.sequence = 1_000_000;
        let state = rooted(&world);
        let (state, _) = state.accept_head(&world.sign(&head, &world.head_key), now()).unwrap();
        let mut second = world.root();
        second.version = 2;
        let same_keys = world.sign(&second, &world.root_key);
        assert!(state.accept_root(&same_keys).unwrap().0.head_floor().is_some());
        let new_key = SecretKey::from_random(Role::Head, [98; 32]);
        second.roles.head.keys = [new_key.public()].into();
        let (state, _) = state.accept_root(&world.sign(&second, &world.root_key)).unwrap();
        assert_eq!(state.head_floor(), None);
        head.sequence = 2;
        assert!(state.accept_head(&world.sign(&head, &world.head_key), now()).is_err());
        assert!(state.accept_head(&world.sign(&head, &new_key), now()).is_ok());
    }

    #[test]
    fn replays_jumps_and_equivocation() {
        let world = World::new();
        let head = |sequence, expires_in| {
            let mut head = world.head();
            head.sequence = sequence;
            head.expires = head.created.after(expires_in);
            world.sign(&head, &world.head_key)
        };
        let (state, _) = rooted(&world).accept_head(&head(5, 1000), now()).unwrap();
        assert!(matches!(
            state.accept_head(&head(4, 1000), now()),
            Err(TrustError::Older { floor: 5, found: 4, .. })
        ));
        assert!(matches!(
            state.accept_head(&head(6 + SEQUENCE_JUMP_MAX, 1000), now()),
            Err(TrustError::Jump { .. })
        ));
        assert!(state.accept_head(&head(5, 1000), now()).is_ok());
        let Err(TrustError::Equivocation { state, .. }) = state.accept_head(&head(5, 1001), now())
        else {
            panic!("two heads with one sequence")
        };
        // Neither of the two is used any more, also after a restart.
        let state = TrustState::parse(state.to_text().as_bytes()).unwrap();
        assert!(matches!(
            state.accept_head(&head(5, 1000), now()),
            Err(TrustError::Equivocation { .. })
        ));
        assert!(state.accept_head(&head(6, 1000), now()).is_ok());
    }

    #[test]
    fn expired_heads_install_nothing() {
        let world = World::new();
        let head = world.head();
        let bytes = world.sign(&head, &world.head_key);
        let (state, accepted) = rooted(&world).accept_head(&bytes, head.expires).unwrap();
        assert_eq!(accepted.freshness, Freshness::ExpiredSince(head.expires));
        assert_eq!(state.head_floor().unwrap().sequence, 1);
        let manifest = world.sign(&world.manifest(), &world.release_key);
        assert_eq!(
            state.accept_manifest(&accepted, &head.releases[0], &manifest).unwrap_err(),
            TrustError::HeadExpired(head.expires)
        );
        // Among players alone it may for a while.
        let days = |days: u64| head.expires.after(days * 24 * 3600);
        let excused = accepted.clone().excused(days(29));
        assert_eq!(excused.freshness, Freshness::ExcusedSince(head.expires));
        assert!(state.accept_manifest(&excused, &head.releases[0], &manifest).is_ok());
        let late = accepted.excused(days(30));
        assert_eq!(late.freshness, Freshness::ExpiredSince(head.expires));
    }

    #[test]
    fn a_wrong_clock_does_not_revive_an_old_head() {
        let world = World::new();
        let old = world.head();
        let mut newer = world.head();
        newer.sequence = 2;
        newer.created = old.expires.after(10);
        newer.expires = newer.created.after(20);
        let bytes = world.sign(&newer, &world.head_key);
        let (state, _) = rooted(&world).accept_head(&bytes, now()).unwrap();
        assert_eq!(state.fix_time(Time::from_unix(0)), newer.created);
    }

    #[test]
    fn manifests_must_be_what_the_head_says() {
        let world = World::new();
        let accept = |manifest: &Manifest, head: &Head, key: &SecretKey| {
            let bytes = world.sign(head, &world.head_key);
            let (state, accepted) = rooted(&world).accept_head(&bytes, now()).unwrap();
            let bytes = world.sign(manifest, key);
            state.accept_manifest(&accepted, &accepted.head.releases[0], &bytes).map(|_| ())
        };
        let good = world.manifest();
        let release_key = &world.release_key;
        accept(&good, &world.head(), release_key).unwrap();
        let thief = SecretKey::from_random(Role::Release, [50; 32]);
        assert!(matches!(
            accept(&good, &world.head(), &thief),
            Err(TrustError::Document(DocumentError::Signatures { .. }))
        ));
        let mut other = good.clone();
        other.total_size = 11;
        assert!(matches!(
            accept(&other, &world.head(), release_key),
            Err(TrustError::ManifestHash { .. })
        ));
        let mut foreign = good.clone();
        foreign.product = name("other");
        assert!(matches!(
            accept(&foreign, &world.head_of(&foreign), release_key),
            Err(TrustError::Product { .. })
        ));
        // A head key alone cannot move a manifest to another channel or give it a number.
        for change in [
            (|r: &mut Release| r.channel = name("beta")) as fn(&mut Release),
            |r| r.platform = name("other"),
            |r| r.sequence = 7,
        ] {
            let mut head = world.head();
            change(&mut head.releases[0]);
            assert!(matches!(
                accept(&good, &head, release_key),
                Err(TrustError::ManifestMismatch { .. })
            ));
        }
    }

    #[test]
    fn launcher_versions() {
        let mut manifest = World::new().manifest();
        check_launcher(&manifest, "0.1.0").unwrap();
        manifest.minimum_launcher = Some(Version::parse("0.2.0").unwrap());
        assert!(check_launcher(&manifest, "0.1.9").is_err());
        check_launcher(&manifest, "0.2.0").unwrap();
        check_launcher(&manifest, "0.10.0").unwrap();
        manifest.minimum_launcher = Some(Version::parse("soon").unwrap());
        assert!(check_launcher(&manifest, "0.1.9").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn floors_never_sink(steps in prop::collection::vec((0u64..6, 0u64..6, 0u64..3), 1..12)) {
            let world = World::new();
            let mut state = rooted(&world);
            for (head_sequence, sequence, variant) in steps {
                let mut manifest = world.manifest();
                manifest.sequence = sequence;
                manifest.total_size += variant;
                let mut head = world.head_of(&manifest);
                head.sequence = head_sequence;
                head.expires = head.expires.after(variant);
                let before = state.clone();
                match state.accept_head(&world.sign(&head, &world.head_key), now()) {
                    Ok((next, accepted)) => {
                        state = next;
                        let bytes = world.sign(&manifest, &world.release_key);
                        match state.accept_manifest(&accepted, &accepted.head.releases[0], &bytes) {
                            Ok((next, _)) => state = next,
                            Err(TrustError::Equivocation { state: next, .. }) => state = *next,
                            Err(TrustError::Older { floor, found, .. }) => prop_assert!(found < floor),
                            Err(other) => prop_assert!(false, "{}", other),
                        }
                    }
                    Err(TrustError::Equivocation { state: next, .. }) => state = *next,
                    Err(TrustError::Older { floor, found, .. }) => prop_assert!(found < floor),
                    Err(other) => prop_assert!(false, "{}", other),
                }
                let sequences = |state: &TrustState| (
                    state.head_floor().map(|f| f.sequence),
                    state.manifest_floor(&name("any"), &name("stable")).map(|f| f.sequence),
                );
                prop_assert!(sequences(&state).0 >= sequences(&before).0);
                prop_assert!(sequences(&state).1 >= sequences(&before).1);
                prop_assert!(state.time_floor >= before.time_floor);
                prop_assert_eq!(TrustState::parse(state.to_text().as_bytes()).unwrap(), state.clone());
            }
        }
    }
}
