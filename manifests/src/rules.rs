//! What a torrent cannot say of files: which become the player's, which folders are the player's, and
//! which parts of a build a player may leave out.
//!
//! Rules are lists of patterns over the paths of a release: `*` stays within a folder, `**` does not, `?` is one
//! character, `[ab]` one of several, `{a,b}` one text or the other. Letter case and Unicode form make no
//! difference, as no release has two names that differ in nothing else. The same rules stand in the publisher's
//! configuration, in the signed manifest, and in the record of an install, which outlives both.

use crate::names::{Name, shown};
use crate::path::{NameSet, RelPath, folded};
use crate::plan::{Content, NewFile};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most patterns of one list.
pub const PATTERNS_MAX: usize = 256;
/// The longest pattern in bytes.
pub const PATTERN_LEN_MAX: usize = 256;
/// The most components.
pub const COMPONENTS_MAX: usize = 64;
/// How many files a refusal names.
const NAMED_MAX: usize = 10;

/// What the new version of a configuration file is called that lies beside the player's: `<name>.new`.
pub const BESIDE_SUFFIX: &str = ".new";

/// The rules of one release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Rules {
    /// Configuration: updated as long as the player has not changed it, see [`Class::Config`].
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub config: Patterns,
    /// Made once, then the player's: see [`Class::SeedOnce`]. Goes before `config`.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub seed_once: Patterns,
    /// Folders that are the player's with all that is in them: saves, mods. Nothing of a release lies there.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub owned: Patterns,
    /// Parts that a player may choose. A file of none of them is always installed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<Name, Component>,
}

/// A part of a build: a language, large textures. A file that belongs to several is there if one of them is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Component {
    /// Its files.
    pub files: Patterns,
    /// Whether who chose nothing gets it.
    #[serde(default = "on")]
    pub default: bool,
}

fn on() -> bool {
    true
}

impl Component {
    /// True if a file of this path belongs to it.
    pub fn holds(&self, path: &RelPath) -> bool {
        self.files.fit(&folded(path.as_str()))
    }
}

/// What becomes of a file once it is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It stays as released: else it is damaged.
    Immutable,
    /// The player may change it. An update then keeps it and puts the new version beside it, if there is one.
    Config,
    /// It is made where there is none, by an install or update, and never touched again.
    SeedOnce,
}

/// Which components a player wants, where that is not left to the release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Wanted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub with: BTreeSet<Name>,
    /// Not wanted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without: BTreeSet<Name>,
}

impl Rules {
    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What becomes of a file of this path.
    pub fn class(&self, path: &RelPath) -> Class {
        if self.config.is_empty() && self.seed_once.is_empty() {
            return Class::Immutable;
        }
        let path = folded(path.as_str());
        if self.seed_once.fit(&path) {
            Class::SeedOnce
        } else if self.config.fit(&path) {
            Class::Config
        } else {
            Class::Immutable
        }
    }

    /// True for the player's folders and all that lies in them.
    pub fn is_owned(&self, path: &RelPath) -> bool {
        if self.owned.is_empty() {
            return false;
        }
        let path = folded(path.as_str());
        let mut folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        folders.any(|folder| self.owned.fit(folder)) || self.owned.fit(&path)
    }

    /// True if a file of this path is installed where these components are wanted.
    pub fn wants(&self, path: &RelPath, choice: &Selection) -> bool {
        if self.components.is_empty() {
            return true;
        }
        let path = folded(path.as_str());
        let mut its = self.components.iter().filter(|(_, it)| it.files.fit(&path)).peekable();
        its.peek().is_none() || its.any(|(name, it)| choice.has(name, it.default))
    }

    /// Checks the files of a release against its own rules.
    ///
    /// # Errors
    /// In words, with names: what cannot be.
    pub fn check(&self, files: &[NewFile]) -> Result<(), String> {
        let owned = files.iter().filter(|file| self.is_owned(&file.path));
        refuse(
            owned,
            "in folders that `owned` leaves to the player: take them out of the build, or the \
             folders out of `owned`",
        )?;
        let is_class = |file: &&NewFile| self.class(&file.path) != Class::Immutable;
        let is_link = |file: &&NewFile| matches!(file.content, Content::Symlink { .. });
        let links = files.iter().filter(is_link).filter(is_class);
        refuse(
            links,
            "that are links, which cannot be `config` or `seed-once`: make files of them, or \
             change the patterns",
        )?;
        const TAKEN: &str =
            "with no room beside them for a new version, `<name>.new`: rename what has that name";
        let configs = || files.iter().filter(|file| self.class(&file.path) == Class::Config);
        refuse(configs().filter(|file| beside(&file.path).is_none()), TAKEN)?;
        let mut names = NameSet::new();
        if files.iter().any(|file| names.file(&file.path).is_err()) {
            return Ok(()); // The planner says which.
        }
        let mut is_taken = |path: &RelPath| names.file(path).is_err();
        let taken = configs().filter(|file| beside(&file.path).is_some_and(|path| is_taken(&path)));
        refuse(taken, TAKEN)
    }

    /// Patterns that fit no file: perhaps somebody mistyped them.
    pub fn idle<'r>(&'r self, files: &[NewFile]) -> Vec<&'r str> {
        let files: Vec<String> = files.iter().map(|file| folded(file.path.as_str())).collect();
        let components = self.components.values().map(|component| &component.files);
        let lists = [&self.config, &self.seed_once].into_iter().chain(components);
        let fits = |text: &str| {
            let one = Patterns::try_from(vec![text.to_owned()]).expect("it was read before");
            files.iter().any(|file| one.fit(file))
        };
        lists.flat_map(Patterns::texts).filter(|text| !fits(text)).collect()
    }
}

/// Where the new version of a configuration file goes that the player has changed; `None` if that is no path.
pub fn beside(path: &RelPath) -> Option<RelPath> {
    RelPath::parse(&format!("{path}{BESIDE_SUFFIX}")).ok()
}

fn refuse<'f>(files: impl Iterator<Item = &'f NewFile>, why: &str) -> Result<(), String> {
    let names: Vec<String> = files.map(|file| format!("`{}`", file.path)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let more = match names.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = &names[..names.len().min(NAMED_MAX)];
    Err(format!("files {}{more} {why}", named.join(", ")))
}

impl Selection {
    /// Whether a component is wanted whose default is `default`.
    pub fn has(&self, name: &Name, default: bool) -> bool {
        self.with.contains(name) || default && !self.without.contains(name)
    }

    /// With what somebody asks for now.
    pub fn and(mut self, more: &Self) -> Self {
        self.with = &(&self.with - &more.without) | &more.with;
        self.without = &(&self.without - &more.with) | &more.without;
        self
    }

    /// The components named.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.with.iter().chain(&self.without)
    }
}

/// A list of patterns, ready to be matched.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Patterns {
    texts: Vec<String>,
    set: GlobSet,
}

impl Patterns {
    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// As they were given.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }

    fn fit(&self, folded: &str) -> bool {
        self.set.is_match(folded)
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Patterns {}

/// Why a list of patterns was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// More than [`PATTERNS_MAX`].
    #[error("a list has more than 256 patterns")]
    Many,
    /// Over [`PATTERN_LEN_MAX`], or not of the form of a pattern.
    #[error("`{0}` is no pattern: {1}")]
    Pattern(String, String),
}

impl TryFrom<Vec<String>> for Patterns {
    type Error = PatternError;

    fn try_from(texts: Vec<String>) -> Result<Self, PatternError> {
        if texts.len() > PATTERNS_MAX {
            return Err(PatternError::Many);
        }
        let mut set = GlobSetBuilder::new();
        for text in &texts {
            let refused = |why: String| PatternError::Pattern(shown(text), why);
            if text.is_empty() || text.len() > PATTERN_LEN_MAX {
                return Err(refused("write 1 to 256 bytes".to_owned()));
            }
            // No path has a `\` in it; a pattern from Windows would silently fit nothing.
            if text.contains('\\') || text.starts_with('/') || text.ends_with('/') {
                return Err(refused(
                    "folders are parted by `/`, with none at either end".to_owned(),
                ));
            }
            let glob = GlobBuilder::new(&folded(text)).literal_separator(true).build();
            set.add(glob.map_err(|error| refused(error.kind().to_string()))?);
        }
        let set = set.build();
        let set =
            set.map_err(|e| PatternError::Pattern("the list".into(), e.kind().to_string()))?;
        Ok(Self { texts, set })
    }
}

impl From<Patterns> for Vec<String> {
    fn from(patterns: Patterns) -> Self {
        patterns.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn rules(text: &str) -> Rules {
        toml::from_str(text).unwrap()
    }

    const RULES: &str = r#"
        config = ["settings/*.ini", "**/keys.cfg"]
        seed-once = ["settings/player.ini"]
        owned = ["saves", "profiles/*/mods"]
        [components.french]
        files = ["audio/fr/**", "shared/*"]
        [components.hd]
        files = ["textures/hd/**", "shared/*"]
        default = false
    "#;

    #[test]
    fn classes_and_owned_folders() {
        let rules = rules(RULES);
        for (text, class) in [
            ("settings/a.ini", Class::Config),
            ("Settings/A.INI", Class::Config),
            ("settings/deep/a.ini", Class::Immutable),
            ("keys.cfg", Class::Config),
            ("a/b/keys.cfg", Class::Config),
            ("settings/player.ini", Class::SeedOnce),
            ("saves", Class::Immutable),
        ] {
            assert_eq!(rules.class(&path(text)), class, "{text}");
        }
        for (text, owned) in [
            ("saves", true),
            ("SAVES/a/b", true),
            ("saves2", false),
            ("a/saves", false),
            ("profiles/one/mods/m", true),
            ("profiles/one/other", false),
            ("profiles/mods", false),
        ] {
            assert_eq!(rules.is_owned(&path(text)), owned, "{text}");
        }
    }

    #[test]
    fn components_and_choices() {
        let rules = rules(RULES);
        let choice = |with: &[&str], without: &[&str]| Selection {
            with: with.iter().map(|name| Name::parse(name).unwrap()).collect(),
            without: without.iter().map(|name| Name::parse(name).unwrap()).collect(),
        };
        let wanted = |choice: &Selection| {
            ["game", "audio/fr/x/y", "textures/hd/t", "shared/s"]
                .map(|text| rules.wants(&path(text), choice))
        };
        assert_eq!(wanted(&Selection::default()), [true, true, false, true]);
        assert_eq!(wanted(&choice(&["hd"], &["french"])), [true, false, true, true]);
        assert_eq!(wanted(&choice(&[], &["french"])), [true, false, false, false]);
        let first = choice(&["hd"], &["french"]);
        assert_eq!(first.clone().and(&Selection::default()), first);
        let turned = first.and(&choice(&["french"], &["hd", "more"]));
        assert_eq!(turned, choice(&["french"], &["hd", "more"]));
    }

    #[test]
    fn text_round_trip_and_what_is_not_understood() {
        let read = rules(RULES);
        let text = toml::to_string(&read).unwrap();
        assert_eq!(rules(&text), read, "{text}");
        assert!(rules("").is_empty() && !read.is_empty());
        for (bad, why) in [
            ("config = [\"[a\"]", "no pattern"),
            ("config = [\"\"]", "1 to 256"),
            ("owned = [\"saves\\\\a\"]", "parted by `/`"),
            ("owned = [\"saves/\"]", "parted by `/`"),
            ("transient = [\"a\"]", "unknown field"),
            ("[components.French]\nfiles = []", "not a valid name"),
        ] {
            let error = toml::from_str::<Rules>(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let many = vec!["a".to_owned(); PATTERNS_MAX + 1];
        assert_eq!(Patterns::try_from(many).unwrap_err(), PatternError::Many);
    }

    #[test]
    fn files_that_contradict_the_rules() {
        let rules = rules(RULES);
        let check = |texts: &[&str], expected: Result<(), &str>| {
            let file = |text: &&str| match text.strip_prefix("-> ") {
                Some(text) => {
                    NewFile { path: path(text), content: Content::Symlink { target: path("x") } }
                }
                None => NewFile {
                    path: path(text),
                    content: Content::File { length: 0, root: None, executable: false },
                },
            };
            let files: Vec<_> = texts.iter().map(file).collect();
            match (rules.check(&files), expected) {
                (Ok(()), Ok(())) => {}
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, _) => panic!("{texts:?}: {found:?}"),
            }
        };
        check(&["a", "settings/a.ini", "-> l"], Ok(()));
        check(
            &["a", "saves/1", "Profiles/x/mods/m"],
            Err("`saves/1`, `Profiles/x/mods/m` in folders"),
        );
        check(&["-> settings/a.ini"], Err("links"));
        check(&["settings/a.ini", "settings/A.ini.NEW"], Err("`settings/a.ini` with no room"));
        let long = format!("{}/keys.cfg", "a/".repeat(62).trim_end_matches('/'));
        check(&[&long], Ok(()));
        let long = format!("settings/{}.ini", "x".repeat(250));
        check(&[&long], Err("no room beside"));
        let many: Vec<String> = (0..12).map(|n| format!("saves/{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, Err("`saves/9` and 2 more"));
        let file = |text: &str| NewFile {
            path: path(text),
            content: Content::File { length: 0, root: None, executable: false },
        };
        let files = [file("settings/a.ini"), file("audio/fr/a")];
        let idle = ["**/keys.cfg", "settings/player.ini", "shared/*", "textures/hd/**", "shared/*"];
        assert_eq!(rules.idle(&files), idle);
    }
}
