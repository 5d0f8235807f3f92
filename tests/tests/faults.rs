//! Bad input and bad luck: peers, trackers and web servers that lie, damaged documents, full and
//! read-only disks, missing keys, taken ports. Each is a clear error or a ban and a go-on; nothing
//! outside the install is touched and nothing verified is lost.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use updraft_tests::clients::{PEER_PORT, read_torrent};
use updraft_tests::content;
use updraft_tests::hostile::{Flood, HostilePeer, Malice, WebServer, answer, hash_bytes};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    self, FETCH_FOLDER, Install, Place, Product, READY_WAIT, STATE_FOLDER, TRANSFER_WAIT,
};
use updraft_tests::process::Proc;

/// Where web servers of these tests listen.
const WEB_PORT: u16 = 8080;
/// The size of plain torrents.
const FILE_BYTES: u64 = 6 << 20;
/// The size of builds.
const BUILD_BYTES: u64 = 4 << 20;
/// What a program that refuses something may take.
const REFUSAL_WAIT: Duration = Duration::from_secs(60);
/// Nobody needs more resident memory than this to seed one torrent.
const RESIDENT_MAX: u64 = 64 << 20;

// ---- plain torrents: peers and trackers -----------------------------------------------------------

/// A lab with a torrent, a good seed, and a host to fetch on.
struct Swarm {
    lab: Lab,
    torrent: PathBuf,
    hash: [u8; 20],
    pieces: u32,
    seed: Proc,
    seed_addr: SocketAddr,
}

impl Swarm {
    fn new(format: &str, trackers: &[String], lab: Lab) -> Self {
        let source = lab.path("source/data.bin");
        content::write_file(&source, 11, FILE_BYTES);
        let torrent = lab.path("data.torrent");
        ours::create_torrent(&source, &torrent, format, trackers);
        let reading = read_torrent(&torrent);
        let hash = hash_bytes(&reading.tracker_hashes()[0]);
        let pieces = u32::try_from(FILE_BYTES.div_ceil(reading.piece_bytes)).expect("few pieces");
        let node = lab.node();
        let seed_addr = node.addr(PEER_PORT);
        let seed = ours::seed(&Place::from(&node), &torrent, &lab.path("source"), seed_addr);
        ours::wait_seeding(&seed, READY_WAIT);
        Self { lab, torrent, hash, pieces, seed, seed_addr }
    }

    fn fetch(&self, peers: &[SocketAddr]) -> Proc {
        let node = self.lab.node();
        let into = self.lab.folder("into");
        ours::fetch(&Place::from(&node), &self.torrent, &into, node.addr(PEER_PORT), peers, false)
    }

    fn assert_fetched(&self) {
        content::assert_same(&self.lab.path("source"), &self.lab.path("into"), &[FETCH_FOLDER]);
    }
}

/// One malicious peer of every kind and one honest seed.
fn check_hostile(format: &str, kinds: &[Malice]) {
    let swarm = Swarm::new(format, &[], Lab::new());
    let hostile: Vec<_> = kinds
        .iter()
        .map(|malice| {
            HostilePeer::start(&swarm.lab.node(), PEER_PORT, swarm.hash, swarm.pieces, *malice)
        })
        .collect();
    let peers: Vec<_> = hostile.iter().map(|peer| peer.addr).chain([swarm.seed_addr]).collect();
    let mut fetch = swarm.fetch(&peers);
    fetch.finish(TRANSFER_WAIT);
    swarm.assert_fetched();
    for (peer, malice) in hostile.iter().zip(kinds) {
        assert!(peer.connections() > 0, "{malice:?} was never met");
        assert!(peer.connections() < 8, "{malice:?} was dialled {} times", peer.connections());
    }
    assert!(swarm.seed.resident_peak() <= RESIDENT_MAX);
}

#[test]
fn noise_and_nonsense_do_not_stop_a_download() {
    let kinds = [
        Malice::Noise,
        Malice::NoiseAfterHandshake,
        Malice::WrongTorrent,
        Malice::Oversize,
        Malice::Unasked,
        Malice::Indices,
        Malice::HangUp,
        Malice::Silence,
    ];
    check_hostile("hybrid", &kinds);
}

#[test]
fn liars_are_found_out() {
    for format in ["v1", "v2"] {
        check_hostile(format, &[Malice::Lie, Malice::Lie]);
    }
}

#[test]
fn who_stalls_is_passed_over() {
    check_hostile("hybrid", &[Malice::Stall, Malice::Stall]);
}

#[test]
fn a_liar_alone_gets_a_clear_ban_and_never_a_file() {
    let swarm = Swarm::new("hybrid", &[], Lab::new());
    let liar =
        HostilePeer::start(&swarm.lab.node(), PEER_PORT, swarm.hash, swarm.pieces, Malice::Lie);
    let node = swarm.lab.node();
    let into = swarm.lab.folder("into");
    let listen = node.addr(PEER_PORT);
    let fetch = ours::fetch(&Place::from(&node), &swarm.torrent, &into, listen, &[liar.addr], true);
    fetch.wait_json("a word about the liar", REFUSAL_WAIT, |event| {
        let text = event.to_string();
        (event["event"] == "warning" && text.contains(&liar.addr.to_string())).then_some(())
    });
    assert!(fetch.json().iter().all(|event| event["event"] != "complete"));
}

#[test]
fn a_flood_of_requests_leaves_the_seed_useful_and_small() {
    let swarm = Swarm::new("hybrid", &[], Lab::new());
    let mut floods: Vec<_> = (0..3)
        .map(|_| {
            Flood::start(&swarm.lab.node(), swarm.seed_addr, swarm.hash, 100_000)
                .expect("the seed answers")
        })
        .collect();
    swarm.fetch(&[swarm.seed_addr]).finish(TRANSFER_WAIT);
    swarm.assert_fetched();
    assert!(
        swarm.seed.resident_peak() <= RESIDENT_MAX,
        "{} bytes resident",
        swarm.seed.resident_peak()
    );
    for flood in &mut floods {
        assert!(flood.sent > 0);
        flood.closed();
    }
}

#[test]
fn trackers_may_answer_anything() {
    let lab = Lab::new();
    let node = lab.node();
    let empty = lab.folder("empty");
    let tracker = WebServer::start(&node, WEB_PORT, &empty, |path, _| {
        Some(match path {
            "noise" => content::noise(1, 5_000),
            "failure" => answer("200 OK", b"d14:failure reason6:get oute"),
            "page" => answer("200 OK", b"<html><body>Welcome to the hotel</body></html>"),
            "error" => answer("500 Internal Server Error", b"oops"),
            "odd" => answer("200 OK", b"d8:intervali-5e5:peers7:1234567e"),
            "huge" => answer(
                "200 OK",
                format!("d8:intervali1e5:peers{}:{}e", 600_000, "A".repeat(600_000)).as_bytes(),
            ),
            "long" => answer("200 OK", &vec![b'd'; 3 << 20]),
            "names" => answer(
                "200 OK",
                b"d8:intervali60e5:peersld2:ip9:localhost4:porti-1eed2:ip3:::14:porti0eeee",
            ),
            "deep" => answer("200 OK", &[b'l'; 200_000]),
            "short" => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nd8:int".to_vec(),
            _ => answer("404 Not Found", b""),
        })
    });
    let kinds = [
        "noise", "failure", "page", "error", "odd", "huge", "long", "names", "deep", "short",
        "gone",
    ];
    let mut trackers: Vec<_> = kinds.iter().map(|kind| format!("{}{kind}", tracker.url)).collect();
    trackers.push("http://no-such-host.invalid/announce".to_owned());
    let swarm = Swarm::new("hybrid", &trackers, lab);
    swarm.fetch(&[swarm.seed_addr]).finish(TRANSFER_WAIT);
    swarm.assert_fetched();
    assert!(tracker.count("").0 > 0, "no tracker was asked");
}

#[test]
fn damaged_torrents_are_refused_by_name() {
    let lab = Lab::new();
    let source = lab.path("source/data.bin");
    content::write_file(&source, 12, 300_000);
    let torrent = lab.path("data.torrent");
    ours::create_torrent(&source, &torrent, "hybrid", &[]);
    let good = fs::read(&torrent).expect("the torrent was made");
    let bad = lab.path("bad.torrent");
    let node = lab.node();
    let into = lab.folder("into");
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("half".into(), good[..good.len() / 2].to_vec()),
        ("a page".into(), b"<html></html>".to_vec()),
        ("deep".into(), vec![b'l'; 500_000]),
        ("trailing".into(), [&good[..], b"e"].concat()),
    ];
    let path_key =
        good.windows(8).position(|window| window == b"data.bin").expect("the name is in it");
    let mut climbing = good;
    climbing[path_key..path_key + 8].copy_from_slice(b"../x.bin");
    cases.push(("climbing".into(), climbing));
    for (what, bytes) in cases {
        fs::write(&bad, bytes).expect("the torrent can be written");
        let mut fetch =
            ours::fetch(&Place::from(&node), &bad, &into, node.addr(PEER_PORT), &[], false);
        let text = fetch.fails(REFUSAL_WAIT);
        assert!(text.contains("bad.torrent"), "{what}: {text}");
        let mut show = Place::Here.publisher();
        show.args(["torrent", "show"]).arg(&bad);
        let text = Proc::start("torrent show", show).fails(REFUSAL_WAIT);
        assert!(text.contains("bad.torrent"), "{what}: {text}");
    }
    assert!(
        content::list(&into, &[FETCH_FOLDER]).is_empty(),
        "nothing is written for a refused torrent"
    );
    assert!(!lab.path("x.bin").exists());
}

// ---- products: documents and web servers ----------------------------------------------------------

/// A published product and a lab to serve it in.
struct World {
    lab: Lab,
    origin: Node,
    product: Product,
    build: PathBuf,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new();
        let origin = lab.node();
        let build = lab.path("build");
        content::game(&build, 21, BUILD_BYTES);
        let product = Product::init(
            &Place::from(&origin),
            &lab.path("product"),
            "game",
            origin.addr(WEB_PORT),
        );
        product.publish(&build, "1.0");
        Self { lab, origin, product, build }
    }

    fn install(&self, name: &str) -> Install {
        let node = self.lab.node();
        Install::new(&Place::from(&node), name, &self.lab.path(name), node.addr(PEER_PORT))
    }

    fn web(
        &self,
        tamper: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> WebServer {
        WebServer::start(&self.lab.node(), WEB_PORT, &self.product.repository(), tamper)
    }
}

/// Installs from a server that tampers; the attempt fails and its message holds `needles`.
fn check_refused(world: &World, name: &str, web: &WebServer, needles: &[&str]) {
    let install = world.install(name);
    let mut proc = install.install(world.product.feed_at(&web.url), false);
    let text = proc.fails(REFUSAL_WAIT);
    for needle in needles {
        assert!(text.contains(needle), "{name}: no `{needle}` in {text}");
    }
    let left = if install.dir.exists() {
        content::list(&install.dir, &[STATE_FOLDER])
    } else {
        Default::default()
    };
    assert!(left.is_empty(), "{name}: a refused release leaves no file: {left:?}");
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[test]
fn damaged_documents_are_refused_by_name() {
    let world = World::new();
    for (name, prefix) in [
        ("head", "head.toml"),
        ("root", "root/1.toml"),
        ("manifest", "manifests/"),
        ("torrent", "torrents/"),
    ] {
        let flip = world.web(move |path, bytes| {
            path.starts_with(prefix).then(|| answer("200 OK", &flipped(bytes, bytes.len() / 3)))
        });
        check_refused(&world, &format!("{name}-flipped"), &flip, &[]);
        let half = world.web(move |path, bytes| {
            path.starts_with(prefix).then(|| answer("200 OK", &bytes[..bytes.len() / 2]))
        });
        check_refused(&world, &format!("{name}-half"), &half, &[]);
        let page = world.web(move |path, _| {
            path.starts_with(prefix).then(|| answer("200 OK", b"<html>hotel</html>"))
        });
        // What it was meant to be is said; a manifest is a "release document" to the reader.
        let said = if name == "manifest" { "release" } else { name };
        check_refused(&world, &format!("{name}-page"), &page, &[said]);
        let gone = world
            .web(move |path, _| path.starts_with(prefix).then(|| answer("404 Not Found", b"")));
        check_refused(&world, &format!("{name}-gone"), &gone, &[name]);
        let long = world.web(move |path, _| {
            path.starts_with(prefix).then(|| answer("200 OK", &vec![b'a'; 40 << 20]))
        });
        check_refused(&world, &format!("{name}-long"), &long, &[name]);
    }
}

#[test]
fn wrong_bytes_over_http_are_never_installed() {
    let world = World::new();
    let web = world.web(|path, bytes| {
        path.starts_with("objects/").then(|| answer("200 OK", &flipped(bytes, bytes.len() / 2)))
    });
    let install = world.install("anna");
    let mut proc = install.install(world.product.feed_at(&web.url), false);
    // No honest source exists: it says so, or keeps trying; it never completes.
    match proc.try_wait_exit(Duration::from_secs(20)) {
        Some(exit) => assert!(!exit.success(), "{}", proc.tail()),
        None => assert!(proc.json().iter().all(|event| event["event"] != "complete")),
    }
    proc.kill();
    // A server that lies is not asked again and again.
    let (_, sent) = web.count("objects/");
    assert!(sent < 8 * content::total_bytes(&world.build, &[]), "{sent} wrong bytes were taken");
    drop(web);
    let honest = world.web(|_, _| None);
    let mut proc = install.install(world.product.feed_at(&honest.url), false);
    proc.finish(TRANSFER_WAIT);
    content::assert_same(&world.build, &install.dir, &[STATE_FOLDER]);
}

#[test]
fn a_wrong_feed_address_is_named() {
    let world = World::new();
    let install = world.install("anna");
    let nobody = format!("http://{}:9/", world.origin.ip);
    let mut proc = install.install(world.product.feed_at(&nobody), false);
    let text = proc.fails(REFUSAL_WAIT);
    assert!(text.contains(&world.origin.ip.to_string()), "{text}");
    let mut proc = install.install(world.lab.path("no such feed.toml"), false);
    let text = proc.fails(REFUSAL_WAIT);
    assert!(text.contains("no such feed.toml"), "{text}");
    fs::write(world.lab.path("nonsense.toml"), "what = [").expect("the file can be written");
    let text = install.install(world.lab.path("nonsense.toml"), false).fails(REFUSAL_WAIT);
    assert!(text.contains("nonsense.toml"), "{text}");
}

#[test]
fn another_products_feed_is_refused_for_an_install() {
    let world = World::new();
    let web = world.web(|_, _| None);
    let install = world.install("anna");
    install.install(world.product.feed_at(&web.url), false).finish(TRANSFER_WAIT);
    let other =
        Product::init(&Place::Here, &world.lab.path("other"), "other", world.origin.addr(9999));
    let text = install.install(other.feed_at(&web.url), false).fails(REFUSAL_WAIT);
    assert!(text.contains(&*install.dir.to_string_lossy()), "{text}");
    content::assert_same(&world.build, &install.dir, &[STATE_FOLDER]);
}

#[test]
fn a_folder_that_is_not_ours_is_left_alone() {
    let world = World::new();
    let web = world.web(|_, _| None);
    let install = world.install("documents");
    content::write_file(&install.dir.join("letter.txt"), 1, 1_000);
    let before = content::list(&install.dir, &[]);
    let text = install.install(world.product.feed_at(&web.url), false).fails(REFUSAL_WAIT);
    assert!(text.contains("documents"), "{text}");
    assert_eq!(content::list(&install.dir, &[]), before);
    for verb in ["status", "verify"] {
        let text = install.ask(verb).fails(REFUSAL_WAIT);
        assert!(text.contains("documents"), "{verb}: {text}");
    }
    assert_eq!(content::list(&install.dir, &[]), before);
}

// ---- the machine ----------------------------------------------------------------------------------

#[test]
fn a_full_disk_is_said_and_survived() {
    let world = World::new();
    let web = world.web(|_, _| None);
    let disk = world.lab.small_disk("disk", 32 << 20);
    let node = world.lab.node();
    let install =
        Install::new(&Place::from(&node), "anna", &disk.join("game"), node.addr(PEER_PORT));
    // All but two megabytes are taken.
    content::write_file(&disk.join("ballast"), 1, 30 << 20);
    let mut proc = install.install(world.product.feed_at(&web.url), false);
    let text = proc.fails(REFUSAL_WAIT);
    assert!(text.contains("space") || text.contains("full"), "{text}");
    assert!(text.contains(&*disk.to_string_lossy()), "{text}");
    fs::remove_file(disk.join("ballast")).expect("the ballast can be removed");
    install.install(world.product.feed_at(&web.url), false).finish(TRANSFER_WAIT);
    content::assert_same(&world.build, &install.dir, &[STATE_FOLDER]);
}

#[test]
fn a_disk_that_fills_up_under_a_fetch_is_said() {
    let swarm = Swarm::new("hybrid", &[], Lab::new());
    let disk = swarm.lab.small_disk("disk", 3 << 20);
    let node = swarm.lab.node();
    let listen = node.addr(PEER_PORT);
    let mut fetch =
        ours::fetch(&Place::from(&node), &swarm.torrent, &disk, listen, &[swarm.seed_addr], false);
    let text = fetch.fails(REFUSAL_WAIT);
    assert!(text.contains("space") || text.contains("full"), "{text}");
    assert!(text.contains(&*disk.to_string_lossy()), "{text}");
}

#[test]
fn a_read_only_disk_is_said() {
    let world = World::new();
    let web = world.web(|_, _| None);
    let disk = world.lab.small_disk("disk", 32 << 20);
    let node = world.lab.node();
    let install =
        Install::new(&Place::from(&node), "anna", &disk.join("game"), node.addr(PEER_PORT));
    world.lab.set_read_only(&disk, true);
    let text = install.install(world.product.feed_at(&web.url), false).fails(REFUSAL_WAIT);
    assert!(text.to_lowercase().contains("read-only"), "{text}");
    assert!(text.contains(&*disk.to_string_lossy()), "{text}");
    world.lab.set_read_only(&disk, false);
    install.install(world.product.feed_at(&web.url), false).finish(TRANSFER_WAIT);
    // An update onto a disk that has become read-only changes nothing.
    content::next_release(&world.build, 3);
    let old = world.lab.path("old");
    content::copy_tree(&install.dir, &old);
    world.product.publish(&world.build, "1.1");
    world.lab.set_read_only(&disk, true);
    let text = install.update(false).fails(REFUSAL_WAIT);
    assert!(text.to_lowercase().contains("read-only"), "{text}");
    content::assert_same(&old, &install.dir, &[]);
}

#[test]
fn a_missing_key_is_named_and_nothing_is_published() {
    let world = World::new();
    let head = world.product.repository().join("head.toml");
    let before = fs::read(&head).expect("a head was published");
    // A release can be signed elsewhere; the head is signed where it is made.
    for (role, named) in [("release", "1 more of the release keys"), ("head", "head.key")] {
        let key = world.product.dir.join(format!("keys/{role}.key"));
        let away = world.product.dir.join("away.key");
        fs::rename(&key, &away).expect("the key is there");
        let text = world.product.start_publish(&world.build, "2.0").fails(REFUSAL_WAIT);
        assert!(text.contains(named), "{text}");
        assert_eq!(fs::read(&head).expect("the head is there"), before);
        fs::rename(&away, &key).expect("the key comes back");
    }
}

#[test]
fn a_taken_port_is_named() {
    let world = World::new();
    let listen = world.origin.addr(WEB_PORT);
    let refused = || {
        let mut serve = Proc::start("origin", world.product.command("serve"));
        let text = serve.fails(REFUSAL_WAIT);
        assert!(text.contains(&listen.to_string()), "{text}");
    };
    let taken = world.origin.listen(WEB_PORT);
    refused();
    drop(taken);
    // The tracker needs the same number over UDP.
    let bound = world.origin.inside(move || std::net::UdpSocket::bind(listen));
    let _taken = bound.expect("the port is free over UDP");
    refused();
    let swarm = Swarm::new("hybrid", &[], Lab::new());
    let node = swarm.lab.node();
    let _taken = node.listen(PEER_PORT);
    let listen = node.addr(PEER_PORT);
    let into = swarm.lab.folder("into");
    let mut fetch = ours::fetch(&Place::from(&node), &swarm.torrent, &into, listen, &[], false);
    let text = fetch.fails(REFUSAL_WAIT);
    assert!(text.contains(&listen.to_string()), "{text}");
}

#[test]
fn builds_that_would_break_a_player_are_refused() {
    let world = World::new();
    let head =
        fs::read(world.product.repository().join("head.toml")).expect("a head was published");
    for (name, needle) in
        [("aux.txt", "aux.txt"), ("Data/World.pak", "`Data`"), ("what?.txt", "what?.txt")]
    {
        let bad = world.build.join(name);
        content::write_file(&bad, 1, 100);
        let text = world.product.start_publish(&world.build, "2.0").fails(REFUSAL_WAIT);
        assert!(text.contains(needle), "{name}: {text}");
        remove(&world.build, &bad);
    }
    std::os::unix::fs::symlink("/etc/passwd", world.build.join("link"))
        .expect("a link can be made");
    let text = world.product.start_publish(&world.build, "2.0").fails(REFUSAL_WAIT);
    assert!(text.contains("link"), "{text}");
    let now = fs::read(world.product.repository().join("head.toml")).expect("the head is there");
    assert_eq!(now, head, "nothing was published");
}

/// Removes a file and its parents as far as they are empty, up to `root`.
fn remove(root: &Path, file: &Path) {
    fs::remove_file(file).expect("the file can be removed");
    for dir in file.ancestors().skip(1).take_while(|dir| *dir != root) {
        if fs::remove_dir(dir).is_err() {
            break;
        }
    }
}
