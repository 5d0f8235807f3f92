//! The publisher's folder: configuration, keys, lock, and the repository it writes.

use crate::key_file::{self, Seen};
use crate::lock::RepositoryLock;
use crate::passphrase::Passphrases;
use crate::repository::Repository;
use crate::{Error, disk};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use updraft_manifests::keys::{Role, SecretKey};
use updraft_manifests::names::Name;
use updraft_manifests::rules::{COMPONENTS_MAX, Rules};
use url::Url;

/// The configuration's file name.
pub const CONFIG_NAME: &str = "updraft.toml";
/// The largest configuration in bytes.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// `updraft.toml`. Paths are relative to its folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The product.
    pub product: Name,
    /// Where the repository can be reached, for players. Empty: where `serve` listens.
    #[serde(default)]
    pub urls: Vec<Url>,
    /// The folder of the published tree.
    #[serde(default = "default_repository")]
    pub repository: PathBuf,
    /// HTTP bases in the head; relative ones are seen from the repository's URL.
    #[serde(default = "default_http")]
    pub http: Vec<String>,
    /// Announce URLs in the head; relative ones are seen from the repository's URL.
    #[serde(default = "default_trackers")]
    pub trackers: Vec<String>,
    /// Days until a head expires.
    #[serde(default = "default_head_days")]
    pub head_days: u16,
    /// How many releases before the newest get a patch to it; 0 for none.
    #[serde(default = "default_patches")]
    pub patches: u16,
    /// Whether contents are packed for first installs over HTTP.
    #[serde(default = "default_packs")]
    pub packs: bool,
    /// What becomes of files once they are installed, and which of them can be left out.
    #[serde(default)]
    pub files: Rules,
    /// Key files.
    #[serde(default)]
    pub keys: KeyFiles,
    /// Programs that sign where there is no key file.
    #[serde(default)]
    pub signers: SignerPrograms,
    /// The server.
    #[serde(default)]
    pub serve: ServeConfig,
}

/// Key files. Only the head key has to be where `serve` runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyFiles {
    /// Signs roots.
    pub root: PathBuf,
    /// Signs manifests.
    pub release: PathBuf,
    /// Signs heads.
    pub head: PathBuf,
    /// Signs launchers.
    pub launcher: PathBuf,
}

/// Programs, each with its arguments, that sign for a role: see [`crate::signers`]. Heads are signed when nobody is
/// there, so they have none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignerPrograms {
    /// Signs roots.
    pub root: Vec<String>,
    /// Signs manifests.
    pub release: Vec<String>,
    /// Signs launchers.
    pub launcher: Vec<String>,
}

impl SignerPrograms {
    /// That of `role`; empty if there is none.
    pub fn of(&self, role: Role) -> &[String] {
        match role {
            Role::Root => &self.root,
            Role::Release => &self.release,
            Role::Launcher => &self.launcher,
            Role::Head => &[],
        }
    }
}

/// What `serve` does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeConfig {
    /// HTTP and tracker.
    pub listen: SocketAddr,
    /// BitTorrent.
    pub listen_bittorrent: SocketAddr,
    /// The seed's address as players see it, when it is not the host they reach the tracker at
    /// (behind a proxy or a NAT).
    pub public_bittorrent: Option<SocketAddr>,
    /// Bytes per second that the seed may upload.
    pub up_limit: Option<u64>,
    /// Seconds between announces in a small swarm.
    pub tracker_interval_s: u32,
}

impl Default for KeyFiles {
    fn default() -> Self {
        let key = |name: &str| Path::new("keys").join(name);
        Self {
            root: key("root.key"),
            release: key("release.key"),
            head: key("head.key"),
            launcher: key("launcher.key"),
        }
    }
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 7600)),
            listen_bittorrent: SocketAddr::from(([0, 0, 0, 0], 7601)),
            public_bittorrent: None,
            up_limit: None,
            tracker_interval_s: crate::serve::tracker::INTERVAL_DEFAULT_S,
        }
    }
}

fn default_repository() -> PathBuf {
    "repository".into()
}
fn default_http() -> Vec<String> {
    vec![".".to_owned()]
}
fn default_trackers() -> Vec<String> {
    vec!["announce".to_owned(), "udp:announce".to_owned()]
}
fn default_head_days() -> u16 {
    7
}
fn default_patches() -> u16 {
    crate::patches::PATCHES_DEFAULT
}

fn default_packs() -> bool {
    true
}

/// A publisher's folder with its configuration read.
#[derive(Clone, Debug)]
pub struct Home {
    /// The folder that holds `updraft.toml`.
    pub dir: PathBuf,
    /// The configuration.
    pub config: Config,
    /// What opens its keys.
    pub passphrases: Arc<Passphrases>,
}

impl Home {
    /// Reads the configuration at `path`: the file, or the folder that holds it.
    ///
    /// # Errors
    /// [`Error::Config`] saying what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = if path.is_dir() { path.join(CONFIG_NAME) } else { path.to_path_buf() };
        let refused = |why: String| Error::Config { path: file.clone(), why };
        let bytes = disk::read_if_there(&file, CONFIG_BYTES_MAX)?.ok_or_else(|| {
            refused("not found: run `updraft-publisher init`, or name it with --config".to_owned())
        })?;
        let text = String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text".to_owned()))?;
        let config: Config = toml::from_str(&text).map_err(|e| refused(e.to_string()))?;
        if config.head_days == 0 || config.head_days > 366 {
            return Err(refused("head_days must be from 1 to 366".to_owned()));
        }
        if let Some(url) = config.urls.iter().find(|u| !matches!(u.scheme(), "http" | "https")) {
            return Err(refused(format!("`{url}` in urls is not http or https")));
        }
        if config.files.components.len() > COMPONENTS_MAX {
            return Err(refused(format!("there are more than {COMPONENTS_MAX} components")));
        }
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = std::path::absolute(dir).map_err(Error::disk("find", dir))?;
        Ok(Self { dir, config, passphrases: Arc::default() })
    }

    /// That of a bundle: a published tree and nothing else, no keys among it.
    ///
    /// # Errors
    /// [`Error::Content`] if its first root does not hold.
    pub fn of_bundle(bundle: &Path) -> Result<Self, Error> {
        let dir = std::path::absolute(bundle).map_err(Error::disk("find", bundle))?;
        let product = Repository::open(&dir, None)?.trust.product().clone();
        let text = format!("product = \"{product}\"\nrepository = \".\"");
        let config = toml::from_str(&text).expect("a product and a folder are a configuration");
        Ok(Self { dir, config, passphrases: Arc::default() })
    }

    /// The folder of the published tree.
    pub fn repository(&self) -> PathBuf {
        self.dir.join(&self.config.repository)
    }

    /// Reads the key of `role`; a passphrase is asked for if it is sealed.
    ///
    /// # Errors
    /// [`Error::Key`] with the path.
    pub fn key(&self, role: Role) -> Result<SecretKey, Error> {
        key_file::read(Some(role), &self.key_path(role), &self.passphrases)
    }

    /// Which key lies in the file of `role`, if one does: no passphrase is asked for.
    pub fn seen_key(&self, role: Role) -> Option<Seen> {
        key_file::look(&self.key_path(role)).ok().flatten().filter(|seen| seen.role == role)
    }

    /// The file of the key of `role`.
    pub fn key_path(&self, role: Role) -> PathBuf {
        let keys = &self.config.keys;
        self.dir.join(match role {
            Role::Root => &keys.root,
            Role::Launcher => &keys.launcher,
            Role::Release => &keys.release,
            Role::Head => &keys.head,
        })
    }

    /// The feed's file, for players.
    pub fn feed_path(&self) -> PathBuf {
        self.dir.join("feed.toml")
    }

    /// Takes the repository for writing, until the lock is dropped or the process ends, however it
    /// ends. The lock lies in the repository, since several publisher's folders may write to one.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process has it.
    pub fn lock(&self) -> Result<RepositoryLock, Error> {
        RepositoryLock::take(&self.repository())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_NAME), text).unwrap();
        let error = Home::open(dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::USAGE);
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn bad_configurations() {
        check("", "product");
        check("product = \"Game\"", "not a valid name");
        check("product = \"game\"\nlistne = 1", "listne");
        check("product = \"game\"\nhead_days = 0", "head_days");
        check("product = \"game\"\n[files]\nconfig = [\"a\\\\b\"]", "parted by `/`");
        check("product = \"game\"\n[files]\nmutable = [\"a\"]", "mutable");
        check("product = \"game\"\nurls = [\"ftp://x/\"]", "ftp");
        let error = Home::open(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("init"), "{error}");
    }

    #[test]
    fn a_key_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_NAME), "product = \"game\"").unwrap();
        let home = Home::open(dir.path()).unwrap();
        let error = home.key(Role::Head).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::KEY);
    }
}
