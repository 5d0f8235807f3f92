//! Torrents from lists of files: a [`Plan`] lays them out, somebody hashes the pieces (the shell does,
//! on all cores: `io::create`), and [`Plan::finish`] writes them down.
//!
//! The same input gives the same bytes, on every system: files in the order of the BEP 52 tree,
//! nothing of the clock unless asked for. What comes out is what [`Info::parse`](super::Info::parse)
//! makes of its bytes; what that would refuse is refused here, before the hashing.

mod encode;
mod layout;
mod plan;
mod rules;
#[cfg(test)]
mod tests;

pub use layout::{INFO_BYTES_AIM, PADDING_PERCENT_MAX, choose_piece_length, padding};
pub use plan::Plan;

use super::MetainfoError;
use std::path::PathBuf;

/// Which kind of torrent to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// BEP 3 only.
    V1,
    /// BEP 52 only.
    V2,
    /// Both in one info dictionary: every client can join.
    #[default]
    Hybrid,
}

impl Format {
    /// True if there is v1 metadata.
    pub fn has_v1(self) -> bool {
        matches!(self, Self::V1 | Self::Hybrid)
    }

    /// True if there is v2 metadata.
    pub fn has_v2(self) -> bool {
        matches!(self, Self::V2 | Self::Hybrid)
    }
}

/// What else to write down.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kind.
    pub format: Format,
    /// Bytes per piece: a power of two of at least 16 KiB. `None` chooses by the files' sizes.
    pub piece_length: Option<u32>,
    /// Trackers in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// BEP 19 web seeds.
    pub web_seeds: Vec<String>,
    /// BEP 27: peers only from the trackers.
    pub private: bool,
    /// Free text.
    pub comment: Option<String>,
    /// The program that makes it.
    pub created_by: Option<String>,
    /// Seconds since 1970; `None` (the default) keeps the result reproducible.
    pub creation_date: Option<i64>,
}

/// What a torrent is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The torrent's name: the folder's, or the file's.
    pub name: String,
    /// True if it is one file and `name` is its name.
    pub single_file: bool,
    /// The files, in any order; paths unique.
    pub files: Vec<SourceFile>,
}

/// One file, or symlink, to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Components below the torrent's folder (for a single file: its name alone).
    pub path: Vec<String>,
    /// Where it lies now.
    pub source: PathBuf,
    /// Bytes; 0 for a symlink.
    pub length: u64,
    /// BEP 47 attribute `x`.
    pub executable: bool,
    /// The target's components, from the torrent's folder.
    pub symlink: Option<Vec<String>>,
}

/// Why no torrent was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A file or folder cannot be read.
    #[error("cannot {action} `{}`: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file was written to, cut or replaced.
    #[error("`{}` changed while it was being hashed; try again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Something that no torrent can hold.
    #[error("`{}` cannot be part of a torrent: {why}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A piece length that the format does not allow.
    #[error("a piece length of {length} bytes is not possible: {why}")]
    PieceLength {
        /// As asked for.
        length: u32,
        /// What is wrong.
        why: &'static str,
    },
    /// There is nothing to share.
    #[error("`{name}` holds no bytes: a torrent needs at least one file that is not empty")]
    Empty {
        /// The folder or file.
        name: String,
    },
    /// The result breaks a rule of [`Info::parse`](super::Info::parse).
    #[error("the torrent would not be valid: {0}")]
    Invalid(#[from] MetainfoError),
}
