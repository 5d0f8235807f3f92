//! Patches between the installed release and the one that is offered: found, fetched, kept.

use super::bring::bounded_space;
use super::swarm::{SwarmSources, session_error};
use super::{KeptPatch, Launcher};
use crate::error::Error;
use crate::news;
use crate::patch::PatchJob;
use crate::release::Release;
use crate::space;
use crate::stage::Stage;
use crate::transfer::{self, Split};
use bytes::Bytes;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use updraft_manifests::cost::on_disk;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::installed::Installed;
use updraft_manifests::manifest::{object_path, torrent_path};
use updraft_manifests::patch::{PREFIX_LEN, Patch};
use updraft_manifests::patchlist::Offer;
use updraft_protocol::bitfield::Bitfield;
use updraft_protocol::ids::PieceIndex;
use updraft_protocol::io::{AddTorrent, Have, WebSeed};
use updraft_protocol::metainfo::{Info, Metainfo};

/// Where patches are kept while they may be of use to others.
const PATCHES_FOLDER: &str = ".updraft/patches";
/// How long nothing may come of a patch before the update goes on without it.
const PATCH_PATIENCE: Duration = Duration::from_secs(60);
/// The same where no repository answers: then only those have it who just made use of it, and they are
/// near.
const PATCH_PATIENCE_AMONG_PLAYERS: Duration = Duration::from_secs(3);

/// From this size on a patch's header is looked at before the patch is fetched: perhaps not all of it is
/// needed.
const LOOK_BYTES_MIN: u64 = 1 << 20;
/// With more tenths of a patch needed than this, it is fetched whole: then others can have it from here.
const PART_TENTHS_MAX: u64 = 7;

/// A patch that is of use here.
#[derive(Default)]
pub(super) struct GatheredPatch {
    /// What it can make.
    pub(super) job: Option<PatchJob>,
    /// Its bytes, if they were fetched.
    pub(super) file: Option<File>,
    /// How many there are, or would be.
    pub(super) bytes: u64,
    /// Where they came from.
    pub(super) split: Split,
}

impl Launcher {
    /// The patch from what is installed to `release`, if one is offered, this program can read it, and
    /// it is smaller than what `stage` would fetch of what it makes. Of a large one only the groups are
    /// fetched that are needed; in a `dry_run` only the header is.
    ///
    /// # Errors
    /// [`Error::Interrupted`], and from the file system.
    pub(super) async fn gather_patch(
        &mut self,
        release: &Release,
        installed: Option<&Installed>,
        stage: &Stage<'_>,
        swarm: &SwarmSources,
        dry_run: bool,
    ) -> Result<GatheredPatch, Error> {
        let without = GatheredPatch::default();
        let Some(offer) = self.patch_offer(release, installed).await else { return Ok(without) };
        let saved = stage.plan().totals.fetched_bytes;
        let (mut parts, mut bytes) = (None, offer.size);
        if dry_run || offer.size >= LOOK_BYTES_MIN {
            // Nothing vouches for it yet: if it lies, too little is fetched, and the patch makes less.
            let looked = self.look_at_patch(&offer).await;
            let seen = looked.is_some();
            let job = looked.and_then(|patch| patch_job(patch, release, installed, stage));
            if seen && job.is_none() {
                return Ok(without);
            }
            if let Some(job) = &job {
                let needed = job.needs();
                let sum = needed.iter().map(|range| range.end - range.start).sum::<u64>();
                if sum.saturating_mul(10) <= offer.size.saturating_mul(PART_TENTHS_MAX) {
                    (parts, bytes) = (Some(needed), sum);
                }
            }
            if dry_run && job.is_some() && bytes < saved {
                return Ok(GatheredPatch { job, bytes, ..without });
            }
        }
        if dry_run || bytes >= saved {
            return Ok(without);
        }
        if !self.has_room_for_patch(release, stage, &offer, bytes)? {
            tracing::warn!(
                bytes,
                "without the patch: the disk has no room for it beside a new file"
            );
            return Ok(without);
        }
        let Some((patch, file, split)) = self.fetch_patch(&offer, parts, swarm).await? else {
            return Ok(without);
        };
        let job = patch_job(patch, release, installed, stage);
        let bytes = if job.is_some() { bytes } else { 0 };
        Ok(GatheredPatch { job, file: Some(file), bytes, split })
    }

    /// Whether `bytes` of the patch fit on the disk and leave room for the largest file that is built. What is kept
    /// for going back makes place.
    fn has_room_for_patch(
        &self,
        release: &Release,
        stage: &Stage<'_>,
        offer: &Offer,
        bytes: u64,
    ) -> Result<bool, Error> {
        let here = std::fs::metadata(self.store.path(&patch_path(&offer.v2)));
        let here = here.map_or(0, |metadata| metadata.len().min(bytes));
        let need = on_disk(bytes - here) + bounded_space(release, stage);
        let fits = || space::free(self.store.tree().path()).is_none_or(|free| free >= need);
        Ok(fits() || (self.give_way(&release.target().torrent)? && fits()))
    }

    /// The patch that is offered from what is installed to `release`, if this program can read it.
    async fn patch_offer(&self, release: &Release, installed: Option<&Installed>) -> Option<Offer> {
        let (named, installed) = (release.patches.as_ref()?, installed?);
        if installed.toward.is_some() {
            return None; // It is of no release any more.
        }
        let list = self.patch_list(named, &release.identity.torrent).await?;
        list.usable_from(&installed.release.torrent).cloned()
    }

    /// The header of a patch, read by ranges over HTTP: enough to plan. `None` if that cannot be had.
    async fn look_at_patch(&self, offer: &Offer) -> Option<Patch> {
        if offer.size < PREFIX_LEN as u64 {
            return None;
        }
        let path = object_path(&offer.root, offer.size);
        let sources = self.sources();
        let prefix = sources.range(&path, 0..PREFIX_LEN as u64, offer.size).await.ok()?;
        let prefix: [u8; PREFIX_LEN] = prefix[..].try_into().ok()?;
        let len = Patch::header_len(&prefix).ok()? as u64;
        let header = sources.range(&path, 0..len.min(offer.size), offer.size).await.ok()?;
        Patch::parse(&header).ok()
    }

    /// Fetches a patch, or these parts of it, from its swarm and over HTTP. `None` if it cannot be had or
    /// is not what it should be: then the update goes on without.
    ///
    /// # Errors
    /// [`Error::Interrupted`], and from the file system.
    async fn fetch_patch(
        &mut self,
        offer: &Offer,
        parts: Option<Vec<Range<u64>>>,
        swarm: &SwarmSources,
    ) -> Result<Option<(Patch, File, Split)>, Error> {
        let fetched = match self.fetch_patch_file(offer, parts, swarm).await {
            Err(Error::Disk { source, .. }) if source.kind() == ErrorKind::StorageFull => {
                // What needs no patch may have room when it is gone.
                self.drop_patches(None)?;
                Err("the disk is full".to_owned())
            }
            Err(error @ (Error::Interrupted | Error::Disk { .. })) => return Err(error),
            Err(error) => Err(error.to_string()),
            Ok((file, split)) => read_header(&file)
                .map(|patch| (patch, file, split))
                .map_err(|error| error.to_string()),
        };
        Ok(fetched.inspect_err(|error| tracing::warn!(error, "without the patch")).ok())
    }

    async fn fetch_patch_file(
        &mut self,
        offer: &Offer,
        parts: Option<Vec<Range<u64>>>,
        swarm: &SwarmSources,
    ) -> Result<(File, Split), Error> {
        let parse = |bytes: &Bytes| info_of(offer, bytes);
        let path = torrent_path(&offer.v2);
        let info = news::checked(&self.documents, &self.sources(), &path, parse).await?;
        self.drop_patches(Some(offer))?;
        let below = patch_path(&offer.v2);
        let pieces = info.geometry.piece_count();
        let mut add = AddTorrent::new(Arc::clone(&info), vec![self.store.path(&below)]);
        add.pieces = parts.map(|parts| pieces_of(&info, &parts));
        add.have = Have::Resume;
        add.resume = Some(self.store.path(&format!("{below}.resume")));
        add.trackers.clone_from(&swarm.trackers);
        add.peers = self.known_peers();
        add.documents = Some(self.documents.clone());
        let object = object_path(&offer.root, offer.size);
        add.web_seeds = swarm
            .http
            .iter()
            .map(|base| WebSeed::PerFile {
                name: base.to_string(),
                urls: vec![base.join(&object).ok()],
                packs: Vec::new(),
            })
            .collect();
        // An attempt before may have left it running: it goes on serving.
        if let Some(kept) = self.patch.take() {
            kept.handle.remove().await;
        }
        let session = self.session().await?;
        let handle = session.add(add).await.map_err(|error| session_error(&error))?;
        self.count(&handle);
        self.patch = Some(KeptPatch { handle: handle.clone(), document: path });
        let (size, stop, events) = (offer.size, &self.stop, &self.events);
        let patience = if swarm.answers { PATCH_PATIENCE } else { PATCH_PATIENCE_AMONG_PLAYERS };
        let split = transfer::fetch(&handle, pieces, size, patience, stop, events).await?;
        let file = self.store.tree().open_file(&below);
        let file = file.map_err(Error::disk("open", self.store.path(&below)))?;
        Ok((file, split))
    }

    /// Goes on sharing the patch that brought in what is installed, as far as it is here. That it cannot be is
    /// no reason not to share the rest.
    pub(super) async fn share_patch(&mut self, swarm: &SwarmSources) {
        if self.patch.is_some() {
            return;
        }
        let names = self.store.tree().list(PATCHES_FOLDER).unwrap_or_default();
        let kept = names.iter().find_map(|name| ContentHash::from_hex(name));
        let Some(kept) = kept else { return };
        let document = torrent_path(&kept);
        let parsed = self.documents.read(&document).and_then(|bytes| Metainfo::parse(&bytes).ok());
        let Some(info) = parsed.map(|torrent| Arc::new(torrent.info)) else { return };
        let below = patch_path(&kept);
        let mut add = AddTorrent::new(info, vec![self.store.path(&below)]);
        add.have = Have::Resume;
        add.resume = Some(self.store.path(&format!("{below}.resume")));
        add.seed_only = true;
        match self.join(add, swarm).await {
            Ok(handle) => self.patch = Some(KeptPatch { handle, document }),
            Err(error) => tracing::info!(%error, "the patch is not shared"),
        }
    }

    /// Removes the patches that are here but for this one: one is kept at a time.
    pub(super) fn drop_patches(&self, but: Option<&Offer>) -> Result<(), Error> {
        let tree = self.store.tree();
        let keep = but.map(|offer| offer.v2.to_string());
        let tidy = || {
            tree.make_folders(PATCHES_FOLDER)?;
            for name in tree.list(PATCHES_FOLDER)? {
                if !keep.as_ref().is_some_and(|keep| name.starts_with(keep)) {
                    tree.remove_file(&format!("{PATCHES_FOLDER}/{name}"))?;
                }
            }
            Ok(())
        };
        tidy().map_err(Error::disk("tidy", self.store.path(PATCHES_FOLDER)))
    }
}

/// What `patch` can make here; `None` with a note in the log if it is for something else.
fn patch_job(
    patch: Patch,
    release: &Release,
    installed: Option<&Installed>,
    stage: &Stage<'_>,
) -> Option<PatchJob> {
    let job = PatchJob::new(patch, installed?, &release.files, stage);
    let job = job.inspect_err(|error| tracing::warn!(%error, "without the patch")).ok()?;
    let any = job.makes().next().is_some();
    any.then_some(job)
}

/// Where the patch with that torrent lies, below the install.
pub(super) fn patch_path(v2: &ContentHash) -> String {
    format!("{PATCHES_FOLDER}/{v2}")
}

/// The pieces that hold these bytes of a torrent's only file.
fn pieces_of(info: &Info, parts: &[Range<u64>]) -> Bitfield {
    let (mut pieces, len) =
        (Bitfield::empty(info.geometry.piece_count()), u64::from(info.geometry.piece_length()));
    for part in parts {
        // A header may say anything.
        let end = part.end.div_ceil(len).min(u64::from(pieces.len()));
        for piece in part.start / len..end {
            pieces.insert(PieceIndex(u32::try_from(piece).expect("it is below their number")));
        }
    }
    pieces
}

/// The torrent of a patch, if it is the one that was offered.
pub(super) fn info_of(offer: &Offer, torrent: &[u8]) -> Result<Arc<Info>, String> {
    let info = Metainfo::parse(torrent).map_err(|error| error.to_string())?.info;
    let right = info.hashes.v2.is_some_and(|hash| hash.0 == offer.v2.0)
        && info.files.len() == 1
        && info.files[0].length == offer.size
        && info.files[0].root.is_some_and(|root| root.0 == offer.root.0);
    if !right {
        return Err(format!("the torrent served is not that of the patch {}", offer.v2));
    }
    Ok(Arc::new(info))
}

/// Reads what a patch file says of itself.
fn read_header(mut file: &File) -> Result<Patch, Box<dyn std::error::Error>> {
    let mut bytes = vec![0; PREFIX_LEN];
    file.read_exact(&mut bytes)?;
    let prefix: [u8; PREFIX_LEN] = bytes[..].try_into()?;
    bytes.resize(Patch::header_len(&prefix)?, 0);
    file.read_exact(&mut bytes[PREFIX_LEN..])?;
    Ok(Patch::parse(&bytes)?)
}
