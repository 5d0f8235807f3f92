//! Creating torrents: one big file, and many small ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use updraft_tests::content;
use updraft_tests::ours::Place;
use updraft_tests::process::{Cost, Proc};

use crate::report::{RUN_WAIT, mib, small_files};

/// The piece length of the one big file.
const BIG_PIECE_BYTES: u64 = 1 << 20;
/// libtorrent's piece length for the small files.
const SMALL_PIECE_BYTES: u64 = 256 << 10;

/// What to create.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of the big file (0: leave it out).
    #[arg(long, default_value_t = 4 << 30)]
    file_bytes: u64,
    /// Number of small files (0: leave them out).
    #[arg(long, default_value_t = 20_000)]
    files: u64,
    /// Bytes of the small files together.
    #[arg(long, default_value_t = 1 << 30)]
    files_bytes: u64,
}

/// Measures both kinds of content.
pub(crate) fn run(dir: &Path, rounds: u32, args: Args) {
    let Args { file_bytes, files, files_bytes } = args;
    let creator = creator(dir);
    if file_bytes > 0 {
        let path = dir.join("big.pak");
        content::write_file(&path, 1, file_bytes);
        let title = format!("one file of {:.0} MiB, pieces of 1 MiB", mib(file_bytes));
        create_table(&title, &creator, &path, rounds, Some(BIG_PIECE_BYTES), BIG_PIECE_BYTES);
        fs::remove_file(path).expect("the file can be removed");
    }
    if let Some(mean) = files_bytes.checked_div(files) {
        let path = dir.join("small");
        small_files(&path, files, mean);
        let title = format!(
            "{files} files, {:.0} MiB together; libtorrent with pieces of 256 KiB, ours as it chooses",
            mib(content::total_bytes(&path, &[]))
        );
        create_table(&title, &creator, &path, rounds, None, SMALL_PIECE_BYTES);
    }
}

/// Compiles the C++ creator once.
fn creator(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/create_torrent.cpp");
    let program = dir.join("create_torrent");
    let flags =
        Command::new("pkg-config").args(["--cflags", "--libs", "libtorrent-rasterbar"]).output();
    let flags = flags.expect("pkg-config runs (tests/run bench installs it)");
    assert!(flags.status.success(), "libtorrent-rasterbar-dev is missing: run `tests/run bench`");
    let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
    let mut compiler = Command::new("g++");
    compiler
        .args(["-O2", "-std=c++17"])
        .arg(source)
        .arg("-o")
        .arg(&program)
        .args(flags.split_whitespace());
    assert!(compiler.status().expect("g++ runs").success(), "the creator did not compile");
    program
}

fn create_table(
    title: &str,
    creator: &Path,
    path: &Path,
    rounds: u32,
    piece: Option<u64>,
    their_piece: u64,
) {
    println!("\n## Creating a torrent: {title}\n");
    println!(
        "| format | ours s | CPU s | peak MiB | libtorrent s | CPU s | peak MiB | ours / libtorrent |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let out = path.with_extension("torrent");
    for format in ["v1", "v2", "hybrid"] {
        let ours = best(rounds, || {
            let mut command = Place::Here.publisher();
            command
                .args(["torrent", "create"])
                .arg(path)
                .arg("-o")
                .arg(&out)
                .args(["--format", format]);
            if let Some(piece) = piece {
                command.args(["--piece-length", &piece.to_string()]);
            }
            let _ = fs::remove_file(&out);
            Proc::start("ours", command).cost(RUN_WAIT)
        });
        let theirs = best(rounds, || {
            let mut command = Command::new(creator);
            command.arg(path).arg(&out).args([format, &their_piece.to_string(), "2"]);
            Proc::start("libtorrent", command).cost(RUN_WAIT)
        });
        println!(
            "| {format} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} | {:.0} | {:.2} |",
            ours.seconds,
            ours.cpu_seconds,
            mib(ours.resident_peak),
            theirs.seconds,
            theirs.cpu_seconds,
            mib(theirs.resident_peak),
            ours.seconds / theirs.seconds
        );
    }
}

/// The run that was fastest.
fn best(rounds: u32, mut run: impl FnMut() -> Cost) -> Cost {
    let costs = (0..rounds.max(1)).map(|_| run());
    costs.min_by(|a, b| a.seconds.total_cmp(&b.seconds)).expect("there is at least one round")
}
