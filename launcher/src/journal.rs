//! The journal of one install: what was decided, in order, each line with its checksum.
//!
//! Append-only text, one record a line: 64 hexadecimal digits of BLAKE3, a space, and the record as
//! JSON. The checksum covers the checksum of the line before and the JSON, so a torn tail, a flipped
//! bit or a line from another time ends the reading there. A record counts once [`Journal::append`]
//! has returned: it is synced before that.

use crate::tree::Tree;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read, Write};

/// The most bytes a journal may have: a transaction of a million files fits.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 512 << 20;

/// An open journal, positioned after its last whole record.
#[derive(Debug)]
pub struct Journal {
    /// None only after it could not be replaced.
    file: Option<File>,
    last: blake3::Hash,
}

impl Journal {
    /// Reads the journal at `path` of `tree` and opens it for appending. What follows the last whole
    /// record is cut off.
    ///
    /// # Errors
    /// From the file system, or when the file is larger than any journal can be.
    pub fn open<R: DeserializeOwned + Serialize>(
        tree: &Tree,
        path: &str,
    ) -> io::Result<(Self, Vec<R>)> {
        let mut text = Vec::new();
        if tree.exists(path)? {
            let file = tree.open_file(path)?;
            if file.metadata()?.len() > JOURNAL_BYTES_MAX {
                return Err(io::Error::other("the journal is larger than any journal can be"));
            }
            file.take(JOURNAL_BYTES_MAX).read_to_end(&mut text)?;
        }
        let records = parse(&text);
        let journal = Self::write(tree, path, &records)?;
        Ok((journal, records))
    }

    /// Starts a new journal at `path` with `records`, in place of the one that is there.
    ///
    /// # Errors
    /// From the file system.
    fn write<R: Serialize>(tree: &Tree, path: &str, records: &[R]) -> io::Result<Self> {
        let fresh = format!("{path}.new");
        let mut journal = Self { file: Some(tree.create_file(&fresh)?), last: start() };
        for record in records {
            journal.push(record)?;
        }
        journal.file()?.sync_all()?;
        tree.rename(&fresh, path)?;
        tree.sync_folder(crate::tree::parent(path))?;
        Ok(journal)
    }

    /// Starts anew at `path`, where this journal is, with `records`.
    ///
    /// # Errors
    /// From the file system; nothing can be appended then.
    pub fn replace<R: Serialize>(
        &mut self,
        tree: &Tree,
        path: &str,
        records: &[R],
    ) -> io::Result<()> {
        // Some file systems of Windows replace no file that is open, also not by us.
        self.file = None;
        *self = Self::write(tree, path, records)?;
        Ok(())
    }

    fn file(&mut self) -> io::Result<&mut File> {
        self.file.as_mut().ok_or_else(|| io::Error::other("the journal could not be replaced"))
    }

    /// Adds a record and makes it durable.
    ///
    /// # Errors
    /// From the file system; the record then counts as not written.
    pub fn append<R: Serialize>(&mut self, record: &R) -> io::Result<()> {
        self.push(record)?;
        self.file()?.sync_data()
    }

    fn push<R: Serialize>(&mut self, record: &R) -> io::Result<()> {
        let json = serde_json::to_vec(record)?;
        let sum = checksum(self.last, &json);
        let mut line = sum.to_hex().as_bytes().to_vec();
        line.push(b' ');
        line.extend(json);
        line.push(b'\n');
        self.file()?.write_all(&line)?;
        self.last = sum;
        Ok(())
    }
}

/// The records of a journal, up to the first that is not whole.
pub fn parse<R: DeserializeOwned>(text: &[u8]) -> Vec<R> {
    let mut last = start();
    let mut records = Vec::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let Some((sum, json)) = line.split_at_checked(64) else { break };
        let Some(json) = json.strip_prefix(b" ") else { break };
        let expected = checksum(last, json);
        if expected.to_hex().as_bytes() != sum {
            break;
        }
        let Ok(record) = serde_json::from_slice(json) else { break };
        records.push(record);
        last = expected;
    }
    records
}

fn start() -> blake3::Hash {
    blake3::hash(b"updraft journal 1")
}

fn checksum(last: blake3::Hash, json: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(last.as_bytes());
    hasher.update(json);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_changed_tail_ends_the_reading() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let path = dir.path().join("journal");
        let records = ["one".to_owned(), "two".to_owned(), "three".to_owned()];
        let (mut journal, old) = Journal::open::<String>(&tree, "journal").unwrap();
        assert!(old.is_empty());
        for record in &records {
            journal.append(record).unwrap();
        }
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> =
            whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let expected = ends.iter().filter(|end| **end <= cut).count();
            let (mut journal, read) = Journal::open::<String>(&tree, "journal").unwrap();
            assert_eq!(read, records[..expected], "cut at {cut}");
            // What is appended after a torn tail is read again.
            journal.append(&"more".to_owned()).unwrap();
            drop(journal);
            let (_, read) = Journal::open::<String>(&tree, "journal").unwrap();
            assert_eq!(read.len(), expected + 1);
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            std::fs::write(&path, &bent).unwrap();
            let (_, read) = Journal::open::<String>(&tree, "journal").unwrap();
            let line = ends.iter().filter(|end| **end <= at).count();
            assert_eq!(read, records[..line], "bit at {at}");
        }
    }
}
