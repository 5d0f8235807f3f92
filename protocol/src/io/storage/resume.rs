//! The resume log: which pieces were verified, in a file that survives a killed process.
//!
//! A header names the torrent, then come records of 16 bytes, each a run of pieces with a checksum
//! (BLAKE3 keyed by the torrent's name, so that a record means nothing elsewhere). Records are only
//! ever appended, after their pieces' bytes were handed to the system; a torn or foreign tail ends
//! the log. After a power failure a record may be ahead of its bytes: what [`load`] returns are
//! candidates to be hashed again, not facts.

use crate::bitfield::Bitfield;
use crate::ids::{InfoHashes, PieceIndex};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

const MAGIC: &[u8; 8] = b"updraft1";
/// Magic, 20 bytes of info-hash, number of pieces.
const HEADER_LEN: usize = 8 + 20 + 4;
/// First piece, number of pieces, checksum.
const RECORD_LEN: usize = 4 + 4 + 8;
/// No log of ours is longer: every one of the most pieces a torrent may have recorded by itself.
const LOG_BYTES_MAX: u64 = (HEADER_LEN + RECORD_LEN * crate::geometry::PIECES_MAX as usize) as u64;

/// The pieces that the log at `path` calls verified. None if there is no log, or not of this
/// torrent. A log that has grown by single pieces is rewritten as runs; failing that changes nothing.
pub fn load(path: &Path, hashes: &InfoHashes, piece_count: u32) -> Bitfield {
    let mut log = ResumeLog::new(hashes, piece_count);
    match read_bounded(path) {
        Ok(bytes) => {
            let records = log.scan(&bytes);
            let runs = log.runs();
            if runs.len() < records
                && let Err(error) = replace(path, &log.header(), &runs)
            {
                tracing::warn!(path = %path.display(), %error, "resume log not compacted");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "resume log not readable"),
    }
    log.known
}

/// The writing side. Holds no file: handles are pooled by the caller.
#[derive(Debug)]
pub(super) struct ResumeLog {
    key: [u8; 32],
    name: [u8; 20],
    known: Bitfield,
    /// Bytes of the log that are ours; `None` until the file was looked at.
    len: Option<u64>,
}

impl ResumeLog {
    pub(super) fn new(hashes: &InfoHashes, piece_count: u32) -> Self {
        let name = hashes.best().0;
        let key = blake3::derive_key("updraft resume log record", &name);
        Self { key, name, known: Bitfield::empty(piece_count), len: None }
    }

    /// True if `piece` still has to be recorded, as far as is known without the file.
    pub(super) fn lacks(&self, piece: PieceIndex) -> bool {
        !self.known.has(piece)
    }

    /// Records that `piece` was verified.
    ///
    /// # Errors
    /// Of reading or writing `file`.
    pub(super) fn record(&mut self, file: &File, piece: PieceIndex) -> io::Result<()> {
        let len = match self.len {
            Some(len) => len,
            None => self.open(file)?,
        };
        if self.known.has(piece) {
            return Ok(());
        }
        write_at(file, &self.encode(piece.0, 1), len)?;
        self.known.insert(piece);
        self.len = Some(len + RECORD_LEN as u64);
        Ok(())
    }

    /// Finds the end of what is ours in `file`, cuts off the rest, and begins a log if none is there.
    fn open(&mut self, file: &File) -> io::Result<u64> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, LOG_BYTES_MAX), &mut bytes)?;
        let records = self.scan(&bytes);
        let header = self.header();
        let len = if bytes.starts_with(&header) {
            (HEADER_LEN + records * RECORD_LEN) as u64
        } else {
            file.set_len(0)?;
            write_at(file, &header, 0)?;
            HEADER_LEN as u64
        };
        file.set_len(len)?;
        self.len = Some(len);
        Ok(len)
    }

    /// Takes in the good records at the start of `bytes`; returns how many there are.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let Some(records) = bytes.strip_prefix(self.header().as_slice()) else { return 0 };
        let mut count = 0;
        for record in records.chunks_exact(RECORD_LEN) {
            let word = |at: usize| {
                u32::from_be_bytes(record[at..at + 4].try_into().expect("four bytes of a record"))
            };
            let (first, pieces) = (word(0), word(4));
            let fits = first.checked_add(pieces).is_some_and(|end| end <= self.known.len());
            if !fits || record != self.encode(first, pieces) {
                break;
            }
            for piece in first..first + pieces {
                self.known.insert(PieceIndex(piece));
            }
            count += 1;
        }
        count
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8..28].copy_from_slice(&self.name);
        header[28..].copy_from_slice(&self.known.len().to_be_bytes());
        header
    }

    fn encode(&self, first: u32, pieces: u32) -> [u8; RECORD_LEN] {
        let mut record = [0; RECORD_LEN];
        record[..4].copy_from_slice(&first.to_be_bytes());
        record[4..8].copy_from_slice(&pieces.to_be_bytes());
        let sum = blake3::keyed_hash(&self.key, &record[..8]);
        record[8..].copy_from_slice(&sum.as_bytes()[..8]);
        record
    }

    /// What is known, as the fewest records.
    fn runs(&self) -> Vec<[u8; RECORD_LEN]> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for piece in self.known.iter() {
            match runs.last_mut() {
                Some((first, pieces)) if *first + *pieces == piece.0 => *pieces += 1,
                Some(_) | None => runs.push((piece.0, 1)),
            }
        }
        runs.into_iter().map(|(first, pieces)| self.encode(first, pieces)).collect()
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, LOG_BYTES_MAX), &mut bytes)?;
    Ok(bytes)
}

/// Puts a log with `records` in the place of the one at `path`, all or nothing.
fn replace(path: &Path, header: &[u8], records: &[[u8; RECORD_LEN]]) -> io::Result<()> {
    let mut fresh = path.to_path_buf();
    fresh.as_mut_os_string().push(".new");
    let mut file = File::create(&fresh)?;
    file.write_all(&[header, records.as_flattened()].concat())?;
    file.sync_data()?;
    drop(file);
    crate::io::held::patiently(|| std::fs::rename(&fresh, path))
}

fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    super::handles::write_all_at(file, &mut [io::IoSlice::new(bytes)], at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InfoHash;

    fn hashes(byte: u8) -> InfoHashes {
        InfoHashes { v1: Some(InfoHash([byte; 20])), v2: None }
    }

    fn write(path: &Path, pieces: &[u32]) {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).unwrap();
        let mut log = ResumeLog::new(&hashes(1), 100);
        for &piece in pieces {
            log.record(&file, PieceIndex(piece)).unwrap();
        }
    }

    fn loaded(path: &Path) -> Vec<u32> {
        load(path, &hashes(1), 100).iter().map(|piece| piece.0).collect()
    }

    #[test]
    fn grows_is_compacted_and_survives_torn_tails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert_eq!(loaded(&path), [0_u32; 0]);
        write(&path, &[5, 4, 3, 99]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (HEADER_LEN + 4 * RECORD_LEN) as u64);
        assert_eq!(loaded(&path), [3, 4, 5, 99]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (HEADER_LEN + 2 * RECORD_LEN) as u64);

        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let known = loaded(&path);
            assert!(known.iter().all(|piece| [3, 4, 5, 99].contains(piece)), "cut at {cut}");
            write(&path, &[50]);
            assert!(loaded(&path).contains(&50), "goes on after a cut at {cut}");
        }
    }

    #[test]
    fn flipped_bits_and_other_torrents_mean_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        write(&path, &[7]);
        assert!(load(&path, &hashes(2), 100).is_empty());
        assert!(load(&path, &hashes(1), 101).is_empty());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(loaded(&path), [0_u32; 0], "bit of byte {at}");
        }
    }
}
