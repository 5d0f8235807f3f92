//! Whole rounds through the disk's threads, on real files.

use super::*;
use crate::geometry::{BLOCK_LEN, FileSpan, Geometry};
use crate::ids::{InfoHash, InfoHashV2, InfoHashes, Sha1Hash};
use crate::merkle;
use crate::metainfo::FileEntry;
use proptest::prelude::*;
use sha1::{Digest as _, Sha1};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

const TORRENT: TorrentKey = TorrentKey(7);
const PEER: PeerKey = PeerKey(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    V1,
    Hybrid,
    V2,
}

/// A torrent over made-up content, and that content.
struct Sample {
    info: Arc<Info>,
    /// The piece space, gaps as zeros.
    space: Vec<u8>,
}

fn sample(kind: Kind, piece_length: u32, lengths: &[u64]) -> Sample {
    let mut rng = fastrand::Rng::with_seed(lengths.iter().sum());
    let contents = lengths.iter().map(|&len| {
        let mut content = vec![0; usize::try_from(len).unwrap()];
        rng.fill(&mut content);
        content
    });
    sample_of(kind, piece_length, contents.collect())
}

fn sample_of(kind: Kind, piece_length: u32, contents: Vec<Vec<u8>>) -> Sample {
    let (mut space, mut spans, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (number, content) in contents.iter().enumerate() {
        if kind != Kind::V1 && !content.is_empty() {
            space.resize(space.len().next_multiple_of(piece_length as usize), 0);
        }
        spans.push(FileSpan { offset: space.len() as u64, length: content.len() as u64 });
        space.extend_from_slice(content);
        let pieces = content.chunks(piece_length as usize).map(|piece| {
            let leaves = piece.chunks(BLOCK_LEN as usize).map(merkle::leaf).collect();
            let alone = content.len() <= piece_length as usize;
            let width = if alone { 1 } else { piece_length / BLOCK_LEN };
            merkle::root(leaves, 0, width as usize)
        });
        files.push(FileEntry {
            path: vec![format!("folder{}", number % 3), format!("file{number}")],
            length: content.len() as u64,
            executable: number % 2 == 1,
            hidden: false,
            symlink: None,
            root: None,
            layer: if kind == Kind::V1 { Vec::new() } else { pieces.collect() },
        });
    }
    let sums = space.chunks(piece_length as usize).map(|piece| {
        // Not the whole story for the last piece of a file in a hybrid, but gaps are zeros here.
        Sha1Hash(Sha1::digest(piece).into())
    });
    let geometry = Geometry::new(piece_length, space.len() as u64, spans).unwrap();
    let info = Info {
        raw: Bytes::new(),
        hashes: InfoHashes {
            v1: (kind != Kind::V2).then_some(InfoHash([1; 20])),
            v2: (kind != Kind::V1).then_some(InfoHashV2([2; 32])),
        },
        name: "sample".into(),
        private: false,
        single_file: false,
        files,
        v1_pieces: (kind != Kind::V2).then(|| sums.collect()),
        geometry,
    };
    Sample { info: Arc::new(info), space }
}

impl Sample {
    fn blocks(&self, piece: PieceIndex) -> Vec<(Block, Bytes)> {
        let geometry = &self.info.geometry;
        (0..geometry.block_count(piece))
            .map(|index| {
                let block = geometry.block(piece, index);
                let start = usize::try_from(geometry.piece_start(piece)).unwrap();
                let start = start + block.offset as usize;
                let bytes = &self.space[start..start + block.len as usize];
                (block, Bytes::copy_from_slice(bytes))
            })
            .collect()
    }

    fn content(&self, file: usize) -> &[u8] {
        let FileSpan { offset, length } = self.info.geometry.files()[file];
        let start = usize::try_from(offset).unwrap();
        &self.space[start..start + usize::try_from(length).unwrap()]
    }

    fn pieces(&self) -> Vec<PieceIndex> {
        self.info.geometry.pieces().collect()
    }

    fn all(&self) -> Bitfield {
        Bitfield::full(self.info.geometry.piece_count())
    }
}

/// A disk with one sample in a folder.
struct Lab {
    disk: Disk,
    events: mpsc::Receiver<DiskEvent>,
    sample: Sample,
    folder: TempDir,
}

impl Lab {
    fn new(sample: Sample) -> Self {
        Self::with(sample, tempfile::tempdir().unwrap(), |_| true)
    }

    fn with(sample: Sample, folder: TempDir, wanted: impl Fn(usize) -> bool) -> Self {
        let (sender, events) = mpsc::channel(64);
        let mut disk = Disk::start(2, BufferPool::new(4), sender).unwrap();
        let files = AddFiles {
            info: Arc::clone(&sample.info),
            files: Self::paths(&sample, folder.path(), "data"),
            wanted: (0..sample.info.files.len()).map(wanted).collect(),
            resume: Some(folder.path().join("resume")),
        };
        disk.add(TORRENT, files);
        Self { disk, events, sample, folder }
    }

    fn paths(sample: &Sample, folder: &Path, below: &str) -> Vec<PathBuf> {
        let top = folder.join(below);
        let path =
            |entry: &FileEntry| entry.path.iter().fold(top.clone(), |top, part| top.join(part));
        sample.info.files.iter().map(path).collect()
    }

    fn path(&self, file: usize) -> PathBuf {
        Self::paths(&self.sample, self.folder.path(), "data").swap_remove(file)
    }

    /// A new process on the same folder.
    fn restart(self) -> Self {
        let Self { disk, events, sample, folder } = self;
        drop(events);
        disk.stop();
        Self::with(sample, folder, |_| true)
    }

    fn next(&mut self) -> DiskEvent {
        self.events.blocking_recv().expect("the disk lives")
    }

    fn write_piece(&mut self, piece: PieceIndex, blocks: Vec<(Block, Bytes)>) -> Verdict {
        self.disk.write(TORRENT, piece, blocks).unwrap();
        loop {
            match self.next() {
                DiskEvent::Piece { piece: judged, verdict, .. } => {
                    assert_eq!(judged, piece);
                    return verdict;
                }
                DiskEvent::Written { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn write_all(&mut self) {
        for piece in self.sample.pieces() {
            let blocks = self.sample.blocks(piece);
            if !blocks.is_empty() {
                assert_eq!(self.write_piece(piece, blocks), Verdict::Verified);
            }
        }
    }

    /// Reads blocks and compares them; false if the piece is lost.
    fn read(&mut self, blocks: &[Block]) -> bool {
        self.disk.read(TORRENT, PEER, blocks.to_vec()).unwrap();
        let (mut left, mut lost) = (blocks.len(), false);
        while left > 0 {
            match self.next() {
                DiskEvent::Read { blocks, failed, .. } => {
                    left -= blocks.len() + failed.len();
                    assert_eq!(failed.is_empty(), !lost);
                    for (block, bytes) in blocks {
                        let start = self.sample.info.geometry.piece_start(block.piece);
                        let start = usize::try_from(start).unwrap() + block.offset as usize;
                        assert!(bytes == self.sample.space[start..start + block.len as usize]);
                    }
                }
                DiskEvent::Lost { piece, .. } => {
                    assert_eq!(piece, blocks[0].piece);
                    lost = true;
                }
                other => panic!("{other:?}"),
            }
        }
        !lost
    }

    /// The pieces that are right on disk.
    fn check(&mut self, pieces: &Bitfield) -> Vec<u32> {
        self.disk.check(TORRENT, pieces.clone());
        let (mut right, mut seen) = (Vec::new(), Bitfield::empty(pieces.len()));
        loop {
            match self.next() {
                DiskEvent::Checked { pieces, .. } => {
                    for (piece, ok) in pieces {
                        assert!(seen.insert(piece), "each piece once");
                        right.extend(ok.then_some(piece.0));
                    }
                }
                DiskEvent::CheckDone { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(&seen, pieces, "each piece asked for");
        right.sort_unstable();
        right
    }

    fn complete(&self) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.disk.complete(TORRENT, true, reply);
        answer.blocking_recv().unwrap()
    }

    fn sync(&self) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.disk.sync(TORRENT, reply);
        answer.blocking_recv().unwrap()
    }

    fn assert_files(&self) {
        for file in 0..self.sample.info.files.len() {
            let found = std::fs::read(self.path(file)).unwrap();
            assert!(found == self.sample.content(file), "file {file}");
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::V1), Just(Kind::Hybrid), Just(Kind::V2)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_order_blocks_come_in(
        kind in kinds(),
        exponent in 14u32..18,
        lengths in prop::collection::vec(prop_oneof![Just(0u64), 1u64..150_000], 1..8),
        seed: u64,
    ) {
        prop_assume!(lengths.iter().sum::<u64>() > 0);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut lab = Lab::new(sample(kind, 1 << exponent, &lengths));
        let mut jobs: Vec<(PieceIndex, Vec<(Block, Bytes)>)> = Vec::new();
        for piece in lab.sample.pieces() {
            let mut blocks = lab.sample.blocks(piece);
            rng.shuffle(&mut blocks);
            while !blocks.is_empty() {
                let mut part = blocks.split_off(blocks.len() - rng.usize(1..=blocks.len().min(5)));
                if rng.u8(..) < 40 {
                    // The endgame brings a block twice.
                    part.push(part[0].clone());
                }
                jobs.push((piece, part));
            }
        }
        rng.shuffle(&mut jobs);
        let mut verdicts = BTreeMap::new();
        let (mut bytes_in, mut bytes_out) = (0, 0);
        for (piece, blocks) in jobs {
            bytes_in += blocks.iter().map(|(block, _)| u64::from(block.len)).sum::<u64>();
            lab.disk.write(TORRENT, piece, blocks).unwrap();
        }
        while bytes_out < bytes_in || verdicts.len() < lab.sample.pieces().len() {
            match lab.next() {
                DiskEvent::Written { bytes, .. } => bytes_out += bytes,
                DiskEvent::Piece { piece, verdict, .. } => {
                    prop_assert_eq!(verdicts.insert(piece, verdict), None);
                }
                other => panic!("{other:?}"),
            }
        }
        prop_assert!(verdicts.values().all(|verdict| *verdict == Verdict::Verified));
        lab.complete().unwrap();
        lab.sync().unwrap();
        lab.assert_files();

        for piece in lab.sample.pieces() {
            let geometry = &lab.sample.info.geometry;
            let len = geometry.piece_len(piece);
            let mut blocks: Vec<_> = (0..5).map(|_| {
                let offset = rng.u32(0..len);
                Block { piece, offset, len: rng.u32(1..=(len - offset).min(40_000)) }
            }).collect();
            blocks.extend((0..geometry.block_count(piece)).map(|index| geometry.block(piece, index)));
            prop_assert!(lab.read(&blocks));
        }

        let count = lab.sample.info.geometry.piece_count();
        let known = resume::load(&lab.folder.path().join("resume"), &lab.sample.info.hashes, count);
        prop_assert!(known.is_full());
        let mut lab = lab.restart();
        prop_assert_eq!(lab.check(&known).len(), count as usize);
    }
}

#[test]
fn a_wrong_piece_starts_again() {
    for kind in [Kind::V1, Kind::Hybrid, Kind::V2] {
        let mut lab = Lab::new(sample(kind, 65_536, &[200_000]));
        let piece = PieceIndex(1);
        let good = lab.sample.blocks(piece);
        let mut bad = good.clone();
        let mut altered = bad[2].1.to_vec();
        altered[100] ^= 1;
        bad[2].1 = altered.into();
        assert_eq!(lab.write_piece(piece, bad), Verdict::Wrong, "{kind:?}");
        assert_eq!(lab.write_piece(piece, good), Verdict::Verified, "{kind:?}");
        assert_eq!(lab.check(&lab.sample.all()), [1]);
    }
}

#[test]
fn a_torrent_that_contradicts_itself_is_told_apart() {
    let mut sample = sample(Kind::Hybrid, 32_768, &[50_000]);
    let info = Arc::get_mut(&mut sample.info).unwrap();
    info.files[0].layer[0].0[0] ^= 1;
    let mut lab = Lab::new(sample);
    let blocks = lab.sample.blocks(PieceIndex(0));
    assert_eq!(lab.write_piece(PieceIndex(0), blocks), Verdict::Inconsistent);
    assert_eq!(lab.check(&lab.sample.all()), [0_u32; 0], "never accepted on SHA-1 alone");
}

#[test]
fn unwanted_files_are_not_made_and_their_pieces_still_served() {
    let files = [40_000, 100_000, 10, 70_000];
    let folder = tempfile::tempdir().unwrap();
    let mut lab =
        Lab::with(sample(Kind::V1, 32_768, &files), folder, |file| file != 1 && file != 2);
    // 0..=1 hold file 0, 4..=6 file 3; 2 and 3 are of unwanted files only.
    let wanted = [0, 1, 4, 5, 6].map(PieceIndex);
    for piece in wanted {
        let mut blocks = lab.sample.blocks(piece);
        blocks.reverse();
        for block in blocks.split_off(1) {
            lab.disk.write(TORRENT, piece, vec![block]).unwrap();
        }
        assert_eq!(lab.write_piece(piece, blocks), Verdict::Verified);
    }
    lab.complete().unwrap();
    lab.sync().unwrap();
    assert!(!lab.path(1).exists() && !lab.path(2).exists());
    assert_eq!(std::fs::read(lab.path(3)).unwrap(), lab.sample.content(3));
    for piece in wanted {
        let len = lab.sample.info.geometry.piece_len(piece);
        assert!(lab.read(&[Block { piece, offset: 0, len }]));
    }
    assert_eq!(lab.check(&lab.sample.all()), wanted.map(|piece| piece.0));
}

#[test]
fn few_files_are_open() {
    let lengths: Vec<u64> = (0..150).map(|n| 1000 + n).collect();
    let mut lab = Lab::new(sample(Kind::V2, 16_384, &lengths));
    for piece in lab.sample.pieces() {
        let blocks = lab.sample.blocks(piece);
        assert_eq!(lab.write_piece(piece, blocks), Verdict::Verified);
        assert!(lab.disk.shared.handles.count() <= HANDLES_MAX);
    }
    assert_eq!(lab.check(&lab.sample.all()).len(), 150);
    assert_eq!(lab.disk.shared.handles.count(), HANDLES_MAX);
    lab.complete().unwrap();
    lab.assert_files();
    lab.disk.remove(TORRENT);
    let shared = Arc::clone(&lab.disk.shared);
    lab.disk.stop();
    assert_eq!(shared.handles.count(), 0);
}

#[test]
fn cut_and_changed_files_lose_their_pieces() {
    let mut lab = Lab::new(sample(Kind::V2, 32_768, &[100_000, 50_000]));
    lab.write_all();
    let block = |piece| Block { piece: PieceIndex(piece), offset: 0, len: 16_384 };
    assert!(lab.read(&[block(0)]) && lab.read(&[block(3)]));
    lab.disk.distrust(TORRENT, &lab.sample.all());
    let file = std::fs::File::options().write(true).open(lab.path(0)).unwrap();
    file.set_len(90_000).unwrap();
    handles::write_all_at(&file, &mut [io::IoSlice::new(b"mod")], 32_768 + 20_000).unwrap();
    assert!(lab.read(&[block(0)]), "hashed again and right");
    assert!(!lab.read(&[block(1)]), "the block asked for is right, the piece is not");
    assert!(!lab.read(&[block(2)]), "too short");
    assert!(!lab.read(&[block(1)]), "stays lost");
    std::fs::remove_file(lab.path(1)).unwrap();
    let mut lab = lab.restart();
    assert_eq!(lab.check(&lab.sample.all()), [0]);
    assert!(!lab.read(&[block(4)]));
}

#[test]
fn files_may_move_before_and_after_a_remap() {
    let mut lab = Lab::new(sample(Kind::Hybrid, 16_384, &[30_000, 30_000]));
    lab.write_all();
    let moved = Lab::paths(&lab.sample, lab.folder.path(), "elsewhere");
    let block = |piece| Block { piece: PieceIndex(piece), offset: 0, len: 5000 };
    for path in &moved {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    std::fs::rename(lab.path(0), &moved[0]).unwrap();
    lab.disk.remap(TORRENT, moved.clone());
    assert!(lab.read(&[block(0)]), "moved before");
    assert!(lab.read(&[block(2)]), "not moved yet");
    assert_eq!(lab.check(&lab.sample.all()).len(), 4);
    std::fs::rename(lab.path(1), &moved[1]).unwrap();
    lab.disk.remap(TORRENT, moved);
    assert!(lab.read(&[block(2)]) && lab.read(&[block(3)]));
    lab.sync().unwrap();
}

#[test]
fn completion_gives_lengths_empty_files_and_bits() {
    let lab = Lab::new(sample(Kind::V1, 16_384, &[20_000, 10, 0, 0]));
    std::fs::create_dir_all(lab.path(0).parent().unwrap()).unwrap();
    std::fs::write(lab.path(0), vec![9; 30_000]).unwrap();
    let mut lab = lab;
    let error = lab.complete().unwrap_err().to_string();
    assert!(error.contains("file1") && error.contains("shorter"), "{error}");
    lab.write_all();
    lab.complete().unwrap();
    lab.assert_files();
    #[cfg(unix)]
    for file in 0..4 {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(lab.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o100 != 0, file % 2 == 1, "file {file}");
    }
}

#[test]
fn trouble_has_a_name_and_a_path() {
    let mut lab = Lab::new(sample(Kind::V2, 16_384, &[10, 10]));
    std::fs::create_dir_all(lab.path(0)).unwrap();
    for piece in [0, 1] {
        let blocks = lab.sample.blocks(PieceIndex(piece));
        lab.disk.write(TORRENT, PieceIndex(piece), blocks).unwrap();
    }
    let (mut failed, mut verified) = (None, None);
    while failed.is_none() || verified.is_none() {
        match lab.next() {
            DiskEvent::Error { path, op, .. } => failed = Some((path, op)),
            DiskEvent::Piece { piece, verdict: Verdict::Verified, .. } => verified = Some(piece),
            DiskEvent::Written { bytes, .. } => assert_eq!(bytes, 10),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(failed, Some((lab.path(0), DiskOp::Create)));
    assert_eq!(verified, Some(PieceIndex(1)), "others are not held up");
}

/// The system forgets what it could not write, and says of the next flush that all is well.
#[test]
fn what_could_not_be_flushed_once_never_counts_as_flushed() {
    let mut lab = Lab::new(sample(Kind::V2, 16_384, &[10, 10]));
    lab.write_all();
    let aside = lab.folder.path().join("aside");
    std::fs::rename(lab.path(0), &aside).unwrap();
    std::fs::create_dir(lab.path(0)).unwrap();
    let first = lab.sync().unwrap_err().to_string();
    assert!(first.contains("cannot flush"), "{first}");
    std::fs::remove_dir(lab.path(0)).unwrap();
    std::fs::rename(&aside, lab.path(0)).unwrap();
    assert_eq!(lab.sync().unwrap_err().to_string(), first);
}

#[cfg(unix)]
#[test]
fn links_below_the_torrents_folder_are_not_written_through() {
    use std::os::unix::fs::symlink;
    let mut lab = Lab::new(sample(Kind::V2, 16_384, &[10, 10, 10, 10]));
    let outside = tempfile::tempdir().unwrap();
    let data = lab.folder.path().join("data");
    std::fs::create_dir_all(data.join("folder1")).unwrap();
    symlink(outside.path(), data.join("folder0")).unwrap();
    symlink(outside.path().join("victim"), lab.path(1)).unwrap();
    for piece in [0, 1] {
        let blocks = lab.sample.blocks(PieceIndex(piece));
        lab.disk.write(TORRENT, PieceIndex(piece), blocks).unwrap();
        let event = loop {
            match lab.next() {
                DiskEvent::Written { .. } => {}
                other => break other,
            }
        };
        let DiskEvent::Error { error, .. } = event else { panic!("{event:?}") };
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);

    // The folder that the user chose may be a link.
    let mut lab = {
        let folder = tempfile::tempdir().unwrap();
        symlink(outside.path(), folder.path().join("data")).unwrap();
        Lab::with(sample(Kind::V2, 16_384, &[10, 10]), folder, |_| true)
    };
    lab.write_all();
    lab.assert_files();
}

#[test]
fn holes_are_right_where_zeros_are() {
    for kind in [Kind::V1, Kind::Hybrid, Kind::V2] {
        let mut content = vec![0; 5 * 65_536 + 100];
        content[..10].fill(1);
        content[3 * 65_536..3 * 65_536 + 10].fill(1);
        let mut lab = Lab::new(sample_of(kind, 65_536, vec![content]));
        std::fs::create_dir_all(lab.path(0).parent().unwrap()).unwrap();
        let file = std::fs::File::create(lab.path(0)).unwrap();
        file.set_len(5 * 65_536 + 100).unwrap();
        handles::write_all_at(&file, &mut [io::IoSlice::new(&[1; 10])], 0).unwrap();
        assert_eq!(lab.check(&lab.sample.all()), [0, 1, 2, 4, 5], "{kind:?}");
    }
}

#[test]
fn a_removed_torrent_is_forgotten() {
    let mut lab = Lab::new(sample(Kind::V1, 65_536, &[200_000]));
    lab.disk.check(TORRENT, lab.sample.all());
    let first = lab.sample.blocks(PieceIndex(0)).swap_remove(0);
    lab.disk.write(TORRENT, PieceIndex(0), vec![first]).unwrap();
    lab.disk.remove(TORRENT);
    let again = lab.sample.blocks(PieceIndex(0));
    let refused = lab.disk.write(TORRENT, PieceIndex(0), again.clone()).unwrap_err();
    assert_eq!(refused.0, again, "given back");
    assert_eq!(lab.disk.read(TORRENT, PEER, vec![again[0].0]).unwrap_err().0, [again[0].0]);
    let (reply, answer) = oneshot::channel();
    lab.disk.sync(TORRENT, reply);
    assert!(answer.blocking_recv().is_err());
    lab.disk.stop();
    while let Some(event) = lab.events.blocking_recv() {
        // The check of four pieces may have been over before the torrent was removed.
        if matches!(event, DiskEvent::CheckDone { .. }) {
            continue;
        }
        assert!(
            matches!(event, DiskEvent::Written { .. } | DiskEvent::Checked { .. }),
            "{event:?}"
        );
    }
}
