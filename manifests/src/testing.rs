//! A small product with one key per role, for the tests of this crate.

use crate::document::{KeySet, Payload, Signed};
use crate::feed::Feed;
use crate::hash::{ContentHash, V1Hash};
use crate::head::{Head, LIFE_SECONDS_DEFAULT, LauncherRelease, Release, Sources};
use crate::keys::{Role, SecretKey};
use crate::launcher::{Archive, LauncherFile, LauncherManifest};
use crate::manifest::{Manifest, Torrent};
use crate::names::{Name, Version};
use crate::path::RelPath;
use crate::root::{ReleaseKeys, Roles, Root};
use crate::time::Time;
use std::collections::BTreeMap;

pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) struct World {
    pub(crate) root_key: SecretKey,
    pub(crate) release_key: SecretKey,
    pub(crate) head_key: SecretKey,
    pub(crate) launcher_key: SecretKey,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            root_key: SecretKey::from_random(Role::Root, [11; 32]),
            release_key: SecretKey::from_random(Role::Release, [12; 32]),
            head_key: SecretKey::from_random(Role::Head, [13; 32]),
            launcher_key: SecretKey::from_random(Role::Launcher, [14; 32]),
        }
    }

    pub(crate) fn root(&self) -> Root {
        let set = |key: &SecretKey| KeySet { threshold: 1, keys: [key.public()].into() };
        Root {
            format: 1,
            product: name("game"),
            version: 1,
            created: Time::from_unix(NOW),
            roles: Roles {
                root: set(&self.root_key),
                release: ReleaseKeys { keys: set(&self.release_key), channels: BTreeMap::new() },
                head: set(&self.head_key),
                launcher: Some(set(&self.launcher_key)),
            },
        }
    }

    pub(crate) fn manifest(&self) -> Manifest {
        Manifest {
            format: 1,
            product: name("game"),
            platform: name("any"),
            channel: name("stable"),
            version: Version::parse("1.0").unwrap(),
            sequence: 1,
            created: Time::from_unix(NOW),
            total_size: 10,
            file_count: 1,
            minimum_launcher: None,
            notes: None,
            empty_folders: vec![],
            torrent: Torrent {
                v2: ContentHash::of(b"torrent"),
                v1: Some(V1Hash([1; 20])),
                piece_length: 16 << 10,
            },
            leaf_index: None,
            packs: None,
            launch: None,
            rules: Default::default(),
        }
    }

    pub(crate) fn launcher(&self) -> LauncherManifest {
        let file = |path: &str, executable| LauncherFile {
            path: RelPath::parse(path).unwrap(),
            length: 10,
            sha256: ContentHash::of(path.as_bytes()),
            executable,
        };
        LauncherManifest {
            format: 1,
            product: name("game"),
            platform: name("linux-x86_64"),
            version: Version::parse("1.0.0").unwrap(),
            sequence: 1,
            created: Time::from_unix(NOW),
            archive: Archive { sha256: ContentHash::of(b"archive"), length: 7 },
            program: RelPath::parse("updraft-launcher").unwrap(),
            files: vec![file("updraft-launcher", true), file("data/strings", false)],
        }
    }

    /// A head that names that launcher, too.
    pub(crate) fn head_with(&self, launcher: &LauncherManifest) -> Head {
        let payload = toml::to_string(launcher).unwrap();
        let mut head = self.head();
        head.launchers = vec![LauncherRelease {
            platform: launcher.platform.clone(),
            version: launcher.version.clone(),
            sequence: launcher.sequence,
            manifest: ContentHash::of(payload.as_bytes()),
            length: payload.len() as u64,
        }];
        head
    }

    pub(crate) fn head(&self) -> Head {
        self.head_of(&self.manifest())
    }

    pub(crate) fn head_of(&self, manifest: &Manifest) -> Head {
        let payload = toml::to_string(manifest).unwrap();
        Head {
            format: 1,
            product: name("game"),
            sequence: 1,
            created: Time::from_unix(NOW),
            expires: Time::from_unix(NOW + LIFE_SECONDS_DEFAULT),
            root: 1,
            sources: Sources { http: vec![".".into()], trackers: vec!["announce".into()] },
            releases: vec![Release {
                channel: manifest.channel.clone(),
                platform: manifest.platform.clone(),
                version: manifest.version.clone(),
                sequence: manifest.sequence,
                manifest: ContentHash::of(payload.as_bytes()),
                length: payload.len() as u64,
                patches: None,
                rollout: None,
            }],
            preloads: vec![],
            launchers: vec![],
            revoked: vec![],
        }
    }

    pub(crate) fn sign<T: Payload>(&self, payload: &T, key: &SecretKey) -> Vec<u8> {
        Signed::create(key.role(), payload, &[key]).unwrap().to_bytes()
    }

    pub(crate) fn feed(&self) -> Feed {
        let root = Signed::create(Role::Root, &self.root(), &[&self.root_key]).unwrap();
        let url = url::Url::parse("http://localhost:1/").unwrap();
        Feed::new(name("game"), root.hash(), vec![url]).unwrap()
    }
}
