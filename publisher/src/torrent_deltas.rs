//! The torrent of a release as differences to those of the releases before, for launchers that have
//! one of them: see [`updraft_manifests::torrent_delta`].

use crate::repository::Repository;
use crate::{Error, disk, torrent};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::manifest::Manifest;
use updraft_manifests::patchlist::TorrentDelta;
use updraft_manifests::torrent_delta;
use updraft_protocol::metainfo::TORRENT_BYTES_MAX;

/// Writes the differences between the torrent of `newest` and those of `before` that are smaller than it.
///
/// # Errors
/// [`Error`]; nobody asks for what is written already.
pub fn write(
    repository: &Repository,
    newest: &Manifest,
    before: &[impl std::ops::Deref<Target = Manifest>],
) -> Result<Vec<TorrentDelta>, Error> {
    disk::make_folder(&repository.dir.join("deltas"))?;
    let new = bare(repository, &newest.torrent.v2)?;
    let mut deltas = Vec::new();
    for from in before.iter().map(|manifest| manifest.torrent.v2) {
        let delta = torrent_delta::encode(&bare(repository, &from)?, &new)
            .map_err(|error| Error::Internal(format!("a torrent cannot be compressed: {error}")))?;
        if delta.len() >= new.len() {
            continue;
        }
        let (hash, length) = (ContentHash::of(&delta), delta.len() as u64);
        let named = TorrentDelta { from, hash, length };
        disk::write_if_changed(&repository.dir.join(named.path()), &delta)?;
        deltas.push(named);
    }
    Ok(deltas)
}

/// What is wrong with `delta`, which should make the torrent `to`.
///
/// # Errors
/// [`Error::Content`], [`Error::Disk`].
pub fn check(repository: &Repository, delta: &TorrentDelta, to: &ContentHash) -> Result<(), Error> {
    let path = repository.dir.join(delta.path());
    let bytes = disk::read_capped(&path, TORRENT_BYTES_MAX)?;
    if bytes.len() as u64 != delta.length || ContentHash::of(&bytes) != delta.hash {
        return Err(Error::content(&path, "is not what the patch list names"));
    }
    // The old release may be gone; nobody starts from it then.
    if repository.torrent_path(&delta.from).is_file() {
        let old = bare(repository, &delta.from)?;
        let made = torrent_delta::decode(&old, &bytes, TORRENT_BYTES_MAX)
            .map_err(|error| Error::content(&path, error))?;
        if made != bare(repository, to)? {
            return Err(Error::content(&path, "makes another torrent"));
        }
    }
    Ok(())
}

fn bare(repository: &Repository, v2: &ContentHash) -> Result<Vec<u8>, Error> {
    Ok(torrent::read(&repository.torrent_path(v2))?.bare())
}
