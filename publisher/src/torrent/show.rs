//! `torrent show`

use super::{printable, read};
use crate::Error;
use crate::output::{Output, bytes};
use serde_json::{Value, json};
use std::path::PathBuf;
use updraft_protocol::metainfo::{FileEntry, Metainfo};

/// `torrent show FILE`
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The torrent file
    pub file: PathBuf,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &ShowArgs, output: Output) -> Result<(), Error> {
    let torrent = read(&args.file)?;
    if args.json {
        Output::new(true).tell("torrent", "", fields(&torrent));
    } else {
        output.tell("torrent", text(&torrent), fields(&torrent));
    }
    Ok(())
}

fn kind(torrent: &Metainfo) -> &'static str {
    match (torrent.info.hashes.v1, torrent.info.hashes.v2) {
        (Some(_), Some(_)) => "hybrid",
        (None, Some(_)) => "v2",
        (Some(_), None) | (None, None) => "v1",
    }
}

fn text(torrent: &Metainfo) -> String {
    let (info, shape) = (&torrent.info, &torrent.info.geometry);
    let mut lines = Vec::new();
    let mut line = |key: &str, value: String| lines.push(format!("{key:<13} {value}"));
    line("name", printable(&info.name));
    line("kind", kind(torrent).to_owned() + if info.private { ", private" } else { "" });
    if let Some(hash) = info.hashes.v1 {
        line("info-hash v1", hash.to_string());
    }
    if let Some(hash) = info.hashes.v2 {
        line("info-hash v2", hash.to_string());
    }
    let content = shape.content_len();
    line("size", format!("{} ({content} bytes)", bytes(content)));
    let padding = shape.total() - content;
    if padding > 0 && info.v1_pieces.is_some() {
        line("padding", bytes(padding));
    }
    line("pieces", format!("{} of {}", shape.piece_count(), bytes(shape.piece_length().into())));
    for (number, tier) in (1..).zip(&torrent.trackers) {
        for url in tier {
            line(&format!("tracker {number}"), printable(url));
        }
    }
    for url in &torrent.web_seeds {
        line("web seed", printable(url));
    }
    if let Some(comment) = &torrent.comment {
        line("comment", printable(comment));
    }
    if let Some(created_by) = &torrent.created_by {
        line("created by", printable(created_by));
    }
    if let Some(date) = torrent.creation_date {
        line("created", utc(date));
    }
    line("files", info.files.len().to_string());
    let sizes: Vec<_> = info.files.iter().map(|file| bytes(file.length)).collect();
    let width = sizes.iter().map(String::len).max().unwrap_or(0);
    for (file, size) in info.files.iter().zip(&sizes) {
        lines.push(format!(
            "  {size:>width$}  {} {}",
            if file.executable { "x" } else { " " },
            shown(file)
        ));
    }
    lines.join("\n")
}

fn shown(file: &FileEntry) -> String {
    let path = printable(&file.path.join("/"));
    match &file.symlink {
        Some(target) => format!("{path} -> {}", printable(&target.join("/"))),
        None => path,
    }
}

/// Seconds since 1970 as a date and a time.
fn utc(seconds: i64) -> String {
    // Days to a date of the proleptic Gregorian calendar, counted from March: the leap day comes last.
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days.saturating_add(719_468);
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = era * 400 + year + i64::from(month <= 2);
    let (hours, minutes, seconds) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02} UTC")
}

fn fields(torrent: &Metainfo) -> Value {
    let (info, shape) = (&torrent.info, &torrent.info.geometry);
    let files = info.files.iter().zip(shape.files()).map(|(file, span)| {
        json!({
            "path": file.path,
            "length": file.length,
            "offset": span.offset,
            "executable": file.executable,
            "hidden": file.hidden,
            "symlink": file.symlink,
            "root": file.root.map(|root| root.to_string()),
        })
    });
    json!({
        "name": info.name,
        "kind": kind(torrent),
        "single_file": info.single_file,
        "private": info.private,
        "info_hash_v1": info.hashes.v1.map(|hash| hash.to_string()),
        "info_hash_v2": info.hashes.v2.map(|hash| hash.to_string()),
        "bytes": shape.content_len(),
        "piece_length": shape.piece_length(),
        "pieces": shape.piece_count(),
        "trackers": torrent.trackers,
        "web_seeds": torrent.web_seeds,
        "comment": torrent.comment,
        "created_by": torrent.created_by,
        "creation_date": torrent.creation_date,
        "files": files.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_359_599_503, "2013-01-31 02:31:43 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
        for seconds in [i64::MAX, i64::MIN] {
            assert!(utc(seconds).ends_with("UTC"));
        }
    }
}
