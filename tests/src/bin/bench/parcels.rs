//! First installs from a player alone, beyond the LAN: what compression leaves on the wire, and what it costs
//! the player who sends, beside one archive of everything.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use updraft_tests::clients::PEER_PORT;
use updraft_tests::content;
use updraft_tests::lab::Lab;
use updraft_tests::ours::{self, Place};

use crate::report::{RUN_WAIT, mib};

/// The builds.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Their folders.
    #[arg(required = true)]
    builds: Vec<PathBuf>,
    /// The sender's uplink in Mbit/s.
    #[arg(long, default_value_t = 50)]
    rate: u64,
}

/// One after the other.
pub(crate) fn run(dir: &Path, args: &Args) {
    println!("\n## First installs from one player, uplink {} Mbit/s\n", args.rate);
    println!(
        "| build | MiB | tar.zst -19 MiB | on the wire MiB | ratio | s | sender's CPU s | receiver's |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for build in &args.builds {
        let name = build.parent().and_then(Path::file_name).unwrap_or_default();
        let torrent = dir.join("parcels.torrent");
        ours::create_torrent(build, &torrent, "hybrid", &[]);
        let lab = Lab::new();
        let (from, to) = (lab.slow_node(&format!("{}mbit", args.rate)), lab.node());
        let listen = from.wide_addr(PEER_PORT);
        let folder = build.parent().expect("a build lies in a folder");
        let seed = ours::seed(&Place::from(&from), &torrent, folder, listen);
        ours::wait_seeding(&seed, RUN_WAIT);
        let (before, cpu) = (from.bytes_sent(), seed.cpu_seconds());
        let into = dir.join("into");
        let place = Place::from(&to);
        let mut fetch =
            ours::fetch(&place, &torrent, &into, to.wide_addr(PEER_PORT), &[listen], false);
        let cost = fetch.cost(RUN_WAIT);
        let (wire, cpu) = (from.bytes_sent() - before, seed.cpu_seconds() - cpu);
        content::assert_same_contents(
            build,
            &into.join(build.file_name().expect("a build has a name")),
            &[],
        );
        let _ = std::fs::remove_dir_all(&into);
        let archive = archived(build);
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.2} | {:.1} | {cpu:.1} | {:.1} |",
            name.to_string_lossy(),
            mib(content::total_bytes(build, &[])),
            mib(archive),
            mib(wire),
            wire as f64 / archive as f64,
            cost.seconds,
            cost.cpu_seconds
        );
    }
}

/// Bytes of the build as a tar archive, compressed as well as zstd does in reasonable time.
fn archived(build: &Path) -> u64 {
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(build)
        .args(["--sort=name", "-cf", "-", "."])
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar is installed");
    let mut bytes = tar.stdout.take().expect("its output is a pipe");
    let mut count = Count(0);
    zstd::stream::copy_encode(&mut bytes, &mut count, 19).expect("an archive can be compressed");
    assert!(tar.wait().is_ok_and(|status| status.success()), "tar works");
    count.0
}

struct Count(u64);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
