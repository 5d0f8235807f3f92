//! Where each file of a release comes to lie, by its class and by what the player did to it.

use crate::hash::ContentHash;
use crate::installed::{Installed, InstalledFile};
use crate::path::RelPath;
use crate::plan::{Content, NewFile};
use crate::rules::{Class, Rules, Selection, beside};
use std::collections::HashMap;

/// Where the content of one file of a release lies, or shall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// At its path.
    #[default]
    Own,
    /// At [`beside`] its path, where a file lies that the player changed.
    Beside {
        /// What the player's file was made from, as far as that is known. As long as a release has just this,
        /// it has nothing new to put beside it.
        base: Option<Bytes>,
    },
    /// Nowhere: at its path lies what is the player's, or was taken away by the player.
    Players,
    /// Nowhere: its component is not wanted.
    Absent,
}

/// The content of a file, told from any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// How many.
    pub length: u64,
    /// BEP 52 `pieces root`; `None` only if there are none.
    pub root: Option<ContentHash>,
}

/// What lies at a path now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Nothing,
    /// A file of known content.
    File(Bytes),
    /// Something else: whatever it is, somebody put it there.
    Other,
}

/// What the places depend on, besides the files themselves.
pub struct Situation<'a> {
    /// The rules of the release that shall be there.
    pub rules: &'a Rules,
    /// Which components the player wants.
    pub choice: &'a Selection,
    /// The record of what is installed.
    pub installed: Option<&'a Installed>,
    /// Looks at the path of a `config` or `seed-once` file, or beside one.
    pub there: &'a dyn Fn(&RelPath) -> There,
    /// Whether `seed-once` files are made where there are none: by installs and updates, not by repairs.
    pub seeds: bool,
}

/// The place of each file of `new`.
pub fn places(new: &[NewFile], situation: &Situation<'_>) -> Vec<Place> {
    let Situation { rules, choice, installed, .. } = situation;
    if rules.is_empty() {
        return vec![Place::Own; new.len()];
    }
    let records = installed.iter().flat_map(|installed| &installed.files);
    let records: HashMap<&RelPath, &InstalledFile> =
        records.map(|file| (&file.path, file)).collect();
    let place = |file: &NewFile| {
        if !rules.wants(&file.path, choice) {
            return Place::Absent;
        }
        let Some(wanted) = Bytes::of(&file.content) else { return Place::Own };
        match rules.class(&file.path) {
            Class::Immutable => Place::Own,
            Class::Config => {
                config(&file.path, wanted, records.get(&file.path).copied(), situation)
            }
            Class::SeedOnce => match (situation.there)(&file.path) {
                There::Nothing if situation.seeds => Place::Own,
                There::File(bytes) if bytes == wanted => Place::Own,
                There::Nothing | There::File(_) | There::Other => Place::Players,
            },
        }
    };
    new.iter().map(place).collect()
}

fn config(
    path: &RelPath,
    wanted: Bytes,
    record: Option<&InstalledFile>,
    situation: &Situation<'_>,
) -> Place {
    let installed = record.map(|record| (Bytes::of_installed(record), record.place));
    let base = match (installed, (situation.there)(path)) {
        // Whoever deletes a configuration wants that of the release.
        (_, There::Nothing) => return Place::Own,
        (_, There::File(bytes)) if bytes == wanted => return Place::Own,
        (None | Some((_, Place::Absent)), _) => None,
        (Some((was, Place::Own | Place::Players)), There::File(bytes)) if bytes == was => {
            return Place::Own;
        }
        (Some((was, Place::Own | Place::Players)), _) => Some(was),
        (Some((was, Place::Beside { base })), _) => {
            let at = beside(path).map(|beside| (situation.there)(&beside));
            // A player who took it away, or changed it, is done with it.
            if at == Some(There::File(was)) { base } else { Some(was) }
        }
    };
    if base == Some(wanted) { Place::Players } else { Place::Beside { base } }
}

impl Place {
    /// Where the content of the file at `path` in the release lies, if anywhere.
    ///
    /// # Panics
    /// If there is no name beside it, which [`Rules::check`] excludes.
    pub fn of(self, path: &RelPath) -> Option<RelPath> {
        match self {
            Self::Own => Some(path.clone()),
            Self::Beside { .. } => Some(beside(path).expect("checked with the rules")),
            Self::Players | Self::Absent => None,
        }
    }
}

impl Bytes {
    /// Those of a file; `None` of a link.
    pub fn of(content: &Content) -> Option<Self> {
        match content {
            Content::File { length, root, .. } => Some(Self { length: *length, root: *root }),
            Content::Symlink { .. } => None,
        }
    }

    fn of_installed(file: &InstalledFile) -> Self {
        Self { length: file.length, root: file.root }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installed::InstalledRelease;
    use crate::names::{Name, Version};
    use crate::plan::{Action, OldFile, plan};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const RULES: &str = r#"
        config = ["config"]
        seed-once = ["seed"]
        [components.extra]
        files = ["extra"]
    "#;

    /// An install folder as a map, and its record; content is a number, of which releases have those below 10.
    #[derive(Default)]
    struct Folder {
        disk: BTreeMap<String, u8>,
        record: Option<Installed>,
        choice: Selection,
    }

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn bytes(content: u8) -> Bytes {
        Bytes { length: content.into(), root: (content > 0).then_some(ContentHash([content; 32])) }
    }

    fn file(name: &str, content: u8) -> NewFile {
        let Bytes { length, root } = bytes(content);
        NewFile { path: path(name), content: Content::File { length, root, executable: false } }
    }

    impl Folder {
        fn there(&self, path: &RelPath) -> There {
            self.disk.get(path.as_str()).map_or(There::Nothing, |it| There::File(bytes(*it)))
        }

        /// Carries an update out; the actions it took.
        fn update(&mut self, news: &[(&str, u8)], seeds: bool) -> Vec<Action> {
            let rules: Rules = toml::from_str(RULES).unwrap();
            let news: Vec<NewFile> = news.iter().map(|(name, it)| file(name, *it)).collect();
            let situation = Situation {
                rules: &rules,
                choice: &self.choice,
                installed: self.record.as_ref(),
                there: &|path| self.there(path),
                seeds,
            };
            let places = places(&news, &situation);
            let records = self.record.iter().flat_map(|record| &record.files);
            let listed: Vec<(RelPath, Bytes, bool)> = records
                .filter_map(|file| {
                    let at = if file.place == Place::Players { Place::Own } else { file.place };
                    let ours = rules.class(&file.path) != Class::SeedOnce;
                    Some((at.of(&file.path)?, Bytes::of_installed(file), ours))
                })
                .collect();
            let olds: Vec<OldFile> = self
                .disk
                .iter()
                .map(|(name, content)| OldFile {
                    path: path(name),
                    content: file(name, *content).content,
                    listed: listed.iter().any(|(at, was, ours)| {
                        *ours && *was == bytes(*content) && at.as_str() == name
                    }),
                })
                .collect();
            let plan = plan(&olds, &news, &places).unwrap();
            let before = self.disk.clone();
            for path in &plan.remove {
                self.disk.remove(path.as_str());
            }
            for ((new, action), place) in news.iter().zip(&plan.actions).zip(&plan.places) {
                match (action, place) {
                    (Action::Leave, None) | (Action::Keep, Some(_)) => {}
                    (Action::Reuse { from, .. }, Some(place)) => {
                        let content = before[from.as_str()];
                        assert_eq!(bytes(content), Bytes::of(&new.content).unwrap());
                        self.disk.insert(place.to_string(), content);
                    }
                    (Action::Make | Action::Fetch, Some(place)) => {
                        let length = Bytes::of(&new.content).unwrap().length;
                        self.disk.insert(place.to_string(), u8::try_from(length).unwrap());
                    }
                    other => panic!("{other:?}"),
                }
            }
            let installed = |(new, place): (&NewFile, &Place)| {
                let Bytes { length, root } = Bytes::of(&new.content).unwrap();
                InstalledFile {
                    path: new.path.clone(),
                    place: *place,
                    length,
                    root,
                    mtime_ns: 0,
                    executable: false,
                    symlink: None,
                }
            };
            self.record = Some(Installed {
                release: InstalledRelease {
                    product: Name::parse("p").unwrap(),
                    platform: Name::any_platform(),
                    channel: Name::parse("c").unwrap(),
                    version: Version::parse("1").unwrap(),
                    sequence: 1,
                    manifest: ContentHash([0; 32]),
                    torrent: ContentHash([0; 32]),
                    empty_folders: vec![],
                    rules,
                },
                toward: None,
                files: news.iter().zip(&places).map(installed).collect(),
            });
            plan.actions
        }

        fn assert_holds(&self, expected: &[(&str, u8)]) {
            let disk: Vec<_> = self.disk.iter().map(|(name, it)| (name.as_str(), *it)).collect();
            assert_eq!(disk, expected);
        }

        fn put(&mut self, name: &str, content: u8) {
            self.disk.insert(name.to_owned(), content);
        }
    }

    #[test]
    fn a_configuration_that_nobody_changed_is_updated() {
        let mut folder = Folder::default();
        folder.update(&[("config", 1), ("a", 5)], true);
        folder.update(&[("config", 2), ("a", 5)], true);
        folder.assert_holds(&[("a", 5), ("config", 2)]);
        folder.disk.remove("config");
        folder.update(&[("config", 2), ("a", 5)], false);
        folder.assert_holds(&[("a", 5), ("config", 2)]);
        folder.update(&[("a", 5)], true);
        folder.assert_holds(&[("a", 5)]);
    }

    #[test]
    fn a_configuration_that_the_player_changed_is_kept() {
        let mut folder = Folder::default();
        folder.update(&[("config", 1)], true);
        folder.put("config", 20);
        // Nothing new: nothing beside it.
        assert_eq!(folder.update(&[("config", 1), ("a", 5)], true)[0], Action::Leave);
        folder.update(&[("config", 2)], true);
        folder.assert_holds(&[("config", 20), ("config.new", 2)]);
        folder.update(&[("config", 3)], true);
        folder.assert_holds(&[("config", 20), ("config.new", 3)]);
        // Back to what the player's was made from.
        folder.update(&[("config", 1)], true);
        folder.assert_holds(&[("config", 20)]);
        folder.update(&[("config", 3)], true);
        // Read and taken away: it does not come again, the next version does.
        folder.disk.remove("config.new");
        folder.update(&[("config", 3)], true);
        folder.assert_holds(&[("config", 20)]);
        folder.update(&[("config", 4)], true);
        folder.assert_holds(&[("config", 20), ("config.new", 4)]);
        // Taken over by the player.
        folder.put("config", 4);
        folder.update(&[("config", 4)], true);
        folder.assert_holds(&[("config", 4)]);
        folder.update(&[("config", 5)], true);
        folder.assert_holds(&[("config", 5)]);
    }

    #[test]
    fn a_configuration_that_was_there_first_is_kept() {
        let mut folder = Folder::default();
        folder.put("config", 20);
        folder.update(&[("config", 1)], true);
        folder.assert_holds(&[("config", 20), ("config.new", 1)]);
    }

    #[test]
    fn what_is_seeded_once_is_the_players() {
        let mut folder = Folder::default();
        folder.update(&[("seed", 1)], true);
        folder.assert_holds(&[("seed", 1)]);
        folder.update(&[("seed", 2)], true);
        folder.assert_holds(&[("seed", 1)]);
        folder.disk.remove("seed");
        folder.update(&[("seed", 2)], false);
        folder.assert_holds(&[]);
        folder.update(&[("seed", 3)], true);
        folder.update(&[], true);
        folder.assert_holds(&[("seed", 3)]);
    }

    #[test]
    fn components_come_and_go() {
        let mut folder = Folder::default();
        let extra = Name::parse("extra").unwrap();
        folder.choice.without.insert(extra.clone());
        folder.update(&[("extra", 1), ("a", 5)], true);
        folder.assert_holds(&[("a", 5)]);
        folder.choice.without.clear();
        folder.update(&[("extra", 1), ("a", 5)], true);
        folder.assert_holds(&[("a", 5), ("extra", 1)]);
        folder.choice.without.insert(extra);
        folder.update(&[("extra", 2), ("a", 5)], true);
        folder.assert_holds(&[("a", 5)]);
    }

    proptest! {
        /// Whatever releases and players do: what the player wrote stays until the player changes it, and what
        /// the release wants is there.
        #[test]
        fn the_players_content_stays(steps in prop::collection::vec((0u8..8, 0usize..4, 0u8..6, any::<bool>()), 1..30)) {
            const NAMES: [&str; 4] = ["config", "seed", "extra", "config.new"];
            let mut folder = Folder::default();
            for (kind, which, content, flag) in steps {
                match kind {
                    0 => folder.put(NAMES[which], 20 + content),
                    1 => _ = folder.disk.remove(NAMES[which]),
                    2 => {
                        let extra = [Name::parse("extra").unwrap()].into();
                        folder.choice = Selection { without: if flag { extra } else { Default::default() }, ..Selection::default() };
                    }
                    _ => {
                        let before = folder.disk.clone();
                        let mut news = vec![("config", content), ("extra", content), ("plain", 7)];
                        if flag {
                            news.push(("seed", content));
                        }
                        folder.update(&news, true);
                        for name in ["config", "seed"] {
                            if let Some(player) = before.get(name).filter(|content| **content >= 20 || name == "seed") {
                                prop_assert_eq!(folder.disk.get(name), Some(player));
                            }
                        }
                        prop_assert_eq!(folder.disk.get("plain"), Some(&7));
                        prop_assert!(folder.disk.contains_key("config"));
                        prop_assert!(!flag || folder.disk.contains_key("seed"));
                        if folder.choice.without.is_empty() {
                            prop_assert_eq!(folder.disk.get("extra"), Some(&content));
                        } else if let Some(extra) = folder.disk.get("extra") {
                            prop_assert!(*extra >= 20, "only what the player put there stays");
                        }
                        // A second time nothing is left to do.
                        let again = folder.update(&news, true);
                        let idle = |action: &Action| matches!(action, Action::Keep | Action::Leave);
                        prop_assert!(again.iter().all(idle), "{:?}", again);
                    }
                }
            }
        }
    }
}
