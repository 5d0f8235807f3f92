//! Measures our torrent creation and our transfer beside libtorrent's, in the same run on the same
//! machine, and prints tables with ratios.
//!
//! ```text
//! bench create [--file-bytes N] [--files N] [--files-bytes N] [--rounds N]
//! bench pair   [--bytes N] [--rounds N]
//! ```
//!
//! `pair` needs root (network namespaces). Both need what `tests/run bench` installs. The defaults
//! are the sizes that the figures of the project are quoted for; machines are noisy, so quote ratios.
#![allow(clippy::print_stdout)]

fn main() {
    #[cfg(target_os = "linux")]
    bench::main();
    #[cfg(not(target_os = "linux"))]
    println!("the benchmark runs on Linux, beside libtorrent");
}

#[cfg(target_os = "linux")]
mod bench {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::{Duration, Instant};

    use clap::{Parser, Subcommand};
    use serde_json::json;
    use updraft_tests::clients::{Client, Libtorrent, PEER_PORT};
    use updraft_tests::content;
    use updraft_tests::lab::Lab;
    use updraft_tests::ours::{self, Place};
    use updraft_tests::process::{Cost, Proc};

    /// How long one measured run may take.
    const RUN_WAIT: Duration = Duration::from_secs(600);
    /// The piece length of the one big file.
    const BIG_PIECE_BYTES: u64 = 1 << 20;
    /// libtorrent's piece length for the small files.
    const SMALL_PIECE_BYTES: u64 = 256 << 10;
    const MIB: f64 = 1_048_576.0;

    #[derive(Parser)]
    #[command(about = "Measures Updraft beside libtorrent")]
    struct Args {
        #[command(subcommand)]
        what: What,
        /// Where the data lies; memory by default.
        #[arg(long, global = true, default_value = "/dev/shm")]
        dir: PathBuf,
        /// Runs of each kind; the fastest counts.
        #[arg(long, global = true, default_value_t = 2)]
        rounds: u32,
    }

    #[derive(Subcommand)]
    enum What {
        /// Creating torrents: one big file, and many small ones.
        Create {
            /// Bytes of the big file (0: leave it out).
            #[arg(long, default_value_t = 4 << 30)]
            file_bytes: u64,
            /// Number of small files (0: leave them out).
            #[arg(long, default_value_t = 20_000)]
            files: u64,
            /// Bytes of the small files together.
            #[arg(long, default_value_t = 1 << 30)]
            files_bytes: u64,
        },
        /// One seed, one leech, a link without limits.
        Pair {
            /// Bytes of the file.
            #[arg(long, default_value_t = 1 << 30)]
            bytes: u64,
        },
    }

    pub(crate) fn main() {
        let args = Args::parse();
        let dir = tempfile::Builder::new().prefix("updraft-bench-").tempdir_in(&args.dir);
        let dir = dir.expect("a folder for the data can be made");
        match args.what {
            What::Create { file_bytes, files, files_bytes } => {
                create(dir.path(), args.rounds, file_bytes, files, files_bytes);
            }
            What::Pair { bytes } => pair(dir.path(), args.rounds, bytes),
        }
    }

    /// The run that was fastest.
    fn best(rounds: u32, mut run: impl FnMut() -> Cost) -> Cost {
        let costs = (0..rounds.max(1)).map(|_| run());
        costs.min_by(|a, b| a.seconds.total_cmp(&b.seconds)).expect("there is at least one round")
    }

    #[allow(clippy::cast_precision_loss)]
    fn mib(bytes: u64) -> f64 {
        bytes as f64 / MIB
    }

    // ---- creation -------------------------------------------------------------------------------

    /// Compiles the C++ creator once.
    fn creator(dir: &Path) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/create_torrent.cpp");
        let program = dir.join("create_torrent");
        let flags = Command::new("pkg-config")
            .args(["--cflags", "--libs", "libtorrent-rasterbar"])
            .output();
        let flags = flags.expect("pkg-config runs (tests/run bench installs it)");
        assert!(
            flags.status.success(),
            "libtorrent-rasterbar-dev is missing: run `tests/run bench`"
        );
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

    fn create(dir: &Path, rounds: u32, file_bytes: u64, files: u64, files_bytes: u64) {
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
            for index in 0..files {
                // Sizes from a quarter to seven quarters of the mean.
                let len = mean / 4 + (index * 7919) % (mean * 3 / 2 + 1);
                content::write_file(
                    &path.join(format!("{:03}/{index:05}.bin", index / 100)),
                    index,
                    len,
                );
            }
            let title = format!(
                "{files} files, {:.0} MiB together; libtorrent with pieces of 256 KiB, ours as it chooses",
                mib(content::total_bytes(&path, &[]))
            );
            create_table(&title, &creator, &path, rounds, None, SMALL_PIECE_BYTES);
        }
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

    // ---- transfer -------------------------------------------------------------------------------

    /// What one transfer cost both ends.
    #[derive(Clone, Copy)]
    struct Transfer {
        seconds: f64,
        seed_cpu: f64,
        leech_cpu: f64,
        seed_peak: u64,
        leech_peak: u64,
    }

    fn pair(dir: &Path, rounds: u32, bytes: u64) {
        let source = dir.join("source/data.bin");
        content::write_file(&source, 1, bytes);
        println!("\n## One seed, one leech: {:.0} MiB over a veth pair\n", mib(bytes));
        println!(
            "| format | engine | MiB/s | CPU s/GiB both | seed | leech | seed peak MiB | leech peak MiB |"
        );
        println!("|---|---|---:|---:|---:|---:|---:|---:|");
        let tuned = json!({
            "enable_outgoing_utp": false, "enable_incoming_utp": false, "hashing_threads": 2,
            "max_out_request_queue": 1500, "send_buffer_watermark": 5 << 20,
        });
        let tcp = json!({"enable_outgoing_utp": false, "enable_incoming_utp": false});
        for format in ["v1", "v2", "hybrid"] {
            let torrent = dir.join(format!("{format}.torrent"));
            ours::create_torrent(&source, &torrent, format, &[]);
            let fastest = |rounds: u32, run: &dyn Fn() -> Transfer| {
                let runs = (0..rounds.max(1)).map(|_| run());
                runs.min_by(|a, b| a.seconds.total_cmp(&b.seconds))
                    .expect("there is at least one round")
            };
            let ours = fastest(rounds, &|| our_transfer(dir, &source, &torrent));
            row(format, "Updraft", bytes, ours);
            let mut ratios = Vec::new();
            for (name, settings) in [
                ("libtorrent, as it comes (uTP)", json!({})),
                ("libtorrent, TCP", tcp.clone()),
                ("libtorrent, TCP, tuned", tuned.clone()),
            ] {
                // uTP is ten times slower: one run tells enough.
                let runs = if settings == json!({}) { 1 } else { rounds };
                let theirs = fastest(runs, &|| their_transfer(dir, &source, &torrent, &settings));
                row(format, name, bytes, theirs);
                let cpu = (ours.seed_cpu + ours.leech_cpu) / (theirs.seed_cpu + theirs.leech_cpu);
                ratios.push(format!(
                    "{name}: speed x {:.2}, CPU x {cpu:.2}",
                    theirs.seconds / ours.seconds
                ));
            }
            println!("| {format} | ours against {} | | | | | | |", ratios.join("; "));
        }
    }

    fn row(format: &str, engine: &str, bytes: u64, run: Transfer) {
        let gib = mib(bytes) / 1024.0;
        println!(
            "| {format} | {engine} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
            mib(bytes) / run.seconds,
            (run.seed_cpu + run.leech_cpu) / gib,
            run.seed_cpu / gib,
            run.leech_cpu / gib,
            mib(run.seed_peak),
            mib(run.leech_peak)
        );
    }

    fn fresh(dir: &Path) -> PathBuf {
        let into = dir.join("into");
        let _ = fs::remove_dir_all(&into);
        fs::create_dir_all(&into).expect("the folder can be made");
        into
    }

    fn our_transfer(dir: &Path, source: &Path, torrent: &Path) -> Transfer {
        let lab = Lab::new();
        let (a, b) = (lab.node(), lab.node());
        let folder = source.parent().expect("the file lies in a folder");
        let seed = ours::seed(&Place::from(&a), torrent, folder, a.addr(PEER_PORT));
        ours::wait_seeding(&seed, RUN_WAIT);
        let before = seed.cpu_seconds();
        let into = fresh(dir);
        let mut fetch = ours::fetch(
            &Place::from(&b),
            torrent,
            &into,
            b.addr(PEER_PORT),
            &[a.addr(PEER_PORT)],
            false,
        );
        let cost = fetch.cost(RUN_WAIT);
        let seed_cpu = seed.cpu_seconds() - before;
        content::assert_same(folder, &into, &[ours::FETCH_FOLDER]);
        Transfer {
            seconds: cost.seconds,
            seed_cpu,
            leech_cpu: cost.cpu_seconds,
            seed_peak: seed.resident_peak(),
            leech_peak: cost.resident_peak,
        }
    }

    fn their_transfer(
        dir: &Path,
        source: &Path,
        torrent: &Path,
        settings: &serde_json::Value,
    ) -> Transfer {
        let lab = Lab::new();
        let (a, b) = (lab.node(), lab.node());
        let folder = source.parent().expect("the file lies in a folder");
        let mut seed = Libtorrent::start_with(&a, settings);
        seed.seed(torrent, folder);
        let mut leech = Libtorrent::start_with(&b, settings);
        let before = (seed.proc.cpu_seconds(), leech.proc.cpu_seconds());
        let into = fresh(dir);
        let start = Instant::now();
        leech.add(torrent, &into, &[a.addr(PEER_PORT)]);
        leech.wait_finished(torrent, RUN_WAIT);
        let seconds = start.elapsed().as_secs_f64();
        Transfer {
            seconds,
            seed_cpu: seed.proc.cpu_seconds() - before.0,
            leech_cpu: leech.proc.cpu_seconds() - before.1,
            seed_peak: seed.proc.resident_peak(),
            leech_peak: leech.proc.resident_peak(),
        }
    }
}
