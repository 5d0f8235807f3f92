//! What of a release's changed files is found in the player's old ones, whatever those are.

use crate::documents::Documents;
use crate::error::Error;
use crate::index;
use crate::leaves::{Build, Leaves, OldSource, Question};
use crate::news::Sources;
use crate::packs::Packs;
use crate::patch::PatchJob;
use crate::release::{Release, length};
use crate::stage::Stage;
use crate::stop::Stop;
use crate::tree::Tree;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use tokio::sync::mpsc;
use updraft_manifests::cost::{Built, Sides};
use updraft_manifests::leaf_index::{Layout, window_count};
use updraft_manifests::path::RelPath;
use updraft_manifests::plan::{Action, Content};
use updraft_manifests::reuse::{OldContent, STAYING_FACTOR, search_order};
use updraft_protocol::bitfield::Bitfield;
use updraft_protocol::geometry::Block;
use updraft_protocol::metainfo::Info;

/// Searched, with what that took.
#[derive(Debug)]
pub struct Reuse {
    /// What was found.
    pub leaves: Leaves,
    /// Bytes of the index that were fetched.
    pub index_bytes: u64,
}

/// What the changed files of a release are built of, besides what is fetched.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Made by a patch.
    pub patch: Option<PatchJob>,
    /// Found in old files.
    pub reuse: Option<Reuse>,
    /// Bytes of the patch.
    pub patch_bytes: u64,
    /// What may come compressed of the rest.
    pub packs: Packs,
}

impl Gathered {
    /// Nothing to hand on: all is fetched.
    pub fn is_empty(&self) -> bool {
        self.patch.is_none() && self.reuse.is_none()
    }

    /// What is built out of what: numbers of files in the release, each with an old file it needs.
    pub fn sources(&self) -> impl Iterator<Item = (u32, &RelPath)> + '_ {
        let patched = self.patch.iter().flat_map(PatchJob::sources);
        patched.chain(self.reuse.iter().flat_map(|reuse| reuse.leaves.sources()))
    }

    /// For each file that is built of old ones the one that it is most like: the one at its own path, or
    /// else the first.
    pub fn bases(&self, release: &Release) -> HashMap<u32, &RelPath> {
        let mut bases = HashMap::new();
        for (file, old) in self.sources() {
            let base = bases.entry(file).or_insert(old);
            if *old == release.files[file as usize].path {
                *base = old;
            }
        }
        bases
    }

    /// As the costs of the update want it.
    pub fn costs(&self) -> (Vec<Built>, Sides) {
        let mut sides = Sides { patch: self.patch_bytes, ..Sides::default() };
        let mut built = Vec::new();
        if let Some(patch) = &self.patch {
            sides.patch_reads = patch.reads();
            built.extend(patch.makes().map(|file| Built { file, found: 0, patched: true }));
        }
        if let Some(reuse) = &self.reuse {
            (sides.index, sides.searched) = (reuse.index_bytes, reuse.leaves.read);
            let found = reuse.leaves.found();
            built.extend(found.map(|(build, found)| Built {
                file: build.file,
                found,
                patched: false,
            }));
        }
        (built, sides)
    }

    /// Hands on what the patch makes, then what was found. Blocks, until nobody takes any more.
    pub fn supply(
        &self,
        patch_file: Option<File>,
        tree: &Tree,
        info: &Info,
        done: &Bitfield,
        blocks: &mpsc::Sender<Vec<(Block, Bytes)>>,
    ) {
        if let (Some(patch), Some(file)) = (&self.patch, patch_file)
            && let Err(error) = patch.supply(file, tree, info, done, blocks)
        {
            tracing::warn!(%error, "the patch is of no use from here on; the rest is fetched");
        }
        if let Some(reuse) = &self.reuse {
            reuse.leaves.supply(tree, info, done, blocks);
        }
    }
}

/// Searches the old files for leaves of what `stage` has to fetch and is not `made` otherwise. `None` if the release has no index,
/// or it cannot be had, or there is nothing to search: then everything is fetched.
///
/// # Errors
/// [`Error::Interrupted`].
pub async fn find(
    documents: &Documents,
    sources: &Sources<'_>,
    release: &Release,
    stage: &Stage<'_>,
    made: &HashSet<u32>,
    stop: &Stop,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Option<Reuse>, Error> {
    let Some(leaf_index) = release.leaf_index else { return Ok(None) };
    let builds: Vec<Build> = (0..)
        .zip(release.files.iter().zip(&stage.plan().actions))
        .map(|(file, (new, action))| (Build { file, length: length(&new.content) }, action))
        .filter(|(build, action)| {
            **action == Action::Fetch
                && window_count(build.length) > 0
                && !made.contains(&build.file)
        })
        .map(|(build, _)| build)
        .collect();
    let survey = stage.survey();
    let known = survey.known.iter().filter_map(|file| match file.content {
        Content::File { length, root, .. } => Some(OldContent { path: &file.path, length, root }),
        Content::Symlink { .. } => None,
    });
    let unknown = survey.unknown.iter();
    let unknown = unknown.map(|(path, length)| OldContent { path, length: *length, root: None });
    let old: Vec<OldContent<'_>> = known.chain(unknown).collect();
    let order = search_order(&old, &release.files, stage.plan());
    if builds.is_empty() || order.first.len() + order.staying.len() == 0 {
        return Ok(None);
    }
    let layout = Layout::new(release.files.iter().map(|file| length(&file.content)));
    let hashes = index::hashes(documents, sources, &leaf_index, &layout, &builds);
    let hashes = tokio::select! {
        hashes = hashes => hashes,
        () = stop.raised() => return Err(Error::Interrupted),
    };
    let (hashes, index_bytes) = match hashes {
        Ok(hashes) => hashes,
        Err(error) => {
            tracing::warn!(%error, "without its leaf index, changed files are fetched whole");
            return Ok(None);
        }
    };
    let source =
        |number: &usize| OldSource { path: old[*number].path.clone(), length: old[*number].length };
    let question = Question {
        builds,
        hashes,
        first: order.first.iter().map(source).collect(),
        then: order.staying.iter().map(source).collect(),
        then_factor: STAYING_FACTOR,
    };
    let search = || Leaves::find(stage.tree(), question, stop, progress);
    let leaves = tokio::task::block_in_place(search)?;
    Ok(Some(Reuse { leaves, index_bytes }))
}
