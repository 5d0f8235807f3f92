//! Measures our torrent creation and our transfer beside other clients, in the same run on the same
//! machine, and prints tables with ratios.
//!
//! ```text
//! bench create [--file-bytes N] [--files N] [--files-bytes N]
//! bench pair   [--bytes N] [--dir FOLDER]      a folder on a disk for a pair on disk
//! bench small  [--files N] [--bytes N]
//! bench flash  [--leechers N] [--seed-up MBIT] [--peer-up MBIT] [--with ENGINE,...] [--mixed] [--http]
//! bench many   [--leechers N] [--bytes N] [--with ENGINE,...]
//! bench webseed [--bytes N] [--rate MBIT]
//! bench first  [--files N] [--bytes N] [--rate MBIT]
//! bench delay  [--rate-mib N] [--delay-ms N]
//! bench parcels BUILD... [--rate MBIT]      builds, each fetched from a player
//! bench background [--rate MBIT] [--seconds N] [--queue-ms N]
//! bench lan    [--launchers N] [--uplink MBIT] [--link MBIT]
//! bench idle   [--torrents N] [--bytes N] [--seconds N]
//! bench memory [--bytes N] [--format F] [--leechers N] [--dir FOLDER]      a folder with that much space
//! bench search [--bytes N] [--windows N]
//! bench update OLD NEW --dir FOLDER      two builds, a folder on a disk with four times their space
//! ```
//!
//! All but `create`, `search` and `update` need root (network namespaces), and what `tests/run bench` installs. The defaults
//! are the sizes that the figures of the project are quoted for; machines are noisy, so quote ratios.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

#[cfg(target_os = "linux")]
mod background;
#[cfg(target_os = "linux")]
mod capture;
#[cfg(target_os = "linux")]
mod create;
#[cfg(target_os = "linux")]
mod delay;
#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
mod first;
#[cfg(target_os = "linux")]
mod flash;
#[cfg(target_os = "linux")]
mod gaps;
#[cfg(target_os = "linux")]
mod idle;
#[cfg(target_os = "linux")]
mod lan;
#[cfg(target_os = "linux")]
mod many;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod pair;
#[cfg(target_os = "linux")]
mod parcels;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod search;
#[cfg(target_os = "linux")]
mod swarm;
#[cfg(target_os = "linux")]
mod transfer;
#[cfg(target_os = "linux")]
mod update;
#[cfg(target_os = "linux")]
mod webseed;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the benchmark runs on Linux, beside libtorrent");
}

#[cfg(target_os = "linux")]
#[derive(clap::Parser)]
#[command(about = "Measures Updraft beside other clients")]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Where the data lies; memory by default.
    #[arg(long, global = true, default_value = "/dev/shm")]
    dir: std::path::PathBuf,
    /// Runs of each kind; the fastest counts.
    #[arg(long, global = true, default_value_t = 2)]
    rounds: u32,
}

#[cfg(target_os = "linux")]
#[derive(clap::Subcommand)]
enum What {
    /// Creating torrents: one big file, and many small ones.
    Create(create::Args),
    /// One seed, one leech, a link without limits.
    Pair(pair::Args),
    /// One seed and a crowd that begins at once, on shaped uplinks.
    Flash(flash::Args),
    /// One seed and some leechers, links without limits.
    Many(many::Args),
    /// One seed, one leech, many small files.
    Small(pair::SmallArgs),
    /// A web server alone, beside curl.
    Webseed(webseed::Args),
    /// An install of many small files over HTTP alone, beside curl and tar.
    First(first::Args),
    /// One seed, one leech, a line with a delay.
    Delay(delay::Args),
    /// What a first install from players costs on the wire.
    Parcels(parcels::Args),
    /// What an upload adds to the round trips of others on the same uplink.
    Background(background::Args),
    /// A room full of players: behind one uplink, without any, and with nothing to do.
    Lan(lan::Args),
    /// Many torrents, no peers.
    Idle(idle::Args),
    /// The leaf search over bytes in memory.
    Search(search::Args),
    /// One install, from one build to another.
    Update(update::Args),
    /// Resident memory of a big transfer, and of a seed with many leechers.
    Memory(memory::Args),
}

#[cfg(target_os = "linux")]
fn main() {
    let args = <Args as clap::Parser>::parse();
    let dir = tempfile::Builder::new().prefix("updraft-bench-").tempdir_in(&args.dir);
    let dir = dir.expect("a folder for the data can be made");
    match args.what {
        What::Create(what) => create::run(dir.path(), args.rounds, what),
        What::Pair(what) => pair::run(dir.path(), args.rounds, &what),
        What::Flash(what) => flash::run(dir.path(), args.rounds, &what),
        What::Many(what) => many::run(dir.path(), args.rounds, &what),
        What::Small(what) => pair::run_small(dir.path(), args.rounds, &what),
        What::Webseed(what) => webseed::run(dir.path(), args.rounds, &what),
        What::First(what) => first::run(dir.path(), args.rounds, &what),
        What::Delay(what) => delay::run(dir.path(), args.rounds, &what),
        What::Parcels(what) => parcels::run(dir.path(), &what),
        What::Background(what) => background::run(dir.path(), &what),
        What::Lan(what) => lan::run(&what),
        What::Idle(what) => idle::run(dir.path(), &what),
        What::Search(what) => search::run(args.rounds, &what),
        What::Update(what) => update::run(dir.path(), &what),
        What::Memory(what) => memory::run(dir.path(), &what),
    }
}
