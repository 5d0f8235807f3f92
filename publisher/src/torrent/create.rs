//! `torrent create`

use super::Progress;
use crate::Error;
use crate::disk::{temporary, write_atomic};
use crate::output::{Output, bytes};
use serde_json::json;
use std::path::{Path, PathBuf};
use updraft_protocol::io::create;
use updraft_protocol::metainfo::create::{CreateError, Format, Options};
use url::Url;

/// `torrent create PATH -o FILE`
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// The file or folder to share
    pub path: PathBuf,
    /// Where to write the torrent
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// v1 (BEP 3), v2 (BEP 52), or both in one
    #[arg(long, value_enum, default_value = "hybrid")]
    pub format: FormatArg,
    /// Bytes per piece, a power of two of at least 16KiB, such as 1MiB; chosen by the sizes if left out
    #[arg(long, value_name = "N", value_parser = parse_size)]
    pub piece_length: Option<u32>,
    /// A tracker to announce to; repeat for more, in the order to try them
    #[arg(long = "tracker", value_name = "URL", value_parser = parse_tracker)]
    pub trackers: Vec<String>,
    /// Where the files lie on a web server (BEP 19); repeat for more
    #[arg(long = "web-seed", value_name = "URL", value_parser = parse_web_seed)]
    pub web_seeds: Vec<String>,
    /// Peers only from the trackers (BEP 27)
    #[arg(long)]
    pub private: bool,
}

/// The kinds of torrent.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum FormatArg {
    /// BEP 3
    V1,
    /// BEP 52
    V2,
    /// Both, for all clients
    Hybrid,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::V1 => Self::V1,
            FormatArg::V2 => Self::V2,
            FormatArg::Hybrid => Self::Hybrid,
        }
    }
}

pub(super) fn run(args: &CreateArgs, output: Output) -> Result<(), Error> {
    let target = std::path::absolute(&args.output).map_err(Error::disk("write", &args.output))?;
    check_target(&target, &args.path)?;
    let options = Options {
        format: args.format.into(),
        piece_length: args.piece_length,
        trackers: args.trackers.iter().map(|url| vec![url.clone()]).collect(),
        web_seeds: args.web_seeds.clone(),
        private: args.private,
        created_by: Some(concat!("updraft-publisher ", env!("CARGO_PKG_VERSION")).to_owned()),
        ..Options::default()
    };
    let source = create::scan(&args.path).map_err(failed)?;
    let progress = Progress::new("hashing");
    let torrent = create::create(&source, &options, &|done, total| progress.tell(done, total));
    drop(progress);
    let torrent = torrent.map_err(failed)?;
    drop(source);
    write_atomic(&target, &torrent.encode()).inspect_err(|_| {
        let _ = std::fs::remove_file(temporary(&target));
    })?;

    let info = &torrent.info;
    let shape = &info.geometry;
    let mut text = format!("wrote {}", args.output.display());
    let mut line = |key: &str, value: String| text += &format!("\n  {key:<13} {value}");
    let count = info.files.len();
    let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    line("content", format!("{files}, {}", bytes(shape.content_len())));
    line("pieces", format!("{} of {}", shape.piece_count(), bytes(shape.piece_length().into())));
    if let Some(hash) = info.hashes.v1 {
        line("info-hash v1", hash.to_string());
    }
    if let Some(hash) = info.hashes.v2 {
        line("info-hash v2", hash.to_string());
    }
    let fields = json!({
        "file": args.output,
        "info_hash_v1": info.hashes.v1.map(|hash| hash.to_string()),
        "info_hash_v2": info.hashes.v2.map(|hash| hash.to_string()),
        "files": info.files.len(),
        "bytes": shape.content_len(),
        "pieces": shape.piece_count(),
        "piece_length": shape.piece_length(),
    });
    output.tell("created", text, fields);
    Ok(())
}

/// Finds out before the hashing whether the result can be written, and that it is not part of what
/// is hashed.
fn check_target(target: &Path, content: &Path) -> Result<(), Error> {
    let folder = target.parent().unwrap_or(target);
    let folder = folder.canonicalize().map_err(Error::disk("write into", folder))?;
    if target.is_dir() {
        let shown = target.display();
        return Err(Error::Usage(format!("`{shown}` is a folder: name the torrent file to write")));
    }
    let inside = content.canonicalize().is_ok_and(|content| {
        folder.starts_with(&content) || target.canonicalize().is_ok_and(|target| target == content)
    });
    if inside {
        let shown = target.display();
        return Err(Error::Usage(format!(
            "`{shown}` lies inside the content it would describe: write the torrent somewhere else"
        )));
    }
    Ok(())
}

/// A failed creation as an error of the program.
fn failed(error: CreateError) -> Error {
    match error {
        CreateError::Io { action, path, error } => Error::Disk { action, path, source: error },
        CreateError::Changed { path } => Error::BuildChanged { path },
        CreateError::Unsupported { path, why } => Error::Content { path, why },
        CreateError::PieceLength { .. } | CreateError::Empty { .. } | CreateError::Invalid(_) => {
            Error::Usage(error.to_string())
        }
    }
}

/// A piece length: see [`parse_bytes`].
fn parse_size(text: &str) -> Result<u32, String> {
    let size = parse_bytes(text)?;
    u32::try_from(size).map_err(|_| "this is more than any client accepts".to_owned())
}

/// Bytes, or a number of KiB, MiB or GiB.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("write bytes, or a number with KiB or MiB, such as 256KiB".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "this is not a number of bytes".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "this is more than 64 bits hold".to_owned())
}

fn parse_url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !schemes.contains(&url.scheme()) || !url.has_host() {
        return Err(format!("it must start with one of {}", schemes.join("://, ") + "://"));
    }
    Ok(text.to_owned())
}

fn parse_tracker(text: &str) -> Result<String, String> {
    parse_url(text, &["http", "https", "udp"])
}

fn parse_web_seed(text: &str) -> Result<String, String> {
    parse_url(text, &["http", "https"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text, size: Option<u32>| assert_eq!(parse_size(text).ok(), size, "{text}");
        check("16384", Some(16384));
        check("256KiB", Some(256 << 10));
        check("256 kib", Some(256 << 10));
        check("1M", Some(1 << 20));
        check("", None);
        check("KiB", None);
        check("-1", None);
        check("1.5MiB", None);
        check("4GiB", None);
        check("1KB", None);
        check("99999999999999999999", None);
    }
}
