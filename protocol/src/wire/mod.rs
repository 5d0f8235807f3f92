//! Bytes on the wire to values and back: the handshake, the messages, the extensions, and what is
//! said to trackers. Nothing here decides anything, and nothing here trusts a length it was told.

pub mod documents;
pub mod extension;
pub mod handshake;
pub mod holepunch;
pub mod lsd;
pub mod message;
pub mod mse;
pub mod parcel;
pub mod pex;
pub mod tracker;
pub mod udp_tracker;
