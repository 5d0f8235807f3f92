//! One side of an update: its files, and where their bytes lie.

use crate::Error;
use crate::repository::Repository;
use crate::scan::{Kind, Scan};
use std::fs::File;
use std::path::{Path, PathBuf};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::patch::{Tree, TreeFile};
use updraft_manifests::path::RelPath;
use updraft_protocol::io::create::create;
use updraft_protocol::metainfo::Info;
use updraft_protocol::metainfo::create::{Format, Options, Source, SourceFile};

/// The files of one release and where they can be read, by their number in the tree.
#[derive(Debug, Clone)]
pub struct Side {
    /// What they are.
    pub tree: Tree,
    /// Where they lie.
    pub paths: Vec<PathBuf>,
}

impl Side {
    /// A folder as it was scanned. Hashes all files, on all cores.
    ///
    /// # Errors
    /// [`Error::Disk`], [`Error::BuildChanged`].
    pub fn of_folder(scan: &Scan) -> Result<Self, Error> {
        let files: Vec<_> = scan
            .files
            .iter()
            .filter_map(|file| match file.kind {
                Kind::File { length, .. } if length > 0 => Some(SourceFile {
                    path: file.path.components().map(str::to_owned).collect(),
                    source: file.source.clone(),
                    length,
                    executable: false,
                    symlink: None,
                }),
                Kind::File { .. } | Kind::Symlink { .. } => None,
            })
            .collect();
        if files.is_empty() {
            return Ok(Self { tree: Tree::new([]), paths: vec![] });
        }
        let source = Source { name: "side".to_owned(), single_file: false, files };
        let options = Options { format: Format::V2, ..Options::default() };
        let metainfo = create(&source, &options, &|_, _| {}).map_err(crate::publish::failed)?;
        let scanned: Vec<_> = scan.files.iter().map(|file| (&file.path, &file.source)).collect();
        Self::of_info(&metainfo.info, |path, _, _| {
            let found = scanned.binary_search_by(|(known, _)| (*known).cmp(path));
            found.map(|index| scanned[index].1.clone()).unwrap_or_default()
        })
    }

    /// A release of a repository, read from its objects.
    ///
    /// # Errors
    /// [`Error::Internal`] if the torrent is none of ours.
    pub fn of_release(repository: &Repository, info: &Info) -> Result<Self, Error> {
        Self::of_info(info, |_, root, length| repository.object_path(root, length))
    }

    fn of_info(
        info: &Info,
        locate: impl Fn(&RelPath, &ContentHash, u64) -> PathBuf,
    ) -> Result<Self, Error> {
        let mut files = Vec::new();
        for file in &info.files {
            let Some(root) = file.root.filter(|_| file.length > 0) else { continue };
            let path = RelPath::from_components(&file.path)
                .map_err(|error| Error::Internal(error.to_string()))?;
            files.push(TreeFile { path, length: file.length, root: ContentHash(root.0) });
        }
        let tree = Tree::new(files);
        let locate = |file: &TreeFile| locate(&file.path, &file.root, file.length);
        let paths = tree.files().iter().map(locate).collect();
        Ok(Self { tree, paths })
    }

    /// Reads a range of a file.
    ///
    /// # Errors
    /// [`Error::Disk`]; also when the file is shorter than it was.
    pub fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let path = &self.paths[file];
        let read = File::open(path).and_then(|file| read_exact_at(&file, offset, buffer));
        read.map_err(Error::disk("read", path))
    }
}

/// Fills `buffer` from `offset` on.
#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from `offset` on.
#[cfg(not(unix))]
pub(super) fn read_exact_at(
    mut file: &File,
    offset: u64,
    buffer: &mut [u8],
) -> std::io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

/// The last file that was read from, kept open.
#[derive(Default)]
pub(super) struct Reader {
    open: Option<(usize, File)>,
}

impl Reader {
    pub(super) fn read(
        &mut self,
        side: &Side,
        file: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> std::io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            let path: &Path = &side.paths[file];
            self.open = Some((file, File::open(path)?));
        }
        let (_, open) = self.open.as_ref().expect("it was just opened");
        read_exact_at(open, offset, buffer)
    }
}
