//! Turns a build folder into a signed release, and serves it.
//!
//! [`keys`] changes who may sign, [`channels`] what is offered to whom. [`init`] makes a product's keys and first root. [`publish`] scans a build, refuses what would
//! break a player, makes its torrent and writes contents, torrent, manifest and, last, the head:
//! plain files that any web server can serve. [`serve`] is the origin in one process: those files
//! over HTTP, a tracker, a seed. [`launcher`] publishes the launcher's own programs. [`patches`] makes patches between releases. [`verify`] checks a tree as launchers will, [`seed`] shares any
//! torrent.
//!
//! Goes in: a folder, keys, a configuration. Comes out: the repository, described in
//! `updraft_manifests`. Never: a half-published release, whatever is killed when; a build that is
//! changed or linked to; a signature that launchers would not accept.
#![forbid(unsafe_code)]

pub mod base;
mod batch;
pub mod channels;
pub mod cli;
pub mod disk;
mod error;
pub mod exit;
pub mod head;
pub mod home;
pub mod init;
pub mod key_file;
pub mod keys;
pub mod launcher;
pub mod leaf_index;
pub mod lock;
pub mod objects;
pub mod output;
pub mod packs;
pub mod passphrase;
pub mod patch;
pub mod patches;
pub mod publish;
pub mod repository;
pub mod scan;
pub mod seed;
pub mod serve;
pub mod signers;
mod terminal;
pub mod torrent;
pub mod torrent_deltas;
pub mod verify;
pub mod versions;
pub mod waiting;

pub use error::Error;
