//! Which launcher is started: the file `current` in a launcher's home.
//!
//! A home holds the stub, this file, and versions of the launcher side by side:
//!
//! | path | what |
//! |---|---|
//! | `current` | this file; replaced by rename |
//! | `launcher-<sequence>/` | exactly the files that its manifest lists |
//! | `launcher-<sequence>.toml` | its signed manifest |
//! | `launcher-<sequence>.started` | one byte for every start that was not reported healthy |
//! | `launcher-<sequence>.healthy` | it came up on this machine |
//!
//! The text is four lines of words, so that the stub needs no parser of anything larger.

use crate::hash::ContentHash;
use crate::path::RelPath;
use std::fmt::Write as _;

/// The file's name.
pub const CURRENT_NAME: &str = "current";
/// The largest such file in bytes.
pub const CURRENT_BYTES_MAX: usize = 16 << 10;
const FIRST_LINE: &str = "updraft-current 1";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// What is started.
    pub start: Slot,
    /// What is started instead when that does not come up.
    pub previous: Option<Slot>,
    /// SHA-256 of the product's first root: this launcher takes updates from nobody else.
    pub root: ContentHash,
}

/// One version of the launcher in its home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its sequence.
    pub sequence: u64,
    /// The program in its folder.
    pub program: RelPath,
}

impl Slot {
    /// Its folder in the home; with `.toml`, `.started` or `.healthy` behind it, its records.
    pub fn folder(&self) -> String {
        folder(self.sequence)
    }

    /// The program, from the home.
    pub fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.program)
    }
}

/// The folder of the launcher with that sequence, in its home.
pub fn folder(sequence: u64) -> String {
    format!("launcher-{sequence}")
}

/// The sequence in a folder's name.
pub fn sequence_of(folder: &str) -> Option<u64> {
    let sequence = folder.strip_prefix("launcher-")?.parse().ok()?;
    (self::folder(sequence) == folder).then_some(sequence)
}

impl Current {
    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        let slots = [("start", Some(&self.start)), ("previous", self.previous.as_ref())];
        for (word, slot) in slots {
            if let Some(Slot { sequence, program }) = slot {
                writeln!(text, "{word} {sequence} {program}").expect("a String takes all");
            }
        }
        writeln!(text, "root {}", self.root).expect("a String takes all");
        text
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// In words: what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if text.len() > CURRENT_BYTES_MAX || lines.next() != Some(FIRST_LINE) {
            return Err("its first line is of no version that this program knows".to_owned());
        }
        let (mut start, mut previous, mut root) = (None, None, None);
        for line in lines {
            let wrong = || format!("the line `{}` makes no sense", crate::names::shown(line));
            let (word, rest) = line.split_once(' ').ok_or_else(wrong)?;
            match word {
                "start" => start = Some(slot(rest).ok_or_else(wrong)?),
                "previous" => previous = Some(slot(rest).ok_or_else(wrong)?),
                "root" => root = Some(ContentHash::from_hex(rest).ok_or_else(wrong)?),
                _ => return Err(wrong()),
            }
        }
        match (start, root) {
            (Some(start), Some(root)) => Ok(Self { start, previous, root }),
            _ => Err("it names no launcher, or no root".to_owned()),
        }
    }
}

fn slot(text: &str) -> Option<Slot> {
    let (sequence, program) = text.split_once(' ')?;
    Some(Slot { sequence: sequence.parse().ok()?, program: RelPath::parse(program).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let slot = |sequence| Slot { sequence, program: RelPath::parse("bin/my game").unwrap() };
        let root = ContentHash([7; 32]);
        for previous in [None, Some(slot(5))] {
            let current = Current { start: slot(6), previous, root };
            let text = current.to_text();
            assert_eq!(Current::parse(&text).unwrap(), current);
            // Whatever is cut off is noticed.
            for end in 0..text.len() - 1 {
                assert!(Current::parse(&text[..end]).is_err(), "{}", &text[..end]);
            }
            assert!(Current::parse(&text.replace("bin/", "../")).is_err());
            assert!(Current::parse(&format!("{text}more\n")).is_err());
        }
        assert_eq!(slot(6).path(), "launcher-6/bin/my game");
    }

    #[test]
    fn folders_have_one_name() {
        assert_eq!(sequence_of("launcher-12"), Some(12));
        for other in ["launcher-012", "launcher-", "launcher-+1", "launcher-1.toml", "other-1"] {
            assert_eq!(sequence_of(other), None, "{other}");
        }
    }
}
