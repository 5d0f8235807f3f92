//! Files and folders in memory, with what of them a power cut would leave.
//!
//! What counts as durable is what POSIX promises and no more: content by a sync of the file, names by
//! a sync of the folder, both in the state they had then. One thing is taken from real file systems: a
//! folder's own name is durable before the names in it are, and a rename is one step. All else is up
//! to chance at [`Model::cut`]: later names of one folder may be lost while those of another are kept,
//! later writes may be lost, kept or torn in any order, and a file may be longer than its content.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use crate::content::Noise;

/// The number of a file, folder or link.
pub(super) type Ino = u64;
/// The top folder.
pub(super) const ROOT: Ino = 1;
/// What is allocated at once.
pub(super) const BLOCK_LEN: usize = 4096;
/// What is written whole or not at all.
const SECTOR_LEN: usize = 512;

/// What something is.
#[derive(Debug, Clone)]
pub enum Body {
    /// A file.
    File(Content),
    /// A folder, its names now and its durable names.
    Folder {
        /// Now.
        names: BTreeMap<OsString, Ino>,
        /// After a power cut at least.
        durable: BTreeMap<OsString, Ino>,
    },
    /// A link and its text.
    Link(OsString),
}

/// A file's bytes.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Now.
    pub bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<Edit>,
    allocated: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Edit {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

/// A file, folder or link.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub body: Body,
    /// Permission bits now.
    pub mode: u16,
    durable_mode: u16,
    /// Last change of the content.
    pub mtime: SystemTime,
    /// Last change of content or attributes.
    pub ctime: SystemTime,
    /// Names it has now.
    pub links: u32,
    /// How often it is open now.
    pub open: u32,
}

/// One change of names that is not durable yet: all of it is kept or nothing.
#[derive(Debug, Clone)]
struct Change {
    edits: Vec<(Ino, OsString, Option<Ino>)>,
    folders: BTreeSet<Ino>,
}

/// The disk.
#[derive(Debug, Clone)]
pub struct Model {
    nodes: BTreeMap<Ino, Node>,
    changes: Vec<Change>,
}

impl Content {
    fn write(&mut self, offset: usize, data: &[u8]) {
        put(&mut self.bytes, offset, data);
        self.allocated.extend(offset / BLOCK_LEN..(offset + data.len()).div_ceil(BLOCK_LEN));
        self.pending.push(Edit::Write { offset, bytes: data.to_vec() });
    }

    fn resize(&mut self, len: usize) {
        self.bytes.resize(len, 0);
        drop(self.allocated.split_off(&len.div_ceil(BLOCK_LEN)));
        self.pending.push(Edit::Resize(len));
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.bytes);
        self.pending.clear();
    }

    /// Bytes of disk that it takes.
    pub fn allocated(&self) -> u64 {
        (self.allocated.len() * BLOCK_LEN) as u64
    }

    fn cut(&mut self, luck: &mut Luck) {
        let mut left = std::mem::take(&mut self.durable);
        for edit in std::mem::take(&mut self.pending) {
            match edit {
                Edit::Resize(len) if luck.keeps_data() => left.resize(len, 0),
                Edit::Resize(_) => {}
                Edit::Write { offset, bytes } if luck.keeps_data() => {
                    put(&mut left, offset, &bytes);
                }
                Edit::Write { offset, bytes } => {
                    // Torn: some sectors arrived. Or only the length did.
                    if luck.once_in(2) {
                        for (at, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
                            if luck.keeps_data() {
                                put(&mut left, offset + at * SECTOR_LEN, sector);
                            }
                        }
                    } else if luck.once_in(2) && left.len() < offset + bytes.len() {
                        left.resize(offset + bytes.len(), 0);
                    }
                }
            }
        }
        *self = Self {
            allocated: (0..left.len().div_ceil(BLOCK_LEN)).collect(),
            durable: left.clone(),
            bytes: left,
            pending: Vec::new(),
        };
    }
}

fn put(to: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(data);
}

/// What a power cut spares.
struct Luck {
    random: Noise,
    /// Of 4 changes, how many are kept.
    names: u64,
    data: u64,
}

impl Luck {
    /// Seeds below 4 are the corners: nothing is kept, names only, content only, all.
    fn new(seed: u64) -> Self {
        let mut random = Noise::new(seed);
        let (names, data) = match seed {
            0..4 => (4 * (seed % 2), 4 * (seed / 2)),
            _ => (random.below(5), random.below(5)),
        };
        Self { random, names, data }
    }

    fn keeps_names(&mut self) -> bool {
        self.random.below(4) < self.names
    }

    fn keeps_data(&mut self) -> bool {
        self.random.below(4) < self.data
    }

    fn once_in(&mut self, count: u64) -> bool {
        self.random.below(count) == 0
    }
}

impl Node {
    fn new(body: Body, mode: u16) -> Self {
        let now = SystemTime::now();
        Self { body, mode, durable_mode: mode, mtime: now, ctime: now, links: 0, open: 0 }
    }

    /// A new file.
    pub fn file(mode: u16) -> Self {
        Self::new(Body::File(Content::default()), mode)
    }

    /// A new folder.
    pub fn folder(mode: u16) -> Self {
        Self::new(Body::Folder { names: BTreeMap::new(), durable: BTreeMap::new() }, mode)
    }

    /// A new link.
    pub fn link(text: &OsStr) -> Self {
        Self::new(Body::Link(text.to_owned()), 0o777)
    }
}

impl Default for Model {
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::folder(0o755))]), changes: Vec::new() }
    }
}

impl Model {
    /// What has this number.
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    /// The same, to change what no sync has to do with.
    pub fn node_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    /// The names in a folder; `None` if it is none.
    pub fn names(&self, folder: Ino) -> Option<&BTreeMap<OsString, Ino>> {
        match &self.nodes.get(&folder)?.body {
            Body::Folder { names, .. } => Some(names),
            Body::File(_) | Body::Link(_) => None,
        }
    }

    /// What has this name there.
    pub fn lookup(&self, folder: Ino, name: &OsStr) -> Option<Ino> {
        self.names(folder)?.get(name).copied()
    }

    /// Adds something new with a name.
    pub fn add(&mut self, folder: Ino, name: &OsStr, ino: Ino, node: Node) {
        let mut folders = BTreeSet::from([folder]);
        if matches!(node.body, Body::Folder { .. }) {
            folders.insert(ino);
        }
        self.nodes.insert(ino, node);
        self.change(vec![(folder, name.to_owned(), Some(ino))], folders);
    }

    /// Gives one more name.
    pub fn link(&mut self, ino: Ino, folder: Ino, name: &OsStr) {
        self.change(vec![(folder, name.to_owned(), Some(ino))], BTreeSet::from([folder]));
    }

    /// Takes a name away.
    pub fn unlink(&mut self, folder: Ino, name: &OsStr) {
        self.change(vec![(folder, name.to_owned(), None)], BTreeSet::from([folder]));
    }

    /// Moves a name, in place of what has the new name.
    pub fn rename(&mut self, from: Ino, name: &OsStr, to: Ino, new_name: &OsStr) {
        let ino = self.lookup(from, name);
        if ino.is_some() && self.lookup(to, new_name) == ino {
            return; // POSIX: two names of one file both stay.
        }
        let edits = vec![(from, name.to_owned(), None), (to, new_name.to_owned(), ino)];
        self.change(edits, BTreeSet::from([from, to]));
    }

    fn change(&mut self, edits: Vec<(Ino, OsString, Option<Ino>)>, folders: BTreeSet<Ino>) {
        for (folder, name, ino) in &edits {
            let Some(Node { body: Body::Folder { names, .. }, mtime, .. }) =
                self.nodes.get_mut(folder)
            else {
                continue;
            };
            *mtime = SystemTime::now();
            let before = match ino {
                Some(ino) => names.insert(name.clone(), *ino),
                None => names.remove(name),
            };
            for (ino, sign) in [(before, -1), (*ino, 1)] {
                if let Some(node) = ino.and_then(|ino| self.nodes.get_mut(&ino)) {
                    node.links = node.links.saturating_add_signed(sign);
                    node.ctime = SystemTime::now();
                }
            }
        }
        self.changes.push(Change { edits, folders });
    }

    fn content(&mut self, ino: Ino) -> Option<(&mut Content, &mut SystemTime)> {
        match self.nodes.get_mut(&ino)? {
            Node { body: Body::File(content), mtime, .. } => Some((content, mtime)),
            Node { body: Body::Folder { .. } | Body::Link(_), .. } => None,
        }
    }

    /// Writes to a file.
    pub fn write(&mut self, ino: Ino, offset: usize, data: &[u8]) {
        if let Some((content, mtime)) = self.content(ino) {
            content.write(offset, data);
            *mtime = SystemTime::now();
        }
    }

    /// Cuts a file or makes it longer.
    pub fn resize(&mut self, ino: Ino, len: usize) {
        if let Some((content, mtime)) = self.content(ino) {
            content.resize(len);
            *mtime = SystemTime::now();
        }
    }

    /// Makes content and mode of a file durable.
    pub fn sync_file(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.durable_mode = node.mode;
            if let Body::File(content) = &mut node.body {
                content.sync();
            }
        }
    }

    /// Makes the names in a folder durable.
    pub fn sync_folder(&mut self, folder: Ino) {
        let mut folders = BTreeSet::from([folder]);
        let mut durable = Vec::new();
        // A change that two folders share brings along what came before it in either.
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            if change.folders.is_disjoint(&folders) {
                self.changes.push(change);
            } else {
                folders.extend(&change.folders);
                durable.push(change);
            }
        }
        self.changes.reverse();
        durable.iter().rev().for_each(|change| self.settle(change));
    }

    fn settle(&mut self, change: &Change) {
        for (folder, name, ino) in &change.edits {
            if let Some(Node { body: Body::Folder { durable, .. }, .. }) =
                self.nodes.get_mut(folder)
            {
                match ino {
                    Some(ino) => durable.insert(name.clone(), *ino),
                    None => durable.remove(name),
                };
            }
        }
    }

    /// Bytes of disk in use.
    pub fn used(&self) -> u64 {
        let in_use = self.nodes.values().filter(|node| node.links > 0 || node.open > 0);
        in_use
            .map(|node| match &node.body {
                Body::File(content) => content.allocated(),
                Body::Folder { .. } | Body::Link(_) => 0,
            })
            .sum()
    }

    /// The power fails: what is not durable is kept, lost or torn as `seed` decides.
    pub fn cut(&mut self, seed: u64) {
        let mut luck = Luck::new(seed);
        let mut closed = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            if change.folders.is_disjoint(&closed) && luck.keeps_names() {
                self.settle(&change);
            } else {
                closed.extend(change.folders);
            }
        }
        let mut reached = BTreeMap::from([(ROOT, 1)]);
        let mut folders = vec![ROOT];
        while let Some(folder) = folders.pop() {
            let Some(Node { body: Body::Folder { names, durable }, .. }) =
                self.nodes.get_mut(&folder)
            else {
                continue;
            };
            names.clone_from(durable);
            for ino in names.values() {
                *reached.entry(*ino).or_default() += 1;
                folders.push(*ino);
            }
        }
        self.nodes.retain(|ino, _| reached.contains_key(ino));
        for (ino, node) in &mut self.nodes {
            (node.links, node.open) = (reached[ino], 0);
            if !luck.keeps_names() {
                node.mode = node.durable_mode;
            }
            node.durable_mode = node.mode;
            if let Body::File(content) = &mut node.body {
                content.cut(&mut luck);
            }
        }
    }

    /// A clean end: all is durable.
    pub fn settle_all(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            self.settle(&change);
        }
        self.nodes.retain(|ino, node| *ino == ROOT || node.links > 0);
        for ino in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.sync_file(ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn text(model: &Model, file: &str) -> Option<String> {
        let node = model.node(model.lookup(ROOT, name(file))?)?;
        let Body::File(content) = &node.body else { return None };
        Some(String::from_utf8_lossy(&content.bytes).into_owned())
    }

    /// A file `a` with durable content `old`, and `new` written beside and renamed over it, with
    /// these two syncs in between.
    fn replaced(file: bool, folder: bool, seed: u64) -> Option<String> {
        let mut model = Model::default();
        model.add(ROOT, name("a"), 2, Node::file(0o644));
        model.write(2, 0, b"old");
        model.settle_all();
        model.add(ROOT, name("b"), 3, Node::file(0o644));
        model.write(3, 0, b"new");
        if file {
            model.sync_file(3);
        }
        model.rename(ROOT, name("b"), ROOT, name("a"));
        if folder {
            model.sync_folder(ROOT);
        }
        assert_eq!(text(&model, "a").as_deref(), Some("new"));
        model.cut(seed);
        text(&model, "a")
    }

    #[test]
    fn only_what_was_synced_is_sure() {
        let all = |file, folder| -> BTreeSet<_> {
            (0..64).map(|seed| replaced(file, folder, seed).unwrap()).collect()
        };
        let set = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(all(true, true), set(&["new"]));
        assert_eq!(all(true, false), set(&["new", "old"]));
        assert_eq!(all(false, false), set(&["", "\0\0\0", "new", "old"]));
    }

    #[test]
    fn what_a_new_folder_holds_is_not_lost_without_it() {
        let mut model = Model::default();
        model.add(ROOT, name("f"), 2, Node::file(0o644));
        model.settle_all();
        model.add(ROOT, name("d"), 3, Node::folder(0o755));
        model.rename(ROOT, name("f"), 3, name("f"));
        model.sync_folder(3);
        model.cut(0);
        assert_eq!(model.lookup(3, name("f")), Some(2));
        assert_eq!(model.lookup(ROOT, name("d")), Some(3));
        assert_eq!(model.lookup(ROOT, name("f")), None);
    }
}
