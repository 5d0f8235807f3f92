//! A flash crowd: one seed, and leechers that all begin at the same moment, each on a host of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use updraft_tests::clients::{Nginx, OpenTracker, read_torrent};
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours;
use updraft_tests::process::host_bytes_sent;

use crate::capture::{self, Capture};
use crate::engine::{self, Distance, Engine, Running};
use crate::report::create_torrent;

/// How often the links' counters are read.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The swarm to run.
pub(crate) struct Swarm<'a> {
    /// Where data is put.
    pub(crate) dir: &'a Path,
    /// The content: one file, alone in its folder.
    pub(crate) source: &'a Path,
    /// Bytes of a piece.
    pub(crate) piece_bytes: u64,
    /// `v1`, `v2` or `hybrid`.
    pub(crate) format: &'a str,
    /// Who seeds.
    pub(crate) seed: Engine,
    /// Who leeches.
    pub(crate) leechers: Vec<Engine>,
    /// The seed's uplink in `tc` notation; none: no limit.
    pub(crate) seed_up: Option<&'a str>,
    /// A leecher's uplink.
    pub(crate) peer_up: Option<&'a str>,
    /// Which addresses.
    pub(crate) distance: Distance,
    /// How long anybody may take.
    pub(crate) within: Duration,
    /// Whether a web server has the content too, on an unlimited link.
    pub(crate) http: bool,
}

/// What came of it. Times are seconds from the moment at which all began.
pub(crate) struct Outcome {
    /// When each leecher was complete, in the order of [`Swarm::leechers`]; none: never.
    pub(crate) ends: Vec<Option<f64>>,
    /// Bytes on the wire, everybody's, headers included.
    pub(crate) wire: u64,
    /// Bytes on the wire from the web server.
    pub(crate) http_wire: u64,
    /// Payload that the seed sent in all.
    pub(crate) seed_payload: u64,
    /// When the seed had sent every block once, and its payload until then.
    pub(crate) first_copy: Option<(f64, u64)>,
    /// Bits per second on the seed's link, once every [`LOOK_INTERVAL`].
    pub(crate) seed_rates: Vec<f64>,
    /// The same of all leechers together.
    pub(crate) peer_rates: Vec<f64>,
    /// Processor seconds of the seed.
    pub(crate) seed_cpu: f64,
    /// Processor seconds of all leechers.
    pub(crate) peer_cpu: f64,
}

impl Swarm<'_> {
    /// Runs it once.
    pub(crate) fn run(&self) -> Outcome {
        let lab = Lab::new();
        let shaped =
            |rate: Option<&str>| rate.map_or_else(|| lab.node(), |rate| lab.slow_node(rate));
        let tracker_node = lab.node();
        let web_node = lab.node();
        let seed_node = shaped(self.seed_up);
        let nodes: Vec<Node> = self.leechers.iter().map(|_| shaped(self.peer_up)).collect();

        let here = [&tracker_node, &web_node, &seed_node];
        Lab::introduce(&here.into_iter().chain(&nodes).collect::<Vec<_>>());
        let folder = self.source.parent().expect("the content lies in a folder");
        let web = self.http.then(|| Nginx::start(&lab, &web_node, folder));
        let torrent = self.torrent(&tracker_node, web.as_ref());
        let hashes = read_torrent(&torrent).tracker_hashes();
        let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
        let mut seed = engine::seed(self.seed, &lab, &seed_node, self.distance, &torrent, folder);
        tracker.wait_seeds(&hashes[0], 1);

        let ready = self.leechers.iter().zip(&nodes);
        let ready: Vec<_> =
            ready.map(|(engine, node)| engine::ready(*engine, &lab, node, self.distance)).collect();
        let folders: Vec<_> = (0..nodes.len()).map(|at| engine::folder(self.dir, at)).collect();
        // Unlimited links carry too much to be captured beside what is measured.
        let capture = self.seed_up.map(|_| Capture::start(&seed_node, &self.dir.join("seed.pcap")));
        let sent = |nodes: &[Node]| nodes.iter().map(Node::bytes_sent).sum::<u64>();
        let before = sent(&nodes) + seed_node.bytes_sent();
        let web_before = web_node.bytes_sent();
        let seed_cpu = seed.proc().cpu_seconds();
        let peer_cpu: f64 =
            ready.iter().filter_map(|ready| Some(ready.proc()?.cpu_seconds())).sum();

        let start = Instant::now();
        let ready = ready.into_iter().zip(&folders);
        let mut running: Vec<_> = ready.map(|(ready, into)| ready.go(&torrent, into)).collect();
        let pids: Vec<_> = running.iter().map(|client| client.proc().pid()).collect();
        let links = Links { seed: seed.proc().pid(), peers: pids };
        let (ends, rates) = watch(&mut running, &torrent, start, self.within, &links);

        let wire = sent(&nodes) + seed_node.bytes_sent() - before;
        let http_wire = web_node.bytes_sent() - web_before;
        let seed_cpu = seed.proc().cpu_seconds() - seed_cpu;
        let peer_cpu =
            running.iter().map(|client| client.proc().cpu_seconds()).sum::<f64>() - peer_cpu;
        let blocks = capture.map(Capture::finish);
        let seed_payload = match &blocks {
            Some(blocks) => blocks.iter().map(|block| u64::from(block.len)).sum(),
            None => seed.uploaded(&torrent),
        };
        let first_copy = blocks.and_then(|blocks| {
            let (at, payload) = capture::first_copy(&blocks, self.bytes())?;
            let since = at.duration_since(capture::wall(start)).unwrap_or_default();
            Some((since.as_secs_f64(), payload))
        });
        drop(running);
        for (into, end) in folders.iter().zip(&ends) {
            if end.is_some() {
                content::assert_same(folder, into, &[ours::FETCH_FOLDER]);
            }
            let _ = std::fs::remove_dir_all(into);
        }
        let (seed_rates, peer_rates) = rates;
        Outcome {
            ends,
            wire: wire + http_wire,
            http_wire,
            seed_payload,
            first_copy,
            seed_rates,
            peer_rates,
            seed_cpu,
            peer_cpu,
        }
    }

    /// Bytes of the content.
    pub(crate) fn bytes(&self) -> u64 {
        self.source.metadata().expect("the content is there").len()
    }

    fn torrent(&self, tracker: &Node, web: Option<&Nginx>) -> PathBuf {
        let torrent = self.dir.join("swarm.torrent");
        let (piece, tracker) =
            (self.piece_bytes.to_string(), OpenTracker::url_at(self.distance.of(tracker)));
        let mut flags =
            vec!["--format", self.format, "--piece-length", &piece, "--tracker", &tracker];
        flags.extend(web.iter().flat_map(|web| ["--web-seed", &web.url]));
        create_torrent(self.source, &torrent, &flags);
        torrent
    }
}

/// Processes on the hosts whose counters are read.
struct Links {
    seed: u32,
    peers: Vec<u32>,
}

type Rates = (Vec<f64>, Vec<f64>);

/// Waits for everybody and reads the counters meanwhile.
fn watch(
    running: &mut [Running],
    torrent: &Path,
    start: Instant,
    within: Duration,
    links: &Links,
) -> (Vec<Option<f64>>, Rates) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(links, &over));
        let waiting: Vec<_> = running
            .iter_mut()
            .map(|client| scope.spawn(move || client.completed(torrent, within)))
            .collect();
        let ends = waiting.into_iter().map(|thread| {
            let end = thread.join().expect("a wait does not panic");
            end.map(|end| end.duration_since(start).as_secs_f64())
        });
        let ends = ends.collect();
        over.store(true, Ordering::Relaxed);
        (ends, sampler.join().expect("reading counters does not panic"))
    })
}

#[allow(clippy::cast_precision_loss)]
fn sample(links: &Links, over: &AtomicBool) -> Rates {
    let peers = || links.peers.iter().map(|pid| host_bytes_sent(*pid)).sum::<u64>();
    let mut last = (Instant::now(), host_bytes_sent(links.seed), peers());
    let mut rates = Rates::default();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(LOOK_INTERVAL);
        let now = (Instant::now(), host_bytes_sent(links.seed), peers());
        let seconds = now.0.duration_since(last.0).as_secs_f64();
        rates.0.push(now.1.saturating_sub(last.1) as f64 * 8.0 / seconds);
        rates.1.push(now.2.saturating_sub(last.2) as f64 * 8.0 / seconds);
        last = now;
    }
    rates
}

impl Outcome {
    /// Every number, for plots; rates in Mbit/s.
    pub(crate) fn json(&self, bytes: u64) -> Value {
        let mbit = |rates: &[f64]| {
            rates.iter().map(|rate| (rate / 1e5).round() / 10.0).collect::<Vec<_>>()
        };
        json!({
            "ends": self.ends, "wire_bytes": self.wire, "http_wire_bytes": self.http_wire,
            "bytes": bytes, "seed_payload_bytes": self.seed_payload,
            "first_copy_seconds": self.first_copy.map(|(seconds, _)| seconds),
            "first_copy_payload_bytes": self.first_copy.map(|(_, payload)| payload),
            "rate_seconds": LOOK_INTERVAL.as_secs_f64(),
            "seed_mbit": mbit(&self.seed_rates), "peers_mbit": mbit(&self.peer_rates),
            "seed_cpu_seconds": self.seed_cpu, "peers_cpu_seconds": self.peer_cpu,
        })
    }
}
