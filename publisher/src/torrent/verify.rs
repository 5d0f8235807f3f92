//! `torrent verify`

use super::{Progress, printable, read};
use crate::Error;
use crate::output::{Output, bytes};
use serde_json::json;
use std::path::PathBuf;
use updraft_protocol::io::check::{self, CheckError, FileReport, FileState, PieceState};
use updraft_protocol::metainfo::FileEntry;

/// `torrent verify FILE DIR`
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The torrent file
    pub file: PathBuf,
    /// Where the files lie: their folder, or the one above it
    pub dir: PathBuf,
}

pub(super) fn run(args: &VerifyArgs, output: Output) -> Result<(), Error> {
    let torrent = read(&args.file)?;
    let info = &torrent.info;
    std::fs::metadata(&args.dir).map_err(Error::disk("read", &args.dir))?;
    let paths = check::locate(info, &args.dir);
    let progress = Progress::new("checking");
    let report = check::check(info, &paths, &|done, total| progress.tell(done, total));
    drop(progress);
    let report = report.map_err(|CheckError { path, error }| Error::Disk {
        action: "read",
        path,
        source: error,
    })?;

    let damaged: Vec<_> = report.files.iter().filter(|file| !file.is_good()).collect();
    for file in &damaged {
        let entry = &info.files[file.file.get()];
        let (path, problem) = (entry.path.join("/"), problem(entry, file));
        let fields = json!({
            "path": path, "problem": problem,
            "pieces": file.pieces, "bad": file.bad, "missing": file.missing,
        });
        output.tell("damaged", format!("{problem:<40}  {}", printable(&path)), fields);
    }
    let (good, total) = (report.count(PieceState::Good), report.pieces.len());
    let (bad, missing) = (report.count(PieceState::Bad), report.count(PieceState::Missing));
    let files = info.files.len();
    let text = format!(
        "{good} of {total} pieces are right, {bad} wrong, {missing} missing; {} of {files} files are right",
        files - damaged.len()
    );
    let fields = json!({
        "pieces": total, "good": good, "bad": bad, "missing": missing,
        "files": files, "files_damaged": damaged.len(),
    });
    output.tell("verified", text, fields);
    if damaged.is_empty() {
        return Ok(());
    }
    let why = format!("{} of {files} files are not what the torrent says", damaged.len());
    Err(Error::content(&args.dir, why))
}

fn problem(entry: &FileEntry, file: &FileReport) -> String {
    match file.state {
        FileState::Absent => "missing".to_owned(),
        FileState::OtherKind if entry.symlink.is_some() => {
            "not the symlink it should be".to_owned()
        }
        FileState::OtherKind => "not a file".to_owned(),
        FileState::Length(found) => {
            format!(
                "{} instead of {}, {} pieces wrong",
                bytes(found),
                bytes(entry.length),
                file.bad
            )
        }
        FileState::Present => {
            format!("{} of {} pieces wrong", file.bad + file.missing, file.pieces)
        }
    }
}
