//! Bringing a release into the folder: offered, planned, fetched, switched to.

use super::gather::Supplied;
use super::swarm::SwarmSources;
use super::{Launcher, UpdateRequest, Updated, tell_report};
use crate::apply::Report;
use crate::error::Error;
use crate::events::Event;
use crate::news;
use crate::pristine;
use crate::release::Release;
use crate::reuse::Gathered;
use crate::space;
use crate::stage::{Stage, Unready};
use crate::status::Status;
use crate::transfer::Split;
use crate::tree::Tree;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use updraft_manifests::cost::{costs, on_disk};
use updraft_manifests::installed::Installed;
use updraft_manifests::manifest::{index_path, torrent_path};
use updraft_manifests::rollout::Turn;
use updraft_protocol::ids::{FileIndex, PieceIndex};

/// Room for the records of a switch to a release of no files: journal, list of files, what is kept, resume
/// log, a block of the disk each. Documents and a patch lie there already.
const RECORDS_SPACE: u64 = 16 << 10;
/// A line of 200 bytes in the journal and in three copies of the list of files.
const RECORDS_SPACE_PER_FILE: u64 = 1 << 10;
/// How often a release is planned anew because files changed under our hands.
const ATTEMPTS_MAX: u32 = 3;

/// What the channel offers and is not there yet.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) release: Release,
    pub(super) swarm: SwarmSources,
    /// Its documents, by path.
    pub(super) documents: Vec<String>,
    /// Whether it may come now.
    pub(super) turn: Turn,
}

/// How to bring a release in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// Tell how every file comes to be.
    pub(super) explain: bool,
    /// Where space is short, replace files batch by batch.
    pub(super) bounded: bool,
    /// Only plan.
    pub(super) dry_run: bool,
    /// Hash every file.
    pub(super) thorough: bool,
    /// Keep the good pieces of damaged files.
    pub(super) salvage: bool,
    /// Look everywhere in the folder for usable content.
    pub(super) adopt: bool,
    /// Only fetch: the switch comes later.
    pub(super) ahead: bool,
}

impl Launcher {
    /// Brings in what the channel offers, unless it is there already or the player went back from it.
    ///
    /// # Errors
    /// Everything in [`Error`].
    pub async fn update(&mut self, how: UpdateRequest) -> Result<Updated, Error> {
        let since = Instant::now();
        let UpdateRequest { adopt, explain, bounded, .. } = how;
        let offer = match self.wanted_offer(how).await? {
            Ok(offer) => offer,
            Err(outcome) => return Ok(outcome),
        };
        self.hold(None)?;
        self.end_preload().await;
        let manner = Manner { adopt, explain, bounded, ..Manner::default() };
        let split = self.bring(&offer.release, manner, &offer.swarm, since).await?;
        let mut documents = offer.documents;
        documents.extend(self.patch.iter().map(|patch| patch.document.clone()));
        documents.extend(self.kept_document()?);
        self.documents
            .keep_only(&documents)
            .map_err(Error::disk("tidy the documents in", self.store.tree().path()))?;
        Ok(if split.is_some() { Updated::Done } else { Updated::UpToDate })
    }

    /// Tells what [`Launcher::update`] would do and what that would cost. Changes nothing that is
    /// installed.
    ///
    /// # Errors
    /// As [`Launcher::update`].
    pub async fn plan(&mut self, how: UpdateRequest) -> Result<Updated, Error> {
        let UpdateRequest { adopt, explain, .. } = how;
        let offer = match self.wanted_offer(how).await? {
            Ok(offer) => offer,
            Err(outcome) => return Ok(outcome),
        };
        let manner = Manner { adopt, explain, dry_run: true, ..Manner::default() };
        let planned = self.bring(&offer.release, manner, &offer.swarm, Instant::now()).await?;
        Ok(if planned.is_some() { Updated::Done } else { Updated::UpToDate })
    }

    /// What is to be brought in, or why nothing is.
    async fn wanted_offer(&mut self, how: UpdateRequest) -> Result<Result<Offer, Updated>, Error> {
        let Some(offer) = self.offer(how.adopt).await? else {
            if how.force {
                self.hold(None)?;
            }
            return Ok(Err(Updated::UpToDate));
        };
        match offer.turn {
            Turn::Paused => return Ok(Err(Updated::Paused)),
            // Who has nothing yet has nothing to wait with.
            Turn::Later if !how.now && self.store.installed()?.is_some() => {
                return Ok(Err(Updated::Later));
            }
            Turn::Later | Turn::Now => {}
        }
        let held = self.state.held >= Some(offer.release.identity.sequence);
        Ok(if held && !how.force { Err(Updated::Held) } else { Ok(offer) })
    }

    /// What the channel offers, if that is not installed and whole.
    pub(super) async fn offer(&mut self, adopt: bool) -> Result<Option<Offer>, Error> {
        let mut news = self.news().await?;
        let sources = self.sources();
        let manifest = news::manifest(&self.store, &self.documents, &sources, &mut news).await?;
        let installed = self.store.installed()?;
        self.tell_checked(&news, installed.as_ref());
        drop(sources);
        let before = installed.as_ref().map(|installed| &installed.release);
        let release = self.offered_release(&news, &manifest, before).await?;
        if self.store.state()?.as_ref() != Some(&self.state) {
            self.store.set_state(&self.state)?;
        }
        let asked = std::mem::take(&mut self.asked);
        self.decide(&asked, &release.identity.rules)?;
        let path = torrent_path(&release.identity.torrent);
        if let Some(installed) = &installed
            && installed.release == release.identity
            && installed.toward.is_none()
            && !adopt
            && self.nothing_missing(installed)?
        {
            return Ok(None);
        }
        let swarm = SwarmSources::of(&news, &self.state);
        let index = release.leaf_index.map(|index| index_path(&index.sha256));
        let list = release.patches.map(|list| list.path());
        let documents = [news.entry.manifest_path(), path];
        let documents = documents.into_iter().chain(index).chain(list).collect();
        let turn = news.turn(&self.state);
        Ok(Some(Offer { release, swarm, documents, turn }))
    }

    /// Makes every file of the installed release right again, fetching only the pieces that are not.
    /// True if something was done.
    ///
    /// # Errors
    /// Everything in [`Error`].
    pub async fn repair(&mut self) -> Result<bool, Error> {
        let since = Instant::now();
        let installed = self.installed()?;
        let release = self.installed_release(&installed).await?;
        let swarm = self.swarm_sources().await;
        let manner = Manner { thorough: true, salvage: true, ..Manner::default() };
        Ok(self.bring(&release, manner, &swarm, since).await?.is_some())
    }

    /// Brings `release` into the folder, or only says how. `None` if it is there already.
    pub(super) async fn bring(
        &mut self,
        release: &Release,
        manner: Manner,
        swarm: &SwarmSources,
        since: Instant,
    ) -> Result<Option<Split>, Error> {
        let mut manner = manner;
        let (mut done, mut attempts) = (None, 0);
        // What came by patches, and in batches, before the last fetch.
        let (mut before, mut batched) = (Split::default(), Split::default());
        while attempts < ATTEMPTS_MAX {
            let installed = self.store.installed()?;
            let found = self.look(installed.as_ref(), Some(release), manner)?;
            if manner.salvage {
                self.tell_damaged(&found);
            }
            let salvage = manner.salvage;
            // The stage borrows the folder while the rest of us goes on: a handle of its own.
            let tree = Tree::open(self.store.tree().path())
                .map_err(Error::disk("open the folder", self.store.tree().path()))?;
            let choice = &self.state.choice;
            let stage = Stage::new(&tree, release, installed.as_ref(), choice, found, salvage)
                .map_err(|error| unusable(release, &error))?;
            if stage.is_done() {
                return Ok(done);
            }
            let stage = if manner.ahead { stage.ahead() } else { stage };
            // Who takes part in no swarm now need not join one only to share it.
            if manner.ahead && self.session.is_none() && self.is_staged(release, &stage) {
                return Ok(done);
            }
            let (gathered, patch_file, earlier) =
                self.gather(release, installed.as_ref(), &stage, swarm, manner.dry_run).await?;
            let extra = self.tell_planned(release, &stage, &gathered, manner.explain);
            if manner.dry_run {
                return Ok(Some(Split::default()));
            }
            before = earlier.after(before);
            // What was fetched of a newer release is worth keeping while this one is only mended.
            let again =
                |installed: &Installed| installed.release.torrent == release.identity.torrent;
            let keep_others = salvage || installed.as_ref().is_some_and(again);
            match manner.ahead {
                true => self.switch.begin_ahead(&self.store, &release.target())?,
                false => self.switch.begin(&self.store, &release.target(), keep_others)?,
            }
            // A patch that was fetched takes its room already.
            let extra = extra - patch_file.as_ref().map_or(0, |_| on_disk(gathered.patch_bytes));
            match self.check_space(release, &stage, extra) {
                Err(Error::Space { .. })
                    if !manner.ahead && self.give_way(&release.target().torrent)? =>
                {
                    continue;
                }
                // Everything is in place, and only records are written.
                Err(Error::Space { .. }) if manner.bounded && stage.largest_built() == 0 => {}
                Err(Error::Space { .. }) if manner.bounded && installed.is_some() => {
                    let gathered = (gathered, patch_file);
                    let split = &mut batched;
                    let bring = self.bring_in_batches(release, &stage, gathered, swarm, split);
                    attempts += u32::from(!Box::pin(bring).await?);
                    continue;
                }
                checked => checked?,
            }
            tokio::task::block_in_place(|| stage.prepare(&gathered.bases(release)))?;
            let gathered = Arc::new(gathered);
            let supply = Supplied { gathered, patch: patch_file, only: None };
            let mut split = self.fetch(release, &stage, swarm, supply).await?;
            split.reused = split.reused.saturating_sub(batched.peers + batched.http_content);
            let split = split.after(batched).after(before);
            if manner.ahead {
                return Ok(Some(split));
            }
            match stage.transaction() {
                Ok((work, next)) => {
                    tokio::task::block_in_place(|| stage.keep_pristine());
                    let report = self.commit(&stage, &work, &next).await?;
                    self.tidy_pristine()?;
                    done = Some(split);
                    if report.missing.is_empty() {
                        (self.events)(split.complete(release.identity.version.to_string(), since));
                        return Ok(done);
                    }
                }
                Err(Unready::Changed(paths)) => tracing::info!(?paths, "changed meanwhile"),
                Err(Unready::Error(error)) => return Err(error),
            }
            // Files changed under our hands: look again.
            if let Some(handle) = self.handle.take() {
                handle.remove().await;
            }
            manner.adopt = false;
            attempts += 1;
        }
        let why = "its files keep changing while it is installed: close the game and try again";
        Err(Error::Failed(why.into()))
    }

    /// Tells what will be done; returns the bytes of disk that it takes meanwhile.
    pub(super) fn tell_planned(
        &self,
        release: &Release,
        stage: &Stage<'_>,
        gathered: &Gathered,
        explain: bool,
    ) -> u64 {
        let (built, sides) = gathered.costs();
        let (files, mut sum) = costs(&release.files, stage.plan(), &built, &sides);
        sum.extra_space += records_space(release);
        let saved = gathered.packs.saved(release, &stage.fetched());
        if explain {
            let places = stage.plan().places.iter();
            for ((new, place), cost) in release.files.iter().zip(places).zip(files) {
                (self.events)(Event::PlannedFile {
                    path: place.as_ref().unwrap_or(&new.path).to_string(),
                    way: cost.way.as_str(),
                    bytes: cost.length,
                    fetch_bytes: cost.download,
                });
            }
        }
        (self.events)(Event::Planned {
            version: release.identity.version.to_string(),
            files: release.files.len() as u64,
            kept_bytes: sum.kept,
            reused_bytes: sum.moved + sum.copied,
            found_bytes: sum.found,
            fetch_bytes: sum.content,
            index_bytes: sides.index,
            metadata_bytes: self.documents_bytes.load(Ordering::Relaxed),
            packed_bytes: sum.content.saturating_sub(saved),
            patch_bytes: sides.patch,
            patched_bytes: sum.patched,
            disk_read_bytes: sum.disk_read,
            disk_write_bytes: sum.disk_write,
            extra_space_bytes: sum.extra_space,
            free_space_bytes: space::free(self.store.tree().path()),
            removed_files: stage.plan().totals.removed_files,
        });
        sum.extra_space
    }

    /// Removes copies that belong neither to what is installed nor to what is kept.
    fn tidy_pristine(&self) -> Result<(), Error> {
        let (installed, kept) = (self.store.installed()?, self.kept()?);
        let records: Vec<&Installed> = installed.iter().chain(&kept).collect();
        pristine::tidy(self.store.tree(), &records)
    }

    /// `extra` bytes have to find room, but for what an earlier run has put into `stage`.
    pub(super) fn check_space(
        &self,
        release: &Release,
        stage: &Stage<'_>,
        extra: u64,
    ) -> Result<(), Error> {
        let geometry = &release.info.geometry;
        let done = self.resumed(release);
        let fetched = (0..).zip(stage.fetched()).filter(|(_, fetched)| *fetched);
        let pieces = fetched.flat_map(|(file, _)| geometry.pieces_of(FileIndex(file)));
        let done: u64 = pieces
            .map(PieceIndex)
            .filter(|piece| done.has(*piece))
            .map(|piece| u64::from(geometry.data_len(piece)))
            .sum();
        let need = extra.saturating_sub(done);
        let dir = self.store.tree().path();
        let batches_do = self.store.installed()?.is_some() && !stage.is_salvage();
        match space::free(dir) {
            Some(free) if free < need => {
                let bounded = batches_do && bounded_space(release, stage) <= free;
                Err(Error::Space { dir: dir.to_path_buf(), need, free, bounded })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The switch. Not stopped by anything but the end of the process.
    pub(super) async fn commit(
        &mut self,
        stage: &Stage<'_>,
        work: &crate::apply::Transaction,
        next: &Installed,
    ) -> Result<Report, Error> {
        let _not_playing = self.nobody_plays().await?;
        (self.events)(Event::Committing { version: work.target.version.clone() });
        self.switch.staged(&self.store, work, next)?;
        // The engine keeps serving: it looks for a file at its new path, then at the one before, and
        // whatever may lie at the new path has been cleared away by then.
        if let Some(handle) = &self.handle {
            // The folder is the player's from here on: a file they change is not fetched again.
            handle.seed_only().await;
            handle.remap(stage.paths_cleared()).await;
        }
        tokio::task::block_in_place(|| self.switch.clear(&self.store, work))?;
        if let Some(handle) = &self.handle {
            handle.remap(stage.paths_installed()).await;
        }
        let report = tokio::task::block_in_place(|| {
            let report = self.switch.place(&self.store, work)?;
            self.switch.finish(&self.store, work)?;
            Ok::<_, Error>(report)
        })?;
        self.documents.set_status(Status::of(self.network.name.as_ref(), Some(next)));
        tell_report(&self.events, &report);
        Ok(report)
    }
}

pub(super) fn unusable(release: &Release, why: &dyn std::fmt::Display) -> Error {
    Error::Release { version: release.identity.version.to_string(), why: why.to_string() }
}

/// The least bytes of disk that an update takes which replaces one file after the other.
pub(super) fn bounded_space(release: &Release, stage: &Stage<'_>) -> u64 {
    on_disk(stage.largest_built()) + records_space(release)
}

/// Bytes of disk that our own records of a switch to `release` take: journal, list of files, what is kept.
pub(super) fn records_space(release: &Release) -> u64 {
    RECORDS_SPACE + RECORDS_SPACE_PER_FILE * release.files.len() as u64
}
