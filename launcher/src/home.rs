//! The launcher's own home: versions side by side, and which of them is started.
//!
//! A stub that is never replaced reads `current` ([`updraft_manifests::current`]) and starts what it
//! names. A version that was not seen to work on this machine is *on trial*: it has to report healthy
//! within [`HEALTHY_WAIT`]; after two starts without that the one before is started instead. So what
//! runs is decided by files alone, and a runnable launcher is there at every instant of an update
//! ([`install`]).

pub mod install;
pub mod trial;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use updraft_manifests::current::{
    CURRENT_BYTES_MAX, CURRENT_NAME, Current, Slot, folder, sequence_of,
};

/// How long a version on trial may take to report healthy.
pub const HEALTHY_WAIT: Duration = Duration::from_secs(60);
/// After so many starts without a healthy report a version has failed.
pub const STARTS_MAX: u64 = 2;

/// A home.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// It came up here before, or nothing else is left.
    Proven(Slot),
    /// It has to report healthy.
    OnTrial(Slot),
}

impl Home {
    /// The home in `dir`.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// The home that this program was started from, and its own sequence; `None` if it lies elsewhere.
    pub fn of_this_program() -> Option<(Self, u64)> {
        let program = dunce::canonicalize(std::env::current_exe().ok()?).ok()?;
        Self::around(&program)
    }

    fn around(program: &Path) -> Option<(Self, u64)> {
        program.ancestors().find_map(|version| {
            let sequence = sequence_of(version.file_name()?.to_str()?)?;
            let dir = version.parent()?;
            dir.join(CURRENT_NAME).is_file().then(|| (Self::at(dir), sequence))
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `current` says.
    ///
    /// # Errors
    /// From the file system; `InvalidData` for text that makes no sense.
    pub fn current(&self) -> io::Result<Current> {
        let mut text = String::new();
        let file = File::open(self.dir.join(CURRENT_NAME))?;
        file.take(CURRENT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
        Current::parse(&text).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// What to start now.
    ///
    /// # Errors
    /// In words: why nothing can be started.
    pub fn choose(&self) -> Result<Choice, String> {
        let current = self.current().map_err(|error| {
            let path = self.dir.join(CURRENT_NAME);
            format!("{}: {error}; install the launcher again", path.display())
        })?;
        let runnable = |slot: &&Slot| self.dir.join(slot.path()).is_file();
        let start = Some(&current.start).filter(runnable);
        let previous = current.previous.as_ref().filter(runnable);
        match (start, previous) {
            (Some(start), _) if self.is_healthy(start.sequence) => {
                Ok(Choice::Proven(start.clone()))
            }
            (Some(start), _) if !self.has_failed(start.sequence) => {
                Ok(Choice::OnTrial(start.clone()))
            }
            (_, Some(previous)) => Ok(Choice::Proven(previous.clone())),
            (Some(start), None) => Ok(Choice::Proven(start.clone())),
            (None, None) => {
                let path = self.dir.join(current.start.path());
                Err(format!("{} is missing; install the launcher again", path.display()))
            }
        }
    }

    /// Whether that version came up here.
    pub fn is_healthy(&self, sequence: u64) -> bool {
        self.record(sequence, "healthy").is_file()
    }

    /// Whether that version was started [`STARTS_MAX`] times and never came up.
    pub fn has_failed(&self, sequence: u64) -> bool {
        let starts = fs::metadata(self.record(sequence, "started")).map_or(0, |file| file.len());
        !self.is_healthy(sequence) && starts >= STARTS_MAX
    }

    /// Records that a version on trial is being started.
    ///
    /// # Errors
    /// From the file system.
    pub fn note_start(&self, sequence: u64) -> io::Result<()> {
        let path = self.record(sequence, "started");
        let mut file = File::options().create(true).append(true).open(path)?;
        file.write_all(b".")?;
        file.sync_all()
    }

    /// Records that a version came up.
    ///
    /// # Errors
    /// From the file system.
    pub fn note_healthy(&self, sequence: u64) -> io::Result<()> {
        if self.is_healthy(sequence) {
            return Ok(());
        }
        File::create(self.record(sequence, "healthy"))?.sync_all()
    }

    /// A record of that version: `started`, `healthy`, or `toml`, its signed manifest.
    pub fn record(&self, sequence: u64, kind: &str) -> PathBuf {
        self.dir.join(format!("{}.{kind}", folder(sequence)))
    }
}

/// Reports that this program came up, if it is a version in a home. A home that cannot be written to
/// (installed for all users) needs no report: nothing replaces its launcher.
pub fn report_healthy() {
    if let Some((home, sequence)) = Home::of_this_program()
        && let Err(error) = home.note_healthy(sequence)
    {
        tracing::debug!(%error, "that this launcher is healthy is not recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_manifests::hash::ContentHash;
    use updraft_manifests::path::RelPath;

    fn slot(sequence: u64) -> Slot {
        Slot { sequence, program: RelPath::parse("run").unwrap() }
    }

    fn home(dir: &Path, versions: &[u64]) -> Home {
        for version in versions {
            fs::create_dir(dir.join(folder(*version))).unwrap();
            fs::write(dir.join(slot(*version).path()), "").unwrap();
        }
        let previous = Some(slot(1));
        let current = Current { start: slot(2), previous, root: ContentHash([1; 32]) };
        fs::write(dir.join(CURRENT_NAME), current.to_text()).unwrap();
        Home::at(dir)
    }

    #[test]
    fn two_failed_starts_mean_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path(), &[1, 2]);
        for _ in 0..STARTS_MAX {
            assert_eq!(home.choose(), Ok(Choice::OnTrial(slot(2))));
            home.note_start(2).unwrap();
        }
        assert_eq!(home.choose(), Ok(Choice::Proven(slot(1))));
        // Late is not never.
        home.note_healthy(2).unwrap();
        assert_eq!(home.choose(), Ok(Choice::Proven(slot(2))));
    }

    #[test]
    fn something_is_started_as_long_as_there_is_something() {
        let dir = tempfile::tempdir().unwrap();
        let only_new = home(dir.path(), &[2]);
        only_new.note_start(2).unwrap();
        only_new.note_start(2).unwrap();
        assert_eq!(only_new.choose(), Ok(Choice::Proven(slot(2))), "it is all there is");
        fs::remove_dir_all(dir.path().join("launcher-2")).unwrap();
        assert!(only_new.choose().unwrap_err().contains("launcher-2"));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(home(dir.path(), &[1]).choose(), Ok(Choice::Proven(slot(1))));
        fs::write(dir.path().join(CURRENT_NAME), "rubbish").unwrap();
        assert!(Home::at(dir.path()).choose().unwrap_err().contains("install the launcher again"));
    }

    #[test]
    fn a_program_finds_its_home() {
        let dir = tempfile::tempdir().unwrap();
        home(dir.path(), &[2]);
        let (found, sequence) = Home::around(&dir.path().join("launcher-2/bin/run")).unwrap();
        assert_eq!((found.dir(), sequence), (dir.path(), 2));
        assert!(Home::around(&dir.path().join("elsewhere/run")).is_none());
    }
}
