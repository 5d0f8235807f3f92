//! File classes and components with real processes: what the player changed stays, what was left out is not there.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "every line of this file is a test")]

use std::fs;
use std::path::{Path, PathBuf};

use updraft_tests::clients::{Nginx, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    Install, Place, Product, READY_WAIT, Report, STATE_FOLDER, TRANSFER_WAIT, wait_complete,
};
use updraft_tests::process::Proc;

/// The port of the origin's web server and tracker.
const ORIGIN_PORT: u16 = 8080;

const RULES: &str = r#"
[files]
config = ["settings/*.ini"]
seed-once = ["settings/start.sav"]
owned = ["saves", "mods"]

[files.components.french]
files = ["audio/fr/**"]

[files.components.hd]
files = ["textures/hd/**"]
default = false
"#;

const BIG: u64 = 2 << 20;
const FRENCH: u64 = 300_000;
const HD: u64 = 500_000;
/// The other files of the build.
const SMALL: u64 = 2 * 900 + 500;

struct World {
    lab: Lab,
    product: Product,
    origin: Option<Proc>,
    build: PathBuf,
}

impl World {
    /// A published build with settings, a first save and two components, and its origin.
    fn new() -> Self {
        let lab = Lab::new();
        let origin = lab.node();
        let build = lab.path("build");
        let write = |name: &str, seed, len| content::write_file(&build.join(name), seed, len);
        write("game.pak", 1, BIG);
        write("settings/a.ini", 2, 900);
        write("settings/b.ini", 3, 900);
        write("settings/start.sav", 4, 500);
        write("audio/fr/voices.pak", 5, FRENCH);
        write("textures/hd/all.pak", 6, HD);
        let dir = lab.path("product");
        let product = Product::init(&Place::from(&origin), &dir, "game", origin.addr(ORIGIN_PORT));
        let text = fs::read_to_string(product.config()).unwrap();
        fs::write(product.config(), text + RULES).unwrap();
        let mut world = Self { lab, product, origin: None, build };
        world.publish("1.0");
        world
    }

    fn publish(&mut self, version: &str) {
        self.product.publish(&self.build, version);
        self.origin.get_or_insert_with(|| self.product.serve());
    }

    /// From here on content comes from players alone.
    fn only_players(&mut self) -> Nginx {
        self.origin.take().unwrap().kill();
        fs::remove_dir_all(self.product.repository().join("objects")).unwrap();
        fs::remove_dir_all(self.product.repository().join("packs")).unwrap();
        let web = self.lab.node();
        Nginx::start(&self.lab, &web, &self.product.repository())
    }

    fn install(&self, node: &Node, name: &str) -> Install {
        let place = Place::from(node);
        Install::new(&place, name, &self.lab.path(name), node.addr(PEER_PORT))
    }

    fn installed(&self, flags: &[&str]) -> Install {
        let mut install = self.install(&self.lab.node(), "anna");
        install.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut proc = install.install(self.product.feed(), false);
        wait_complete(&proc, TRANSFER_WAIT);
        proc.finish(READY_WAIT);
        install.flags.clear();
        install
    }

    /// What the folder should hold: the build, with other contents (or none) at some places.
    fn expected(&self, name: &str, changes: &[(&str, Option<&[u8]>)]) -> PathBuf {
        let dir = self.lab.path(name);
        content::copy_tree(&self.build, &dir);
        for (path, bytes) in changes {
            match bytes {
                Some(bytes) => write(&dir.join(path), bytes),
                None => fs::remove_dir_all(dir.join(path)).unwrap(),
            }
        }
        dir
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(content::parent(path)).unwrap();
    fs::write(path, bytes).unwrap();
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn done(mut proc: Proc) -> Report {
    let report = wait_complete(&proc, TRANSFER_WAIT);
    proc.finish(READY_WAIT);
    report
}

/// The explanation of a dry run: path and way of each file.
fn ways(install: &mut Install) -> Vec<(String, String)> {
    install.flags = vec!["--dry-run".into(), "--explain".into()];
    let mut proc = install.update(false);
    proc.finish(TRANSFER_WAIT);
    install.flags.clear();
    let ways = proc.json().into_iter().filter(|event| event["event"] == "planned-file");
    let text = |event: &serde_json::Value, key: &str| event[key].as_str().unwrap().to_owned();
    ways.map(|event| (text(&event, "path"), text(&event, "way"))).collect()
}

/// What the player changed stays over an update, a repair and the way back; what is new lies beside it.
#[test]
fn what_the_player_changed_stays_over_an_update_and_back() {
    let mut world = World::new();
    let mut anna = world.installed(&["--without", "french"]);
    let mine: [(&str, Option<&[u8]>); 7] = [
        ("settings/a.ini", Some(b"my settings")),
        ("settings/start.sav", Some(b"my progress")),
        ("saves/slot1", Some(b"my save")),
        ("mods/game.pak", Some(b"my mod")),
        ("new.pak", Some(b"my file where the next release has one")),
        ("audio", None),
        ("textures", None),
    ];
    for (path, bytes) in mine {
        if let Some(bytes) = bytes {
            write(&anna.dir.join(path), bytes);
        }
    }
    let first = world.expected("first", &mine);
    anna.ask("verify").finish(TRANSFER_WAIT);
    let mut repair = anna.repair();
    repair.finish(TRANSFER_WAIT);
    content::assert_same(&first, &anna.dir, &[STATE_FOLDER]);

    edit(&world.build.join("game.pak"), |bytes| bytes[1000] ^= 1);
    for name in ["a.ini", "b.ini", "start.sav"] {
        edit(&world.build.join("settings").join(name), |bytes| bytes[10] ^= 1);
    }
    content::write_file(&world.build.join("new.pak"), 9, 3000);
    world.publish("1.1");
    let ways = ways(&mut anna);
    let way = |path: &str| ways.iter().find(|(file, _)| file == path).map(|(_, way)| way.as_str());
    // The patch makes all but what it would make out of the file that is the player's now.
    assert_eq!(way("settings/a.ini.new"), Some("whole"), "{ways:?}");
    assert_eq!(way("settings/b.ini"), Some("patch"), "{ways:?}");
    assert_eq!(way("game.pak"), Some("patch"), "{ways:?}");
    assert_eq!(way("settings/start.sav"), Some("leave"), "{ways:?}");
    assert_eq!(way("audio/fr/voices.pak"), Some("leave"), "{ways:?}");
    done(anna.update(false));
    let default = fs::read(world.build.join("settings/a.ini")).unwrap();
    let mut after = mine.to_vec();
    after.retain(|(path, _)| *path != "new.pak");
    after.push(("settings/a.ini.new", Some(&default)));
    after.push(("new.pak.player", mine[4].1));
    let second = world.expected("second", &after);
    content::assert_same(&second, &anna.dir, &[STATE_FOLDER]);
    let mut verify = anna.ask("verify");
    verify.finish(TRANSFER_WAIT);
    assert!(verify.text().contains("\"changed\":2"), "{}", verify.text());
    let mut repair = anna.repair();
    repair.finish(TRANSFER_WAIT);
    content::assert_same(&second, &anna.dir, &[STATE_FOLDER]);

    let report = done(anna.rollback());
    assert_eq!(report.peers + report.http, 0, "{report:?}");
    fs::rename(first.join("new.pak"), first.join("new.pak.player")).unwrap();
    content::assert_same(&first, &anna.dir, &[STATE_FOLDER]);
    anna.ask("verify").finish(TRANSFER_WAIT);
}

/// A configuration that was deleted comes as the release has it; a file that is made once does not come by a
/// repair, and comes with the next release.
#[test]
fn what_was_deleted() {
    let mut world = World::new();
    let anna = world.installed(&["--component", "hd"]);
    for name in ["a.ini", "start.sav"] {
        fs::remove_file(anna.dir.join("settings").join(name)).unwrap();
    }
    let mut verify = anna.ask("verify");
    assert_eq!(verify.wait_exit(TRANSFER_WAIT).code, Some(4), "{}", verify.text());
    anna.repair().finish(TRANSFER_WAIT);
    assert!(anna.dir.join("settings/a.ini").exists());
    assert!(!anna.dir.join("settings/start.sav").exists());
    edit(&world.build.join("game.pak"), |bytes| bytes[1000] ^= 1);
    world.publish("1.1");
    done(anna.update(false));
    content::assert_same(&world.build, &anna.dir, &[STATE_FOLDER]);
}

/// A folder that is adopted: what lies in the player's folders is not even looked at.
#[test]
fn an_adopted_folder_keeps_what_is_the_players() {
    let world = World::new();
    let mut anna = world.install(&world.lab.node(), "anna");
    content::copy_tree(&world.build, &anna.dir);
    write(&anna.dir.join("settings/a.ini"), b"my settings");
    write(&anna.dir.join("settings/start.sav"), b"my progress");
    // The content of a file that is missing, in a folder that nothing is taken from.
    fs::create_dir_all(anna.dir.join("mods")).unwrap();
    fs::rename(anna.dir.join("game.pak"), anna.dir.join("mods/game.pak")).unwrap();
    anna.flags = vec!["--adopt".into(), "--component".into(), "hd".into()];
    let report = done(anna.install(world.product.feed(), false));
    assert!(report.peers + report.http >= BIG, "{report:?}");
    let default = fs::read(world.build.join("settings/a.ini")).unwrap();
    let game = fs::read(world.build.join("game.pak")).unwrap();
    let expected = world.expected(
        "expected",
        &[
            ("settings/a.ini", Some(b"my settings")),
            ("settings/a.ini.new", Some(&default)),
            ("settings/start.sav", Some(b"my progress")),
            ("mods/game.pak", Some(&game)),
        ],
    );
    content::assert_same(&expected, &anna.dir, &[STATE_FOLDER]);
}

/// What would lie in a player's folder is refused before anything is published.
#[test]
fn a_build_with_files_in_a_players_folder_is_refused() {
    let world = World::new();
    write(&world.build.join("saves/slot1"), b"a save");
    let mut proc = world.product.start_publish(&world.build, "1.1");
    let exit = proc.wait_exit(TRANSFER_WAIT);
    assert_eq!(exit.code, Some(3), "{}", proc.text());
    assert!(proc.text().contains("`saves/slot1`") || proc.tail().contains("`saves/slot1`"));
}

/// Installed without a part and with another, changed afterwards, remembered over an update.
#[test]
fn components_are_chosen_added_and_removed() {
    let mut world = World::new();
    let listed = |install: &Install| {
        let mut proc = install.list_components();
        proc.finish(TRANSFER_WAIT);
        let all = proc.json();
        let all = all.iter().filter(|event| event["event"] == "component");
        let it = |event: &serde_json::Value| {
            (event["name"].as_str().unwrap().to_owned(), event["installed"].as_bool().unwrap())
        };
        all.map(it).collect::<Vec<_>>()
    };
    let pair = |french, hd| vec![("french".to_owned(), french), ("hd".to_owned(), hd)];
    let anna = world.installed(&["--without", "french"]);
    let base = world.expected("base", &[("audio", None), ("textures", None)]);
    content::assert_same(&base, &anna.dir, &[STATE_FOLDER]);
    assert_eq!(listed(&anna), pair(false, false));
    let mut repair = anna.repair();
    repair.finish(TRANSFER_WAIT);
    anna.ask("verify").finish(TRANSFER_WAIT);
    content::assert_same(&base, &anna.dir, &[STATE_FOLDER]);
    // A name that is none.
    let mut proc = anna.components("add", &["hd", "german"]);
    assert_eq!(proc.wait_exit(TRANSFER_WAIT).code, Some(2), "{}", proc.text());
    assert!(proc.text().contains("it has `french`, `hd`"), "{}", proc.text());
    assert_eq!(listed(&anna), pair(false, false));
    // Added: that part comes and no more.
    let report = done(anna.components("add", &["hd"]));
    assert_eq!(report.peers + report.http - report.wasted, HD, "{report:?}");
    let with_hd = world.expected("with-hd", &[("audio", None)]);
    content::assert_same(&with_hd, &anna.dir, &[STATE_FOLDER]);
    // Remembered.
    edit(&world.build.join("game.pak"), |bytes| bytes[1000] ^= 1);
    edit(&world.build.join("textures/hd/all.pak"), |bytes| bytes[1000] ^= 1);
    edit(&world.build.join("audio/fr/voices.pak"), |bytes| bytes[1000] ^= 1);
    world.publish("1.1");
    done(anna.update(false));
    let updated = world.expected("updated", &[("audio", None)]);
    content::assert_same(&updated, &anna.dir, &[STATE_FOLDER]);
    // The other way about, what the player put there stays.
    write(&anna.dir.join("textures/hd/mine.pak"), b"mine");
    done(anna.components("remove", &["hd"]));
    let gone = world.expected(
        "gone",
        &[("audio", None), ("textures", None), ("textures/hd/mine.pak", Some(b"mine"))],
    );
    content::assert_same(&gone, &anna.dir, &[STATE_FOLDER]);
    anna.components("remove", &["hd"]).finish(TRANSFER_WAIT);
    done(anna.components("add", &["french"]));
    assert_eq!(listed(&anna), pair(true, false));
    anna.ask("verify").finish(TRANSFER_WAIT);
}

/// Who left a part out gives the rest to others.
#[test]
fn a_player_without_a_component_serves_the_rest() {
    let mut world = World::new();
    let anna = world.installed(&["--without", "french"]);
    let nginx = world.only_players();
    let _seeding = anna.seed();
    let mut ben = world.install(&world.lab.node(), "ben");
    ben.flags =
        ["--peer", &anna.listen().to_string(), "--without", "french"].map(str::to_owned).to_vec();
    let report = done(ben.install(world.product.feed_at(&nginx.url), false));
    assert_eq!((report.peers, report.http), (BIG + SMALL, 0), "{report:?}");
    let base = world.expected("base", &[("audio", None), ("textures", None)]);
    content::assert_same(&base, &ben.dir, &[STATE_FOLDER]);
}

/// Settings of their own, a first save that was played on: the player still has all of the release for others.
#[test]
fn a_player_with_settings_of_their_own_is_a_full_seed() {
    let mut world = World::new();
    let anna = world.installed(&["--component", "hd"]);
    write(&anna.dir.join("settings/a.ini"), b"my settings");
    write(&anna.dir.join("settings/start.sav"), b"my progress");
    edit(&world.build.join("game.pak"), |bytes| bytes[1000] ^= 1);
    edit(&world.build.join("settings/a.ini"), |bytes| bytes[10] ^= 1);
    world.publish("1.1");
    done(anna.update(false));
    fs::remove_file(anna.dir.join("settings/a.ini.new")).unwrap();
    let nginx = world.only_players();
    let _seeding = anna.seed();
    let mut ben = world.install(&world.lab.node(), "ben");
    let peer = anna.listen().to_string();
    ben.flags = ["--peer", &peer, "--component", "hd"].map(str::to_owned).to_vec();
    let report = done(ben.install(world.product.feed_at(&nginx.url), false));
    assert_eq!((report.peers, report.http), (BIG + SMALL + FRENCH + HD, 0), "{report:?}");
    content::assert_same(&world.build, &ben.dir, &[STATE_FOLDER]);
}
