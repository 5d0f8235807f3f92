//! Leaves of a new release found in old files, and their way into the staging folder.
//!
//! [`Leaves::find`] reads old files once and remembers where windows of the index were met.
//! [`Leaves::supply`] reads those places and hands them to the engine as blocks, which writes and
//! hashes them like any other: what was found wrongly costs its piece and nothing else.

use crate::error::Error;
use crate::search::{Places, Search};
use crate::stop::Stop;
use crate::tree::Tree;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use tokio::sync::mpsc;
use updraft_manifests::leaf_index::{window_count, window_start};
use updraft_manifests::path::RelPath;
use updraft_manifests::rolling::WINDOW;
use updraft_protocol::bitfield::Bitfield;
use updraft_protocol::geometry::Block;
use updraft_protocol::ids::{FileIndex, PieceIndex};
use updraft_protocol::io::SUPPLY_BYTES_MAX;
use updraft_protocol::metainfo::Info;

const LEAF: u64 = WINDOW as u64;

/// An old file to look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldSource {
    /// Where it lies.
    pub path: RelPath,
    /// Its bytes, as last seen.
    pub length: u64,
}

/// A file of the release that has to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// Its number in the release.
    pub file: u32,
    /// Its bytes.
    pub length: u64,
}

/// What is looked for and where.
#[derive(Debug)]
pub struct Question {
    /// Files to build, ascending by number.
    pub builds: Vec<Build>,
    /// The hashes of their windows, one file after the other.
    pub hashes: Vec<u64>,
    /// Old files to read in any case, in this order.
    pub first: Vec<OldSource>,
    /// Old files to read after them while something is missing, up to `then_factor` times its bytes.
    pub then: Vec<OldSource>,
    /// See `then`.
    pub then_factor: u64,
}

/// Leaves that were found.
#[derive(Debug)]
pub struct Leaves {
    builds: Vec<Build>,
    /// The number of each build's first window.
    first_windows: Vec<usize>,
    sources: Vec<OldSource>,
    /// Positions where the sources start.
    starts: Vec<u64>,
    places: Places,
    /// Bytes read to find them.
    pub read: u64,
}

impl Leaves {
    /// Searches. `progress` is told bytes read and bytes to read at most.
    ///
    /// # Errors
    /// [`Error::Interrupted`]. Old files that cannot be read are passed over.
    pub fn find(
        tree: &Tree,
        question: Question,
        stop: &Stop,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, Error> {
        let Question { builds, hashes, first, then, then_factor } = question;
        let mut windows = 0;
        let first_windows = builds.iter().map(|build| {
            let start = windows;
            windows += usize::try_from(window_count(build.length)).expect("an index is bounded");
            start
        });
        let first_windows: Vec<usize> = first_windows.collect();
        assert_eq!(windows, hashes.len(), "one hash for each window");
        let mut search = Search::new(hashes);
        let (mut sources, mut starts, mut position) = (Vec::new(), Vec::new(), 0u64);
        let (mut buffer, mut read) = (Vec::new(), 0);
        let mut look = |search: &mut Search, source: OldSource, end: u64| {
            let start = position;
            match tree.open_file(source.path.as_str()) {
                Ok(file) => {
                    let count = |bytes| {
                        read += bytes;
                        progress(read.min(end), end);
                        !stop.is_raised()
                    };
                    let file = file.take(source.length);
                    if let Err(error) = search.scan(file, start, &mut buffer, count) {
                        tracing::warn!(path = %source.path, %error, "cannot be searched");
                    }
                }
                Err(error) => tracing::warn!(path = %source.path, %error, "cannot be searched"),
            }
            position = start + source.length;
            starts.push(start);
            sources.push(source);
            read
        };
        let mut end = first.iter().map(|source| source.length).sum();
        let mut done = 0;
        for source in first {
            if search.missing() > 0 && !stop.is_raised() {
                done = look(&mut search, source, end);
            }
        }
        let worth = (search.missing() as u64).saturating_mul(LEAF).saturating_mul(then_factor);
        let all: u64 = then.iter().map(|source| source.length).sum();
        let most = done.saturating_add(worth);
        end = done + all.min(worth);
        for source in then {
            if search.missing() > 0 && done + source.length <= most && !stop.is_raised() {
                done = look(&mut search, source, end);
            }
        }
        if stop.is_raised() {
            return Err(Error::Interrupted);
        }
        let places = search.into_places();
        Ok(Self { builds, first_windows, sources, starts, places, read })
    }

    /// Bytes found of each file to build.
    pub fn found(&self) -> impl Iterator<Item = (Build, u64)> + '_ {
        self.builds.iter().enumerate().map(|(at, build)| {
            let leaves = 0..window_count(build.length);
            let found = leaves.filter(|leaf| self.place(at, *leaf).is_some());
            (*build, found.map(|leaf| leaf_len(build.length, leaf)).sum())
        })
    }

    /// What was found where: files to build, by their numbers in the release, each with an old file
    /// that holds leaves of it.
    pub fn sources(&self) -> Vec<(u32, &RelPath)> {
        let mut all = Vec::new();
        for (at, build) in self.builds.iter().enumerate() {
            let places = (0..window_count(build.length)).filter_map(|leaf| self.place(at, leaf));
            let source = |place| self.starts.partition_point(|start| *start <= place) - 1;
            let sources: BTreeSet<usize> = places.map(source).collect();
            all.extend(sources.iter().map(|source| (build.file, &self.sources[*source].path)));
        }
        all
    }

    /// Hands what was found to the engine; pieces in `done` are there already. Ends early when nobody
    /// takes it any more. Blocks.
    pub fn supply(
        &self,
        tree: &Tree,
        info: &Info,
        done: &Bitfield,
        blocks: &mpsc::Sender<Vec<(Block, Bytes)>>,
    ) {
        let mut open: Option<(usize, File)> = None;
        for (at, build) in self.builds.iter().enumerate() {
            let pieces = info.geometry.pieces_of(FileIndex(build.file));
            let per_piece = u64::from(info.geometry.piece_length()) / LEAF;
            let block = |leaf: u64| {
                let piece = u64::from(pieces.start) + leaf / per_piece;
                let piece = PieceIndex(u32::try_from(piece).expect("inside the torrent"));
                let index = u32::try_from(leaf % per_piece).expect("inside the piece");
                info.geometry.block(piece, index)
            };
            let count = window_count(build.length);
            let mut leaf = 0;
            while leaf < count {
                let first = leaf;
                leaf += 1;
                let Some(place) = self.place(at, first) else { continue };
                if done.has(block(first).piece) {
                    continue;
                }
                // What lies together there and here is read together.
                let mut len = leaf_len(build.length, first);
                let source = self.starts.partition_point(|start| *start <= place);
                let end = self.starts.get(source).copied().unwrap_or(u64::MAX);
                while leaf < count
                    && self.place(at, leaf) == Some(place + len)
                    && place + len < end
                    && len + LEAF <= SUPPLY_BYTES_MAX as u64
                {
                    len += leaf_len(build.length, leaf);
                    leaf += 1;
                }
                let Some(bytes) = self.read(tree, &mut open, place, len) else { continue };
                let mut batch = Vec::new();
                let mut from = 0;
                for leaf in first..leaf {
                    let block = block(leaf);
                    let end = from + block.len as usize;
                    batch.push((block, bytes.slice(from..end)));
                    from = end;
                }
                if blocks.blocking_send(batch).is_err() {
                    return;
                }
            }
        }
    }

    /// Where the bytes of a leaf were found: those of the short last one lie at its window's end.
    fn place(&self, build: usize, leaf: u64) -> Option<u64> {
        let length = self.builds[build].length;
        let window = self.first_windows[build] + usize::try_from(leaf).ok()?;
        let inside = leaf * LEAF - window_start(length, leaf);
        self.places.get(window).map(|place| place + inside)
    }

    /// `len` bytes from `place`; `None` if they are no longer there.
    fn read(
        &self,
        tree: &Tree,
        open: &mut Option<(usize, File)>,
        place: u64,
        len: u64,
    ) -> Option<Bytes> {
        let source = self.starts.partition_point(|start| *start <= place).checked_sub(1)?;
        if open.as_ref().is_none_or(|(current, _)| *current != source) {
            let path = &self.sources[source].path;
            let file = tree.open_file(path.as_str());
            let file = file.inspect_err(|error| tracing::warn!(%path, %error, "cannot be read"));
            *open = Some((source, file.ok()?));
        }
        let (_, file) = open.as_mut()?;
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        let mut read = || -> io::Result<()> {
            file.seek(SeekFrom::Start(place - self.starts[source]))?;
            file.read_exact(&mut bytes)
        };
        read().ok()?;
        Some(bytes.into())
    }
}

/// Bytes of a leaf: the last one of a file may be short.
fn leaf_len(length: u64, leaf: u64) -> u64 {
    LEAF.min(length - leaf * LEAF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_manifests::rolling;
    use updraft_protocol::io::create;
    use updraft_protocol::metainfo::create::{Format, Options};

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..len).map(step).collect()
    }

    fn hashes(data: &[u8]) -> Vec<u64> {
        let length = data.len() as u64;
        let window = |leaf| {
            let start = usize::try_from(window_start(length, leaf)).unwrap();
            rolling::hash(&data[start..start + WINDOW])
        };
        (0..window_count(length)).map(window).collect()
    }

    /// Looks for `new`, a file of its own torrent, in `first` and `staying`; everything that is
    /// supplied is right, and comes to `leaves` leaves of it.
    fn check(new: &[u8], first: &[&[u8]], staying: &[&[u8]], factor: u64, leaves: usize) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("build")).unwrap();
        std::fs::write(dir.path().join("build/new"), new).unwrap();
        let source = create::scan(&dir.path().join("build")).unwrap();
        let options =
            Options { format: Format::Hybrid, piece_length: Some(65_536), ..Options::default() };
        let info = create::create(&source, &options, &|_, _| {}).unwrap().info;
        let tree = Tree::open(dir.path()).unwrap();
        let mut number = 0;
        let mut write = |data: &&[u8]| {
            number += 1;
            let path = RelPath::parse(&format!("old{number}")).unwrap();
            std::fs::write(dir.path().join(path.as_str()), data).unwrap();
            OldSource { path, length: data.len() as u64 }
        };
        let question = Question {
            builds: vec![Build { file: 0, length: new.len() as u64 }],
            hashes: hashes(new),
            first: first.iter().map(&mut write).collect(),
            then: staying.iter().map(&mut write).collect(),
            then_factor: factor,
        };
        let found = Leaves::find(&tree, question, &Stop::new(), &|done, total| {
            assert!(done <= total);
        });
        let found = found.unwrap();
        let (sender, mut supply) = mpsc::channel(1000);
        let mut done = Bitfield::empty(info.geometry.piece_count());
        found.supply(&tree, &info, &done, &sender);
        let (mut bytes, mut count) = (0, 0);
        while let Ok(batch) = supply.try_recv() {
            assert!(batch.iter().map(|(_, data)| data.len()).sum::<usize>() <= SUPPLY_BYTES_MAX);
            for (block, data) in batch {
                let at = block.piece.get() * 65_536 + block.offset as usize;
                assert_eq!(data, new[at..at + block.len as usize], "{block:?}");
                assert!(info.geometry.block_index(block).is_some());
                (bytes, count) = (bytes + data.len() as u64, count + 1);
            }
        }
        assert_eq!(count, leaves);
        assert_eq!(found.found().map(|(_, found)| found).sum::<u64>(), bytes);
        // Pieces that are there are passed over.
        done.insert(PieceIndex(0));
        found.supply(&tree, &info, &done, &sender);
        while let Ok(batch) = supply.try_recv() {
            assert!(batch.iter().all(|(block, _)| block.piece.0 != 0));
        }
    }

    #[test]
    fn leaves_are_found_anywhere() {
        let new = noise(20 * WINDOW + 100, 1);
        check(&new, &[&new], &[], 0, 21);
        // Shifted by a byte, one leaf lost at the cut.
        let mut shifted = new.clone();
        shifted.insert(5 * WINDOW + 7, 1);
        check(&new, &[&shifted], &[], 0, 20);
        // In two files, the other way round.
        let (a, b) = new.split_at(10 * WINDOW);
        check(&new, &[b, a], &[], 0, 21);
        check(&new, &[a, b], &[], 0, 21);
        check(&new, &[b], &[a], 128, 21);
        check(&new, &[b], &[a], 0, 11);
        // Only the short end is lost.
        check(&new, &[&new[..new.len() - 1]], &[], 0, 20);
        check(&new, &[&noise(100_000, 2)], &[&[]], 128, 0);
        // The same leaf again and again.
        let zeros = vec![0; 9 * WINDOW + 3];
        check(&zeros, &[&vec![0; WINDOW]], &[], 0, 10);
    }

    #[test]
    fn what_stays_is_read_only_while_it_pays() {
        let new = noise(2 * WINDOW, 1);
        let far = [noise(5 * WINDOW, 2), new.clone()].concat();
        check(&new, &[], &[&far], 3, 0);
        check(&new, &[], &[&far], 4, 2);
    }
}
