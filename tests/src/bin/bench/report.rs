//! What the benchmarks share: how long a run may take, units, and content of one kind.

use std::path::Path;
use std::time::Duration;

use updraft_tests::content;
use updraft_tests::ours::Place;
use updraft_tests::process::Proc;

/// How long one measured run may take.
pub(crate) const RUN_WAIT: Duration = Duration::from_secs(600);
const MIB: f64 = 1_048_576.0;

/// Bytes in MiB.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

/// Makes a tree of files with sizes from a quarter to seven quarters of the mean.
pub(crate) fn small_files(path: &Path, files: u64, mean: u64) {
    for index in 0..files {
        let len = mean / 4 + (index * 7919) % (mean * 3 / 2 + 1);
        content::write_file(&path.join(format!("{:03}/{index:05}.bin", index / 100)), index, len);
    }
}

/// How many times the one is the other.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The middle of sorted numbers.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// Makes a torrent with our publisher; `flags` as its command line has them.
pub(crate) fn create_torrent(source: &Path, out: &Path, flags: &[&str]) {
    let _ = std::fs::remove_file(out);
    let mut command = Place::Here.publisher();
    command.args(["torrent", "create"]).arg(source).arg("-o").arg(out).args(flags);
    Proc::start("torrent create", command).finish(RUN_WAIT);
}
