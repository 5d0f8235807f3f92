//! What is believed of a product, where the record of it is lost: made again from what it was about.
//!
//! Without it somebody who serves an old tree could take the install back. The documents that are kept are verified as
//! if they had just come; an installed release is known to have been offered.

use crate::documents::Documents;
use crate::error::Error;
use crate::news::clock;
use crate::store::Store;
use updraft_manifests::document::{Signed, Verified};
use updraft_manifests::feed::Feed;
use updraft_manifests::head::HEAD_PATH;
use updraft_manifests::installed::InstalledRelease;
use updraft_manifests::keys::Role;
use updraft_manifests::manifest::{self, Manifest};
use updraft_manifests::root;
use updraft_manifests::trust::{ROOT_WALK_MAX, TrustState};

/// Records what is believed again, unless that is recorded.
///
/// # Errors
/// From the file system.
pub(crate) fn restore(store: &Store, documents: &Documents, feed: &Feed) -> Result<(), Error> {
    if store.has_trust() {
        return Ok(());
    }
    let nothing = TrustState::new(feed);
    let mut trust = nothing.clone();
    for _ in 0..ROOT_WALK_MAX {
        let bytes = documents.read(&root::path(trust.next_root()));
        let Some(Ok((next, _))) = bytes.map(|bytes| trust.accept_root(&bytes)) else { break };
        trust = next;
    }
    let head = documents.read(HEAD_PATH);
    if let Some(Ok((next, _))) = head.map(|bytes| trust.accept_head(&bytes, clock())) {
        trust = next;
    }
    if let Some(installed) = store.installed()?
        && installed.release.product == feed.product
        && counts(documents, &trust, &installed.release)
    {
        trust = trust.knowing(&installed.release);
    }
    if trust == nothing {
        return Ok(());
    }
    tracing::warn!("what was believed of the product was lost and is restored");
    store.set_trust(&trust)
}

/// What was signed with keys that are revoked by now binds nobody. Where no root is kept, who knows?
fn counts(documents: &Documents, trust: &TrustState, release: &InstalledRelease) -> bool {
    let Some(root) = trust.root() else { return true };
    let keys = root.roles.release.for_channel(&release.channel);
    let bytes = documents.read(&manifest::path(&release.manifest));
    let signed = bytes.and_then(|bytes| Signed::parse(Role::Release, &bytes).ok());
    let verified: Option<Verified<Manifest>> = signed.and_then(|signed| signed.verify(&keys).ok());
    verified.is_some_and(|manifest| manifest.hash() == release.manifest)
}
