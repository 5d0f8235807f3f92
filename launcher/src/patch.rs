//! A patch on its way into the staging folder: what it can make here, and making it.
//!
//! A patch is believed as little as any other source. Its outputs become blocks that the engine writes
//! and hashes; an output that needs an old file which is not as recorded is left to other means, and so
//! is everything that comes out wrong.

use crate::stage::Stage;
use crate::tree::Tree;
use bytes::Bytes;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use tokio::sync::mpsc;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::installed::Installed;
use updraft_manifests::patch::{self, ApplyError, Patch, PatchError, apply_group};
use updraft_manifests::path::RelPath;
use updraft_manifests::plan::{Action, Content, NewFile};
use updraft_protocol::bitfield::Bitfield;
use updraft_protocol::geometry::{BLOCK_LEN, Block};
use updraft_protocol::ids::{FileIndex, PieceIndex};
use updraft_protocol::io::SUPPLY_BYTES_MAX;
use updraft_protocol::metainfo::Info;

/// Old files held open at once.
const OPEN_MAX: usize = 16;

/// A patch between the installed release and another, and which of its outputs are to be made.
#[derive(Debug)]
pub struct PatchJob {
    patch: Patch,
    /// The old files' paths, as the patch counts them.
    old: Vec<RelPath>,
    /// For each output the numbers of the files in the release that have its content and are to be made of it.
    wanted: Vec<Vec<u32>>,
}

/// The files of `installed` as patches count them.
fn old_tree(installed: &Installed) -> patch::Tree {
    patch::Tree::new(installed.files.iter().filter_map(|file| {
        let (path, length) = (file.path.clone(), file.length);
        file.root.map(|root| patch::TreeFile { path, length, root })
    }))
}

fn new_tree(files: &[NewFile]) -> patch::Tree {
    patch::Tree::new(files.iter().filter_map(|file| match file.content {
        Content::File { length, root: Some(root), .. } => {
            Some(patch::TreeFile { path: file.path.clone(), length, root })
        }
        Content::File { root: None, .. } | Content::Symlink { .. } => None,
    }))
}

impl PatchJob {
    /// What `patch` can make of what `stage` has to fetch, out of files that are as recorded.
    ///
    /// # Errors
    /// [`PatchError`] when the patch is for other releases.
    pub fn new(
        patch: Patch,
        installed: &Installed,
        files: &[NewFile],
        stage: &Stage<'_>,
    ) -> Result<Self, PatchError> {
        let (old, new) = (old_tree(installed), new_tree(files));
        patch.check(&old, &new)?;
        let known = stage.survey().known.iter().map(|file| (&file.path, &file.content));
        let known: HashMap<&RelPath, &Content> = known.collect();
        let intact: Vec<bool> = old
            .files()
            .iter()
            .map(|file| {
                matches!(known.get(&file.path), Some(Content::File { length, root, .. })
                    if *length == file.length && *root == Some(file.root))
            })
            .collect();
        let mut fetched: HashMap<(u64, ContentHash), Vec<u32>> = HashMap::new();
        for (number, (file, action)) in (0..).zip(files.iter().zip(&stage.plan().actions)) {
            if let (Action::Fetch, Content::File { length, root: Some(root), .. }) =
                (action, &file.content)
            {
                fetched.entry((*length, *root)).or_default().push(number);
            }
        }
        let wanted = patch.outputs.iter().map(|output| {
            let sources = &output.sources;
            let usable = sources.iter().all(|source| intact[source.file as usize]);
            let file = &new.files()[output.file as usize];
            let files = fetched.get(&(file.length, file.root)).filter(|_| usable);
            files.cloned().unwrap_or_default()
        });
        let wanted = wanted.collect();
        let old = old.files().iter().map(|file| file.path.clone()).collect();
        Ok(Self { patch, old, wanted })
    }

    /// The files that it makes, by their numbers in the release.
    pub fn makes(&self) -> impl Iterator<Item = u32> + '_ {
        self.wanted.iter().flatten().copied()
    }

    /// The ranges of the patch file that it is made of: the header, and the groups with an output to be made.
    pub fn needs(&self) -> Vec<Range<u64>> {
        let groups = self.patch.groups.iter();
        let needed = groups
            .filter(|group| self.wanted[group.outputs.clone()].iter().any(|it| !it.is_empty()));
        let header = 0..self.patch.groups.first().map_or(0, |group| group.bytes.start);
        std::iter::once(header).chain(needed.map(|group| group.bytes.clone())).collect()
    }

    /// What it makes out of what: numbers of files in the release, each with an old file it reads.
    pub fn sources(&self) -> Vec<(u32, &RelPath)> {
        let mut sources = Vec::new();
        for (output, files) in self.patch.outputs.iter().zip(&self.wanted) {
            for file in files {
                let old = output.sources.iter().map(|source| &self.old[source.file as usize]);
                sources.extend(old.map(|path| (*file, path)));
            }
        }
        sources
    }

    /// Bytes of old files that it may read for them.
    pub fn reads(&self) -> u64 {
        let wanted = self.patch.outputs.iter().zip(&self.wanted);
        let wanted = wanted.filter(|(_, files)| !files.is_empty());
        let sources = wanted.flat_map(|(output, _)| &output.sources);
        sources.map(|source| source.bytes().end - source.bytes().start).sum()
    }

    /// Makes them out of `file`, the patch file, and hands their blocks on; what lies in pieces of
    /// `done` alone is passed over. What comes to nothing leaves the rest as it is; ends early when nobody
    /// takes blocks any more. Blocks.
    ///
    /// # Errors
    /// The first [`ApplyError`]: what could be made is handed on all the same.
    pub fn supply(
        &self,
        mut file: File,
        tree: &Tree,
        info: &Info,
        done: &Bitfield,
        blocks: &mpsc::Sender<Vec<(Block, Bytes)>>,
    ) -> Result<(), ApplyError> {
        let mut old = OldFiles { tree, paths: &self.old, open: HashMap::new() };
        let pieces = |number: u32| info.geometry.pieces_of(FileIndex(number));
        let lacks = |number: &u32| pieces(*number).any(|piece| !done.has(PieceIndex(piece)));
        let lacking = |files: &Vec<u32>| files.iter().copied().filter(|file| lacks(file)).collect();
        let wanted: Vec<Vec<u32>> = self.wanted.iter().map(lacking).collect();
        let mut failed = Ok(());
        let mut out = Out { info, blocks, output: None, at: 0, pending: Vec::new() };
        for (number, group) in self.patch.groups.iter().enumerate() {
            if wanted[group.outputs.clone()].iter().all(Vec::is_empty) {
                continue;
            }
            file.seek(SeekFrom::Start(group.bytes.start)).map_err(ApplyError::Input)?;
            let applied = apply_group(
                &self.patch,
                number,
                &mut file,
                &mut |output| !wanted[output].is_empty(),
                &mut |file, offset, buffer| old.read(file, offset, buffer),
                &mut |output, bytes| {
                    out.write(&wanted[output], self.patch.outputs[output].length, bytes)
                },
            );
            match applied {
                Ok(()) => {}
                Err(error @ ApplyError::Sink(_)) => return failed.and(Err(error)),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }
}

/// The old files, a few of them open.
struct OldFiles<'a> {
    tree: &'a Tree,
    paths: &'a [RelPath],
    open: HashMap<u32, File>,
}

impl OldFiles<'_> {
    fn read(&mut self, number: u32, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if !self.open.contains_key(&number) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let path = &self.paths[number as usize];
            self.open.insert(number, self.tree.open_file(path.as_str())?);
        }
        let file = self.open.get_mut(&number).expect("it was opened above");
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}

/// Outputs cut into blocks.
struct Out<'a> {
    info: &'a Info,
    blocks: &'a mpsc::Sender<Vec<(Block, Bytes)>>,
    /// The first of the output's files.
    output: Option<u32>,
    /// Bytes of the output that were handed on.
    at: u64,
    pending: Vec<u8>,
}

impl Out<'_> {
    /// Of an output of `length` bytes, which is the content of all of `files`.
    fn write(&mut self, files: &[u32], length: u64, mut bytes: &[u8]) -> io::Result<()> {
        if self.output != files.first().copied() {
            self.output = files.first().copied();
            self.at = 0;
            self.pending.clear();
        }
        while !bytes.is_empty() {
            let (now, later) =
                bytes.split_at(bytes.len().min(SUPPLY_BYTES_MAX - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            let whole = self.at + self.pending.len() as u64 == length;
            if self.pending.len() == SUPPLY_BYTES_MAX || whole {
                self.hand_on(files)?;
            }
        }
        Ok(())
    }

    /// The pending bytes start at a block's border, and end at one or at the file's end.
    fn hand_on(&mut self, files: &[u32]) -> io::Result<()> {
        let pending = Bytes::from(std::mem::take(&mut self.pending));
        files.iter().try_for_each(|&file| self.hand_to(file, &pending))?;
        self.at += pending.len() as u64;
        Ok(())
    }

    fn hand_to(&self, file: u32, pending: &Bytes) -> io::Result<()> {
        let geometry = &self.info.geometry;
        let first = geometry.pieces_of(FileIndex(file)).start;
        let piece_length = u64::from(geometry.piece_length());
        let mut batch = Vec::new();
        let mut from = 0;
        while from < pending.len() {
            let at = self.at + from as u64;
            let piece = u64::from(first) + at / piece_length;
            let piece = PieceIndex(u32::try_from(piece).expect("inside the torrent"));
            let index = u32::try_from(at % piece_length).expect("inside the piece") / BLOCK_LEN;
            let block = geometry.block(piece, index);
            let end = from + block.len as usize;
            batch.push((block, pending.slice(from..end)));
            from = end;
        }
        self.blocks.blocking_send(batch).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Release;
    use crate::stop::Stop;
    use crate::survey::{Question, root_of, survey};
    use std::path::Path;
    use updraft_manifests::installed::InstalledFile;
    use updraft_manifests::patch::{Copy, Group, GroupWriter, Output, Source};
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

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn write(dir: &Path, name: &str, data: &[u8]) -> Option<ContentHash> {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(name), data).unwrap();
        let file = File::open(dir.join(name)).unwrap();
        root_of(&file, data.len() as u64, &mut vec![0; 1 << 16], |_| true).unwrap()
    }

    struct World {
        dir: tempfile::TempDir,
        installed: Installed,
        release: Release,
        news: Vec<Vec<u8>>,
        patch: Vec<u8>,
    }

    /// Installed are `a` and `b`; each of the new files `c` and `d` begins with some bytes of its own,
    /// then copies the whole of `a` or `b` with a byte changed.
    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let olds = [("a", noise(300_000, 1)), ("b", noise(40_000, 2))];
        let files = olds.iter().map(|(name, data)| InstalledFile {
            place: Default::default(),
            path: path(name),
            length: data.len() as u64,
            root: write(dir.path(), name, data),
            mtime_ns: 0,
            executable: false,
            symlink: None,
        });
        let installed = Installed {
            release: crate::release::sample(1, ContentHash([2; 32])),
            toward: None,
            files: files.collect(),
        };
        let mut writer = GroupWriter::new(&io::Cursor::<Vec<u8>>::default);
        let (mut outputs, mut news) = (vec![], vec![]);
        for (file, (_, old)) in (0..).zip(&olds) {
            let mut copied = old.clone();
            copied[30_000] ^= 0x55;
            let own = noise(5000 + file as usize, 7);
            writer.begin_output();
            writer.step(&own, Some(Copy { at: 0, old, new: &copied })).unwrap();
            let new = [own, copied].concat();
            let leaves = u32::try_from(old.len().div_ceil(16_384)).unwrap();
            let sources = vec![Source { file, first_leaf: 0, leaves }];
            outputs.push(Output { file, length: new.len() as u64, sources });
            news.push(new);
        }
        news.push(news[1].clone());
        let build = dir.path().join(".updraft/build");
        write(&build, "c", &news[0]);
        write(&build, "d", &news[1]);
        // Another file with the content of `d`.
        write(&build, "e", &news[1]);
        let source = create::scan(&build).unwrap();
        let options =
            Options { format: Format::V2, piece_length: Some(65_536), ..Options::default() };
        let metainfo = create::create(&source, &options, &|_, _| {}).unwrap();
        let v2 = ContentHash(metainfo.info.hashes.v2.unwrap().0);
        let release = Release::parse(crate::release::sample(2, v2), &metainfo.encode()).unwrap();
        let mut group = Vec::new();
        writer.finish(3, &mut group).unwrap();
        let patch = Patch {
            from: old_tree(&installed).digest(),
            to: new_tree(&release.files).digest(),
            groups: vec![Group { outputs: 0..2, bytes: 0..group.len() as u64 }],
            outputs,
            listing: None,
        };
        let patch = [patch.encode(3).unwrap(), group].concat();
        World { dir, installed, release, news, patch }
    }

    /// Makes the files named; whatever blocks come are right.
    fn check(world: &World, makes: &str, bytes: usize) {
        let (made, result) = run(world, makes, |_| {});
        assert_eq!((made, result.is_ok()), (bytes, true), "{result:?}");
    }

    /// The same when something happens to the folder in between; returns the bytes that come.
    fn run(
        world: &World,
        makes: &str,
        between: impl FnOnce(&Path),
    ) -> (usize, Result<(), ApplyError>) {
        let tree = Tree::open(world.dir.path()).unwrap();
        let question = Question {
            installed: Some(&world.installed),
            wanted: &world.release.files,
            rules: &Default::default(),
            thorough: true,
            adopt: false,
            kept: None,
        };
        let found = survey(&tree, &question, &Stop::new(), &|_, _| {}).unwrap();
        let release = &world.release;
        let stage =
            Stage::new(&tree, release, Some(&world.installed), &Default::default(), found, false);
        let stage = stage.unwrap();
        let patch = Patch::parse(&world.patch).unwrap();
        let job = PatchJob::new(patch, &world.installed, &release.files, &stage).unwrap();
        let made = job.makes().map(|file| release.files[file as usize].path.to_string());
        assert_eq!(made.collect::<Vec<_>>().join(" "), makes);
        std::fs::write(world.dir.path().join(".updraft/patch"), &world.patch).unwrap();
        let file = File::open(world.dir.path().join(".updraft/patch")).unwrap();
        let (sender, mut blocks) = mpsc::channel(1000);
        let done = Bitfield::empty(release.info.geometry.piece_count());
        between(world.dir.path());
        let result = job.supply(file, &tree, &release.info, &done, &sender);
        let mut count = 0;
        while let Ok(batch) = blocks.try_recv() {
            assert!(batch.iter().map(|(_, data)| data.len()).sum::<usize>() <= SUPPLY_BYTES_MAX);
            for (block, data) in batch {
                let file = release.info.geometry.files_of(block.piece).next().unwrap();
                let first = release.info.geometry.pieces_of(file).start;
                let at = (block.piece.0 - first) as usize * 65_536 + block.offset as usize;
                assert_eq!(data, world.news[file.get()][at..at + data.len()], "{block:?}");
                assert!(release.info.geometry.block_index(block).is_some());
                count += data.len();
            }
        }
        (count, result)
    }

    #[test]
    fn outputs_become_blocks() {
        check(&world(), "c d e", 305_000 + 2 * 45_001);
    }

    #[test]
    fn a_changed_old_file_costs_only_what_is_made_of_it() {
        let world = world();
        std::fs::write(world.dir.path().join("a"), noise(300_000, 5)).unwrap();
        check(&world, "d e", 2 * 45_001);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_put_in_place_of_an_old_file_is_not_followed() {
        let world = world();
        let outside = tempfile::tempdir().unwrap();
        let (made, result) = run(&world, "c d e", |dir| {
            std::fs::rename(dir.join("a"), outside.path().join("a")).unwrap();
            std::os::unix::fs::symlink(outside.path().join("a"), dir.join("a")).unwrap();
        });
        assert!(matches!(result, Err(ApplyError::Old(_))), "{result:?}");
        assert_eq!(made, 0);
    }

    #[test]
    fn an_old_file_cut_short_meanwhile_ends_it() {
        let (made, result) = run(&world(), "c d e", |dir| {
            std::fs::write(dir.join("a"), b"short").unwrap();
        });
        assert!(matches!(result, Err(ApplyError::Old(_))), "{result:?}");
        assert_eq!(made, 0);
    }

    #[test]
    fn a_patch_of_other_releases_is_refused() {
        let mut world = world();
        world.installed.files[0].length += 1;
        let tree = Tree::open(world.dir.path()).unwrap();
        let stage =
            Stage::new(&tree, &world.release, None, &Default::default(), Default::default(), false);
        let stage = stage.unwrap();
        let patch = Patch::parse(&world.patch).unwrap();
        let job = PatchJob::new(patch, &world.installed, &world.release.files, &stage);
        assert!(matches!(job, Err(PatchError::Mismatch(_))), "{job:?}");
    }
}
