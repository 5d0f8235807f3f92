//! The origin's own seed: every release that the head reaches, from the objects as they lie there.

use super::documents::RepositoryDocuments;
use super::tracker::{OwnSeed, Tracker};
use crate::repository::{Repository, now};
use crate::verify::contradiction;
use crate::{Error, patches, torrent};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use updraft_hosting::files::{View, Views};
use updraft_hosting::room::Seen;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::Head;
use updraft_manifests::patchlist::PatchListRef;
use updraft_protocol::ids::{InfoHash, InfoHashes};
use updraft_protocol::io::{AddTorrent, DocumentStore, Have, Session, TorrentHandle};
use updraft_protocol::metainfo::Info;

/// Releases and patches seeded at once. Over it, the ones that left the head longest ago stop.
const TORRENTS_MAX: usize = 256;

/// The releases that this process offers; seeds them if it has a session.
pub(crate) struct Seeds {
    session: Option<Session>,
    documents: Arc<dyn DocumentStore>,
    own_seed: Option<OwnSeed>,
    running: HashMap<ContentHash, Running>,
    /// Counts loads, to know which release left the head when.
    generation: u64,
}

struct Running {
    hashes: InfoHashes,
    handle: Option<TorrentHandle>,
    view: Arc<View>,
    /// Version and bytes; `None` for a patch.
    release: Option<(String, u64)>,
    pieces: u32,
    named_at: u64,
}

/// A release that is seeded from now on.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) label: String,
    pub(crate) v2: ContentHash,
    pub(crate) bytes: u64,
}

/// What a look at the head led to.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) head: Option<Head>,
    pub(crate) started: Vec<Started>,
    pub(crate) problems: Vec<String>,
}

impl Seeds {
    /// `seed`: the session, and where players find it.
    pub(crate) fn new(seed: Option<(Session, OwnSeed)>, dir: &Path) -> Self {
        let documents = Arc::new(RepositoryDocuments { dir: dir.to_path_buf() });
        let (session, own_seed) = seed.unzip();
        Self { session, documents, own_seed, running: HashMap::new(), generation: 0 }
    }

    /// Opens the product's meeting place, for documents alone.
    pub(crate) async fn open_rendezvous(
        &self,
        hash: [u8; 20],
        tracker: &Mutex<Tracker>,
    ) -> Result<(), Error> {
        let hash = InfoHash(hash);
        if let Some(session) = &self.session {
            session
                .add_rendezvous(hash, Arc::clone(&self.documents), vec![], vec![])
                .await
                .map_err(|error| Error::Internal(error.to_string()))?;
        }
        // The first of all.
        let _ = lock(tracker).open(&[hash], self.own_seed);
        Ok(())
    }

    /// Reads the head and starts to seed what it names. What was seeded before goes on: players are
    /// still updating from it.
    pub(crate) async fn load(
        &mut self,
        repository: &Repository,
        tracker: &Mutex<Tracker>,
    ) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        let Some(accepted) = repository.head(now())? else {
            return Ok(loaded);
        };
        self.generation += 1;
        for release in accepted.head.named() {
            let label = format!("{} {} ({})", release.channel, release.version, release.platform);
            let manifest = match repository.manifest(&accepted.head, release) {
                Ok(manifest) => manifest,
                Err(error) => {
                    loaded.problems.push(error.to_string());
                    continue;
                }
            };
            let v2 = manifest.torrent.v2;
            if let Some(named) = &release.patches {
                self.load_patches(repository, named, &v2, &label, tracker, &mut loaded).await;
            }
            if let Some(running) = self.running.get_mut(&v2) {
                running.named_at = self.generation;
                continue;
            }
            let path = repository.torrent_path(&v2);
            let info = match torrent::read(&path) {
                Ok(metainfo) => metainfo.info,
                Err(error) => {
                    loaded.problems.push(error.to_string());
                    continue;
                }
            };
            if let Some(why) = contradiction(&manifest, &info) {
                loaded.problems.push(format!("{}: {why}", path.display()));
                continue;
            }
            let named = Some((release.version.to_string(), manifest.total_size));
            match self.start(repository, info, named, tracker).await {
                Ok(()) => {
                    loaded.started.push(Started { label, v2, bytes: manifest.total_size });
                }
                Err(problem) => loaded.problems.push(format!("{label} is not seeded: {problem}")),
            }
        }
        self.retire(tracker).await;
        loaded.head = Some(accepted.head.into_inner());
        Ok(loaded)
    }

    /// Starts to seed the patches of a list.
    async fn load_patches(
        &mut self,
        repository: &Repository,
        named: &PatchListRef,
        to: &ContentHash,
        label: &str,
        tracker: &Mutex<Tracker>,
        loaded: &mut Loaded,
    ) {
        let list = match patches::read_list(repository, named, to) {
            Ok(list) => list,
            Err(error) => return loaded.problems.push(error.to_string()),
        };
        for offer in list.patches {
            if let Some(running) = self.running.get_mut(&offer.v2) {
                running.named_at = self.generation;
                continue;
            }
            let path = repository.torrent_path(&offer.v2);
            let started = match torrent::read(&path) {
                Ok(metainfo) if patches::is_torrent_of(&metainfo.info, &offer) => {
                    self.start(repository, metainfo.info, None, tracker).await
                }
                Ok(_) => Err(format!("{}: is not what the patch list names", path.display())),
                Err(error) => Err(error.to_string()),
            };
            let from = &offer.from.to_string()[..8];
            let label = format!("patch to {label} from {from}");
            match started {
                Ok(()) => {
                    loaded.started.push(Started { label, v2: offer.v2, bytes: offer.size });
                }
                Err(problem) => loaded.problems.push(format!("{label} is not seeded: {problem}")),
            }
        }
    }

    async fn start(
        &mut self,
        repository: &Repository,
        info: Info,
        release: Option<(String, u64)>,
        tracker: &Mutex<Tracker>,
    ) -> Result<(), String> {
        let files = object_files(repository, &info)?;
        let v2 = info.hashes.v2.ok_or("it has no v2 metadata")?;
        let hashes = info.hashes;
        let names: Vec<_> = hashes.swarm_hashes().collect();
        if !lock(tracker).open(&names, self.own_seed) {
            return Err("the tracker has too many torrents".into());
        }
        let view = Arc::new(View::of(&info));
        let pieces = info.geometry.piece_count();
        let count = files.len();
        let add = AddTorrent {
            have: Have::Files(vec![true; count]),
            seed_only: true,
            documents: Some(Arc::clone(&self.documents)),
            ..AddTorrent::new(Arc::new(info), files)
        };
        let handle = match &self.session {
            Some(session) => Some(session.add(add).await.map_err(|error| error.to_string())?),
            None => None,
        };
        let named_at = self.generation;
        let running = Running { hashes, handle, view, release, pieces, named_at };
        self.running.insert(ContentHash(v2.0), running);
        Ok(())
    }

    async fn retire(&mut self, tracker: &Mutex<Tracker>) {
        while self.running.len() > TORRENTS_MAX {
            let oldest = self.running.iter().min_by_key(|(_, running)| running.named_at);
            let Some((v2, _)) = oldest else { return };
            let v2 = *v2;
            let Some(Running { hashes, handle, .. }) = self.running.remove(&v2) else { return };
            hashes.swarm_hashes().for_each(|hash| lock(tracker).close(hash));
            if let Some(handle) = handle {
                handle.remove().await;
            }
        }
    }

    /// True if there is a seed, not only a tracker and a web server.
    pub(crate) fn is_seeding(&self) -> bool {
        self.session.is_some()
    }

    /// The releases for the BEP 19 view.
    pub(crate) fn views(&self) -> Views {
        self.running.iter().map(|(v2, running)| (*v2, Arc::clone(&running.view))).collect()
    }

    /// Payload bytes sent to peers so far, and connections.
    pub(crate) fn uploaded(&self) -> (u64, usize) {
        let handles = self.running.values().filter_map(|running| running.handle.as_ref());
        let statuses = handles.map(|handle| {
            let status = handle.status();
            let status = status.borrow();
            (status.up_total, status.peers)
        });
        statuses.fold((0, 0), |(bytes, peers), (more, also)| (bytes + more, peers + also))
    }

    /// Payload bytes sent to peers now, per second.
    pub(crate) fn up_rate(&self) -> u64 {
        let handles = self.running.values().filter_map(|running| running.handle.as_ref());
        handles.map(|handle| handle.status().borrow().up_rate).sum()
    }

    /// The versions that are seeded, and the bytes of all of them.
    pub(crate) fn releases(&self) -> (Vec<String>, u64) {
        let releases = self.running.values().filter_map(|running| running.release.as_ref());
        let bytes = releases.clone().map(|(_, bytes)| bytes).sum();
        let mut versions: Vec<String> = releases.map(|(version, _)| version.clone()).collect();
        versions.sort();
        versions.dedup();
        (versions, bytes)
    }

    /// Who fetches or shares a release, and how much of it they say they have.
    pub(crate) async fn seen(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for running in self.running.values() {
            let (Some(handle), Some((_, bytes))) = (&running.handle, &running.release) else {
                continue;
            };
            let (total, pieces) = (*bytes, u64::from(running.pieces.max(1)));
            seen.extend(handle.peers().await.into_iter().map(|peer| {
                // Pieces are alike but for the last: near enough for a bar.
                let have = u64::from(peer.pieces).saturating_mul(total) / pieces;
                Seen { ip: peer.addr.ip(), name: None, installed: None, have: Some((have, total)) }
            }));
        }
        seen
    }

    pub(crate) async fn stop(self) {
        if let Some(session) = self.session {
            session.stop().await;
        }
    }
}

/// The object of every file. Their lengths are checked here, their content by the session before a
/// piece is first served.
fn object_files(repository: &Repository, info: &Info) -> Result<Vec<PathBuf>, String> {
    let none = repository.dir.join("objects/none");
    info.files
        .iter()
        .map(|file| {
            let Some(root) = file.root else { return Ok(none.clone()) };
            let path = repository.object_path(&ContentHash(root.0), file.length);
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.len() == file.length => Ok(path),
                Ok(metadata) => Err(format!(
                    "{} has {} bytes instead of {}",
                    path.display(),
                    metadata.len(),
                    file.length
                )),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        })
        .collect()
}

/// The tracker, also after a panic elsewhere: its maps are whole between calls.
pub(crate) fn lock(tracker: &Mutex<Tracker>) -> std::sync::MutexGuard<'_, Tracker> {
    tracker.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
