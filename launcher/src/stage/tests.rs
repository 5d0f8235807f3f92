//! Transactions that come of plans, with files on a disk.

use super::*;
use crate::apply::{clear, place};
use crate::stop::Stop;
use crate::survey::{Question, root_of, survey};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::installed::InstalledRelease;
use updraft_manifests::names::Name;
use updraft_protocol::geometry::Geometry;
use updraft_protocol::ids::InfoHashes;
use updraft_protocol::metainfo::Info;

const RULES: &str = r#"
    config = ["set/*.ini"]
    seed-once = ["set/seed"]
    owned = ["mine"]
    [components.extra]
    files = ["extra/**"]
"#;

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn root(data: &[u8]) -> Option<ContentHash> {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    file.rewind().unwrap();
    root_of(&file, data.len() as u64, &mut vec![0; 16384], |_| true).unwrap()
}

/// `-> target` is a link; `x:` before the content marks an executable.
fn release(version: u8, files: &[(&str, &str)], empty: &[&str]) -> Release {
    let content = |text: &str| match text.strip_prefix("-> ") {
        Some(target) => Content::Symlink { target: path(target) },
        None => {
            let (executable, data) = match text.strip_prefix("x:") {
                Some(data) => (true, data),
                None => (false, text),
            };
            let length = data.len() as u64;
            Content::File { length, root: root(data.as_bytes()), executable }
        }
    };
    let info = Info {
        raw: bytes::Bytes::new(),
        hashes: InfoHashes { v1: None, v2: None },
        name: "t".into(),
        private: false,
        single_file: false,
        files: vec![],
        geometry: Geometry::new(16384, 0, vec![]).unwrap(),
        v1_pieces: None,
    };
    Release {
        identity: InstalledRelease {
            empty_folders: empty.iter().map(|folder| path(folder)).collect(),
            rules: toml::from_str(RULES).unwrap(),
            ..crate::release::sample(version.into(), ContentHash([version; 32]))
        },
        info: std::sync::Arc::new(info),
        leaf_index: None,
        packs: None,
        patches: None,
        files: files
            .iter()
            .map(|(name, text)| NewFile { path: path(name), content: content(text) })
            .collect(),
    }
}

/// What an update asks of the folder.
fn question<'a>(
    wanted: &'a Release,
    installed: Option<&'a Installed>,
    kept: Option<&'a Installed>,
) -> Question<'a> {
    let (wanted, rules) = (&wanted.files[..], &wanted.identity.rules);
    Question { installed, wanted, rules, thorough: false, adopt: false, kept }
}

/// Brings `release` into the folder the way an update does, the swarm left out.
fn bring(
    tree: &Tree,
    release: &Release,
    files: &[(&str, &str)],
    old: Option<&Installed>,
) -> Installed {
    bring_chosen(tree, release, files, old, &Selection::default())
}

fn bring_chosen(
    tree: &Tree,
    release: &Release,
    files: &[(&str, &str)],
    old: Option<&Installed>,
    choice: &Selection,
) -> Installed {
    let kept = kept::record(tree).unwrap();
    let asked = question(release, old, kept.as_ref());
    let found = survey(tree, &asked, &Stop::new(), &|_, _| {}).unwrap();
    let stage = Stage::new(tree, release, old, choice, found, false).unwrap();
    stage.prepare(&HashMap::new()).unwrap();
    let fetched = stage.fetched();
    for (at, slot) in stage.paths_staged().iter().enumerate() {
        if fetched[at] {
            let text = files[at].1;
            std::fs::write(slot, text.strip_prefix("x:").unwrap_or(text)).unwrap();
        }
    }
    let (work, next) = stage.transaction().unwrap();
    clear(tree, &work, &mut || Ok(())).unwrap();
    let report = place(tree, &work, &mut || Ok(())).unwrap();
    assert!(report.missing.is_empty(), "{report:?}");
    if work.ending == Ending::Keep {
        kept::label(tree, old.unwrap()).unwrap();
    }
    kept::keep(tree).unwrap();
    tree.remove_all(".updraft/staging").unwrap();
    next
}

/// A folder to install to.
fn folder() -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    (dir, tree)
}

/// Everything in it, but the launcher's own: paths with what they hold.
fn assert_holds(tree: &Tree, expected: &[&str]) {
    let mut out = Vec::new();
    picture(tree, "", &mut out);
    assert_eq!(out, expected);
}

fn picture(tree: &Tree, folder: &str, out: &mut Vec<String>) {
    for name in tree.list(folder).unwrap() {
        if name == ".updraft" {
            continue;
        }
        let below = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        match tree.node(&below).unwrap() {
            Node::Folder => {
                out.push(format!("{below}/"));
                picture(tree, &below, out);
            }
            Node::File(stat) => {
                let text = std::fs::read_to_string(tree.path().join(&below)).unwrap();
                let mark = if stat.executable { "x:" } else { "" };
                out.push(format!("{below}={mark}{text}"));
            }
            Node::Symlink(target) => out.push(format!("{below}->{target}")),
            Node::Missing | Node::Other => panic!("{below}"),
        }
    }
}

type Files<'a> = &'a [(&'a str, &'a str)];

/// Installs `old`, lets the player put `player` there, updates to `new`.
fn check(old: Files<'_>, player: Files<'_>, new: Files<'_>, empty: &[&str], after: &[&str]) {
    let (dir, tree) = folder();
    let first = bring(&tree, &release(1, old, &["old-empty"]), old, None);
    for (name, text) in player {
        let full = dir.path().join(name);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(full, text).unwrap();
    }
    let second = bring(&tree, &release(2, new, empty), new, Some(&first));
    assert_holds(&tree, after);
    let in_new = |name: &str| new.iter().any(|(new, _)| *new == name);
    let changed = player.iter().any(|(name, _)| name.starts_with("set/") && in_new(name));
    assert_done(&tree, &release(2, new, empty), &second, changed);
    // And back again, without a byte of the old release, unless the player changed some: whatever
    // is fetched would panic.
    if player.is_empty() {
        let back = bring(&tree, &release(1, old, &["old-empty"]), &[], Some(&second));
        assert_done(&tree, &release(1, old, &["old-empty"]), &back, false);
    }
}

/// What was recorded is what is there: nothing has to be done again, and only what the player `changed` is
/// hashed again.
fn assert_done(tree: &Tree, wanted: &Release, installed: &Installed, changed: bool) {
    let asked = question(wanted, Some(installed), None);
    let hashed = std::sync::atomic::AtomicU64::new(0);
    let found = survey(tree, &asked, &Stop::new(), &|done, _| {
        hashed.store(done, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(hashed.into_inner() > 0, changed);
    let choice = Selection::default();
    let stage = Stage::new(tree, wanted, Some(installed), &choice, found, false).unwrap();
    assert!(stage.is_done(), "{:?}", stage.plan());
}

#[test]
fn an_ordinary_update() {
    check(
        &[("a", "1"), ("d/b", "same"), ("d/gone", "x"), ("run", "prog")],
        &[("mods/m", "mine")],
        &[("a", "2"), ("d/b", "same"), ("e/new", "n"), ("none", ""), ("run", "x:prog")],
        &["empty"],
        &[
            "a=2",
            "d/",
            "d/b=same",
            "e/",
            "e/new=n",
            "empty/",
            "mods/",
            "mods/m=mine",
            "none=",
            // Elsewhere there is no such mark to be seen.
            if cfg!(unix) { "run=x:prog" } else { "run=prog" },
        ],
    );
}

#[test]
fn content_moves_swaps_and_is_copied() {
    check(
        &[("a", "was a"), ("b", "was b"), ("big", "content"), ("old/n", "moved")],
        &[],
        &[
            ("a", "was b"),
            ("b", "was a"),
            ("big", "content"),
            ("copy", "content"),
            ("n/n", "moved"),
        ],
        &[],
        &["a=was b", "b=was a", "big=content", "copy=content", "n/", "n/n=moved"],
    );
}

#[test]
fn folders_and_files_change_places() {
    check(
        &[("box/in", "i"), ("thing", "file")],
        &[("box/mod", "mine")],
        &[("box", "file"), ("thing/in", "i")],
        &[],
        &["box=file", "box.player/", "box.player/mod=mine", "thing/", "thing/in=i"],
    );
}

#[test]
fn letter_case_changes() {
    check(
        &[("Data/File", "content"), ("README", "r")],
        &[],
        &[("data/file", "content"), ("readme", "r")],
        &[],
        &["data/", "data/file=content", "readme=r"],
    );
}

#[test]
fn what_the_player_changed_is_not_removed_and_foreign_files_step_aside() {
    check(
        &[("conf", "default"), ("data", "1")],
        &[("conf", "my settings"), ("new", "my file")],
        &[("data", "2"), ("new", "theirs")],
        &[],
        &["conf=my settings", "data=2", "new=theirs", "new.player=my file"],
    );
}

#[cfg(unix)]
#[test]
fn links() {
    check(
        &[("a", "1"), ("l", "-> a"), ("m", "-> a")],
        &[],
        &[("a", "1"), ("d/l", "-> a"), ("m", "now a file")],
        &[],
        &["a=1", "d/", "d/l->../a", "m=now a file"],
    );
}

#[test]
fn what_the_player_may_change_is_kept() {
    check(
        &[("set/a.ini", "1"), ("set/b.ini", "1"), ("set/c.ini", "1"), ("set/seed", "s1")],
        &[
            ("mine/save", "x"),
            ("set/a.ini", "my settings"),
            ("set/c.ini", "mine, too"),
            ("set/seed", "played"),
        ],
        &[("set/a.ini", "2"), ("set/b.ini", "2"), ("set/c.ini", "1"), ("set/seed", "s2")],
        &["mine/folder"],
        &[
            "mine/",
            "mine/folder/",
            "mine/save=x",
            "set/",
            "set/a.ini=my settings",
            "set/a.ini.new=2",
            "set/b.ini=2",
            "set/c.ini=mine, too",
            "set/seed=played",
        ],
    );
}

#[test]
fn what_becomes_immutable_steps_aside_and_what_goes_stays_if_changed() {
    check(
        &[("set/a.ini", "1"), ("set/b.ini", "1"), ("set/c.ini", "1"), ("set/seed", "s1")],
        &[("set/b.ini", "mine")],
        &[("a", "2")],
        &[],
        &["a=2", "set/", "set/b.ini=mine", "set/seed=s1"],
    );
    let (dir, tree) = folder();
    let files = [("set/a.ini", "1"), ("set/seed", "1")];
    let first = bring(&tree, &release(1, &files, &[]), &files, None);
    std::fs::write(dir.path().join("set/a.ini"), "mine").unwrap();
    std::fs::write(dir.path().join("set/seed"), "mine, too").unwrap();
    let files = [("set/a.ini", "2"), ("set/seed", "2")];
    let mut next = release(2, &files, &[]);
    next.identity.rules = Rules::default();
    bring(&tree, &next, &files, Some(&first));
    let after =
        ["set/", "set/a.ini=2", "set/a.ini.player=mine", "set/seed=2", "set/seed.player=mine, too"];
    assert_holds(&tree, &after);
}

#[test]
fn a_changed_configuration_over_an_update_and_back() {
    let (dir, tree) = folder();
    let files = |version| [("a", version), ("set/a.ini", version)];
    let [one, two] = [1, 2]
        .map(|version: u8| release(version, &files(["", "1", "2"][usize::from(version)]), &[]));
    let first = bring(&tree, &one, &files("1"), None);
    std::fs::write(dir.path().join("set/a.ini"), "mine").unwrap();
    let second = bring(&tree, &two, &files("2"), Some(&first));
    assert_holds(&tree, &["a=2", "set/", "set/a.ini=mine", "set/a.ini.new=2"]);
    let back = bring(&tree, &one, &[], Some(&second));
    assert_holds(&tree, &["a=1", "set/", "set/a.ini=mine"]);
    // Deleted, it comes as the release has it.
    std::fs::remove_file(dir.path().join("set/a.ini")).unwrap();
    bring(&tree, &two, &files("2"), Some(&back));
    assert_holds(&tree, &["a=2", "set/", "set/a.ini=2"]);
}

#[test]
fn a_folder_that_becomes_the_players_is_left_as_it_is() {
    let (_dir, tree) = folder();
    let files = [("mine/mod", "old"), ("a", "1")];
    let mut one = release(1, &files, &["mine/empty"]);
    one.identity.rules = Rules::default();
    let first = bring(&tree, &one, &files, None);
    let files = [("a", "1"), ("b", "old")];
    bring(&tree, &release(2, &files, &[]), &files, Some(&first));
    assert_holds(&tree, &["a=1", "b=old", "mine/", "mine/empty/", "mine/mod=old"]);
}

#[cfg(unix)]
#[test]
fn a_link_to_the_players_folder_stays() {
    let (dir, tree) = folder();
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(other.path(), dir.path().join("mine")).unwrap();
    let files = [("a", "1")];
    bring(&tree, &release(1, &files, &["mine/saves"]), &files, None);
    assert!(matches!(tree.node("mine"), Ok(Node::Symlink(_))));
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn components_are_left_out_added_and_removed() {
    let (dir, tree) = folder();
    let extra = Name::parse("extra").unwrap();
    let without = Selection { without: [extra].into(), ..Selection::default() };
    let files = [("a", "1"), ("extra/deep/e", "2"), ("extra/f", "3")];
    let one = release(1, &files, &[]);
    let first = bring_chosen(&tree, &one, &files, None, &without);
    assert_holds(&tree, &["a=1"]);
    let all = bring(&tree, &one, &files, Some(&first));
    assert_holds(&tree, &["a=1", "extra/", "extra/deep/", "extra/deep/e=2", "extra/f=3"]);
    std::fs::write(dir.path().join("extra/mod"), "mine").unwrap();
    std::fs::write(dir.path().join("extra/f"), "changed").unwrap();
    let next = [("a", "2"), ("extra/deep/e", "4"), ("extra/f", "3")];
    let last = bring_chosen(&tree, &release(2, &next, &[]), &next, Some(&all), &without);
    // What the player changed is the player's.
    assert_holds(&tree, &["a=2", "extra/", "extra/f=changed", "extra/mod=mine"]);
    assert!(last.files[1..].iter().all(|file| file.place == FilePlace::Absent));
}

/// A release is planned over what the player has, and prepared.
fn staged<'a>(tree: &'a Tree, release: &'a Release, old: &'a Installed) -> Stage<'a> {
    let asked = question(release, Some(old), None);
    let found = survey(tree, &asked, &Stop::new(), &|_, _| {}).unwrap();
    let choice = Selection::default();
    let stage = Stage::new(tree, release, Some(old), &choice, found, false).unwrap();
    stage.prepare(&HashMap::new()).unwrap();
    stage
}

/// An earlier run had to fetch what this one finds: what it got so far is not taken for the file.
#[test]
fn what_was_fetched_in_part_does_not_stand_in_for_what_is_moved() {
    let (_dir, tree) = folder();
    let files = [("a", "content")];
    let old = bring(&tree, &release(1, &files, &[]), &files, None);
    let new = release(2, &[("b", "content")], &[]);
    tree.make_folders(&new.target().staging()).unwrap();
    let slot = Slot::New(0).path(&new.target());
    std::fs::write(tree.path().join(&slot), "half").unwrap();
    let stage = staged(&tree, &new, &old);
    let (work, _) = stage.transaction().unwrap();
    clear(&tree, &work, &mut || Ok(())).unwrap();
    place(&tree, &work, &mut || Ok(())).unwrap();
    assert_holds(&tree, &["b=content"]);
}

#[test]
fn a_copy_of_what_changed_meanwhile_is_not_installed() {
    let (_dir, tree) = folder();
    let files = [("set/a.ini", "default")];
    let old = bring(&tree, &release(1, &files, &[]), &files, None);
    let new = release(2, &[("set/a.ini", "default"), ("defaults", "default")], &[]);
    let stage = staged(&tree, &new, &old);
    std::fs::write(tree.path().join("set/a.ini"), "the player's").unwrap();
    assert!(matches!(stage.transaction(), Err(Unready::Changed(_))));
}

/// The engine would mend what the player makes of it until the switch.
#[test]
fn settings_that_become_something_else_are_out_of_the_engines_hands() {
    let (_dir, tree) = folder();
    let files = [("set/a.ini", "default")];
    let old = bring(&tree, &release(1, &files, &[]), &files, None);
    let new = release(2, &[("presets", "default")], &[]);
    assert_eq!(staged(&tree, &new, &old).at_risk(), [true]);
}
