//! Clocks that are wrong, and time that passes.

use super::World;
use super::thieves::stays;
use std::fs;
use std::path::Path;
use std::process::Command;
use updraft_manifests::head::HEAD_PATH;
use updraft_tests::content;
use updraft_tests::ours::{Install, Place, READY_WAIT, TRANSFER_WAIT};
use updraft_tests::process::Proc;

/// A program whose clock is set by a file with a line as libfaketime reads it.
fn with_clock(mut command: Command, clock: &Path) -> Proc {
    let folders = fs::read_dir("/usr/lib").expect("there is one").flatten();
    let library = folders
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .find(|path| path.is_file())
        .expect("the package faketime is installed");
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
    // Durations go on as they are: it is the clock on the wall that is wrong.
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Proc::start("a program with a wrong clock", command)
}

fn launcher(install: &Install, arguments: &[&str], clock: &Path) -> Proc {
    let mut command = Place::Here.launcher();
    command.arg("--json").args(arguments).arg("--dir").arg(&install.dir).arg("--no-lan");
    with_clock(command, clock)
}

#[test]
fn wrong_clocks_install_nothing_old_and_lose_nothing() {
    let clock = tempfile::NamedTempFile::new().expect("a file can be made");
    let clock = clock.path().to_owned();
    let set = |line: &str| fs::write(&clock, line).expect("it can be written");
    // While content is fetched the clock steps back by ten years.
    let stepping = clock.clone();
    let world = World::served(move |path, _| {
        if path.starts_with("objects/") || path.starts_with("packs/") {
            fs::write(&stepping, "-3650d").expect("it can be written");
        }
        None
    });
    let feed = world.product.feed();
    let feed = feed.to_str().expect("it is text");
    let anna = world.nobody("anna");
    set("@1970-01-02 00:00:00");
    launcher(&anna, &["install", feed], &clock).finish(TRANSFER_WAIT);
    world.assert_newest(&anna);

    world.publish("2.0", 2);
    set("@2099-01-01 00:00:00");
    stays(&anna, || launcher(&anna, &["update"], &clock), "is unknown since");
    set("+0");
    launcher(&anna, &["update"], &clock).finish(TRANSFER_WAIT);
    assert_eq!(fs::read_to_string(&clock).expect("it is there"), "-3650d", "it stepped back");
    world.assert_newest(&anna);
    // With the clock still ten years back, what is newer than anything seen is still taken.
    world.publish("3.0", 3);
    launcher(&anna, &["update"], &clock).finish(TRANSFER_WAIT);
    world.assert_newest(&anna);
    anna.ask("verify").finish(TRANSFER_WAIT);
}

/// The head is valid for seven days.
#[test]
fn serve_renews_the_head_at_half_its_life_and_says_when_it_cannot() {
    let world = World::new();
    let clock = tempfile::NamedTempFile::new().expect("a file can be made");
    let clock = clock.path();
    let serve = |days: &str, line: &str| {
        fs::write(clock, days).expect("it can be written");
        let any = "127.0.0.1:0";
        let mut command = world.product.command("serve");
        command.args(["--no-seed", "--listen", any, "--listen-bittorrent", any]);
        let mut proc = with_clock(command, clock);
        proc.wait_line(line, READY_WAIT);
        proc.terminate();
        proc.wait_exit(READY_WAIT);
        proc.text()
    };
    // Had it signed one after three days, it would sign none after four.
    serve("+3d", "offering");
    serve("+4d", "signed head 2");
    let key = world.product.dir.join("keys/head.key");
    let away = world.dir.path().join("head.key");
    fs::rename(&key, &away).expect("it can be moved");
    let ask = "run `updraft-publisher head` where the head key is";
    let text = serve("+8d", ask);
    assert!(text.contains("the head expires at"), "{text}");
    let text = serve("+12d", ask);
    assert!(text.contains("players get no updates"), "{text}");
    fs::rename(&away, &key).expect("it can be moved");
    serve("+12d", "signed head 3");
    // Keys that lie open where the world comes in are told of.
    assert!(text.contains("the root key lies here without a passphrase"), "{text}");
}

/// The routine of every year, with years in between: whoever was away walks root by root to the newest release, and
/// an old key is of no use to anybody.
#[test]
fn a_player_comes_back_after_two_years() {
    let world = World::new();
    let clock = tempfile::NamedTempFile::new().expect("a file can be made");
    let clock = clock.path();
    let away = world.install("away");
    let build = world.build.to_str().expect("it is text").to_owned();
    let all = ["keys", "rotate", "root", "release", "launcher", "head", "--no-passphrase"];
    for (days, version, seed) in [("+365d", "2.0", 2), ("+730d", "3.0", 3)] {
        fs::write(clock, days).expect("it can be written");
        content::write_file(&world.build.join("game.bin"), seed, 40_000);
        let publish = ["publish", &build, "--version", version, "--channel", "stable"];
        for arguments in [&all[..], &publish] {
            let mut command = world.product.command(arguments[0]);
            command.args(&arguments[1..]);
            with_clock(command, clock).finish(TRANSFER_WAIT);
        }
    }
    // Until then it goes on with what it has.
    away.ask("verify").finish(TRANSFER_WAIT);
    launcher(&away, &["update"], clock).finish(TRANSFER_WAIT);
    world.assert_newest(&away);
    let head_path = world.product.repository().join(HEAD_PATH);
    let honest = fs::read(&head_path).expect("it is there");
    for old in ["keys/head.until-root-2.key", "keys/head.until-root-3.key"] {
        world.forge_head(&world.key(old), |_| {});
        let text = launcher(&away, &["update"], clock).fails(TRANSFER_WAIT);
        assert!(text.contains("has 0 valid signatures"), "{old}: {text}");
        fs::write(&head_path, &honest).expect("it can be written");
    }
    // Whoever comes anew walks the same way, also with a clock that stands still.
    let ben = world.nobody("ben");
    fs::write(clock, "+0").expect("it can be written");
    let feed = world.product.feed();
    launcher(&ben, &["install", feed.to_str().expect("it is text")], clock).finish(TRANSFER_WAIT);
    world.assert_newest(&ben);
}
