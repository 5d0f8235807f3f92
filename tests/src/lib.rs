//! The ground that the end-to-end suites stand on.
//!
//! A [`lab::Lab`] is a network of namespaces in which [`process::Proc`]esses run: our two programs as
//! a user would start them ([`ours`]), other people's BitTorrent clients, trackers and web servers
//! ([`clients`]), peers and servers that misbehave on purpose ([`hostile`]) or only watch ([`watcher`]), and [`disk`]s that fail. [`content`] makes
//! builds from seeds and compares folders byte for byte. Nothing here sleeps where an event can be
//! awaited, nothing uses a fixed folder, and nothing outlives its test.
#![forbid(unsafe_code)]

pub mod content;
pub mod http;
pub mod ours;
pub mod process;

#[cfg(target_os = "linux")]
pub mod clients;
#[cfg(target_os = "linux")]
pub mod disk;
#[cfg(target_os = "linux")]
pub mod hostile;
#[cfg(target_os = "linux")]
pub mod lab;
#[cfg(target_os = "linux")]
pub mod terminal;
#[cfg(target_os = "linux")]
pub mod watcher;
