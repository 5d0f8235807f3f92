//! LAN parties: launchers find each other with no tracker, no origin and no route to anywhere, everything
//! travels between them, and nobody in the room can bring in anything but the right release.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "every line of this file is a test")]

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use updraft_manifests::feed::Feed;
use updraft_tests::clients::{Client as _, Libtorrent, PEER_PORT, make_torrent, read_torrent};
use updraft_tests::content::{self, parent};
use updraft_tests::hostile::{DocumentLiar, HostilePeer, Malice, hash_bytes};
use updraft_tests::http;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{
    self, Install, Place, Product, READY_WAIT, STATE_FOLDER, TRANSFER_WAIT, wait_complete,
    wait_progress,
};
use updraft_tests::process::Proc;

const ORIGIN_PORT: u16 = 8080;
const ROOM_PORT: u16 = 7600;
const BYTES: u64 = 12 << 20;
/// Where local service discovery is sent (BEP 14).
const LSD: &str = "239.192.152.143:6771";
/// A web server that nobody can reach: there is no route to it.
const NOWHERE: &str = "http://198.51.100.9/";

/// A product whose origin is gone, and the guest who brings its newest release.
struct Party {
    lab: Lab,
    product: Product,
    build: PathBuf,
    host: Install,
    host_node: Node,
    /// The host's launcher, sharing.
    sharing: Proc,
    /// Whoever had the first release before.
    old: Vec<Install>,
}

impl Party {
    /// `old` guests install 1.0; the host installs or updates to `version` 1.0 or 2.0. Then the origin
    /// is gone.
    fn new(old: usize, version: &str) -> Self {
        let lab = Lab::new();
        let origin = lab.node();
        let build = content::shared_game(lab.path("build"), 1, BYTES);
        let listen = origin.addr(ORIGIN_PORT);
        let product = Product::init(&Place::from(&origin), &lab.path("product"), "game", listen);
        product.publish(&build, "1.0");
        let mut serving = product.serve();
        let host_node = lab.node();
        let host = guest(&host_node, &lab, "host");
        wait_complete(&host.install(product.feed(), false), TRANSFER_WAIT);
        let old = (0..old).map(|number| {
            let guest = guest(&lab.node(), &lab, &format!("old{number}"));
            wait_complete(&guest.install(product.feed(), false), TRANSFER_WAIT);
            guest
        });
        let old = old.collect();
        if version == "2.0" {
            content::next_release(&build, 7);
            product.publish(&build, "2.0");
            ours::wait_offered(&serving, "2.0");
            wait_complete(&host.update(false), TRANSFER_WAIT);
        }
        serving.kill();
        let sharing = host.seed();
        wait_seeding(&sharing);
        Self { lab, product, build, host, host_node, sharing, old }
    }

    /// Somebody who has nothing yet, and a feed whose web server does not exist here.
    fn newcomer(&self, name: &str) -> (Node, Install) {
        let node = self.lab.node();
        let install = guest(&node, &self.lab, name);
        (node, install)
    }

    fn feed(&self) -> PathBuf {
        self.product.feed_at(NOWHERE)
    }

    fn assert_installed(&self, install: &Install) {
        content::assert_same(&self.build, &install.dir, &[STATE_FOLDER]);
    }
}

/// An install that looks for others on its network, and listens everywhere.
fn guest(node: &Node, lab: &Lab, name: &str) -> Install {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PEER_PORT));
    let mut install = Install::new(&Place::from(node), name, &lab.path(name), any);
    install.flags = vec!["--listen".to_owned(), format!("0.0.0.0:{PEER_PORT}")];
    install.lan = true;
    install
}

fn wait_seeding(proc: &Proc) {
    proc.wait_json("that it shares", READY_WAIT, |event| {
        (event["event"] == "seeding").then_some(())
    });
}

/// Who said what is newest.
fn heard_from(proc: &Proc) -> Value {
    proc.wait_json("what it checked", TRANSFER_WAIT, |event| {
        (event["event"] == "checked").then(|| event.clone())
    })
}

/// One guest has the update: the room has it, too, and by the patch that the guest came by it with. Nothing
/// is left of the origin, and there is no route.
#[test]
fn a_guest_with_the_update_upgrades_the_room() {
    let party = Party::new(3, "2.0");
    let updates: Vec<Proc> = party.old.iter().map(|guest| guest.update(true)).collect();
    for (guest, update) in party.old.iter().zip(&updates) {
        let checked = heard_from(update);
        assert_eq!(checked["available"], "2.0");
        assert_eq!((&checked["fresh"], &checked["heard_from"]), (&json!(false), &json!("players")));
        let report = wait_complete(update, TRANSFER_WAIT);
        assert_eq!((report.http, report.lan), (0, report.peers), "{report:?}");
        assert!(report.peers < BYTES / 4, "a patch does: {report:?}");
        party.assert_installed(guest);
    }
}

/// Somebody who has the feed link and nothing else installs from the room.
#[test]
fn a_brand_new_player_installs_from_the_room() {
    let party = Party::new(0, "1.0");
    let (_node, newcomer) = party.newcomer("newcomer");
    let install = newcomer.install(party.feed(), false);
    let report = wait_complete(&install, TRANSFER_WAIT);
    assert_eq!(report.http, 0, "{report:?}");
    assert_eq!(heard_from(&install)["heard_from"], "players");
    party.assert_installed(&newcomer);
    // Who is there, and what they have.
    let mut look = newcomer.look_around();
    look.finish(READY_WAIT);
    let found = look.json();
    let host = found.iter().find(|event| event["event"] == "neighbour").expect("the host");
    assert_eq!((&host["installed"], &host["newest"]), (&json!("1.0"), &json!("1.0")));
    assert_eq!((&host["news"], &host["sequence"]), (&json!("valid"), &json!(1)));
    assert_eq!(found.last().expect("a last line")["count"], 1);
    assert!(party.host.dir.exists());
}

/// No IPv4, no router that gives out addresses: those that every link has do.
#[test]
fn addresses_of_the_link_alone_are_enough() {
    let party = Party::new(0, "1.0");
    let (node, newcomer) = party.newcomer("newcomer");
    party.host_node.keep_link_local();
    node.keep_link_local();
    let report = wait_complete(&newcomer.install(party.feed(), false), TRANSFER_WAIT);
    assert_eq!(report.http, 0, "{report:?}");
    party.assert_installed(&newcomer);
}

/// The cable comes after the launcher was started.
#[test]
fn a_cable_that_is_plugged_in_later_is_noticed() {
    let party = Party::new(1, "2.0");
    let guest_node = party.lab.node();
    let late = guest(&guest_node, &party.lab, "late");
    // It seeds 1.0 in a corner of its own; what it has is another's copy.
    content::copy_tree(&party.old[0].dir, &late.dir);
    guest_node.cut();
    let mut sharing = late.seed();
    wait_seeding(&sharing);
    guest_node.plug_in();
    sharing.wait_json("somebody who was found", READY_WAIT, |event| {
        (event["event"] == "serving-ahead" || event["peers"].as_u64() > Some(0)).then_some(())
    });
    sharing.interrupt();
    sharing.wait_exit(READY_WAIT);
}

/// Whoever leaves just before the end takes nothing along that others wait for.
#[test]
fn a_guest_who_leaves_at_the_end_holds_nobody_up() {
    let party = Party::new(0, "1.0");
    let guests: Vec<Install> =
        (0..3).map(|number| party.newcomer(&format!("guest{number}")).1).collect();
    let feed = party.feed();
    let mut installs: Vec<Proc> = guests.iter().map(|guest| guest.install(&feed, true)).collect();
    wait_progress(&installs[0], BYTES * 9 / 10, TRANSFER_WAIT);
    installs[0].kill();
    for (guest, install) in guests.iter().zip(&installs).skip(1) {
        wait_complete(install, TRANSFER_WAIT);
        party.assert_installed(guest);
    }
}

/// Several who have nothing yet meet each other first, and wait for somebody who has something.
#[test]
fn newcomers_alone_wait_for_somebody_who_has_it() {
    let mut party = Party::new(0, "1.0");
    party.sharing.interrupt();
    party.sharing.wait_exit(READY_WAIT);
    let feed = party.feed();
    let guests: Vec<Install> =
        (0..3).map(|number| party.newcomer(&format!("guest{number}")).1).collect();
    let installs: Vec<Proc> = guests.iter().map(|guest| guest.install(&feed, false)).collect();
    for install in &installs {
        install.wait_json("that it is there", READY_WAIT, |event| {
            (event["event"] == "listening").then_some(())
        });
    }
    let _sharing = party.host.seed();
    for (guest, install) in guests.iter().zip(&installs) {
        wait_complete(install, TRANSFER_WAIT);
        party.assert_installed(guest);
    }
}

/// Two publishers with the same keys, or one who signed twice: the room installs neither until it is settled.
#[test]
fn two_heads_of_one_number_are_nobodys_until_a_higher_one_comes() {
    let mut party = Party::new(2, "1.0");
    party.sharing.interrupt();
    party.sharing.wait_exit(READY_WAIT);
    let twin_dir = party.lab.path("twin");
    content::copy_tree(&party.product.dir, &twin_dir);
    let twin = Product::at(party.product.place(), &twin_dir);
    let publish = |product: &Product, seed: u64, version: &str, guest: &Install| {
        content::damage(&party.build.join("data/world.pak"), 50_000 * seed, 9_000, seed);
        product.publish(&party.build, version);
        let mut serving = product.serve();
        wait_complete(&guest.update(false), TRANSFER_WAIT);
        serving.kill();
        let sharing = guest.seed();
        wait_seeding(&sharing);
        sharing
    };
    let mut one = publish(&party.product, 21, "2.0", &party.host);
    let other = publish(&twin, 22, "2.1", &party.old[0]);
    let victim = &party.old[1];
    let text = victim.update(false).fails(TRANSFER_WAIT);
    assert!(text.contains("two different"), "{text}");
    let mut status = victim.ask("status");
    status.finish(READY_WAIT);
    assert_eq!(status.json()[0]["version"], "1.0");
    // The publisher settles it.
    one.interrupt();
    one.wait_exit(READY_WAIT);
    let _sharing = publish(&party.product, 23, "3.0", &party.host);
    wait_complete(&victim.update(false), TRANSFER_WAIT);
    party.assert_installed(victim);
    drop(other);
}

/// The host of a room has it for launchers that find it, for such as know its address alone, and for programs that
/// know nothing but HTTP; and whoever comes has a row on its page, with whatever name.
#[test]
fn the_host_of_a_room_shows_who_is_there() {
    let mut party = Party::new(0, "1.0");
    party.sharing.interrupt();
    party.sharing.wait_exit(READY_WAIT);
    let at = party.host_node.addr(ROOM_PORT);
    let hosting = party.host.host(at);
    let told = hosting.wait_json("that the room is open", READY_WAIT, |event| {
        (event["event"] == "hosting").then(|| event.clone())
    });
    let room = Room { node: party.host_node.clone(), at };
    assert_eq!(told["page"], format!("http://{at}/room"));

    let (node, mut newcomer) = party.newcomer("newcomer");
    let name = "<img src=x onerror=alert(1)>";
    newcomer.flags.extend(["--name".to_owned(), name.to_owned()]);
    let install = newcomer.install(party.feed(), true);
    let report = wait_complete(&install, TRANSFER_WAIT);
    assert_eq!(report.http, 0, "{report:?}");
    party.assert_installed(&newcomer);
    let row = room.wait_row(&node, "done");
    assert_eq!((&row["name"], &row["installed"]), (&json!(name), &json!("1.0")));
    assert!(room.get("/room", &[]).text().contains("<tbody id=\"rows\">"));

    // Somebody who looks for nobody, with the link that the host gives.
    let lonely_node = party.lab.node();
    let mut lonely = guest(&lonely_node, &party.lab, "lonely");
    lonely.lan = false;
    let install = lonely.install(told["feed"].as_str().unwrap(), false);
    let report = wait_complete(&install, TRANSFER_WAIT);
    assert!(report.http > BYTES / 2, "{report:?}");
    party.assert_installed(&lonely);

    // A program that knows HTTP: a range of a file, by the torrent's own names.
    let torrent = newest_torrent(&party.product.repository());
    let v2 = torrent.file_stem().unwrap().to_str().unwrap().to_owned();
    let path = format!("/releases/{v2}/game/data/world.pak");
    let part = room.get(&path, &["Range: bytes=1000-1999".to_owned()]);
    let whole = std::fs::read(party.build.join("data/world.pak")).unwrap();
    assert_eq!((part.status, &part.body[..]), (206, &whole[1000..2000]));
    assert_eq!(room.get("/state", &[]).status, 404);
}

/// The publisher serves a bundle to a room: launchers find it, and it shows them.
#[test]
fn a_bundle_is_served_to_a_room() {
    let mut party = Party::new(0, "1.0");
    party.sharing.interrupt();
    party.sharing.wait_exit(READY_WAIT);
    let bundle = party.lab.path("bundle");
    party.host.export(&bundle).finish(TRANSFER_WAIT);
    party.host_node.cut();
    let server = party.lab.node();
    let at = server.addr(ROOM_PORT);
    let _serving = ours::serve_bundle(&Place::from(&server), &bundle, at);
    let (node, newcomer) = party.newcomer("newcomer");
    let install = newcomer.install(party.feed(), true);
    let report = wait_complete(&install, TRANSFER_WAIT);
    assert_eq!(report.http, 0, "{report:?}");
    party.assert_installed(&newcomer);
    let room = Room { node: server, at };
    assert_eq!(room.wait_row(&node, "done")["of_bytes"], content::total_bytes(&party.build, &[]));
}

/// The web server of a room.
struct Room {
    node: Node,
    at: SocketAddr,
}

impl Room {
    fn get(&self, path: &str, headers: &[String]) -> http::Answer {
        let connection = self.node.connect(self.at).unwrap();
        http::request(connection, self.at, "GET", path, headers, &[]).unwrap()
    }

    /// Waits until the page has this machine in this state.
    fn wait_row(&self, node: &Node, state: &str) -> Value {
        let deadline = Instant::now() + READY_WAIT;
        loop {
            let numbers: Value = serde_json::from_slice(&self.get("/room.json", &[]).body).unwrap();
            let rows = numbers["machines"].as_array().unwrap();
            let own = [node.ip.to_string(), node.ip6.to_string()];
            let is_it = |row: &&Value| {
                own.iter().any(|ip| row["address"] == ip.as_str()) && row["state"] == state
            };
            if let Some(row) = rows.iter().find(is_it) {
                return row.clone();
            }
            assert!(Instant::now() < deadline, "{state} is not reached: {numbers:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Everybody who means harm, all at once: an older release, documents made up, another product, poison,
/// and a flood of announcements, well-formed and not. The newcomer gets the right release.
#[test]
fn rogues_change_nothing() {
    let party = Party::new(1, "2.0");
    let lab = &party.lab;
    // Who stayed behind shares the old release, signed long ago.
    let older = party.old[0].seed();
    wait_seeding(&older);
    // Another product's launcher.
    let other_node = lab.node();
    let listen = other_node.addr(ORIGIN_PORT);
    let other = Product::init(&Place::from(&other_node), &lab.path("other"), "other", listen);
    let other_build = lab.path("other-build");
    content::write_file(&other_build.join("other.bin"), 5, 100_000);
    other.publish(&other_build, "9.0");
    let mut serving = other.serve();
    let stranger = guest(&lab.node(), lab, "stranger");
    wait_complete(&stranger.install(other.feed(), false), TRANSFER_WAIT);
    serving.kill();
    let stranger_sharing = stranger.seed();
    wait_seeding(&stranger_sharing);
    // Documents made up, and content made up, announced as the standard has it.
    let feed = Feed::parse(&std::fs::read_to_string(party.product.feed()).unwrap()).unwrap();
    let rendezvous = feed.rendezvous();
    let (liar_node, poison_node, flood_node) = (lab.node(), lab.node(), lab.node());
    let liar = DocumentLiar::start(&liar_node, PEER_PORT, rendezvous);
    let torrent = newest_torrent(&party.product.repository());
    let reading = read_torrent(&torrent);
    let hashes: Vec<[u8; 20]> =
        reading.tracker_hashes().iter().map(|hash| hash_bytes(hash)).collect();
    let pieces = u32::try_from(reading.bytes.div_ceil(reading.piece_bytes)).unwrap();
    let poison = HostilePeer::start(&poison_node, PEER_PORT, hashes[0], pieces, Malice::Lie);
    let announce = |node: &Node, named: &[[u8; 20]]| {
        let sender = Announcer::on(node);
        let named = named.to_vec();
        move || sender.say(&datagram(PEER_PORT, &named))
    };
    let named: Vec<[u8; 20]> = hashes.iter().copied().chain([rendezvous]).collect();
    let (say_liar, say_poison) =
        (announce(&liar_node, &[rendezvous]), announce(&poison_node, &hashes));

    let cpu = party.sharing.cpu_seconds();
    let memory = party.sharing.resident();
    let (_node, newcomer) = party.newcomer("newcomer");
    let install = newcomer.install(party.feed(), false);
    say_liar();
    say_poison();
    let flood = Announcer::on(&flood_node);
    for round in 0..20_000u16 {
        flood.say(&datagram(1 + round, &named));
        match round % 500 {
            0 => flood.say(b"BT-SEARCH * HTTP/1.1\r\nPort: 0\r\nInfohash: \xff\xff\r\n\r\n\r\n"),
            1 => flood.say(&vec![b'B'; 9000]),
            2 => flood.say(&datagram(0, &named)),
            3 => {
                say_liar();
                say_poison();
            }
            _ => {}
        }
    }
    let report = wait_complete(&install, TRANSFER_WAIT);
    assert_eq!(report.http, 0, "{report:?}");
    assert_eq!(heard_from(&install)["available"], "2.0");
    party.assert_installed(&newcomer);
    assert!(liar.asked() > 0, "the liar was not heard");
    assert!(poison.connections() > 0, "the poisoner was not met");
    // What twenty thousand announcements cost somebody who shares.
    let spent = party.sharing.cpu_seconds() - cpu;
    let grown = party.sharing.resident().saturating_sub(memory);
    eprintln!("a sharing launcher spent {spent:.2} s and grew by {} KiB", grown >> 10);
    assert!(grown < 16 << 20, "{grown} bytes");
}

/// libtorrent hears us, and we hear libtorrent.
#[test]
fn libtorrent_and_we_find_each_other() {
    let lab = Lab::new();
    let source = content::shared_game(lab.path("source/game"), 4, BYTES);
    let torrent = lab.path("game.torrent");
    make_torrent(&source, &torrent, "hybrid", &[]);
    let lsd = json!({"enable_lsd": true});
    let mut theirs = Libtorrent::start_with(&lab.node(), &lsd);
    theirs.seed(&torrent, parent(&source));
    let node = lab.node();
    let into = lab.folder("into");
    let listen = SocketAddr::from(([0, 0, 0, 0], PEER_PORT));
    let place = Place::from(&node);
    let ours = ours::fetch_with(&place, &torrent, &into, listen, &[], &["--stay"]);
    wait_complete(&ours, TRANSFER_WAIT);
    content::assert_same(&source, &into.join("game"), &[]);
    drop(theirs);
    let mut theirs = Libtorrent::start_with(&lab.node(), &lsd);
    theirs.leech(&torrent, &lab.folder("theirs"));
    theirs.wait_done(&torrent, TRANSFER_WAIT);
    content::assert_same_contents(&source, &lab.path("theirs/game"), &[]);
}

/// Of a private torrent nothing is said (BEP 27), of a public one both hashes are.
#[test]
fn private_torrents_are_not_announced() {
    let lab = Lab::new();
    let source = lab.path("source/data.bin");
    content::write_file(&source, 9, 1 << 20);
    let listener = lab.node();
    let socket = listener.inside({
        let at = listener.ip;
        move || {
            let socket = UdpSocket::bind(("0.0.0.0", 6771))?;
            socket.join_multicast_v4(&"239.192.152.143".parse().unwrap(), &at)?;
            socket.set_read_timeout(Some(READY_WAIT))?;
            Ok::<_, std::io::Error>(socket)
        }
    });
    let socket = socket.unwrap();
    let seed_node = lab.node();
    let mut fetches = Vec::new();
    let mut hashes = Vec::new();
    for (port, private) in [(PEER_PORT, true), (PEER_PORT + 1, false)] {
        let torrent = lab.path(&format!("{private}.torrent"));
        let mut create = Place::Here.publisher();
        create.args(["torrent", "create"]).arg(&source).arg("-o").arg(&torrent);
        create.args(if private { &["--private"][..] } else { &[] });
        Proc::start("torrent create", create).finish(READY_WAIT);
        hashes.push(read_torrent(&torrent).tracker_hashes());
        let seed_at = seed_node.addr(port);
        let seed = ours::seed(&Place::from(&seed_node), &torrent, parent(&source), seed_at);
        let (node, into) = (lab.node(), lab.folder(&format!("into-{private}")));
        let (place, listen) = (Place::from(&node), node.addr(PEER_PORT));
        let fetch = ours::fetch_with(&place, &torrent, &into, listen, &[seed_at], &["--stay"]);
        wait_complete(&fetch, TRANSFER_WAIT);
        fetches.push((seed, fetch));
    }
    let (private, public) = (&hashes[0], &hashes[1]);
    let mut buffer = [0; 2000];
    let (len, _) = socket.recv_from(&mut buffer).expect("the public one is announced");
    let said = String::from_utf8_lossy(&buffer[..len]).into_owned();
    // What was said first: the private one was there before.
    assert!(public.iter().all(|hash| said.contains(hash.as_str())), "{said}");
    assert!(!private.iter().any(|hash| said.contains(hash.as_str())), "{said}");
}

/// With a router at hand and everything pointing beyond it, LAN-only mode sends it nothing; without that
/// mode it does, so the capture sees it.
#[test]
fn in_lan_only_mode_not_one_packet_leaves() {
    let party = Party::new(0, "1.0");
    let router = party.lab.node();
    let feed = party.product.feed_at("http://origin.updraft.invalid/");
    for (name, lan_only) in [("inside", true), ("outside", false)] {
        let (node, mut player) = party.newcomer(name);
        node.set_router(&router);
        player.flags.extend(["--peer".to_owned(), "203.0.114.7:6881".to_owned()]);
        player.flags.extend(["--peer".to_owned(), "192.168.99.7:6881".to_owned()]);
        if lan_only {
            player.flags.push("--lan-only".to_owned());
        }
        let capture = Capture::start(&node, &party.lab.path(&format!("{name}.pcap")));
        wait_complete(&player.install(&feed, false), TRANSFER_WAIT);
        party.assert_installed(&player);
        let left = capture.packets_beyond();
        assert_eq!(left.is_empty(), lan_only, "{name}: {left:#?}");
    }
}

/// Packets of a host's link, kept by tcpdump.
struct Capture {
    tcpdump: Proc,
    file: PathBuf,
    node: Node,
}

impl Capture {
    fn start(node: &Node, file: &Path) -> Self {
        let mut command = node.command("tcpdump");
        command.args(["-n", "-i", "eth0", "-U", "-Z", "root", "-w"]).arg(file);
        let tcpdump = Proc::start("tcpdump", command);
        tcpdump.wait_line("listening on", READY_WAIT);
        Self { tcpdump, file: file.to_owned(), node: node.clone() }
    }

    /// What this host sent to anybody who is not on the link.
    fn packets_beyond(mut self) -> Vec<String> {
        self.tcpdump.interrupt();
        self.tcpdump.finish(READY_WAIT);
        let mut command = self.node.command("tcpdump");
        command.args(["-n", "-r"]).arg(&self.file);
        command.arg(
            "(ip or ip6) and not (dst net 10.77.0.0/24 or dst net 203.0.113.0/24 or \
             dst net fd77::/64 or dst net fe80::/10 or multicast or broadcast)",
        );
        let mut read = Proc::start("tcpdump -r", command);
        read.finish(READY_WAIT);
        let lines = read.lines().into_iter().filter(|line| !line.error);
        lines.map(|line| line.text).collect()
    }
}

/// Says things to everybody on the link.
struct Announcer {
    socket: UdpSocket,
}

impl Announcer {
    fn on(node: &Node) -> Self {
        let at = node.addr(0);
        let socket = node.inside(move || UdpSocket::bind(at)).unwrap();
        Self { socket }
    }

    fn say(&self, datagram: &[u8]) {
        // A full queue of the link loses some of a flood.
        let _ = self.socket.send_to(datagram, LSD);
    }
}

/// As BEP 14 has it, by hand.
fn datagram(port: u16, hashes: &[[u8; 20]]) -> Vec<u8> {
    let mut text = format!("BT-SEARCH * HTTP/1.1\r\nHost: {LSD}\r\nPort: {port}\r\n");
    for hash in hashes {
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("Infohash: {hex}\r\n"));
    }
    text.push_str("\r\n\r\n");
    text.into_bytes()
}

/// The torrent of the release that was published last; those of patches are smaller.
fn newest_torrent(repository: &Path) -> PathBuf {
    let torrents = std::fs::read_dir(repository.join("torrents")).unwrap().flatten();
    let releases =
        torrents.map(|entry| entry.path()).filter(|path| read_torrent(path).bytes > BYTES / 2);
    releases.max_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap()).unwrap()
}
