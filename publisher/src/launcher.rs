//! `publish-launcher`: the launcher's own programs become a signed launcher release.
//!
//! The order is that of [`crate::publish`]: archive, manifest, each under a name that nobody asks for
//! yet, and the head last. The archive is made the same, byte for byte, from the same programs.

use crate::home::Home;
use crate::repository::{Repository, now};
use crate::scan::{Kind, scan};
use crate::signers::Signers;
use crate::{Error, base, disk, head, waiting};
use std::fs::File;
use std::io::{Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use updraft_manifests::current::{CURRENT_NAME, Current, Slot};
use updraft_manifests::document::KeySet;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::LauncherRelease;
use updraft_manifests::keys::Role;
use updraft_manifests::launcher::{
    ARCHIVE_BYTES_MAX, Archive, LauncherFile, LauncherManifest, UNPACKED_BYTES_MAX, three_numbers,
};
use updraft_manifests::manifest;
use updraft_manifests::names::{Name, Version};
use updraft_manifests::path::RelPath;
use updraft_manifests::time::Time;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// What to publish.
#[derive(Debug, Clone)]
pub struct PublishLauncher {
    /// The folder with the programs; a stub at its top is not part of a release.
    pub dir: PathBuf,
    /// `major.minor.patch`.
    pub version: Version,
    /// The platform they run on.
    pub platform: Name,
    /// The program that the stub starts; `None` takes `updraft-launcher`.
    pub program: Option<RelPath>,
    /// When it is published; `None` takes the clock.
    pub created: Option<Time>,
    /// Where to write the folder that players get first: stub, `current`, this version.
    pub ship: Option<PathBuf>,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedLauncher {
    /// True if this very launcher was there already and nothing was changed.
    pub already: bool,
    /// Its sequence.
    pub sequence: u64,
    /// Its archive.
    pub archive: Archive,
    /// Its files.
    pub files: usize,
}

/// Publishes the launcher in `what.dir`.
///
/// # Errors
/// [`Error`]; the repository then offers what it offered before.
pub fn publish_launcher(home: &Home, what: &PublishLauncher) -> Result<PublishedLauncher, Error> {
    if three_numbers(what.version.as_str()).is_none() {
        let text = format!("--version {}: a launcher's version is major.minor.patch", what.version);
        return Err(Error::Usage(text));
    }
    if what.platform == Name::any_platform() {
        let text = "--platform any: programs run on one platform, such as linux-x86_64";
        return Err(Error::Usage(text.to_owned()));
    }
    let signers = Signers::at_hand(home, Role::Launcher)?;
    let head_key = home.key(Role::Head)?;
    let (mut lock, repository) = base::begin(home)?;
    let head = repository.head(now())?.map(|accepted| accepted.head);
    let old = head.as_ref().and_then(|head| head.launcher(&what.platform));
    let before = old.map(|old| repository.launcher(head.as_ref().expect("it named it"), old));
    let before = before.transpose()?;

    let (files, bytes) = pack(what)?;
    let archive = Archive { sha256: ContentHash::of(&bytes), length: bytes.len() as u64 };
    let published =
        |already, sequence| PublishedLauncher { already, sequence, archive, files: files.len() };
    if let Some(before) = &before {
        if before.files == files && before.version == what.version {
            let published = published(true, before.sequence);
            ship(what, &repository, before.sequence, &before.to_bytes(), &before.program, &files)?;
            return Ok(published);
        }
        refuse_relabelled(before, what, &files)?;
    }
    let manifest = LauncherManifest {
        format: 1,
        product: home.config.product.clone(),
        platform: what.platform.clone(),
        version: what.version.clone(),
        sequence: old.map_or(0, |old| old.sequence) + 1,
        created: what.created.unwrap_or_else(now),
        archive,
        program: program_of(what),
        files: files.clone(),
    };
    let waiting = format!("launcher-{}", what.platform);
    let keys = launcher_keys(home, &repository)?;
    let is_same = |old: &LauncherManifest, new: &LauncherManifest| {
        *old == LauncherManifest { created: old.created, ..new.clone() }
    };
    let signed = waiting::signed(home, &waiting, &manifest, is_same, &signers, &[keys], &[])?;

    let path = repository.dir.join(archive.path());
    disk::make_folder(disk::folder_of(&path))?;
    disk::write_if_changed(&path, &bytes)?;
    let path = repository.dir.join(manifest::path(&signed.hash()));
    disk::make_folder(disk::folder_of(&path))?;
    disk::write_atomic(&path, &signed.to_bytes())?;
    let entry = LauncherRelease {
        platform: what.platform.clone(),
        version: what.version.clone(),
        sequence: manifest.sequence,
        manifest: signed.hash(),
        length: signed.payload().len() as u64,
    };
    head::sign(home, &head_key, &repository, &mut lock, |head| {
        head.launchers.retain(|launcher| launcher.platform != entry.platform);
        head.launchers.push(entry);
        head.launchers.sort_by(|a, b| a.platform.cmp(&b.platform));
    })?;
    waiting::done(home, &waiting)?;
    let published = published(false, manifest.sequence);
    ship(what, &repository, manifest.sequence, &signed.to_bytes(), &manifest.program, &files)?;
    Ok(published)
}

/// Launchers refuse these, too; here somebody can still do something about it.
fn refuse_relabelled(
    before: &LauncherManifest,
    what: &PublishLauncher,
    files: &[LauncherFile],
) -> Result<(), Error> {
    let numbers = |version: &Version| three_numbers(version.as_str());
    let why = if before.files == files {
        "these are its very files: build the new version first"
    } else if numbers(&what.version) <= numbers(&before.version) {
        "a newer launcher has a higher version, also when it goes back to older code"
    } else {
        return Ok(());
    };
    let (old, new) = (&before.version, &what.version);
    Err(Error::Usage(format!("--version {new}: {old} is published for {}; {why}", what.platform)))
}

fn launcher_keys<'a>(home: &Home, repository: &'a Repository) -> Result<&'a KeySet, Error> {
    let root = repository.trust.root().expect("an open repository has a root");
    root.roles.launcher.as_ref().ok_or_else(|| Error::Key {
        role: "launcher",
        path: home.key_path(Role::Launcher),
        why: "the root lists no launcher keys, so no launcher would take it: run `updraft-publisher keys \
              rotate launcher`"
            .to_owned(),
    })
}

fn stub_name(platform: &Name) -> &'static str {
    if is_windows(platform) { "updraft-stub.exe" } else { "updraft-stub" }
}

fn is_windows(platform: &Name) -> bool {
    platform.as_str().starts_with("windows")
}

fn program_of(what: &PublishLauncher) -> RelPath {
    let usual =
        if is_windows(&what.platform) { "updraft-launcher.exe" } else { "updraft-launcher" };
    what.program.clone().unwrap_or_else(|| RelPath::parse(usual).expect("it is a path"))
}

/// The files of the folder but for the stub, and the archive of them: sorted by path, without times.
fn pack(what: &PublishLauncher) -> Result<(Vec<LauncherFile>, Vec<u8>), Error> {
    let scan = scan(&what.dir, &[])?;
    let program = program_of(what);
    let mut problems = Vec::new();
    if scan.total > UNPACKED_BYTES_MAX {
        problems.push(format!("it is larger than {UNPACKED_BYTES_MAX} bytes"));
    }
    if !scan.files.iter().any(|file| file.path == program) {
        problems.push(format!("it has no `{program}` for the stub to start (--program)"));
    }
    let mut sorted: Vec<_> = scan.files.iter().collect();
    sorted.retain(|file| file.path.as_str() != stub_name(&what.platform));
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut files = Vec::new();
    let failed = |error: &dyn std::fmt::Display| Error::content(&what.dir, error);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    if problems.is_empty() {
        for file in sorted {
            let Kind::File { length, executable, .. } = file.kind else {
                problems.push(format!("`{}` is a link: a launcher has files only", file.path));
                continue;
            };
            let executable = executable || file.path == program;
            let mut bytes = Vec::new();
            let read = File::open(&file.source).and_then(|mut f| f.read_to_end(&mut bytes));
            read.map_err(Error::disk("read", &file.source))?;
            if bytes.len() as u64 != length {
                return Err(Error::BuildChanged { path: file.source.clone() });
            }
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .last_modified_time(zip::DateTime::default())
                .unix_permissions(if executable { 0o755 } else { 0o644 });
            zip.start_file(file.path.as_str(), options).map_err(|error| failed(&error))?;
            zip.write_all(&bytes).map_err(|error| failed(&error))?;
            let (path, sha256) = (file.path.clone(), ContentHash::of(&bytes));
            files.push(LauncherFile { path, length, sha256, executable });
        }
    }
    let bytes = zip.finish().map_err(|error| failed(&error))?.into_inner();
    if bytes.len() as u64 > ARCHIVE_BYTES_MAX {
        problems.push(format!("its archive is larger than {ARCHIVE_BYTES_MAX} bytes"));
    }
    if problems.is_empty() { Ok((files, bytes)) } else { Err(Error::Refused { problems }) }
}

/// Writes what players get first: a home with the stub and this one version.
fn ship(
    what: &PublishLauncher,
    repository: &Repository,
    sequence: u64,
    manifest: &[u8],
    program: &RelPath,
    files: &[LauncherFile],
) -> Result<(), Error> {
    let Some(out) = &what.ship else { return Ok(()) };
    let stub = stub_name(&what.platform);
    let slot = Slot { sequence, program: program.clone() };
    if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        let text = format!("--ship {}: the folder is not empty", out.display());
        return Err(Error::Usage(text));
    }
    for file in files {
        let to = file.path.under(&out.join(slot.folder()));
        disk::make_folder(disk::folder_of(&to))?;
        copy(&file.path.under(&what.dir), &to)?;
    }
    disk::write_atomic(&out.join(format!("{}.toml", slot.folder())), manifest)?;
    copy(&what.dir.join(stub), &out.join(stub))?;
    let current = Current { start: slot, previous: None, root: repository.fingerprint };
    disk::write_atomic(&out.join(CURRENT_NAME), current.to_text().as_bytes())
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::copy(from, to).map(|_| ()).map_err(Error::disk("copy", from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::init;

    fn programs(dir: &Path, mark: &str) -> PublishLauncher {
        disk::make_folder(&dir.join("data")).unwrap();
        std::fs::write(dir.join("updraft-launcher"), format!("program {mark}")).unwrap();
        std::fs::write(dir.join("updraft-stub"), "stub").unwrap();
        std::fs::write(dir.join("data/strings"), mark).unwrap();
        PublishLauncher {
            dir: dir.to_path_buf(),
            version: Version::parse("1.0.0").unwrap(),
            platform: Name::parse("linux-x86_64").unwrap(),
            program: None,
            created: None,
            ship: None,
        }
    }

    #[test]
    fn same_programs_same_bytes_and_never_backwards() {
        let dir = tempfile::tempdir().unwrap();
        let product = Name::parse("game").unwrap();
        let home = init(&dir.path().join("home"), &product, &[], None).unwrap();
        let mut what = programs(&dir.path().join("one"), "one");
        let first = publish_launcher(&home, &what).unwrap();
        assert_eq!((first.already, first.sequence, first.files), (false, 1, 2));
        assert!(publish_launcher(&home, &what).unwrap().already);
        let copy = PublishLauncher { ..programs(&dir.path().join("copy"), "one") };
        assert_eq!(pack(&what).unwrap(), pack(&copy).unwrap());

        what.version = Version::parse("1.1.0").unwrap();
        let relabelled = publish_launcher(&home, &what).unwrap_err();
        assert!(relabelled.to_string().contains("very files"), "{relabelled}");
        let mut older = programs(&dir.path().join("two"), "two");
        older.version = Version::parse("0.9.0").unwrap();
        let refused = publish_launcher(&home, &older).unwrap_err();
        assert!(refused.to_string().contains("higher version"), "{refused}");
        older.version = Version::parse("1.10.0").unwrap();
        assert_eq!(publish_launcher(&home, &older).unwrap().sequence, 2);

        let repository = Repository::open(&home.repository(), None).unwrap();
        let head = repository.head(now()).unwrap().unwrap().head;
        let entry = head.launcher(&what.platform).unwrap();
        assert_eq!(repository.launcher(&head, entry).unwrap().files.len(), 2);
    }

    #[test]
    fn what_is_no_launcher_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home =
            init(&dir.path().join("home"), &Name::parse("game").unwrap(), &[], None).unwrap();
        let good = programs(&dir.path().join("one"), "one");
        let version = Version::parse("1.0").unwrap();
        let platform = Name::any_platform();
        let program = Some(RelPath::parse("start-me").unwrap());
        for bad in [
            PublishLauncher { version, ..good.clone() },
            PublishLauncher { platform, ..good.clone() },
            PublishLauncher { program, ..good },
        ] {
            assert!(publish_launcher(&home, &bad).is_err(), "{bad:?}");
        }
        let repository = Repository::open(&home.repository(), None).unwrap();
        assert!(repository.head(now()).unwrap().is_none(), "nothing was published");
    }

    #[test]
    fn the_first_folder_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let home =
            init(&dir.path().join("home"), &Name::parse("game").unwrap(), &[], None).unwrap();
        let out = dir.path().join("out");
        let what = programs(&dir.path().join("one"), "one");
        let what = PublishLauncher { ship: Some(out.clone()), ..what };
        publish_launcher(&home, &what).unwrap();
        let text = std::fs::read_to_string(out.join(CURRENT_NAME)).unwrap();
        let current = Current::parse(&text).unwrap();
        let program = std::fs::read_to_string(out.join(current.start.path())).unwrap();
        assert_eq!(program, "program one");
        assert!(out.join("updraft-stub").is_file() && out.join("launcher-1.toml").is_file());
        assert!(publish_launcher(&home, &what).is_err(), "nothing is overwritten");
    }
}
