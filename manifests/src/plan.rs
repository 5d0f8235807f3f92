//! What an update does to every file: a pure function of what is there and what shall be there.
//!
//! A file's identity is (length, `pieces root`). Never the root alone: BEP 52 does not tell leaves
//! from nodes, so a 64-byte file made of two leaf hashes has the root of a 32 KiB file.

use crate::hash::ContentHash;
use crate::path::{Clash, NameSet, RelPath};
use crate::places::Place;
use std::collections::{HashMap, HashSet};

/// What lies at a path, or shall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file.
    File {
        /// Bytes.
        length: u64,
        /// BEP 52 `pieces root`; `None` only for an empty file.
        root: Option<ContentHash>,
        /// Marked executable.
        executable: bool,
    },
    /// A link.
    Symlink {
        /// Its target, from the install folder.
        target: RelPath,
    },
}

/// A file or link that is in the folder now, its content known to be as stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldFile {
    /// Where it lies.
    pub path: RelPath,
    /// What it is.
    pub content: Content,
    /// True if the installed, signed release listed it: only then may it be removed.
    pub listed: bool,
}

/// A file or link of the new release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Where it shall lie.
    pub path: RelPath,
    /// What it shall be.
    pub content: Content,
}

/// How one new file comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is there, exactly so.
    Keep,
    /// The content is there, the executable mark differs.
    SetExecutable(bool),
    /// The same content lies at another old path.
    Reuse {
        /// The old path.
        from: RelPath,
        /// Nothing of the new release needs `from` after this: a rename will do. Of all uses of one
        /// old path only the last in the plan's order is marked.
        may_move: bool,
    },
    /// An empty file or a link: made without fetching anything.
    Make,
    /// Has to be fetched: all its bytes.
    Fetch,
    /// Nothing is done: it is the player's, or not wanted.
    Leave,
}

/// Bytes and files by how they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files that stay, changed mark or not.
    pub kept_files: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Files renamed or copied from another path.
    pub reused_files: u64,
    /// Their bytes.
    pub reused_bytes: u64,
    /// Files made from nothing.
    pub made_files: u64,
    /// Files to fetch.
    pub fetched_files: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Paths to remove.
    pub removed_files: u64,
}

/// An update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What happens to every new file, in the order given.
    pub actions: Vec<Action>,
    /// Where each of them comes to lie; nowhere if it is left.
    pub places: Vec<Option<RelPath>>,
    /// Old paths that the old signed release listed and the new one does not.
    pub remove: Vec<RelPath>,
    /// Sums.
    pub totals: Totals,
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The new release has names that cannot live beside each other.
    #[error("the release cannot be installed: {0}")]
    Names(#[from] Clash),
    /// A file of the new release has bytes and no root: it could not be verified.
    #[error("the release cannot be installed: `{0}` has no v2 hash")]
    NoRoot(RelPath),
}

impl Plan {
    /// True if nothing has to be done.
    pub fn is_empty(&self) -> bool {
        let idle = |action: &Action| matches!(action, Action::Keep | Action::Leave);
        self.remove.is_empty() && self.actions.iter().all(idle)
    }
}

/// Plans the way from `old` to `new`, whose files come to lie in `places`. Old paths are taken as they are spelled: on a case-insensitive
/// file system a change of case alone is a removal and a reuse, which the caller carries out through
/// a temporary name.
///
/// # Errors
/// [`PlanError`] when `new` could not be installed anywhere.
///
/// # Panics
/// If there are not as many places as new files.
pub fn plan(old: &[OldFile], new: &[NewFile], places: &[Place]) -> Result<Plan, PlanError> {
    assert_eq!(places.len(), new.len(), "a place for each file");
    check(new, places)?;
    // Whatever a record may say of it.
    let players: HashSet<&RelPath> = new
        .iter()
        .zip(places)
        .filter(|(_, place)| **place == Place::Players)
        .map(|(file, _)| &file.path)
        .collect();
    let ours = |file: &OldFile| file.listed && !players.contains(&file.path);
    let places: Vec<Option<RelPath>> =
        new.iter().zip(places).map(|(file, place)| place.of(&file.path)).collect();
    let at: HashMap<&RelPath, &OldFile> = old.iter().map(|file| (&file.path, file)).collect();
    let mut sources: HashMap<(u64, ContentHash), &OldFile> = HashMap::new();
    for file in old {
        if let Some(identity) = identity(&file.content) {
            sources.entry(identity).or_insert(file);
        }
    }
    let wanted: HashMap<&RelPath, &NewFile> =
        places.iter().zip(new).filter_map(|(place, file)| Some((place.as_ref()?, file))).collect();
    let stays = |file: &OldFile| {
        !ours(file) && !wanted.contains_key(&file.path)
            || wanted
                .get(&file.path)
                .is_some_and(|new| identity(&new.content) == identity(&file.content))
    };

    let mut actions = Vec::with_capacity(new.len());
    let mut totals = Totals::default();
    let mut last_use: HashMap<&RelPath, usize> = HashMap::new();
    for (index, file) in new.iter().enumerate() {
        let action = match &places[index] {
            Some(place) => action(at.get(place).copied(), file, &sources),
            None => Action::Leave,
        };
        if let Action::Reuse { .. } = action
            && let Some(source) = identity(&file.content).and_then(|id| sources.get(&id))
            && !stays(source)
        {
            last_use.insert(&source.path, index);
        }
        totals.count(&action, file);
        actions.push(action);
    }
    for index in last_use.into_values() {
        if let Action::Reuse { may_move, .. } = &mut actions[index] {
            *may_move = true;
        }
    }
    let gone = old.iter().filter(|file| ours(file) && !wanted.contains_key(&file.path));
    let remove: Vec<RelPath> = gone.map(|file| file.path.clone()).collect();
    totals.removed_files = remove.len() as u64;
    Ok(Plan { actions, places, remove, totals })
}

fn check(new: &[NewFile], places: &[Place]) -> Result<(), PlanError> {
    let mut names = NameSet::new();
    for (file, place) in new.iter().zip(places) {
        names.file(&file.path)?;
        if let Place::Beside { .. } = place {
            place.of(&file.path).map_or(Ok(()), |beside| names.file(&beside))?;
        }
        if let Content::File { length: 1.., root: None, .. } = file.content {
            return Err(PlanError::NoRoot(file.path.clone()));
        }
    }
    Ok(())
}

/// What two files share when their bytes are the same; `None` for what holds no bytes.
fn identity(content: &Content) -> Option<(u64, ContentHash)> {
    match content {
        Content::File { length, root: Some(root), .. } if *length > 0 => Some((*length, *root)),
        Content::File { .. } | Content::Symlink { .. } => None,
    }
}

fn action(
    old: Option<&OldFile>,
    new: &NewFile,
    sources: &HashMap<(u64, ContentHash), &OldFile>,
) -> Action {
    if let Some(old) = old
        && same_bytes(&old.content, &new.content)
    {
        return match (&old.content, &new.content) {
            (Content::File { executable: was, .. }, Content::File { executable: shall, .. })
                if was != shall =>
            {
                Action::SetExecutable(*shall)
            }
            _ => Action::Keep,
        };
    }
    let Some(identity) = identity(&new.content) else {
        return Action::Make;
    };
    match sources.get(&identity) {
        Some(source) => Action::Reuse { from: source.path.clone(), may_move: false },
        None => Action::Fetch,
    }
}

fn same_bytes(a: &Content, b: &Content) -> bool {
    match (a, b) {
        (
            Content::File { length: a_len, root: a_root, .. },
            Content::File { length: b_len, root: b_root, .. },
        ) => a_len == b_len && (*a_len == 0 || a_root == b_root),
        (Content::Symlink { target: a }, Content::Symlink { target: b }) => a == b,
        (Content::File { .. }, Content::Symlink { .. })
        | (Content::Symlink { .. }, Content::File { .. }) => false,
    }
}

impl Totals {
    fn count(&mut self, action: &Action, file: &NewFile) {
        let bytes = match file.content {
            Content::File { length, .. } => length,
            Content::Symlink { .. } => 0,
        };
        match action {
            Action::Keep | Action::SetExecutable(_) => {
                self.kept_files += 1;
                self.kept_bytes += bytes;
            }
            Action::Reuse { .. } => {
                self.reused_files += 1;
                self.reused_bytes += bytes;
            }
            Action::Make => self.made_files += 1,
            Action::Leave => {}
            Action::Fetch => {
                self.fetched_files += 1;
                self.fetched_bytes += bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn content(seed: u8) -> Content {
        let root = (seed != 0).then_some(ContentHash([seed; 32]));
        Content::File { length: u64::from(seed), root, executable: false }
    }

    fn old(name: &str, seed: u8) -> OldFile {
        OldFile { path: path(name), content: content(seed), listed: true }
    }

    fn new(name: &str, seed: u8) -> NewFile {
        NewFile { path: path(name), content: content(seed) }
    }

    fn planned(old: &[OldFile], new: &[NewFile]) -> Result<Plan, PlanError> {
        plan(old, new, &vec![Place::Own; new.len()])
    }

    fn moved(from: &str, may_move: bool) -> Action {
        Action::Reuse { from: path(from), may_move }
    }

    #[test]
    fn each_way() {
        let mut player = old("mods/mine", 9);
        player.listed = false;
        let olds = [old("keep", 1), old("moved", 2), old("gone", 3), player, old("changed", 4)];
        let mut exec = new("keep2", 1);
        if let Content::File { executable, .. } = &mut exec.content {
            *executable = true;
        }
        let news = [
            new("keep", 1),
            new("there", 2),
            new("again", 2),
            exec,
            new("changed", 5),
            new("empty", 0),
            new("copy", 9),
            new("was-changed", 4),
        ];
        let plan = planned(&olds, &news).unwrap();
        assert_eq!(
            plan.actions,
            [
                Action::Keep,
                moved("moved", false),
                moved("moved", true),
                moved("keep", false),
                Action::Fetch,
                Action::Make,
                moved("mods/mine", false),
                moved("changed", true),
            ]
        );
        assert_eq!(plan.remove, [path("moved"), path("gone")]);
        assert_eq!(plan.totals.fetched_bytes, 5);
        assert_eq!(plan.totals.reused_bytes, 2 + 2 + 1 + 9 + 4);
        assert!(!plan.is_empty());
    }

    #[test]
    fn the_root_alone_is_no_identity() {
        let root = Some(ContentHash([1; 32]));
        let file = |length| Content::File { length, root, executable: false };
        let olds = [OldFile { path: path("a"), content: file(64), listed: true }];
        let news = [
            NewFile { path: path("a"), content: file(32_768) },
            NewFile { path: path("b"), content: file(64) },
        ];
        let plan = planned(&olds, &news).unwrap();
        assert_eq!(plan.actions, [Action::Fetch, moved("a", true)]);
    }

    #[test]
    fn refusals() {
        assert!(matches!(planned(&[], &[new("a", 1), new("A", 2)]), Err(PlanError::Names(_))));
        assert!(matches!(planned(&[], &[new("a", 1), new("a/b", 2)]), Err(PlanError::Names(_))));
        let bare = NewFile {
            path: path("a"),
            content: Content::File { length: 1, root: None, executable: false },
        };
        assert_eq!(planned(&[], &[bare]), Err(PlanError::NoRoot(path("a"))));
    }

    #[test]
    fn exec_bit_and_links() {
        let link = |to: &str| Content::Symlink { target: path(to) };
        let file = |executable| Content::File { length: 0, root: None, executable };
        let olds = [
            OldFile { path: path("l"), content: link("x"), listed: true },
            OldFile { path: path("m"), content: link("x"), listed: true },
            OldFile { path: path("e"), content: file(true), listed: true },
        ];
        let news = [
            NewFile { path: path("l"), content: link("x") },
            NewFile { path: path("m"), content: link("y") },
            NewFile { path: path("e"), content: file(false) },
        ];
        let plan = planned(&olds, &news).unwrap();
        assert_eq!(plan.actions, [Action::Keep, Action::Make, Action::SetExecutable(false)]);
    }

    proptest! {
        /// Carries the plan out on a map and compares with the release.
        #[test]
        fn leads_to_the_new_release(
            olds in prop::collection::btree_map(0u8..12, (0u8..6, any::<bool>()), 0..10),
            news in prop::collection::btree_map(0u8..12, 0u8..6, 0..10),
        ) {
            let name = |n: &u8| format!("f{n}");
            let olds: Vec<_> = olds.iter().map(|(n, (seed, listed))| OldFile { listed: *listed, ..old(&name(n), *seed) }).collect();
            let news: Vec<_> = news.iter().map(|(n, seed)| new(&name(n), *seed)).collect();
            let plan = planned(&olds, &news).unwrap();
            let before: BTreeMap<_, _> = olds.iter().map(|f| (f.path.clone(), f.content.clone())).collect();
            let mut staged = BTreeMap::new();
            let mut gone = BTreeSet::new();
            for (file, action) in news.iter().zip(&plan.actions) {
                match action {
                    Action::Keep | Action::SetExecutable(_) => {
                        prop_assert!(!gone.contains(&file.path));
                        staged.insert(file.path.clone(), before[&file.path].clone());
                    }
                    Action::Reuse { from, may_move } => {
                        prop_assert!(!gone.contains(from), "moved away before its last use");
                        staged.insert(file.path.clone(), before[from].clone());
                        if *may_move { gone.insert(from.clone()); }
                    }
                    Action::Leave => prop_assert!(false),
                    Action::Make | Action::Fetch => { staged.insert(file.path.clone(), file.content.clone()); }
                }
            }
            for file in &news {
                prop_assert_eq!(&staged[&file.path], &file.content);
            }
            for file in &olds {
                let is_new = news.iter().any(|n| n.path == file.path);
                prop_assert_eq!(plan.remove.contains(&file.path), file.listed && !is_new);
                // What a player put there is never moved away.
                prop_assert!(file.listed || is_new || !gone.contains(&file.path));
            }
        }
    }
}
