//! The toolbox for single torrents: `torrent create|show|verify|magnet`. It knows nothing of
//! repositories, keys or manifests.

pub(crate) mod create;
mod progress;
mod show;
mod verify;

pub use create::CreateArgs;
pub use progress::Progress;
pub use show::ShowArgs;
pub use verify::VerifyArgs;

use crate::disk::read_capped;
use crate::{Error, output::Output};
use serde_json::json;
use std::path::{Path, PathBuf};
use updraft_protocol::metainfo::magnet::Magnet;
use updraft_protocol::metainfo::{Metainfo, TORRENT_BYTES_MAX};

/// What to do with a torrent.
#[derive(Debug, clap::Subcommand)]
pub enum TorrentCommand {
    /// Make a torrent of a file or a folder
    Create(CreateArgs),
    /// Show what a torrent says
    Show(ShowArgs),
    /// Compare a torrent with the files it is of
    Verify(VerifyArgs),
    /// Print the magnet link of a torrent
    Magnet(MagnetArgs),
}

/// `torrent magnet FILE`
#[derive(Debug, clap::Args)]
pub struct MagnetArgs {
    /// The torrent file
    pub file: PathBuf,
}

/// Runs one of the commands. Blocks: hashing takes all cores.
///
/// # Errors
/// As the command's; [`Error::Content`] for a torrent that is refused, and for damage that
/// `verify` finds.
pub fn run(command: &TorrentCommand, output: Output) -> Result<(), Error> {
    match command {
        TorrentCommand::Create(args) => create::run(args, output),
        TorrentCommand::Show(args) => show::run(args, output),
        TorrentCommand::Verify(args) => verify::run(args, output),
        TorrentCommand::Magnet(args) => {
            let link = Magnet::of(&read(&args.file)?).to_string();
            output.tell("magnet", &link, json!({ "link": link }));
            Ok(())
        }
    }
}

/// Reads and checks a torrent file.
///
/// # Errors
/// [`Error::Disk`], or [`Error::Content`] with the reason why it was refused.
pub fn read(path: &Path) -> Result<Metainfo, Error> {
    let bytes = read_capped(path, TORRENT_BYTES_MAX)?;
    Metainfo::parse(&bytes)
        .map_err(|error| Error::content(path, format!("not a valid torrent: {error}")))
}

/// Text of strangers for a terminal: nothing in it can move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
