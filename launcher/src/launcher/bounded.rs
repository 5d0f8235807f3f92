//! Bringing a release in where the disk has no room for the old and the new of every file.
//!
//! Files are built and put in place batch by batch ([`updraft_manifests::batches`]), each batch a
//! switch of its own, all of its bytes on the disk before the first old file goes. Once the first
//! batch is in place there is only forward: the folder is neither release until the last is.

use super::Launcher;
use super::bring::{Manner, bounded_space, records_space, unusable};
use super::gather::Supplied;
use super::swarm::SwarmSources;
use crate::error::Error;
use crate::events::Event;
use crate::release::{Release, length};
use crate::reuse::Gathered;
use crate::space;
use crate::stage::{Part, Stage, Unready};
use crate::switch::Switch;
use crate::transfer::Split;
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use updraft_manifests::batches::{Batch, Output, batches};
use updraft_manifests::cost::on_disk;
use updraft_manifests::path::RelPath;
use updraft_manifests::plan::Action;

/// A release as [`batches`] sees it.
struct Parts {
    outputs: Vec<Output>,
    /// The number in the release of each output.
    files: Vec<u32>,
    /// The path of each old file.
    old: Vec<RelPath>,
    old_bytes: Vec<u64>,
    removed: BTreeSet<usize>,
}

impl Launcher {
    /// Brings in everything of `release` that takes space, so that an ordinary update does the rest.
    /// False if files changed meanwhile and all has to be planned anew.
    pub(super) async fn bring_in_batches(
        &mut self,
        release: &Release,
        stage: &Stage<'_>,
        (gathered, patch): (Gathered, Option<File>),
        swarm: &SwarmSources,
        split: &mut Split,
    ) -> Result<bool, Error> {
        let dir = self.store.tree().path().to_path_buf();
        let parts = Parts::new(release, stage, &gathered);
        let mut free = space::free(&dir).unwrap_or(u64::MAX);
        let plan_for = |free: u64| {
            let room = free.saturating_sub(records_space(release));
            batches(&parts.outputs, &parts.old_bytes, &parts.removed, room)
        };
        let mut plan = plan_for(free);
        if plan.is_none() {
            // What a run before left of its last batch may be in the way, and a patch that is of no use
            // any more.
            Switch::drop_staged(&self.store, &release.target())?;
            if patch.is_none() {
                self.drop_patches(None)?;
            }
            free = space::free(&dir).unwrap_or(u64::MAX);
            plan = plan_for(free);
        }
        let Some(plan) = plan else {
            let need = bounded_space(release, stage);
            return Err(Error::Space { dir, need, free, bounded: false });
        };
        (self.events)(Event::Bounded {
            version: release.identity.version.to_string(),
            batches: plan.batches.len() as u64,
            extra_space_bytes: plan.peak,
        });
        // A file that loses a source is fetched.
        let without: HashSet<u32> =
            plan.without.iter().map(|(output, _)| parts.files[*output]).collect();
        let gathered = Arc::new(gathered);
        for batch in &plan.batches {
            let part = parts.part(batch);
            let patch = patch.as_ref().map(File::try_clone).transpose();
            let patch = patch.map_err(Error::disk("open the patch in", &dir))?;
            let only = part.files.iter().copied().filter(|file| !without.contains(file)).collect();
            let supplied = Supplied { gathered: Arc::clone(&gathered), patch, only: Some(only) };
            if !self.bring_part(release, part, supplied, swarm, split).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn bring_part(
        &mut self,
        release: &Release,
        part: Part,
        supplied: Supplied,
        swarm: &SwarmSources,
        split: &mut Split,
    ) -> Result<bool, Error> {
        let dir = self.store.tree().path();
        let tree = Tree::open(dir).map_err(Error::disk("open the folder", dir))?;
        let installed = self.store.installed()?;
        let found = self.look(installed.as_ref(), Some(release), Manner::default())?;
        let choice = &self.state.choice;
        let stage = Stage::new(&tree, release, installed.as_ref(), choice, found, false)
            .map_err(|error| unusable(release, &error))?
            .only(part);
        let bases = supplied.gathered.bases(release);
        tokio::task::block_in_place(|| stage.prepare(&bases))?;
        drop(bases);
        *split = self.fetch(release, &stage, swarm, supplied).await?.after(*split);
        let done = match stage.transaction() {
            Ok((work, next)) => {
                let report = self.commit(&stage, &work, &next).await?;
                report.missing.is_empty()
            }
            Err(Unready::Changed(paths)) => {
                tracing::info!(?paths, "changed meanwhile");
                false
            }
            Err(Unready::Error(error)) => return Err(error),
        };
        if let Some(handle) = self.handle.take() {
            handle.remove().await;
        }
        Ok(done)
    }
}

impl Parts {
    fn new(release: &Release, stage: &Stage<'_>, gathered: &Gathered) -> Self {
        let plan = stage.plan();
        let listed = stage.survey().known.iter().filter(|file| file.listed);
        let old: Vec<RelPath> = listed.clone().map(|file| file.path.clone()).collect();
        let mut old_bytes: Vec<u64> = listed.map(|file| on_disk(length(&file.content))).collect();
        let at: HashMap<&RelPath, usize> =
            old.iter().enumerate().map(|(number, path)| (path, number)).collect();
        let mut sources: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for (file, path) in gathered.sources() {
            sources.entry(file).or_default().extend(at.get(path));
        }
        let (mut outputs, mut files) = (Vec::new(), Vec::new());
        for (number, (new, action)) in (0..).zip(release.files.iter().zip(&plan.actions)) {
            let mut reads = sources.remove(&number).unwrap_or_default();
            let mut bytes = on_disk(length(&new.content));
            match action {
                Action::Keep | Action::SetExecutable(_) | Action::Leave => continue,
                Action::Reuse { from, may_move } => {
                    reads.extend(at.get(from));
                    if *may_move {
                        // It takes no space, and what was there is not freed.
                        bytes = 0;
                        if let Some(number) = at.get(from) {
                            old_bytes[*number] = 0;
                        }
                    }
                }
                Action::Make | Action::Fetch => {}
            }
            let place = plan.places[number as usize].as_ref();
            let mut replaces = place.and_then(|place| at.get(place).copied());
            if let Action::Reuse { from, may_move: true } = action {
                // Whoever reads it has to come before.
                replaces = replaces.or(at.get(from).copied());
            }
            outputs.push(Output { bytes, reads, replaces });
            files.push(number);
        }
        let removed = plan.remove.iter().filter_map(|path| at.get(path).copied()).collect();
        Self { outputs, files, old, old_bytes, removed }
    }

    fn part(&self, batch: &Batch) -> Part {
        Part {
            files: batch.outputs.iter().map(|output| self.files[*output]).collect(),
            removes: batch.removes.iter().map(|old| self.old[*old].clone()).collect(),
        }
    }
}
