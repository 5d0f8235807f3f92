//! Updates between two real builds: what is fetched and written, and what that took.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use updraft_tests::content;
use updraft_tests::ours::{Install, Place, Product, STATE_FOLDER, wait_complete};

use crate::report::{RUN_WAIT, mib, ratio};

/// Which update.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The build that is installed.
    old: PathBuf,
    /// The build that it is updated to.
    new: PathBuf,
}

/// Publishes both, installs the one, updates to the other, and prints what was counted.
pub(crate) fn run(dir: &Path, args: &Args) {
    let listen = free_port();
    let product = Product::init(&Place::Here, &dir.join("product"), "bench", listen);
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
    let resident = proc.resident_peak();
    proc.interrupt();
    proc.wait_exit(RUN_WAIT);
    content::assert_same(&args.new, &install.dir, &[STATE_FOLDER]);

    let events = proc.json();
    let planned = events.iter().find(|event| event["event"] == "planned");
    let planned = planned.expect("the plan was told");
    let number = |key: &str| planned[key].as_u64().unwrap_or(0);
    let whole = content::total_bytes(&args.new, &[]);
    let fetched = report.peers + report.http;
    let torrents = fs::read_dir(install.dir.join(STATE_FOLDER).join("documents/torrents"));
    let torrent: u64 = torrents
        .map(|entries| entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum())
        .unwrap_or(0);
    println!(
        "{} -> {}: {:.1} MiB, fetched {} + index {} = {:.3} % of it (wasted {}); torrent {}; \
         found {:.1} MiB, to write {:.1} MiB, written {:.1} MiB; {:.1} s, peak {:.1} MiB resident",
        args.old.display(),
        args.new.display(),
        mib(whole),
        fetched,
        number("index_bytes"),
        100.0 * ratio(fetched + number("index_bytes"), whole),
        report.wasted,
        torrent,
        mib(number("found_bytes")),
        mib(number("disk_write_bytes")),
        mib(written),
        report.seconds,
        mib(resident),
    );
    println!("{planned}");
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
