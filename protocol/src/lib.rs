//! BitTorrent, twice: a core that decides and a shell that does.
//!
//! The core ([`metainfo`], [`wire`], [`policy`], [`swarm`]) is plain computation: bytes and events
//! go in, bytes and orders come out. It knows no clock, socket, file, task or global randomness, so
//! the code that ships is the code that runs under a simulator with virtual time. The shell ([`io`],
//! feature `io`, on by default) owns the sockets, the files and the tasks, and feeds the core.
//!
//! What goes in: a [`metainfo::Metainfo`] and a map from its files to paths. What comes out: those
//! files, each piece verified before anybody is told of it, and the same bytes for every other peer.
//! What it never does: accept a byte of a v2 torrent on SHA-1 alone, write outside the mapped paths,
//! or trust a peer, a tracker or a web server with more than an answer to check.

pub mod bencode;
pub mod bitfield;
pub mod digest;
pub mod geometry;
pub mod ids;
#[cfg(feature = "io")]
pub mod io;
pub mod merkle;
pub mod metainfo;
pub mod policy;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod swarm;
pub mod wire;
