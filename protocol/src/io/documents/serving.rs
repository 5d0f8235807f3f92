//! The answering side: documents for others, a part at a time, and so many at once for each.

use crate::wire::documents::{CHUNK, DOCUMENT_BYTES_MAX, DocumentMessage};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Parts that are looked up for one peer at once.
const RUNNING_MAX: usize = 2;
/// Parts that one peer may wait for: a launcher asks for no more documents than this at a time.
const WAITING_MAX: usize = 64;

/// Where the documents that others ask for come from.
pub trait DocumentStore: Send + Sync {
    /// Up to [`CHUNK`] bytes, from byte `at` on, of the document at a repository path such as `head.toml`,
    /// if it is here and may be given away. May read files: it is not called on the engine's task.
    fn part(&self, path: &str, at: u32) -> Option<DocumentPart>;
}

/// A part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentPart {
    /// Length of the whole document, in bytes.
    pub size: u32,
    /// The bytes of this part.
    pub data: Bytes,
}

impl DocumentPart {
    /// A part of a document that is in memory. `None` if it is too long to travel, or ends before `at`.
    pub fn of(document: &Bytes, at: u32) -> Option<Self> {
        let size = fitting(document.len() as u64, at)?;
        let end = size.min(at.saturating_add(CHUNK));
        Some(Self { size, data: document.slice(at as usize..end as usize) })
    }

    /// A part of a document that is the whole of `file`, and no more of it is read. `None` also if it is
    /// empty, longer than `most` bytes or cannot be read.
    pub fn of_file(mut file: File, at: u32, most: usize) -> Option<Self> {
        let len = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        let size = fitting(len, at).filter(|_| len > 0 && len <= most as u64)?;
        let wanted = (size - at).min(CHUNK);
        let mut data = Vec::with_capacity(wanted as usize);
        file.seek(SeekFrom::Start(u64::from(at))).ok()?;
        file.take(u64::from(wanted)).read_to_end(&mut data).ok()?;
        (data.len() == wanted as usize).then(|| Self { size, data: data.into() })
    }

    /// The answer to who asked for it.
    pub(crate) fn answer(self, path: String, at: u32) -> DocumentMessage {
        DocumentMessage::Have { path, at, size: self.size, data: self.data }
    }
}

/// The length of a document as it travels, if it may and has a byte `at` or ends there.
fn fitting(len: u64, at: u32) -> Option<u32> {
    u32::try_from(len).ok().filter(|&size| size <= DOCUMENT_BYTES_MAX && at <= size)
}

/// What one peer asked for and was not answered yet.
#[derive(Debug, Default)]
pub(in crate::io) struct Lookups {
    running: usize,
    waiting: VecDeque<(String, u32)>,
}

impl Lookups {
    /// It asks for a part. The path comes back if it asks for too much.
    pub(in crate::io) fn ask(&mut self, path: String, at: u32) -> Result<(), String> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(path);
        }
        self.waiting.push_back((path, at));
        Ok(())
    }

    /// True if another part is to be looked up now.
    pub(in crate::io) fn has_next(&self) -> bool {
        self.running < RUNNING_MAX && !self.waiting.is_empty()
    }

    /// The next part to look up.
    pub(in crate::io) fn next(&mut self) -> Option<(String, u32)> {
        let next = if self.has_next() { self.waiting.pop_front() } else { None };
        self.running += usize::from(next.is_some());
        next
    }

    /// One was looked up.
    pub(in crate::io) fn done(&mut self) {
        self.running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn parts_of_a_file_and_of_memory_are_the_same() {
        let len = CHUNK as usize + 10;
        let document: Bytes = (0..=255u8).cycle().take(len).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&document).unwrap();
        let size = u32::try_from(len).unwrap();
        for at in [0, 1, CHUNK, size - 1, size, size + 1, u32::MAX] {
            let part = DocumentPart::of(&document, at);
            assert_eq!(part.is_some(), at <= size, "{at}");
            assert_eq!(DocumentPart::of_file(file.reopen().unwrap(), at, len), part, "{at}");
            assert_eq!(DocumentPart::of_file(file.reopen().unwrap(), at, len - 1), None);
        }
        assert_eq!(DocumentPart::of(&document, CHUNK).unwrap().data, document[CHUNK as usize..]);
        let empty = tempfile::tempfile().unwrap();
        assert_eq!(DocumentPart::of_file(empty, 0, 10), None);
    }

    #[test]
    fn a_peer_waits_for_what_it_asks_and_no_other_does() {
        let mut lookups = Lookups::default();
        let mut asked = 0;
        while lookups.ask("head.toml".into(), asked).is_ok() {
            asked += 1;
        }
        assert_eq!(asked as usize, WAITING_MAX);
        let running = std::iter::from_fn(|| lookups.next()).count();
        assert_eq!(running, RUNNING_MAX);
        lookups.done();
        assert_eq!(lookups.next().map(|(_, at)| at), Some(2));
        assert!(lookups.ask("head.toml".into(), 0).is_ok());
    }
}
