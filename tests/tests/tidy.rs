//! The structure of the workspace, asserted from its sources and from `cargo metadata`: what
//! ARCHITECTURE.md calls invariants.

#![allow(clippy::unwrap_used, reason = "every line of this file is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the tests lie in the workspace").to_owned()
}

/// The Rust sources under a folder of the workspace, path (from the root, with `/`) to text.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(dir) = folders.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no sources");
    found
}

/// A source without comments and without the tests at its end.
fn shipped(source: &str) -> String {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Asserts that none of the shipped sources under `folder`, but for `except`, contains a needle.
fn check_absent(folder: &str, except: &[&str], needles: &[&str]) {
    let mut hits = Vec::new();
    for (path, source) in sources(folder) {
        if except.iter().any(|prefix| path.starts_with(prefix)) || path.ends_with("tests.rs") {
            continue;
        }
        let code = shipped(&source);
        hits.extend(
            needles
                .iter()
                .filter(|needle| code.contains(**needle))
                .map(|needle| format!("{path}: {needle}")),
        );
    }
    assert!(hits.is_empty(), "not allowed here:\n{}", hits.join("\n"));
}

/// The workspace's own crates that each of them depends on outside tests.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut arrows = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let to = package["dependencies"].as_array().unwrap().iter();
        let to = to.filter(|dependency| dependency["kind"] != "dev");
        let to = to.filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned);
        arrows.insert(package["name"].as_str().unwrap().to_owned(), to.collect());
    }
    arrows
}

#[test]
fn crates_know_only_what_they_may() {
    let ours = [
        "updraft-protocol",
        "updraft-manifests",
        "updraft-hosting",
        "updraft-publisher",
        "updraft-launcher",
        "updraft-tests",
    ];
    let arrows = arrows();
    for (from, allowed) in [
        ("updraft-protocol", &[][..]),
        ("updraft-manifests", &[][..]),
        ("updraft-hosting", &["updraft-protocol", "updraft-manifests"][..]),
        ("updraft-publisher", &["updraft-protocol", "updraft-manifests", "updraft-hosting"][..]),
        ("updraft-launcher", &["updraft-protocol", "updraft-manifests", "updraft-hosting"][..]),
    ] {
        let to: Vec<_> = ours.iter().filter(|name| arrows[from].contains(**name)).collect();
        let wrong: Vec<_> = to.iter().filter(|name| !allowed.contains(**name)).collect();
        assert!(wrong.is_empty(), "{from} must not know {wrong:?}");
    }
    for (from, to) in &arrows {
        assert!(!to.contains("updraft-tests"), "{from} must not know the tests");
    }
}

#[test]
fn the_core_of_the_protocol_does_no_io() {
    check_absent(
        "protocol/src",
        &["protocol/src/io/", "protocol/src/lib.rs"],
        &[
            "std::fs",
            "std::thread",
            "std::env",
            "std::process",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "tokio",
            "reqwest",
            "socket2",
            "getrandom",
            "Instant::now",
            "SystemTime",
            "crate::io",
        ],
    );
}

#[test]
fn the_swarm_and_its_policy_share_nothing_behind_locks() {
    for folder in ["protocol/src/swarm", "protocol/src/policy", "protocol/src/wire"] {
        check_absent(folder, &[], &["Mutex", "RwLock", "thread_local", "static mut", "Atomic"]);
    }
    check_absent("protocol/src/policy", &[], &["crate::swarm", "super::swarm"]);
    check_absent("protocol/src/wire", &[], &["crate::swarm", "crate::policy"]);
}

#[test]
fn manifests_are_pure_values() {
    check_absent(
        "manifests/src",
        &[],
        &[
            "std::fs",
            "std::net",
            "std::thread",
            "std::env",
            "tokio",
            "Instant::now",
            "SystemTime::now",
            "async fn",
        ],
    );
}

#[test]
fn queues_are_bounded() {
    for folder in ["protocol/src", "launcher/src", "publisher/src", "publisher/hosting/src"] {
        check_absent(folder, &[], &["unbounded_channel", "mpsc::channel()"]);
    }
}

#[test]
fn nothing_is_left_undone() {
    // Put together here so that this file passes its own test.
    let marks: Vec<String> =
        [("to", "do!("), ("unimple", "mented!("), ("FIX", "ME"), ("dbg", "!(")]
            .iter()
            .map(|(a, b)| format!("{a}{b}"))
            .collect();
    for folder in [
        "protocol",
        "manifests",
        "publisher/hosting",
        "publisher",
        "launcher",
        "tests/src",
        "tests/tests",
    ] {
        for (path, source) in sources(folder) {
            let hit = marks.iter().find(|mark| source.contains(mark.as_str()));
            assert!(hit.is_none(), "{path} contains {hit:?}");
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"deny\""));
    for folder in ["protocol", "manifests", "publisher/hosting", "publisher", "launcher", "tests"] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder}/Cargo.toml sets no lints"
        );
        let story = sources(&format!("{folder}/src"));
        let lib = &story[&format!("{folder}/src/lib.rs")];
        assert!(lib.starts_with("//!"), "{folder}/src/lib.rs tells no story");
    }
}

/// Denied by the workspace, forbidden at the root of every crate but one, allowed in one file.
#[test]
fn unsafe_code_is_in_one_file() {
    // Put together here so that this file passes its own test.
    let (forbids, level) = ("#![forbid(unsafe_code)]", ["(unsafe", "_code)"].concat());
    for folder in ["protocol", "manifests", "publisher/hosting", "publisher", "launcher", "tests"] {
        for (path, source) in sources(folder) {
            let root = path.ends_with("src/lib.rs") || path.ends_with("main.rs");
            if root && folder != "protocol" {
                assert!(source.contains(forbids), "{path} does not forbid unsafe code");
            }
            let allowed = source.replace(forbids, "").contains(&level);
            assert_eq!(allowed, path == "protocol/src/digest/avx512.rs", "{path}");
        }
    }
}

#[test]
fn the_readme_names_both_programs_and_the_map_exists() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md exists");
    for needle in ["updraft-publisher", "updraft-launcher", "tests/run"] {
        assert!(readme.contains(needle), "README.md does not name `{needle}`");
    }
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md exists");
    for crate_name in
        ["protocol", "manifests", "publisher/hosting", "publisher", "launcher", "tests"]
    {
        assert!(map.contains(crate_name), "ARCHITECTURE.md does not name `{crate_name}`");
    }
    for file in
        ["LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md", ".deny.toml", "tests/run", ".ci/run"]
    {
        assert!(root().join(file).is_file(), "{file} is missing");
    }
}
