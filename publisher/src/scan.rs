//! The build folder as it lies there, or the list of what is wrong with it.
//!
//! What would break some player is refused here, by name and all at once, because after publishing
//! it is too late: names that clash or cannot exist on some platform, links that lead out of the
//! folder, things that are no files, and secrets that slipped in.

use crate::{Error, disk};
use std::fs::{self, Metadata};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;
use updraft_manifests::keys::SECRET_KEY_MARK;
use updraft_manifests::path::{NameSet, PathError, PathFault, RelPath, is_launcher_folder};

/// The most faults that are listed.
pub const PROBLEMS_MAX: usize = 50;
/// The most files and folders of a build.
pub const ENTRIES_MAX: usize = 1 << 20;
/// Files up to this size are searched for keys: a key file is small.
const SECRET_BYTES_MAX: u64 = 16 << 10;

const SECRET_NAMES: [&str; 10] = [
    ".git",
    ".ssh",
    ".env",
    ".netrc",
    ".npmrc",
    ".pypirc",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
];
const SECRET_EXTENSIONS: [&str; 4] = ["p12", "pfx", "keystore", "jks"];

/// What a build holds.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files and links, by path.
    pub files: Vec<ScannedFile>,
    /// Folders with nothing in them.
    pub empty_folders: Vec<RelPath>,
    /// Bytes of all files.
    pub total: u64,
}

/// A file or link of the build.
#[derive(Debug, Clone)]
pub struct ScannedFile {
    /// Its path in the release.
    pub path: RelPath,
    /// Where it lies now.
    pub source: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What a file of the build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// Bytes.
        length: u64,
        /// Marked executable.
        executable: bool,
        /// When it was last written.
        modified: Option<SystemTime>,
    },
    /// A link.
    Symlink {
        /// Its target, from the build folder.
        target: RelPath,
    },
}

/// Scans the folder `build`. Files named in `allow` (paths in the release) may look like secrets.
///
/// # Errors
/// [`Error::Refused`] with every fault; [`Error::Disk`] when something cannot be read.
pub fn scan(build: &Path, allow: &[RelPath]) -> Result<Scan, Error> {
    let canonical = fs::canonicalize(build).map_err(Error::disk("read the build folder", build))?;
    if !canonical.is_dir() {
        let why = "is not a folder: name the folder that players shall get";
        return Err(Error::Usage(format!("{}: {why}", build.display())));
    }
    let mut scanner = Scanner {
        build: &canonical,
        allow,
        names: NameSet::new(),
        scan: Scan::default(),
        problems: vec![],
        entries: 0,
    };
    scanner.walk()?;
    scanner.check_links();
    let Scanner { mut scan, problems, .. } = scanner;
    if scan.files.is_empty() && problems.is_empty() {
        return Err(Error::Refused {
            problems: vec![format!("{}: there are no files", build.display())],
        });
    }
    if !problems.is_empty() {
        return Err(Error::Refused { problems });
    }
    scan.files.sort_by(|a, b| a.path.cmp(&b.path));
    scan.empty_folders.sort();
    Ok(scan)
}

struct Scanner<'a> {
    build: &'a Path,
    allow: &'a [RelPath],
    names: NameSet,
    scan: Scan,
    problems: Vec<String>,
    entries: usize,
}

impl Scanner<'_> {
    fn walk(&mut self) -> Result<(), Error> {
        let mut folders: Vec<Vec<String>> = vec![vec![]];
        while let Some(folder) = folders.pop() {
            let mut here = self.build.to_path_buf();
            here.extend(&folder);
            let mut names = Vec::new();
            for entry in fs::read_dir(&here).map_err(Error::disk("read", &here))? {
                names.push(entry.map_err(Error::disk("read", &here))?.file_name());
            }
            // The order of a folder differs by file system; faults are to be listed alike everywhere.
            names.sort();
            if names.is_empty() && !folder.is_empty() {
                self.empty_folder(&folder);
            }
            for name in names {
                self.entries += 1;
                if self.entries > ENTRIES_MAX {
                    let problem = format!("more than {ENTRIES_MAX} files and folders");
                    return Err(Error::Refused { problems: vec![problem] });
                }
                let source = here.join(&name);
                let Some(name) = name.to_str() else {
                    self.problem(format!("{}: {}", source.display(), PathFault::NotUnicode));
                    continue;
                };
                let metadata =
                    fs::symlink_metadata(&source).map_err(Error::disk("read", &source))?;
                let mut path = folder.clone();
                path.push(name.to_owned());
                if metadata.is_dir() {
                    if self.folder(&path) {
                        folders.push(path);
                    }
                } else {
                    self.file(&path, source, &metadata)?;
                }
            }
        }
        Ok(())
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }

    fn rel_path(&mut self, components: &[String]) -> Option<RelPath> {
        match RelPath::from_components(components) {
            Ok(path) => Some(path),
            Err(PathError { path, reason }) => {
                self.problem(format!("`{path}` {reason}"));
                None
            }
        }
    }

    /// True if it is to be entered.
    fn folder(&mut self, components: &[String]) -> bool {
        let Some(path) = self.rel_path(components) else {
            return false;
        };
        if is_launcher_folder(path.as_str()) {
            self.problem(format!(
                "`{path}` is the launcher's own folder: is this an install, not a build?"
            ));
            return false;
        }
        if SECRET_NAMES.contains(&path.name()) && !self.allow.contains(&path) {
            self.problem(secret(&path));
            return false;
        }
        if let Err(clash) = self.names.folder(&path) {
            self.problem(clash.to_string());
            return false;
        }
        true
    }

    fn empty_folder(&mut self, components: &[String]) {
        if let Some(path) = self.rel_path(components) {
            self.scan.empty_folders.push(path);
        }
    }

    fn file(
        &mut self,
        components: &[String],
        source: PathBuf,
        metadata: &Metadata,
    ) -> Result<(), Error> {
        let Some(path) = self.rel_path(components) else {
            return Ok(());
        };
        if let Err(clash) = self.names.file(&path) {
            self.problem(clash.to_string());
            return Ok(());
        }
        let kind = if metadata.is_symlink() {
            let Some(target) = self.link_target(&path, &source)? else {
                return Ok(());
            };
            Kind::Symlink { target }
        } else if metadata.is_file() {
            if !self.allow.contains(&path) && looks_secret(&path, &source, metadata)? {
                self.problem(secret(&path));
                return Ok(());
            }
            self.scan.total += metadata.len();
            Kind::File {
                length: metadata.len(),
                executable: is_executable(metadata),
                modified: metadata.modified().ok(),
            }
        } else {
            self.problem(format!("`{path}` is neither a file, a folder nor a link"));
            return Ok(());
        };
        self.scan.files.push(ScannedFile { path, source, kind });
        Ok(())
    }

    /// Where the link points, from the build folder; `None` if it was refused.
    fn link_target(&mut self, path: &RelPath, source: &Path) -> Result<Option<RelPath>, Error> {
        let target = fs::read_link(source).map_err(Error::disk("read the link", source))?;
        let shown = target.display().to_string();
        let mut parts: Vec<String> = path
            .ancestors()
            .last()
            .map_or_else(Vec::new, |parent| parent.split('/').map(str::to_owned).collect());
        for component in target.components() {
            let inside = match component {
                Component::CurDir => true,
                Component::ParentDir => parts.pop().is_some(),
                Component::Normal(name) => {
                    name.to_str().map(|name| parts.push(name.to_owned())).is_some()
                }
                Component::RootDir | Component::Prefix(_) => false,
            };
            if !inside {
                self.problem(format!("the link `{path}` leads out of the build (to `{shown}`)"));
                return Ok(None);
            }
        }
        let found = RelPath::from_components(&parts).ok();
        if found.is_none() {
            self.problem(format!(
                "the link `{path}` leads to `{shown}`, which no release can name"
            ));
        }
        Ok(found)
    }

    /// Links may lead over other links: what counts is where they end.
    fn check_links(&mut self) {
        let mut problems = Vec::new();
        for file in &self.scan.files {
            if !matches!(file.kind, Kind::Symlink { .. }) {
                continue;
            }
            let path = &file.path;
            match fs::canonicalize(&file.source) {
                Ok(end) if end.starts_with(self.build) => {}
                Ok(end) => problems.push(format!(
                    "the link `{path}` leads out of the build (to `{}`)",
                    end.display()
                )),
                Err(_) => problems.push(format!("the link `{path}` leads nowhere")),
            }
        }
        for problem in problems {
            self.problem(problem);
        }
    }
}

fn secret(path: &RelPath) -> String {
    format!(
        "`{path}` looks like a secret: remove it, or pass --allow {path} if it is meant for players"
    )
}

fn looks_secret(path: &RelPath, source: &Path, metadata: &Metadata) -> Result<bool, Error> {
    let name = path.name().to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if SECRET_NAMES.contains(&name.as_str()) || SECRET_EXTENSIONS.contains(&extension) {
        return Ok(true);
    }
    if metadata.len() == 0 || metadata.len() > SECRET_BYTES_MAX {
        return Ok(false);
    }
    let length = usize::try_from(SECRET_BYTES_MAX).expect("a small constant");
    let bytes = match disk::read_capped(source, length) {
        Ok(bytes) => bytes,
        // It grew since: the copy will notice.
        Err(Error::Content { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(holds_key(&bytes))
}

/// A PEM private key at the start of a line, or one of our own key files.
fn holds_key(bytes: &[u8]) -> bool {
    let line_is_key = |line: &[u8]| {
        let line = line.trim_ascii();
        line.starts_with(b"-----BEGIN ") && line.ends_with(b"PRIVATE KEY-----")
            || line.starts_with(SECRET_KEY_MARK.as_bytes())
    };
    bytes.split(|byte| *byte == b'\n').any(line_is_key)
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(make: impl FnOnce(&Path)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("good"), "x").unwrap();
        make(dir.path());
        match scan(dir.path(), &[]) {
            Ok(_) => vec![],
            Err(Error::Refused { problems }) => problems,
            Err(other) => panic!("{other}"),
        }
    }

    #[track_caller]
    fn refused(make: impl FnOnce(&Path), expected: &str) {
        let problems = problems(make);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
    }

    #[test]
    fn a_good_build() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/empty")).unwrap();
        fs::write(dir.path().join("b/file"), "12345").unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        let scan = scan(dir.path(), &[]).unwrap();
        let paths: Vec<_> = scan.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["a", "b/file"]);
        assert_eq!(scan.empty_folders, [RelPath::parse("b/empty").unwrap()]);
        assert_eq!(scan.total, 5);
    }

    #[test]
    fn not_a_build() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(scan(dir.path(), &[]), Err(Error::Refused { .. })));
        assert!(matches!(scan(&dir.path().join("no"), &[]), Err(Error::Disk { .. })));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(scan(&dir.path().join("file"), &[]), Err(Error::Usage(_))));
    }

    #[test]
    fn secrets() {
        refused(|dir| fs::write(dir.join("id_rsa"), "").unwrap(), "`id_rsa` looks like a secret");
        refused(|dir| fs::create_dir(dir.join(".git")).unwrap(), ".git");
        refused(|dir| fs::write(dir.join("x.pfx"), "").unwrap(), "x.pfx");
        refused(
            |dir| fs::write(dir.join("t.pem"), "a\n-----BEGIN RSA PRIVATE KEY-----\nb").unwrap(),
            "--allow t.pem",
        );
        refused(
            |dir| {
                let key = updraft_manifests::keys::SecretKey::from_random(
                    updraft_manifests::keys::Role::Head,
                    [1; 32],
                );
                fs::write(dir.join("k"), key.to_text()).unwrap();
            },
            "`k` looks like a secret",
        );
        assert!(
            problems(|dir| fs::write(dir.join("doc"), "see -----BEGIN PRIVATE KEY-----").unwrap())
                .is_empty()
        );
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("id_rsa"), "").unwrap();
        assert!(scan(dir.path(), &[RelPath::parse("id_rsa").unwrap()]).is_ok());
    }

    #[test]
    fn an_install_is_no_build() {
        refused(|dir| fs::create_dir(dir.join(".updraft")).unwrap(), "launcher's own");
    }

    #[cfg(unix)]
    #[test]
    fn names_and_links() {
        use std::os::unix::fs::symlink;
        refused(|dir| fs::write(dir.join("GOOD"), "").unwrap(), "differ only in letter case");
        refused(|dir| fs::write(dir.join("nul.txt"), "").unwrap(), "reserves");
        refused(|dir| fs::write(dir.join("a:b"), "").unwrap(), "`a:b`");
        refused(
            |dir| {
                use std::os::unix::ffi::OsStrExt as _;
                fs::write(dir.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
            },
            "Unicode",
        );
        refused(|dir| symlink("/etc/passwd", dir.join("l")).unwrap(), "out of the build");
        refused(|dir| symlink("../x", dir.join("l")).unwrap(), "out of the build");
        refused(|dir| symlink("none", dir.join("l")).unwrap(), "nowhere");
        refused(|dir| symlink("l", dir.join("l")).unwrap(), "nowhere");
        refused(
            |dir| drop(std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap()),
            "neither a file",
        );
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("x"), "").unwrap();
        symlink("../x", dir.path().join("d/l")).unwrap();
        let scan = scan(dir.path(), &[]).unwrap();
        assert_eq!(scan.files[0].kind, Kind::Symlink { target: RelPath::parse("x").unwrap() });
    }
}
