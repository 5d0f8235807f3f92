//! `init`: a product's keys, configuration and first root.

use crate::home::{CONFIG_NAME, Home};
use crate::passphrase::Passphrases;
use crate::{Error, disk, key_file};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use updraft_manifests::document::{KeySet, Signed};
use updraft_manifests::feed::Feed;
use updraft_manifests::keys::{Role, SecretKey};
use updraft_manifests::names::Name;
use updraft_manifests::root::{self, ReleaseKeys, Roles, Root};
use url::Url;

/// Makes a publisher's folder at `dir`. Refuses a folder that already is one. All keys but the head's are sealed,
/// if `passphrases` are given: `serve` signs heads when nobody is there.
///
/// # Errors
/// [`Error::Usage`] if there is a configuration or a key already, or no passphrase; [`Error::Disk`].
pub fn init(
    dir: &Path,
    product: &Name,
    urls: &[Url],
    passphrases: Option<&Passphrases>,
) -> Result<Home, Error> {
    let config = dir.join(CONFIG_NAME);
    if config.exists() {
        let text = format!("{} is there already: nothing was changed", config.display());
        return Err(Error::Usage(text));
    }
    if let Some(url) = urls.iter().find(|url| !matches!(url.scheme(), "http" | "https")) {
        return Err(Error::Usage(format!("--url {url}: use an http or https URL")));
    }
    // Before anything is made.
    passphrases.map(Passphrases::choose).transpose()?;
    disk::make_folder(&dir.join("repository/root"))?;
    let keys = dir.join("keys");
    disk::make_folder(&keys)?;
    restrict(&keys)?;
    let none = Passphrases::default();
    let make = |role: Role| {
        let seal = passphrases.is_some() && role != Role::Head;
        key_file::make(role, &keys.join(format!("{role}.key")), passphrases.unwrap_or(&none), seal)
    };
    let (root_key, release_key) = (make(Role::Root)?, make(Role::Release)?);
    let (head_key, launcher_key) = (make(Role::Head)?, make(Role::Launcher)?);

    let only = |key: &SecretKey| KeySet { threshold: 1, keys: [key.public()].into() };
    let first = Root {
        format: 1,
        product: product.clone(),
        version: 1,
        created: crate::repository::now(),
        roles: Roles {
            root: only(&root_key),
            release: ReleaseKeys { keys: only(&release_key), channels: BTreeMap::new() },
            head: only(&head_key),
            launcher: Some(only(&launcher_key)),
        },
    };
    let signed = Signed::create(Role::Root, &first, &[&root_key])
        .map_err(|error| Error::Internal(error.to_string()))?;
    let path = dir.join("repository").join(root::path(1));
    disk::write_atomic(&path, &signed.to_bytes())?;
    if !urls.is_empty() {
        let feed = Feed::new(product.clone(), signed.hash(), urls.to_vec())
            .map_err(|error| Error::Usage(error.to_string()))?;
        disk::write_atomic(&dir.join("feed.toml"), feed.to_toml().as_bytes())?;
    }
    // Last, because it is what makes the folder a publisher's.
    disk::write_atomic(&config, config_text(product, urls).as_bytes())?;
    Home::open(&config)
}

fn restrict(folder: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
            .map_err(Error::disk("restrict", folder))?;
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn config_text(product: &Name, urls: &[Url]) -> String {
    let mut text = format!("product = \"{product}\"\n\n");
    text.push_str("# Where players reach the repository. Empty: where `serve` listens.\n");
    let list: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    writeln!(text, "urls = [{}]\n", list.join(", ")).expect("writing to a String cannot fail");
    text.push_str(
        "# Sources in the head. Relative ones are seen from the repository's URL.\n\
         http = [\".\"]\n\
         trackers = [\"announce\", \"udp:announce\"]\n\n\
         # A head is news for so long; `serve` signs a new one at half time.\n\
         head_days = 7\n\n\
         # How many releases before the newest get a patch to it; 0 for none.\n\
         patches = 3\n\n\
         # Whether contents are also kept compressed, for first installs over HTTP.\n\
         packs = true\n\n\
         # Files that players may change, folders that are theirs, parts that they may leave out:\n\
         # [files]\n\
         # config = [\"settings/*.ini\"]\n\
         # seed-once = [\"settings/first.sav\"]\n\
         # owned = [\"saves\", \"mods\"]\n\
         # [files.components.french]\n\
         # files = [\"audio/fr/**\"]\n\
         # default = false\n\n\
         # The root key is needed by nobody from day to day: move it off this machine.\n\
         # `publish` needs the release and the head key, `publish-launcher` the launcher and\n\
         # the head key, `serve` at most the head key.\n\
         [keys]\n\
         root = \"keys/root.key\"\n\
         release = \"keys/release.key\"\n\
         head = \"keys/head.key\"\n\
         launcher = \"keys/launcher.key\"\n\n\
         # Programs that sign where the key is not a file here: they read what is to be signed and\n\
         # write an Ed25519 signature, 64 bytes or 128 hexadecimal digits.\n\
         # [signers]\n\
         # release = [\"ssh\", \"vault\", \"sign-release\"]\n\n\
         [serve]\n\
         listen = \"0.0.0.0:7600\"\n\
         listen_bittorrent = \"0.0.0.0:7601\"\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_what_it_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let product = Name::parse("game").unwrap();
        let urls = [Url::parse("http://example.org/game").unwrap()];
        let home = init(dir.path(), &product, &urls, None).unwrap();
        assert_eq!(home.config.product, product);
        for role in [Role::Root, Role::Release, Role::Head, Role::Launcher] {
            home.key(role).unwrap();
        }
        let repository =
            crate::repository::Repository::open(&home.repository(), Some(&product)).unwrap();
        let feed = std::fs::read_to_string(home.feed_path()).unwrap();
        assert_eq!(Feed::parse(&feed).unwrap().root, repository.fingerprint);
        let error = init(dir.path(), &product, &urls, None).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::USAGE);
    }

    #[test]
    fn goes_on_where_it_was_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let product = Name::parse("game").unwrap();
        init(dir.path(), &product, &[], None).unwrap();
        std::fs::remove_file(dir.path().join(CONFIG_NAME)).unwrap();
        std::fs::remove_file(dir.path().join("keys/head.key")).unwrap();
        let home = init(dir.path(), &product, &[], None).unwrap();
        crate::repository::Repository::open(&home.repository(), None).unwrap();
    }
}
