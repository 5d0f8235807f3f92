//! The player's side: installs a product, updates it, repairs it, and seeds it from where it lies.
//!
//! What goes in: a feed (who is to be believed, and where to ask first) and a folder. What comes out:
//! that folder holding exactly one signed release, or, at every instant in between, a folder from
//! which the next start reaches one. The way of a release is
//!
//! `feed -[news]-> verified head, manifest, torrent -[survey, plan]-> what is there, what is missing
//! -[transfer]-> verified bytes in slots -[stage, switch, apply]-> renamed into place -> seeding`.
//!
//! What it never does: believe a source, write through a symlink or outside the folder, delete what
//! the player made, upload to the internet without having been told to, or run beside another
//! launcher on the same folder.
//!
//! [`launcher::Launcher`] is the handle; the command line ([`cli`]) is one face over it. [`home`] is where
//! this program itself lies, version beside version.
#![forbid(unsafe_code)]

pub mod apply;
pub mod bundle;
pub mod choice;
pub mod cli;
pub mod documents;
pub mod error;
pub mod events;
pub mod exit;
pub mod feed;
pub mod fetch;
pub mod home;
pub mod http;
pub mod index;
pub mod journal;
pub mod kept;
pub mod launcher;
pub mod leaves;
pub mod links;
pub mod lock;
mod magnet;
pub mod news;
pub mod packs;
pub mod patch;
mod power;
pub mod pristine;
pub mod release;
mod restore;
pub mod reuse;
pub mod room;
pub mod search;
pub mod settings;
pub mod space;
pub mod stage;
pub mod status;
pub mod stop;
pub mod store;
pub mod survey;
pub mod switch;
pub mod transfer;
pub mod tree;
pub mod twin;
pub mod units;
