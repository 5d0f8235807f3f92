//! HTTP where the swarm does not deliver, and pieces that are wanted first or not at all.

use super::*;

/// A seed that gives 50 KiB/s, and an origin of 100 Mbit/s that would stand idle.
#[test]
fn http_helps_whom_a_slow_seed_keeps_waiting() {
    for leechers in [1, 4] {
        let mut world = world(640);
        world.add(Host { tracked: true, ..host(true, 50 << 10, 0) });
        for _ in 0..leechers {
            world.add(Host { tracked: true, ..host(false, 1_250_000, 1) });
        }
        world.set_origin(12_500_000, Duration::from_millis(10));
        let all: Vec<usize> = (1..=leechers).collect();
        let took = world.run(&all, secs(900));
        assert!(took < secs(60), "{leechers} leechers: {took:?}");
        let http: u64 = all.iter().map(|&at| world.nodes[at].stats().down_http).sum();
        // Together little more than one copy.
        assert!(http < world.size() * 5 / 4, "{leechers} leechers: {http}");
    }
}

#[test]
fn a_flash_crowd_leaves_the_origin_nearly_alone() {
    for random in 1..4 {
        let crowd = Crowd { origin: Some(12_500_000), random, ..Crowd::plain(16, 160, 4 * PIECE) };
        let (mut world, leechers) = crowd.world();
        world.run(&leechers, secs(600));
        let report = Report::of(&world, &leechers);
        assert!(report.http <= 0.1 && report.last < 1.15, "{report:?}");
        assert!(report.tail <= 0.02 && report.wasted < 0.02, "{report:?}");
    }
}

/// Nobody has anything but the origin: a crowd takes little more than one copy from it.
#[test]
fn a_crowd_without_a_seed_takes_one_copy_over_http() {
    let mut world = world(640);
    let all: Vec<usize> = (0..16).collect();
    for _ in &all {
        world.add(Host { tracked: true, ..host(false, 1_250_000, 1) });
    }
    world.set_origin(12_500_000, Duration::from_millis(10));
    let took = world.run(&all, secs(600));
    let http: u64 = all.iter().map(|&at| world.nodes[at].stats().down_http).sum();
    assert!(http < world.size() * 5 / 4, "{http} of {}", world.size());
    // One copy comes from the origin, the others from one another.
    let bound = ratio(took, 15 * world.size(), 16 * 1_250_000);
    assert!(bound < 1.35, "{bound} of the time that the uplinks need");
}

/// The only seed falls silent just before the end.
#[test]
fn the_last_percent_does_not_hang() {
    let mut world = world(640);
    world.add(host(true, 1_000_000, 0));
    world.add(host(false, 1_000_000, 1));
    world.set_origin(10_000_000, Duration::from_millis(10));
    world.connect_all();
    assert!(world.run_until(secs(60), |world| swarm(world, 1).have().count() >= 635));
    world.silence(0);
    let before = world.now;
    let took = world.run(&[1], secs(100)) - before;
    assert!(took < before.mul_f64(0.02), "{took:?} after {before:?}");
}

#[test]
fn an_origin_that_dies_leaves_the_rest_to_peers() {
    let mut world = world(640);
    world.add(host(true, 100_000, 0));
    world.add(host(false, 1_000_000, 1));
    world.set_origin(2_000_000, Duration::from_millis(10));
    world.connect_all();
    let half = |world: &World| swarm(world, 1).have().count() >= 320;
    assert!(world.run_until(secs(100), half));
    world.kill_origin();
    let before = world.now;
    let rest = world.size() / 2;
    let took = world.run(&[1], secs(1000)) - before;
    // A dead answer is given up after a quarter of a minute; meanwhile its pieces wait.
    assert!(took < secs(rest / 100_000 + 30), "{took:?}");
}

#[test]
fn a_mirror_that_lies_is_left_alone() {
    let mut world = world(640);
    world.add(Host { lying_source: Some(0), ..host(false, 1_000_000, 2) });
    world.set_origin(10_000_000, Duration::from_millis(10));
    let took = world.run(&[0], secs(100));
    assert!(took < secs(20), "{took:?}");
    // What was under way when it was found out.
    let wasted = world.nodes[0].stats().wasted;
    assert!(wasted <= 16 << 20, "{wasted}");
}

/// `first`, `last` and unwanted pieces, as many as given.
fn wishes(counts: [usize; 3]) -> Option<Vec<Priority>> {
    let levels = [Priority(2), Priority::NORMAL, Priority::UNWANTED];
    let all = counts.iter().zip(levels).flat_map(|(&count, level)| vec![level; count]);
    Some(all.collect())
}

/// The seed spreads, and still gives what is asked for first.
#[test]
fn what_is_needed_first_comes_first() {
    let mut world = world(160);
    world.add(host(true, 1_000_000, 0));
    world.add(Host { priorities: wishes([40, 120, 0]), ..host(false, 1_000_000, 0) });
    world.connect_all();
    let first = |world: &World| (0..40).all(|at| swarm(world, 1).have().has(PieceIndex(at)));
    assert!(world.run_until(secs(60), first));
    let have = swarm(&world, 1).have().count();
    assert!(have <= 44, "{have} pieces");
    world.run(&[1], secs(60));
}

/// Somebody who wants a quarter gets it at once, holds nobody up, and is a partial seed after.
#[test]
fn who_wants_a_part_gets_it_and_gives_it() {
    let mut world = world(160);
    world.add(host(true, 1_000_000, 0));
    world.add(Host { priorities: wishes([0, 40, 120]), ..host(false, 1_000_000, 0) });
    world.add(host(false, 1_000_000, 0));
    world.connect_all();
    let took = world.run(&[1], secs(60));
    assert!(ratio(took, world.size() / 2, 1_000_000) < 1.3, "{took:?}");
    assert_eq!(swarm(&world, 1).have().count(), 40);
    let told = |world: &World| {
        swarm(world, 2)
            .peers
            .values()
            .any(|peer| peer.extensions.upload_only && !peer.have.is_full())
    };
    assert!(world.run_until(secs(60), told));
    let took = world.run(&[2], secs(60));
    assert!(ratio(took, world.size() * 5 / 4, 1_000_000) < 1.15, "{took:?}");
    assert_eq!(world.nodes[1].stats().down_peers, world.size() / 4);
}

/// Peers are fast enough for the whole, and too slow for what is needed first.
#[test]
fn what_is_needed_first_comes_over_http_if_peers_are_late() {
    let mut world = world(960);
    world.add(host(true, 600_000, 0));
    world.add(Host { priorities: wishes([480, 480, 0]), ..host(false, 1_000_000, 1) });
    world.set_origin(2_000_000, Duration::from_millis(10));
    world.connect_all();
    let first = |world: &World| (0..480).all(|at| swarm(world, 1).have().has(PieceIndex(at)));
    assert!(world.run_until(secs(30), first), "{:?}", world.now);
    let http = world.nodes[1].stats().down_http;
    assert!((1..world.size() / 2).contains(&http), "{http}");
    world.run(&[1], secs(100));
    assert!(world.nodes[1].stats().down_http <= http + world.size() / 50);
}
