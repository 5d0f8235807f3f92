//! What is in the folder now: looked at where that is enough, hashed where it is not.
//!
//! A file that the installed record lists, with the size and modification time noted there, is what
//! it was. Everything else is read and its BEP 52 root computed. What comes out goes into
//! [`updraft_manifests::plan`]: files whose content is *known*. The player's folders are not looked into.

use crate::error::Error;
use crate::kept;
use crate::links::{self, Links};
use crate::pristine;
use crate::release::{length, link_text};
use crate::stop::Stop;
use crate::tree::{Node, Stat, Tree};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::installed::{Installed, InstalledFile};
use updraft_manifests::path::{RelPath, is_launcher_folder};
use updraft_manifests::places::{Bytes, Place, There};
use updraft_manifests::plan::{Content, NewFile, OldFile};
use updraft_manifests::rules::{Class, Rules, beside};
use updraft_protocol::geometry::BLOCK_LEN;
use updraft_protocol::ids::Sha256Hash;
use updraft_protocol::merkle;

/// The most threads that hash: more only compete for the disk.
const THREADS_MAX: usize = 4;
/// Bytes read at once by each.
const BUFFER_LEN: usize = 256 * 1024;
/// The most files looked at in a folder that is adopted.
const FILES_MAX: usize = 1_000_000;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The record of what is installed, if there is one.
    pub installed: Option<&'a Installed>,
    /// The release that shall be there.
    pub wanted: &'a [NewFile],
    /// Its rules.
    pub rules: &'a Rules,
    /// Read every listed file, whatever size and time say.
    pub thorough: bool,
    /// Look at everything in the folder for content that can be used.
    pub adopt: bool,
    /// The record of the release whose files are kept, if any is.
    pub kept: Option<&'a Installed>,
}

impl Question<'_> {
    /// True for what is the player's by the rules of either release.
    fn is_owned(&self, path: &RelPath) -> bool {
        let before = self.installed.is_some_and(|old| old.release.rules.is_owned(path));
        before || self.rules.is_owned(path)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Files and links whose content is known.
    pub known: Vec<OldFile>,
    /// The modification time that each known file had then, in nanoseconds since 1970.
    pub times: HashMap<RelPath, i64>,
    /// Listed files that are not as the record says.
    pub damaged: Vec<Damage>,
    /// The same of those that the player may change: where they lie.
    pub changed: Vec<RelPath>,
    /// Paths of `config` and `seed-once` files where something lies.
    pub taken: HashSet<RelPath>,
    /// Other files of a folder that is adopted, with their bytes: nobody knows what is in them.
    pub unknown: Vec<(RelPath, u64)>,
}

/// A listed file that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: RelPath,
    /// True if nothing is there.
    pub missing: bool,
    /// Its bytes, if it were right.
    pub length: u64,
}

struct Job<'a> {
    path: RelPath,
    stat: Stat,
    listed: Option<Listed<'a>>,
}

/// A file of the record.
#[derive(Clone, Copy)]
struct Listed<'a> {
    file: &'a InstalledFile,
    /// Its class by the rules of its release.
    class: Class,
}

impl Listed<'_> {
    /// True if the player may change it, or take it away.
    fn may_change(self) -> bool {
        self.class != Class::Immutable || self.file.place != Place::Own
    }
}

/// Looks. `progress` is told bytes hashed and bytes to hash; called from several threads.
///
/// # Errors
/// From the file system, and [`Error::Interrupted`].
pub fn survey(
    tree: &Tree,
    question: &Question<'_>,
    stop: &Stop,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Survey, Error> {
    let mut survey = Survey::default();
    let mut jobs = Vec::new();
    look_at_listed(tree, question, &mut survey, &mut jobs)?;
    look_at_places(tree, question, &mut survey, &mut jobs)?;
    look_at_kept(tree, question, &mut survey, &mut jobs)?;
    look_at_pristine(tree, question, &mut jobs)?;
    if question.adopt {
        look_around(tree, question, &mut survey, &mut jobs)?;
    }
    let roots = hash_all(tree, &jobs, stop, progress)?;
    for (job, root) in jobs.into_iter().zip(roots) {
        survey.take(job, root);
    }
    let Survey { unknown, times, .. } = &mut survey;
    unknown.retain(|(path, _)| !times.contains_key(path));
    Ok(survey)
}

/// Where the bytes of a file of the record lie, or lay.
pub fn place_of(file: &InstalledFile) -> Option<RelPath> {
    match file.place {
        Place::Players => Some(file.path.clone()),
        place @ (Place::Own | Place::Beside { .. } | Place::Absent) => place.of(&file.path),
    }
}

impl Survey {
    /// What lies at a path, as far as places depend on it.
    pub fn there(&self) -> impl Fn(&RelPath) -> There + '_ {
        let known = self.known.iter();
        let known: HashMap<&RelPath, &Content> = known.map(|f| (&f.path, &f.content)).collect();
        move |path| match known.get(path).and_then(|content| Bytes::of(content)) {
            Some(bytes) => There::File(bytes),
            None if self.taken.contains(path) => There::Other,
            None => There::Nothing,
        }
    }

    fn take(&mut self, job: Job<'_>, root: Option<ContentHash>) {
        let Job { path, stat, listed } = job;
        let right = |Listed { file, .. }: Listed<'_>| file.length == stat.len && file.root == root;
        let good = listed.is_some_and(right);
        match listed.filter(|_| !good) {
            Some(listed) if listed.may_change() => self.changed.push(path.clone()),
            Some(Listed { file, .. }) => {
                let path = file.path.clone();
                self.damaged.push(Damage { path, missing: false, length: file.length });
            }
            None => {}
        }
        // A read that failed leaves the content unknown.
        if stat.len > 0 && root.is_none() {
            return;
        }
        let executable = executable(stat, listed.map(|listed| listed.file));
        self.times.insert(path.clone(), stat.mtime_ns);
        let content = Content::File { length: stat.len, root, executable };
        let seeded = listed.is_some_and(|listed| listed.class == Class::SeedOnce);
        // Kept files are ours to use up, whatever is in them.
        let listed = good && !seeded || kept::is_kept(&path);
        self.known.push(OldFile { path, content, listed });
    }
}

/// Where the system has no executable bit, the record's word stands.
fn executable(stat: Stat, listed: Option<&InstalledFile>) -> bool {
    if cfg!(unix) { stat.executable } else { listed.is_some_and(|file| file.executable) }
}

fn look_at_listed<'a>(
    tree: &Tree,
    question: &Question<'a>,
    survey: &mut Survey,
    jobs: &mut Vec<Job<'a>>,
) -> Result<(), Error> {
    let Some(installed) = question.installed else { return Ok(()) };
    let links = links::COPIED.then(|| Links::of(&installed.files));
    for file in &installed.files {
        let Some(path) = place_of(file) else { continue };
        if question.rules.is_owned(&path) {
            // It has become the player's.
            continue;
        }
        let class = installed.release.rules.class(&file.path);
        let listed = Listed { file, class };
        match (look(tree, &path)?, &file.symlink) {
            (Node::Symlink(text), Some(target)) if text == link_text(&path, target) => {
                let content = Content::Symlink { target: target.clone() };
                survey.known.push(OldFile { path, content, listed: true });
            }
            (Node::File(stat), Some(target))
                if is_copy_of(tree, links.as_ref(), &path, target)? =>
            {
                survey.times.insert(path.clone(), stat.mtime_ns);
                let content = Content::Symlink { target: target.clone() };
                survey.known.push(OldFile { path, content, listed: true });
            }
            (Node::File(stat), None) => {
                let same = stat.len == file.length
                    && (stat.len == 0
                        || !question.thorough
                            && file.mtime_ns != 0
                            && stat.mtime_ns == file.mtime_ns);
                if same {
                    survey.times.insert(path.clone(), stat.mtime_ns);
                    let executable = executable(stat, Some(file));
                    let content = Content::File { length: stat.len, root: file.root, executable };
                    let listed = class != Class::SeedOnce;
                    survey.known.push(OldFile { path, content, listed });
                } else {
                    jobs.push(Job { path, stat, listed: Some(listed) });
                }
            }
            (Node::Missing, _) if class == Class::Config && file.place == Place::Own => {
                survey.damaged.push(Damage { path, missing: true, length: file.length });
            }
            (_, _) if listed.may_change() => survey.changed.push(path),
            (node, _) => survey.damaged.push(Damage {
                path,
                missing: node == Node::Missing,
                length: file.length,
            }),
        }
    }
    Ok(())
}

/// Files that the record does not list, at places where the wanted release has some.
fn look_at_places<'a>(
    tree: &Tree,
    question: &Question<'a>,
    survey: &mut Survey,
    jobs: &mut Vec<Job<'a>>,
) -> Result<(), Error> {
    let listed = question.installed.iter().flat_map(|installed| &installed.files);
    let listed: HashSet<_> = listed.filter_map(place_of).map(|path| path.key()).collect();
    for file in question.wanted {
        let class = question.rules.class(&file.path);
        let beside = (class == Class::Config).then(|| beside(&file.path)).flatten();
        for path in [file.path.clone()].into_iter().chain(beside) {
            // By key: on a case-insensitive disk the listed `a` also answers to `A`.
            let is_listed = !listed.is_empty() && listed.contains(&path.key());
            if is_listed && class == Class::Immutable {
                continue;
            }
            let node = look(tree, &path)?;
            if class != Class::Immutable && node != Node::Missing {
                survey.taken.insert(path.clone());
            }
            match (node, &file.content) {
                _ if is_listed => {}
                (Node::Symlink(text), Content::Symlink { target })
                    if text == link_text(&path, target) =>
                {
                    let content = file.content.clone();
                    survey.known.push(OldFile { path, content, listed: false });
                }
                (Node::File(stat), content @ Content::File { .. })
                    if stat.len == length(content) =>
                {
                    jobs.push(Job { path, stat, listed: None });
                }
                (_, Content::File { .. } | Content::Symlink { .. }) => {}
            }
        }
    }
    Ok(())
}

/// What is kept of another release.
fn look_at_kept<'a>(
    tree: &Tree,
    question: &Question<'a>,
    survey: &mut Survey,
    jobs: &mut Vec<Job<'a>>,
) -> Result<(), Error> {
    let files = question.kept.iter().flat_map(|kept| &kept.files).enumerate();
    for (number, file) in files.filter(|(_, file)| file.length > 0) {
        let path = kept::path(number);
        let Node::File(stat) = look(tree, &path)? else { continue };
        if stat.len == file.length && file.mtime_ns != 0 && stat.mtime_ns == file.mtime_ns {
            survey.times.insert(path.clone(), stat.mtime_ns);
            let executable = executable(stat, Some(file));
            let content = Content::File { length: stat.len, root: file.root, executable };
            survey.known.push(OldFile { path, content, listed: true });
        } else {
            jobs.push(Job { path, stat, listed: None });
        }
    }
    Ok(())
}

/// Copies of what the player may change.
fn look_at_pristine<'a>(
    tree: &Tree,
    question: &Question<'a>,
    jobs: &mut Vec<Job<'a>>,
) -> Result<(), Error> {
    let rules = question.rules;
    let files = question.wanted.iter().filter(|file| rules.class(&file.path) != Class::Immutable);
    let copies: BTreeSet<(RelPath, u64)> = files
        .filter_map(|file| {
            let bytes = Bytes::of(&file.content)?;
            Some((pristine::path(bytes)?, bytes.length))
        })
        .collect();
    for (path, length) in copies {
        match look(tree, &path)? {
            Node::File(stat) if stat.len == length => {
                jobs.push(Job { path, stat, listed: None });
            }
            Node::File(_) | Node::Missing | Node::Folder | Node::Symlink(_) | Node::Other => {}
        }
    }
    Ok(())
}

/// Every other file: hashed if its length is that of a wanted one.
fn look_around(
    tree: &Tree,
    question: &Question<'_>,
    survey: &mut Survey,
    jobs: &mut Vec<Job<'_>>,
) -> Result<(), Error> {
    let lengths: HashSet<u64> = question.wanted.iter().map(|file| length(&file.content)).collect();
    let mut seen: HashSet<RelPath> = question.wanted.iter().map(|f| f.path.clone()).collect();
    seen.extend(question.installed.iter().flat_map(|i| &i.files).map(|file| file.path.clone()));
    let mut folders = vec![String::new()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        let names =
            tree.list(&folder).map_err(Error::disk("look into", tree.path().join(&folder)))?;
        for name in names {
            if folder.is_empty() && is_launcher_folder(&name) {
                continue;
            }
            let text = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let Ok(path) = RelPath::parse(&text) else { continue };
            if question.is_owned(&path) {
                continue;
            }
            count += 1;
            match look(tree, &path)? {
                Node::Folder => folders.push(text),
                Node::File(stat) if stat.len > 0 && count < FILES_MAX => {
                    survey.unknown.push((path.clone(), stat.len));
                    if lengths.contains(&stat.len) && seen.insert(path.clone()) {
                        jobs.push(Job { path, stat, listed: None });
                    }
                }
                Node::File(_) | Node::Symlink(_) | Node::Missing | Node::Other => {}
            }
        }
    }
    Ok(())
}

/// True for a file that rightly stands for a link, where links are copies.
fn is_copy_of(
    tree: &Tree,
    links: Option<&Links<'_>>,
    path: &RelPath,
    target: &RelPath,
) -> Result<bool, Error> {
    let Some(links) = links else { return Ok(false) };
    links.is_right(tree, path, target).map_err(Error::disk("look at", path.under(tree.path())))
}

fn look(tree: &Tree, path: &RelPath) -> Result<Node, Error> {
    tree.node(path.as_str()).map_err(Error::disk("look at", path.under(tree.path())))
}

/// The roots of all files, in order; `None` for one that is empty or cannot be read.
fn hash_all(
    tree: &Tree,
    jobs: &[Job<'_>],
    stop: &Stop,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<Option<ContentHash>>, Error> {
    let total = jobs.iter().map(|job| job.stat.len).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let roots = Mutex::new(vec![None; jobs.len()]);
    let work = || {
        let mut buffer = vec![0; BUFFER_LEN];
        while let Some((at, job)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(at).map(|job| (at, job))
        } {
            let read = |bytes: u64| {
                let sum = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                progress(sum, total);
                !stop.is_raised()
            };
            let root = tree
                .open_file(job.path.as_str())
                .and_then(|file| root_of(&file, job.stat.len, &mut buffer, read));
            match root {
                Ok(root) => roots.lock().expect("no thread panics with it")[at] = root,
                Err(error) => tracing::warn!(path = %job.path, %error, "cannot be read"),
            }
            if stop.is_raised() {
                return;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS_MAX).min(jobs.len());
    if threads <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    if stop.is_raised() {
        return Err(Error::Interrupted);
    }
    Ok(roots.into_inner().expect("no thread panics with it"))
}

/// The BEP 52 root of a file of exactly `len` bytes; `None` if it is empty or of another length.
/// `read` is told the bytes of each read; its `false` stops the work.
///
/// # Errors
/// Of reading.
pub fn root_of(
    file: &File,
    len: u64,
    buffer: &mut [u8],
    read: impl Fn(u64) -> bool,
) -> io::Result<Option<ContentHash>> {
    assert!(buffer.len().is_multiple_of(BLOCK_LEN as usize), "whole leaves");
    let mut tree = Tower::default();
    let mut rest = len;
    let mut file = file.take(len);
    while rest > 0 {
        let wanted = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        match file.read_exact(&mut buffer[..wanted]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        for block in buffer[..wanted].chunks(BLOCK_LEN as usize) {
            tree.push(merkle::leaf(block));
        }
        rest -= wanted as u64;
        if !read(wanted as u64) {
            return Ok(None);
        }
    }
    Ok(tree.root().map(|root| ContentHash(root.0)))
}

/// The tree over leaves as they come: at most one node of each level waits for its brother.
#[derive(Default)]
struct Tower {
    waiting: Vec<(usize, Sha256Hash)>,
}

impl Tower {
    fn push(&mut self, leaf: Sha256Hash) {
        let (mut level, mut hash) = (0, leaf);
        while let Some((below, left)) = self.waiting.pop_if(|(waits, _)| *waits == level) {
            assert_eq!(below, level);
            hash = merkle::node(&left, &hash);
            level += 1;
        }
        self.waiting.push((level, hash));
    }

    /// Missing leaves count as zeros up to the next power of two (BEP 52).
    fn root(mut self) -> Option<Sha256Hash> {
        let (mut level, mut hash) = self.waiting.pop()?;
        while let Some((above, left)) = self.waiting.pop() {
            while level < above {
                hash = merkle::node(&hash, &merkle::zero(level));
                level += 1;
            }
            hash = merkle::node(&left, &hash);
            level += 1;
        }
        Some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root_by_the_book(data: &[u8]) -> Sha256Hash {
        let leaves = data.chunks(BLOCK_LEN as usize).map(merkle::leaf).collect();
        merkle::root(leaves, 0, 1)
    }

    fn file_of(data: &[u8]) -> File {
        use std::io::{Seek, Write};
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(data).unwrap();
        file.rewind().unwrap();
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn roots(len in 1usize..700_000, seed: u8) {
            let data: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0].wrapping_mul(7) ^ seed).collect();
            let mut buffer = vec![0; BUFFER_LEN];
            let root = root_of(&file_of(&data), len as u64, &mut buffer, |_| true).unwrap();
            prop_assert_eq!(root.unwrap().0, root_by_the_book(&data).0);
            // Shorter than it should be: no root.
            let root = root_of(&file_of(&data), len as u64 + 1, &mut buffer, |_| true).unwrap();
            prop_assert_eq!(root, None);
        }
    }

    #[test]
    fn the_record_is_believed_only_where_size_and_time_agree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let path = |text: &str| RelPath::parse(text).unwrap();
        let hash = |data: &[u8]| Some(ContentHash(root_by_the_book(data).0));
        for (name, data) in [("same", "a"), ("touched", "b"), ("changed", "X"), ("place", "e")] {
            std::fs::write(dir.path().join(name), data).unwrap();
        }
        let mtime = |name: &str| match tree.node(name).unwrap() {
            Node::File(stat) => stat.mtime_ns,
            _ => 1,
        };
        let listed = |name: &str, data: &[u8], mtime_ns| InstalledFile {
            path: path(name),
            place: Place::Own,
            length: data.len() as u64,
            root: hash(data),
            mtime_ns,
            executable: false,
            symlink: None,
        };
        let installed = Installed {
            release: crate::release::sample(1, ContentHash([0; 32])),
            toward: None,
            files: vec![
                // The hash is a lie that only a thorough look finds.
                listed("same", b"?", mtime("same")),
                listed("touched", b"b", 1),
                listed("changed", b"c", 1),
                listed("gone", b"d", 1),
            ],
        };
        let wanted = [NewFile {
            path: path("place"),
            content: Content::File { length: 1, root: hash(b"e"), executable: false },
        }];
        let ask = |thorough| {
            let question = Question {
                installed: Some(&installed),
                wanted: &wanted,
                rules: &Rules::default(),
                thorough,
                adopt: false,
                kept: None,
            };
            let found = survey(&tree, &question, &Stop::new(), &|_, _| {}).unwrap();
            let mut known: Vec<_> =
                found.known.iter().map(|f| (f.path.to_string(), f.listed)).collect();
            known.sort();
            let mut damaged: Vec<_> =
                found.damaged.iter().map(|d| (d.path.to_string(), d.missing)).collect();
            damaged.sort();
            (known, damaged)
        };
        let own = |list: &[(&str, bool)]| -> Vec<(String, bool)> {
            list.iter().map(|(name, flag)| ((*name).to_owned(), *flag)).collect()
        };
        let (known, damaged) = ask(false);
        let expected = [("changed", false), ("place", false), ("same", true), ("touched", true)];
        assert_eq!(known, own(&expected));
        assert_eq!(damaged, own(&[("changed", false), ("gone", true)]));
        let (_, damaged) = ask(true);
        assert_eq!(damaged, own(&[("changed", false), ("gone", true), ("same", false)]));
    }
}
