//! An upload on a narrow uplink with a deep queue, and what it does to everybody else there: round trips of
//! small datagrams through the same queue, and the share that is left to an upload that somebody waits for.

use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use updraft_tests::clients::PEER_PORT;
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place};
use updraft_tests::process::Proc;

use crate::report::{RUN_WAIT, mib};
use crate::transfer::parent;

/// Where datagrams are answered.
const ECHO_PORT: u16 = 7;
/// One goes out this often.
const PING_EVERY: Duration = Duration::from_millis(50);
/// One that takes longer is counted as this.
const PING_MAX: Duration = Duration::from_secs(5);
/// What the beginning of a transfer does is left out.
const WARM_UP: Duration = Duration::from_secs(3);

/// The uplink.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Its rate in Mbit/s.
    #[arg(long, default_value_t = 10)]
    rate: u64,
    /// Seconds of each run.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Milliseconds that its queue holds.
    #[arg(long, default_value_t = 1000)]
    queue_ms: u64,
}

/// One run after the other on a network of its own.
pub(crate) fn run(dir: &Path, args: &Args) {
    let rate = args.rate * 125_000;
    let bytes = rate * (args.seconds + 30);
    let source = dir.join("source/data.bin");
    content::write_file(&source, 1, bytes);
    let torrent = dir.join("background.torrent");
    ours::create_torrent(&source, &torrent, "v2", &[]);
    println!(
        "\n## Uploads on an uplink of {} Mbit/s with a queue of {} ms, {} s, {:.0} MiB\n",
        args.rate,
        args.queue_ms,
        args.seconds,
        mib(bytes)
    );
    println!("| uploads | link used | of it first | ping p50 ms | p95 | p99 | max |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (name, uploads) in [
        ("none", &[][..]),
        ("background", &["background"]),
        ("TCP", &["tcp"]),
        ("background, beside TCP", &["background", "tcp"]),
        ("TCP, beside TCP", &["tcp", "tcp"]),
    ] {
        let seen = measure(dir, &source, &torrent, args, uploads);
        println!(
            "| {name} | {:.1} % | {:.1} % | {:.1} | {:.1} | {:.1} | {:.1} |",
            100.0 * seen.wire as f64 / (rate * args.seconds) as f64,
            100.0 * seen.first as f64 / seen.all.max(1) as f64,
            seen.trip(50),
            seen.trip(95),
            seen.trip(99),
            seen.trip(100),
        );
    }
}

struct Seen {
    /// Bytes on the link, headers included.
    wire: u64,
    /// Payload that arrived by the first upload, and by all.
    first: u64,
    all: u64,
    /// In order of length.
    trips: Vec<Duration>,
}

impl Seen {
    fn trip(&self, percentile: usize) -> f64 {
        let at = (self.trips.len() * percentile / 100).min(self.trips.len() - 1);
        self.trips[at].as_secs_f64() * 1000.0
    }
}

fn measure(dir: &Path, source: &Path, torrent: &Path, args: &Args, uploads: &[&str]) -> Seen {
    let lab = Lab::new();
    let near = lab.queueing_node(&format!("{}mbit", args.rate), &format!("{}ms", args.queue_ms));
    // Most systems send with it, and it fills the queue.
    near.send_with("cubic");
    let mut pairs = Vec::new();
    for (at, transport) in (0_u16..).zip(uploads) {
        let far = lab.node();
        let listen = near.wide_addr(PEER_PORT + at);
        let mut command = Place::from(&near).publisher();
        command.arg("seed").arg(torrent).arg("--dir").arg(parent(source));
        command.args(["--listen", &listen.to_string(), "--transport", transport]);
        let seed = Proc::start("our seed", command);
        ours::wait_seeding(&seed, RUN_WAIT);
        let into = dir.join(format!("into{at}"));
        let _ = std::fs::remove_dir_all(&into);
        let place = Place::from(&far);
        let leech =
            ours::fetch_with(&place, torrent, &into, far.wide_addr(PEER_PORT), &[listen], &[]);
        pairs.push((seed, leech, into));
    }
    let echo = lab.node();
    thread::sleep(WARM_UP);
    let ping = Ping::start(&near, &echo);
    let arrived = || -> Vec<u64> { pairs.iter().map(|(_, leech, _)| verified(leech)).collect() };
    let (wire, before) = (near.bytes_sent(), arrived());
    thread::sleep(Duration::from_secs(args.seconds));
    let wire = near.bytes_sent() - wire;
    let shares: Vec<u64> =
        arrived().iter().zip(&before).map(|(after, before)| after - before).collect();
    let trips = ping.stop();
    for (seed, leech, into) in pairs {
        drop((seed, leech));
        let _ = std::fs::remove_dir_all(into);
    }
    let first = shares.first().copied().unwrap_or_default();
    Seen { wire, first, all: shares.iter().sum(), trips }
}

/// Bytes that a leech has said it has verified.
fn verified(leech: &Proc) -> u64 {
    let events = leech.text();
    let done = events.lines().rev().find_map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        (event["event"] == "progress").then(|| event["done"].as_u64())?
    });
    done.unwrap_or_default()
}

/// Datagrams that go to a host and come back.
struct Ping {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Ping {
    fn start(from: &Node, to: &Node) -> Self {
        let at = to.wide_addr(ECHO_PORT);
        let echo = to.inside(move || UdpSocket::bind(at)).expect("the port is free");
        let home = from.wide_addr(0);
        let socket = from.inside(move || UdpSocket::bind(home)).expect("a port is free");
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        echo.set_read_timeout(Some(PING_EVERY)).expect("sockets have timeouts");
        thread::spawn(move || {
            let mut datagram = [0; 64];
            while !until.load(Ordering::Relaxed) {
                if let Ok((len, from)) = echo.recv_from(&mut datagram) {
                    let _ = echo.send_to(&datagram[..len], from);
                }
            }
        });
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut trips = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let sent = Instant::now();
                trips.push(round_trip(&socket, at, trips.len() as u64).unwrap_or(PING_MAX));
                thread::sleep(PING_EVERY.saturating_sub(sent.elapsed()));
            }
            trips.sort();
            trips
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("pinging does not panic")
    }
}

fn round_trip(socket: &UdpSocket, to: std::net::SocketAddr, number: u64) -> io::Result<Duration> {
    let sent = Instant::now();
    socket.send_to(&number.to_be_bytes(), to)?;
    let mut answer = [0; 64];
    loop {
        let left = PING_MAX.saturating_sub(sent.elapsed()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        let len = socket.recv(&mut answer)?;
        if answer[..len] == number.to_be_bytes() {
            return Ok(sent.elapsed());
        }
    }
}
