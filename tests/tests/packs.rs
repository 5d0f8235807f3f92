//! First installs over HTTP: packs where they save something, and files as they are where packs fail.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;

use updraft_tests::clients::PEER_PORT;
use updraft_tests::content::{self, Noise};
use updraft_tests::hostile::{WebServer, answer};
use updraft_tests::lab::Lab;
use updraft_tests::ours::{
    Install, Place, Product, READY_WAIT, Report, STATE_FOLDER, TRANSFER_WAIT, wait_complete,
    wait_progress,
};

const WEB_PORT: u16 = 8080;
const SMALL_FILES: u64 = 600;

/// A published build of many small texts and a large one, and noise that nothing makes smaller.
struct World {
    lab: Lab,
    product: Product,
    build: PathBuf,
}

impl World {
    fn new(packs: bool) -> Self {
        let lab = Lab::new();
        let build = lab.path("build");
        for number in 0..SMALL_FILES {
            let path = build.join(format!("texts/{}/{number}.txt", number / 50));
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("it can be made");
            fs::write(path, text(number, 2000 + (number * 613) % 9000)).expect("it can be written");
        }
        fs::write(build.join("large.txt"), text(9999, 10_000_000)).expect("it can be written");
        content::write_file(&build.join("noise.bin"), 5, 5 << 20);
        let node = lab.node();
        let product =
            Product::init(&Place::from(&node), &lab.path("product"), "game", node.addr(7600));
        product.configure("packs", &packs.to_string());
        product.publish(&build, "1.0");
        Self { lab, product, build }
    }

    fn web(
        &self,
        tamper: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> WebServer {
        WebServer::start(&self.lab.node(), WEB_PORT, &self.product.repository(), tamper)
    }

    fn install(&self, name: &str) -> Install {
        let node = self.lab.node();
        Install::new(&Place::from(&node), name, &self.lab.path(name), node.addr(PEER_PORT))
    }

    /// Installs from `web`; the report and the bytes that were said to come over HTTP.
    fn installed(&self, name: &str, web: &WebServer) -> (Report, u64) {
        let install = self.install(name);
        let mut proc = install.install(self.product.feed_at(&web.url), false);
        let report = wait_complete(&proc, TRANSFER_WAIT);
        proc.finish(READY_WAIT);
        content::assert_same(&self.build, &install.dir, &[STATE_FOLDER]);
        let events = proc.json();
        let planned = events.iter().find(|event| event["event"] == "planned").expect("it was told");
        assert_eq!(planned["fetch_bytes"].as_u64(), Some(self.bytes()));
        (report, planned["packed_bytes"].as_u64().expect("a number"))
    }

    fn bytes(&self) -> u64 {
        content::total_bytes(&self.build, &[])
    }
}

/// Words of a small language.
fn text(seed: u64, len: u64) -> String {
    let mut noise = Noise::new(seed);
    let mut text = String::new();
    while (text.len() as u64) < len {
        text += &format!("w{:x} ", noise.below(500));
    }
    text.truncate(usize::try_from(len).expect("some MB"));
    text
}

#[test]
fn packs_carry_what_they_make_smaller() {
    let world = World::new(true);
    let web = world.web(|_, _| None);
    let (report, packed) = world.installed("anna", &web);
    let (requests, sent) = web.count("packs/");
    let packs = content::total_bytes(&world.product.repository().join("packs"), &[]);
    let noise = 5 << 20;
    assert_eq!((report.http, report.wasted), (packs + noise, 0), "{report:?}");
    assert_eq!(report.http, packed, "as it was said before");
    // The server counts its headers, too.
    assert!((packs..packs + 2000).contains(&sent), "{sent} bytes for {packs}");
    assert!((noise..noise + 2000).contains(&web.count("objects/").1), "the noise comes as it is");
    assert!(requests < 12, "{requests} requests");
    assert!(packs < (world.bytes() - noise) / 2, "{packs} of {}", world.bytes());
    // Without packs everything is fetched as it is.
    let world = World::new(false);
    let web = world.web(|_, _| None);
    let (report, packed) = world.installed("ben", &web);
    assert_eq!((report.http, packed), (world.bytes(), world.bytes()), "{report:?}");
    assert_eq!(web.count("packs/").0 + web.count("packlists/").0, 0);
    assert!(!world.product.repository().join("packs").exists());
}

/// Whatever is wrong with packs or their list, files come as they are, and each pack is tried once at most.
#[test]
fn bad_packs_cost_themselves_only() {
    let world = World::new(true);
    let check = |name: &str, tamper: fn(&str, &[u8]) -> Option<Vec<u8>>| {
        let web = world.web(tamper);
        let (report, _) = world.installed(name, &web);
        assert!(web.count("packs/").0 <= 6, "{name}: {} packs tried", web.count("packs/").0);
        assert_eq!((report.http, report.wasted), (world.bytes(), 0), "{name}: {report:?}");
    };
    check("flipped", |path, bytes| {
        let mut bytes = bytes.to_vec();
        path.starts_with("packs/").then(|| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            answer("200 OK", &bytes)
        })
    });
    check("gone", |path, _| path.starts_with("packs/").then(|| answer("404 Not Found", b"")));
    check("long", |path, bytes| {
        path.starts_with("packs/").then(|| answer("200 OK", &vec![0; bytes.len() + (32 << 20)]))
    });
    check("page", |path, _| path.starts_with("packs/").then(|| answer("200 OK", b"<html>")));
    check("no-list", |path, _| {
        path.starts_with("packlists/").then(|| answer("404 Not Found", b""))
    });
    check("other-list", |path, _| {
        path.starts_with("packlists/").then(|| answer("200 OK", b"UDpack\0\x01"))
    });
}

#[test]
fn a_killed_install_keeps_what_came_out_of_packs() {
    let world = World::new(true);
    let web = world.web(|_, _| None);
    let install = world.install("anna");
    let feed = world.product.feed_at(&web.url);
    let mut proc = install.install(&feed, false);
    wait_progress(&proc, world.bytes() / 4, TRANSFER_WAIT);
    proc.kill();
    let mut proc = install.install(&feed, false);
    proc.finish(TRANSFER_WAIT);
    content::assert_same(&world.build, &install.dir, &[STATE_FOLDER]);
    let sent = web.count("packs/").1 + web.count("objects/").1;
    // At most what was under way when it was killed came twice: four ranges or packs.
    let clean = world.web(|_, _| None);
    let (report, _) = world.installed("ben", &clean);
    assert!(sent <= report.http + (16 << 20), "{sent} bytes instead of {}", report.http);
}

#[test]
fn verify_finds_a_damaged_pack() {
    let world = World::new(true);
    let mut verify = world.product.command("verify");
    verify.arg(world.product.repository());
    let run =
        |command: std::process::Command| updraft_tests::process::Proc::start("verify", command);
    run(verify).finish(TRANSFER_WAIT);
    let packs = fs::read_dir(world.product.repository().join("packs")).unwrap();
    let pack = packs.flatten().next().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[100] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let mut verify = world.product.command("verify");
    verify.arg(world.product.repository());
    let said = run(verify).fails(TRANSFER_WAIT);
    assert!(said.contains(&pack.file_name().unwrap().to_string_lossy().into_owned()), "{said}");
    // Publishing again makes it anew.
    world.product.publish(&world.build, "1.1");
    let mut verify = world.product.command("verify");
    verify.arg(world.product.repository());
    run(verify).finish(TRANSFER_WAIT);
}
