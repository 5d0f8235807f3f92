//! What a release is, and when to believe it. Pure values: no files, no network, no async, no clock.
//!
//! A publisher turns facts about a build into a [`manifest::Manifest`], signs it into a
//! [`document::Signed`] and names it in a [`head::Head`]. A launcher is told one [`feed::Feed`] and
//! walks from there: roots, head, manifest, each step a pure function of [`trust::TrustState`] that
//! returns the next state to store and a [`document::Verified`] value. Only a `Verified` value holds
//! content that somebody trusted has signed; there is no other way to make one.
//!
//! Goes in: bytes as they were served, the time as a number, random bytes for new keys. Comes out:
//! verified values, the text of documents, and the [`plan::Plan`] of an update. Never: a panic on
//! hostile input, a floor that sinks, a path that leaves the install folder.
//!
//! ```
//! use updraft_manifests::path::RelPath;
//! assert!(RelPath::parse("data/levels/one.pak").is_ok());
//! assert!(RelPath::parse("../../etc/passwd").is_err());
//! ```
#![forbid(unsafe_code)]

pub mod batches;
pub mod cost;
pub mod current;
pub mod document;
pub mod feed;
pub mod hash;
pub mod head;
pub mod installed;
pub mod keys;
pub mod launcher;
pub mod leaf_index;
pub mod manifest;
pub mod names;
pub mod packs;
pub mod patch;
pub mod patchlist;
pub mod path;
pub mod places;
pub mod plan;
pub mod reuse;
pub mod rolling;
pub mod rollout;
pub mod root;
pub mod rules;
pub mod sealed;
pub mod time;
pub mod torrent_delta;
pub mod trust;

#[cfg(test)]
mod testing;
