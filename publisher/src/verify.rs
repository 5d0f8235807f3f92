//! `verify`: everything a head reaches, checked as launchers will, down to the last byte.

use crate::patch::{self, Side};
use crate::repository::{Repository, now};
use crate::{Error, disk, packs, patches, torrent, torrent_deltas};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use updraft_manifests::document::Verified;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::{HEAD_PATH, Head, LauncherRelease, Release};
use updraft_manifests::leaf_index::{INDEX_BYTES_MAX, Layout};
use updraft_manifests::manifest::{Manifest, index_path};
use updraft_manifests::patchlist::{Offer, PatchListRef};
use updraft_manifests::time::Time;
use updraft_manifests::trust::Freshness;
use updraft_protocol::geometry::BLOCK_LEN;
use updraft_protocol::ids::Sha256Hash;
use updraft_protocol::merkle;
use updraft_protocol::metainfo::Info;

/// The most leaf hashes held at once: 16 MiB of files at a time would do, this is 1 GiB of file.
const LEAVES_MAX: usize = 1 << 16;

/// What was found to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Releases the head names.
    pub releases: usize,
    /// Launchers it names.
    pub launchers: usize,
    /// Objects whose content is right.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// SHA-256 of the first root's payload.
    pub fingerprint: ContentHash,
    /// The head's sequence; `None` if nothing was published.
    pub head: Option<u64>,
    /// When the head expired, if it did.
    pub expired: Option<Time>,
}

/// Checks the tree at `dir`; `fault` is told every fault. With `fingerprint` its first root must be
/// that one.
///
/// # Errors
/// [`Error::Faults`] if there were any; others when there is no tree to check.
pub fn verify(
    dir: &Path,
    fingerprint: Option<ContentHash>,
    fault: &mut dyn FnMut(String),
) -> Result<Found, Error> {
    let repository = Repository::open(dir, None)?;
    if let Some(expected) = fingerprint
        && expected != repository.fingerprint
    {
        let why = format!(
            "its first root has the fingerprint {}, not {expected}",
            repository.fingerprint
        );
        return Err(Error::content(dir, why));
    }
    let mut verified = Found {
        releases: 0,
        launchers: 0,
        objects: 0,
        bytes: 0,
        fingerprint: repository.fingerprint,
        head: None,
        expired: None,
    };
    let Some(accepted) = repository.head(now())? else {
        let manifests = std::fs::read_dir(dir.join("manifests"));
        if manifests.is_ok_and(|mut entries| entries.next().is_some()) {
            fault(format!(
                "{}: is missing, though releases are there: `updraft-publisher publish` or `head` puts it back",
                dir.join(HEAD_PATH).display()
            ));
            return Err(Error::Faults { path: dir.to_path_buf(), count: 1 });
        }
        return Ok(verified);
    };
    verified.head = Some(accepted.head.sequence);
    verified.expired = match accepted.freshness {
        Freshness::Fresh => None,
        Freshness::ExpiredSince(since) | Freshness::ExcusedSince(since) => Some(since),
    };
    let mut count = 0;
    let mut report = |text: String| {
        count += 1;
        fault(text);
    };
    let mut objects: BTreeMap<(ContentHash, u64), String> = BTreeMap::new();
    let mut packs = HashSet::new();
    for release in accepted.head.named() {
        verified.releases += 1;
        let manifest = match repository.manifest(&accepted.head, release) {
            Ok(manifest) => manifest,
            Err(error) => {
                report(error.to_string());
                continue;
            }
        };
        let path = repository.torrent_path(&manifest.torrent.v2);
        match torrent::read(&path) {
            Ok(metainfo) => {
                if let Some(why) = contradiction(&manifest, &metainfo.info) {
                    report(format!("{}: {why}", path.display()));
                }
                if let Some(why) = index_fault(dir, &manifest, &metainfo.info) {
                    report(why);
                }
                packs::faults(dir, &manifest, &metainfo.info, &mut packs)
                    .into_iter()
                    .for_each(&mut report);
                list_objects(release, &metainfo.info, &mut objects);
                let named = release.patches.as_ref();
                for fault in named.map_or(vec![], |named| {
                    patch_faults(
                        &repository,
                        release,
                        named,
                        &manifest,
                        &metainfo.info,
                        &mut objects,
                    )
                }) {
                    report(fault);
                }
            }
            Err(error) => report(error.to_string()),
        }
    }
    for launcher in &accepted.head.launchers {
        verified.launchers += 1;
        if let Err(error) = check_launcher(&repository, &accepted.head, launcher) {
            report(error.to_string());
        }
    }
    for ((root, length), user) in objects {
        let path = repository.object_path(&root, length);
        match root_of(&path, length) {
            Ok(Some(found)) if found == root => {
                verified.objects += 1;
                verified.bytes += length;
            }
            Ok(_) => report(format!("{}: its content is damaged ({user})", path.display())),
            Err(error) => report(format!("{error} ({user})")),
        }
    }
    if count > 0 {
        return Err(Error::Faults { path: dir.to_path_buf(), count });
    }
    Ok(verified)
}

fn check_launcher(
    repository: &Repository,
    head: &Verified<Head>,
    launcher: &LauncherRelease,
) -> Result<(), Error> {
    let archive = repository.launcher(head, launcher)?.archive;
    let path = repository.dir.join(archive.path());
    let cap = usize::try_from(archive.length).unwrap_or(usize::MAX);
    let bytes = disk::read_capped(&path, cap)?;
    if ContentHash::of(&bytes) != archive.sha256 {
        return Err(Error::content(&path, "its content is damaged"));
    }
    Ok(())
}

/// What is wrong with the patches to a release, but for their content: that is added to `objects`.
fn patch_faults(
    repository: &Repository,
    release: &Release,
    named: &PatchListRef,
    manifest: &Manifest,
    to: &Info,
    objects: &mut BTreeMap<(ContentHash, u64), String>,
) -> Vec<String> {
    let path = repository.dir.join(named.path());
    let list = match patches::read_list(repository, named, &manifest.torrent.v2) {
        Ok(list) => list,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Vec::new();
    for delta in &list.torrents {
        if let Err(error) = torrent_deltas::check(repository, delta, &list.to) {
            faults.push(error.to_string());
        }
    }
    for offer in &list.patches {
        let user = format!("the patch to {} {}", release.channel, release.version);
        objects.entry((offer.root, offer.size)).or_insert(user);
        if let Err(error) = patch_fault(repository, offer, to) {
            faults.push(format!("{}: the patch from {}: {error}", path.display(), offer.from));
        }
    }
    faults
}

/// An offer is of a torrent and a patch that are what it says.
fn patch_fault(repository: &Repository, offer: &Offer, to: &Info) -> Result<(), Error> {
    let path = repository.torrent_path(&offer.v2);
    if !patches::is_torrent_of(&torrent::read(&path)?.info, offer) {
        return Err(Error::content(&path, "is not the torrent that the patch list names"));
    }
    let object = repository.object_path(&offer.root, offer.size);
    let patch = patch::open(&object)?;
    let to = Side::of_release(repository, to)?.tree;
    // The old release may be gone; nobody starts from it then.
    let from = repository.torrent_path(&offer.from);
    let checked = if from.is_file() {
        let from = Side::of_release(repository, &torrent::read(&from)?.info)?.tree;
        patch.check(&from, &to)
    } else {
        patch.check_to(&to)
    };
    checked.map_err(|error| Error::content(&object, error))
}

/// What the torrent says that the manifest does not, if anything.
pub fn contradiction(manifest: &Manifest, info: &Info) -> Option<String> {
    let torrent = &manifest.torrent;
    let v2 = info.hashes.v2.map(|hash| hash.0);
    let v1 = info.hashes.v1.map(|hash| hash.0);
    let differs = |what: &str| Some(format!("its {what} is not the manifest's"));
    if v2 != Some(torrent.v2.0) {
        return differs("v2 info-hash");
    }
    if v1 != torrent.v1.map(|hash| hash.0) {
        return differs("v1 info-hash");
    }
    if info.geometry.piece_length() != torrent.piece_length {
        return differs("piece length");
    }
    if info.files.len() as u64 != manifest.file_count {
        return differs("number of files");
    }
    if info.geometry.content_len() != manifest.total_size {
        return differs("size");
    }
    None
}

/// What is wrong with the leaf index of a release, if anything. Launchers do without, but slower.
fn index_fault(dir: &Path, manifest: &Manifest, info: &Info) -> Option<String> {
    let index = manifest.leaf_index?;
    let path = dir.join(index_path(&index.sha256));
    let due = Layout::new(info.files.iter().map(|file| file.length)).index_len();
    let cap = usize::try_from(INDEX_BYTES_MAX).expect("it is in memory when it is made");
    match disk::read_capped(&path, cap) {
        Err(error) => Some(error.to_string()),
        Ok(bytes) if bytes.len() as u64 != due || due != index.length => {
            Some(format!("{}: it has not the length its torrent asks for", path.display()))
        }
        Ok(bytes) if ContentHash::of(&bytes) != index.sha256 => {
            Some(format!("{}: it is not what its manifest names", path.display()))
        }
        Ok(_) => None,
    }
}

fn list_objects(
    release: &Release,
    info: &Info,
    objects: &mut BTreeMap<(ContentHash, u64), String>,
) {
    for file in &info.files {
        if let Some(root) = file.root {
            objects.entry((ContentHash(root.0), file.length)).or_insert_with(|| {
                format!("`{}` of {} {}", file.path.join("/"), release.channel, release.version)
            });
        }
    }
}

/// The BEP 52 root of a file; `None` if it has not `length` bytes. Memory does not grow with the
/// file: whole subtrees are folded as they fill.
pub(crate) fn root_of(path: &Path, length: u64) -> Result<Option<ContentHash>, Error> {
    let mut file = File::open(path).map_err(Error::disk("read", path))?;
    let mut block = vec![0; BLOCK_LEN as usize];
    let mut leaves = Vec::new();
    let mut subtrees: Vec<Sha256Hash> = Vec::new();
    let mut left = length;
    let level = LEAVES_MAX.ilog2() as usize;
    while left > 0 {
        let take = usize::try_from(left.min(u64::from(BLOCK_LEN))).expect("at most a block");
        match file.read_exact(&mut block[..take]) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::disk("read", path)(error)),
        }
        leaves.push(merkle::leaf(&block[..take]));
        left -= take as u64;
        if leaves.len() == LEAVES_MAX {
            subtrees.push(merkle::root(std::mem::take(&mut leaves), 0, LEAVES_MAX));
        }
    }
    let longer = file.read(&mut block[..1]).map_err(Error::disk("read", path))? > 0;
    if longer {
        return Ok(None);
    }
    let root = if subtrees.is_empty() {
        let width = leaves.len().next_power_of_two();
        merkle::root(leaves, 0, width)
    } else {
        if !leaves.is_empty() {
            subtrees.push(merkle::root(leaves, 0, LEAVES_MAX));
        }
        let width = subtrees.len().next_power_of_two();
        merkle::root(subtrees, level, width)
    };
    Ok(Some(ContentHash(root.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let data: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &data).unwrap();
        let leaves: Vec<_> = data.chunks(16_384).map(merkle::leaf).collect();
        let expected = merkle::root(leaves, 0, 8);
        assert_eq!(root_of(&path, 100_000).unwrap(), Some(ContentHash(expected.0)));
        assert_eq!(root_of(&path, 99_999).unwrap(), None);
        assert_eq!(root_of(&path, 100_001).unwrap(), None);
        assert!(root_of(&dir.path().join("g"), 1).is_err());
    }
}
