//! Small worlds of engines under virtual time: each test is a situation and what must come of it.

mod holepunch;
mod packs;
mod parcels;
mod pex;
mod sources;
mod transport;

use super::*;
use crate::geometry::{BLOCK_LEN, Block};
use crate::ids::PieceIndex;
use crate::policy::transport::Preference;
use crate::simulation::{Behaviour, Crowd, Host, Report, World, addr};
use crate::wire::extension::MetadataMessage;

const PIECE: u32 = 64 * 1024;

/// An engine that wants nothing special, with the name 1.
pub(super) fn plain_config() -> Config {
    Config {
        peer_id: PeerId([1; 20]),
        client: "alone".into(),
        listen_port: None,
        quic_port: None,
        transport: Preference::Tcp,
        connections_max: 50,
        upload: UploadPolicy::Everyone,
        documents: false,
        private: false,
        spread: false,
        info: None,
        sources: 0,
        packs: Vec::new(),
        link: None,
        supplied: false,
        parcels: false,
        seed: 1,
    }
}

fn world(pieces: u32) -> World {
    World::new(77, pieces, PIECE)
}

/// A host with `sources` HTTP sources, connected by hand.
fn host(seed: bool, up: u64, sources: usize) -> Host {
    let base = if seed { Host::seed(up) } else { Host::leech(up) };
    Host { sources, ..base }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn swarm(world: &World, host: usize) -> &Swarm {
    world.nodes[host].swarm.as_ref().expect("the host is there")
}

/// `took` as a multiple of the time that `bytes` take at `rate`.
fn ratio(took: Duration, bytes: u64, rate: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let bound = bytes as f64 / rate as f64;
    took.as_secs_f64() / bound
}

#[test]
fn a_pair_fills_the_link() {
    let mut world = world(400);
    world.add(host(true, 2_000_000, 0));
    world.add(host(false, 2_000_000, 0));
    world.connect_all();
    let took = world.run(&[1], secs(100));
    assert!(ratio(took, world.size(), 2_000_000) < 1.06, "{took:?}");
    assert_eq!(world.nodes[1].stats().wasted, 0);
    assert_eq!(world.nodes[0].stats().up, world.size());
}

/// The swarm that rivals were measured in, and a larger one with smaller pieces.
#[test]
fn a_crowd_is_done_near_the_fluid_bound() {
    for crowd in [Crowd::plain(16, 160, 4 * PIECE), Crowd::plain(60, 320, 2 * PIECE)] {
        let (mut world, leechers) = crowd.world();
        world.run(&leechers, secs(600));
        let report = Report::of(&world, &leechers);
        assert!(report.last < 1.15, "{report:?}");
        assert!(report.wasted < 0.02 && report.tail < 0.08, "{report:?}");
        assert!(report.first_copy < 1.15 && report.seed_idle < 0.1, "{report:?}");
    }
}

/// All places are taken by peers that have nothing to give: who comes later gets one of them when they
/// have been of no use for long, and not before.
#[test]
fn who_is_of_no_use_makes_place() {
    let mut world = world(40);
    let full = world.add(Host { connections: 2, ..Host::leech(1_000_000) });
    let idle = [1, 2].map(|_| world.add(Host::leech(1_000_000)));
    idle.iter().for_each(|&host| world.connect(full, host));
    let seed = world.add(host(true, 1_000_000, 0));
    let peers = |world: &World| swarm(world, full).peers().len();
    for (at, refused) in [(60, true), (130, false)] {
        world.run_until(secs(at), |_| false);
        assert_eq!(
            swarm(&world, full).refuses(secs(at), addr(seed), false, None),
            refused,
            "{at} s"
        );
        assert_eq!(peers(&world), 2);
    }
    world.connect(seed, full);
    assert_eq!(peers(&world), 2);
    world.run(&[full], secs(200));
}

#[test]
fn the_origin_may_go_once_one_copy_is_out() {
    let mut world = world(160);
    world.add(host(true, 2_500_000, 0));
    for _ in 0..5 {
        world.add(host(false, 1_250_000, 0));
    }
    world.connect_all();
    let out = |world: &World| {
        world.geometry.pieces().all(|piece| {
            world.nodes[1..].iter().any(|node| node.swarm.as_ref().unwrap().have().has(piece))
        })
    };
    world.run_until(secs(100), out);
    assert!(out(&world) && world.nodes[1..].iter().all(|node| node.complete_at.is_none()));
    world.leave(0);
    world.run(&[1, 2, 3, 4, 5], secs(200));
}

#[test]
fn a_liar_is_thrown_out_and_harms_nobody() {
    let mut world = world(160);
    world.add(host(true, 1_000_000, 0));
    let liar = world.add(Host { behaviour: Behaviour::Liar, ..host(true, 1_000_000, 0) });
    for _ in 0..3 {
        world.add(host(false, 1_000_000, 0));
    }
    world.connect_all();
    world.run(&[2, 3, 4], secs(200));
    assert!(world.banned.iter().all(|&(_, banned)| banned == addr(liar)), "{:?}", world.banned);
    assert_eq!(world.banned.len(), 3);
}

/// However late the verdicts and however fast the liar: it wastes what may be out at somebody who has
/// not been found right yet, a piece begun, and the one more that its first wrong one cost.
#[test]
fn a_fast_liar_wastes_little_before_its_first_verdict() {
    for (piece, most) in [(BLOCK_LEN, 9 * BLOCK_LEN), (16 * BLOCK_LEN, 64 * BLOCK_LEN)] {
        let mut world = World::new(77, 4096 * BLOCK_LEN / piece, piece);
        let liar = Host { behaviour: Behaviour::Liar, ..host(true, 100_000_000, 0) };
        let liar = world.add(liar);
        let honest = world.add(Host { disk: Duration::from_millis(500), ..Host::leech(1_000_000) });
        world.connect_all();
        world.run_until(secs(20), |world| !world.banned.is_empty());
        assert_eq!(world.banned, [(honest, addr(liar))]);
        let came = world.nodes[honest].stats().down_peers;
        assert!(came <= u64::from(most), "{came} of at most {most} with pieces of {piece}");
    }
}

#[test]
fn a_peer_that_falls_silent_holds_nobody_up() {
    let mut world = world(160);
    world.add(host(true, 1_000_000, 0));
    world.add(host(true, 1_000_000, 0));
    world.add(host(false, 1_000_000, 0));
    world.connect_all();
    world.run_until(secs(2), |_| false);
    world.silence(0);
    let took = world.run(&[2], secs(100));
    // The rest at half the rate, and the endgame's patience.
    assert!(took < secs(20), "{took:?}");
}

#[test]
fn http_carries_it_when_nobody_is_there() {
    let mut world = world(160);
    world.add(host(false, 1_000_000, 1));
    world.set_origin(10_000_000, Duration::from_millis(10));
    let took = world.run(&[0], secs(100));
    assert!(took < secs(6), "{took:?}");
    assert_eq!(world.nodes[0].stats().down_http, world.size());
}

#[test]
fn http_is_left_alone_while_peers_deliver() {
    let mut world = world(320);
    world.add(host(true, 1_000_000, 0));
    world.add(host(false, 1_000_000, 1));
    world.set_origin(10_000_000, Duration::from_millis(10));
    world.connect_all();
    world.run(&[1], secs(100));
    assert_eq!(world.nodes[1].stats().down_http, 0);
}

#[test]
fn http_gives_a_new_peer_the_time_to_say_what_it_has() {
    let mut world = world(320);
    world.add(host(true, 1_000_000, 0));
    world.add(host(false, 1_000_000, 1));
    world.set_origin(10_000_000, Duration::from_millis(10));
    world.connect_all();
    world.input(1, Input::TrackersAsked);
    world.run(&[1], secs(100));
    assert_eq!(world.nodes[1].stats().down_http, 0);
}

#[test]
fn http_takes_over_when_the_peers_fall_silent() {
    let mut world = world(320);
    world.add(host(true, 500_000, 0));
    world.add(host(false, 500_000, 1));
    world.set_origin(10_000_000, Duration::from_millis(10));
    world.connect_all();
    world.run_until(secs(5), |_| false);
    world.silence(0);
    let took = world.run(&[1], secs(200));
    assert!(took < secs(60), "{took:?}");
    assert!(world.nodes[1].stats().down_http > 0);
}

#[test]
fn limits_hold_both_ways() {
    for (up, down) in [(Some(200_000), None), (None, Some(200_000)), (Some(200_000), Some(150_000))]
    {
        let mut world = world(64);
        world.add(Host { limit_up: up, ..host(true, 10_000_000, 0) });
        let leech = host(false, 10_000_000, 0);
        for _ in 0..2 {
            world.add(Host { limit_up: Some(0), limit_down: down, ..leech.clone() });
        }
        world.connect_all();
        let took = world.run(&[1, 2], secs(300));
        let copies = if up.is_some() { 2 } else { 1 };
        let t = ratio(took, copies * world.size(), 200_000);
        assert!((0.95..1.1).contains(&t), "{t} of the time the limit allows");
    }
}

/// What was asked for and does not come is not charged to the limit: others bring it at the whole of it.
#[test]
fn who_rejects_or_chokes_does_not_use_up_the_limit() {
    for behaviour in [Behaviour::Boaster, Behaviour::Fickle] {
        let mut world = world(64);
        let fickle = Host { behaviour, ..host(true, 1_000_000, 0) };
        let nothing = Some(Bitfield::empty(64));
        for _ in 0..6 {
            let have = nothing.clone().filter(|_| behaviour == Behaviour::Boaster);
            world.add(Host { have, ..fickle.clone() });
        }
        world.add(host(true, 1_000_000, 0));
        let leech = world.add(Host { limit_down: Some(100_000), ..host(false, 1_000_000, 0) });
        world.connect_all();
        let took = world.run(&[leech], secs(300));
        let t = ratio(took, world.size(), 100_000);
        assert!(t < 1.1, "{behaviour:?}: {t} of the time the limit allows");
    }
}

#[test]
fn without_consent_nothing_leaves_the_lan() {
    let mut world = world(16);
    let seed = world.add(host(true, 1_000_000, 0));
    world.add(host(false, 1_000_000, 0));
    world.input(seed, Input::SetUpload(UploadPolicy::LanOnly));
    world.connect_all();
    world.run_until(secs(60), |_| false);
    assert_eq!(world.nodes[seed].stats().up, 0);
    world.input(seed, Input::SetUpload(UploadPolicy::Everyone));
    world.run(&[1], secs(120));
}

#[test]
fn whoever_shall_send_nothing_stops_at_once() {
    let mut world = world(16);
    let seed = world.add(host(true, 1_000_000, 0));
    world.add(host(false, 1_000_000, 0));
    world.connect_all();
    world.run_until(secs(60), |world| world.nodes[0].stats().up > 1_000_000);
    world.input(seed, Input::SetUpload(UploadPolicy::Nobody));
    let sent = world.nodes[seed].stats().up;
    world.run_until(secs(60), |_| false);
    // What the disk was reading already.
    let more = world.nodes[seed].stats().up - sent;
    assert!(more <= 1 << 20, "{more} bytes more");
    world.input(seed, Input::SetUpload(UploadPolicy::Everyone));
    world.run(&[1], secs(120));
}

/// An idle engine sleeps: whatever it was told, its next wake-up is never now.
#[test]
fn an_idle_engine_sleeps() {
    for seed in [true, false] {
        let mut world = world(16);
        let node = world.add(host(seed, 1_000_000, 0));
        world.input(node, Input::Peers((1..200).map(addr).collect()));
        world.input(node, Input::DialFailed { addr: addr(3) });
        for _ in 0..100 {
            world.now += Duration::from_millis(1500);
            world.input(node, Input::Timeout);
            let state = &world.nodes[node];
            let wake = state.swarm.as_ref().unwrap().poll_timeout(&state.limiter);
            assert!(wake.is_none_or(|wake| wake > world.now), "{wake:?} at {:?}", world.now);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |random| {
        let crowd = Crowd { slow: 5, liars: 5, leaves: 5, random, ..Crowd::mixed(20, 64, PIECE) };
        let (mut world, leechers) = crowd.world();
        world.run(&leechers, secs(1000));
        world.trace()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn hostile_messages_end_the_connection_and_nothing_else() {
    let messages = [
        Message::Have(PieceIndex(99)),
        Message::Bitfield(Bytes::from_static(&[0xff; 9])),
        Message::Request(Block { piece: PieceIndex(99), offset: 0, len: 1 }),
        Message::Request(Block { piece: PieceIndex(0), offset: u32::MAX, len: u32::MAX }),
        Message::AllowedFast(PieceIndex(u32::MAX)),
        Message::Extended { id: 0, payload: Bytes::from_static(b"i1e") },
    ];
    for message in messages {
        let mut world = world(16);
        world.add(host(true, 1_000_000, 0));
        world.add(host(false, 1_000_000, 0));
        world.connect_all();
        let text = format!("{message:?}");
        world.input(0, Input::Received { peer: PeerKey(1), message });
        assert_eq!(world.banned, [(0, addr(1))], "{text}");
        world.run_until(secs(5), |_| false);
    }
}

#[test]
fn an_answer_that_breaks_off_leaves_no_piece_behind() {
    let mut world = world(160);
    world.add(host(false, 1_000_000, 1));
    world.set_origin(10_000_000, Duration::from_millis(10));
    world.nodes[0].http_breaks = 3;
    let took = world.run(&[0], secs(100));
    assert!(took < secs(30), "{took:?}");
}

#[test]
fn a_half_piece_of_a_peer_that_left_is_finished_over_http() {
    let mut world = world(16);
    world.add(host(true, 100_000, 0));
    world.add(host(false, 100_000, 1));
    world.set_origin(10_000_000, Duration::from_millis(10));
    world.connect_all();
    let begun = |world: &World| world.nodes[1].stats().down_peers >= 5 * 16_384;
    world.run_until(secs(10), begun);
    world.leave(0);
    world.run(&[1], secs(60));
}

#[test]
fn the_only_peer_may_be_as_slow_as_it_likes() {
    let mut world = world(2);
    world.add(host(true, 600, 0));
    world.add(host(false, 600, 0));
    world.connect_all();
    let took = world.run(&[1], secs(1000));
    assert!(took < secs(300), "{took:?}");
}

#[test]
fn a_request_taken_back_costs_nobody_its_word() {
    let mut world = world(64);
    world.add(host(true, 1_000_000, 0));
    world.add(host(true, 30_000, 0));
    world.add(host(false, 1_000_000, 0));
    world.connect_all();
    world.run(&[2], secs(60));
    world.run_until(world.now + Duration::from_millis(500), |_| false);
    assert!(swarm(&world, 2).peers.values().all(|peer| peer.have.is_full()));
}

#[test]
fn a_peer_without_metadata_may_say_what_it_has_late() {
    let mut world = world(16);
    world.add(host(true, 1_000_000, 0));
    world.add(host(false, 1_000_000, 0));
    world.connect_all();
    let ask = MetadataMessage::Request { piece: 0 }.encode();
    for message in [
        Message::Extended { id: 0, payload: ExtensionHandshake::default().encode() },
        Message::Extended { id: ours::METADATA, payload: ask },
        Message::HaveNone,
    ] {
        world.input(0, Input::Received { peer: PeerKey(1), message });
    }
    assert!(world.banned.is_empty(), "{:?}", world.banned);
}

#[test]
fn a_lost_piece_is_asked_for_again() {
    let mut world = world(16);
    world.add(host(true, 1_000_000, 0));
    world.add(host(false, 1_000_000, 0));
    world.connect_all();
    world.run(&[1], secs(60));
    world.nodes[1].complete_at = None;
    world.input(1, Input::Lost { piece: PieceIndex(3) });
    // Two seeds had parted.
    world.input(1, Input::Peers(vec![addr(0)]));
    world.run(&[1], secs(200));
}

#[test]
fn a_server_that_asks_for_rest_gets_it() {
    let mut world = world(160);
    world.add(host(false, 1_000_000, 1));
    world.set_origin(10_000_000, Duration::from_millis(10));
    (world.nodes[0].http_breaks, world.nodes[0].http_rest) = (3, Some(secs(40)));
    let took = world.run(&[0], secs(200));
    assert!((secs(40)..secs(60)).contains(&took), "{took:?}");
}

/// A disk that takes half a minute for a piece, a peer that takes everything and sends nothing, and one
/// that chokes at random: nobody else is held up by it.
#[test]
fn peers_that_stall_cost_others_little() {
    type Spoil = fn(&mut Host);
    let time = |spoil: Spoil| {
        let mut world = world(160);
        world.add(host(true, 2_500_000, 0));
        let mut spoilt = host(false, 1_000_000, 0);
        spoil(&mut spoilt);
        world.add(spoilt);
        for _ in 0..5 {
            world.add(host(false, 1_000_000, 0));
        }
        world.connect_all();
        world.run(&[2, 3, 4, 5, 6], secs(300))
    };
    let alone = time(|_| {});
    let stalls: [(&str, Spoil); 4] = [
        ("disk", |host| host.disk = secs(30)),
        ("hoarder", |host| host.behaviour = Behaviour::Hoarder),
        ("fickle", |host| host.behaviour = Behaviour::Fickle),
        ("drip", |host| (host.up, host.down) = (20_000, Some(20_000))),
    ];
    for (name, spoil) in stalls {
        let took = time(spoil);
        // One of seven uplinks is lost, and a fifth for the trouble.
        assert!(took < alone.mul_f64(7.0 / 6.0 * 1.2), "{name}: {took:?}, alone {alone:?}");
    }
}

/// A player's disk takes a minute for what it was given: the origin gives the same to others meanwhile.
#[test]
fn what_lies_on_a_disk_that_stands_still_is_given_to_others() {
    let mut world = world(400);
    world.add(host(true, 2_500_000, 0));
    world.add(Host { disk: secs(60), ..host(false, 1_250_000, 0) });
    for _ in 0..5 {
        world.add(host(false, 1_250_000, 0));
    }
    world.connect_all();
    assert!(world.run_until(secs(17), |world| world.first_copy.is_some()), "no copy is out");
}

/// A fast peer is given thousands of small pieces ahead, and none that it does not remember.
#[test]
fn no_more_is_given_than_a_peer_remembers() {
    let mut world = World::new(77, 60_000, 2048);
    world.add(host(true, 10_000_000, 0));
    world.add(host(false, 10_000_000, 0));
    world.connect_all();
    let took = world.run(&[1], secs(100));
    assert!(ratio(took, world.size(), 10_000_000) < 1.2, "{took:?}");
    assert_eq!(world.nodes[1].stats().wasted, 0);
}

/// One of our own clients wants what we have beside many others while we are not through ourselves: it alone
/// is chosen of its kind again and again, and is served each time.
#[test]
fn who_is_chosen_again_is_served_again() {
    let mut world = world(400);
    let mut have = Bitfield::full(400);
    have.remove(PieceIndex(399));
    world.add(Host { have: Some(have), ..host(false, 1_000_000, 0) });
    world.add(host(false, 1_000_000, 0));
    for _ in 0..8 {
        world.add(Host { foreign: true, ..host(false, 1000, 0) });
    }
    (1..10).for_each(|other| world.connect(0, other));
    let mut got = Vec::new();
    for seconds in (5..=30).step_by(5) {
        world.run_until(secs(seconds), |_| false);
        got.push(world.nodes[1].stats().down_peers);
    }
    assert!(got.windows(2).all(|pair| pair[1] > pair[0] + u64::from(PIECE)), "{got:?}");
}

/// The tracker dies when everybody has met, and the origin when one copy is out: those who are there
/// finish from one another.
#[test]
fn a_crowd_outlives_its_tracker_and_its_origin() {
    let (mut world, leechers) = Crowd::plain(12, 640, PIECE).world();
    world.kill_tracker(secs(3));
    assert!(world.run_until(secs(100), |world| world.first_copy.is_some()));
    assert!(leechers.iter().all(|&host| world.nodes[host].complete_at.is_none()));
    world.leave(0);
    let last = world.run(&leechers, secs(200));
    // Without the origin the others alone must send all copies but one.
    let alone = ratio(last, 12 * world.size(), 12 * 1_250_000);
    assert!(alone < 1.2, "{alone} of the time that the players alone need");
}

/// However often a peer asks for the same block and is choked, nothing that is counted runs over.
#[test]
fn asking_for_the_same_block_again_and_again_does_no_harm() {
    let mut world = world(16);
    world.add(host(true, 1_000, 0));
    world.add(host(false, 1_000, 0));
    world.connect_all();
    let block = Block { piece: PieceIndex(3), offset: 0, len: PIECE };
    for _ in 0..40 {
        for _ in 0..REQUESTS_IN_MAX {
            world.input(0, Input::Received { peer: PeerKey(1), message: Message::Request(block) });
        }
        world.input(0, Input::SetUpload(UploadPolicy::LanOnly));
        world.input(0, Input::SetUpload(UploadPolicy::Everyone));
    }
    let given: Vec<u32> = swarm(&world, 0)
        .peers
        .values()
        .flat_map(|peer| &peer.given)
        .map(|given| given.left)
        .collect();
    assert!(given.iter().all(|&left| left <= PIECE), "{given:?}");
}
