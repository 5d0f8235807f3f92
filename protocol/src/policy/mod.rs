//! Decisions, as plain data in and plain data out: what to request, whom to unchoke, whom to dial,
//! when HTTP is needed, how fast to go. No clock, no socket, no peer in here: time and chance are
//! arguments, so each decision is tested on its own and simulated by the thousand.

pub mod background;
pub mod bans;
pub mod choker;
pub mod dialer;
pub mod encryption;
pub mod endgame;
pub mod http;
pub mod limiter;
pub mod local_announce;
pub mod locality;
pub mod packing;
pub mod picker;
pub mod rate;
pub mod spread;
pub mod transport;
pub mod window;
