//! The switch from one release to the next: renames that can be stopped anywhere and run again.
//!
//! A [`Transaction`] is written into the journal as `staged` once every byte it needs lies, verified
//! and synced, in its slots below the state folder. From there on there is only forward:
//!
//! 1. [`clear`]: whatever is replaced, moved or removed is renamed into a slot, either to be put
//!    elsewhere (moved content, swaps, changes of letter case) or to be thrown away at the end. Then
//!    `cleared`.
//! 2. [`place`]: old folders go if empty, folders are made, slots are renamed to their places. What
//!    the old release did not list and is in the way is the player's: it is moved aside to
//!    `<name>.player`, never deleted. Then `committed`.
//!
//! Each step looks at what is there and does what is left to do, so running a phase again after a
//! stop at any point ends in the same tree. Within `clear` nothing new has been placed, so whatever
//! is found at a path is old: this is why the phases are apart.

use crate::tree::{Node, Tree, parent};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;

/// The folder below the install where the launcher keeps all of its own.
pub const STATE_FOLDER: &str = ".updraft";

/// Where replaced and removed files wait until the release is committed; then they are kept
/// ([`crate::kept`]) or thrown away.
pub const OLD_FOLDER: &str = ".updraft/old";

/// One journal record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Record {
    /// Bytes for this release are being gathered in its staging folder.
    Staging {
        /// The release.
        release: Target,
        /// True if it is only fetched, since it is announced for later.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ahead: bool,
    },
    /// All bytes are there; the switch begins.
    Staged {
        /// What is left to do.
        transaction: Transaction,
    },
    /// Everything that had to leave its place has left it.
    Cleared,
    /// The tree is the new release.
    Committed,
}

/// The release a transaction leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// SHA-256 of the manifest's payload, in hexadecimal.
    pub manifest: String,
    /// The torrent's v2 info-hash, in hexadecimal: also the name of the staging folder.
    pub torrent: String,
    /// The version as players know it.
    pub version: String,
    /// The release's number.
    pub sequence: u64,
}

impl Target {
    /// The staging folder, below the install.
    pub fn staging(&self) -> String {
        format!("{STATE_FOLDER}/staging/{}", self.torrent)
    }
}

/// A place below the state folder where a file waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    /// Content of the new release's file of this number.
    New(u32),
    /// Content that leaves the tree: of the old release's file of this number.
    Old(u32),
}

impl Slot {
    /// Its path below the install.
    pub fn path(self, target: &Target) -> String {
        match self {
            Self::New(number) => format!("{}/{number}", target.staging()),
            Self::Old(number) => format!("{OLD_FOLDER}/{number}"),
        }
    }
}

/// One thing that leaves its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clear {
    /// Where it is.
    pub from: String,
    /// Where it goes.
    pub slot: Slot,
    /// If given, only while it has this time of change: what it became since is the player's. Days may lie
    /// between the decision and the switch, and a game that was played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
}

/// One step of the second phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A folder of the old release goes, if nothing is left in it.
    RemoveFolder(String),
    /// A folder is there afterwards.
    MakeFolder(String),
    /// The content of a slot comes to its place.
    Put {
        /// The number of the file in the new release, and of its slot.
        slot: u32,
        /// Its place.
        to: String,
        /// True if a file at that place is of the old release (or a damaged one of this): it is
        /// replaced. Else it is the player's, and moved aside.
        replace: bool,
        /// Whether it may be run.
        executable: bool,
    },
    /// A file that stays gets or loses its executable bit.
    Mode {
        /// The file.
        path: String,
        /// Whether it may be run.
        executable: bool,
    },
}

/// All that is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The release the tree is afterwards.
    pub target: Target,
    /// First phase.
    pub clear: Vec<Clear>,
    /// Second phase.
    pub place: Vec<Place>,
    /// What follows.
    #[serde(default)]
    pub ending: Ending,
}

/// What becomes of the old files once all is in place, and of what was gathered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// They go.
    #[default]
    Discard,
    /// They are kept, so that the release before can come back ([`crate::kept`]).
    Keep,
    /// They go; this was a part of the release, and more follows.
    Part,
}

/// What came of the second phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The player's files that were in the way: old path, new path.
    pub aside: Vec<(String, String)>,
    /// Files whose content was taken away between the decision and the switch: to be fetched again.
    pub missing: Vec<String>,
}

/// A step that the file system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct ApplyError {
    /// What was to be done.
    pub action: &'static str,
    /// To what, below the install.
    pub path: String,
    /// Why not.
    pub source: io::Error,
}

fn at<'a>(action: &'static str, path: &'a str) -> impl FnOnce(io::Error) -> ApplyError + use<'a> {
    move |source| ApplyError { action, path: path.to_owned(), source }
}

/// The first phase. `step` is called before each change; its error stops the work there.
///
/// # Errors
/// A step that failed; run again, the phase goes on from there.
pub fn clear(
    tree: &Tree,
    work: &Transaction,
    step: &mut dyn FnMut() -> io::Result<()>,
) -> Result<(), ApplyError> {
    tree.make_folders(OLD_FOLDER).map_err(at("make", OLD_FOLDER))?;
    let mut touched = BTreeSet::from([OLD_FOLDER.to_owned(), work.target.staging()]);
    for Clear { from, slot, mtime_ns } in &work.clear {
        let to = slot.path(&work.target);
        touched.insert(parent(from).to_owned());
        if tree.exists(&to).map_err(at("look at", &to))? {
            continue;
        }
        // A folder there is the player's: no release file is one.
        let node = tree.node(from).map_err(at("look at", from))?;
        let is_what_it_was = match &node {
            Node::File(stat) => mtime_ns.is_none_or(|then| then == stat.mtime_ns),
            Node::Symlink(_) => mtime_ns.is_none(),
            Node::Folder | Node::Missing | Node::Other => false,
        };
        if is_what_it_was {
            step().map_err(at("move", from))?;
            tree.rename(from, &to).map_err(at("move", from))?;
        }
    }
    sync(tree, &touched)
}

/// The second phase; see [`clear`] for `step`.
///
/// # Errors
/// A step that failed; run again, the phase goes on from there.
pub fn place(
    tree: &Tree,
    work: &Transaction,
    step: &mut dyn FnMut() -> io::Result<()>,
) -> Result<Report, ApplyError> {
    let mut report = Report::default();
    let mut touched = BTreeSet::from([String::new(), work.target.staging()]);
    for action in &work.place {
        match action {
            Place::RemoveFolder(path) => {
                step().map_err(at("remove the folder", path))?;
                tree.remove_folder(path).map_err(at("remove the folder", path))?;
                touch(&mut touched, path);
            }
            Place::MakeFolder(path) => {
                touch(&mut touched, path);
                make_way(tree, path, &mut report, step)?;
            }
            Place::Put { slot, to, replace, executable } => {
                // Also when it is there: a run that was stopped may not have come to the sync.
                touch(&mut touched, to);
                let slot = Slot::New(*slot).path(&work.target);
                let content = tree.node(&slot).map_err(at("look at", &slot))?;
                if content == Node::Missing {
                    let there = tree.node(to).map_err(at("look at", to))?;
                    if matches!(there, Node::Missing | Node::Folder) {
                        report.missing.push(to.clone());
                    }
                    continue;
                }
                // A run that was stopped may have set it and not come to the sync.
                if let Node::File(stat) = &content
                    && (*executable || stat.executable)
                {
                    tree.set_executable(&slot, *executable).map_err(at("set the mode of", to))?;
                }
                make_way(tree, parent(to), &mut report, step)?;
                free_place(tree, to, *replace, &mut report, step)?;
                step().map_err(at("put in place", to))?;
                tree.rename(&slot, to).map_err(at("put in place", to))?;
            }
            Place::Mode { path, executable } => {
                if matches!(tree.node(path), Ok(Node::File(_))) {
                    step().map_err(at("set the mode of", path))?;
                    tree.set_executable(path, *executable).map_err(at("set the mode of", path))?;
                }
            }
        }
    }
    sync(tree, &touched)?;
    Ok(report)
}

/// Makes the folder `path` and its parents; what is in the way and no folder is moved aside.
fn make_way(
    tree: &Tree,
    path: &str,
    report: &mut Report,
    step: &mut dyn FnMut() -> io::Result<()>,
) -> Result<(), ApplyError> {
    if path.is_empty() || tree.node(path).map_err(at("look at", path))? == Node::Folder {
        return Ok(());
    }
    make_way(tree, parent(path), report, step)?;
    match tree.node(path).map_err(at("look at", path))? {
        Node::Folder | Node::Missing => {}
        Node::File(_) | Node::Symlink(_) | Node::Other => aside(tree, path, report, step)?,
    }
    step().map_err(at("make the folder", path))?;
    tree.make_folders(path).map_err(at("make the folder", path))
}

/// Every folder above `path` has, or may have, a changed name in it.
fn touch(touched: &mut BTreeSet<String>, path: &str) {
    let mut folder = parent(path);
    while touched.insert(folder.to_owned()) && !folder.is_empty() {
        folder = parent(folder);
    }
}

/// Makes sure that a rename to `path` replaces nothing of the player's.
fn free_place(
    tree: &Tree,
    path: &str,
    replace: bool,
    report: &mut Report,
    step: &mut dyn FnMut() -> io::Result<()>,
) -> Result<(), ApplyError> {
    match tree.node(path).map_err(at("look at", path))? {
        Node::Missing => Ok(()),
        Node::File(_) | Node::Symlink(_) if replace => Ok(()),
        Node::File(_) | Node::Symlink(_) | Node::Other => aside(tree, path, report, step),
        Node::Folder => {
            step().map_err(at("remove the folder", path))?;
            if !tree.remove_folder(path).map_err(at("remove the folder", path))? {
                aside(tree, path, report, step)?;
            }
            Ok(())
        }
    }
}

fn aside(
    tree: &Tree,
    path: &str,
    report: &mut Report,
    step: &mut dyn FnMut() -> io::Result<()>,
) -> Result<(), ApplyError> {
    step().map_err(at("move aside", path))?;
    let to = tree.move_aside(path).map_err(at("move aside", path))?;
    report.aside.push((path.to_owned(), to));
    Ok(())
}

fn sync(tree: &Tree, folders: &BTreeSet<String>) -> Result<(), ApplyError> {
    for folder in folders {
        tree.sync_folder(folder).map_err(at("sync the folder", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// Everything below a folder but the state folder: path to content; `/` ends a folder's name.
    fn picture(root: &Path) -> BTreeMap<String, String> {
        fn walk(root: &Path, below: &str, out: &mut BTreeMap<String, String>) {
            for entry in std::fs::read_dir(root.join(below)).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                if below.is_empty() && name == STATE_FOLDER {
                    continue;
                }
                let path = if below.is_empty() { name } else { format!("{below}/{name}") };
                let kind = entry.file_type().unwrap();
                if kind.is_symlink() {
                    let to = std::fs::read_link(entry.path()).unwrap();
                    out.insert(path, format!("-> {}", to.display()));
                } else if kind.is_dir() {
                    out.insert(format!("{path}/"), String::new());
                    walk(root, &path, out);
                } else {
                    out.insert(path, std::fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        let mut out = BTreeMap::new();
        walk(root, "", &mut out);
        out
    }

    fn target() -> Target {
        Target { manifest: "m".into(), torrent: "t".into(), version: "2".into(), sequence: 2 }
    }

    fn build(root: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let full = root.join(path);
            if let Some(folder) = path.strip_suffix('/') {
                std::fs::create_dir_all(root.join(folder)).unwrap();
                continue;
            }
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            match content.strip_prefix("-> ") {
                #[cfg(unix)]
                Some(to) => std::os::unix::fs::symlink(to, full).unwrap(),
                _ => std::fs::write(full, content).unwrap(),
            }
        }
    }

    /// Builds `before` and the slots `staged`, runs the transaction with a stop after each number of
    /// steps, runs it again to the end as recovery would, and compares with `after`.
    fn check(
        before: &[(&str, &str)],
        staged: &[(u32, &str)],
        clears: &[(&str, Slot)],
        places: &[Place],
        after: &[(&str, &str)],
    ) {
        let clears = clears.iter().map(|(from, slot)| Clear {
            from: (*from).into(),
            slot: *slot,
            mtime_ns: None,
        });
        let work = Transaction {
            target: target(),
            clear: clears.collect(),
            place: places.to_vec(),
            ending: Ending::Discard,
        };
        let wanted: BTreeMap<String, String> =
            after.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        for stop in 0.. {
            let dir = tempfile::tempdir().unwrap();
            build(dir.path(), before);
            let staging = dir.path().join(work.target.staging());
            std::fs::create_dir_all(&staging).unwrap();
            for (slot, content) in staged {
                build(&staging, &[(&slot.to_string(), content)]);
            }
            let tree = Tree::open(dir.path()).unwrap();
            let (mut journal, _) = Journal::open::<Record>(&tree, ".updraft/journal").unwrap();
            journal.append(&Record::Staged { transaction: work.clone() }).unwrap();
            drop(journal);
            let mut left = stop;
            let mut step = || {
                left -= 1;
                if left < 0 { Err(io::Error::other("stopped here")) } else { Ok(()) }
            };
            let stopped = run(&tree, &mut step).is_err();
            run(&tree, &mut || Ok(())).unwrap();
            assert_eq!(picture(dir.path()), wanted, "stopped after {stop} steps");
            // And once more: nothing is left to do.
            run(&tree, &mut || Ok(())).unwrap();
            assert_eq!(picture(dir.path()), wanted, "again, stopped after {stop} steps");
            if !stopped {
                break;
            }
            assert!(stop < 200, "never ends");
        }
    }

    use crate::journal::Journal;

    /// What recovery does with a journal.
    fn run(tree: &Tree, step: &mut dyn FnMut() -> io::Result<()>) -> Result<(), ApplyError> {
        let (mut journal, records) = Journal::open::<Record>(tree, ".updraft/journal").unwrap();
        let Some(Record::Staged { transaction }) = records.first() else { panic!("no record") };
        if !records.contains(&Record::Cleared) {
            clear(tree, transaction, step)?;
            journal.append(&Record::Cleared).unwrap();
        }
        if !records.contains(&Record::Committed) {
            assert_eq!(place(tree, transaction, step)?.missing, Vec::<String>::new());
            journal.append(&Record::Committed).unwrap();
        }
        Ok(())
    }

    fn put(slot: u32, to: &str, replace: bool) -> Place {
        Place::Put { slot, to: to.into(), replace, executable: false }
    }

    #[test]
    fn replace_add_and_remove() {
        check(
            &[("a", "1"), ("d/b", "old"), ("d/gone", "x"), ("mine", "m"), ("e/gone", "y")],
            &[(0, "2"), (1, "new"), (2, "added")],
            &[("d/gone", Slot::Old(0)), ("e/gone", Slot::Old(1))],
            &[
                Place::RemoveFolder("e".into()),
                Place::MakeFolder("empty".into()),
                put(0, "a", true),
                put(1, "d/b", true),
                put(2, "deep/er/c", false),
            ],
            &[
                ("a", "2"),
                ("d/", ""),
                ("d/b", "new"),
                ("deep/", ""),
                ("deep/er/", ""),
                ("deep/er/c", "added"),
                ("empty/", ""),
                ("mine", "m"),
            ],
        );
    }

    #[test]
    fn swap_two_files_and_move_one() {
        check(
            &[("a", "was a"), ("b", "was b"), ("c", "was c")],
            &[],
            &[("a", Slot::New(1)), ("b", Slot::New(0)), ("c", Slot::New(2))],
            &[put(0, "a", true), put(1, "b", true), put(2, "x/c", false)],
            &[("a", "was b"), ("b", "was a"), ("x/", ""), ("x/c", "was c")],
        );
    }

    #[test]
    fn letter_case() {
        check(
            &[("Data/Read.me", "text")],
            &[],
            &[("Data/Read.me", Slot::New(0))],
            &[Place::RemoveFolder("Data".into()), put(0, "data/read.me", false)],
            &[("data/", ""), ("data/read.me", "text")],
        );
    }

    #[test]
    fn file_and_folder_swap() {
        check(
            &[("thing", "file"), ("box/in", "inside")],
            &[(0, "now a file"), (1, "now inside")],
            &[("thing", Slot::Old(0)), ("box/in", Slot::Old(1))],
            &[Place::RemoveFolder("box".into()), put(0, "box", false), put(1, "thing/in", false)],
            &[("box", "now a file"), ("thing/", ""), ("thing/in", "now inside")],
        );
    }

    #[test]
    fn what_the_player_put_in_the_way_is_moved_aside() {
        check(
            &[("new", "mod"), ("box/in", "listed"), ("box/mod", "mine"), ("dir", "a file")],
            &[(0, "0"), (1, "1"), (2, "2")],
            &[("box/in", Slot::Old(0))],
            &[
                Place::RemoveFolder("box".into()),
                put(0, "new", false),
                put(1, "box", false),
                put(2, "dir/x", false),
            ],
            &[
                ("box", "1"),
                ("box.player/", ""),
                ("box.player/mod", "mine"),
                ("dir.player", "a file"),
                ("dir/", ""),
                ("dir/x", "2"),
                ("new", "0"),
                ("new.player", "mod"),
            ],
        );
    }

    #[cfg(unix)]
    #[test]
    fn symlinks_are_moved_and_never_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("f"), "theirs").unwrap();
        let link = format!("-> {}", outside.path().display());
        check(
            &[("data", &link), ("l", "-> old")],
            &[(0, "ours"), (1, "-> data/f")],
            &[],
            &[put(0, "data/f", true), put(1, "l", true)],
            &[("data.player", &link), ("data/", ""), ("data/f", "ours"), ("l", "-> data/f")],
        );
        assert_eq!(std::fs::read_to_string(outside.path().join("f")).unwrap(), "theirs");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn lost_content_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.make_folders(&target().staging()).unwrap();
        let work = Transaction {
            target: target(),
            clear: vec![Clear { from: "gone".into(), slot: Slot::New(0), mtime_ns: None }],
            place: vec![put(0, "new", false)],
            ending: Ending::Discard,
        };
        clear(&tree, &work, &mut || Ok(())).unwrap();
        let report = place(&tree, &work, &mut || Ok(())).unwrap();
        assert_eq!(report.missing, ["new"]);
    }

    /// A game was played between the decision and the switch.
    #[test]
    fn what_a_file_became_since_the_decision_is_the_players() {
        for changed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            build(dir.path(), &[("settings.ini", "ours"), ("fr/settings.ini", "ours")]);
            let tree = Tree::open(dir.path()).unwrap();
            let staging = dir.path().join(target().staging());
            std::fs::create_dir_all(&staging).unwrap();
            build(&staging, &[("0", "new")]);
            let old = |from: &str, number| {
                let Ok(Node::File(stat)) = tree.node(from) else { panic!("it is there") };
                Clear { from: from.into(), slot: Slot::Old(number), mtime_ns: Some(stat.mtime_ns) }
            };
            let work = Transaction {
                target: target(),
                clear: vec![old("settings.ini", 0), old("fr/settings.ini", 1)],
                place: vec![put(0, "settings.ini", false)],
                ending: Ending::Discard,
            };
            if changed {
                for path in ["settings.ini", "fr/settings.ini"] {
                    let file = std::fs::File::options().write(true).open(dir.path().join(path));
                    let later = std::time::SystemTime::UNIX_EPOCH;
                    file.unwrap().set_modified(later).unwrap();
                }
            }
            clear(&tree, &work, &mut || Ok(())).unwrap();
            let report = place(&tree, &work, &mut || Ok(())).unwrap();
            assert!(report.missing.is_empty());
            let text = |path: &str| std::fs::read_to_string(dir.path().join(path)).ok();
            assert_eq!(text("settings.ini").as_deref(), Some("new"));
            assert_eq!(text("fr/settings.ini"), changed.then(|| "ours".to_owned()));
            let aside = report.aside.first().and_then(|(_, to)| text(to));
            assert_eq!(aside, changed.then(|| "ours".to_owned()));
        }
    }
}
