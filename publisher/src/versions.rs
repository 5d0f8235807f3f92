//! What was published under a version: on one channel and platform a version is one content, and one that was
//! taken back does not come back by itself.

use crate::repository::Repository;
use crate::{Error, disk};
use updraft_manifests::document::Signed;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::Head;
use updraft_manifests::keys::Role;
use updraft_manifests::manifest::Manifest;
use updraft_manifests::names::{Name, Version};

/// Refuses a version that was revoked on that channel and platform.
///
/// # Errors
/// [`Error::Usage`] saying what to do instead; [`Error::Disk`].
pub fn refuse_revoked(
    repository: &Repository,
    head: &Head,
    version: &Version,
    channel: &Name,
    platform: &Name,
) -> Result<(), Error> {
    let there = published(repository, version, channel, platform)?;
    if !there.iter().any(|(hash, _)| head.revoked.contains(hash)) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{version} was revoked on `{channel}` ({platform}): publish it under another version, or say \
         --unrevoke if this very version shall come back"
    )))
}

/// Refuses other content under a version that was live on that channel and platform before: nobody could tell
/// the two apart. `v2` is the info-hash of the new content.
///
/// # Errors
/// [`Error::Usage`] saying what to do instead; [`Error::Disk`].
pub fn refuse_other_content(
    repository: &Repository,
    head: &Head,
    version: &Version,
    channel: &Name,
    platform: &Name,
    v2: &ContentHash,
) -> Result<(), Error> {
    let here =
        |channel_of: &Name, platform_of: &Name| channel_of == channel && platform_of == platform;
    let named = head.named().filter(|release| here(&release.channel, &release.platform));
    // What was signed after that never went live: its run was stopped.
    let live_until = named.map(|release| release.sequence).max().unwrap_or(0);
    let other = published(repository, version, channel, platform)?
        .into_iter()
        .find(|(_, old)| old.sequence <= live_until && old.torrent.v2 != *v2);
    let Some((_, old)) = other else { return Ok(()) };
    Err(Error::Usage(format!(
        "{version} was published on `{channel}` ({platform}) with other content already, as release {} of {}: \
         publish this under another version; nothing was changed",
        old.sequence, old.created
    )))
}

/// All manifests of that version in the tree, also those that no head names any more.
fn published(
    repository: &Repository,
    version: &Version,
    channel: &Name,
    platform: &Name,
) -> Result<Vec<(ContentHash, Manifest)>, Error> {
    let dir = repository.dir.join("manifests");
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(Error::disk("list", &dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::disk("list", &dir))?.path();
        let Ok(bytes) = disk::read_capped(&path, Role::Release.document_bytes_max()) else {
            continue;
        };
        let Ok(signed) = Signed::parse(Role::Release, &bytes) else { continue };
        let Ok(manifest) = signed.unverified::<Manifest>() else { continue };
        let fits = manifest.version == *version
            && manifest.channel == *channel
            && manifest.platform == *platform;
        if fits {
            found.push((signed.hash(), manifest));
        }
    }
    Ok(found)
}
