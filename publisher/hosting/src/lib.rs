//! What an origin and the host of a room have in common: answering HTTP requests.
//!
//! [`files`] are those of a repository's layout, by ranges, from a published tree or from an installed game;
//! [`listener`] takes connections within bounds; [`room`] is the page on the organiser's screen, with a row for each
//! machine. What goes in: requests of anybody. What comes out: bytes of files that are public anyway. Nothing here
//! believes, verifies or changes anything.
#![forbid(unsafe_code)]

pub mod files;
pub mod listener;
pub mod room;
