//! Patches: what turns the files of one release into those of another, and applying it.
//!
//! One patch file serves one pair of releases. It has one entry, an *output*, for each file of the new
//! release whose content no old file has; an output copies from ranges of any old files (its
//! *sources*), with differences, and brings the rest along. Outputs are compressed together in
//! *groups*, each a range of the patch file that can be fetched and applied alone.
//!
//! Goes in: the bytes of the file as they arrive, and the old ranges that the caller reads. Comes out:
//! the bytes of the outputs, in order, for the caller to write. Never: files, paths that are opened,
//! trust. What comes out is worth nothing until its `pieces root` was compared; a wrong or damaged
//! patch can waste no more than the bounds named here.
//!
//! # The file
//! | bytes | what |
//! |---|---|
//! | 8 | `UDPATCH` and the version, 1 |
//! | 4 | features, little endian: bits that a reader must know to apply it |
//! | 4 | length of the compressed header, little endian |
//! | … | header: one zstd frame, see [`Patch`] |
//! | … | the groups, one after the other |
//!
//! A group is a row of segments: for each of six streams its bytes compressed and plain, then the
//! compressed bytes of the six; see [`apply_group`]. Numbers are varints of seven bits a byte, the
//! lowest first; signed ones are folded (0, -1, 1, -2…).
//!
//! # Use
//! 1. [`Patch::header_len`] of the first [`PREFIX_LEN`] bytes says how much to fetch for [`Patch::parse`].
//! 2. [`Patch::check`] binds it to the two [`Tree`]s.
//! 3. [`Patch::outputs`] say what each needs: an output is usable when its sources are intact.
//! 4. [`apply_group`] for every group with a wanted output.

mod apply;
mod header;
mod listing;
mod segment;
mod tree;
mod varint;
mod write;

pub use apply::{ApplyError, ReadOld, WriteNew, apply_group};
pub use header::{Group, Output, Patch, PatchError, Source};
pub use listing::{Listing, Put, Shape};
pub use tree::{Tree, TreeFile};
pub use write::{Copy, GroupWriter, equal_len};

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u8 = 1;
/// The first bytes of every patch file.
pub const MAGIC: &[u8; 7] = b"UDPATCH";
/// Bytes before the header.
pub const PREFIX_LEN: usize = 16;
/// Feature: the header has a [`Listing`], so the patch can be applied without a release's metadata.
pub const FEATURE_LISTING: u32 = 1;
/// The features that this code can read.
pub const FEATURES_KNOWN: u32 = FEATURE_LISTING;
/// Sources are counted in leaves of BEP 52: what can be verified alone.
pub const LEAF_LEN: u64 = 16 << 10;

/// The largest header, compressed or not: some hundred thousand outputs.
pub const HEADER_BYTES_MAX: usize = 32 << 20;
/// The most outputs, as the most files of a build.
pub const OUTPUTS_MAX: usize = 1 << 20;
/// The most sources of one output.
pub const SOURCES_MAX: usize = 1 << 16;
/// The most bytes of all streams of a segment, before compression.
pub const SEGMENT_BYTES_MAX: usize = 5 << 20;
/// What applying takes, whatever the sizes: windows of zstd, two segments, buffers.
pub const MEMORY_MAX: u64 = 48 << 20;

#[cfg(test)]
mod tests;
