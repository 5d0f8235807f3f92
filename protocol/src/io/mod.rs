//! The shell around the engine: sockets, files, tasks and the clock.
//!
//! One task ([`engine`]) owns every [`crate::swarm::Swarm`] and everything else that changes. Around
//! it are thin tasks and threads that only carry: one to accept, two for each connection (reading
//! and writing), one for each tracker list, each HTTP range and each link of the local network, and the
//! disk's threads. They talk to
//! the engine over bounded channels; the engine itself never waits for any of them.

mod accept;
pub mod buffers;
pub mod check;
mod connection;
pub mod create;
mod datagrams;
mod dht;
mod documents;
mod engine;
pub mod held;
mod link;
mod lsd;
mod mapping;
pub mod outgoing;
mod parallel;
mod parcels;
mod plain;
mod quic;
mod sealed;
mod session;
mod sockets;
pub mod storage;
mod stream;
#[cfg(test)]
mod tests;
pub mod trackers;
mod utp;
pub mod webseed;

pub use crate::policy::encryption::Encryption;
pub use crate::policy::locality::is_lan;
pub use crate::policy::picker::Priority;
pub use crate::policy::transport::{Preference, Transport};
pub use crate::swarm::{Description, DescriptionError, PeerSummary, UploadPolicy};
pub use documents::{DocumentPart, DocumentStore};
pub use link::{Link, Search};
pub use session::{
    AddTorrent, Have, LocalNetwork, Phase, Rendezvous, SUPPLY_BYTES_MAX, Session, SessionConfig,
    SessionError, Status, Supply, TorrentError, TorrentEvent, TorrentHandle,
};
pub use webseed::{Pack, WebSeed};
