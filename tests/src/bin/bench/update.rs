//! Updates between two real builds: what is fetched and written, with a patch and without, and what that
//! took. `zstd --patch-from` over archives of both, where it is installed, is the measure beside it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use updraft_tests::content;
use updraft_tests::ours::{Install, Place, Product, STATE_FOLDER, wait_complete};
use updraft_tests::process::Proc;

use crate::gaps::gaps;
use crate::report::{RUN_WAIT, mib, ratio};

/// Which update.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The build that is installed.
    old: PathBuf,
    /// The build that it is updated to.
    new: PathBuf,
}

/// Prints a row of a table, and what each update planned.
pub(crate) fn run(dir: &Path, args: &Args) {
    let whole = content::total_bytes(&args.new, &[]);
    let percent = |bytes: u64| format!("{:.3} %", 100.0 * ratio(bytes, whole));
    let (size, making) = make_patch(dir, args);
    let with = update(dir, args, 3);
    let without = update(dir, args, 0);
    let gaps = gaps(&args.old, &args.new);
    let rival = zstd(dir, args).map_or_else(|| "–".to_owned(), percent);
    println!(
        "| new build | patch | made in | fetched with it | applied in | without a patch | of it gaps, compressed | \
         index | zstd --patch-from -3 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    println!(
        "| {}, {:.1} MiB | {} | {:.1} CPU s, {:.0} MiB | {} | {:.1} s | {} | {} | {} | {rival} |",
        args.new.display(),
        mib(whole),
        percent(size),
        making.cpu_seconds,
        mib(making.resident_peak),
        percent(with.fetched),
        with.seconds,
        percent(without.fetched),
        percent(gaps.compressed),
        percent(gaps.index),
    );
    println!("{} bytes of leaves that no old file has; {:?}, then {:?}", gaps.raw, with, without);
}

/// Makes the patch between the folders; returns its bytes and what that took.
fn make_patch(dir: &Path, args: &Args) -> (u64, updraft_tests::process::Cost) {
    let out = dir.join("patch");
    let mut command = Place::Here.publisher();
    command.args(["patch", "create"]).args([&args.old, &args.new]).arg("-o").arg(&out);
    let cost = Proc::start("patch create", command).cost(RUN_WAIT);
    let size = fs::metadata(&out).expect("the patch was made").len();
    (size, cost)
}

/// What an update took.
#[derive(Debug)]
#[allow(dead_code)] // They are printed.
struct Update {
    /// Payload, index and patch.
    fetched: u64,
    wasted: u64,
    index: u64,
    patch: u64,
    found: u64,
    /// Head, manifest, torrent and lists, as they came.
    metadata: u64,
    to_write: u64,
    /// By the kernel's count.
    written: u64,
    seconds: f64,
    resident_peak: u64,
}

/// Publishes both, installs the one, and updates to the other.
fn update(dir: &Path, args: &Args, patches: u8) -> Update {
    let dir = dir.join(format!("patches-{patches}"));
    let listen = free_port();
    let product = Product::init(&Place::Here, &dir.join("product"), "bench", listen);
    product.configure("patches", &patches.to_string());
    product.publish(&args.old, "1");
    let mut origin = product.serve();
    let mut install =
        Install::new(&Place::Here, "player", &dir.join("install"), SocketAddr::new(listen.ip(), 0));
    let mut proc = install.install(product.feed(), false);
    wait_complete(&proc, RUN_WAIT);
    proc.finish(RUN_WAIT);
    origin.kill();
    product.publish(&args.new, "2");
    let _origin = product.serve();

    install.flags = vec!["--explain".into()];
    let mut proc = install.update(true);
    let report = wait_complete(&proc, RUN_WAIT);
    let written = disk_written(proc.pid());
    let resident_peak = proc.resident_peak();
    proc.interrupt();
    proc.wait_exit(RUN_WAIT);
    content::assert_same(&args.new, &install.dir, &[STATE_FOLDER]);

    let events = proc.json();
    let planned = events.iter().find(|event| event["event"] == "planned");
    let planned = planned.expect("the plan was told");
    let number = |key: &str| planned[key].as_u64().unwrap_or(0);
    let update = Update {
        fetched: report.peers + report.http + number("index_bytes"),
        wasted: report.wasted,
        index: number("index_bytes"),
        patch: number("patch_bytes"),
        found: number("found_bytes"),
        metadata: number("metadata_bytes"),
        to_write: number("disk_write_bytes"),
        written,
        seconds: report.seconds,
        resident_peak,
    };
    fs::remove_dir_all(&dir).expect("what was made can be removed");
    update
}

/// Bytes of `zstd --patch-from` between archives of the two, if `zstd` and `tar` are installed.
fn zstd(dir: &Path, args: &Args) -> Option<u64> {
    let archive = |folder: &Path, name: &str| {
        let path = dir.join(name);
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--mtime=@0", "-cf"]).arg(&path);
        let done = tar.arg("-C").arg(folder).arg(".").status().ok()?.success();
        done.then_some(path)
    };
    let (old, new) = (archive(&args.old, "old.tar")?, archive(&args.new, "new.tar")?);
    let out = dir.join("zstd");
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "-f", "-3", "--long=31", "--patch-from"])
        .arg(&old)
        .arg(&new)
        .arg("-o")
        .arg(&out);
    let done = zstd.status().ok()?.success();
    let size = fs::metadata(&out).ok()?.len();
    for path in [old, new, out] {
        fs::remove_file(path).ok()?;
    }
    done.then_some(size)
}

/// A port of this machine that nobody uses; the one above it most likely neither.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it is bound")
}

/// Bytes that a process had written to disks, as the kernel counts them.
fn disk_written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}
