//! Packs: content of a release compressed for first installs over HTTP.
//!
//! Packs cut the files of a release, one after the other in the torrent's order, into runs of some MiB:
//! neighbouring small files together, a large file in parts. A run's pack `packs/<sha256>` is one zstd
//! frame, fetched whole with one request where most of the run is wanted. Every run starts and ends at a
//! border of a piece, so what comes out of it are pieces like any others, verified as such.
//!
//! Borders of runs of small files depend on what the files hold: after a change the next borders are
//! where they were, and the packs behind them are those of the release before.
//!
//! The list `packlists/<sha256>`, named by the manifest, is [`MAGIC`] and then for each pack, ascending:
//! its start in the content (the files end to end, without padding) and its length there as u64 and u32,
//! its compressed length as u32, all little-endian, and its SHA-256.

use crate::hash::ContentHash;
use std::ops::Range;

/// The first bytes of a list: what it is, and the version of its form.
pub const MAGIC: [u8; 8] = *b"UDpack\0\x01";
/// The longest list: of 500 GiB at least.
pub const LIST_BYTES_MAX: usize = 8 << 20;
/// The most content in one pack, in bytes: pieces of this size are the largest that are packed.
pub const PACK_LENGTH_MAX: u32 = 16 << 20;

/// Bytes of the entry of one pack.
const ENTRY_LEN: usize = 48;
/// The most content that small files or parts of a large one share a pack for…
const RUN_BYTES: u64 = 4 << 20;
/// …the least before a border is looked for…
const RUN_BYTES_MIN: u64 = 1 << 20;
/// …and how much comes on average until one is found.
const RUN_BYTES_MEAN: u64 = 1 << 20;
/// A request of its own costs about as much as so many bytes.
const REQUEST_BYTES: u64 = 512;

/// One pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Where its content starts, in bytes of all files before it.
    pub start: u64,
    /// Bytes of content.
    pub length: u32,
    /// Bytes of the frame that holds them.
    pub packed: u32,
    /// SHA-256 of the frame.
    pub sha256: ContentHash,
}

impl Pack {
    /// Its content, in bytes of the release's content.
    pub fn content(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.length)
    }

    /// Where it lies in the repository.
    pub fn path(&self) -> String {
        path(&self.sha256)
    }
}

/// Where the pack of that SHA-256 lies in the repository.
pub fn path(sha256: &ContentHash) -> String {
    format!("packs/{sha256}")
}

/// Where the list of that SHA-256 lies in the repository.
pub fn list_path(sha256: &ContentHash) -> String {
    format!("packlists/{sha256}")
}

/// Content to pack together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bytes of the release's content.
    pub content: Range<u64>,
    /// The files that it has content of, by number.
    pub files: Range<usize>,
}

impl Run {
    /// Bytes of content.
    pub fn length(&self) -> u64 {
        self.content.end - self.content.start
    }

    /// True if a pack of `packed` bytes is cheaper to fetch than the files.
    pub fn is_worth(&self, packed: u64) -> bool {
        let requests = self.files.len().saturating_sub(1) as u64;
        packed <= self.length() / 10 * 9 + requests * REQUEST_BYTES
    }
}

/// Cuts the content of a release into runs. `files` are lengths and `pieces root`s in the torrent's order,
/// links as 0; `piece_length` is the torrent's, in bytes. Nothing if pieces are larger than a pack.
pub fn cut(files: &[(u64, Option<ContentHash>)], piece_length: u32) -> Vec<Run> {
    if piece_length > PACK_LENGTH_MAX {
        return Vec::new();
    }
    let part = RUN_BYTES.max(u64::from(piece_length));
    let mut runs = Vec::new();
    let mut open = Run { content: 0..0, files: 0..0 };
    for (number, (length, root)) in files.iter().enumerate() {
        let (start, end) = (open.content.end, open.content.end + length);
        let close = |open: &mut Run, runs: &mut Vec<Run>, at: u64| {
            let closed = std::mem::replace(open, Run { content: at..at, files: number..number });
            if closed.length() > 0 {
                runs.push(closed);
            }
        };
        if open.length() + length > part {
            close(&mut open, &mut runs, start);
        }
        if *length > part {
            for from in (start..end).step_by(usize::try_from(part).expect("some MiB")) {
                let content = from..end.min(from + part);
                runs.push(Run { content, files: number..number + 1 });
            }
            open = Run { content: end..end, files: number + 1..number + 1 };
            continue;
        }
        open.content.end = end;
        open.files.end = number + 1;
        if open.length() >= RUN_BYTES_MIN && is_border(*length, root.as_ref()) {
            runs.push(open);
            open = Run { content: end..end, files: number + 1..number + 1 };
        }
    }
    if open.length() > 0 {
        runs.push(open);
    }
    runs
}

/// Drawn by what the file holds, and the likelier the longer it is.
fn is_border(length: u64, root: Option<&ContentHash>) -> bool {
    let Some(root) = root else { return false };
    let (draw, _) = root.0.split_first_chunk().expect("32 bytes");
    let draw = u64::from(u32::from_be_bytes(*draw));
    draw * RUN_BYTES_MEAN < length << 32
}

/// What a run holds, as one hash: runs alike have packs alike, whatever release they are of.
pub fn content_key(files: &[(u64, Option<ContentHash>)], run: &Run) -> ContentHash {
    let mut text = Vec::new();
    let before: u64 = files[..run.files.start].iter().map(|(length, _)| length).sum();
    text.extend((run.content.start - before).to_le_bytes());
    text.extend(run.length().to_le_bytes());
    for (length, root) in &files[run.files.clone()] {
        text.extend(length.to_le_bytes());
        text.extend(root.map_or([0; 32], |root| root.0));
    }
    ContentHash::of(&text)
}

/// The list of `packs`, as bytes.
pub fn encode(packs: &[Pack]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for pack in packs {
        bytes.extend(pack.start.to_le_bytes());
        bytes.extend(pack.length.to_le_bytes());
        bytes.extend(pack.packed.to_le_bytes());
        bytes.extend(pack.sha256.0);
    }
    bytes
}

/// Reads a list: packs in order that do not overlap, each with at most [`PACK_LENGTH_MAX`] bytes before
/// and after decoding.
///
/// # Errors
/// In words: what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Vec<Pack>, String> {
    let entries = bytes.strip_prefix(&MAGIC).ok_or("it is no list of packs that we know")?;
    let (entries, rest) = entries.as_chunks::<ENTRY_LEN>();
    if !rest.is_empty() {
        return Err("it ends within a pack".into());
    }
    let mut end = 0;
    let read = |entry: &[u8; ENTRY_LEN]| {
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
        let pack = Pack {
            start: u64::from(word(0)) | u64::from(word(4)) << 32,
            length: word(8),
            packed: word(12),
            sha256: ContentHash(entry[16..].try_into().expect("the other 32")),
        };
        let sizes = 1..=PACK_LENGTH_MAX;
        if !sizes.contains(&pack.length) || !sizes.contains(&pack.packed) {
            return Err("a pack is empty or too large".to_owned());
        }
        if pack.start < end || pack.start.checked_add(u64::from(pack.length)).is_none() {
            return Err("its packs are not in order".to_owned());
        }
        end = pack.content().end;
        Ok(pack)
    };
    entries.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Files = Vec<(u64, Option<ContentHash>)>;

    fn files(lengths: &[u64], seed: u64) -> Files {
        let root = |(at, length): (usize, &u64)| {
            let name = ContentHash::of(format!("{seed} {at}").as_bytes());
            (*length, (*length > 0).then_some(name))
        };
        lengths.iter().enumerate().map(root).collect()
    }

    /// All content, in order, in pieces that packs may begin and end at.
    fn check(files: &Files, piece_length: u32) {
        let runs = cut(files, piece_length);
        let mut starts = vec![0];
        files.iter().for_each(|(length, _)| starts.push(starts[starts.len() - 1] + length));
        let total = starts[files.len()];
        assert_eq!(runs.iter().map(Run::length).sum::<u64>(), total);
        let mut end = 0;
        for run in &runs {
            assert_eq!(run.content.start, end);
            end = run.content.end;
            assert!(run.length() > 0 && run.length() <= RUN_BYTES.max(piece_length.into()));
            assert!(starts[run.files.start] <= run.content.start);
            assert!(starts[run.files.end] >= run.content.end);
            if run.files.len() > 1 {
                assert_eq!(starts[run.files.start], run.content.start);
                assert_eq!(starts[run.files.end], run.content.end);
            } else {
                let file = starts[run.files.start];
                assert_eq!((run.content.start - file) % u64::from(piece_length), 0);
            }
        }
    }

    fn lengths() -> impl Strategy<Value = Vec<u64>> {
        let length = prop_oneof![0..5_000u64, 0..400_000u64, 3_000_000..30_000_000u64];
        proptest::collection::vec(length, 0..300)
    }

    proptest! {
        #[test]
        fn runs_cover_the_content(lengths in lengths(), piece in 14..25u32) {
            check(&files(&lengths, 1), 1 << piece);
        }

        #[test]
        fn lists_are_read_as_written(lengths in proptest::collection::vec(1..=PACK_LENGTH_MAX, 0..50)) {
            let mut start = 7;
            let packs: Vec<Pack> = lengths.iter().map(|&length| {
                let sha256 = ContentHash::of(&length.to_le_bytes());
                let pack = Pack { start, length, packed: length.div_ceil(2), sha256 };
                start = pack.content().end + u64::from(length % 3);
                pack
            }).collect();
            prop_assert_eq!(parse(&encode(&packs)), Ok(packs));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&[&MAGIC[..], &bytes].concat());
            let _ = parse(&bytes);
        }

        /// Wherever one small file of many comes in, goes or changes, few packs are others.
        #[test]
        fn a_small_change_changes_few_packs(at in 0..4000usize, what in 0..3u8, seed in any::<u64>()) {
            let lengths: Vec<u64> = (0..4000).map(|at| 1000 + at * 7919 % 20_000).collect();
            let old = files(&lengths, seed);
            let mut new = old.clone();
            let other = Some(ContentHash::of(b"other"));
            match what {
                0 => new[at].1 = other,
                1 => drop(new.remove(at)),
                _ => new.insert(at, (5000, other)),
            }
            let keys = |files: &Files| {
                let runs = cut(files, 16_384);
                runs.iter().map(|run| content_key(files, run)).collect::<Vec<_>>()
            };
            let (old, new) = (keys(&old), keys(&new));
            prop_assert!(old.len() > 8);
            let fresh = new.iter().filter(|key| !old.contains(key)).count();
            prop_assert!(fresh <= 8, "{} of {}", fresh, new.len());
        }
    }

    #[test]
    fn refused_lists() {
        let pack = Pack { start: 0, length: 5, packed: 5, sha256: ContentHash([1; 32]) };
        let refused = |packs: &[Pack]| assert!(parse(&encode(packs)).is_err(), "{packs:?}");
        refused(&[pack, pack]);
        refused(&[Pack { length: 0, ..pack }]);
        refused(&[Pack { packed: 0, ..pack }]);
        refused(&[Pack { length: PACK_LENGTH_MAX + 1, ..pack }]);
        refused(&[Pack { start: u64::MAX, ..pack }]);
        assert!(parse(b"UDpack").is_err());
        assert!(parse(&encode(&[pack])[..50]).is_err());
    }

    #[test]
    fn what_a_pack_must_save() {
        let run = |files| Run { content: 0..1_000_000, files: 0..files };
        assert!(run(1).is_worth(900_000) && !run(1).is_worth(900_001));
        assert!(run(1000).is_worth(1_000_100), "one request for a thousand files");
        assert!(!run(2).is_worth(1_000_000));
    }
}
