//! Our programs and the clients of other people, in both directions: they download what we seed, we
//! download what they seed, and all of them together finish.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use updraft_tests::clients::{
    Aria2, Client, Libtorrent, OpenTracker, PEER_PORT, Reading, Transmission, make_torrent,
    read_torrent, scrape, until,
};
use updraft_tests::content::{self, parent};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place, Product};
use updraft_tests::process::Proc;

/// How long a swarm of some megabytes may take; Transmission alone waits up to ten seconds between
/// its looks at the list of peers.
const SWARM_WAIT: Duration = Duration::from_secs(90);
/// Where our origin listens.
const ORIGIN_PORT: u16 = 8080;
/// The size of the content.
const BYTES: u64 = 12 << 20;

/// One kind of foreign client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Libtorrent,
    Aria2,
    Transmission,
}

impl Kind {
    fn start(self, lab: &Lab, node: &Node) -> Box<dyn Client> {
        match self {
            Self::Libtorrent => Box::new(Libtorrent::start(node)),
            Self::Aria2 => Box::new(Aria2::start(node)),
            Self::Transmission => Box::new(Transmission::start(lab, node)),
        }
    }

    /// The torrent formats it can read. Transmission 3.00 and aria2 1.36 stumble over the empty key in
    /// the file tree of a hybrid torrent, whoever made it: the one refuses the file, the other computes
    /// another info-hash.
    fn formats(self) -> &'static [&'static str] {
        match self {
            Self::Libtorrent => &["v1", "hybrid", "v2"],
            Self::Aria2 | Self::Transmission => &["v1"],
        }
    }
}

fn build(lab: &Lab, seed: u64) -> PathBuf {
    content::shared_game(lab.path("source/game"), seed, BYTES)
}

fn assert_arrived(source: &Path, into: &Path) {
    content::assert_same_contents(source, &into.join("game"), &[]);
}

#[test]
fn foreign_clients_serve_each_other() {
    let lab = Lab::new();
    let source = build(&lab, 1);
    let torrent = lab.path("game.torrent");
    let tracker_node = lab.node();
    let reading = make_torrent(&source, &torrent, "v1", &[OpenTracker::url(&tracker_node)]);
    let tracker = OpenTracker::start(&lab, &tracker_node, &reading.tracker_hashes());
    let mut seed = Libtorrent::start(&lab.node());
    seed.seed(&torrent, parent(&source));
    tracker.wait_seeds(&reading.tracker_hashes()[0], 1);
    let mut leeches = [Kind::Aria2, Kind::Transmission].map(|kind| kind.start(&lab, &lab.node()));
    for (index, leech) in leeches.iter_mut().enumerate() {
        leech.leech(&torrent, &lab.folder(&format!("leech{index}")));
    }
    for (index, leech) in leeches.iter_mut().enumerate() {
        leech.wait_done(&torrent, SWARM_WAIT);
        assert_arrived(&source, &lab.path(&format!("leech{index}")));
    }
}

/// Their client, with what it does by itself, downloads what our publisher created and seeds.
fn they_download(kind: Kind) {
    let lab = Lab::new();
    let source = build(&lab, 2);
    let tracker_node = lab.node();
    let torrents: Vec<_> =
        kind.formats().iter().map(|format| lab.path(&format!("{format}.torrent"))).collect();
    let mut hashes = Vec::new();
    for (format, torrent) in kind.formats().iter().zip(&torrents) {
        ours::create_torrent(&source, torrent, format, &[OpenTracker::url(&tracker_node)]);
        hashes.extend(read_torrent(torrent).tracker_hashes());
    }
    let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
    let mut client = kind.start(&lab, &lab.node());
    // One address each, or a client that knows one of our seeds would refuse the next.
    let _seeds: Vec<Proc> = torrents
        .iter()
        .map(|torrent| {
            let node = lab.node();
            ours::seed(&Place::from(&node), torrent, parent(&source), node.addr(PEER_PORT))
        })
        .collect();
    for torrent in &torrents {
        tracker.wait_seeds(&read_torrent(torrent).tracker_hashes()[0], 1);
    }
    for torrent in &torrents {
        client.leech(torrent, &lab.folder(&format!("into-{}", name(torrent))));
    }
    for torrent in &torrents {
        client.wait_done(torrent, SWARM_WAIT);
        assert_arrived(&source, &lab.path(&format!("into-{}", name(torrent))));
    }
}

fn name(torrent: &Path) -> String {
    torrent.file_stem().expect("a torrent has a name").to_string_lossy().into_owned()
}

#[test]
fn libtorrent_downloads_what_we_seed() {
    they_download(Kind::Libtorrent);
}

#[test]
fn transmission_downloads_what_we_seed() {
    they_download(Kind::Transmission);
}

#[test]
fn aria2_downloads_what_we_seed() {
    they_download(Kind::Aria2);
}

/// Our launcher downloads what their client seeds, from a torrent that libtorrent made.
fn we_download(kind: Kind) {
    let lab = Lab::new();
    let source = build(&lab, 3);
    let tracker_node = lab.node();
    let torrents: Vec<_> =
        kind.formats().iter().map(|format| lab.path(&format!("{format}.torrent"))).collect();
    let mut hashes = Vec::new();
    for (format, torrent) in kind.formats().iter().zip(&torrents) {
        let reading = make_torrent(&source, torrent, format, &[OpenTracker::url(&tracker_node)]);
        hashes.extend(reading.tracker_hashes());
    }
    let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
    let mut client = kind.start(&lab, &lab.node());
    for torrent in &torrents {
        let dir = lab.folder(&format!("from-{}", name(torrent)));
        content::copy_tree(&source, &dir.join("game"));
        client.seed(torrent, &dir);
    }
    for torrent in &torrents {
        tracker.wait_seeds(&read_torrent(torrent).tracker_hashes()[0], 1);
        let node = lab.node();
        let into = lab.folder(&format!("into-{}", name(torrent)));
        let mut fetch =
            ours::fetch(&Place::from(&node), torrent, &into, node.addr(PEER_PORT), &[], false);
        fetch.finish(SWARM_WAIT);
        content::assert_same(&source, &into.join("game"), &[]);
    }
}

#[test]
fn we_download_what_libtorrent_seeds() {
    we_download(Kind::Libtorrent);
}

#[test]
fn we_download_what_transmission_seeds() {
    we_download(Kind::Transmission);
}

#[test]
fn we_download_what_aria2_seeds() {
    we_download(Kind::Aria2);
}

/// What a .torrent file holds comes from our seed: the info dictionary (BEP 9), and for v2 the hashes of
/// pieces (BEP 52), without which libtorrent verifies nothing.
#[test]
fn libtorrent_downloads_by_magnet_links_of_what_we_seed() {
    for format in ["v1", "hybrid", "v2"] {
        let lab = Lab::new();
        let source = build(&lab, 7);
        let torrent = lab.path("game.torrent");
        ours::create_torrent(&source, &torrent, format, &[]);
        let link = &ours::magnet(&torrent);
        let node = lab.node();
        let listen = node.addr(PEER_PORT);
        let seed = ours::seed(&Place::from(&node), &torrent, parent(&source), listen);
        ours::wait_seeding(&seed, ours::READY_WAIT);
        let mut leech = Libtorrent::start(&lab.node());
        let into = lab.folder("into");
        leech.add_magnet(link, &into, &[listen]);
        leech.wait_done(Path::new(link), SWARM_WAIT);
        assert_arrived(&source, &into);
    }
}

/// Our launcher downloads what their client seeds by nothing but a link: by each name of the torrent, with
/// peers from a tracker, and from the link itself.
fn we_follow_links(kind: Kind) {
    let lab = Lab::new();
    let source = build(&lab, 8);
    let tracker_node = lab.node();
    let tracker_url = OpenTracker::url(&tracker_node);
    let torrents: Vec<_> =
        kind.formats().iter().map(|format| lab.path(&format!("{format}.torrent"))).collect();
    let mut readings = Vec::new();
    for (format, torrent) in kind.formats().iter().zip(&torrents) {
        let trackers = std::slice::from_ref(&tracker_url);
        readings.push(make_torrent(&source, torrent, format, trackers));
    }
    let hashes: Vec<String> = readings.iter().flat_map(Reading::tracker_hashes).collect();
    let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
    let node = lab.node();
    let mut client = kind.start(&lab, &node);
    for (torrent, reading) in torrents.iter().zip(&readings) {
        let dir = lab.folder(&format!("from-{}", name(torrent)));
        content::copy_tree(&source, &dir.join("game"));
        client.seed(torrent, &dir);
        tracker.wait_seeds(&reading.tracker_hashes()[0], 1);
        let v1 = reading.v1.iter().map(|hash| format!("xt=urn:btih:{hash}"));
        let v2 = reading.v2.iter().map(|hash| format!("xt=urn:btmh:1220{hash}"));
        let names: Vec<String> = v1.chain(v2).collect();
        let mut links: Vec<String> =
            names.iter().map(|name| format!("magnet:?{name}&tr={tracker_url}")).collect();
        links.push(format!("magnet:?{}&x.pe={}", names.join("&"), node.addr(PEER_PORT)));
        for (at, link) in links.iter().enumerate() {
            let node = lab.node();
            let into = lab.folder(&format!("into-{}-{at}", name(torrent)));
            let (place, link) = (Place::from(&node), Path::new(link));
            let mut fetch = ours::fetch(&place, link, &into, node.addr(PEER_PORT), &[], false);
            fetch.finish(SWARM_WAIT);
            content::assert_same(&source, &into.join("game"), &[]);
        }
    }
}

#[test]
fn we_follow_links_to_what_libtorrent_seeds() {
    we_follow_links(Kind::Libtorrent);
}

#[test]
fn we_follow_links_to_what_transmission_seeds() {
    we_follow_links(Kind::Transmission);
}

#[test]
fn we_follow_links_to_what_aria2_seeds() {
    we_follow_links(Kind::Aria2);
}

/// By links of our own seed. What a link led to is kept: who runs it again needs nobody for that.
#[test]
fn we_follow_links_to_what_we_seed() {
    for format in ["v1", "hybrid", "v2"] {
        let lab = Lab::new();
        let source = build(&lab, 9);
        let torrent = lab.path("game.torrent");
        ours::create_torrent(&source, &torrent, format, &[]);
        let link = ours::magnet(&torrent);
        let (seed_node, node) = (lab.node(), lab.node());
        let listen = seed_node.addr(PEER_PORT);
        let seed = ours::seed(&Place::from(&seed_node), &torrent, parent(&source), listen);
        ours::wait_seeding(&seed, ours::READY_WAIT);
        let (place, into, own) = (Place::from(&node), lab.folder("into"), node.addr(PEER_PORT));
        let mut fetch = ours::fetch(&place, Path::new(&link), &into, own, &[listen], false);
        fetch.finish(SWARM_WAIT);
        content::assert_same(&source, &into.join("game"), &[]);
        drop(seed);
        let mut again = ours::fetch(&place, Path::new(&link), &into, own, &[], false);
        again.finish(SWARM_WAIT);
    }
}

/// Nobody to ask is said at once; nobody who has it, after a while, with whom that is.
#[test]
fn a_link_that_leads_nowhere_says_whom_it_asked() {
    let lab = Lab::new();
    let link = format!("magnet:?xt=urn:btih:{}", "5".repeat(40));
    let node = lab.node();
    let (place, into, own) = (Place::from(&node), lab.folder("into"), node.addr(PEER_PORT));
    let alone = ["--no-lan", "--no-dht"];
    let nobody = ours::fetch_with(&place, Path::new(&link), &into, own, &[], &alone);
    let message = nobody.wait_json("an error", ours::READY_WAIT, |event| {
        (event["event"] == "error").then(|| event["message"].to_string())
    });
    assert!(message.contains("there is nobody to ask"), "{message}");
    drop(nobody);
    let link = format!("{link}&tr=http://{}:1/announce", node.ip);
    let other = lab.node();
    let asks = ours::fetch(&place, Path::new(&link), &into, own, &[other.addr(PEER_PORT)], false);
    let message = asks.wait_json("a warning", SWARM_WAIT, |event| {
        (event["event"] == "warning").then(|| event["message"].to_string())
    });
    for part in ["nobody has given", "of 1 peers named", "/announce: "] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// Three foreign clients and two of ours, one seed of ours that is slow enough that they need each
/// other, and everybody finishes.
#[test]
fn a_mixed_swarm_finishes() {
    let lab = Lab::new();
    let source = build(&lab, 4);
    let torrent = lab.path("game.torrent");
    let tracker_node = lab.node();
    ours::create_torrent(&source, &torrent, "v1", &[OpenTracker::url(&tracker_node)]);
    let hashes = read_torrent(&torrent).tracker_hashes();
    let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
    let seed_node = lab.slow_node("60mbit");
    let _seed =
        ours::seed(&Place::from(&seed_node), &torrent, parent(&source), seed_node.addr(PEER_PORT));
    tracker.wait_seeds(&hashes[0], 1);
    let kinds = [Kind::Libtorrent, Kind::Aria2, Kind::Transmission];
    let mut foreign = kinds.map(|kind| kind.start(&lab, &lab.node()));
    for (index, client) in foreign.iter_mut().enumerate() {
        client.leech(&torrent, &lab.folder(&format!("foreign{index}")));
    }
    let fetches: Vec<_> = (0..2)
        .map(|index| {
            let node = lab.node();
            let into = lab.folder(&format!("ours{index}"));
            ours::fetch(&Place::from(&node), &torrent, &into, node.addr(PEER_PORT), &[], true)
        })
        .collect();
    for (index, client) in foreign.iter_mut().enumerate() {
        client.wait_done(&torrent, SWARM_WAIT);
        assert_arrived(&source, &lab.path(&format!("foreign{index}")));
    }
    for (index, fetch) in fetches.iter().enumerate() {
        ours::wait_complete(fetch, SWARM_WAIT);
        content::assert_same(&source, &lab.path(&format!("ours{index}/game")), &[]);
    }
}

/// A release as `serve` offers it to stock clients: the torrent of the repository, our tracker.
#[test]
fn libtorrent_downloads_a_release_from_our_tracker() {
    let lab = Lab::new();
    let source = build(&lab, 5);
    let origin = lab.node();
    let product = Product::init(
        &Place::from(&origin),
        &lab.path("product"),
        "game",
        origin.addr(ORIGIN_PORT),
    );
    product.publish(&source, "1.0");
    let _origin = product.serve();
    let torrents = std::fs::read_dir(product.repository().join("torrents"));
    let torrent = torrents.expect("torrents are published").flatten().next();
    let torrent = torrent.expect("a release has a torrent").path();
    let mut client = Libtorrent::start(&lab.node());
    client.leech(&torrent, &lab.folder("into"));
    client.wait_done(&torrent, SWARM_WAIT);
    assert_arrived(&source, &lab.path("into"));
    // Our seed and, under either of its hashes, the new one.
    for hash in read_torrent(&torrent).tracker_hashes() {
        until("two seeds at our tracker", SWARM_WAIT, || {
            let counts = scrape(&origin, origin.addr(ORIGIN_PORT), &hash)?;
            (counts.0 >= 2).then_some(())
        });
    }
}
