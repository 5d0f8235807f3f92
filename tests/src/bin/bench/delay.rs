//! A fat and long link: one seed, one leech, and between them a line that delays every byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use updraft_tests::clients::{Client, Libtorrent, PEER_PORT};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place};

use crate::report::{RUN_WAIT, mib};
use crate::transfer::{our_leech, parent, tcp, their_leech};

/// Bytes handled as one on the line.
const PARCEL_BYTES: usize = 16 << 10;
/// Parcels on the line; its rate and delay allow fewer unless reads are tiny.
const PARCELS_MAX: usize = 4096;
/// How much too long a sleep may be without the line losing rate.
const SLACK: Duration = Duration::from_millis(10);
/// How long the far end may take to answer a dial.
const DIAL_WAIT: Duration = Duration::from_secs(10);

/// The line.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bytes of the file.
    #[arg(long, default_value_t = 200 << 20)]
    bytes: u64,
    /// Milliseconds there and back.
    #[arg(long, default_value_t = 100)]
    delay_ms: u64,
    /// MiB per second each way.
    #[arg(long, default_value_t = 10)]
    rate_mib: u64,
}

/// Ours beside libtorrent.
pub(crate) fn run(dir: &Path, rounds: u32, args: &Args) {
    let source = dir.join("source/data.bin");
    content::write_file(&source, 1, args.bytes);
    let torrent = dir.join("delay.torrent");
    ours::create_torrent(&source, &torrent, "v1", &[]);
    println!(
        "\n## {:.0} MiB over {} MiB/s with {} ms there and back\n",
        mib(args.bytes),
        args.rate_mib,
        args.delay_ms
    );
    println!("| engine | s | MiB/s | of the line |");
    println!("|---|---:|---:|---:|");
    for engine in ["Updraft", "libtorrent"] {
        for _ in 0..rounds.max(1) {
            let lab = Lab::new();
            let (a, middle, b) = (lab.node(), lab.node(), lab.node());
            let line =
                Line { delay: Duration::from_millis(args.delay_ms) / 2, rate: args.rate_mib << 20 };
            line.open(&middle, a.addr(PEER_PORT));
            let peers = [middle.addr(PEER_PORT)];
            let cost = if engine == "Updraft" {
                let seed =
                    ours::seed(&Place::from(&a), &torrent, parent(&source), a.addr(PEER_PORT));
                ours::wait_seeding(&seed, RUN_WAIT);
                our_leech(dir, &source, &b, &torrent, &peers, &[])
            } else {
                let mut seed = Libtorrent::start_with(&a, &tcp());
                seed.seed(&torrent, parent(&source));
                their_leech(dir, &b, &torrent, &peers, &tcp())
            };
            let rate = mib(args.bytes) / cost.seconds;
            let share = rate / mib(args.rate_mib << 20) * 100.0;
            println!("| {engine} | {:.2} | {rate:.2} | {share:.0} % |", cost.seconds);
        }
    }
}

/// Every byte of a connection comes out this much later, and no faster than the rate.
#[derive(Clone, Copy)]
struct Line {
    /// One way.
    delay: Duration,
    /// Bytes per second, each way.
    rate: u64,
}

impl Line {
    /// Listens at the peers' port of `node` and passes every connection on to `to`.
    fn open(self, node: &Node, to: SocketAddr) {
        let listener = node.listen(PEER_PORT);
        let node = node.clone();
        thread::spawn(move || self.accept(&listener, &node, to));
    }

    fn accept(self, listener: &TcpListener, node: &Node, to: SocketAddr) {
        for near in listener.incoming() {
            let far = node.inside(move || TcpStream::connect_timeout(&to, DIAL_WAIT));
            if let (Ok(near), Ok(far)) = (near, far) {
                let pass = |from: &TcpStream, into: &TcpStream| -> io::Result<()> {
                    let (from, into) = (from.try_clone()?, into.try_clone()?);
                    into.set_nodelay(true)?;
                    let (sender, receiver) = mpsc::sync_channel(PARCELS_MAX);
                    thread::spawn(move || self.take(from, &sender));
                    thread::spawn(move || give(into, &receiver));
                    Ok(())
                };
                let _ = pass(&near, &far).and_then(|()| pass(&far, &near));
            }
        }
    }

    /// Reads at the rate, and says of each parcel when it comes out.
    fn take(self, mut from: TcpStream, line: &SyncSender<(Instant, Vec<u8>)>) {
        let mut free = Instant::now();
        let mut buffer = vec![0; PARCEL_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let now = Instant::now();
            // A sleep that was too long is made up for.
            free = free.max(now.checked_sub(SLACK).unwrap_or(now))
                + Duration::from_secs(1).mul_f64(count as f64 / self.rate as f64);
            if line.send((free + self.delay, buffer[..count].to_vec())).is_err() {
                break;
            }
            thread::sleep(free.saturating_duration_since(Instant::now()));
        }
        let _ = from.shutdown(Shutdown::Read);
    }
}

/// Writes each parcel when its time has come.
fn give(mut into: TcpStream, line: &Receiver<(Instant, Vec<u8>)>) {
    for (due, bytes) in line {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if into.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Both);
}
