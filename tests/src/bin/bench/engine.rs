//! One engine among others, as a seed or a leech on a host of the lab.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::json;
use updraft_tests::clients::{Client, Libtorrent, PEER_PORT, Rqbit};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place};
use updraft_tests::process::Proc;

use crate::report::RUN_WAIT;

/// Whose client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Ours.
    Updraft,
    /// libtorrent without uTP, which shaped and unshaped it is faster without.
    Libtorrent,
    /// rqbit as it comes.
    Rqbit,
}

impl Engine {
    /// For tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Updraft => "Updraft",
            Self::Libtorrent => "libtorrent",
            Self::Rqbit => "rqbit",
        }
    }
}

/// Which of a host's addresses are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distance {
    /// Addresses as on a local network.
    Near,
    /// Addresses as on the internet.
    Far,
}

impl Distance {
    /// The address of a host.
    pub(crate) fn of(self, node: &Node) -> Ipv4Addr {
        match self {
            Self::Near => node.ip,
            Self::Far => node.wide,
        }
    }
}

/// A client on its host.
pub(crate) enum Running {
    /// Ours.
    Updraft(Proc),
    /// libtorrent.
    Libtorrent(Libtorrent),
    /// rqbit.
    Rqbit(Rqbit),
}

/// A leech that is ready to begin.
pub(crate) enum Ready {
    /// Ours begins with its process.
    Updraft { place: Place, listen: Ipv4Addr },
    /// A daemon that waits for its torrent.
    Daemon(Running),
}

/// Seeds `torrent` from `dir`; returns when it is offered.
pub(crate) fn seed(
    engine: Engine,
    lab: &Lab,
    node: &Node,
    distance: Distance,
    torrent: &Path,
    dir: &Path,
) -> Running {
    if engine == Engine::Updraft {
        let listen = (distance.of(node), PEER_PORT).into();
        let seed = ours::seed(&Place::from(node), torrent, dir, listen);
        ours::wait_seeding(&seed, RUN_WAIT);
        return Running::Updraft(seed);
    }
    let mut running = daemon(engine, lab, node, distance);
    match &mut running {
        Running::Libtorrent(client) => client.seed(torrent, dir),
        Running::Rqbit(client) => client.seed(torrent, dir),
        Running::Updraft(_) => {}
    }
    running
}

/// A leech that only waits for its torrent.
pub(crate) fn ready(engine: Engine, lab: &Lab, node: &Node, distance: Distance) -> Ready {
    match engine {
        Engine::Updraft => Ready::Updraft { place: Place::from(node), listen: distance.of(node) },
        Engine::Libtorrent | Engine::Rqbit => Ready::Daemon(daemon(engine, lab, node, distance)),
    }
}

fn daemon(engine: Engine, lab: &Lab, node: &Node, distance: Distance) -> Running {
    if engine == Engine::Rqbit {
        return Running::Rqbit(Rqbit::start(lab, node));
    }
    let settings = json!({
        "enable_outgoing_utp": false, "enable_incoming_utp": false,
        // What is on the link can be read.
        "out_enc_policy": 2, "in_enc_policy": 2,
    });
    let listen = format!("{}:{PEER_PORT}", distance.of(node));
    Running::Libtorrent(Libtorrent::start_on(node, &listen, &settings))
}

impl Ready {
    /// Begins to download into `dir`.
    pub(crate) fn go(self, torrent: &Path, dir: &Path) -> Running {
        match self {
            Self::Updraft { place, listen } => {
                let listen = (listen, PEER_PORT).into();
                let flags = ["--no-lan", "--stay", "--upload", "yes"];
                Running::Updraft(ours::fetch_with(&place, torrent, dir, listen, &[], &flags))
            }
            Self::Daemon(mut running) => {
                match &mut running {
                    Running::Libtorrent(client) => client.add(torrent, dir, &[]),
                    Running::Rqbit(client) => client.leech(torrent, dir),
                    Running::Updraft(_) => {}
                }
                running
            }
        }
    }

    /// Its process, if it has one yet.
    pub(crate) fn proc(&self) -> Option<&Proc> {
        match self {
            Self::Updraft { .. } => None,
            Self::Daemon(running) => Some(running.proc()),
        }
    }
}

impl Running {
    /// Its process.
    pub(crate) fn proc(&self) -> &Proc {
        match self {
            Self::Updraft(proc) => proc,
            Self::Libtorrent(client) => &client.proc,
            Self::Rqbit(client) => &client.proc,
        }
    }

    /// Waits until everything is verified and says when it was; `None` when that takes longer.
    pub(crate) fn completed(&mut self, torrent: &Path, within: Duration) -> Option<Instant> {
        let word = match self {
            Self::Updraft(_) => "complete",
            Self::Libtorrent(_) => "finished",
            Self::Rqbit(client) => {
                client.wait_done(torrent, within);
                return Some(Instant::now());
            }
        };
        let found = self.proc().try_wait_for(within, |line| {
            let event: serde_json::Value = serde_json::from_str(&line.text).ok()?;
            (event["event"] == word).then_some(line.at)
        });
        found.ok()
    }

    /// Payload bytes it has sent; ours tells at its end, so it is stopped.
    pub(crate) fn uploaded(&mut self, torrent: &Path) -> u64 {
        match self {
            Self::Updraft(proc) => {
                proc.interrupt();
                proc.wait_exit(RUN_WAIT);
                let text = proc.text();
                let numbers = text.split("uploaded=").skip(1);
                let last = numbers.filter_map(|rest| rest.split(' ').next()?.parse().ok()).last();
                last.unwrap_or(0)
            }
            Self::Libtorrent(client) => client.uploaded(torrent),
            Self::Rqbit(client) => client.uploaded(torrent),
        }
    }
}

/// Where a client put what it downloaded, for engines that take a folder: the same for all.
pub(crate) fn folder(dir: &Path, index: usize) -> PathBuf {
    let path = dir.join(format!("leech{index}"));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder can be made");
    path
}
