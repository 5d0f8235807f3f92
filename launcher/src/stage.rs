//! From a plan to slots, and from full slots to a transaction.
//!
//! Every file of the new release has a place where its bytes are while the release is being fetched:
//! the installed path if it stays, the old path if it will be moved, its slot in the staging folder
//! otherwise. The engine reads and writes there. When all is verified, [`Stage::transaction`] looks
//! once more at what the survey relied on and writes down what is to be renamed.

use crate::apply::{Clear, Ending, Place, Slot, Target, Transaction};
use crate::error::Error;
use crate::kept;
use crate::links;
use crate::pristine;
use crate::release::{Release, length, link_text};
use crate::survey::Survey;
use crate::tree::{Node, Tree};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use updraft_manifests::installed::{Installed, InstalledFile};
use updraft_manifests::path::RelPath;
use updraft_manifests::places::{Bytes as FileBytes, Place as FilePlace, Situation, places};
use updraft_manifests::plan::{Action, Content, NewFile, Plan, PlanError, plan};
use updraft_manifests::rules::{Class, Rules, Selection};

/// A release on its way into the folder.
#[derive(Debug)]
pub struct Stage<'a> {
    tree: &'a Tree,
    release: &'a Release,
    installed: Option<&'a Installed>,
    survey: Survey,
    /// Where each file of the release belongs.
    places: Vec<FilePlace>,
    /// Copies of what the player may change, by number.
    pristine: HashMap<u32, RelPath>,
    plan: Plan,
    target: Target,
    salvage: bool,
    part: Option<Part>,
    ahead: bool,
}

/// A part of a release that is brought in alone.
#[derive(Debug)]
pub struct Part {
    /// Its files, by number; what else is missing is left out.
    pub files: HashSet<u32>,
    /// Old files that go with it, besides those that it replaces.
    pub removes: HashSet<RelPath>,
}

/// Why a stage cannot become a transaction.
#[derive(Debug)]
pub enum Unready {
    /// These files changed since they were looked at: look again and plan anew.
    Changed(Vec<RelPath>),
    /// The disk.
    Error(Error),
}

impl From<Error> for Unready {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl<'a> Stage<'a> {
    /// Plans the way from what was found to `release`, as far as `choice` wants it. With `salvage`, what a
    /// damaged file still holds is copied to its slot, to be checked piece by piece.
    ///
    /// # Errors
    /// [`PlanError`] if the release cannot be installed anywhere.
    pub fn new(
        tree: &'a Tree,
        release: &'a Release,
        installed: Option<&'a Installed>,
        choice: &Selection,
        survey: Survey,
        salvage: bool,
    ) -> Result<Self, PlanError> {
        let rules = &release.identity.rules;
        let there = survey.there();
        let situation = Situation { rules, choice, installed, there: &there, seeds: !salvage };
        let places = places(&release.files, &situation);
        drop(there);
        let mut plan = plan(&survey.known, &release.files, &places)?;
        // What is kept goes when something else is kept in its place.
        plan.remove.retain(|path| !kept::is_kept(path));
        plan.totals.removed_files = plan.remove.len() as u64;
        let target = release.target();
        let pristine = pristine_copies(release, &survey);
        Ok(Self {
            tree,
            release,
            installed,
            survey,
            places,
            pristine,
            plan,
            target,
            salvage,
            part: None,
            ahead: false,
        })
    }

    /// The same for a release that is only fetched for now, while the game goes on with what is installed.
    pub fn ahead(self) -> Self {
        Self { ahead: true, ..self }
    }

    /// The same for a part of the release.
    pub fn only(self, part: Part) -> Self {
        Self { part: Some(part), ..self }
    }

    /// True if this file is brought in now.
    fn takes(&self, number: u32) -> bool {
        self.part.as_ref().is_none_or(|part| part.files.contains(&number))
    }

    /// The folder.
    pub fn tree(&self) -> &Tree {
        self.tree
    }

    /// What was found.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// What is to be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// True if the folder is this release already, and the record says so.
    pub fn is_done(&self) -> bool {
        let left_out = |installed: &Installed| {
            let mut both = installed.files.iter().zip(&self.places);
            both.all(|(file, place)| {
                (file.place == FilePlace::Absent) == (*place == FilePlace::Absent)
            })
        };
        let release = |installed: &Installed| {
            installed.release == self.release.identity && left_out(installed)
        };
        self.plan.is_empty()
            && self
                .installed
                .is_some_and(|installed| release(installed) && installed.toward.is_none())
            && self.survey.damaged.is_empty()
    }

    /// True if what damaged files still hold was copied to their slots.
    pub fn is_salvage(&self) -> bool {
        self.salvage
    }

    /// Which files are there whole, by number.
    pub fn whole(&self) -> Vec<bool> {
        let whole = |(number, _, action): (u32, &Content, &Action)| match action {
            Action::Keep | Action::SetExecutable(_) | Action::Reuse { may_move: true, .. } => true,
            Action::Reuse { may_move: false, .. } | Action::Make => self.takes(number),
            Action::Leave => self.copy_of(number).is_some(),
            Action::Fetch => false,
        };
        self.each().map(whole).collect()
    }

    /// Which files the engine has to do with, by number: those with bytes.
    pub fn wanted(&self) -> Vec<bool> {
        let there = self.whole();
        self.each()
            .map(|(number, content, action)| {
                let comes = *action != Action::Leave && self.takes(number);
                length(content) > 0 && (comes || there[number as usize])
            })
            .collect()
    }

    /// Which files the engine must not have to do with while it writes, by number: those that are read where
    /// they lie and that the player may change. It would mend what they have become. Of a release that is
    /// fetched ahead these are all that lie there already.
    pub fn at_risk(&self) -> Vec<bool> {
        if self.ahead {
            return self.whole();
        }
        let players = self.players_files();
        let at_risk = |(number, _, action): (u32, &Content, &Action)| match action {
            Action::Keep | Action::SetExecutable(_) => self.may_be_changed(number),
            Action::Reuse { from, may_move: true } => {
                self.may_be_changed(number) || players.contains(from)
            }
            Action::Reuse { may_move: false, .. }
            | Action::Make
            | Action::Fetch
            | Action::Leave => false,
        };
        self.each().map(at_risk).collect()
    }

    /// Bytes of all files but those that are left out.
    pub fn total(&self) -> u64 {
        let wanted = self.each().filter(|(number, _, action)| {
            **action != Action::Leave || self.copy_of(*number).is_some()
        });
        wanted.map(|(_, content, _)| length(content)).sum()
    }

    /// Which files are fetched, by number.
    pub fn fetched(&self) -> Vec<bool> {
        self.each()
            .map(|(number, _, action)| *action == Action::Fetch && self.takes(number))
            .collect()
    }

    /// The bytes of the largest file that is not only kept or moved.
    pub fn largest_built(&self) -> u64 {
        let stays = |action: &Action| {
            matches!(
                action,
                Action::Keep
                    | Action::SetExecutable(_)
                    | Action::Reuse { may_move: true, .. }
                    | Action::Leave
            )
        };
        let built = self.each().filter(|(.., action)| !stays(action));
        built.map(|(_, content, _)| length(content)).max().unwrap_or(0)
    }

    /// Where each file's bytes are until the switch.
    pub fn paths_staged(&self) -> Vec<PathBuf> {
        self.paths(place_staged)
    }

    /// Where the bytes are now; for files that are not here, where they would be until the switch.
    pub fn paths_here(&self) -> Vec<PathBuf> {
        self.paths(|action, path, slot| match action {
            Action::Keep | Action::SetExecutable(_) => path.to_owned(),
            Action::Reuse { from, .. } => from.as_str().to_owned(),
            Action::Make | Action::Fetch | Action::Leave => slot,
        })
    }

    /// Where they are once moved content lies in its slots.
    pub fn paths_cleared(&self) -> Vec<PathBuf> {
        let cleared = self.paths(|action, path, slot| match action {
            Action::Keep | Action::SetExecutable(_) => path.to_owned(),
            Action::Reuse { .. } | Action::Make | Action::Fetch | Action::Leave => slot,
        });
        self.taken(cleared)
    }

    /// Where they are when all is done.
    pub fn paths_installed(&self) -> Vec<PathBuf> {
        self.taken(self.paths(|action, path, slot| match action {
            Action::Leave => slot,
            Action::Keep
            | Action::SetExecutable(_)
            | Action::Reuse { .. }
            | Action::Make
            | Action::Fetch => path.to_owned(),
        }))
    }

    /// `paths` for what is brought in now; what is not stays where it is.
    fn taken(&self, paths: Vec<PathBuf>) -> Vec<PathBuf> {
        let both = (0..).zip(paths.into_iter().zip(self.paths_staged()));
        both.map(|(number, (path, staged))| if self.takes(number) { path } else { staged })
            .collect()
    }

    /// Fills the slots of everything that is not fetched and stays where it is until the switch:
    /// copies, empty files, links. Slots of files that are built begin as clones of their `bases`, by number,
    /// where the file system can share blocks: what is equal is not written then.
    ///
    /// # Errors
    /// From the file system.
    pub fn prepare(&self, bases: &HashMap<u32, &RelPath>) -> Result<(), Error> {
        let folder = self.target.staging();
        let tree = self.tree;
        tree.make_folders(&folder)
            .map_err(Error::disk("make the folder", tree.path().join(&folder)))?;
        let mut clones = true;
        for (number, content, action) in self.each().filter(|(number, ..)| self.takes(*number)) {
            let slot = self.slot(number);
            let path = self.path(number);
            let done = match (action, content) {
                (Action::Reuse { from, may_move: false }, _) => {
                    tree.copy_file(from.as_str(), &slot)
                }
                (Action::Make, Content::Symlink { target }) if links::COPIED => {
                    self.stand_in(path, target, &slot)
                }
                (Action::Make, Content::Symlink { target }) => tree
                    .remove_all(&slot)
                    .and_then(|()| tree.make_symlink(&link_text(path, target), &slot)),
                (Action::Make, Content::File { .. }) => tree
                    .remove_all(&slot)
                    .and_then(|()| tree.create_file(&slot))
                    .and_then(|file| file.sync_all()),
                // The switch takes what lies there for what was moved there, and an earlier run may have
                // begun to fetch it.
                (Action::Reuse { may_move: true, .. }, _) => tree.remove_all(&slot),
                (Action::Fetch, Content::File { .. }) if self.salvage => self.salvage(path, &slot),
                (Action::Fetch, Content::File { .. }) if clones => match bases.get(&number) {
                    Some(base) => self.sow(base, &slot).map(|cloned| clones = cloned),
                    None => Ok(()),
                },
                (Action::Fetch | Action::Keep | Action::SetExecutable(_) | Action::Leave, _) => {
                    Ok(())
                }
            };
            done.map_err(Error::disk("prepare", tree.path().join(path.as_str())))?;
        }
        tree.sync_folder(&folder).map_err(Error::disk("sync", tree.path().join(&folder)))
    }

    /// An empty file goes to the slot of a link; it becomes a copy when all is in place.
    fn stand_in(&self, path: &RelPath, target: &RelPath, slot: &str) -> io::Result<()> {
        if !self.release.files.iter().any(|file| file.path == *target) {
            let why = format!(
                "`{path}` is a link to the folder `{target}`, which this system lets nobody but \
                 administrators make: ask the publisher for a release without it"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        self.tree.remove_all(slot)?;
        self.tree.create_file(slot)?.sync_all()
    }

    /// Copies what the player may change, where there is no copy yet. To be called when all is verified.
    pub fn keep_pristine(&self) {
        let staged = self.below(place_staged);
        let files = self.each().zip(staged).filter_map(|((number, content, action), from)| {
            let changes =
                self.class(number) != Class::Immutable && !self.pristine.contains_key(&number);
            let bytes = FileBytes::of(content)?;
            (changes && *action != Action::Leave).then_some((bytes, from))
        });
        pristine::keep(self.tree, files);
    }

    /// Makes durable what lies in the slots of fetched files, whoever wrote it.
    ///
    /// # Errors
    /// From the file system.
    pub fn sync_fetched(&self) -> Result<(), Error> {
        let fetched = (0..).zip(self.fetched()).filter(|(_, fetched)| *fetched);
        for (number, _) in fetched {
            let slot = self.slot(number);
            self.tree
                .sync_file(&slot)
                .map_err(Error::disk("flush", self.tree.path().join(slot)))?;
        }
        let folder = self.target.staging();
        self.tree.sync_folder(&folder).map_err(Error::disk("sync", self.tree.path().join(&folder)))
    }

    /// A clone of `base` goes to a slot that an earlier run has put nothing into. False if this file system
    /// has no clones.
    fn sow(&self, base: &RelPath, slot: &str) -> io::Result<bool> {
        if self.tree.exists(slot)? {
            return Ok(true);
        }
        match self.tree.clone_file(base.as_str(), slot) {
            // It went meanwhile: then the slot begins empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            done => done,
        }
    }

    /// A damaged file's bytes go to its slot, unless an earlier run has already put some there.
    fn salvage(&self, path: &RelPath, slot: &str) -> io::Result<()> {
        let here = self.tree.node(path.as_str())?;
        if matches!(here, Node::File(_)) && !self.tree.exists(slot)? {
            self.tree.copy_file(path.as_str(), slot)?;
        }
        Ok(())
    }

    /// What is to be renamed, and what will be installed then. To be called when every slot is
    /// verified and synced.
    ///
    /// # Errors
    /// [`Unready::Changed`] if a file that was copied or is to be moved is no longer what it was.
    pub fn transaction(&self) -> Result<(Transaction, Installed), Unready> {
        let listed = self.installed.map(|installed| installed.files.as_slice()).unwrap_or_default();
        let listed: HashMap<RelPath, u32> = (0..)
            .zip(listed)
            .filter_map(|(number, file)| Some((file.place.of(&file.path)?, number)))
            .collect();
        // What they were when they were looked at leaves its place, and nothing that they become later.
        let players = self.players_files();
        let clear = |path: &RelPath, slot| Clear {
            from: path.to_string(),
            slot,
            mtime_ns: self.survey.times.get(path).filter(|_| players.contains(path)).copied(),
        };
        let as_recorded = self.survey.known.iter().filter(|file| file.listed);
        let as_recorded: HashSet<&RelPath> = as_recorded.map(|file| &file.path).collect();
        let whole = |installed: &Installed| {
            !self.salvage
                && installed.toward.is_none()
                && installed.release.torrent != self.release.identity.torrent
        };
        let ending = match self.part {
            Some(_) => Ending::Part,
            None if self.installed.is_some_and(whole) => Ending::Keep,
            None => Ending::Discard,
        };
        let mut work = Transaction {
            target: self.target.clone(),
            clear: Vec::new(),
            place: Vec::new(),
            ending,
        };
        let mut changed = Vec::new();
        let mut moved = HashSet::new();
        for (number, _, action) in self.each().filter(|(number, ..)| self.takes(*number)) {
            if let Action::Reuse { from, may_move } = action {
                if !self.is_as_surveyed(from)? {
                    // Of a copy nobody knows whether it was made before or after.
                    changed.push(from.clone());
                } else if *may_move {
                    work.clear.push(clear(from, Slot::New(number)));
                    moved.insert(from);
                }
            }
            if self.is_the_players_by_now(number, action)? {
                changed.push(self.path(number).clone());
            }
        }
        if !changed.is_empty() {
            return Err(Unready::Changed(changed));
        }
        let take_away = |path: &RelPath, work: &mut Transaction| {
            if let Some(number) = listed.get(path) {
                work.clear.push(clear(path, Slot::Old(*number)));
            }
        };
        let removes =
            |path: &&RelPath| self.part.as_ref().is_none_or(|part| part.removes.contains(*path));
        let removed = self.plan.remove.iter().filter(|path| !moved.contains(path));
        for path in removed.filter(removes) {
            // What the player changed since is the player's.
            if self.is_as_surveyed(path)? {
                take_away(path, &mut work);
            }
        }
        self.change_folders(&mut work);
        for (number, content, action) in self.each().filter(|(number, ..)| self.takes(*number)) {
            let path = self.path(number);
            let executable = matches!(content, Content::File { executable: true, .. });
            match action {
                Action::Keep | Action::Leave => {}
                Action::SetExecutable(executable) => {
                    work.place
                        .push(Place::Mode { path: path.to_string(), executable: *executable });
                }
                Action::Reuse { .. } | Action::Make | Action::Fetch => {
                    // What the player may change is taken away only as it was recorded, and what lies
                    // there after that is never replaced.
                    let may_be_changed = self.may_be_changed(number);
                    if !moved.contains(path) && (!may_be_changed || as_recorded.contains(path)) {
                        take_away(path, &mut work);
                    }
                    let replace = listed.contains_key(path) && !may_be_changed;
                    let to = path.to_string();
                    work.place.push(Place::Put { slot: number, to, replace, executable });
                }
            }
        }
        let next = self.next_record(&work)?;
        Ok((work, next))
    }

    /// Folders of the old release that the new one has no use for go; empty ones of the new come.
    fn change_folders(&self, work: &mut Transaction) {
        let is_here = |place: &FilePlace| *place != FilePlace::Absent;
        let release = &self.release.identity;
        let files = self.release.files.iter().zip(&self.places);
        let files = files.filter(|(_, place)| is_here(place)).map(|(file, _)| &file.path);
        let used = folders(files, &release.empty_folders);
        let is_owned = |rules: &Rules, folder: &str| {
            RelPath::parse(folder).is_ok_and(|folder| rules.is_owned(&folder))
        };
        if let Some(installed) = self.installed {
            let rules = &installed.release.rules;
            let files = installed.files.iter().filter(|file| is_here(&file.place));
            let had = folders(files.map(|file| &file.path), &installed.release.empty_folders);
            // Deepest first: a path sorts after its parents.
            let gone = had.iter().rev().filter(|folder| !used.contains(*folder));
            let gone =
                gone.filter(|folder| !is_owned(rules, folder) && !is_owned(&release.rules, folder));
            work.place.extend(gone.map(|folder| Place::RemoveFolder(folder.clone())));
        }
        let empty = release.empty_folders.iter();
        let made = empty.filter(|folder| !release.rules.is_owned(folder) || self.is_free(folder));
        work.place.extend(made.map(|folder| Place::MakeFolder(folder.to_string())));
    }

    /// True if nothing but folders lies on the way to `folder`: no link, say, that the player made to another disk.
    fn is_free(&self, folder: &RelPath) -> bool {
        folder
            .ancestors()
            .chain([folder.as_str()])
            .all(|folder| matches!(self.tree.node(folder), Ok(Node::Folder | Node::Missing)))
    }

    /// True if something lies where a `config` or `seed-once` file comes to lie, and it is not what was found.
    fn is_the_players_by_now(&self, number: u32, action: &Action) -> Result<bool, Error> {
        let comes = matches!(action, Action::Reuse { .. } | Action::Make | Action::Fetch);
        if !comes || !self.may_be_changed(number) {
            return Ok(false);
        }
        let path = self.path(number);
        let node = self.tree.node(path.as_str());
        let node = node.map_err(|e| Error::disk("look at", path.under(self.tree.path()))(e))?;
        let surveyed = self.survey.times.get(path);
        Ok(match node {
            Node::Missing => false,
            Node::File(stat) => surveyed != Some(&stat.mtime_ns),
            Node::Folder | Node::Symlink(_) | Node::Other => true,
        })
    }

    /// The record of the install after the switch: with the times that files had when their content
    /// was known, so that a change made since is noticed.
    fn next_record(&self, work: &Transaction) -> Result<Installed, Error> {
        let surveyed = |path: &RelPath| self.survey.times.get(path).copied().unwrap_or(0);
        let mut files = Vec::with_capacity(self.release.files.len());
        for (number, content, action) in self.each() {
            let path = self.release.files[number as usize].path.clone();
            let place = self.places[number as usize];
            let mtime_ns = match action {
                Action::Keep | Action::SetExecutable(_) => surveyed(self.path(number)),
                // What lies there, if anything, is not this content.
                Action::Leave if self.part.is_none() || place != FilePlace::Absent => 0,
                _ if !self.takes(number) => continue,
                Action::Leave => continue,
                Action::Reuse { from, may_move: true } => surveyed(from),
                Action::Reuse { may_move: false, .. } | Action::Make | Action::Fetch => {
                    let slot = self.slot(number);
                    match self.tree.node(&slot) {
                        Ok(Node::File(stat)) => stat.mtime_ns,
                        Ok(_) => 0,
                        Err(error) => {
                            return Err(Error::disk("look at", self.tree.path().join(slot))(error));
                        }
                    }
                }
            };
            files.push(match content {
                Content::File { length, root, executable } => InstalledFile {
                    path,
                    place,
                    length: *length,
                    root: *root,
                    mtime_ns,
                    executable: *executable,
                    symlink: None,
                },
                Content::Symlink { target } => InstalledFile {
                    path,
                    place,
                    length: 0,
                    root: None,
                    mtime_ns: 0,
                    executable: false,
                    symlink: Some(target.clone()),
                },
            });
        }
        let whole = Installed { release: self.release.identity.clone(), toward: None, files };
        Ok(match (&self.part, self.installed) {
            (Some(_), Some(old)) => between(old, whole, work),
            _ => whole,
        })
    }

    /// True if the file has the time it had when it was surveyed; links are always believed.
    fn is_as_surveyed(&self, path: &RelPath) -> Result<bool, Error> {
        let full = || path.under(self.tree.path());
        let node = self.tree.node(path.as_str()).map_err(|e| Error::disk("look at", full())(e))?;
        Ok(match (node, self.survey.times.get(path)) {
            (Node::File(stat), Some(time)) => stat.mtime_ns == *time,
            (Node::Symlink(_), None) => true,
            (Node::File(_) | Node::Symlink(_) | Node::Folder | Node::Missing | Node::Other, _) => {
                false
            }
        })
    }

    fn each(&self) -> impl Iterator<Item = (u32, &Content, &Action)> {
        let files = self.release.files.iter().zip(&self.plan.actions);
        (0..).zip(files).map(|(number, (file, action))| (number, &file.content, action))
    }

    /// Where a file comes to lie; its path in the release if it comes nowhere.
    fn path(&self, number: u32) -> &RelPath {
        let number = number as usize;
        self.plan.places[number].as_ref().unwrap_or(&self.release.files[number].path)
    }

    /// Where the files of the old release lie that the player may change.
    fn players_files(&self) -> HashSet<RelPath> {
        let installed = self.installed.map(|installed| installed.files.as_slice());
        let files = installed.unwrap_or_default().iter();
        let files = files.filter(|file| self.is_changeable(&file.path));
        files.filter_map(|file| file.place.of(&file.path)).collect()
    }

    /// Whether the player may change a file.
    fn may_be_changed(&self, number: u32) -> bool {
        self.is_changeable(&self.release.files[number as usize].path)
    }

    /// Whether the player may change what the releases have at `path`, by the rules of either.
    fn is_changeable(&self, path: &RelPath) -> bool {
        let after = self.release.identity.rules.class(path);
        let before = self.installed.map(|installed| installed.release.rules.class(path));
        after != Class::Immutable || before.is_some_and(|class| class != Class::Immutable)
    }

    fn class(&self, number: u32) -> Class {
        self.release.identity.rules.class(&self.release.files[number as usize].path)
    }

    /// The copy of a file at whose path lies what is the player's.
    fn copy_of(&self, number: u32) -> Option<&RelPath> {
        let is_players = self.places[number as usize] == FilePlace::Players;
        self.pristine.get(&number).filter(|_| is_players)
    }

    fn slot(&self, number: u32) -> String {
        Slot::New(number).path(&self.target)
    }

    fn paths(&self, place: impl Fn(&Action, &str, String) -> String) -> Vec<PathBuf> {
        let join = |below: String| {
            below.split('/').fold(self.tree.path().to_path_buf(), |at, part| at.join(part))
        };
        self.below(place).map(join).collect()
    }

    /// The same below the install. The place is told the action, the file's path, and its slot, which is the copy
    /// of a file that is left.
    fn below<'s>(
        &'s self,
        place: impl Fn(&Action, &str, String) -> String + 's,
    ) -> impl Iterator<Item = String> + 's {
        self.each().map(move |(number, _, action)| {
            let copy = self.copy_of(number).map(RelPath::to_string);
            let slot = copy.unwrap_or_else(|| self.slot(number));
            place(action, self.path(number).as_str(), slot)
        })
    }
}

fn place_staged(action: &Action, path: &str, slot: String) -> String {
    match action {
        Action::Keep | Action::SetExecutable(_) => path.to_owned(),
        Action::Reuse { from, may_move: true } => from.as_str().to_owned(),
        Action::Reuse { may_move: false, .. } | Action::Make | Action::Fetch | Action::Leave => {
            slot
        }
    }
}

/// The copies that were found and are right, by the number of the file.
fn pristine_copies(release: &Release, survey: &Survey) -> HashMap<u32, RelPath> {
    let known = survey.known.iter().filter(|file| pristine::is_pristine(&file.path));
    let known: HashMap<&RelPath, Option<FileBytes>> =
        known.map(|file| (&file.path, FileBytes::of(&file.content))).collect();
    if known.is_empty() {
        return HashMap::new();
    }
    let copy = |(number, file): (u32, &NewFile)| {
        let bytes = FileBytes::of(&file.content)?;
        let path = pristine::path(bytes)?;
        (known.get(&path) == Some(&Some(bytes))).then_some((number, path))
    };
    (0..).zip(&release.files).filter_map(copy).collect()
}

/// The record of a folder in which a part of `new` has come to `old`.
fn between(old: &Installed, new: Installed, work: &Transaction) -> Installed {
    let gone: HashSet<&str> = work.clear.iter().map(|clear| clear.from.as_str()).collect();
    let mut files = new.files;
    let there: HashSet<RelPath> = files.iter().map(|file| file.path.clone()).collect();
    let is_gone = |file: &InstalledFile| {
        file.place.of(&file.path).is_some_and(|place| gone.contains(place.as_str()))
    };
    let stays = |file: &&InstalledFile| !there.contains(&file.path) && !is_gone(file);
    files.extend(old.files.iter().filter(stays).cloned());
    Installed { release: old.release.clone(), toward: Some(new.release.manifest), files }
}

fn folders<'p>(files: impl Iterator<Item = &'p RelPath>, empty: &'p [RelPath]) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for path in files {
        folders.extend(path.ancestors().map(str::to_owned));
    }
    for folder in empty {
        folders.extend(folder.ancestors().map(str::to_owned));
        folders.insert(folder.to_string());
    }
    folders
}

#[cfg(test)]
mod tests;
