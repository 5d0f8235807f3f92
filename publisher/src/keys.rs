//! The keys of a product over time: who may sign what, and how that changes without locking a player
//! out.
//!
//! Every change is a new root, signed by the keys of the one before and by its own. It is written only
//! when all that the head names is signed so that it holds before the change and after it: manifests
//! get the new signature beside the old, the head is signed by both keys. So a launcher may look at any
//! instant, and one that was away for years walks root by root. A run that was killed is finished by
//! the next.

use crate::home::Home;
use crate::key_file;
use crate::lock::RepositoryLock;
use crate::repository::{Repository, now};
use crate::signers::Signers;
use crate::{Error, base, disk, head, waiting};
use std::path::{Path, PathBuf};
use updraft_manifests::document::{KeySet, Signed};
use updraft_manifests::keys::{PublicKey, Role, SecretKey};
use updraft_manifests::manifest;
use updraft_manifests::names::Name;
use updraft_manifests::root::{self, Roles, Root};
use updraft_manifests::trust::TrustState;
use updraft_protocol::io::held::patiently;

/// What a change of keys came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The version of the new root.
    pub root: u64,
    /// Keys that count from now on: role, public key, and the file if it is here.
    pub new: Vec<(Role, PublicKey, Option<PathBuf>)>,
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
        let Some(set) = roles.of(role) else { continue };
        let own = home.seen_key(role).map(|seen| seen.public);
        listed.extend(set.keys.iter().map(|public| Listed {
            role,
            public: *public,
            at_hand: own == Some(*public),
            threshold: set.threshold,
        }));
    }
    Ok(listed)
}

/// Replaces the keys of `roles` by new ones, sealed with a passphrase if `seal`. `extra` are further root keys,
/// where the root's threshold asks for more than one.
///
/// # Errors
/// [`Error`]; until the new root is written nothing has changed for anybody.
pub fn rotate(
    home: &Home,
    roles: &[Role],
    extra: &[SecretKey],
    seal: bool,
) -> Result<Changed, Error> {
    let (mut lock, repository) = begin(home)?;
    let mut change = Change::new(home, &repository);
    let mut swaps = Vec::new();
    let named_before = |at: usize| roles[..at].contains(&roles[at]);
    for (_, &role) in roles.iter().enumerate().filter(|(at, _)| !named_before(*at)) {
        let path = home.key_path(role);
        let next_path = beside(&path, "next");
        let next = new_key(home, role, &next_path, seal)?;
        let old = match home.key(role) {
            Ok(key) => Some(key),
            // A product from before there were launchers has no key for them.
            Err(_) if change.roles.of(role).is_none() => None,
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
    let mut changed = change.publish(&mut lock, extra)?;
    for (role, path, next_path, public) in swaps {
        if path.exists() {
            let retired = beside(&path, &format!("until-root-{}", changed.root));
            rename(&path, &retired)?;
            changed.retired.push(retired);
        }
        rename(&next_path, &path)?;
        changed.new.push((role, public, Some(path)));
    }
    Ok(changed)
}

/// Nobody else is at work, and what an earlier run began is done.
fn begin(home: &Home) -> Result<(RepositoryLock, Repository), Error> {
    // Not by what is served: a thief of the head key must not be able to stand in the way of its end.
    let (lock, repository) = base::begin_here(home)?;
    finish_swaps(home, &repository)?;
    Ok((lock, repository))
}

/// Puts new keys in their place where an earlier run was stopped between moving the old one away and that.
fn finish_swaps(home: &Home, repository: &Repository) -> Result<(), Error> {
    let roles = &root_of(repository).roles;
    for role in [Role::Root, Role::Release, Role::Launcher, Role::Head] {
        let path = home.key_path(role);
        let next_path = beside(&path, "next");
        let Some(set) = roles.of(role) else { continue };
        if !path.exists()
            && let Some(next) = key_file::look(&next_path)?
            && set.keys.contains(&next.public)
        {
            rename(&next_path, &path)?;
        }
    }
    Ok(())
}

/// A key that is to count, too.
#[derive(Debug, Clone, Copy)]
pub enum NewKey<'a> {
    /// One that is made in this file, sealed with a passphrase if `seal`.
    Made {
        /// The file.
        file: &'a Path,
        /// Whether a passphrase is asked for.
        seal: bool,
    },
    /// One that was made elsewhere and stays there.
    Elsewhere(PublicKey),
}

/// Lets one more key of `role` count beside the others.
///
/// # Errors
/// As [`rotate`].
pub fn add(
    home: &Home,
    role: Role,
    new: NewKey<'_>,
    extra: &[SecretKey],
) -> Result<Changed, Error> {
    let (mut lock, repository) = begin(home)?;
    let mut change = Change::new(home, &repository);
    let (public, file) = match new {
        NewKey::Made { file, seal } => {
            let key = new_key(home, role, file, seal)?;
            let public = key.public();
            change.signers.push(key);
            (public, Some(file.to_path_buf()))
        }
        NewKey::Elsewhere(public) => (public, None),
    };
    if !change.set(role).keys.insert(public) {
        return Err(Error::Usage(format!("the root lists {public} already")));
    }
    let mut changed = change.publish(&mut lock, extra)?;
    changed.new.push((role, public, file));
    Ok(changed)
}

/// Changes how many keys of `role` have to sign: for releases of one channel only, if one is named.
///
/// # Errors
/// As [`rotate`]; refused if so many keys are not there, or what players have would not hold any more.
pub fn threshold(
    home: &Home,
    role: Role,
    count: u32,
    channel: Option<&Name>,
    extra: &[SecretKey],
) -> Result<Changed, Error> {
    let (mut lock, repository) = begin(home)?;
    let mut change = Change::new(home, &repository);
    let refused = |why: String| Err(Error::Usage(why));
    let Some(set) = change.roles.of(role) else {
        return refused(format!("nobody signs as {role} yet: `keys rotate {role}` makes a key"));
    };
    let keys = set.keys.len();
    if count == 0 || count as usize > keys {
        return refused(format!(
            "{count} of {keys} {role} keys cannot have to sign: from 1 to {keys} can, and `keys new {role}` \
             adds keys"
        ));
    }
    if role == Role::Head && count > 1 {
        return refused(
            "heads are signed when nobody is there: one key has to be enough".to_owned(),
        );
    }
    match channel {
        Some(_) if role != Role::Release => {
            return refused(format!("only releases differ by channel, {role} documents do not"));
        }
        Some(channel) => drop(change.roles.release.channels.insert(channel.clone(), count)),
        None => change.set(role).threshold = count,
    }
    change.publish(&mut lock, extra)
}

/// Makes a key. That of the head stays open, because `serve` signs when nobody is there, unless the one it follows
/// is sealed.
fn new_key(home: &Home, role: Role, path: &Path, seal: bool) -> Result<SecretKey, Error> {
    let sealed = role != Role::Head || home.seen_key(role).is_some_and(|seen| seen.sealed);
    key_file::make(role, path, &home.passphrases, seal && sealed)
}

/// Lets a key not count any more, without a new one in its place.
///
/// # Errors
/// As [`rotate`]; refused if too few would be left.
pub fn revoke(home: &Home, public: &PublicKey, extra: &[SecretKey]) -> Result<Changed, Error> {
    let (mut lock, repository) = begin(home)?;
    let mut change = Change::new(home, &repository);
    let all = [Role::Root, Role::Release, Role::Launcher, Role::Head];
    let listing = |role: &Role| change.roles.of(*role).is_some_and(|set| set.keys.contains(public));
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
    if home.seen_key(role).is_some_and(|seen| seen.public != *public) {
        change.signers.push(home.key(role)?);
    }
    change.publish(&mut lock, extra)
}

/// A new root in the making.
struct Change<'a> {
    home: &'a Home,
    repository: &'a Repository,
    roles: Roles,
    /// Keys that sign what the head names, and new root keys.
    signers: Vec<SecretKey>,
}

impl<'a> Change<'a> {
    fn new(home: &'a Home, repository: &'a Repository) -> Self {
        let roles = root_of(repository).roles.clone();
        Self { home, repository, roles, signers: Vec::new() }
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
    fn publish(mut self, lock: &mut RepositoryLock, extra: &[SecretKey]) -> Result<Changed, Error> {
        let old = root_of(self.repository);
        let roles = |roles: &Roles| -> Vec<(Role, PublicKey)> {
            [Role::Root, Role::Release, Role::Launcher, Role::Head]
                .into_iter()
                .filter_map(|role| Some((role, roles.of(role)?)))
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
        let waiting = format!("root-{}", root.version);
        let signed = self.sign_root(&waiting, &root, extra)?;
        let root: Root = signed.unverified().map_err(|error| refused(&error))?;
        let bytes = signed.to_bytes();
        // Judged as a launcher would.
        let accepted = self.repository.trust.accept_root(&bytes).map_err(|error| refused(&error));
        let trust = accepted?.0;
        self.sign_what_is_named(&root, &trust, lock)?;
        if path.exists() {
            return Err(Error::Overtaken { path });
        }
        disk::write_atomic(&path, &bytes)?;
        waiting::done(self.home, &waiting)?;
        Ok(changed)
    }

    /// The root with the signatures that the one before asks for, and its own.
    fn sign_root(&self, waiting: &str, root: &Root, extra: &[SecretKey]) -> Result<Signed, Error> {
        let sets = [&root_of(self.repository).roles.root, &root.roles.root];
        // One that is leaving has to be there, too: it counts in the root before.
        let signers = Signers::at_hand(self.home, Role::Root)?;
        let is_same = |old: &Root, new: &Root| *old == Root { created: old.created, ..new.clone() };
        let also: Vec<_> = self.signers.iter().chain(extra).collect();
        waiting::signed(self.home, waiting, root, is_same, &signers, &sets, &also)
    }

    /// Everything that the head names, and the head, hold under both roots afterwards.
    fn sign_what_is_named(
        &mut self,
        root: &Root,
        after: &TrustState,
        lock: &mut RepositoryLock,
    ) -> Result<(), Error> {
        let Some(accepted) = self.repository.head(now())? else { return Ok(()) };
        for release in accepted.head.named() {
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
        let before = root_of(self.repository).roles.of(role);
        signed.keep(|key| {
            keys.keys.contains(key) || before.is_some_and(|set| set.keys.contains(key))
        });
        let held = signed.signed_by(keys);
        if held < keys.threshold as usize {
            return Err(failed(&format!(
                "{held} of the {role} keys that would count signed it, {} are needed: players would be \
                 locked out of it, so nothing was changed; sign it with others first: `updraft-publisher sign {} --key \
                 FILE`",
                keys.threshold,
                path.display()
            )));
        }
        disk::write_if_changed(&path, &signed.to_bytes()).map(|_| ())
    }
}

fn root_of(repository: &Repository) -> &Root {
    repository.trust.root().expect("an open repository has a root")
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

#[cfg(test)]
mod tests;
