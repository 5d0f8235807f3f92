//! How peers find each other beside HTTP trackers: UDP trackers and peer exchange, with the clients of
//! other people, and against those who mean harm.
#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use updraft_tests::clients::{
    Aria2, Client as _, Libtorrent, OpenTracker, PEER_PORT, Transmission, make_torrent,
    read_torrent, scrape, until,
};
use updraft_tests::content::{self, parent};
use updraft_tests::hostile::{handshake, message};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place, Product};
use updraft_tests::process::Proc;

/// How long a swarm of some megabytes may take, with up to a minute until a client exchanges peers.
const SWARM_WAIT: Duration = Duration::from_secs(150);
/// How long a datagram may take in the lab.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Where our origin listens.
const ORIGIN_PORT: u16 = 8080;
/// The size of the content.
const BYTES: u64 = 12 << 20;

fn build(lab: &Lab, seed: u64) -> PathBuf {
    content::shared_game(lab.path("source/game"), seed, BYTES)
}

/// An origin whose releases name its UDP tracker and no other, and the torrent of one release.
fn udp_origin(lab: &Lab, node: &Node, source: &Path) -> (Product, Proc, PathBuf) {
    let listen = node.addr(ORIGIN_PORT);
    let product = Product::init(&Place::from(node), &lab.path("product"), "game", listen);
    product.configure("trackers", "[\"udp:announce\"]");
    product.publish(source, "1.0");
    let serving = product.serve();
    let torrents = std::fs::read_dir(product.repository().join("torrents"));
    let torrent = torrents.expect("torrents are published").flatten().next();
    (product, serving, torrent.expect("a release has a torrent").path())
}

/// libtorrent knows our seed from our UDP tracker alone, and our launcher finds libtorrent there.
#[test]
fn libtorrent_and_our_launcher_meet_at_our_udp_tracker() {
    let lab = Lab::new();
    let source = build(&lab, 1);
    let origin = lab.node();
    let (product, _serving, torrent) = udp_origin(&lab, &origin, &source);
    let mut client = Libtorrent::start(&lab.node());
    client.leech(&torrent, &lab.folder("into"));
    client.wait_done(&torrent, SWARM_WAIT);
    content::assert_same_contents(&source, &lab.path("into/game"), &[]);
    // Over HTTP the same swarm is seen, under either name.
    for hash in read_torrent(&torrent).tracker_hashes() {
        until("two seeds at our tracker", SWARM_WAIT, || {
            let counts = scrape(&origin, origin.addr(ORIGIN_PORT), &hash)?;
            (counts.0 >= 2).then_some(())
        });
    }
    let player = lab.node();
    let install = ours::Install::new(
        &Place::from(&player),
        "player",
        &lab.path("installed"),
        player.addr(PEER_PORT),
    );
    let installing = install.install(product.feed(), false);
    let report = ours::wait_complete(&installing, SWARM_WAIT);
    assert!(report.peers > 0, "{report:?}");
}

/// aria2 and Transmission read no hybrid torrents, but magnet links, and announce to our UDP tracker.
#[test]
fn aria2_and_transmission_get_peers_from_our_udp_tracker() {
    let lab = Lab::new();
    let source = build(&lab, 2);
    let origin = lab.node();
    let (_product, _serving, torrent) = udp_origin(&lab, &origin, &source);
    let hash = read_torrent(&torrent).tracker_hashes().remove(0);
    let tracker = format!("udp%3A%2F%2F{}%3A{ORIGIN_PORT}%2Fannounce", origin.ip);
    let link = format!("magnet:?xt=urn:btih:{hash}&tr={tracker}");
    // Whether they get to the end of such a torrent is their affair: they count in either column.
    let peers = |count: u64| {
        until("peers at our tracker", SWARM_WAIT, || {
            let (seeders, leechers) = scrape(&origin, origin.addr(ORIGIN_PORT), &hash)?;
            (seeders + leechers >= count).then_some(())
        });
    };
    peers(1);
    let mut aria2 = Aria2::start_with_udp(&lab, &lab.node());
    aria2.add_magnet(&link);
    peers(2);
    let mut transmission = Transmission::start(&lab, &lab.node());
    transmission.add_magnet(&link);
    peers(3);
    until("Transmission is told of peers", SWARM_WAIT, || {
        // Our seed and aria2.
        (transmission.peers_of_trackers() >= 2).then_some(())
    });
}

/// Both our programs announce to somebody else's UDP tracker, and nowhere else.
#[test]
fn our_programs_meet_at_opentracker_over_udp() {
    let lab = Lab::new();
    let source = build(&lab, 3);
    let tracker_node = lab.node();
    let torrent = lab.path("game.torrent");
    ours::create_torrent(&source, &torrent, "hybrid", &[OpenTracker::udp_url(&tracker_node)]);
    let hashes = read_torrent(&torrent).tracker_hashes();
    let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
    let node = lab.node();
    let _seed = ours::seed(&Place::from(&node), &torrent, parent(&source), node.addr(PEER_PORT));
    for hash in &hashes {
        tracker.wait_seeds(hash, 1);
    }
    let node = lab.node();
    let into = lab.folder("into");
    let place = Place::from(&node);
    let mut fetch = ours::fetch(&place, &torrent, &into, node.addr(PEER_PORT), &[], false);
    fetch.finish(SWARM_WAIT);
    content::assert_same(&source, &into.join("game"), &[]);
}

/// Two libtorrents know nobody but our launcher, which has nothing to give but the other's address.
#[test]
fn libtorrent_learns_of_peers_from_us() {
    let lab = Lab::new();
    let source = build(&lab, 4);
    let torrent = lab.path("game.torrent");
    make_torrent(&source, &torrent, "hybrid", &[]);
    let hub = lab.node();
    let into = lab.folder("hub");
    let at = hub.addr(PEER_PORT);
    let _hub = ours::fetch(&Place::from(&hub), &torrent, &into, at, &[], true);
    let nodes = [lab.node(), lab.node()];
    let mut clients = nodes.each_ref().map(Libtorrent::start);
    for (index, client) in clients.iter_mut().enumerate() {
        client.add(&torrent, &lab.folder(&format!("into{index}")), &[at]);
    }
    let others = [nodes[1].ip.to_string(), nodes[0].ip.to_string()];
    until("libtorrents meet", SWARM_WAIT, || {
        let mut met = clients.iter_mut().zip(&others);
        met.any(|(client, other)| client.met_by_exchange(&torrent).contains(other)).then_some(())
    });
}

/// Our launcher knows nobody but a libtorrent that is slow, and that is connected to our seed.
#[test]
fn we_learn_of_peers_from_libtorrent() {
    let lab = Lab::new();
    let source = build(&lab, 5);
    let torrent = lab.path("game.torrent");
    make_torrent(&source, &torrent, "hybrid", &[]);
    // At addresses that are far apart: libtorrent does not limit what it sends on a LAN.
    let (seed, hub, player) = (lab.node(), lab.node(), lab.node());
    let seed_at = seed.wide_addr(PEER_PORT);
    let _seed = ours::seed(&Place::from(&seed), &torrent, parent(&source), seed_at);
    let limits = serde_json::json!({"download_rate_limit": 20_000, "upload_rate_limit": 20_000});
    let hub_at = hub.wide_addr(PEER_PORT);
    let mut client = Libtorrent::start_on(&hub, &hub_at.to_string(), &limits);
    client.add(&torrent, &lab.folder("hub"), &[seed_at]);
    let into = lab.folder("into");
    let place = Place::from(&player);
    let listen = player.wide_addr(PEER_PORT);
    let mut fetch = ours::fetch(&place, &torrent, &into, listen, &[hub_at], false);
    // From the libtorrent alone it would take ten minutes.
    fetch.finish(SWARM_WAIT);
    content::assert_same(&source, &into.join("game"), &[]);
    assert!(client.uploaded(&torrent) < BYTES / 2, "most came from the seed");
}

const MAGIC: [u8; 8] = [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80];

fn datagram(first: [u8; 8], action: u32, transaction: u32, rest: &[u8]) -> Vec<u8> {
    let mut out = first.to_vec();
    out.extend(action.to_be_bytes());
    out.extend(transaction.to_be_bytes());
    out.extend(rest);
    out
}

/// The fields of an announce after its head, by hand: 200 peers wanted, listening at port 7.
fn announce(hash: &[u8], id: u8) -> Vec<u8> {
    let mut out = hash.to_vec();
    out.extend([id; 20]);
    out.extend([[0; 8], [0, 0, 0, 0, 0, 0, 0, 9], [0; 8]].concat());
    out.extend([0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 200, 0, 7]);
    out
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
    digits.map(|pair| byte(pair).expect("hexadecimal digits")).collect()
}

struct Asker {
    socket: UdpSocket,
}

impl Asker {
    fn at(node: &Node, own: SocketAddr, to: SocketAddr) -> Self {
        let socket = node.inside(move || {
            let socket = UdpSocket::bind(own)?;
            socket.connect(to)?;
            Ok::<_, std::io::Error>(socket)
        });
        let socket = socket.expect("a socket can be opened");
        socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a socket has a time limit");
        Self { socket }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).expect("a datagram can be sent");
    }

    /// The next answer, which must belong to `transaction`: nothing that was sent before was answered.
    fn answer(&self, transaction: u32) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let len = self.socket.recv(&mut buffer).expect("the tracker answers");
        assert_eq!(buffer[4..8], transaction.to_be_bytes(), "this was not to be answered");
        buffer[..len].to_vec()
    }

    fn connect(&self, transaction: u32) -> [u8; 8] {
        self.send(&datagram(MAGIC, 0, transaction, &[]));
        let answer = self.answer(transaction);
        assert_eq!((answer.len(), &answer[..4]), (16, &[0; 4][..]));
        answer[8..].try_into().expect("eight bytes")
    }
}

/// Nonsense, ids of others and forged addresses are not answered, and do not hold up who means well,
/// over IPv4 and IPv6.
#[test]
fn our_udp_tracker_answers_nobody_it_does_not_know() {
    let lab = Lab::new();
    let source = build(&lab, 6);
    let origin = lab.node();
    let listen = SocketAddr::from(([0, 0, 0, 0], ORIGIN_PORT));
    let product = Product::init(&Place::from(&origin), &lab.path("product"), "game", listen);
    product.publish(&source, "1.0");
    let _serving = product.serve();
    let torrents = std::fs::read_dir(product.repository().join("torrents"));
    let torrent = torrents.expect("torrents are published").flatten().next();
    let torrent = torrent.expect("a release has a torrent").path();
    let hash = bytes_of(&read_torrent(&torrent).tracker_hashes()[0]);
    let (node, other) = (lab.node(), lab.node());
    let pairs = [
        (node.addr(0), other.addr(0), origin.addr(ORIGIN_PORT), 6),
        (node.addr6(0), other.addr6(0), origin.addr6(ORIGIN_PORT), 18),
        // The answer must leave from the address that was asked, though another one is nearer.
        (node.addr(0), other.addr(0), origin.wide_addr(ORIGIN_PORT), 6),
    ];
    for (round, (own, others, to, stride)) in (0u8..).zip(pairs) {
        let asker = Asker::at(&node, own, to);
        let stranger = Asker::at(&other, others, to);
        let id = asker.connect(1);
        let theirs = stranger.connect(2);
        assert_ne!(id, theirs);
        asker.send(b"");
        asker.send(&[0; 15]);
        asker.send(&datagram(MAGIC, 9, 3, &[]));
        asker.send(&datagram([0; 8], 0, 3, &[]));
        asker.send(&datagram([7; 8], 1, 3, &announce(&hash, 1)));
        asker.send(&datagram(theirs, 1, 3, &announce(&hash, 1)));
        asker.send(&datagram(id, 1, 3, &announce(&hash, 1)[..81]));
        asker.send(&datagram(id, 2, 3, &hash[..19]));
        asker.send(&datagram([7; 8], 2, 3, &hash));
        asker.send(&datagram(id, 1, 4, &announce(&hash, 2 * round + 1)));
        let answer = asker.answer(4);
        assert_eq!((answer[3], (answer.len() - 20) % stride), (1, 0));
        stranger.send(&datagram(theirs, 1, 5, &announce(&hash, 2 * round + 2)));
        let answer = stranger.answer(5);
        let peers: Vec<&[u8]> = answer[20..].chunks(stride).collect();
        // Our seed, and who has announced itself.
        assert!(peers.len() >= 2, "{peers:?}");
        assert!(peers.iter().any(|peer| peer.ends_with(&[0, 7])), "{peers:?}");
        stranger.send(&datagram(theirs, 2, 6, &hash));
        let answer = stranger.answer(6);
        assert_eq!((answer[3], answer.len()), (2, 8 + 12));
        stranger.send(&datagram(theirs, 1, 7, &announce(&[9; 20], 1)));
        assert_eq!(stranger.answer(7)[3], 3, "an unknown torrent is an error");
    }
}

/// A peer that sends address upon address is thrown out, and the download goes on.
#[test]
fn a_flood_of_addresses_does_no_harm() {
    let lab = Lab::new();
    let source = build(&lab, 7);
    let torrent = lab.path("game.torrent");
    make_torrent(&source, &torrent, "hybrid", &[]);
    let hash = bytes_of(&read_torrent(&torrent).tracker_hashes()[0]);
    let (player, hostile, seed) = (lab.node(), lab.node(), lab.node());
    let at = player.addr(PEER_PORT);
    let seed_at = seed.addr(PEER_PORT);
    let place = Place::from(&player);
    let into = lab.folder("into");
    let mut fetch = ours::fetch(&place, &torrent, &into, at, &[seed_at], false);
    let mut stream = until("our launcher listens", SWARM_WAIT, || hostile.connect(at).ok());
    stream.set_read_timeout(Some(SWARM_WAIT)).expect("a socket has a time limit");
    let hash = hash.try_into().expect("twenty bytes");
    // BEP 10: the reserved bit for extensions.
    let mut hello = handshake(hash, b"-HO0001-aaaaaaaaaaaa");
    hello[25] |= 0x10;
    stream.write_all(&hello).expect("a handshake can be sent");
    let mut flood = b"\x03d5:added6000:".to_vec();
    flood.extend((0u16..1000).flat_map(|n| {
        let [high, low] = n.to_be_bytes();
        [198, 51, high, low, 0, 80]
    }));
    flood.push(b'e');
    let mut sent = 0;
    while sent < 1000 && stream.write_all(&message(20, &flood)).is_ok() {
        sent += 1;
    }
    // Until the other end closes.
    let closed = stream.read_to_end(&mut Vec::new());
    assert!(!matches!(&closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    let _seed = ours::seed(&Place::from(&seed), &torrent, parent(&source), seed_at);
    fetch.finish(SWARM_WAIT);
    content::assert_same(&source, &into.join("game"), &[]);
}

/// A player who agreed to upload asks the router for both ports, and gives them back; nobody else does.
#[test]
fn the_router_is_asked_to_let_others_in() {
    let lab = Lab::new();
    let source = build(&lab, 9);
    let torrent = lab.path("game.torrent");
    ours::create_torrent(&source, &torrent, "hybrid", &[]);
    let (router_node, node) = (lab.node(), lab.node());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/gateway.py").to_owned();
    let router = router_node.spawn("router", "python3", &[script, router_node.ip.to_string()]);
    router.wait_json("its start", ours::READY_WAIT, |event| (event["event"] == "up").then_some(()));
    let seed = |flags: &[&str]| {
        let flags = [&["--no-lan", "--stay"], flags].concat();
        let (place, listen) = (Place::from(&node), node.addr(PEER_PORT));
        let seed = ours::fetch_with(&place, &torrent, parent(&source), listen, &[], &flags);
        seed.wait_json("seeding", ours::READY_WAIT, |event| {
            (event["event"] == "seeding").then_some(())
        });
        seed
    };
    for flags in [&["--upload", "no"][..], &["--upload", "yes", "--no-port-mapping"]] {
        let mut silent = seed(flags);
        silent.terminate();
        silent.wait_exit(ours::READY_WAIT);
    }
    let mut open = seed(&["--upload", "yes"]);
    let asked = |what: &str| {
        let all = router.json().into_iter().filter(|event| event["event"] == what);
        let mut ports: Vec<(String, String)> = all
            .map(|event| (event["NewProtocol"].to_string(), event["NewExternalPort"].to_string()))
            .collect();
        ports.sort();
        ports
    };
    let both: Vec<(String, String)> =
        ["\"TCP\"", "\"UDP\""].map(|kind| (kind.into(), format!("\"{PEER_PORT}\""))).into();
    until("the router is asked", SWARM_WAIT, || (asked("AddPortMapping") == both).then_some(()));
    let inside = router.json().into_iter().filter(|event| event["event"] == "AddPortMapping");
    assert!(inside.into_iter().all(|event| event["NewInternalClient"] == node.ip.to_string()));
    assert_eq!(asked("DeletePortMapping"), []);
    open.terminate();
    open.wait_exit(ours::READY_WAIT);
    until("both come back", SWARM_WAIT, || (asked("DeletePortMapping") == both).then_some(()));
}

/// Whatever says that it is a router: answers without an end, and a thousand that are none, cost a transfer nothing.
#[test]
fn a_rogue_router_does_no_harm() {
    let lab = Lab::new();
    let source = build(&lab, 10);
    let torrent = lab.path("game.torrent");
    ours::create_torrent(&source, &torrent, "hybrid", &[]);
    let (router_node, seed_node, node) = (lab.node(), lab.node(), lab.node());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/gateway.py").to_owned();
    let arguments = [script, router_node.ip.to_string(), "rogue".to_owned()];
    let router = router_node.spawn("rogue router", "python3", &arguments);
    router.wait_json("its start", ours::READY_WAIT, |event| (event["event"] == "up").then_some(()));
    let seed_at = seed_node.addr(PEER_PORT);
    let into = lab.folder("into");
    let flags = ["--no-lan", "--stay", "--upload", "yes"];
    let place = Place::from(&node);
    let mut fetch =
        ours::fetch_with(&place, &torrent, &into, node.addr(PEER_PORT), &[seed_at], &flags);
    router.wait_json("a question", SWARM_WAIT, |event| (event["event"] == "asked").then_some(()));
    let before = fetch.resident();
    let _seed = ours::seed(&Place::from(&seed_node), &torrent, parent(&source), seed_at);
    ours::wait_complete(&fetch, SWARM_WAIT);
    content::assert_same(&source, &into.join("game"), &[]);
    let grown = fetch.resident_peak().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    fetch.terminate();
    fetch.wait_exit(ours::READY_WAIT);
}
