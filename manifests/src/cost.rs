//! What an update costs: file by file for those who want to know why, and in all before it begins.

use crate::plan::{Action, Content, NewFile, Plan};

/// File systems give whole blocks; most of them this size.
const DISK_BLOCK: u64 = 4096;

/// Bytes that a file of `length` takes on the disk.
pub fn on_disk(length: u64) -> u64 {
    length.next_multiple_of(DISK_BLOCK)
}

/// How the bytes of one new file come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It stays, or only its executable mark changes.
    Keep,
    /// Another file is renamed.
    Move,
    /// Another file is copied.
    Copy,
    /// It has no bytes.
    Make,
    /// A patch makes it out of old files.
    Patch,
    /// Leaves of old files, and the rest is fetched.
    Leaves,
    /// All of it is fetched.
    Whole,
    /// What lies there is the player's, or nothing does because it is not wanted: nothing is done.
    Leave,
}

impl Way {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Move => "move",
            Self::Copy => "copy",
            Self::Make => "make",
            Self::Patch => "patch",
            Self::Leaves => "leaves",
            Self::Whole => "whole",
            Self::Leave => "leave",
        }
    }
}

/// What is known of a file that has to be built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// Its number in the release.
    pub file: u32,
    /// Bytes of it that were found in old files.
    pub found: u64,
    /// True if a patch makes it.
    pub patched: bool,
}

/// What the whole costs besides the bytes of the files themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// Bytes of the leaf index to fetch or fetched.
    pub index: u64,
    /// Bytes of the patch to fetch.
    pub patch: u64,
    /// Bytes of old files that a search reads, or read.
    pub searched: u64,
    /// Bytes of old files that a patch reads.
    pub patch_reads: u64,
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCost {
    /// How it comes to be.
    pub way: Way,
    /// Its bytes.
    pub length: u64,
    /// Of these, how many are fetched as they are.
    pub download: u64,
}

/// The whole update, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// To fetch: parts of files, patch and index.
    pub download: u64,
    /// Parts of files among that.
    pub content: u64,
    /// Of files that stay.
    pub kept: u64,
    /// Of files that are renamed.
    pub moved: u64,
    /// Of files that are copied.
    pub copied: u64,
    /// Of files to build, found in old ones.
    pub found: u64,
    /// Of files that a patch makes.
    pub patched: u64,
    /// Read from the disk.
    pub disk_read: u64,
    /// Written to the disk.
    pub disk_write: u64,
    /// The most that the disk holds beyond what it holds now: until the switch, old and new are there.
    pub extra_space: u64,
}

/// What `plan` costs, file by file and in all. `built` tells of files that have to be built, in any
/// order; of one that it leaves out everything is fetched.
///
/// # Panics
/// If `plan` is not of `new`.
pub fn costs(
    new: &[NewFile],
    plan: &Plan,
    built: &[Built],
    sides: &Sides,
) -> (Vec<FileCost>, Costs) {
    assert_eq!(new.len(), plan.actions.len(), "one action for each file");
    let mut built: Vec<Built> = built.to_vec();
    built.sort_unstable_by_key(|built| built.file);
    let mut sum = Costs::default();
    let files = (0..).zip(new.iter().zip(&plan.actions)).map(|(number, (file, action))| {
        let length = match file.content {
            Content::File { length, .. } => length,
            Content::Symlink { .. } => 0,
        };
        let (mut download, mut writes) = (0, length);
        let way = match action {
            Action::Keep | Action::SetExecutable(_) => {
                sum.kept += length;
                writes = 0;
                Way::Keep
            }
            Action::Reuse { may_move: true, .. } => {
                sum.moved += length;
                writes = 0;
                Way::Move
            }
            Action::Reuse { may_move: false, .. } => {
                sum.copied += length;
                Way::Copy
            }
            Action::Make => Way::Make,
            Action::Leave => {
                writes = 0;
                Way::Leave
            }
            Action::Fetch => {
                let known = built.binary_search_by_key(&number, |built| built.file);
                let Built { found, patched, .. } = known.map_or(
                    Built::default(), // Nothing is known: all of it.
                    |at| built[at],
                );
                if patched {
                    sum.patched += length;
                    Way::Patch
                } else {
                    let found = found.min(length);
                    sum.found += found;
                    download = length - found;
                    if found > 0 { Way::Leaves } else { Way::Whole }
                }
            }
        };
        sum.content += download;
        sum.disk_write += writes;
        sum.extra_space += on_disk(writes);
        FileCost { way, length, download }
    });
    let files: Vec<FileCost> = files.collect();
    sum.download = sum.content + sides.index + sides.patch;
    sum.disk_read = sides.searched + sides.patch_reads + sum.found + sum.copied;
    sum.disk_write += sides.patch;
    sum.extra_space += on_disk(sides.patch);
    let comes = files.iter().filter(|file| file.way != Way::Leave);
    let total: u64 = comes.map(|file| file.length).sum();
    let parts = sum.kept + sum.moved + sum.copied + sum.found + sum.patched + sum.content;
    assert_eq!(total, parts, "every byte comes from somewhere, once");
    (files, sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ContentHash;
    use crate::path::RelPath;
    use crate::places::Place;
    use crate::plan::{OldFile, plan};

    #[test]
    fn each_way() {
        let path = |name: &str| RelPath::parse(name).unwrap();
        let content = |seed: u8, length: u64| Content::File {
            length,
            root: Some(ContentHash([seed; 32])),
            executable: false,
        };
        let old = |name: &str, seed, length| OldFile {
            path: path(name),
            content: content(seed, length),
            listed: true,
        };
        let new =
            |name: &str, seed, length| NewFile { path: path(name), content: content(seed, length) };
        let olds = [old("keep", 1, 10), old("moved", 2, 20), old("changed", 3, 5000)];
        let news = [
            new("keep", 1, 10),
            new("there", 2, 20),
            new("twin", 1, 10),
            new("changed", 4, 5000),
            new("patched", 5, 700),
            new("new", 6, 3),
            NewFile { path: path("link"), content: Content::Symlink { target: path("keep") } },
            new("players", 7, 1),
            new("absent", 8, 1),
        ];
        let mut places = [Place::Own; 9];
        places[7..].copy_from_slice(&[Place::Players, Place::Absent]);
        let plan = plan(&olds, &news, &places).unwrap();
        let built = [
            Built { file: 4, found: 0, patched: true },
            Built { file: 3, found: 4000, patched: false },
        ];
        let sides = Sides { index: 8, patch: 70, searched: 5000, patch_reads: 600 };
        let (files, sum) = costs(&news, &plan, &built, &sides);
        let ways: Vec<&str> = files.iter().map(|file| file.way.as_str()).collect();
        assert_eq!(
            ways,
            ["keep", "move", "copy", "leaves", "patch", "whole", "make", "leave", "leave"]
        );
        let expected = Costs {
            download: 1003 + 78,
            content: 1003,
            kept: 10,
            moved: 20,
            copied: 10,
            found: 4000,
            patched: 700,
            disk_read: 5000 + 600 + 4000 + 10,
            disk_write: 10 + 5000 + 700 + 3 + 70,
            extra_space: 4096 + 8192 + 4096 + 4096 + 4096,
        };
        assert_eq!(sum, expected);
    }
}
