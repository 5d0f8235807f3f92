//! The player's side.
pub mod apply;
pub mod journal;
pub mod tree;
pub mod twin;
pub mod units;
