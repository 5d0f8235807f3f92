//! Where passphrases come from: a file, the environment, or somebody at the terminal. Each is asked for
//! once in a run, and only when a key needs it.

use crate::terminal::ask_unseen;
use crate::{Error, disk};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// Holds the passphrase, where no file is named and nobody is asked.
pub const PASSPHRASE_VARIABLE: &str = "UPDRAFT_PASSPHRASE";
/// The shortest passphrase that a key is sealed with, in characters: a stolen file can be tried offline.
pub const PASSPHRASE_LEN_MIN: usize = 12;
/// The longest passphrase file in bytes.
const PASSPHRASE_BYTES_MAX: usize = 4096;
/// How often somebody at a terminal may try.
const ATTEMPTS_MAX: usize = 3;

/// What somebody has to know to use a sealed key. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// This text.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// What keys are derived from.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// [`Error::Disk`]; [`Error::Usage`] if its first line is empty; [`Error::Content`] for a file that is too
    /// long or no text.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = Zeroizing::new(disk::read_capped(path, PASSPHRASE_BYTES_MAX)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::content(path, "is not text"))?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Self::new(line)),
            Some(_) | None => Err(Error::Usage(format!(
                "{}: its first line is empty, where the passphrase is expected",
                path.display()
            ))),
        }
    }

    /// As [`PASSPHRASE_LEN_MIN`] asks for.
    fn long_enough(self) -> Result<Self, Error> {
        if self.0.chars().count() >= PASSPHRASE_LEN_MIN {
            return Ok(self);
        }
        let text =
            format!("a passphrase has at least {PASSPHRASE_LEN_MIN} characters: five words do");
        Err(Error::Usage(text))
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

/// The passphrases of one run.
#[derive(Debug, Default)]
pub struct Passphrases {
    file: Option<PathBuf>,
    known: Mutex<Vec<Passphrase>>,
    chosen: Mutex<Option<Passphrase>>,
}

impl Passphrases {
    /// Those that come from `file`, if one is named.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Only this one, which nobody is asked for.
    pub fn only(passphrase: Passphrase) -> Self {
        Self {
            chosen: Mutex::new(Some(passphrase.clone())),
            known: Mutex::new(vec![passphrase]),
            file: None,
        }
    }

    /// Calls `unseal` with one passphrase after the other, until one opens `what`.
    ///
    /// # Errors
    /// [`Error::Stopped`] if somebody stops it; else why none does, and what to do.
    pub(crate) fn unlock<T>(
        &self,
        what: &str,
        unseal: impl Fn(&Passphrase) -> Option<T>,
    ) -> Result<T, Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = known.iter().find_map(&unseal) {
            return Ok(opened);
        }
        if let Some((passphrase, from)) = self.given()? {
            let opened = unseal(&passphrase).ok_or_else(|| {
                let text = format!("the passphrase in {from} does not open it, or it is damaged");
                Error::Usage(text)
            })?;
            known.push(passphrase);
            return Ok(opened);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Error::Usage(format!(
                "it is sealed: give its passphrase with --passphrase-file, or in {PASSPHRASE_VARIABLE}, \
                 or run this on a terminal"
            )));
        }
        for attempt in 1..=ATTEMPTS_MAX {
            let again = if attempt > 1 { "that does not open it\n" } else { "" };
            let passphrase = ask(&format!("{again}passphrase of {what}: "))?;
            if let Some(opened) = unseal(&passphrase) {
                known.push(passphrase);
                return Ok(opened);
            }
        }
        let text = format!("none of {ATTEMPTS_MAX} passphrases opens it, or it is damaged");
        Err(Error::Usage(text))
    }

    /// The passphrase that new keys of this run are sealed with.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none, it is too short, or it was not said twice the same.
    pub fn choose(&self) -> Result<Passphrase, Error> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chosen) = &*chosen {
            return Ok(chosen.clone());
        }
        let new = match self.given()? {
            Some((given, _)) => given.long_enough()?,
            None => ask_for_new(&format!(
                "new keys are sealed with a passphrase: give one with --passphrase-file or in \
                 {PASSPHRASE_VARIABLE}, run this on a terminal, or say --no-passphrase, and whoever reads \
                 the files can sign"
            ))?,
        };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).push(new.clone());
        *chosen = Some(new.clone());
        Ok(new)
    }

    /// Another one for keys that are sealed already: from `file`, or asked for.
    ///
    /// # Errors
    /// As [`Passphrases::choose`].
    pub fn choose_next(file: Option<&Path>) -> Result<Passphrase, Error> {
        let nobody = "the new passphrase is asked for on a terminal: run this on one, give it with \
                      --new-passphrase-file, or say --no-passphrase, and whoever reads the files can sign";
        file.map_or_else(|| ask_for_new(nobody), |file| Passphrase::read(file)?.long_enough())
    }

    /// One that needs nobody at the terminal, and where it stands.
    fn given(&self) -> Result<Option<(Passphrase, String)>, Error> {
        if let Some(file) = &self.file {
            return Ok(Some((Passphrase::read(file)?, file.display().to_string())));
        }
        let given = std::env::var(PASSPHRASE_VARIABLE).ok().filter(|text| !text.is_empty());
        Ok(given.map(|text| (Passphrase(Zeroizing::new(text)), PASSPHRASE_VARIABLE.to_owned())))
    }
}

/// `nobody` is what to do where there is no terminal.
fn ask_for_new(nobody: &str) -> Result<Passphrase, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(nobody.to_owned()));
    }
    let mut wrong = String::new();
    for _ in 1..=ATTEMPTS_MAX {
        let first = match ask(&format!("{wrong}new passphrase: "))?.long_enough() {
            Err(error) => {
                wrong = format!("{error}\n");
                continue;
            }
            first => first?,
        };
        if ask("once more: ")?.0 == first.0 {
            return Ok(first);
        }
        wrong = "the two differ\n".to_owned();
    }
    let wrong = wrong.trim_end();
    Err(Error::Usage(format!("{wrong}: nothing was changed")))
}

fn ask(question: &str) -> Result<Passphrase, Error> {
    match ask_unseen(question) {
        Ok(asked) => Ok(Passphrase(asked)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Error::Stopped),
        Err(error) => Err(Error::Usage(format!("no passphrase: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_is_read_to_its_first_line() {
        let (_dir, path) = file("correct horse battery\nstaple\n");
        let passphrases = Passphrases::new(Some(path));
        let is = |text: &str| {
            passphrases.unlock("it", |p| (p.as_bytes() == text.as_bytes()).then_some(()))
        };
        is("correct horse battery").unwrap();
        assert!(is("staple").unwrap_err().to_string().contains("does not open it"));
        assert_eq!(passphrases.choose().unwrap().as_bytes(), b"correct horse battery");
    }

    #[test]
    fn short_and_empty_ones_are_refused() {
        let (_dir, path) = file("short\n");
        let error = Passphrases::new(Some(path.clone())).choose().unwrap_err();
        assert!(error.to_string().contains("at least 12"), "{error}");
        assert!(Passphrases::choose_next(Some(&path)).is_err());
        let (_dir, path) = file("\nsecond line is long enough\n");
        let error = Passphrases::new(Some(path)).choose().unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::USAGE);
        assert!(error.to_string().contains("first line is empty"), "{error}");
    }
}
