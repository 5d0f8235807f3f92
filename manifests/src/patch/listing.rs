//! What else differs between two folders: for patches that are applied without a release.

use super::HEADER_BYTES_MAX;
use super::varint::{Bytes, write_number};
use crate::hash::ContentHash;
use crate::path::RelPath;

/// The most changes of a listing.
const CHANGES_MAX: usize = 1 << 20;

/// The way from the old folder to the new one; what it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Files, links and empty folders that are gone, sorted.
    pub remove: Vec<RelPath>,
    /// What is new or changed, sorted by path.
    pub put: Vec<Put>,
}

/// One thing of the new folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Where it lies.
    pub path: RelPath,
    /// What it is.
    pub shape: Shape,
}

/// What a [`Put`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A file without bytes.
    Empty {
        /// Marked executable.
        executable: bool,
    },
    /// A file with the content of an old one.
    Old {
        /// Marked executable.
        executable: bool,
        /// Its number in the old tree.
        file: u32,
    },
    /// A file that the patch makes.
    Output {
        /// Marked executable.
        executable: bool,
        /// Which output.
        output: u32,
        /// The `pieces root` that it shall have.
        root: ContentHash,
    },
    /// A link.
    Symlink {
        /// Its target, from the folder.
        target: RelPath,
    },
    /// A folder with nothing in it.
    Folder,
}

const EMPTY: u8 = 0;
const OLD: u8 = 2;
const OUTPUT: u8 = 4;
const SYMLINK: u8 = 6;
const FOLDER: u8 = 8;

impl Listing {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut before = String::new();
        write_number(out, self.remove.len() as u64);
        for path in &self.remove {
            write_path(out, &mut before, path);
        }
        before.clear();
        write_number(out, self.put.len() as u64);
        for put in &self.put {
            write_path(out, &mut before, &put.path);
            match &put.shape {
                Shape::Empty { executable } => out.push(EMPTY | u8::from(*executable)),
                Shape::Old { executable, file } => {
                    out.push(OLD | u8::from(*executable));
                    write_number(out, u64::from(*file));
                }
                Shape::Output { executable, output, root } => {
                    out.push(OUTPUT | u8::from(*executable));
                    write_number(out, u64::from(*output));
                    out.extend_from_slice(&root.0);
                }
                Shape::Symlink { target } => {
                    out.push(SYMLINK);
                    write_path(out, &mut String::new(), target);
                }
                Shape::Folder => out.push(FOLDER),
            }
        }
    }

    pub(super) fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        let mut listing = Self::default();
        let mut before = String::new();
        // What is shared with the path before costs a byte here and thousands in memory.
        let mut room = HEADER_BYTES_MAX;
        let mut read_path = |bytes: &mut Bytes<'_>, before: &mut String| {
            let path = read_path(bytes, before)?;
            room = room.checked_sub(path.as_str().len())?;
            Some(path)
        };
        for _ in 0..bytes.count(CHANGES_MAX)? {
            listing.remove.push(read_path(bytes, &mut before)?);
        }
        before.clear();
        for _ in 0..bytes.count(CHANGES_MAX)? {
            let path = read_path(bytes, &mut before)?;
            let [kind] = bytes.array()?;
            let executable = kind & 1 == 1;
            let shape = match kind & !1 {
                EMPTY => Shape::Empty { executable },
                OLD => Shape::Old { executable, file: number(bytes)? },
                OUTPUT => Shape::Output {
                    executable,
                    output: number(bytes)?,
                    root: ContentHash(bytes.array()?),
                },
                SYMLINK if !executable => {
                    Shape::Symlink { target: read_path(bytes, &mut String::new())? }
                }
                FOLDER if !executable => Shape::Folder,
                _ => return None,
            };
            listing.put.push(Put { path, shape });
        }
        let sorted = listing.remove.is_sorted_by(|a, b| a < b)
            && listing.put.is_sorted_by(|a, b| a.path < b.path);
        sorted.then_some(listing)
    }
}

fn number(bytes: &mut Bytes<'_>) -> Option<u32> {
    u32::try_from(bytes.number()?).ok()
}

/// A path as what it shares with the one before, and the rest.
fn write_path(out: &mut Vec<u8>, before: &mut String, path: &RelPath) {
    let path = path.as_str();
    let mut shared = before.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
    while !path.is_char_boundary(shared) {
        shared -= 1;
    }
    write_number(out, shared as u64);
    write_number(out, (path.len() - shared) as u64);
    out.extend_from_slice(&path.as_bytes()[shared..]);
    before.clear();
    before.push_str(path);
}

fn read_path(bytes: &mut Bytes<'_>, before: &mut String) -> Option<RelPath> {
    let shared = bytes.count(before.len())?;
    if !before.is_char_boundary(shared) {
        return None;
    }
    let len = bytes.count(crate::path::PATH_LEN_MAX)?;
    let rest = std::str::from_utf8(bytes.take(len)?).ok()?;
    before.truncate(shared);
    before.push_str(rest);
    RelPath::parse(before).ok()
}
