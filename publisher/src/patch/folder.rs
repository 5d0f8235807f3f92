//! Whole folders: what differs between two, and making the new one of the old one and a patch.

use super::apply::{Applied, apply_to};
use super::groups::Draft;
use super::side::Side;
use crate::scan::{Kind, Scan, scan};
use crate::{Error, disk};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::patch::{Listing, Patch, Put, Shape, Tree};
use updraft_manifests::path::RelPath;
use updraft_protocol::io::held::patiently;

/// A folder that was scanned and hashed.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) scan: Scan,
    pub(super) side: Side,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let scan = scan(path, &[])?;
        let side = Side::of_folder(&scan)?;
        Ok(Self { scan, side })
    }

    /// Everything in it, by path.
    fn things(&self) -> BTreeMap<&RelPath, Thing<'_>> {
        let tree = &self.side.tree;
        let files = self.scan.files.iter().map(|file| {
            let thing = match &file.kind {
                Kind::Symlink { target } => Thing::Symlink(target),
                Kind::File { executable, .. } => {
                    let content = tree.find(&file.path).map(|at| identity(tree, at));
                    Thing::File { executable: *executable, content }
                }
            };
            (&file.path, thing)
        });
        let folders = self.scan.empty_folders.iter().map(|path| (path, Thing::Folder));
        files.chain(folders).collect()
    }

    /// What differs from here to `new`, whose outputs are `drafts`.
    pub(super) fn listing(&self, new: &Self, drafts: &[Draft]) -> Listing {
        let (here, there) = (self.things(), new.things());
        let numbers = |tree: &Tree, files: &mut dyn Iterator<Item = usize>| -> HashMap<_, u32> {
            let mut known = HashMap::new();
            for (number, file) in (0..).zip(files) {
                known.entry(identity(tree, file)).or_insert(number);
            }
            known
        };
        let old = numbers(&self.side.tree, &mut (0..self.side.tree.files().len()));
        let made = numbers(&new.side.tree, &mut drafts.iter().map(|draft| draft.file));
        let mut listing = Listing::default();
        listing
            .remove
            .extend(here.keys().filter(|path| !there.contains_key(*path)).map(|p| (*p).clone()));
        for (path, thing) in there {
            if here.get(path) == Some(&thing) {
                continue;
            }
            let shape = match thing {
                Thing::Folder => Shape::Folder,
                Thing::Symlink(target) => Shape::Symlink { target: target.clone() },
                Thing::File { executable, content: None } => Shape::Empty { executable },
                Thing::File { executable, content: Some(content) } => {
                    match (old.get(&content), made.get(&content)) {
                        (Some(&file), _) => Shape::Old { executable, file },
                        (None, Some(&output)) => {
                            Shape::Output { executable, output, root: content.1 }
                        }
                        (None, None) => unreachable!("what is not old is made"),
                    }
                }
            };
            listing.put.push(Put { path: path.clone(), shape });
        }
        listing
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Thing<'a> {
    File { executable: bool, content: Option<(u64, ContentHash)> },
    Symlink(&'a RelPath),
    Folder,
}

fn identity(tree: &Tree, file: usize) -> (u64, ContentHash) {
    let file = &tree.files()[file];
    (file.length, file.root)
}

/// Makes the folder `target` of `old` and the patch, beside its place until it was verified.
pub(super) fn make_folder(
    patch_path: &Path,
    patch: &Patch,
    listing: &Listing,
    old: &Folder,
    target: &Path,
) -> Result<Applied, Error> {
    let target = std::path::absolute(target).map_err(Error::disk("make", target))?;
    if target.symlink_metadata().is_ok() {
        let shown = target.display();
        return Err(Error::Usage(format!("`{shown}` exists: name a folder that is to be made")));
    }
    let work = disk::temporary(&target);
    let _ = fs::remove_dir_all(&work);
    disk::make_folder(&work)?;
    let made = fill(patch_path, patch, listing, old, &work).and_then(|applied| {
        patiently(|| fs::rename(&work, &target)).map_err(Error::disk("write", &target))?;
        Ok(applied)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&work);
    }
    made
}

fn fill(
    patch_path: &Path,
    patch: &Patch,
    listing: &Listing,
    old: &Folder,
    work: &Path,
) -> Result<Applied, Error> {
    check(listing, patch, &old.side).map_err(|why| Error::content(patch_path, why))?;
    let gone: BTreeSet<&RelPath> =
        listing.remove.iter().chain(listing.put.iter().map(|put| &put.path)).collect();
    // A file that keeps its path.
    for file in old.scan.files.iter().filter(|file| !gone.contains(&file.path)) {
        match &file.kind {
            Kind::File { executable, .. } => {
                place(work, &file.path, *executable, |to| fs::copy(&file.source, to).map(|_| ()))?;
            }
            Kind::Symlink { target } => link(work, &file.path, target)?,
        }
    }
    for path in old.scan.empty_folders.iter().filter(|path| !gone.contains(path)) {
        disk::make_folder(&work.join(path.as_str()))?;
    }
    let mut places: Vec<Vec<(&RelPath, bool)>> = vec![vec![]; patch.outputs.len()];
    for Put { path, shape } in &listing.put {
        match shape {
            Shape::Folder => disk::make_folder(&work.join(path.as_str()))?,
            Shape::Symlink { target } => link(work, path, target)?,
            Shape::Empty { executable } => {
                place(work, path, *executable, |to| File::create(to).map(|_| ()))?;
            }
            Shape::Old { executable, file } => {
                let from = &old.side.paths[*file as usize];
                place(work, path, *executable, |to| fs::copy(from, to).map(|_| ()))?;
            }
            Shape::Output { executable, output, .. } => {
                places[*output as usize].push((path, *executable));
            }
        }
    }
    let applied = outputs(patch_path, &old.side, work, &places)?;
    verify(patch, listing, work).map_err(|why| Error::content(patch_path, why))?;
    Ok(applied)
}

/// Every number of the listing means something.
fn check(listing: &Listing, patch: &Patch, old: &Side) -> Result<(), &'static str> {
    let good = listing.put.iter().all(|put| match &put.shape {
        Shape::Old { file, .. } => (*file as usize) < old.paths.len(),
        Shape::Output { output, .. } => (*output as usize) < patch.outputs.len(),
        Shape::Empty { .. } | Shape::Symlink { .. } | Shape::Folder => true,
    });
    good.then_some(()).ok_or("lists a file that it does not make: fetch it again")
}

fn outputs(
    patch_path: &Path,
    old: &Side,
    work: &Path,
    places: &[Vec<(&RelPath, bool)>],
) -> Result<Applied, Error> {
    for (path, _) in places.iter().flatten() {
        parents(&work.join(path.as_str()))?;
    }
    let file_of = |output: usize| -> Option<PathBuf> {
        places[output].first().map(|(path, _)| work.join(path.as_str()))
    };
    let mut open: Option<(usize, File)> = None;
    let applied = apply_to(patch_path, old, &mut |output, bytes| {
        if open.as_ref().is_none_or(|(current, _)| *current != output) {
            let Some(path) = file_of(output) else { return Ok(()) };
            open = Some((output, File::options().write(true).create_new(true).open(path)?));
        }
        open.as_mut().map_or(Ok(()), |(_, file)| file.write_all(bytes))
    })?;
    for (output, places) in places.iter().enumerate() {
        let Some(first) = file_of(output) else { continue };
        for (path, executable) in places.iter().skip(1) {
            place(work, path, *executable, |to| fs::copy(&first, to).map(|_| ()))?;
        }
        mark(&first, places[0].1)?;
    }
    Ok(applied)
}

/// Every byte of the result is what the patch promises.
fn verify(patch: &Patch, listing: &Listing, work: &Path) -> Result<(), String> {
    let made = scan(work, &[]).and_then(|scan| Side::of_folder(&scan));
    let made = made.map_err(|error| error.to_string())?;
    for put in &listing.put {
        if let Shape::Output { root, .. } = &put.shape {
            let file = made.tree.find(&put.path).map(|at| &made.tree.files()[at]);
            if file.is_none_or(|file| file.root != *root) {
                return Err(format!(
                    "makes `{}` wrongly: it or the old folder is damaged",
                    put.path
                ));
            }
        }
    }
    if made.tree.digest() != patch.to {
        return Err("does not make what it promises: it or the old folder is damaged".to_owned());
    }
    Ok(())
}

fn parents(path: &Path) -> Result<(), Error> {
    path.parent().map_or(Ok(()), disk::make_folder)
}

fn place(
    work: &Path,
    path: &RelPath,
    executable: bool,
    make: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), Error> {
    let to = work.join(path.as_str());
    parents(&to)?;
    make(&to).map_err(Error::disk("write", &to))?;
    mark(&to, executable)
}

#[cfg(unix)]
fn mark(path: &Path, executable: bool) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::disk("write", path))
}

#[cfg(not(unix))]
fn mark(_: &Path, _: bool) -> Result<(), Error> {
    Ok(())
}

fn link(work: &Path, path: &RelPath, target: &RelPath) -> Result<(), Error> {
    let at = work.join(path.as_str());
    parents(&at)?;
    let text = format!("{}{target}", "../".repeat(path.ancestors().count()));
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(&text, &at);
    #[cfg(windows)]
    let made = std::os::windows::fs::symlink_file(&text, &at);
    made.map_err(Error::disk("make the link", &at))
}
