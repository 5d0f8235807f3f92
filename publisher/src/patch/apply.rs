//! Applying a patch: to a folder, or only to compare what comes out.

use super::side::{Reader, Side};
use crate::Error;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use updraft_manifests::patch::{
    ApplyError, HEADER_BYTES_MAX, PREFIX_LEN, Patch, WriteNew, apply_group,
};

/// Bytes of the patch that are read at once.
const BUFFER_LEN: usize = 64 << 10;

/// What applying did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Files made.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads the header of the patch file at `path`.
///
/// # Errors
/// [`Error::Content`] if it is none that this program can read; [`Error::Disk`].
pub fn open(path: &Path) -> Result<Patch, Error> {
    let file = File::open(path).map_err(Error::disk("read", path))?;
    let mut head = Vec::new();
    let limit = (PREFIX_LEN + HEADER_BYTES_MAX) as u64;
    file.take(limit).read_to_end(&mut head).map_err(Error::disk("read", path))?;
    let patch = Patch::parse(&head).map_err(|error| Error::content(path, error))?;
    let size = std::fs::metadata(path).map_err(Error::disk("read", path))?.len();
    if patch.groups.last().is_some_and(|group| group.bytes.end != size) {
        return Err(Error::content(path, "is cut off, or longer than it says: fetch it again"));
    }
    Ok(patch)
}

/// Applies the patch file at `path` to `old`, one group after the other, so that memory stays within
/// what the format promises.
///
/// # Errors
/// [`Error::Content`] if the patch is not for `old` or is damaged; [`Error::Disk`].
pub(super) fn apply_to(
    path: &Path,
    old: &Side,
    write: &mut WriteNew<'_>,
) -> Result<Applied, Error> {
    let patch = open(path)?;
    patch.check_from(&old.tree).map_err(|error| Error::content(path, error))?;
    let input = File::open(path).map_err(Error::disk("read", path))?;
    let mut input = io::BufReader::with_capacity(BUFFER_LEN, input);
    let mut reader = Reader::default();
    let mut read_old =
        |file: u32, offset: u64, buffer: &mut [u8]| reader.read(old, file as usize, offset, buffer);
    for (index, group) in patch.groups.iter().enumerate() {
        input.seek(SeekFrom::Start(group.bytes.start)).map_err(Error::disk("read", path))?;
        apply_group(&patch, index, &mut input, &mut |_| true, &mut read_old, write)
            .map_err(|error| refused(path, error))?;
    }
    let bytes = patch.outputs.iter().map(|output| output.length).sum();
    Ok(Applied { files: patch.outputs.len() as u64, bytes })
}

fn refused(path: &Path, error: ApplyError) -> Error {
    match error {
        ApplyError::Patch(_) | ApplyError::Input(_) | ApplyError::Old(_) => {
            Error::content(path, error)
        }
        ApplyError::Sink(source) if source.kind() == io::ErrorKind::InvalidData => {
            Error::content(path, source)
        }
        ApplyError::Sink(source) => {
            Error::Disk { action: "write what is made by", path: path.to_path_buf(), source }
        }
    }
}

/// Applies the patch file at `path` to `old` and compares every byte with `new`. Nothing is written.
///
/// # Errors
/// [`Error::Content`] at the first difference.
pub fn compare(path: &Path, old: &Side, new: &Side) -> Result<Applied, Error> {
    let patch = open(path)?;
    patch.check(&old.tree, &new.tree).map_err(|error| Error::content(path, error))?;
    let mut reader = Reader::default();
    let (mut current, mut at) = (usize::MAX, 0);
    let mut wanted = Vec::new();
    apply_to(path, old, &mut |output, bytes| {
        if output != current {
            (current, at) = (output, 0);
        }
        let file = patch.outputs[output].file as usize;
        wanted.resize(bytes.len(), 0);
        reader.read(new, file, at, &mut wanted)?;
        at += bytes.len() as u64;
        if wanted == bytes {
            return Ok(());
        }
        let name = &new.tree.files()[file].path;
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("makes `{name}` wrongly")))
    })
}
