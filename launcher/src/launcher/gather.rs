//! Getting the bytes of a release: what old files and patches give, then what the swarm gives.

use super::Launcher;
use super::import::BUNDLE_PATIENCE;
use super::swarm::SwarmSources;
use crate::error::Error;
use crate::packs::Packs;
use crate::patch::PatchJob;
use crate::release::Release;
use crate::reuse::{self, Gathered};
use crate::stage::Stage;
use crate::store::RESUME_FOLDER;
use crate::transfer::{self, Split};
use crate::tree::Tree;
use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use updraft_manifests::installed::Installed;
use updraft_protocol::bitfield::Bitfield;
use updraft_protocol::ids::{FileIndex, PieceIndex};
use updraft_protocol::io::storage::resume;
use updraft_protocol::io::{AddTorrent, Have, Priority, Supply, WebSeed};

/// Batches of blocks made ahead of the engine.
const SUPPLY_BATCHES_MAX: usize = 4;

/// What was gathered, for the engine.
pub(super) struct Supplied {
    pub(super) gathered: Arc<Gathered>,
    /// The patch's bytes.
    pub(super) patch: Option<File>,
    /// Hand on these files only, by number.
    pub(super) only: Option<HashSet<u32>>,
}

impl Launcher {
    /// Finds the cheapest way to each file that the stage lacks: a patch, then leaves of old files. Of
    /// a patch only the header is fetched if this is a `dry_run`.
    pub(super) async fn gather(
        &mut self,
        release: &Release,
        installed: Option<&Installed>,
        stage: &Stage<'_>,
        swarm: &SwarmSources,
        dry_run: bool,
    ) -> Result<(Gathered, Option<File>, Split), Error> {
        if stage.is_salvage() || self.is_staged(release, stage) {
            return Ok(Default::default());
        }
        let patch = self.gather_patch(release, installed, stage, swarm, dry_run).await?;
        let (file, split) = (patch.file, patch.split);
        let mut gathered =
            Gathered { patch: patch.job, patch_bytes: patch.bytes, ..Gathered::default() };
        let made = gathered.patch.iter().flat_map(PatchJob::makes).collect();
        let (progress, stop) = (self.tell_checking(), &self.stop);
        let sources = self.sources();
        let found = reuse::find(&self.documents, &sources, release, stage, &made, stop, &progress);
        gathered.reuse = found.await?;
        let (sources, fetched) = (self.sources(), stage.fetched());
        tokio::select! {
            packs = Packs::find(&self.documents, &sources, release, &fetched) => gathered.packs = packs,
            () = self.stop.raised() => return Err(Error::Interrupted),
        }
        Ok((gathered, file, split))
    }

    /// Fetches what the stage lacks: first what was gathered, then the rest.
    pub(super) async fn fetch(
        &mut self,
        release: &Release,
        stage: &Stage<'_>,
        swarm: &SwarmSources,
        supplied: Supplied,
    ) -> Result<Split, Error> {
        let fetched = stage.fetched();
        let total = stage.total();
        if !fetched.contains(&true) {
            return Ok(Split { reused: total, ..Split::default() });
        }
        let mut add = AddTorrent::new(Arc::clone(&release.info), stage.paths_staged());
        let at_risk = stage.at_risk();
        let without_risk = |files: Vec<bool>| -> Vec<bool> {
            files.into_iter().zip(&at_risk).map(|(file, risk)| file && !risk).collect()
        };
        add.priorities = without_risk(stage.wanted()).into_iter().map(Priority::from).collect();
        let whole = without_risk(stage.whole());
        add.have = if stage.is_salvage() {
            Have::Mixed { right: whole, check: fetched }
        } else {
            Have::Files(whole)
        };
        let resumed = !self.resumed(release).is_empty();
        add.resume = Some(self.resume_path(release));
        add.web_seeds = swarm
            .http
            .iter()
            .map(|base| WebSeed::PerFile {
                name: base.to_string(),
                urls: release.object_urls(base),
                packs: supplied.gathered.packs.urls(base),
            })
            .collect();
        add.packs.clone_from(&supplied.gathered.packs.packs);
        if !supplied.gathered.is_empty() {
            add.supply = Some(self.supply(release, supplied)?);
        }
        self.add(add, swarm).await?;
        let handle = self.handle.clone().expect("it was just added");
        let pieces = release.info.geometry.piece_count();
        let patience = if self.is_importing() { BUNDLE_PATIENCE } else { transfer::SILENCE_MAX };
        let split =
            transfer::fetch(&handle, pieces, total, patience, &self.stop, &self.events).await;
        self.remember_peers().await;
        let split = split?;
        let failed = Error::disk("flush", self.store.path(&release.target().staging()));
        handle.sync().await.map_err(failed)?;
        if resumed {
            // A run before this one was stopped between writing and flushing.
            tokio::task::block_in_place(|| stage.sync_fetched())?;
        }
        Ok(split)
    }

    /// What was gathered on its way to the engine, as fast as it takes it.
    pub(super) fn supply(&self, release: &Release, supplied: Supplied) -> Result<Supply, Error> {
        let dir = self.store.tree().path();
        let tree = Tree::open(dir).map_err(Error::disk("open the folder", dir))?;
        let Supplied { gathered, patch, only } = supplied;
        let (info, mut done) = (Arc::clone(&release.info), self.resumed(release));
        for (number, _) in (0..).zip(&release.files) {
            if only.as_ref().is_some_and(|only| !only.contains(&number)) {
                for piece in info.geometry.pieces_of(FileIndex(number)) {
                    done.insert(PieceIndex(piece));
                }
            }
        }
        let (sender, supply) = tokio::sync::mpsc::channel(SUPPLY_BATCHES_MAX);
        tokio::task::spawn_blocking(move || {
            gathered.supply(patch, &tree, &info, &done, &sender);
        });
        Ok(supply)
    }

    /// Pieces that an earlier run fetched and wrote down.
    pub(super) fn resumed(&self, release: &Release) -> Bitfield {
        let info = &release.info;
        resume::load(&self.resume_path(release), &info.hashes, info.geometry.piece_count())
    }

    pub(super) fn resume_path(&self, release: &Release) -> PathBuf {
        self.store.path(&format!("{RESUME_FOLDER}/{}", release.identity.torrent))
    }
}
