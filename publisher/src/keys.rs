//! The keys of a product over time: who may sign what, and how that changes without locking a player
//! out.
//!
//! Every change is a new root, signed by the keys of the one before and by its own. It is written only
//! when all that the head names is signed so that it holds before the change and after it: manifests
//! get the new signature beside the old, the head is signed by both keys. So a launcher may look at any
//! instant, and one that was away for years walks root by root. A run that was killed is finished by
//! the next.

use crate::home::{Home, RepositoryLock};
use crate::repository::{Repository, now};
use crate::{Error, disk, head};
use std::path::{Path, PathBuf};
use updraft_manifests::document::{KeySet, Signed};
use updraft_manifests::keys::{PublicKey, Role, SECRET_KEY_BYTES_MAX, SecretKey};
use updraft_manifests::manifest;
use updraft_manifests::root::{self, ReleaseKeys, Roles, Root};
use updraft_manifests::trust::TrustState;
use updraft_protocol::io::held::patiently;

/// What a change of keys came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The version of the new root.
    pub root: u64,
    /// Keys that count from now on: role, public key, file.
    pub new: Vec<(Role, PublicKey, PathBuf)>,
    /// Keys that do not count any more.
    pub gone: Vec<(Role, PublicKey)>,
    /// Where the files of replaced keys lie now.
    pub retired: Vec<PathBuf>,
}

/// One key as `keys list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its role.
    pub role: Role,
    /// The key.
    pub public: PublicKey,
    /// Whether it is the one in the configured file.
    pub at_hand: bool,
    /// How many keys of that role must sign.
    pub threshold: u32,
}

/// The keys that count now, by the newest root.
///
/// # Errors
/// Those of [`Repository::open`].
pub fn list(home: &Home) -> Result<Vec<Listed>, Error> {
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    let roles = &root_of(&repository).roles;
    let mut listed = Vec::new();
    for role in [Role::Root, Role::Release, Role::Launcher, Role::Head] {
        let Some(set) = set_of(roles, role) else { continue };
        let own = home.key(role).ok().map(|key| key.public());
        listed.extend(set.keys.iter().map(|public| Listed {
            role,
            public: *public,
            at_hand: own == Some(*public),
            threshold: set.threshold,
        }));
    }
    Ok(listed)
}

/// Replaces the keys of `roles` by new ones. `extra` are further root keys, where the root's threshold
/// asks for more than one.
///
/// # Errors
/// [`Error`]; until the new root is written nothing has changed for anybody.
pub fn rotate(home: &Home, roles: &[Role], extra: &[SecretKey]) -> Result<Changed, Error> {
    let lock = home.lock()?;
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    finish_swaps(home, &repository)?;
    let mut change = Change::new(home, &repository)?;
    let mut swaps = Vec::new();
    let named_before = |at: usize| roles[..at].contains(&roles[at]);
    for (_, &role) in roles.iter().enumerate().filter(|(at, _)| !named_before(*at)) {
        let path = home.key_path(role);
        let next_path = beside(&path, "next");
        let next = init_key(role, &next_path)?;
        let old = match home.key(role) {
            Ok(key) => Some(key),
            // A product from before there were launchers has no key for them.
            Err(_) if set_of(&change.roles, role).is_none() => None,
            Err(error) => return Err(error),
        };
        let set = change.set(role);
        if let Some(old) = &old {
            // Listed already: an earlier run was stopped after it had written the root.
            if !set.keys.remove(&old.public()) && !set.keys.contains(&next.public()) {
                return Err(Error::Key {
                    role: role.as_str(),
                    path,
                    why: "the root does not list this key: bring the one that counts, see `keys list`"
                        .to_owned(),
                });
            }
        }
        set.keys.insert(next.public());
        swaps.push((role, path, next_path, next.public()));
        change.signers.push(next);
        change.signers.extend(old);
    }
    let mut changed = change.publish(&lock, extra)?;
    for (role, path, next_path, public) in swaps {
        if path.exists() {
            let retired = beside(&path, &format!("until-root-{}", changed.root));
            rename(&path, &retired)?;
            changed.retired.push(retired);
        }
        rename(&next_path, &path)?;
        changed.new.push((role, public, path));
    }
    Ok(changed)
}

/// Puts new keys in their place where an earlier run was stopped between moving the old one away and that.
fn finish_swaps(home: &Home, repository: &Repository) -> Result<(), Error> {
    let roles = &root_of(repository).roles;
    for role in [Role::Root, Role::Release, Role::Launcher, Role::Head] {
        let path = home.key_path(role);
        let next_path = beside(&path, "next");
        let Some(set) = set_of(roles, role) else { continue };
        if !path.exists()
            && next_path.exists()
            && set.keys.contains(&init_key(role, &next_path)?.public())
        {
            rename(&next_path, &path)?;
        }
    }
    Ok(())
}

/// Makes one more key of `role`, in `file`, and lets it count beside the others.
///
/// # Errors
/// As [`rotate`].
pub fn add(home: &Home, role: Role, file: &Path, extra: &[SecretKey]) -> Result<Changed, Error> {
    let lock = home.lock()?;
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    finish_swaps(home, &repository)?;
    let mut change = Change::new(home, &repository)?;
    let key = init_key(role, file)?;
    let public = key.public();
    if !change.set(role).keys.insert(public) {
        return Err(Error::Usage(format!("{} is listed already", file.display())));
    }
    change.signers.push(key);
    let mut changed = change.publish(&lock, extra)?;
    changed.new.push((role, public, file.to_path_buf()));
    Ok(changed)
}

/// Lets a key not count any more, without a new one in its place.
///
/// # Errors
/// As [`rotate`]; refused if too few would be left.
pub fn revoke(home: &Home, public: &PublicKey, extra: &[SecretKey]) -> Result<Changed, Error> {
    let lock = home.lock()?;
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    finish_swaps(home, &repository)?;
    let mut change = Change::new(home, &repository)?;
    let all = [Role::Root, Role::Release, Role::Launcher, Role::Head];
    let listing =
        |role: &Role| set_of(&change.roles, *role).is_some_and(|set| set.keys.contains(public));
    let Some(role) = all.into_iter().find(listing) else {
        return Err(Error::Usage(format!("the root lists no key {public}: see `keys list`")));
    };
    let set = change.set(role);
    set.keys.remove(public);
    if set.keys.len() < set.threshold as usize {
        return Err(Error::Usage(format!(
            "without this key {} of {} {role} keys would be left and nobody could sign for players \
             any more: use `keys rotate {role}`, or `keys new {role}` first",
            set.keys.len(),
            set.threshold
        )));
    }
    for role in all {
        change.signers.extend(home.key(role).ok().filter(|key| key.public() != *public));
    }
    change.publish(&lock, extra)
}

/// A new root in the making.
struct Change<'a> {
    home: &'a Home,
    repository: &'a Repository,
    root_key: SecretKey,
    roles: Roles,
    /// Keys that sign what the head names.
    signers: Vec<SecretKey>,
}

impl<'a> Change<'a> {
    fn new(home: &'a Home, repository: &'a Repository) -> Result<Self, Error> {
        let roles = root_of(repository).roles.clone();
        Ok(Self { home, repository, root_key: home.key(Role::Root)?, roles, signers: Vec::new() })
    }

    /// The keys of a role; a product that had no launchers gets the role.
    fn set(&mut self, role: Role) -> &mut KeySet {
        match role {
            Role::Root => &mut self.roles.root,
            Role::Release => &mut self.roles.release.keys,
            Role::Head => &mut self.roles.head,
            Role::Launcher => self
                .roles
                .launcher
                .get_or_insert_with(|| KeySet { threshold: 1, keys: Default::default() }),
        }
    }

    /// Signs and writes everything, the root last.
    fn publish(mut self, lock: &RepositoryLock, extra: &[SecretKey]) -> Result<Changed, Error> {
        let old = root_of(self.repository);
        let roles = |roles: &Roles| -> Vec<(Role, PublicKey)> {
            [Role::Root, Role::Release, Role::Launcher, Role::Head]
                .into_iter()
                .filter_map(|role| Some((role, set_of(roles, role)?)))
                .flat_map(|(role, set)| set.keys.iter().map(move |key| (role, *key)))
                .collect()
        };
        let (before, after) = (roles(&old.roles), roles(&self.roles));
        let gone = before.into_iter().filter(|key| !after.contains(key)).collect();
        let mut changed = Changed { root: old.version, new: vec![], gone, retired: vec![] };
        if self.roles == old.roles {
            return Ok(changed);
        }
        let root = Root {
            version: old.version + 1,
            created: now().max(old.created),
            roles: self.roles.clone(),
            ..old.clone()
        };
        changed.root = root.version;
        let path = self.repository.dir.join(root::path(root.version));
        let refused = |error: &dyn std::fmt::Display| Error::content(&path, error);
        let root_keys: Vec<&SecretKey> = std::iter::once(&self.root_key)
            .chain(self.signers.iter().chain(extra).filter(|key| key.role() == Role::Root))
            .collect();
        let signed =
            Signed::create(Role::Root, &root, &root_keys).map_err(|error| refused(&error))?;
        let bytes = signed.to_bytes();
        // Judged as a launcher would.
        let accepted = self.repository.trust.accept_root(&bytes).map_err(|error| refused(&error));
        let trust = accepted?.0;
        self.sign_what_is_named(&root, &trust, lock)?;
        disk::write_atomic(&path, &bytes)?;
        Ok(changed)
    }

    /// Everything that the head names, and the head, hold under both roots afterwards.
    fn sign_what_is_named(
        &mut self,
        root: &Root,
        after: &TrustState,
        lock: &RepositoryLock,
    ) -> Result<(), Error> {
        let Some(accepted) = self.repository.head(now())? else { return Ok(()) };
        for release in &accepted.head.releases {
            let keys = root.roles.release.for_channel(&release.channel);
            self.sign_manifest(Role::Release, &release.manifest, &keys)?;
        }
        if let Some(keys) = &root.roles.launcher {
            for launcher in &accepted.head.launchers {
                self.sign_manifest(Role::Launcher, &launcher.manifest, keys)?;
            }
        }
        let signs = |key: &SecretKey| key.role() == Role::Head;
        match self.home.key(Role::Head) {
            Ok(key) if self.signers.iter().any(|other| other.public() == key.public()) => {}
            Ok(key) => self.signers.push(key),
            Err(_) if self.signers.iter().any(signs) => {}
            Err(error) => return Err(error),
        }
        let keys: Vec<_> = self.signers.iter().filter(|key| key.role() == Role::Head).collect();
        let trusts = [&self.repository.trust, after];
        head::sign_with(self.home, &keys, &trusts, self.repository, lock, |head| {
            head.root = root.version;
        })?;
        Ok(())
    }

    fn sign_manifest(
        &self,
        role: Role,
        hash: &updraft_manifests::hash::ContentHash,
        keys: &KeySet,
    ) -> Result<(), Error> {
        let path = self.repository.dir.join(manifest::path(hash));
        let bytes = disk::read_capped(&path, role.document_bytes_max())?;
        let failed = |error: &dyn std::fmt::Display| Error::content(&path, error);
        let mut signed = Signed::parse(role, &bytes).map_err(|error| failed(&error))?;
        for key in self.signers.iter().filter(|key| key.role() == role) {
            signed.sign(key);
        }
        // Until the new root is there the old keys count.
        let before = set_of(&root_of(self.repository).roles, role);
        signed.keep(|key| {
            keys.keys.contains(key) || before.is_some_and(|set| set.keys.contains(key))
        });
        let held = signed.signed_by(keys);
        if held < keys.threshold as usize {
            return Err(failed(&format!(
                "{held} of the {role} keys that would count signed it, {} are needed: players would be \
                 locked out of it, so nothing was changed; sign it with the other keys first",
                keys.threshold
            )));
        }
        disk::write_if_changed(&path, &signed.to_bytes()).map(|_| ())
    }
}

fn root_of(repository: &Repository) -> &Root {
    repository.trust.root().expect("an open repository has a root")
}

fn set_of(roles: &Roles, role: Role) -> Option<&KeySet> {
    match role {
        Role::Root => Some(&roles.root),
        Role::Release => {
            let ReleaseKeys { keys, .. } = &roles.release;
            Some(keys)
        }
        Role::Head => Some(&roles.head),
        Role::Launcher => roles.launcher.as_ref(),
    }
}

/// `keys/head.key` with a word before its ending: `keys/head.next.key`.
fn beside(path: &Path, word: &str) -> PathBuf {
    let ending = path.extension().map_or_else(String::new, |e| format!(".{}", e.display()));
    let stem = path.file_stem().unwrap_or_default().display().to_string();
    path.with_file_name(format!("{stem}.{word}{ending}"))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    patiently(|| std::fs::rename(from, to)).map_err(Error::disk("rename", from))?;
    disk::sync_folder_of(to)
}

/// Makes a key; one that an interrupted run left is taken.
///
/// # Errors
/// [`Error::Key`] for a file that is no key of that role; [`Error::Disk`].
pub fn init_key(role: Role, path: &Path) -> Result<SecretKey, Error> {
    if let Some(bytes) = disk::read_if_there(path, SECRET_KEY_BYTES_MAX)? {
        let text = String::from_utf8_lossy(&bytes);
        return SecretKey::parse_for(role, &text).map_err(|error| Error::Key {
            role: role.as_str(),
            path: path.to_path_buf(),
            why: format!("{error}; move it away"),
        });
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Error::Internal(format!("no randomness from the system: {error}")))?;
    let key = SecretKey::from_random(role, random);
    disk::write_secret(path, &key.to_text())?;
    Ok(key)
}

/// A secret key in any file, for one more signature.
///
/// # Errors
/// [`Error::Key`], [`Error::Disk`].
pub fn read_key(role: Role, path: &Path) -> Result<SecretKey, Error> {
    let bytes = disk::read_capped(path, SECRET_KEY_BYTES_MAX)?;
    SecretKey::parse_for(role, &String::from_utf8_lossy(&bytes)).map_err(|error| Error::Key {
        role: role.as_str(),
        path: path.to_path_buf(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
