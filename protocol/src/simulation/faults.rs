//! What may go wrong on a release day, and what it may cost everybody else.
//!
//! Each fault is compared with the same crowd without it: where some hosts are at fault, without them, and
//! only the others count. Times count as multiples of the fluid bound of each crowd, since a crowd of slower
//! hosts may take longer, and are compared in the order of finishing: who is done first with the fault with
//! who was done first without it, and so on. So luck in who is early says nothing, and a single player who
//! is held up does. Who was done before the fluid bound, which is luck too, is taken to be done then.

use super::{Behaviour, Bound, Crowd, Host, Quantiles, World};
use std::time::Duration;

/// One leecher in so many is at fault.
const ONE_IN: usize = 10;
/// The share of the fluid bound after which something happens in the middle.
const MIDDLE: f64 = 0.4;
/// A run that takes so many times the fluid bound is given up: somebody waits for ever.
const GIVE_UP: f64 = 20.0;

/// A fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub about: &'static str,
    /// How many times as long anybody honest may take.
    pub bound: f64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One leecher in ten becomes like this. Only the others count, and are compared with a crowd of
    /// their own.
    Some(fn(&mut Host)),
    /// The crowd is like this. Leechers that this leaves as they were count.
    Crowd(fn(&mut Crowd)),
    /// In the middle one leecher in ten falls silent for ever. Only the others count.
    Vanish,
    /// The tracker dies when everybody has met.
    TrackerDies,
    /// The seed goes when one copy is out.
    SeedGoes,
}

/// What a fault cost in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// How many times as long the middle one took.
    pub median: f64,
    /// How many times as long the one took that was held up most; infinite if somebody never got done.
    pub worst: f64,
    /// A digest of all that happened: equal for equal runs.
    pub trace: u64,
}

/// All faults.
pub const FAULTS: [Fault; 13] = [
    some("stall", "one in ten says what it has, unchokes, and sends nothing", |host| {
        host.behaviour = Behaviour::Hoarder;
    }),
    some("drip", "one in ten sends and receives a hundredth", |host| {
        host.up /= 100;
        host.down = Some(host.up);
    }),
    some("fickle", "one in ten chokes at random", |host| host.behaviour = Behaviour::Fickle),
    some("boast", "one in ten says that it has everything, and rejects what it has not", |host| {
        host.behaviour = Behaviour::Boaster;
    }),
    some("poison", "one in ten sends wrong blocks", |host| host.behaviour = Behaviour::Liar),
    some("disk", "one in ten has a disk that takes 30 s for a piece", |host| {
        host.disk = Duration::from_secs(30);
    }),
    Fault {
        name: "vanish",
        about: "one in ten falls silent in the middle, and nobody is told",
        bound: 1.2,
        kind: Kind::Vanish,
    },
    crowd("leave", "one in ten goes as soon as it is complete", |crowd| crowd.leaves = ONE_IN),
    crowd("slow", "one in ten has a tenth of the uplink", |crowd| crowd.slow = ONE_IN),
    crowd(
        "mix",
        "one in ten goes when complete, one is ten times slower, one sends poison",
        |crowd| {
            (crowd.leaves, crowd.slow, crowd.liars) = (ONE_IN, ONE_IN, ONE_IN);
        },
    ),
    crowd("slow-seed", "the seed has half the uplink of its slowest leecher", |crowd| {
        crowd.seed_up = crowd.up.iter().copied().min().unwrap_or(crowd.seed_up) / 2;
    }),
    Fault {
        name: "tracker",
        about: "the tracker dies when everybody has met",
        bound: 1.2,
        kind: Kind::TrackerDies,
    },
    Fault {
        name: "origin",
        about: "the seed goes when one copy is out",
        bound: 1.2,
        kind: Kind::SeedGoes,
    },
];

const fn some(name: &'static str, about: &'static str, spoil: fn(&mut Host)) -> Fault {
    Fault { name, about, bound: 1.2, kind: Kind::Some(spoil) }
}

const fn crowd(name: &'static str, about: &'static str, change: fn(&mut Crowd)) -> Fault {
    Fault { name, about, bound: 1.2, kind: Kind::Crowd(change) }
}

impl Fault {
    /// Runs a crowd with the fault, and compares it with `without`, the run of [`Fault::without`].
    pub fn run(&self, crowd: &Crowd, without: &Finish) -> Loss {
        let (hosts, others) = self.spoil(crowd);
        let mut world = crowd.populate(hosts);
        // Who is slow or goes early is a player too; who does harm is none.
        let players: Vec<usize> = match self.kind {
            Kind::Some(_) | Kind::Vanish => others.clone(),
            Kind::Crowd(_) | Kind::TrackerDies | Kind::SeedGoes => {
                let nodes = world.nodes.iter().map(|node| &node.host).enumerate();
                let honest = |host: &Host| !host.seed && host.behaviour == Behaviour::Honest;
                nodes.filter(|(_, host)| honest(host)).map(|(at, _)| at).collect()
            }
        };
        let mut bound = Bound::of(&world, &players);
        match self.kind {
            Kind::Some(_) | Kind::Crowd(_) => {}
            Kind::Vanish => {
                world.run_until(Duration::from_secs_f64(bound.seconds * MIDDLE), |_| false);
                at_fault(world.nodes.len()).for_each(|at| world.silence(at));
            }
            Kind::TrackerDies => world.kill_tracker(Duration::from_secs(3)),
            Kind::SeedGoes => {
                let limit = Duration::from_secs_f64(bound.seconds * GIVE_UP);
                world.run_until(limit, |world| world.first_copy.is_some());
                let sent = world.nodes[0].stats().up;
                world.leave(0);
                bound = bound.without_seed(&world, &players, sent);
            }
        }
        let with = Finish::of(&mut world, &others, bound);
        with.compared_with(without)
    }

    /// Runs a crowd without the fault: without those who would be at fault.
    pub fn without(&self, crowd: &Crowd) -> Finish {
        let (_, others) = self.spoil(crowd);
        let hosts = (0..).zip(crowd.hosts());
        let kept = hosts.filter(|(at, host)| host.seed || others.contains(at));
        let mut world = crowd.populate(kept.map(|(_, host)| host).collect());
        let all: Vec<usize> =
            (0..world.nodes.len()).filter(|&at| !world.nodes[at].host.seed).collect();
        let bound = Bound::of(&world, &all);
        Finish::of(&mut world, &all, bound)
    }

    /// The hosts with the fault, and which of them count: leechers that are not at fault.
    fn spoil(&self, crowd: &Crowd) -> (Vec<Host>, Vec<usize>) {
        let mut hosts = crowd.hosts();
        let leechers = 1..hosts.len();
        match self.kind {
            Kind::Some(spoil) => at_fault(hosts.len()).for_each(|at| spoil(&mut hosts[at])),
            Kind::Crowd(change) => {
                let mut changed = crowd.clone();
                change(&mut changed);
                let before = std::mem::replace(&mut hosts, changed.hosts());
                let same = leechers.filter(|&at| hosts[at] == before[at]).collect();
                return (hosts, same);
            }
            Kind::TrackerDies | Kind::SeedGoes => return (hosts, leechers.collect()),
            Kind::Vanish => {}
        }
        let spoilt: Vec<usize> = at_fault(hosts.len()).collect();
        (hosts, leechers.filter(|at| !spoilt.contains(at)).collect())
    }
}

/// The leechers at fault among so many hosts.
fn at_fault(hosts: usize) -> impl Iterator<Item = usize> {
    (3..hosts).step_by(ONE_IN)
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finish {
    /// When each was done, over the fluid bound.
    times: Quantiles,
    trace: u64,
}

impl Finish {
    fn of(world: &mut World, leechers: &[usize], bound: Bound) -> Self {
        let limit = Duration::from_secs_f64(bound.seconds * GIVE_UP);
        world.run_until(limit, |world| {
            leechers.iter().all(|&host| world.nodes[host].complete_at.is_some())
        });
        let time = |&host: &usize| {
            let node = &world.nodes[host];
            node.complete_at.map_or(f64::INFINITY, |at| bound.ratio(at - node.host.start))
        };
        let times = Quantiles::new(leechers.iter().map(time).collect());
        Self { times, trace: world.trace() }
    }

    fn compared_with(&self, other: &Self) -> Loss {
        let ratios = Quantiles::new(self.times.over(&other.times, 1.0));
        Loss { median: ratios.at(0.5), worst: ratios.at(1.0), trace: self.trace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a fault in small crowds, twice each, and holds it to its bound.
    fn check(name: &str) {
        let fault = FAULTS.iter().find(|fault| fault.name == name).unwrap();
        for random in [1, 2] {
            let crowd = Crowd {
                seed_up: 400_000,
                up: vec![200_000],
                random,
                ..Crowd::plain(20, 128, 4 * crate::geometry::BLOCK_LEN)
            };
            let without = fault.without(&crowd);
            let loss = fault.run(&crowd, &without);
            assert_eq!(loss, fault.run(&crowd, &without), "the same seed is the same run");
            assert!(loss.worst <= fault.bound, "{name}, seed {random}: {loss:?}");
        }
    }

    #[test]
    fn peers_that_stall() {
        check("stall");
    }

    #[test]
    fn peers_that_drip() {
        check("drip");
    }

    #[test]
    fn peers_that_choke_at_random() {
        check("fickle");
    }

    #[test]
    fn peers_that_boast() {
        check("boast");
    }

    #[test]
    fn peers_that_serve_poison() {
        check("poison");
    }

    #[test]
    fn peers_with_a_slow_disk() {
        check("disk");
    }

    #[test]
    fn peers_that_vanish() {
        check("vanish");
    }

    #[test]
    fn peers_that_leave() {
        check("leave");
    }

    #[test]
    fn peers_with_a_slow_uplink() {
        check("slow");
    }

    #[test]
    fn a_mix_of_them() {
        check("mix");
    }

    #[test]
    fn a_seed_slower_than_its_leechers() {
        check("slow-seed");
    }

    #[test]
    fn a_tracker_that_dies() {
        check("tracker");
    }

    #[test]
    fn a_seed_that_goes() {
        check("origin");
    }
}
