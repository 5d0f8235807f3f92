//! Patches: making them, and applying them as a launcher would.
//!
//! [`make`] takes the two sides of an update and writes a patch file in the format of
//! [`updraft_manifests::patch`]. What is new is matched with what is old and has no equal on the new side,
//! in two passes: a coarse index of blocks finds what moved or stayed, then a fine one, over what that left
//! of the old bytes, finds the rest ([`seeds`]). Between them the old files that stay as they are are read
//! once, for parts of them that turn up in what is left of the new bytes ([`staying`]). Matches are
//! stretched over differences ([`stretch`]), those that cost more than they save are dropped, and the
//! outputs are written and compressed in groups on all cores ([`groups`]).
//!
//! Same sides, same bytes, whatever the number of cores. Memory is bounded: what does not fit is matched
//! in parts ([`parts`]), which finds less, and compressed from files.

mod apply;
mod command;
mod folder;
mod groups;
mod index;
mod make;
mod parallel;
mod parts;
mod seeds;
mod side;
mod staying;
mod stretch;

pub use apply::{Applied, compare, open};
pub use command::{ApplyArgs, CreateArgs, PatchCommand, ShowArgs, run};
pub use groups::Draft;
pub use make::{ListChanges, Made, Options, make};
pub use side::Side;

#[cfg(test)]
pub(crate) mod tests;
