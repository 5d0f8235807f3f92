//! The header: what a patch can make, and of what.

use super::listing::Listing;
use super::tree::Tree;
use super::varint::{Bytes, fold, unfold, write_number};
use super::{
    FEATURE_LISTING, FEATURES_KNOWN, HEADER_BYTES_MAX, LEAF_LEN, MAGIC, OUTPUTS_MAX, PREFIX_LEN,
    SOURCES_MAX, VERSION,
};
use crate::hash::ContentHash;
use std::ops::Range;

/// A patch file without its groups' bytes.
///
/// The header, before compression: digests of the old and the new tree (32 bytes each); the number of
/// outputs; for each its file (less the one before, folded), length, number of sources, and for each
/// of these its old file (less the one before, folded), first leaf and leaves; the number of groups;
/// for each its outputs and bytes; then the listing, if the feature says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// [`Tree::digest`] of the old release.
    pub from: ContentHash,
    /// [`Tree::digest`] of the new release.
    pub to: ContentHash,
    /// What it makes, in the order of the groups.
    pub outputs: Vec<Output>,
    /// The compressed parts; every output is in exactly one.
    pub groups: Vec<Group>,
    /// What else differs between the two folders; patches of releases have none.
    pub listing: Option<Listing>,
}

/// One file that the patch makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its number in the new tree.
    pub file: u32,
    /// Its bytes.
    pub length: u64,
    /// The old ranges it may copy from. Copies count offsets through these ranges as if they lay one
    /// after the other.
    pub sources: Vec<Source>,
}

/// A range of an old file, in leaves of [`LEAF_LEN`]. The last leaf may be short in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's number in the old tree.
    pub file: u32,
    /// The first leaf.
    pub first_leaf: u32,
    /// How many.
    pub leaves: u32,
}

impl Source {
    /// The range in bytes; the file may end within its last leaf.
    pub fn bytes(&self) -> Range<u64> {
        let start = u64::from(self.first_leaf) * LEAF_LEN;
        start..start + u64::from(self.leaves) * LEAF_LEN
    }
}

/// A part of the patch file that can be applied alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The outputs it makes.
    pub outputs: Range<usize>,
    /// Where it lies in the patch file, in bytes.
    pub bytes: Range<u64>,
}

/// Why a patch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Something else.
    #[error("this is no patch file: it does not begin with UDPATCH")]
    NoPatch,
    /// Made by a newer program.
    #[error("the patch has format {found}, this program reads {VERSION}: update the program")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Made by a newer program.
    #[error("the patch needs features that this program lacks ({unknown:#x}): update the program")]
    Features {
        /// The bits that are not known.
        unknown: u32,
    },
    /// Not what a publisher writes.
    #[error("the patch is damaged: {0}; fetch it again")]
    Corrupt(&'static str),
    /// A good patch for something else.
    #[error("the patch is not for these files: {0}")]
    Mismatch(&'static str),
}

/// For the many places where bytes end too early.
fn cut<T>(value: Option<T>) -> Result<T, PatchError> {
    value.ok_or(PatchError::Corrupt("its header has an impossible value or ends too early"))
}

impl Patch {
    /// Bytes of the file up to its first group.
    ///
    /// # Errors
    /// [`PatchError`]: whoever meets an unknown version or feature has to do without this patch.
    pub fn header_len(prefix: &[u8; PREFIX_LEN]) -> Result<usize, PatchError> {
        prefix_of(prefix).map(|(_, len)| PREFIX_LEN + len)
    }

    /// Reads the header; `bytes` is the file, or its start. The groups are not looked at.
    ///
    /// # Errors
    /// [`PatchError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PatchError> {
        let mut bytes = Bytes(bytes);
        let prefix = bytes.array().ok_or(PatchError::NoPatch)?;
        let (features, len) = prefix_of(&prefix)?;
        let frame = bytes.take(len).ok_or(PatchError::Corrupt("its header ends too early"))?;
        let header = zstd::bulk::decompress(frame, HEADER_BYTES_MAX)
            .map_err(|_| PatchError::Corrupt("its header does not decompress"))?;
        let mut header = Bytes(&header);
        let patch = cut(read(&mut header, features, (PREFIX_LEN + len) as u64))?;
        if !header.0.is_empty() {
            return Err(PatchError::Corrupt("its header is longer than it says"));
        }
        Ok(patch)
    }

    /// Binds the patch to the releases that it was made for, which also bounds what it can make.
    ///
    /// # Errors
    /// [`PatchError::Mismatch`].
    pub fn check(&self, from: &Tree, to: &Tree) -> Result<(), PatchError> {
        self.check_from(from)?;
        self.check_to(to)
    }

    /// As [`Patch::check`], of the new side alone.
    ///
    /// # Errors
    /// [`PatchError`].
    pub fn check_to(&self, to: &Tree) -> Result<(), PatchError> {
        if self.to != to.digest() {
            return Err(PatchError::Mismatch("it leads to another release"));
        }
        for output in &self.outputs {
            let file = to.files().get(output.file as usize);
            if file.is_none_or(|file| file.length != output.length) {
                return Err(PatchError::Corrupt("it makes a file that the release does not have"));
            }
        }
        Ok(())
    }

    /// As [`Patch::check`], of the old side alone.
    ///
    /// # Errors
    /// [`PatchError::Mismatch`].
    pub fn check_from(&self, from: &Tree) -> Result<(), PatchError> {
        if self.from != from.digest() {
            return Err(PatchError::Mismatch("it starts from another release"));
        }
        for source in self.outputs.iter().flat_map(|output| &output.sources) {
            let file = from.files().get(source.file as usize);
            let leaves = u64::from(source.first_leaf) + u64::from(source.leaves);
            if file.is_none_or(|file| leaves > file.length.div_ceil(LEAF_LEN)) {
                return Err(PatchError::Corrupt("it copies from beyond an old file's end"));
            }
        }
        Ok(())
    }

    /// The features that a reader must know.
    pub fn features(&self) -> u32 {
        if self.listing.is_some() { FEATURE_LISTING } else { 0 }
    }

    /// Bytes of the whole patch file.
    pub fn len(&self) -> u64 {
        self.groups.last().map_or(0, |group| group.bytes.end)
    }

    /// True if it makes nothing.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// The prefix and the header, compressed with zstd's `level`. Only the lengths of the groups are
    /// written; where they lie follows from the header's own length.
    ///
    /// # Errors
    /// [`PatchError::Corrupt`] if the header would be larger than may be read.
    pub fn encode(&self, level: i32) -> Result<Vec<u8>, PatchError> {
        let mut header = Vec::new();
        header.extend_from_slice(&self.from.0);
        header.extend_from_slice(&self.to.0);
        write_outputs(&mut header, &self.outputs);
        write_number(&mut header, self.groups.len() as u64);
        for group in &self.groups {
            write_number(&mut header, group.outputs.len() as u64);
            write_number(&mut header, group.bytes.end - group.bytes.start);
        }
        if let Some(listing) = &self.listing {
            listing.write(&mut header);
        }
        let too_large = PatchError::Corrupt("its header would be too large");
        if header.len() > HEADER_BYTES_MAX {
            return Err(too_large);
        }
        let frame = zstd::bulk::compress(&header, level).map_err(|_| too_large.clone())?;
        let len = u32::try_from(frame.len()).map_err(|_| too_large)?;
        let mut out = Vec::with_capacity(PREFIX_LEN + frame.len());
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.features().to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&frame);
        Ok(out)
    }
}

fn prefix_of(prefix: &[u8; PREFIX_LEN]) -> Result<(u32, usize), PatchError> {
    let mut bytes = Bytes(prefix);
    let (Some(magic), Some([version])) = (bytes.array::<7>(), bytes.array::<1>()) else {
        return Err(PatchError::NoPatch);
    };
    if magic != *MAGIC {
        return Err(PatchError::NoPatch);
    }
    if version != VERSION {
        return Err(PatchError::Version { found: version });
    }
    let features = cut(bytes.array())?;
    let features = u32::from_le_bytes(features);
    if features & !FEATURES_KNOWN != 0 {
        return Err(PatchError::Features { unknown: features & !FEATURES_KNOWN });
    }
    let len = u32::from_le_bytes(cut(bytes.array())?) as usize;
    if len > HEADER_BYTES_MAX {
        return Err(PatchError::Corrupt("its header is too large"));
    }
    Ok((features, len))
}

fn write_outputs(out: &mut Vec<u8>, outputs: &[Output]) {
    let (mut file, mut old) = (0, 0);
    write_number(out, outputs.len() as u64);
    for output in outputs {
        write_number(out, fold(i64::from(output.file) - file));
        file = i64::from(output.file);
        write_number(out, output.length);
        write_number(out, output.sources.len() as u64);
        for source in &output.sources {
            write_number(out, fold(i64::from(source.file) - old));
            old = i64::from(source.file);
            write_number(out, u64::from(source.first_leaf));
            write_number(out, u64::from(source.leaves));
        }
    }
}

fn read(bytes: &mut Bytes<'_>, features: u32, groups_start: u64) -> Option<Patch> {
    let from = ContentHash(bytes.array()?);
    let to = ContentHash(bytes.array()?);
    let outputs = read_outputs(bytes)?;
    let mut groups = Vec::new();
    let (mut output, mut at) = (0_usize, groups_start);
    for _ in 0..bytes.count(OUTPUTS_MAX)? {
        let count = bytes.count(outputs.len() - output)?;
        let end = at.checked_add(bytes.number()?)?;
        if count == 0 || end == at {
            return None;
        }
        groups.push(Group { outputs: output..output + count, bytes: at..end });
        (output, at) = (output + count, end);
    }
    if output != outputs.len() {
        return None;
    }
    let listing = match features & FEATURE_LISTING {
        0 => None,
        _ => Some(Listing::read(bytes)?),
    };
    Some(Patch { from, to, outputs, groups, listing })
}

fn read_outputs(bytes: &mut Bytes<'_>) -> Option<Vec<Output>> {
    let mut outputs = Vec::new();
    let (mut file, mut old) = (0_u32, 0_u32);
    let step = |from: &mut u32, by: u64| -> Option<u32> {
        let next = i64::from(*from).checked_add(unfold(by))?;
        *from = u32::try_from(next).ok()?;
        Some(*from)
    };
    for _ in 0..bytes.count(OUTPUTS_MAX)? {
        let file = step(&mut file, bytes.number()?)?;
        let length = bytes.number().filter(|length| *length > 0)?;
        let mut sources = Vec::new();
        for _ in 0..bytes.count(SOURCES_MAX)? {
            let file = step(&mut old, bytes.number()?)?;
            let first_leaf = u32::try_from(bytes.number()?).ok()?;
            let leaves = u32::try_from(bytes.number()?).ok().filter(|leaves| *leaves > 0)?;
            first_leaf.checked_add(leaves)?;
            sources.push(Source { file, first_leaf, leaves });
        }
        outputs.push(Output { file, length, sources });
    }
    Some(outputs)
}
