//! A new version beside the others: unpacked, compared with what was signed, made durable, and only
//! then named by `current`.
//!
//! The archive is unpacked by the crate `self_update`, which defends against paths that leave the
//! folder; nothing of what comes out is believed until every file has the signed SHA-256 and there is
//! nothing else. What a killed install left behind is cleared by the next.

use super::{Home, STARTS_MAX};
use crate::error::Error;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use updraft_manifests::current::{CURRENT_NAME, Current, Slot, folder, sequence_of};
use updraft_manifests::document::{Signed, Verified};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::keys::Role;
use updraft_manifests::launcher::LauncherManifest;
use updraft_protocol::io::held::patiently;

/// Where a new version is prepared, in the home.
const NEW_FOLDER: &str = ".new";
const ARCHIVE_NAME: &str = "archive.zip";
const UNPACKED_NAME: &str = "unpacked";
const CURRENT_NEW_NAME: &str = "current.new";

/// What is about to be done. The callback of [`install`] may refuse to go on, which leaves the home as
/// a kill at that instant would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What an earlier attempt left is removed next.
    Clear,
    /// The archive is unpacked next.
    Unpack,
    /// What came out is compared with the manifest and made durable next.
    Compare,
    /// Its records are written next.
    Record,
    /// Its folder gets its name next.
    Place,
    /// `current` is written beside itself next.
    Write,
    /// `current` is replaced next: from then on the new version is started.
    Switch,
    /// Versions that nobody needs any more are removed next.
    Tidy,
}

/// Where the archive of a new version is to be put; the folder is made.
///
/// # Errors
/// From the file system.
pub fn archive_path(home: &Home) -> Result<PathBuf, Error> {
    let dir = home.dir().join(NEW_FOLDER);
    fs::create_dir_all(&dir).map_err(Error::disk("make the folder", &dir))?;
    Ok(dir.join(ARCHIVE_NAME))
}

/// The manifest of a version in the home, as it was verified when it came.
pub fn manifest_of(home: &Home, sequence: u64) -> Option<(ContentHash, LauncherManifest)> {
    let bytes = fs::read(home.record(sequence, "toml")).ok()?;
    let signed = Signed::parse(Role::Launcher, &bytes).ok()?;
    let text = std::str::from_utf8(signed.payload()).ok()?;
    Some((signed.hash(), toml::from_str(text).ok()?))
}

/// The version that releases may ask for: the one that this program was published as, where it runs from a home,
/// else the one that it was built as.
pub fn own_version() -> String {
    version_at(Home::of_this_program())
}

fn version_at(place: Option<(Home, u64)>) -> String {
    let published = place.and_then(|(home, own)| manifest_of(&home, own));
    let built = || env!("CARGO_PKG_VERSION").to_owned();
    published.map_or_else(built, |(_, manifest)| manifest.version.to_string())
}

/// Why that version is not to be installed by the launcher `own`, although it is signed.
///
/// # Errors
/// In words.
pub fn admit(home: &Home, own: u64, new: &LauncherManifest) -> Result<(), String> {
    if new.sequence <= own {
        return Err(format!("it is number {}, not newer than this one, {own}", new.sequence));
    }
    if home.has_failed(new.sequence) {
        return Err(format!(
            "it was started {STARTS_MAX} times on this machine and did not come up; the next one \
             will be tried"
        ));
    }
    // Only this one: a studio may go back to what it had before, as a newer version.
    let Some((_, old)) = manifest_of(home, own) else { return Ok(()) };
    let (was, is) = (old.version.as_str(), new.version.as_str());
    if old.files == new.files {
        return Err(format!("it is {was} under another number"));
    }
    let newer = self_update::version::bump_is_greater(was, is);
    if !newer.map_err(|error| error.to_string())? {
        return Err(format!("its version {is} is not newer than this one's, {was}"));
    }
    Ok(())
}

/// Installs the version of `manifest` from `archive`, whose length and SHA-256 were compared with the
/// manifest's, beside `own`, which is the one that runs. `step` is told before everything that
/// changes the home.
///
/// # Errors
/// [`Error::Launcher`] if the archive is not what was signed, [`Error::Disk`]; the home then starts
/// what it started before.
pub fn install(
    home: &Home,
    own: u64,
    archive: &Path,
    manifest: &Verified<LauncherManifest>,
    step: &mut dyn FnMut(Step) -> Result<(), Error>,
) -> Result<(), Error> {
    let before = home.current().map_err(Error::disk("read", home.dir().join(CURRENT_NAME)))?;
    let new = Slot { sequence: manifest.sequence, program: manifest.program.clone() };
    let refused = |why: String| Error::Launcher { version: manifest.version.to_string(), why };
    if before.start == new {
        return Ok(());
    }
    let unpacked = home.dir().join(NEW_FOLDER).join(UNPACKED_NAME);
    step(Step::Clear)?;
    remove_folder(&unpacked)?;
    let place = home.dir().join(new.folder());
    remove_folder(&place)?;

    step(Step::Unpack)?;
    self_update::Extract::from_source(archive)
        .archive(self_update::ArchiveKind::Zip)
        .extract_into(&unpacked)
        .map_err(|error| refused(format!("its archive cannot be unpacked: {error}")))?;

    step(Step::Compare)?;
    compare(&unpacked, manifest).map_err(refused)?;

    step(Step::Record)?;
    for kind in ["started", "healthy"] {
        remove_file(&home.record(new.sequence, kind))?;
    }
    write(&home.record(new.sequence, "toml"), &manifest.to_bytes())?;

    step(Step::Place)?;
    patiently(|| fs::rename(&unpacked, &place)).map_err(Error::disk("put in place", &place))?;
    sync(home.dir())?;

    step(Step::Write)?;
    // The newest that works here.
    let proven = Some(&before.start).filter(|slot| home.is_healthy(slot.sequence)).cloned();
    let is_here = |slot: &Slot| home.dir().join(slot.folder()).is_dir();
    let before_that = || before.previous.clone().filter(|slot| home.is_healthy(slot.sequence));
    let previous = proven
        .or_else(|| before_that().filter(is_here))
        .or_else(|| slot_of(home, &before, own).filter(is_here));
    if previous.is_none() {
        let why = "while it was fetched others were installed, and none has worked yet to go back to: start the \
                   launcher again";
        return Err(refused(why.to_owned()));
    }
    write_beside(home, &Current { start: new, previous, root: before.root })?;

    step(Step::Switch)?;
    switch(home)?;

    step(Step::Tidy)?;
    tidy(home, own);
    Ok(())
}

/// Takes revoked versions out of reach. `own`, which runs, stays: there may be nothing else.
///
/// # Errors
/// [`Error::Disk`].
pub fn withdraw(home: &Home, own: u64, is_revoked: &dyn Fn(u64) -> bool) -> Result<(), Error> {
    let before = home.current().map_err(Error::disk("read", home.dir().join(CURRENT_NAME)))?;
    let gone = |slot: &Slot| slot.sequence != own && is_revoked(slot.sequence);
    let mut good =
        [Some(before.start.clone()), before.previous.clone(), slot_of(home, &before, own)]
            .into_iter()
            .flatten()
            .filter(|slot| !gone(slot));
    let Some(start) = good.next() else { return Ok(()) };
    let previous = good.find(|slot| *slot != start);
    write_beside(home, &Current { start, previous, root: before.root })?;
    switch(home)?;
    tidy(home, own);
    Ok(())
}

/// The slot of the version that runs, which is the one that works here.
fn slot_of(home: &Home, before: &Current, own: u64) -> Option<Slot> {
    let known = [Some(&before.start), before.previous.as_ref()];
    let known = known.into_iter().flatten().find(|slot| slot.sequence == own).cloned();
    known.or_else(|| {
        manifest_of(home, own)
            .map(|(_, manifest)| Slot { sequence: own, program: manifest.program })
    })
}

fn write_beside(home: &Home, current: &Current) -> Result<(), Error> {
    write(&home.dir().join(CURRENT_NEW_NAME), current.to_text().as_bytes())
}

fn switch(home: &Home) -> Result<(), Error> {
    let path = home.dir().join(CURRENT_NAME);
    let fresh = home.dir().join(CURRENT_NEW_NAME);
    patiently(|| fs::rename(&fresh, &path)).map_err(Error::disk("replace", &path))?;
    sync(home.dir())
}

/// Removes what `current` does not name and is not running. What cannot go now (a program that runs,
/// on Windows) goes next time.
pub fn tidy(home: &Home, own: u64) {
    let Ok(current) = home.current() else { return };
    let kept = |sequence: u64| {
        sequence == own
            || sequence == current.start.sequence
            || current.previous.as_ref().is_some_and(|slot| slot.sequence == sequence)
    };
    // Failures cost space only.
    let _ = fs::remove_dir_all(home.dir().join(NEW_FOLDER));
    for entry in fs::read_dir(home.dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(sequence) = name.to_str().and_then(sequence_of) else { continue };
        if kept(sequence) {
            continue;
        }
        if fs::remove_dir_all(home.dir().join(folder(sequence))).is_ok() {
            for kind in ["toml", "started", "healthy"] {
                let _ = remove_file(&home.record(sequence, kind));
            }
        }
    }
}

/// Compares all that lies in `dir` with the manifest, sets what may be executed, makes it durable.
fn compare(dir: &Path, manifest: &LauncherManifest) -> Result<(), String> {
    let mut wanted: BTreeMap<PathBuf, _> =
        manifest.files.iter().map(|file| (file.path.under(dir), file)).collect();
    let mut folders = vec![dir.to_path_buf()];
    let mut at = 0;
    while at < folders.len() {
        let folder = folders[at].clone();
        at += 1;
        let told = |error: io::Error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(told)? {
            let path = entry.map_err(told)?.path();
            let shown = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
            let kind = fs::symlink_metadata(&path).map_err(told)?.file_type();
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let file = wanted.remove(&path).filter(|_| kind.is_file());
            let file = file.ok_or(format!("its archive holds `{shown}`, which is not signed"))?;
            let (length, sha256) = hash(&path).map_err(told)?;
            if length != file.length || sha256 != file.sha256 {
                return Err(format!("`{shown}` in its archive is not the file that was signed"));
            }
            seal(&path, file.executable).map_err(told)?;
        }
    }
    if let Some(file) = wanted.values().next() {
        return Err(format!("`{}` is missing in its archive", file.path));
    }
    for folder in folders.iter().rev() {
        sync(folder).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The length and SHA-256 of a file.
///
/// # Errors
/// From the file system.
pub fn hash(path: &Path) -> io::Result<(u64, ContentHash)> {
    let mut hasher = Sha256::new();
    let length = io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok((length, ContentHash(hasher.finalize().into())))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn seal(path: &Path, executable: bool) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    #[cfg(not(unix))]
    let _ = executable;
    File::options().write(true).open(path)?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = |mut file: File| file.write_all(bytes).and_then(|()| file.sync_all());
    File::create(path).and_then(write).map_err(Error::disk("write", path))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::disk("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::disk("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable; Windows has no such thing.
fn sync(folder: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(Error::disk("flush", folder))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests;
