//! The main job on a real build, from an empty folder to three updated installs:
//!
//! publish a build, serve it, install it with three launchers at once; change the build as a release
//! would, publish again, update all three, and kill the origin (kill -9) as soon as one whole copy of
//! the new release is out. Every install is then compared with the build byte for byte.
//!
//! ```text
//! demo [FOLDER] [--work DIR] [--keep]
//! ```
//!
//! Needs no rights, listens on loopback at ports that the system chooses, and removes what it made.
#![allow(clippy::print_stdout)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use updraft_tests::content::{self, Entry};
use updraft_tests::ours::{
    Install, Place, Product, Report, STATE_FOLDER, wait_complete, wait_offered,
};
use updraft_tests::process::Proc;

/// How long one install or update may take.
const JOB_WAIT: Duration = Duration::from_secs(1800);
/// How long a launcher that was told to stop may take.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// Loopback, at a port that the system chooses.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The launchers.
const NAMES: [&str; 3] = ["anna", "ben", "cleo"];

#[derive(Parser)]
#[command(about = "Publishes a build, installs it three times, updates it three times, compares")]
struct Args {
    /// The build to publish; by default the libraries of the machine's Rust toolchain.
    folder: Option<PathBuf>,
    /// Where to work: about six times the size of the build is needed for a while.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Leave everything that was made where it is.
    #[arg(long)]
    keep: bool,
}

/// One line of the final table.
struct Row {
    job: &'static str,
    name: &'static str,
    report: Report,
    difference: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let source = args.folder.unwrap_or_else(default_build);
    let parent = args.work.unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new().prefix("updraft-demo-").tempdir_in(&parent);
    let mut work = match work {
        Ok(work) => work,
        Err(error) => {
            println!(
                "cannot work in {}: {error}; choose another folder with --work",
                parent.display()
            );
            return ExitCode::FAILURE;
        }
    };
    if args.keep {
        work.disable_cleanup(true);
    }
    let rows = run(&source, work.path());
    if args.keep {
        println!("\nEverything is left in {}", work.path().display());
    }
    let wrong = rows.iter().filter(|row| row.difference.is_some()).count();
    println!();
    if wrong > 0 {
        println!("{wrong} of {} installs differ from the build.", rows.len());
        return ExitCode::FAILURE;
    }
    println!("All {} installs are the build, byte for byte.", rows.len());
    ExitCode::SUCCESS
}

/// A real build that is on every machine with Rust.
fn default_build() -> PathBuf {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let output = output.expect("rustc is installed, or name a folder: demo FOLDER");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("lib")
}

fn run(source: &Path, work: &Path) -> Vec<Row> {
    let build = work.join("build");
    println!("Copying {} …", source.display());
    content::copy_tree(source, &build);
    println!(
        "  {} in {} files",
        size(content::total_bytes(&build, &[])),
        content::list(&build, &[]).len()
    );

    let product = Product::init(&Place::Here, &work.join("publisher"), "demo", ANY_PORT);
    publish(&product, &build, "1.0");
    let mut origin = product.serve();
    let feed = product.feed();

    println!("\nInstalling with three launchers at once …");
    let installs = NAMES.map(|name| Install::new(&Place::Here, name, &work.join(name), ANY_PORT));
    let mut rows = Vec::new();
    let running = installs.each_ref().map(|install| install.install(&feed, true));
    for ((name, install), proc) in NAMES.into_iter().zip(&installs).zip(&running) {
        let report = wait_complete(proc, JOB_WAIT);
        rows.push(finished("install 1.0", name, report, &build, install));
    }
    stop(running);

    println!("\nChanging the build …");
    for change in change(&build) {
        println!("  {change}");
    }
    publish(&product, &build, "1.1");
    wait_offered(&origin, "1.1");

    println!("\nUpdating all three; the origin is killed as soon as one has everything …");
    let running = installs.each_ref().map(|install| install.update(true));
    let first = first_complete(&running);
    origin.kill();
    println!("  {} has a whole copy: the origin is gone", NAMES[first]);
    for ((name, install), proc) in NAMES.into_iter().zip(&installs).zip(&running) {
        let report = wait_complete(proc, JOB_WAIT);
        rows.push(finished("update 1.1", name, report, &build, install));
    }
    stop(running);

    println!(
        "\n| job         | launcher |     time |  from peers |   from HTTP |      reused | same as the build |"
    );
    println!(
        "|-------------|----------|---------:|------------:|------------:|------------:|-------------------|"
    );
    for row in &rows {
        println!(
            "| {:11} | {:8} | {:>6.1} s | {:>11} | {:>11} | {:>11} | {:17} |",
            row.job,
            row.name,
            row.report.seconds,
            size(row.report.peers),
            size(row.report.http),
            size(row.report.reused),
            if row.difference.is_none() { "yes, every byte" } else { "NO" }
        );
    }
    for row in &rows {
        if let Some(difference) = &row.difference {
            println!("{} {}: {difference}", row.name, row.job);
        }
    }
    rows
}

fn publish(product: &Product, build: &Path, version: &str) {
    let start = Instant::now();
    product.publish(build, version);
    println!("Published {version} in {:.1} s", start.elapsed().as_secs_f64());
}

fn finished(
    job: &'static str,
    name: &'static str,
    report: Report,
    build: &Path,
    install: &Install,
) -> Row {
    let difference = content::compare(build, &install.dir, &[STATE_FOLDER]).err();
    println!(
        "  {name}: {:.1} s, {}",
        report.seconds,
        if difference.is_none() { "the same bytes" } else { "DIFFERENT" }
    );
    Row { job, name, report, difference }
}

/// The index of the launcher that is complete first.
fn first_complete(running: &[Proc; 3]) -> usize {
    const LOOK_INTERVAL: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + JOB_WAIT;
    loop {
        for (index, proc) in running.iter().enumerate() {
            let complete = |line: &updraft_tests::process::Line| {
                line.text.contains("\"event\":\"complete\"").then_some(())
            };
            match proc.try_wait_for(LOOK_INTERVAL, complete) {
                Ok(()) => return index,
                Err(why) => {
                    let waiting = why.starts_with("not within");
                    assert!(waiting, "{}: {why}{}", proc.name(), proc.tail());
                }
            }
        }
        assert!(Instant::now() < deadline, "no launcher completed the update");
    }
}

/// Ctrl-C, and then waits.
fn stop(running: [Proc; 3]) {
    for mut proc in running {
        #[cfg(unix)]
        proc.interrupt();
        #[cfg(not(unix))]
        proc.kill();
        if proc.try_wait_exit(STOP_WAIT).is_none() {
            println!("  {} did not stop when told and was killed", proc.name());
            proc.kill();
        }
    }
}

/// Changes a build as a release does, and says how: edits and insertions inside the big files, one
/// file replaced, one added, one deleted, one moved.
fn change(build: &Path) -> Vec<String> {
    let mut files: Vec<_> = content::list(build, &[])
        .into_iter()
        .filter_map(
            |(path, entry)| {
                if let Entry::File { len, .. } = entry { Some((len, path)) } else { None }
            },
        )
        .collect();
    files.sort();
    let mut changes = Vec::new();
    let mut biggest = files.iter().rev();
    for (len, path) in biggest.by_ref().take(2).filter(|(len, _)| *len > 0) {
        let count = usize::try_from(len / 20).map_or(65_536, |len| len.clamp(1, 65_536));
        for place in 1..4 {
            let offset = (len * place / 4).min(len - count as u64);
            content::damage(&build.join(path), offset, count, place);
        }
        changes.push(format!("edited    {path} ({}) at three places", size(*len)));
    }
    if let Some((len, path)) = biggest.next() {
        let file = build.join(path);
        let mut bytes = fs::read(&file).expect("the build can be read");
        let middle = bytes.len() / 2;
        bytes.splice(middle..middle, content::noise(7, 1_000));
        fs::write(&file, bytes).expect("the build can be changed");
        changes.push(format!("inserted  1000 bytes into the middle of {path} ({})", size(*len)));
    }
    let mut middling = files.iter().skip(files.len() / 2).filter(|(len, _)| *len > 0);
    if files.len() > 6 {
        if let Some((len, path)) = middling.next() {
            fs::remove_file(build.join(path)).expect("the build can be changed");
            changes.push(format!("deleted   {path} ({})", size(*len)));
        }
        if let Some((len, path)) = middling.next() {
            let target = build.join("moved by the release");
            fs::create_dir_all(&target).expect("the build can be changed");
            fs::rename(build.join(path), target.join("file.bin"))
                .expect("the build can be changed");
            changes.push(format!("moved     {path} ({}) to another folder", size(*len)));
        }
    }
    content::write_file(&build.join("new in this release/data.bin"), 9, 3_000_000);
    changes.push("added     new in this release/data.bin (2.9 MiB)".to_owned());
    changes
}

#[allow(clippy::cast_precision_loss)]
fn size(bytes: u64) -> String {
    let mib = bytes as f64 / 1_048_576.0;
    if bytes < 10_000 { format!("{bytes} B") } else { format!("{mib:.1} MiB") }
}
