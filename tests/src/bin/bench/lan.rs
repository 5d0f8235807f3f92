//! A room full of players: behind one thin uplink, without any, and with nothing to do.

use std::net::{Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use updraft_tests::clients::PEER_PORT;
use updraft_tests::content;
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{Install, Place, Product, READY_WAIT, Report, wait_complete};
use updraft_tests::process::Proc;

use crate::report::{RUN_WAIT, mib, ratio};

/// The room.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Launchers.
    #[arg(long, default_value_t = 16)]
    launchers: usize,
    /// Bytes of the release that comes over the uplink.
    #[arg(long, default_value_t = 40 << 20)]
    bytes: u64,
    /// What the uplink brings in, in Mbit/s.
    #[arg(long, default_value_t = 20.0)]
    uplink: f64,
    /// Bytes of the release that one of them has.
    #[arg(long, default_value_t = 200 << 20)]
    brought: u64,
    /// What each link carries when there is no uplink, in Mbit/s.
    #[arg(long, default_value_t = 200.0)]
    link: f64,
    /// Seconds for which they are watched doing nothing.
    #[arg(long, default_value_t = 60)]
    idle: u64,
}

const ORIGIN_PORT: u16 = 8080;

/// A product on a host of its own, which the others see as on the internet.
struct Origin<'a> {
    lab: &'a Lab,
    node: Node,
    product: Product,
}

impl<'a> Origin<'a> {
    fn new(lab: &'a Lab, node: Node, bytes: u64) -> Self {
        let build = lab.path("build");
        content::write_file(&build.join("data.bin"), 1, bytes);
        let listen = node.wide_addr(ORIGIN_PORT);
        let product = Product::init(&Place::from(&node), &lab.path("product"), "game", listen);
        product.publish(&build, "1.0");
        Self { lab, node, product }
    }

    fn guest(&self, number: usize, node: &Node) -> Install {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PEER_PORT));
        let name = format!("guest{number}");
        let mut install = Install::new(&Place::from(node), &name, &self.lab.path(&name), any);
        install.flags = vec!["--listen".to_owned(), format!("0.0.0.0:{PEER_PORT}")];
        install.lan = true;
        install
    }

    /// The guests install at once and stay. Seconds until the last had it, their reports, and the seconds
    /// until the first payload was there.
    fn install(&self, guests: &[Install]) -> (f64, Vec<Report>, f64) {
        let since = Instant::now();
        let installs: Vec<Proc> =
            guests.iter().map(|guest| guest.install(self.product.feed(), true)).collect();
        let first = installs.first().expect("somebody installs");
        first.wait_json("its first bytes", RUN_WAIT, |event| {
            (event["event"] == "progress" && event["peers_bytes"].as_u64() > Some(0)
                || event["event"] == "complete")
                .then_some(())
        });
        let first = since.elapsed().as_secs_f64();
        let reports = installs.iter().map(|install| wait_complete(install, RUN_WAIT)).collect();
        (since.elapsed().as_secs_f64(), reports, first)
    }
}

/// Prints a line for each of the three.
pub(crate) fn run(args: &Args) {
    println!("\n## A room of {}\n", args.launchers);
    behind_an_uplink(args);
    without_uplink(args);
    idle(args);
}

/// Everything comes over one link from outside: how often does it?
fn behind_an_uplink(args: &Args) {
    let rate = format!("{}kbit", args.uplink * 1000.0);
    let mut alone = None;
    for count in [1, args.launchers] {
        let lab = Lab::new();
        let origin = Origin::new(&lab, lab.slow_node(&rate), args.bytes);
        let _serving = origin.product.serve();
        let nodes: Vec<Node> = (0..count).map(|_| lab.node()).collect();
        let guests: Vec<Install> =
            nodes.iter().enumerate().map(|(number, node)| origin.guest(number, node)).collect();
        let before = origin.node.bytes_sent();
        let (seconds, reports, _) = origin.install(&guests);
        let wire = origin.node.bytes_sent() - before;
        let outside: u64 =
            reports.iter().map(|report| report.peers + report.http - report.lan).sum();
        let alone = *alone.get_or_insert(seconds);
        println!(
            "- {:.0} MiB over an uplink of {} Mbit/s, {count} launchers: {seconds:.1} s = {:.2} x one alone; over \
             the uplink {:.3} copies of payload, {:.3} on the wire",
            mib(args.bytes),
            args.uplink,
            seconds / alone,
            ratio(outside, args.bytes),
            ratio(wire, args.bytes),
        );
    }
}

/// One of them has the release, and there is no way out.
fn without_uplink(args: &Args) {
    let rate = format!("{}kbit", args.link * 1000.0);
    let mut alone = None;
    for count in [1, args.launchers - 1] {
        let lab = Lab::new();
        let origin = Origin::new(&lab, lab.node(), args.brought);
        let mut serving = origin.product.serve();
        let host_node = lab.slow_node(&rate);
        let host = origin.guest(0, &host_node);
        wait_complete(&host.install(origin.product.feed(), false), RUN_WAIT);
        serving.kill();
        origin.node.cut();
        let sharing = host.seed();
        sharing.wait_line("seeding", READY_WAIT);
        let nodes: Vec<Node> = (0..count).map(|_| lab.slow_node(&rate)).collect();
        let guests: Vec<Install> =
            nodes.iter().enumerate().map(|(number, node)| origin.guest(number + 1, node)).collect();
        let (seconds, reports, first) = origin.install(&guests);
        let alone = *alone.get_or_insert(seconds);
        let wasted: u64 = reports.iter().map(|report| report.wasted).sum();
        println!(
            "- {:.0} MiB from one of them, links of {} Mbit/s, no uplink, {count} others: {seconds:.1} s = {:.2} x \
             one alone; the first had first bytes after {first:.1} s; wasted {:.3} copies",
            mib(args.brought),
            args.link,
            seconds / alone,
            ratio(wasted, args.brought),
        );
    }
}

/// Everybody has everything.
fn idle(args: &Args) {
    let lab = Lab::new();
    let origin = Origin::new(&lab, lab.node(), 1 << 20);
    let mut serving = origin.product.serve();
    let nodes: Vec<Node> = (0..args.launchers).map(|_| lab.node()).collect();
    let guests: Vec<Install> =
        nodes.iter().enumerate().map(|(number, node)| origin.guest(number, node)).collect();
    guests.iter().for_each(|guest| {
        wait_complete(&guest.install(origin.product.feed(), false), RUN_WAIT);
    });
    serving.kill();
    origin.node.cut();
    let sharing: Vec<Proc> = guests.iter().map(Install::seed).collect();
    sharing.iter().for_each(|proc| drop(proc.wait_line("seeding", READY_WAIT)));
    for when in ["just come", "a while later"] {
        let sent = || nodes.iter().map(Node::packets_sent).sum::<u64>();
        let before = sent();
        thread::sleep(Duration::from_secs(args.idle));
        let packets = sent() - before;
        println!(
            "- nothing to do, {when}: {:.2} packets a second and launcher",
            ratio(packets, args.idle * args.launchers as u64)
        );
    }
}
