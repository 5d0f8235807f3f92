//! First installs of many small files over HTTP alone, beside curl and tar on one archive of the same files.

use std::fs;
use std::path::{Path, PathBuf};

use updraft_tests::clients::Nginx;
use updraft_tests::content::{self, Noise};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{Install, Place, Product, STATE_FOLDER};
use updraft_tests::process::{Cost, Proc};

use crate::report::{RUN_WAIT, mib};

/// How many files of what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of files.
    #[arg(long, default_value_t = 20_000)]
    files: u64,
    /// Bytes of the files together.
    #[arg(long, default_value_t = 160 << 20)]
    bytes: u64,
    /// The web server's uplink in Mbit/s; no limit if not given.
    #[arg(long)]
    rate: Option<f64>,
}

const WEB_PORT: u16 = 8080;

/// What one run took, and what the web server sent for it. Of curl and tar no peak is known.
struct Run {
    cost: Cost,
    sent: u64,
}

/// Half of each file is text and half is noise, so that packing has something to do and not too much.
fn make_build(build: &Path, args: &Args) {
    let mean = args.bytes / args.files.max(1);
    for number in 0..args.files {
        let len = mean / 4 + (number * 7919) % (mean * 3 / 2 + 1);
        let mut bytes = content::noise(number, usize::try_from(len / 2).expect("a small file"));
        let mut words = Noise::new(number);
        while (bytes.len() as u64) < len {
            bytes.extend(format!("word{:x} ", words.below(2000)).bytes());
        }
        bytes.truncate(usize::try_from(len).expect("a small file"));
        let path = build.join(format!("{:03}/{number:05}.dat", number / 100));
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("it can be made");
        fs::write(path, bytes).expect("the build can be written");
    }
}

/// Prints a table.
pub(crate) fn run(dir: &Path, rounds: u32, args: &Args) {
    let build = dir.join("build");
    make_build(&build, args);
    let bytes = content::total_bytes(&build, &[]);
    let [tar, tar_zst] = ["build.tar", "build.tar.zst"].map(|name| dir.join("web").join(name));
    fs::create_dir_all(dir.join("web")).expect("the folder can be made");
    for (out, flags) in [(&tar, vec!["-cf"]), (&tar_zst, vec!["--zstd", "-cf"])] {
        let mut command = Place::Here.command("tar");
        command.args(flags).arg(out).arg("-C").arg(&build).arg(".");
        Proc::start("tar", command).finish(RUN_WAIT);
    }
    let packed = publish(dir, &build, true);
    let plain = publish(dir, &build, false);
    let title = args.rate.map_or_else(String::new, |rate| format!(", {rate} Mbit/s"));
    println!("\n## First install: {} files, {:.0} MiB{title}\n", args.files, mib(bytes));
    println!("| who | s | CPU s | sent MiB | peak MiB | time of curl and tar x |");
    println!("|---|---:|---:|---:|---:|---:|");
    let mut curl = None;
    let ways: [(&str, &dyn Fn() -> Run); 5] = [
        ("curl, tar", &|| unpack(dir, args, &tar)),
        ("curl, tar, zstd", &|| unpack(dir, args, &tar_zst)),
        ("Updraft from nginx", &|| install(dir, args, &build, &packed, Origin::Nginx)),
        ("Updraft from `serve`", &|| install(dir, args, &build, &packed, Origin::Ours)),
        ("Updraft from nginx, no packs", &|| install(dir, args, &build, &plain, Origin::Nginx)),
    ];
    for (who, way) in ways {
        let best = (0..rounds.max(1)).map(|_| way());
        let best = best.min_by(|a, b| a.cost.seconds.total_cmp(&b.cost.seconds));
        let Run { cost, sent } = best.expect("there is at least one round");
        let curl = *curl.get_or_insert(cost.seconds);
        println!(
            "| {who} | {:.2} | {:.2} | {:.1} | {:.0} | {:.2} |",
            cost.seconds,
            cost.cpu_seconds,
            mib(sent),
            mib(cost.resident_peak),
            cost.seconds / curl,
        );
    }
}

fn publish(dir: &Path, build: &Path, packs: bool) -> PathBuf {
    let home = dir.join(format!("product-{packs}"));
    let any = ([0, 0, 0, 0], WEB_PORT).into();
    let product = Product::init(&Place::Here, &home, "bench", any);
    product.configure("packs", &packs.to_string());
    // Nobody but the web server is to be found.
    product.configure("trackers", "[]");
    let mut publish = product.start_publish(build, "1");
    let cost = publish.cost(RUN_WAIT);
    println!("published, packs {packs}: {:.1} s, {:.1} CPU s", cost.seconds, cost.cpu_seconds);
    home
}

fn web_node(lab: &Lab, args: &Args) -> Node {
    match args.rate {
        Some(rate) => lab.slow_node(&format!("{}kbit", rate * 1000.0)),
        None => lab.node(),
    }
}

/// Gets an archive and unpacks it as it comes.
fn unpack(dir: &Path, args: &Args, archive: &Path) -> Run {
    let lab = Lab::new();
    let (web, node) = (web_node(&lab, args), lab.node());
    let nginx = Nginx::start(&lab, &web, &dir.join("web"));
    let into = dir.join("unpacked");
    fs::create_dir_all(&into).expect("the folder can be made");
    let name = archive.file_name().expect("it has a name").to_string_lossy().into_owned();
    let zstd = if name.ends_with(".zst") { "--zstd " } else { "" };
    let mut command = node.command("sh");
    command.arg("-c").arg(format!(
        "set -e; curl -sf {}{name} | tar {zstd}-xf - -C {}; times",
        nginx.url,
        into.display()
    ));
    let before = web.bytes_sent();
    let mut proc = Proc::start("curl and tar", command);
    let mut cost = proc.cost(RUN_WAIT);
    // The shell's own is nothing: what it ran stands in the last line, as `0m0.10s 0m0.52s`.
    cost.cpu_seconds = proc.text().split_whitespace().rev().take(2).filter_map(seconds).sum();
    cost.resident_peak = 0;
    let sent = web.bytes_sent() - before;
    fs::remove_dir_all(&into).expect("what was unpacked can be removed");
    Run { cost, sent }
}

fn seconds(text: &str) -> Option<f64> {
    let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
    Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}

#[derive(Clone, Copy)]
enum Origin {
    Nginx,
    Ours,
}

fn install(dir: &Path, args: &Args, build: &Path, home: &Path, origin: Origin) -> Run {
    let lab = Lab::new();
    let (web, node) = (web_node(&lab, args), lab.node());
    let product = Product::at(&Place::from(&web), home);
    // One of the two; it ends with this run.
    let nginx =
        matches!(origin, Origin::Nginx).then(|| Nginx::start(&lab, &web, &product.repository()));
    let _ours = matches!(origin, Origin::Ours).then(|| product.serve());
    let own = || format!("http://{}/", web.addr(WEB_PORT));
    let url = nginx.as_ref().map_or_else(own, |nginx| nginx.url.clone());
    let into = dir.join("installed");
    let player = Install::new(&Place::from(&node), "player", &into, node.addr(6881));
    let before = web.bytes_sent();
    let cost = player.install(product.feed_at(&url), false).cost(RUN_WAIT);
    let sent = web.bytes_sent() - before;
    content::assert_same(build, &into, &[STATE_FOLDER]);
    fs::remove_dir_all(&into).expect("what was installed can be removed");
    Run { cost, sent }
}
