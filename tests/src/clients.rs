//! The clients and servers of other people, driven on hosts of a lab with the settings they come
//! with; only discovery that could leave the lab is off.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http;
use crate::lab::{Lab, Node};
use crate::process::Proc;

/// The port every BitTorrent client of the lab listens on; each has an address of its own.
pub const PEER_PORT: u16 = 6881;
/// How long a daemon may take until it answers.
const START_WAIT: Duration = Duration::from_secs(30);
/// How often a daemon without events is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// Asks again and again until `answer` has one.
///
/// # Panics
/// When the time is over.
pub fn until<T>(what: &str, within: Duration, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {} s", within.as_secs());
        thread::sleep(ASK_INTERVAL);
    }
}

/// What a BitTorrent client of this lab can be asked to do.
pub trait Client {
    /// Shares what lies in `dir` (the folder that holds the torrent's file or folder); returns when
    /// all of it was checked and is offered.
    fn seed(&mut self, torrent: &Path, dir: &Path);
    /// Begins to download into `dir`.
    fn leech(&mut self, torrent: &Path, dir: &Path);
    /// Waits until all of the torrent is there.
    fn wait_done(&mut self, torrent: &Path, within: Duration);
}

// ---- libtorrent ---------------------------------------------------------------------------------

/// The hashes and sizes of a torrent, as libtorrent reads it.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The v1 info-hash in hex.
    pub v1: Option<String>,
    /// The v2 info-hash in hex (64 digits).
    pub v2: Option<String>,
    /// Payload bytes as libtorrent counts them.
    pub bytes: u64,
    /// The piece length.
    pub piece_bytes: u64,
}

impl Reading {
    fn from_json(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Self {
            v1: text("v1"),
            v2: text("v2"),
            bytes: value["bytes"].as_u64().unwrap_or(0),
            piece_bytes: value["piece_length"].as_u64().unwrap_or(0),
        }
    }

    /// The 20-byte hashes by which trackers know it, in hex.
    pub fn tracker_hashes(&self) -> Vec<String> {
        let v2 = self.v2.as_ref().map(|hash| hash[..40].to_owned());
        self.v1.iter().cloned().chain(v2).collect()
    }
}

/// Where builds go, and what `tests/run` installs beside them.
fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn python() -> PathBuf {
    let python = std::env::var_os("UPDRAFT_TEST_PYTHON").map(PathBuf::from);
    python.unwrap_or_else(|| target().join("test-venv/bin/python"))
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/libtorrent_client.py")
}

fn ask_libtorrent(args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(python());
    let output = command.arg(script()).args(args).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{} (made by `tests/run install`): {error}", python().display())
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// How libtorrent reads a torrent file: an opinion that is not ours.
pub fn read_torrent(torrent: &Path) -> Reading {
    let answers = ask_libtorrent(&["info", &torrent.to_string_lossy()]);
    Reading::from_json(answers.first().expect("libtorrent reads the torrent"))
}

/// Makes a torrent with libtorrent. `kind` is `v1`, `v2` or `hybrid`.
pub fn make_torrent(path: &Path, out: &Path, kind: &str, trackers: &[String]) -> Reading {
    let spec = json!({"path": path, "out": out, "kind": kind, "trackers": trackers, "piece_length": 65536});
    let answers = ask_libtorrent(&["make", &spec.to_string()]);
    Reading::from_json(answers.first().expect("libtorrent makes the torrent"))
}

/// A libtorrent session.
pub struct Libtorrent {
    /// Its process.
    pub proc: Proc,
}

impl Libtorrent {
    /// Starts a session that listens at [`PEER_PORT`] on both addresses of the node.
    pub fn start(node: &Node) -> Self {
        Self::start_with(node, &json!({}))
    }

    /// The same with settings beside the defaults.
    pub fn start_with(node: &Node, settings: &Value) -> Self {
        let listen = format!("{}:{PEER_PORT},[{}]:{PEER_PORT}", node.ip, node.ip6);
        Self::start_on(node, &listen, settings)
    }

    /// The same, listening where `listen` says in libtorrent's notation.
    pub fn start_on(node: &Node, listen: &str, settings: &Value) -> Self {
        let spec = json!({"listen": listen, "settings": settings}).to_string();
        let args = [script().to_string_lossy().into_owned(), "session".to_owned(), spec];
        let proc = node.spawn("libtorrent", python(), &args);
        proc.wait_json("its start", START_WAIT, |event| (event["event"] == "up").then_some(()));
        Self { proc }
    }

    fn command(&mut self, command: &Value) {
        self.proc.send_line(&command.to_string());
    }

    /// Adds a torrent with peers to dial.
    pub fn add(&mut self, torrent: &Path, dir: &Path, peers: &[SocketAddr]) {
        let peers: Vec<_> =
            peers.iter().map(|peer| json!([peer.ip().to_string(), peer.port()])).collect();
        self.command(&json!({"do": "add", "torrent": torrent, "dir": dir, "peers": peers}));
    }

    /// Adds a magnet link with peers to dial. The link stands where a torrent's path would.
    pub fn add_magnet(&mut self, link: &str, dir: &Path, peers: &[SocketAddr]) {
        let peers: Vec<_> =
            peers.iter().map(|peer| json!([peer.ip().to_string(), peer.port()])).collect();
        self.command(&json!({"do": "add_magnet", "link": link, "dir": dir, "peers": peers}));
    }

    /// Payload bytes that it has sent of a torrent.
    pub fn uploaded(&mut self, torrent: &Path) -> u64 {
        let asked = self.proc.json().len();
        self.command(&json!({"do": "stat", "torrent": torrent}));
        let answer = until("libtorrent's numbers", START_WAIT, || {
            let events = self.proc.json();
            events.into_iter().skip(asked).find(|event| event["event"] == "stat")
        });
        answer["up"].as_u64().unwrap_or(0)
    }

    /// The hosts that it is connected to and has heard of by peer exchange.
    pub fn met_by_exchange(&mut self, torrent: &Path) -> Vec<String> {
        let asked = self.proc.json().len();
        self.command(&json!({"do": "connections", "torrent": torrent}));
        let answer = until("libtorrent's connections", START_WAIT, || {
            let events = self.proc.json();
            events.into_iter().skip(asked).find(|event| event["event"] == "connections")
        });
        let peers = answer["peers"].as_array().expect("a list of peers");
        let heard = peers.iter().filter(|peer| peer[1] == true);
        heard.filter_map(|peer| peer[0].as_str()).map(str::to_owned).collect()
    }

    /// Waits until every piece is verified, whether or not the last ones are written.
    pub fn wait_finished(&self, torrent: &Path, within: Duration) {
        self.wait_event("finished", torrent, within);
    }

    fn wait_event(&self, name: &str, torrent: &Path, within: Duration) {
        let path = torrent.to_string_lossy().into_owned();
        let what = format!("`{name}` of {path}");
        self.proc.wait_json(&what, within, |event| {
            (event["event"] == name && event["torrent"] == path.as_str()).then_some(())
        });
    }
}

impl Client for Libtorrent {
    fn seed(&mut self, torrent: &Path, dir: &Path) {
        self.add(torrent, dir, &[]);
        self.wait_event("checked", torrent, START_WAIT);
        self.wait_event("done", torrent, START_WAIT);
    }

    fn leech(&mut self, torrent: &Path, dir: &Path) {
        self.add(torrent, dir, &[]);
        self.wait_event("added", torrent, START_WAIT);
    }

    fn wait_done(&mut self, torrent: &Path, within: Duration) {
        self.wait_event("done", torrent, within);
    }
}

// ---- aria2 --------------------------------------------------------------------------------------

/// An aria2 daemon.
pub struct Aria2 {
    /// Its process.
    pub proc: Proc,
    node: Node,
    downloads: Vec<(PathBuf, String)>,
}

impl Aria2 {
    /// The port of its JSON-RPC, on the node's loopback.
    const RPC_PORT: u16 = 6800;

    /// Starts it.
    pub fn start(node: &Node) -> Self {
        Self::start_with(node, &["--enable-dht=false".to_owned()])
    }

    /// Starts it with UDP trackers, which it has only together with a DHT; that finds nobody here.
    pub fn start_with_udp(lab: &Lab, node: &Node) -> Self {
        let table = lab.path(&format!("aria2-dht-{}", node.ip));
        let table = format!("--dht-file-path={}", table.display());
        Self::start_with(node, &["--enable-dht=true".to_owned(), table])
    }

    /// Starts it with other options beside those that it always has here.
    pub fn start_with(node: &Node, options: &[String]) -> Self {
        let mut command = node.command("aria2c");
        command.args(options);
        command.args(["--no-conf=true", "--enable-rpc=true", "--rpc-max-request-size=64M"]);
        command.arg(format!("--rpc-listen-port={}", Self::RPC_PORT));
        command.args(["--enable-dht6=false", "--bt-enable-lpd=false"]);
        command.args(["--seed-ratio=0.0", "--summary-interval=0", "--show-console-readout=false"]);
        command.arg(format!("--listen-port={PEER_PORT}"));
        let aria2 =
            Self { proc: Proc::start("aria2", command), node: node.clone(), downloads: Vec::new() };
        until("aria2 answers", START_WAIT, || aria2.call("getVersion", json!([])).ok());
        aria2
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": format!("aria2.{method}"), "params": params});
        let host = SocketAddr::from(([127, 0, 0, 1], Self::RPC_PORT));
        let connection = self.node.connect(host).map_err(|error| error.to_string())?;
        let headers = ["Content-Type: application/json".to_owned()];
        let answer = http::request(
            connection,
            host,
            "POST",
            "/jsonrpc",
            &headers,
            body.to_string().as_bytes(),
        );
        let answer = answer.map_err(|error| error.to_string())?;
        let mut value: Value =
            serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        match value.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(value["result"].take()),
        }
    }

    fn add(&mut self, torrent: &Path, options: Value) {
        let bytes = fs::read(torrent).expect("the torrent can be read");
        let added = self.call("addTorrent", json!([base64(&bytes), [], options]));
        let gid = added.expect("aria2 takes the torrent").as_str().expect("a gid").to_owned();
        self.downloads.push((torrent.to_owned(), gid));
    }

    /// Adds a magnet link, and returns aria2's name for it.
    ///
    /// # Panics
    /// When aria2 refuses it.
    pub fn add_magnet(&mut self, link: &str) -> String {
        let added = self.call("addUri", json!([[link]]));
        added.expect("aria2 takes the link").as_str().expect("a gid").to_owned()
    }

    fn complete(&self, torrent: &Path) -> Option<()> {
        let gid = &self.downloads.iter().find(|(path, _)| path == torrent).expect("it was added").1;
        let keys =
            json!(["status", "completedLength", "totalLength", "verifiedLength", "errorMessage"]);
        let state = self.call("tellStatus", json!([gid, keys])).expect("aria2 answers");
        assert!(state["status"] != "error", "aria2: {state}");
        let whole = state["totalLength"] != "0" && state["completedLength"] == state["totalLength"];
        (whole && state.get("verifiedLength").is_none()).then_some(())
    }
}

impl Client for Aria2 {
    fn seed(&mut self, torrent: &Path, dir: &Path) {
        self.add(torrent, json!({"dir": dir, "check-integrity": "true"}));
        self.wait_done(torrent, START_WAIT);
    }

    fn leech(&mut self, torrent: &Path, dir: &Path) {
        self.add(torrent, json!({"dir": dir}));
    }

    fn wait_done(&mut self, torrent: &Path, within: Duration) {
        until("aria2 completes", within, || self.complete(torrent));
    }
}

// ---- Transmission -------------------------------------------------------------------------------

/// A Transmission daemon.
pub struct Transmission {
    /// Its process.
    pub proc: Proc,
    node: Node,
    session: String,
    torrents: Vec<(PathBuf, u64)>,
}

impl Transmission {
    /// The port of its RPC, on the node's loopback.
    const RPC_PORT: u16 = 9091;

    /// Starts it with its state in a folder of the lab.
    pub fn start(lab: &Lab, node: &Node) -> Self {
        Self::start_with(lab, node, &json!({}))
    }

    /// The same with other settings, by their names in its file.
    pub fn start_with(lab: &Lab, node: &Node, others: &Value) -> Self {
        let home = lab.folder(&format!("transmission-{}", node.ip));
        let mut settings = json!({
            "dht-enabled": false, "lpd-enabled": false, "port-forwarding-enabled": false,
            "peer-port": PEER_PORT, "bind-address-ipv4": node.ip.to_string(),
            "bind-address-ipv6": node.ip6.to_string(), "download-dir": home,
            "rpc-port": Self::RPC_PORT, "rpc-bind-address": "127.0.0.1",
            "rpc-authentication-required": false, "rpc-whitelist-enabled": false,
        });
        let others = others.as_object().into_iter().flatten();
        others.for_each(|(name, value)| settings[name] = value.clone());
        fs::write(home.join("settings.json"), settings.to_string())
            .expect("the settings can be written");
        let mut command = node.command("transmission-daemon");
        command.args(["--foreground", "--config-dir"]).arg(&home);
        let proc = Proc::start("transmission", command);
        let mut client =
            Self { proc, node: node.clone(), session: String::new(), torrents: Vec::new() };
        until("transmission answers", START_WAIT, || client.call("session-get", json!({})).ok());
        client
    }

    fn call(&mut self, method: &str, arguments: Value) -> Result<Value, String> {
        let body = json!({"method": method, "arguments": arguments}).to_string();
        let host = SocketAddr::from(([127, 0, 0, 1], Self::RPC_PORT));
        // The first call is refused with the session's id, which stands against forged requests.
        for _ in 0..2 {
            let headers = [format!("X-Transmission-Session-Id: {}", self.session)];
            let connection = self.node.connect(host).map_err(|error| error.to_string())?;
            let answer = http::request(
                connection,
                host,
                "POST",
                "/transmission/rpc",
                &headers,
                body.as_bytes(),
            );
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status == 409 {
                let id = answer.header("X-Transmission-Session-Id").unwrap_or_default();
                // Header values are lower-cased by the reader; ask for the id as it was written.
                self.session = session_id(&answer).unwrap_or_else(|| id.to_owned());
                continue;
            }
            let mut value: Value =
                serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            return match value["result"].as_str() {
                Some("success") => Ok(value["arguments"].take()),
                other => Err(format!("{other:?}")),
            };
        }
        Err("transmission refuses its own session id".to_owned())
    }

    fn add(&mut self, torrent: &Path, dir: &Path) -> u64 {
        let bytes = fs::read(torrent).expect("the torrent can be read");
        let added =
            self.call("torrent-add", json!({"metainfo": base64(&bytes), "download-dir": dir}));
        let id = added.expect("transmission takes the torrent")["torrent-added"]["id"].as_u64();
        let id = id.expect("the torrent is new");
        self.torrents.push((torrent.to_owned(), id));
        id
    }

    /// Adds a magnet link.
    ///
    /// # Panics
    /// When Transmission refuses it.
    pub fn add_magnet(&mut self, link: &str) {
        self.call("torrent-add", json!({"filename": link})).expect("transmission takes the link");
    }

    /// The most peers that a tracker of any torrent named.
    pub fn peers_of_trackers(&mut self) -> u64 {
        let answer = self.call("torrent-get", json!({"fields": ["trackerStats"]}));
        let answer = answer.expect("transmission answers");
        let torrents = answer["torrents"].as_array().into_iter().flatten();
        let trackers = torrents.flat_map(|torrent| torrent["trackerStats"].as_array()).flatten();
        let counts = trackers.filter_map(|tracker| tracker["lastAnnouncePeerCount"].as_u64());
        counts.max().unwrap_or(0)
    }

    fn complete(&mut self, torrent: &Path) -> Option<()> {
        let id = self.torrents.iter().find(|(path, _)| path == torrent).expect("it was added").1;
        let fields = json!(["percentDone", "leftUntilDone", "status", "error", "errorString"]);
        let answer = self.call("torrent-get", json!({"ids": [id], "fields": fields}));
        let state = answer.expect("transmission answers")["torrents"][0].take();
        assert!(state["error"] != 3, "transmission: {state}");
        // 5 and 6: waiting to seed, seeding.
        let seeding = state["status"] == 5 || state["status"] == 6;
        (seeding && state["percentDone"] == 1.0 && state["leftUntilDone"] == 0).then_some(())
    }
}

fn session_id(answer: &http::Answer) -> Option<String> {
    // The refusal repeats the header in its page, in its own case.
    let text = answer.text();
    let rest = text.split("X-Transmission-Session-Id: ").nth(1)?;
    Some(rest.split('<').next()?.trim().to_owned())
}

impl Client for Transmission {
    fn seed(&mut self, torrent: &Path, dir: &Path) {
        let id = self.add(torrent, dir);
        self.call("torrent-verify", json!({"ids": [id]})).expect("transmission verifies");
        self.wait_done(torrent, START_WAIT);
    }

    fn leech(&mut self, torrent: &Path, dir: &Path) {
        self.add(torrent, dir);
    }

    fn wait_done(&mut self, torrent: &Path, within: Duration) {
        until("transmission completes", within, || self.complete(torrent));
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (group >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

// ---- rqbit --------------------------------------------------------------------------------------

/// An rqbit daemon: `$UPDRAFT_TEST_RQBIT`, or the one that `tests/run bench` installs.
pub struct Rqbit {
    /// Its process.
    pub proc: Proc,
    node: Node,
    torrents: Vec<(PathBuf, u64)>,
}

impl Rqbit {
    /// The port of its HTTP interface, on the node's loopback.
    const API_PORT: u16 = 3030;

    /// Starts it with its state in a folder of the lab, listening at all addresses of the node.
    pub fn start(lab: &Lab, node: &Node) -> Self {
        let home = lab.folder(&format!("rqbit-{}", node.ip));
        let program = std::env::var_os("UPDRAFT_TEST_RQBIT")
            .map_or_else(|| target().join("test-tools/bin/rqbit"), PathBuf::from);
        let mut command = node.command(program);
        command.env("HOME", &home).args(["-v", "warn", "--disable-dht", "--disable-lsd"]);
        command.args(["--disable-upnp-port-forward", "--listen-ip", "0.0.0.0"]);
        command.args(["--listen-port", &PEER_PORT.to_string()]);
        command.args(["--http-api-listen-addr", &format!("127.0.0.1:{}", Self::API_PORT)]);
        command.args(["server", "start", "--disable-persistence"]).arg(&home);
        let rqbit =
            Self { proc: Proc::start("rqbit", command), node: node.clone(), torrents: Vec::new() };
        until("rqbit answers", START_WAIT, || rqbit.call("GET", "/torrents", &[]).ok());
        rqbit
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> Result<Value, String> {
        let host = SocketAddr::from(([127, 0, 0, 1], Self::API_PORT));
        let connection = self.node.connect(host).map_err(|error| error.to_string())?;
        let answer = http::request(connection, host, method, path, &[], body);
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(answer.text());
        }
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
    }

    fn add(&mut self, torrent: &Path, dir: &Path) {
        let bytes = fs::read(torrent).expect("the torrent can be read");
        let path = format!("/torrents?overwrite=true&output_folder={}", dir.display());
        let added = self.call("POST", &path, &bytes).expect("rqbit takes the torrent");
        let id = added["id"].as_u64().expect("rqbit numbers its torrents");
        self.torrents.push((torrent.to_owned(), id));
    }

    fn stat(&self, torrent: &Path) -> Value {
        let id = self.torrents.iter().find(|(path, _)| path == torrent).expect("it was added").1;
        self.call("GET", &format!("/torrents/{id}/stats/v1"), &[]).expect("rqbit answers")
    }

    /// Payload bytes that it has sent of a torrent.
    pub fn uploaded(&self, torrent: &Path) -> u64 {
        self.stat(torrent)["uploaded_bytes"].as_u64().unwrap_or(0)
    }
}

impl Client for Rqbit {
    fn seed(&mut self, torrent: &Path, dir: &Path) {
        self.add(torrent, dir);
        self.wait_done(torrent, START_WAIT);
    }

    fn leech(&mut self, torrent: &Path, dir: &Path) {
        self.add(torrent, dir);
    }

    fn wait_done(&mut self, torrent: &Path, within: Duration) {
        until("rqbit completes", within, || {
            let state = self.stat(torrent);
            assert!(state["state"] != "error", "rqbit: {state}");
            (state["finished"] == true && state["state"] == "live").then_some(())
        });
    }
}

// ---- opentracker and nginx ----------------------------------------------------------------------

/// opentracker, serving a list of torrents.
pub struct OpenTracker {
    /// Its process.
    pub proc: Proc,
    node: Node,
}

impl OpenTracker {
    const PORT: u16 = 6969;

    /// The announce URL it will have on `node`.
    pub fn url(node: &Node) -> String {
        Self::url_at(node.ip)
    }

    /// The same over UDP.
    pub fn udp_url(node: &Node) -> String {
        format!("udp://{}:{}/announce", node.ip, Self::PORT)
    }

    /// The announce URL at one of the addresses of its node.
    pub fn url_at(ip: Ipv4Addr) -> String {
        format!("http://{ip}:{}/announce", Self::PORT)
    }

    /// Starts it for the given 20-byte hashes in hex (Debian's build serves listed torrents only).
    pub fn start(lab: &Lab, node: &Node, hashes: &[String]) -> Self {
        let dir = lab.folder(&format!("opentracker-{}", node.ip));
        fs::write(dir.join("whitelist"), hashes.join("\n") + "\n")
            .expect("the list can be written");
        // As root it would become somebody else itself, and then no longer die with the test.
        let conf = format!(
            "listen.tcp {ip}:{port}\nlisten.tcp {wide}:{port}\nlisten.udp {ip}:{port}\naccess.whitelist whitelist\n\
             tracker.rootdir {}\n",
            dir.display(),
            ip = node.ip,
            wide = node.wide,
            port = Self::PORT,
        );
        fs::write(dir.join("conf"), conf).expect("the configuration can be written");
        let mut command = node.command("setpriv");
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
        command.args(["--pdeathsig", "KILL", "--", "opentracker", "-f"]).arg(dir.join("conf"));
        let tracker = Self { proc: Proc::start("opentracker", command), node: node.clone() };
        until("opentracker answers", START_WAIT, || node.connect(node.addr(Self::PORT)).ok());
        tracker
    }

    /// Seeds and leeches of one torrent, as a scrape tells.
    pub fn scrape(&self, hash: &str) -> (u64, u64) {
        scrape(&self.node, self.node.addr(Self::PORT), hash).unwrap_or((0, 0))
    }

    /// Waits until the tracker counts so many seeds.
    pub fn wait_seeds(&self, hash: &str, count: u64) {
        until("seeds at the tracker", START_WAIT, || (self.scrape(hash).0 >= count).then_some(()));
    }
}

/// Asks the HTTP tracker at `at` from `node` for the seeds and leeches of a torrent.
pub fn scrape(node: &Node, at: SocketAddr, hash: &str) -> Option<(u64, u64)> {
    let hex = hash.as_bytes().chunks(2);
    let escaped: String = hex.map(|pair| format!("%{}", String::from_utf8_lossy(pair))).collect();
    let path = format!("/scrape?info_hash={escaped}");
    let answer = http::request(node.connect(at).ok()?, at, "GET", &path, &[], &[]).ok()?;
    let body = answer.text();
    let number = |key: &str| -> Option<u64> {
        let rest = body.split(key).nth(1)?.strip_prefix('i')?;
        rest.split('e').next()?.parse().ok()
    };
    Some((number("8:complete").unwrap_or(0), number("10:incomplete").unwrap_or(0)))
}

/// nginx, serving a folder and nothing else.
pub struct Nginx {
    proc: Proc,
    /// Its base URL, ending with `/`.
    pub url: String,
    log: PathBuf,
}

impl Nginx {
    const PORT: u16 = 8088;

    /// Starts it.
    pub fn start(lab: &Lab, node: &Node, root: &Path) -> Self {
        let dir = lab.folder(&format!("nginx-{}", node.ip));
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
            .collect();
        let conf = format!(
            "user root; worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{ {temp} access_log {dir}/access.log; sendfile on;\n\
             server {{ listen {ip}:{port}; listen [{ip6}]:{port}; root {root}; }} }}\n",
            dir = dir.display(),
            ip = node.ip,
            ip6 = node.ip6,
            port = Self::PORT,
            root = root.display(),
        );
        fs::write(dir.join("nginx.conf"), conf).expect("the configuration can be written");
        let mut command = node.command("nginx");
        command.arg("-c").arg(dir.join("nginx.conf"));
        let proc = Proc::start("nginx", command);
        let url = format!("http://{}:{}/", node.ip, Self::PORT);
        until("nginx listens", START_WAIT, || node.connect(node.addr(Self::PORT)).ok());
        Self { proc, url, log: dir.join("access.log") }
    }

    /// The requests it has answered, one a line.
    pub fn access_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers; killed, it would leave them behind.
        #[cfg(unix)]
        self.proc.terminate();
        let _ = self.proc.try_wait_exit(Duration::from_secs(5));
    }
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_as_rfc_4648_has_it() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }
}
