//! Release day: everybody wants the same thing at once.

use super::{Behaviour, Host, World};
use std::time::Duration;

/// A flash crowd: one publisher's seed, and leechers that appear within a second of each other and
/// meet through the tracker.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Leechers.
    pub leechers: usize,
    /// Pieces of the release.
    pub pieces: u32,
    /// Bytes of a piece.
    pub piece_length: u32,
    /// The seed's upstream rate, in bytes per second.
    pub seed_up: u64,
    /// The upstream rates of leechers, in bytes per second; each gets one of them in turn.
    pub up: Vec<u64>,
    /// Downstream rate over upstream rate, and its least, in bytes per second; `None` for any amount.
    pub down: Option<(u64, u64)>,
    /// The longest delay from a host to the middle of the network; each gets one up to it.
    pub delay: Duration,
    /// How likely a block is lost once on its way into or out of a leecher.
    pub loss: f64,
    /// One leecher in so many cannot be dialled (0: none).
    pub nat: usize,
    /// One leecher in so many goes as soon as it is complete (0: none).
    pub leaves: usize,
    /// One leecher in so many is ten times slower (0: none).
    pub slow: usize,
    /// One leecher in so many sends wrong blocks (0: none).
    pub liars: usize,
    /// The rate of the HTTP origin, in bytes per second, if there is one.
    pub origin: Option<u64>,
    /// The seed of every choice.
    pub random: u64,
}

impl Crowd {
    /// The swarm that rivals were measured in, of any size: a seed with 20 Mbit/s, leechers with 10.
    pub fn plain(leechers: usize, pieces: u32, piece_length: u32) -> Self {
        Self {
            leechers,
            pieces,
            piece_length,
            seed_up: 2_500_000,
            up: vec![1_250_000],
            down: None,
            delay: Duration::from_millis(1),
            loss: 0.0,
            nat: 0,
            leaves: 0,
            slow: 0,
            liars: 0,
            origin: None,
            random: 1,
        }
    }

    /// Players at home: uplinks from 2 to 50 Mbit/s, downlinks eight times that and at least 50 Mbit/s,
    /// delays up to 40 ms, one in three behind a router that lets nobody in, some loss.
    pub fn mixed(leechers: usize, pieces: u32, piece_length: u32) -> Self {
        Self {
            seed_up: 25_000_000,
            up: vec![250_000, 625_000, 1_250_000, 1_250_000, 2_500_000, 6_250_000],
            down: Some((8, 6_250_000)),
            delay: Duration::from_millis(40),
            loss: 0.001,
            nat: 3,
            ..Self::plain(leechers, pieces, piece_length)
        }
    }

    /// The seed and the leechers.
    pub fn hosts(&self) -> Vec<Host> {
        let mut rng = fastrand::Rng::with_seed(self.random ^ 0x5eed);
        let tracked = true;
        let every =
            |step: usize, index: usize, phase: usize| step > 0 && index % step == phase % step;
        let mut hosts = vec![Host { tracked, ..Host::seed(self.seed_up) }];
        for index in 0..self.leechers {
            let mut up = self.up[index % self.up.len()];
            if every(self.slow, index, 1) {
                up /= 10;
            }
            let liar = every(self.liars, index, 2);
            let micros = u64::try_from(self.delay.as_micros()).unwrap_or(u64::MAX);
            hosts.push(Host {
                down: self.down.map(|(factor, least)| least.max(up * factor)),
                delay: Duration::from_micros(rng.u64(micros / 4..=micros)),
                loss: self.loss,
                nat: every(self.nat, index, 0),
                start: Duration::from_micros(rng.u64(1..1_000_000)),
                leaves: every(self.leaves, index, 3),
                behaviour: if liar { Behaviour::Liar } else { Behaviour::Honest },
                sources: usize::from(self.origin.is_some()),
                tracked,
                ..Host::leech(up)
            });
        }
        hosts
    }

    /// Makes the world of these hosts, and of the origin if there is one.
    pub fn populate(&self, hosts: Vec<Host>) -> World {
        let mut world = World::new(self.random, self.pieces, self.piece_length);
        for host in hosts {
            world.add(host);
        }
        if let Some(rate) = self.origin {
            world.set_origin(rate, self.delay);
        }
        world
    }

    /// Makes the world and names the leechers that tell the truth.
    pub fn world(&self) -> (World, Vec<usize>) {
        let world = self.populate(self.hosts());
        let hosts = world.nodes.iter().map(|node| &node.host).enumerate();
        let honest = hosts.filter(|(_, host)| !host.seed && host.behaviour == Behaviour::Honest);
        let honest = honest.map(|(at, _)| at).collect();
        (world, honest)
    }
}
