//! Our two programs, started as a user starts them. What the command lines look like and what they
//! print is known here and nowhere else in the suites.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::lab::Node;
use crate::process::Proc;

/// The launcher's own folder at the top of an install.
pub const STATE_FOLDER: &str = ".updraft";
/// Where `fetch` keeps its records, beside what it downloads.
pub const FETCH_FOLDER: &str = ".updraft-fetch";
/// How long a program may take until it says that it is ready.
pub const READY_WAIT: Duration = Duration::from_secs(30);
/// How long a transfer of some megabytes may take.
pub const TRANSFER_WAIT: Duration = Duration::from_secs(60);

/// Where a program runs.
#[derive(Debug, Clone)]
pub enum Place {
    /// On this machine as it is.
    Here,
    /// On a host of a lab.
    #[cfg(target_os = "linux")]
    On(Node),
    /// On this machine as a Windows program, where `tests/windows e2e` says that programs and wine are.
    #[cfg(target_os = "linux")]
    Wine,
}

#[cfg(target_os = "linux")]
impl From<&Node> for Place {
    fn from(node: &Node) -> Self {
        Self::On(node.clone())
    }
}

impl Place {
    /// A command that will run there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Here => Command::new(program),
            #[cfg(target_os = "linux")]
            Self::On(node) => node.command(program),
            #[cfg(target_os = "linux")]
            Self::Wine => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(told("UPDRAFT_TEST_WINE"));
                command.arg(program.as_ref());
                command
            }
        }
    }

    /// The path of one of our programs for that place.
    ///
    /// # Panics
    /// When it was not built.
    pub fn binary(&self, name: &str) -> PathBuf {
        match self {
            Self::Here => binary(name),
            #[cfg(target_os = "linux")]
            Self::On(_) => binary(name),
            #[cfg(target_os = "linux")]
            Self::Wine => {
                let path = Path::new(&told("UPDRAFT_TEST_WINDOWS")).join(format!("{name}.exe"));
                assert!(path.is_file(), "{} is not built: tests/windows build", path.display());
                path
            }
        }
    }

    /// The launcher there.
    pub fn launcher(&self) -> Command {
        self.command(self.binary("updraft-launcher"))
    }

    /// The publisher there.
    pub fn publisher(&self) -> Command {
        self.command(self.binary("updraft-publisher"))
    }
}

/// What the script that starts a suite has to tell.
#[cfg(target_os = "linux")]
fn told(variable: &str) -> std::ffi::OsString {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: run `tests/windows e2e`"))
}

/// The path of one of our programs: `$UPDRAFT_BIN_DIR`, or the release folder of the workspace.
///
/// # Panics
/// When it was not built.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("UPDRAFT_BIN_DIR").map_or_else(
        || {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = std::env::var_os("CARGO_TARGET_DIR");
            target.map_or_else(|| root.join("target"), PathBuf::from).join("release")
        },
        PathBuf::from,
    );
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is not built: cargo build --release --workspace --bins",
        path.display()
    );
    path
}

/// Makes a torrent with our publisher.
///
/// # Panics
/// When it fails.
pub fn create_torrent(path: &Path, out: &Path, format: &str, trackers: &[String]) {
    let mut command = Place::Here.publisher();
    command.args(["torrent", "create"]).arg(path).arg("-o").arg(out).args(["--format", format]);
    for tracker in trackers {
        command.args(["--tracker", tracker]);
    }
    Proc::start("torrent create", command).finish(READY_WAIT);
}

/// The magnet link of a torrent, as our publisher prints it.
///
/// # Panics
/// When it fails.
pub fn magnet(torrent: &Path) -> String {
    let mut command = Place::Here.publisher();
    command.args(["torrent", "magnet"]).arg(torrent);
    let mut magnet = Proc::start("torrent magnet", command);
    magnet.finish(READY_WAIT);
    let text = magnet.text();
    let link = text.split_whitespace().find(|word| word.starts_with("magnet:"));
    link.expect("a link is printed").to_owned()
}

/// Seeds a torrent with our publisher; `dir` holds the torrent's file or folder.
pub fn seed(place: &Place, torrent: &Path, dir: &Path, listen: SocketAddr) -> Proc {
    seed_all(place, &[torrent.to_owned()], dir, listen)
}

/// [`seed`] with several torrents, whose content lies side by side in `dir`.
pub fn seed_all(place: &Place, torrents: &[PathBuf], dir: &Path, listen: SocketAddr) -> Proc {
    let mut command = place.publisher();
    command.arg("seed").args(torrents).arg("--dir").arg(dir);
    command.args(["--listen", &listen.to_string()]);
    Proc::start("our seed", command)
}

/// Downloads a torrent with our launcher.
pub fn fetch(
    place: &Place,
    torrent: &Path,
    dir: &Path,
    listen: SocketAddr,
    peers: &[SocketAddr],
    stay: bool,
) -> Proc {
    let extra: &[&str] = if stay { &["--no-lan", "--stay"] } else { &["--no-lan"] };
    fetch_with(place, torrent, dir, listen, peers, extra)
}

/// [`fetch`] with other flags. Without `--no-lan` it also finds peers that nobody told it of.
pub fn fetch_with(
    place: &Place,
    torrent: &Path,
    dir: &Path,
    listen: SocketAddr,
    peers: &[SocketAddr],
    flags: &[&str],
) -> Proc {
    let mut command = place.launcher();
    command
        .args(["--json", "fetch"])
        .arg(torrent)
        .arg("--dir")
        .arg(dir)
        .args(["--listen", &listen.to_string()]);
    for peer in peers {
        command.args(["--peer", &peer.to_string()]);
    }
    command.args(flags);
    Proc::start("our fetch", command)
}

/// Waits until a `seed` has checked its files and offers them.
pub fn wait_seeding(seed: &Proc, within: Duration) {
    seed.wait_line("seeding", within);
}

/// A product as its publisher has it: a folder with the configuration, the keys and the repository.
pub struct Product {
    place: Place,
    /// The publisher's folder.
    pub dir: PathBuf,
}

impl Product {
    /// `init`: a new product whose origin will listen at `listen` (web and tracker) and at the port
    /// above it (BitTorrent); with port 0 both are chosen when it starts.
    ///
    /// # Panics
    /// When it fails.
    pub fn init(place: &Place, dir: &Path, name: &str, listen: SocketAddr) -> Self {
        let mut command = place.publisher();
        command.arg("init").arg(dir).args(["--product", name, "--no-passphrase"]);
        if listen.port() != 0 {
            command.args(["--url", &format!("http://{listen}/")]);
        }
        Proc::start("init", command).finish(READY_WAIT);
        let product = Self { place: place.clone(), dir: dir.to_owned() };
        let swarm = match listen.port() {
            0 => listen,
            port => SocketAddr::new(listen.ip(), port + 1),
        };
        product.configure("listen", &format!("\"{listen}\""));
        product.configure("listen_bittorrent", &format!("\"{swarm}\""));
        product
    }

    /// One that was made before, by the publisher at `place` from now on.
    pub fn at(place: &Place, dir: &Path) -> Self {
        Self { place: place.clone(), dir: dir.to_owned() }
    }

    /// Where its publisher works.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("updraft.toml")
    }

    /// Sets a value that stands in the configuration already.
    ///
    /// # Panics
    /// When it does not.
    pub fn configure(&self, key: &str, value: &str) {
        let text = std::fs::read_to_string(self.config()).expect("the configuration can be read");
        let start = format!("{key} = ");
        assert!(text.lines().any(|line| line.starts_with(&start)), "no `{key}` in {text}");
        let lines = text.lines().map(|line| {
            if line.starts_with(&start) { format!("{start}{value}\n") } else { format!("{line}\n") }
        });
        std::fs::write(self.config(), lines.collect::<String>())
            .expect("the configuration can be written");
    }

    /// The feed with other addresses of the repository.
    ///
    /// # Panics
    /// When the feed cannot be read.
    pub fn feed_at(&self, url: &str) -> PathBuf {
        let text = std::fs::read_to_string(self.feed()).expect("the feed can be read");
        let kept = text.lines().filter(|line| {
            ["updraft-feed", "product", "root"].iter().any(|key| line.starts_with(key))
        });
        let mut feed: String = kept.map(|line| format!("{line}\n")).collect();
        feed.push_str(&format!("urls = [\"{url}\"]\n"));
        let name: String = url.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = self.dir.join(format!("feed-{name}.toml"));
        std::fs::write(&path, feed).expect("the feed can be written");
        path
    }

    /// A command of the publisher for this product.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = self.place.publisher();
        command.arg("--config").arg(self.config()).arg(verb);
        command
    }

    /// The static tree that any web server can serve.
    pub fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    /// The file that a launcher is given.
    pub fn feed(&self) -> PathBuf {
        self.dir.join("feed.toml")
    }

    /// Starts `publish` of a build.
    pub fn start_publish(&self, build: &Path, version: &str) -> Proc {
        let mut command = self.command("publish");
        command.arg(build);
        command.args(["--version", version, "--channel", "stable"]);
        Proc::start("publish", command)
    }

    /// Publishes a build.
    ///
    /// # Panics
    /// When it fails.
    pub fn publish(&self, build: &Path, version: &str) {
        self.start_publish(build, version).finish(TRANSFER_WAIT);
    }

    /// Starts the origin: web server, tracker and seed in one process; returns when it answers and
    /// its seed is up. Something has to be published.
    pub fn serve(&self) -> Proc {
        let proc = Proc::start("origin", self.command("serve"));
        proc.wait_line("serving", READY_WAIT);
        proc.wait_line("seeding", READY_WAIT);
        proc
    }
}

/// Waits until a running origin seeds a version that was published while it ran.
pub fn wait_offered(origin: &Proc, version: &str) {
    let needle = format!(" {version} ");
    origin.wait_for(&format!("its seed of {version}"), TRANSFER_WAIT, |line| {
        (line.text.starts_with("seeding") && line.text.contains(&needle)).then_some(())
    });
}

/// Serves a bundle to a room with our publisher, web server and tracker at `listen`, BitTorrent at the port above.
pub fn serve_bundle(place: &Place, bundle: &Path, listen: SocketAddr) -> Proc {
    let mut command = place.publisher();
    command.arg("serve").arg(bundle).args(["--listen", &listen.to_string()]);
    let swarm = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port() + 1);
    command.args(["--listen-bittorrent", &swarm.to_string()]);
    let proc = Proc::start("serve a bundle", command);
    proc.wait_line("seeding", READY_WAIT);
    proc
}

/// One install of a product on some host.
pub struct Install {
    place: Place,
    name: String,
    /// The folder of the game.
    pub dir: PathBuf,
    listen: SocketAddr,
    /// Flags that every command of it gets.
    pub flags: Vec<String>,
    /// Whether it looks for others on its network. Most suites are about something else: there hosts know
    /// whom they are told of.
    pub lan: bool,
}

/// What a finished job reported.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Seconds it took.
    pub seconds: f64,
    /// Bytes from peers.
    pub peers: u64,
    /// The part of them from peers on the local network.
    pub lan: u64,
    /// Bytes from web servers.
    pub http: u64,
    /// Bytes that were there before.
    pub reused: u64,
    /// Bytes received and thrown away.
    pub wasted: u64,
}

impl Install {
    /// Names a folder, and where its launcher listens for peers.
    pub fn new(place: &Place, name: &str, dir: &Path, listen: SocketAddr) -> Self {
        Self {
            place: place.clone(),
            name: name.to_owned(),
            dir: dir.to_owned(),
            listen,
            flags: Vec::new(),
            lan: false,
        }
    }

    /// Where its launcher listens for peers.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.place.launcher();
        command.args(["--json", verb, "--dir"]).arg(&self.dir);
        command
    }

    fn swarm(&self, verb: &str, feed: Option<&OsStr>, stay: bool) -> Proc {
        let mut command = self.command(verb);
        command.args(feed).args(["--listen", &self.listen.to_string()]).args(&self.flags);
        if !self.lan {
            command.arg("--no-lan");
        }
        if stay {
            command.arg("--stay");
        }
        Proc::start(&format!("{} {verb}", self.name), command)
    }

    /// `install`, and goes on seeding if it is to `stay`.
    pub fn install(&self, feed: impl AsRef<OsStr>, stay: bool) -> Proc {
        self.swarm("install", Some(feed.as_ref()), stay)
    }

    /// `update`, and goes on seeding if it is to `stay`.
    pub fn update(&self, stay: bool) -> Proc {
        self.swarm("update", None, stay)
    }

    /// `run`: starts the game with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Proc {
        let mut command = self.command("run");
        command.arg("--").args(arguments);
        Proc::start(&format!("{} run", self.name), command)
    }

    /// `config`: sets something.
    pub fn config(&self, setting: &str, value: &str) -> Proc {
        let mut command = self.command("config");
        command.args([setting, value]);
        Proc::start(&format!("{} config", self.name), command)
    }

    /// `lan host`: a room with a web server at `http`.
    pub fn host(&self, http: SocketAddr) -> Proc {
        let mut command = self.place.launcher();
        command.args(["--json", "lan", "host", "--dir"]).arg(&self.dir);
        command.args(["--http", &http.to_string(), "--listen", &self.listen.to_string()]);
        command.args(&self.flags);
        Proc::start(&format!("{} lan host", self.name), command)
    }

    /// `install --from`: nothing is had from any network.
    pub fn install_from(&self, feed: &Path, bundle: &Path) -> Proc {
        let mut command = self.command("install");
        command.arg(feed).arg("--from").arg(bundle);
        Proc::start(&format!("{} install --from", self.name), command)
    }

    /// `import`.
    pub fn import(&self, bundle: &Path) -> Proc {
        let mut command = self.command("import");
        command.arg(bundle);
        Proc::start(&format!("{} import", self.name), command)
    }

    /// `export`.
    pub fn export(&self, bundle: &Path) -> Proc {
        let mut command = self.command("export");
        command.arg(bundle);
        Proc::start(&format!("{} export", self.name), command)
    }

    /// `repair`.
    pub fn repair(&self) -> Proc {
        self.swarm("repair", None, false)
    }

    /// `rollback`.
    pub fn rollback(&self) -> Proc {
        self.swarm("rollback", None, false)
    }

    /// `components add` or `remove`.
    pub fn components(&self, verb: &str, names: &[&str]) -> Proc {
        let mut command = self.place.launcher();
        command.args(["--json", "components", verb]).args(names).arg("--dir").arg(&self.dir);
        command.args(["--listen", &self.listen.to_string()]).args(&self.flags);
        Proc::start(&format!("{} components {verb}", self.name), command)
    }

    /// `components list`.
    pub fn list_components(&self) -> Proc {
        let mut command = self.place.launcher();
        command.args(["--json", "components", "list", "--dir"]).arg(&self.dir);
        Proc::start(&format!("{} components list", self.name), command)
    }

    /// `seed`.
    pub fn seed(&self) -> Proc {
        self.swarm("seed", None, true)
    }

    /// A command that needs no swarm: `check`, `status`, `verify`.
    pub fn ask(&self, verb: &str) -> Proc {
        let mut command = self.command(verb);
        if verb == "check" && !self.lan {
            command.arg("--no-lan");
        }
        Proc::start(&format!("{} {verb}", self.name), command)
    }

    /// `lan`: who else is there?
    pub fn look_around(&self) -> Proc {
        let mut command = self.command("lan");
        command.args(&self.flags);
        Proc::start(&format!("{} lan", self.name), command)
    }
}

/// Waits for the report of a finished `install`, `update`, `repair` or `fetch`.
///
/// # Panics
/// When it fails or takes too long, with what it printed.
pub fn wait_complete(proc: &Proc, within: Duration) -> Report {
    proc.wait_json("its completion", within, |event| {
        let number = |key: &str| event[key].as_u64().unwrap_or(0);
        (event["event"] == "complete").then(|| Report {
            seconds: event["seconds"].as_f64().unwrap_or(0.0),
            peers: number("peers_bytes"),
            lan: number("lan_bytes"),
            http: number("http_bytes"),
            reused: number("reused_bytes"),
            wasted: number("wasted_bytes"),
        })
    })
}

/// Whether an event says that there is nothing left to do.
fn is_end(event: &serde_json::Value) -> bool {
    event["event"] == "complete" || event["event"] == "up-to-date"
}

/// Waits until a job has verified at least `bytes`.
pub fn wait_progress(proc: &Proc, bytes: u64, within: Duration) {
    proc.wait_json("progress", within, |event| {
        let done = event["event"] == "progress" && event["done"].as_u64() >= Some(bytes);
        (done || is_end(event)).then_some(())
    });
}

/// How many bytes a job has verified, as it last said; `None` when it is complete.
pub fn progress(proc: &Proc) -> Option<u64> {
    let events = proc.json();
    if events.iter().any(is_end) {
        return None;
    }
    Some(events.iter().rev().find_map(|event| event["done"].as_u64()).unwrap_or(0))
}
