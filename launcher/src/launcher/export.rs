//! Writing what is installed to a folder or a stick, for who has no network: see [`crate::bundle`].
//!
//! Content first, under names that say what it is; then documents, each verified once more; last the head, which
//! makes it a bundle of that release. Each file is written beside its place, read again, made durable and renamed, so
//! that a run that was stopped, or the next release, goes on from what is there, and what rotted is written anew.

use super::Launcher;
use super::patches::{info_of, patch_path};
use super::swarm::Shared;
use crate::bundle::FEED_NAME;
use crate::error::Error;
use crate::events::Event;
use crate::lock::Lock;
use crate::news::{self, News};
use crate::release::Release;
use crate::space;
use crate::survey::root_of;
use crate::tree::{Node, Tree, parent};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use updraft_manifests::document::Verified;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::HEAD_PATH;
use updraft_manifests::installed::Installed;
use updraft_manifests::manifest::{Manifest, index_path, object_path, torrent_path};
use updraft_manifests::plan::Content;
use updraft_manifests::root;
use updraft_manifests::trust::{AcceptedHead, Freshness, TrustError, TrustState};

/// Bytes copied and hashed at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Where a file is until it is whole, below the bundle.
const FRESH_PATH: &str = ".new";
/// Held by who writes to the bundle.
const LOCK_PATH: &str = ".lock";
/// The folders of a bundle.
const FOLDERS: [&str; 7] =
    ["root", "objects", "manifests", "torrents", "patchlists", "deltas", "indexes"];

/// What goes into a bundle besides the head.
#[derive(Default)]
struct Parcel {
    /// Content by its path in the bundle: where it is now, root and bytes.
    objects: BTreeMap<String, (PathBuf, ContentHash, u64)>,
    /// Documents by their path in the bundle, in the order to write them.
    documents: Vec<(String, Vec<u8>)>,
    /// Files of the release that are not here.
    absent: usize,
}

impl Launcher {
    /// Writes the installed release to a bundle at `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Damaged`] if installed files are not as released, [`Error::Space`], [`Error::Busy`] while another
    /// program writes there, [`Error::Usage`] for a folder with other things in it or a bundle that is newer or
    /// another product's, [`Error::Interrupted`], and from the file system.
    pub async fn export(&self, dir: &Path) -> Result<(), Error> {
        let installed = self.installed()?;
        let news = news::kept(&self.store, &self.documents, &self.state).ok_or_else(|| {
            Error::Failed("what is known here of releases cannot be read: run `check`".to_owned())
        })?;
        let version = &installed.release.version;
        if news.entry.manifest != installed.release.manifest {
            return Err(Error::Failed(format!(
                "{version} is installed and {} is the newest that is known here: run `update`, then \
                 export that",
                news.entry.version
            )));
        }
        let release = self.installed_release(&installed).await?;
        let manifest = self.signed_manifest(&news)?;
        let mut parcel = self.objects(&installed, &release)?;
        self.documents_of(&news, &manifest, &mut parcel)?;
        let (files, bytes) = (parcel.objects.len() as u64, parcel.bytes());
        let feed = self.state.feed.to_toml();
        let write = || {
            let bundle = self.open_bundle(dir, &news)?;
            let _lock = Lock::take_at(&bundle, LOCK_PATH)?;
            let written = self.write(&bundle, &parcel)?;
            put(&bundle, FEED_NAME, feed.as_bytes())?;
            put(&bundle, HEAD_PATH, &news.head.head.to_bytes())?;
            Ok::<_, Error>(written)
        };
        let written_bytes = tokio::task::block_in_place(write)?;
        if parcel.absent > 0 {
            let message = format!(
                "{} files of the release are not here as released (left out, or settings that were \
                 changed) and not in the bundle: who wants them needs somebody else, too",
                parcel.absent
            );
            (self.events)(Event::Warning { message });
        }
        let (version, dir) = (version.to_string(), dir.to_path_buf());
        (self.events)(Event::Exported { version, dir, files, bytes, written_bytes });
        Ok(())
    }

    /// The manifest of what is offered, verified whether or not the head has expired.
    fn signed_manifest(&self, news: &News) -> Result<Verified<Manifest>, Error> {
        let path = news.entry.manifest_path();
        let bytes = self.document(&path)?;
        let head = AcceptedHead { head: news.head.head.clone(), freshness: Freshness::Fresh };
        Ok(news.trust.accept_manifest(&head, &news.entry, &bytes)?.1)
    }

    fn document(&self, path: &str) -> Result<Vec<u8>, Error> {
        let found = self.documents.read(path);
        found.map(|bytes| bytes.to_vec()).ok_or_else(|| {
            let why = "it is missing: `repair`, or `check` with a connection, brings it".to_owned();
            Error::State { path: PathBuf::from(path), why }
        })
    }

    /// The content of the release and of the patch that brought it, where it is here.
    fn objects(&self, installed: &Installed, release: &Release) -> Result<Parcel, Error> {
        let mut parcel = Parcel::default();
        let Shared { paths, wanted, whole } = self.shared_files(installed, release)?;
        let (mut damaged, mut lost) = (0, 0);
        for (number, file) in release.files.iter().enumerate() {
            let Content::File { root: Some(root), length, .. } = file.content else { continue };
            if whole[number] {
                let object = (paths[number].clone(), root, length);
                parcel.objects.insert(object_path(&root, length), object);
            } else if wanted[number] {
                (damaged, lost) = (damaged + 1, lost + length);
            } else {
                parcel.absent += 1;
            }
        }
        if damaged > 0 {
            return Err(Error::Damaged { files: damaged, bytes: lost });
        }
        Ok(parcel)
    }

    /// Every document that leads to the release, verified from the feed on; what is only of use to some (patches,
    /// leaf index) where it is here.
    fn documents_of(
        &self,
        news: &News,
        manifest: &Verified<Manifest>,
        parcel: &mut Parcel,
    ) -> Result<(), Error> {
        let mut trust = TrustState::new(&self.state.feed);
        while trust.next_root() < news.trust.next_root() {
            let path = root::path(trust.next_root());
            let bytes = self.document(&path)?;
            trust = trust.accept_root(&bytes)?.0;
            parcel.documents.push((path, bytes));
        }
        let path = torrent_path(&manifest.torrent.v2);
        parcel.documents.push((path.clone(), self.document(&path)?));
        let mut named = |path: String, hash: &ContentHash| {
            let found = self.documents.read(&path).filter(|bytes| ContentHash::of(bytes) == *hash);
            parcel.documents.extend(found.map(|bytes| (path, bytes.to_vec())));
        };
        if let Some(index) = &manifest.leaf_index {
            named(index_path(&index.sha256), &index.sha256);
        }
        if let Some(list) = self.kept_patch_list(news, &manifest.torrent.v2) {
            for delta in &list.torrents {
                named(delta.path(), &delta.hash);
            }
            for offer in &list.patches {
                let path = torrent_path(&offer.v2);
                let Some(torrent) = self.documents.read(&path) else { continue };
                let file = self.store.path(&patch_path(&offer.v2));
                let there = std::fs::metadata(&file).is_ok_and(|file| file.len() == offer.size);
                if there
                    && info_of(offer, &torrent).is_ok()
                    && is_right(&file, offer.size, &offer.root)
                {
                    let object = (file, offer.root, offer.size);
                    parcel.objects.insert(object_path(&offer.root, offer.size), object);
                    parcel.documents.push((path, torrent.to_vec()));
                }
            }
            if let Some(named) = news.entry.patches {
                parcel.documents.push((named.path(), self.document(&named.path())?));
            }
        }
        parcel.documents.push((news.entry.manifest_path(), manifest.to_bytes()));
        Ok(())
    }

    /// The folder to write to: empty, or a bundle of this product that is not newer than what is known here.
    fn open_bundle(&self, dir: &Path, news: &News) -> Result<Tree, Error> {
        let usage = |why: &str| Err(Error::Usage(format!("{}: {why}", dir.display())));
        std::fs::create_dir_all(dir).map_err(Error::disk("make the folder", dir))?;
        let bundle = Tree::open(dir).map_err(Error::disk("open the folder", dir))?;
        let known = |name: &String| {
            FOLDERS.contains(&name.as_str())
                || [HEAD_PATH, FEED_NAME, LOCK_PATH, FRESH_PATH].contains(&name.as_str())
        };
        let names = bundle.list("").map_err(Error::disk("look into", dir))?;
        let first = read(&bundle, &root::path(1)).map_err(Error::disk("read", dir))?;
        match first {
            Some(first) if TrustState::new(&self.state.feed).accept_root(&first).is_err() => {
                return usage("holds another product's bundle: name another folder");
            }
            None if !names.iter().all(known) => {
                return usage(
                    "has other things in it: name a folder of its own, such as one below it",
                );
            }
            Some(_) | None => {}
        }
        if let Some(head) = read(&bundle, HEAD_PATH).map_err(Error::disk("read", dir))? {
            match news.trust.accept_head(&head, news.trust.fix_time(news::clock())) {
                Ok((_, head)) if head.head.sequence > news.head.head.sequence => {
                    return usage(
                        "holds newer news than are known here: `import` them first, then export",
                    );
                }
                Err(TrustError::Equivocation { .. }) => {
                    return usage("holds a head that contradicts ours: name another folder");
                }
                // Older, or damaged: ours takes its place.
                Ok(_) | Err(_) => {}
            }
        }
        for folder in FOLDERS {
            bundle
                .make_folders(folder)
                .map_err(Error::disk("make the folder", dir.join(folder)))?;
        }
        bundle.sync_folder("").map_err(Error::disk("flush", dir))?;
        Ok(bundle)
    }

    /// Writes what is not there yet; returns how many bytes of content that were.
    fn write(&self, bundle: &Tree, parcel: &Parcel) -> Result<u64, Error> {
        let (total, told) = (parcel.bytes(), std::cell::Cell::new(Instant::now()));
        let done = std::cell::Cell::new(0);
        let go_on = |bytes: u64| {
            done.set(done.get() + bytes);
            if told.get().elapsed() > TELL_EVERY {
                told.set(Instant::now());
                // What is written is read once more.
                (self.events)(Event::Exporting { done: (done.get() / 2).min(total), total });
            }
            !self.stop.is_raised()
        };
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut missing = BTreeMap::new();
        for (path, object) in &parcel.objects {
            let (_, root, length) = object;
            if is_there(bundle, path, *length, root, &mut buffer, go_on)? {
                done.set(done.get() + length);
            } else {
                missing.insert(path, object);
            }
            self.check_stop()?;
        }
        let need: u64 = missing.values().map(|(.., length)| length).sum();
        if let Some(free) = space::free(bundle.path()).filter(|free| *free < need) {
            let dir = bundle.path().to_path_buf();
            return Err(Error::Space { dir, need, free, bounded: false });
        }
        // So that a bundle that is begun is known as one.
        for (path, bytes) in parcel.documents.iter().filter(|(path, _)| path.starts_with("root/")) {
            put(bundle, path, bytes)?;
        }
        for (path, (from, root, length)) in missing {
            let written = copy(bundle, path, from, (*length, root), &mut buffer, go_on);
            let full = bundle.path().join(path);
            match written {
                Ok(true) => {}
                Ok(false) => {
                    self.check_stop()?;
                    return Err(Error::Damaged { files: 1, bytes: *length });
                }
                Err(error) => {
                    // Room for others, if there is any; the next run writes it anew.
                    let _ = bundle.remove_file(FRESH_PATH);
                    return Err(Error::disk("write", full)(error));
                }
            }
        }
        bundle.sync_folder("objects").map_err(Error::disk("flush", bundle.path()))?;
        for (path, bytes) in &parcel.documents {
            put(bundle, path, bytes)?;
        }
        Ok(need)
    }

    fn check_stop(&self) -> Result<(), Error> {
        if self.stop.is_raised() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl Parcel {
    fn bytes(&self) -> u64 {
        self.objects.values().map(|(.., length)| length).sum()
    }
}

/// True if the file at `path` of the bundle has this content.
fn is_there(
    bundle: &Tree,
    path: &str,
    length: u64,
    root: &ContentHash,
    buffer: &mut [u8],
    go_on: impl Fn(u64) -> bool,
) -> Result<bool, Error> {
    let full = || bundle.path().join(path);
    let node = bundle.node(path).map_err(|error| Error::disk("look at", full())(error))?;
    if !matches!(node, Node::File(stat) if stat.len == length) {
        return Ok(false);
    }
    // A sector that cannot be read is written anew, too.
    let found = bundle.open_file(path).and_then(|file| root_of(&file, length, buffer, go_on));
    Ok(found.ok().flatten().as_ref() == Some(root))
}

/// Copies a file of this length and root to `path`; false if it is not that, or `go_on` was.
fn copy(
    bundle: &Tree,
    path: &str,
    from: &Path,
    (length, root): (u64, &ContentHash),
    buffer: &mut [u8],
    go_on: impl Fn(u64) -> bool,
) -> io::Result<bool> {
    let mut from = File::open(from)?.take(length);
    let mut to = bundle.create_file(FRESH_PATH)?;
    loop {
        let len = from.read(buffer)?;
        if len == 0 {
            break;
        }
        to.write_all(&buffer[..len])?;
        if !go_on(len as u64) {
            return Ok(false);
        }
    }
    to.sync_all()?;
    drop(to);
    let written = root_of(&bundle.open_file(FRESH_PATH)?, length, buffer, go_on)?;
    if written.as_ref() != Some(root) {
        return Ok(false);
    }
    bundle.rename(FRESH_PATH, path)?;
    Ok(true)
}

/// True if the file holds exactly that.
fn is_right(path: &Path, length: u64, root: &ContentHash) -> bool {
    let mut buffer = vec![0; BUFFER_BYTES];
    let found = File::open(path).and_then(|file| root_of(&file, length, &mut buffer, |_| true));
    found.ok().flatten().as_ref() == Some(root)
}

/// Writes a small file in one step, unless it is there.
fn put(bundle: &Tree, path: &str, bytes: &[u8]) -> Result<(), Error> {
    let put = || {
        if read(bundle, path)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        let mut file = bundle.create_file(FRESH_PATH)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        bundle.rename(FRESH_PATH, path)?;
        bundle.sync_folder(parent(path))
    };
    put().map_err(Error::disk("write", bundle.path().join(path)))
}

/// The file at `path` of the bundle, if there is one.
fn read(bundle: &Tree, path: &str) -> io::Result<Option<Vec<u8>>> {
    match bundle.open_file(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            let max = updraft_protocol::metainfo::TORRENT_BYTES_MAX as u64;
            file.take(max).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
