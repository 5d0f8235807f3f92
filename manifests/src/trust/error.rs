//! Why a step of the workflow was refused, in words.

use super::TrustState;
use crate::document::DocumentError;
use crate::hash::ContentHash;
use crate::keys::Role;
use crate::names::{Name, Version};
use crate::time::Time;

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
    /// The head takes a release back.
    #[error(
        "`{product}` {version} was revoked by its publisher and is not installed: a newer version has \
         to come"
    )]
    Revoked {
        /// The product.
        product: Name,
        /// The version.
        version: Version,
    },
    /// The root lists no keys for launchers: then nothing is a launcher.
    #[error("`{product}` signs no launchers: its root lists no keys of the role launcher")]
    NoLauncherKeys {
        /// The product.
        product: Name,
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
