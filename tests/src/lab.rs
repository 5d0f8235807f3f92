//! A network of one's own: every client gets a namespace with its own addresses, all of them joined
//! by a bridge that itself sits in a namespace. Nothing leaves it, and nothing else is on it.
//! Foreign clients refuse loopback peers or a second peer at one address; here each has its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::process::{Proc, sent_by};

/// Labs made by this process so far; it keeps their names apart.
static LABS_MADE: AtomicU32 = AtomicU32::new(0);

/// What every namespace's and folder's name begins with; the process id follows.
const PREFIX: &str = "updraft-lab-";

/// How long telling one host of all others may take.
const INTRODUCTION_WAIT: Duration = Duration::from_secs(10);

/// A network, a folder, and everything cleaned up at the end.
pub struct Lab {
    name: String,
    nodes_made: AtomicU32,
    dir: PathBuf,
}

/// One host of the lab: a network namespace with an IPv4 and an IPv6 address.
#[derive(Debug, Clone)]
pub struct Node {
    namespace: String,
    /// Its IPv4 address (10.77.0.0/24).
    pub ip: Ipv4Addr,
    /// Its IPv6 address (fd77::/64).
    pub ip6: Ipv6Addr,
    /// An address that looks as if it were on the internet (203.0.113.0/24, reserved for examples):
    /// to programs that treat a LAN otherwise, other hosts of the lab are far away there.
    pub wide: Ipv4Addr,
}

/// The least that XFS is made for.
const SHARING_DISK_BYTES: u64 = 320 << 20;

impl Lab {
    /// Makes the network.
    ///
    /// # Panics
    /// Without the right to make network namespaces: these suites cannot run then.
    pub fn new() -> Self {
        remove_leftovers();
        let number = LABS_MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).expect("the lab's folder can be made");
        let lab = Self { name, nodes_made: AtomicU32::new(0), dir };
        let switch = lab.switch();
        if let Err(error) = try_ip(&["netns", "add", &switch]) {
            panic!(
                "these suites give every client a network namespace of its own and need root with \
                 the right to make namespaces (CAP_SYS_ADMIN, CAP_NET_ADMIN): {error}"
            );
        }
        ip(&["-n", &switch, "link", "set", "lo", "up"]);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        lab
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    /// The folder of this lab, gone when the lab is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path inside the lab's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a folder inside the lab's folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a folder of the lab can be made");
        path
    }

    /// Adds a host.
    pub fn node(&self) -> Node {
        let number = self.nodes_made.fetch_add(1, Ordering::Relaxed) + 1;
        let host = u8::try_from(number).ok().filter(|host| *host < 250);
        let host = host.expect("a lab has fewer than 250 nodes");
        let namespace = format!("{}-{number}", self.name);
        let node = Node {
            ip: Ipv4Addr::new(10, 77, 0, host),
            ip6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(host)),
            wide: Ipv4Addr::new(203, 0, 113, host),
            namespace,
        };
        let ns = node.namespace.as_str();
        let switch = self.switch();
        let port = format!("port{number}");
        ip(&["netns", "add", ns]);
        ip(&["-n", ns, "link", "set", "lo", "up"]);
        ip(&[
            "-n",
            ns,
            "link",
            "add",
            "eth0",
            "address",
            &node.mac(),
            "type",
            "veth",
            "peer",
            "name",
            &port,
            "netns",
            &switch,
        ]);
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
        ip(&["-n", ns, "addr", "add", &format!("{}/24", node.ip), "dev", "eth0"]);
        ip(&["-n", ns, "addr", "add", &format!("{}/24", node.wide), "dev", "eth0"]);
        // Duplicate address detection would make the address unusable for a second.
        ip(&["-n", ns, "addr", "add", &format!("{}/64", node.ip6), "dev", "eth0", "nodad"]);
        ip(&["-n", ns, "link", "set", "eth0", "up"]);
        node
    }

    /// Tells hosts each other's link addresses, for crowds: the kernel has one table of neighbours for
    /// all namespaces, and thirty hosts that find each other fill its 1024 places. What is told for
    /// good stands outside of them.
    pub fn introduce(nodes: &[&Node]) {
        for node in nodes {
            let others = nodes.iter().filter(|other| other.ip != node.ip);
            let lines: String = others
                .flat_map(|other| {
                    [other.ip, other.wide].map(|ip| {
                        format!(
                            "neigh replace {ip} dev eth0 lladdr {} nud permanent\n",
                            other.mac()
                        )
                    })
                })
                .collect();
            let mut batch = Command::new("ip");
            batch.args(["-n", &node.namespace, "-batch", "-"]);
            let mut batch = Proc::start("ip", batch);
            batch.send_line(&lines);
            batch.close_stdin();
            batch.finish(INTRODUCTION_WAIT);
        }
    }

    /// Adds a host whose outgoing traffic is limited, in `tc` notation ("20mbit").
    pub fn slow_node(&self, rate: &str) -> Node {
        let node = self.node();
        shape(&node.namespace, "eth0", rate, "100ms");
        node
    }

    /// Adds a host behind a router that lets `rate` out and queues as much as takes `queue` ("1s"). The
    /// host cannot see that queue, as it sees its own: its TCP keeps that one short.
    pub fn queueing_node(&self, rate: &str, queue: &str) -> Node {
        let node = self.node();
        let (switch, number) = (self.switch(), node.ip.octets()[3]);
        let [router, inner, outer] = ["br", "in", "out"].map(|name| format!("{name}{number}"));
        ip(&["-n", &switch, "link", "add", &router, "type", "bridge", "mcast_snooping", "0"]);
        ip(&["-n", &switch, "link", "set", &router, "up"]);
        ip(&["-n", &switch, "link", "add", &inner, "type", "veth", "peer", "name", &outer]);
        ip(&["-n", &switch, "link", "set", &format!("port{number}"), "master", &router]);
        ip(&["-n", &switch, "link", "set", &inner, "master", &router, "up"]);
        ip(&["-n", &switch, "link", "set", &outer, "master", "br0", "up"]);
        shape(&switch, &inner, rate, queue);
        node
    }

    /// Adds a host that reaches the others through `router` alone, as one of its addresses on the internet (NAT,
    /// MASQUERADE); whoever begins to speak with it gets no answer. Its address is 192.168.n.2, with the router's
    /// number; `wide` is what others see.
    pub fn node_behind(&self, router: &Node) -> Node {
        let number = router.ip.octets()[3];
        let namespace = format!("{}-behind{number}", self.name);
        let (outside, inside) = (router.namespace.as_str(), namespace.as_str());
        let ends = [1, 2].map(|host| Ipv4Addr::new(192, 168, number, host));
        ip(&["netns", "add", inside]);
        ip(&["-n", inside, "link", "set", "lo", "up"]);
        let link =
            ["link", "add", "eth0", "type", "veth", "peer", "name", "inside", "netns", outside];
        ip(&[&["-n", inside][..], &link].concat());
        ip(&["-n", outside, "addr", "add", &format!("{}/24", ends[0]), "dev", "inside"]);
        ip(&["-n", outside, "link", "set", "inside", "up"]);
        ip(&["-n", inside, "addr", "add", &format!("{}/24", ends[1]), "dev", "eth0"]);
        ip(&["-n", inside, "link", "set", "eth0", "up"]);
        ip(&["-n", inside, "route", "add", "default", "via", &ends[0].to_string()]);
        let in_router = |command: &[&str]| ip(&[&["netns", "exec", outside][..], command].concat());
        in_router(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        // Only the address that looks like one of the internet, or it would masquerade as the other.
        ip(&["-n", outside, "addr", "del", &format!("{}/24", router.ip), "dev", "eth0"]);
        in_router(&[
            "iptables",
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-o",
            "eth0",
            "-j",
            "MASQUERADE",
        ]);
        for chain in ["INPUT", "FORWARD"] {
            let new = ["-i", "eth0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"];
            in_router(&[&["iptables", "-A", chain][..], &new].concat());
        }
        Node { namespace, ip: ends[1], ip6: Ipv6Addr::UNSPECIFIED, wide: router.wide }
    }

    /// Mounts a small file system of `bytes` at `name` inside the lab's folder.
    pub fn small_disk(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.folder(name);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=755"), "tmpfs"]).arg(&path);
        run(&mut mount).expect("a tmpfs can be mounted");
        path
    }

    /// Mounts a file system whose files can share blocks (XFS), at `name` inside the lab's folder.
    pub fn sharing_disk(&self, name: &str) -> PathBuf {
        self.loop_disk(name, "xfs", SHARING_DISK_BYTES, &["-q", "-m", "reflink=1"])
    }

    /// Mounts a small file system of `bytes` that can be made to stand still, at `name` inside the lab's
    /// folder.
    pub fn freezable_disk(&self, name: &str, bytes: u64) -> PathBuf {
        self.loop_disk(name, "ext4", bytes, &["-q", "-F"])
    }

    fn loop_disk(&self, name: &str, kind: &str, bytes: u64, options: &[&str]) -> PathBuf {
        let image = self.path(&format!("{name}.{kind}"));
        let file = File::create(&image).and_then(|file| file.set_len(bytes));
        file.expect("an image can be made");
        let mut format = Command::new(format!("mkfs.{kind}"));
        format.args(options).arg(&image);
        run(&mut format).expect("an image can be formatted (packages e2fsprogs, xfsprogs)");
        let path = self.folder(name);
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", "loop"]).arg(&image).arg(&path);
        run(&mut mount).expect("an image can be mounted (needs loop devices)");
        path
    }

    /// From now on writes to a disk of [`Lab::freezable_disk`] wait, until what is returned is dropped.
    pub fn freeze(&self, disk: &Path) -> Frozen {
        run(Command::new("fsfreeze").arg("--freeze").arg(disk)).expect("the disk can be frozen");
        Frozen(disk.to_owned())
    }

    /// Makes a file system mounted by [`Lab::small_disk`] read-only, or writable again.
    pub fn set_read_only(&self, path: &Path, read_only: bool) {
        let mut mount = Command::new("mount");
        mount.args(["-o", if read_only { "remount,ro" } else { "remount,rw" }]).arg(path);
        run(&mut mount).expect("the file system can be remounted");
    }
}

/// A disk that stands still.
pub struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        thaw(&self.0);
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

impl Node {
    /// Its link address.
    fn mac(&self) -> String {
        format!("02:77:00:00:00:{:02x}", self.ip.octets()[3])
    }

    /// Its IPv4 address with a port.
    pub fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port)
    }

    /// Its IPv6 address with a port.
    pub fn addr6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.ip6), port)
    }

    /// Its far-away address with a port.
    pub fn wide_addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.wide), port)
    }

    /// A command that will run on this host and die with the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter"]);
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg("--").arg(program);
        command
    }

    /// Starts a program on this host.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        name: &str,
        program: impl AsRef<OsStr>,
        args: &[S],
    ) -> Proc {
        let mut command = self.command(program);
        command.args(args);
        Proc::start(name, command)
    }

    /// Runs `make` on a thread that is on this host: sockets opened there stay there.
    pub fn inside<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.namespace);
        let thread = thread::spawn(move || {
            let namespace = File::open(path).expect("the namespace exists");
            enter(&namespace).expect("the namespace can be entered");
            make()
        });
        thread.join().expect("nothing panics inside the namespace")
    }

    /// A connection from this host.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.inside(move || TcpStream::connect_timeout(&to, Duration::from_secs(5)))
    }

    /// A listening socket on this host.
    pub fn listen(&self, port: u16) -> TcpListener {
        let addr = self.addr(port);
        self.inside(move || TcpListener::bind(addr)).expect("the port is free")
    }

    /// Bytes that this host has sent over its link, headers included.
    pub fn bytes_sent(&self) -> u64 {
        self.sent().0
    }

    /// Packets that this host has sent over its link.
    pub fn packets_sent(&self) -> u64 {
        self.sent().1
    }

    fn sent(&self) -> (u64, u64) {
        let table = self.inside(|| fs::read_to_string("/proc/thread-self/net/dev"));
        let table = table.expect("a thread sees its own interfaces");
        sent_by("eth0", &table).expect("eth0 exists")
    }

    /// From now on TCP to far-away addresses is sent with this congestion control.
    pub fn send_with(&self, congestion_control: &str) {
        let (ns, from) = (self.namespace.as_str(), self.wide.to_string());
        let route = ["203.0.113.0/24", "dev", "eth0", "src", &from, "congctl", congestion_control];
        ip(&[&["-n", ns, "route", "replace"], &route[..]].concat());
    }

    /// From now on no UDP leaves this host, as from behind many a firewall.
    pub fn drop_udp(&self) {
        let rule =
            ["-n", &self.namespace, "rule", "add", "ipproto", "udp", "pref", "1", "blackhole"];
        ip(&rule);
    }

    /// Takes away every address but the one of the link itself (IPv6).
    pub fn keep_link_local(&self) {
        ip(&["-n", &self.namespace, "addr", "flush", "dev", "eth0", "scope", "global"]);
    }

    /// From now on what is for nobody on its link goes to `router`.
    pub fn set_router(&self, router: &Self) {
        let (v4, v6) = (router.ip.to_string(), router.ip6.to_string());
        ip(&["-n", &self.namespace, "route", "add", "default", "via", &v4]);
        ip(&["-n", &self.namespace, "-6", "route", "add", "default", "via", &v6]);
    }

    /// Plugs the cable in again that was pulled.
    pub fn plug_in(&self) {
        ip(&["-n", &self.namespace, "link", "set", "eth0", "up"]);
    }

    /// Pulls the cable: nothing gets in or out any more.
    pub fn cut(&self) {
        ip(&["-n", &self.namespace, "link", "set", "eth0", "down"]);
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

fn shape(namespace: &str, device: &str, rate: &str, queue: &str) {
    let mut tc = Command::new("tc");
    tc.args(["-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", "rate", rate]);
    tc.args(["burst", "32kb", "latency", queue]);
    run(&mut tc).expect("tc can shape the link");
}

fn ip(args: &[&str]) {
    if let Err(error) = try_ip(args) {
        panic!("{error}");
    }
}

fn try_ip(args: &[&str]) -> Result<String, String> {
    run(Command::new("ip").args(args))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Lets a disk go on, if it stands still.
fn thaw(disk: &Path) {
    let _ = run(Command::new("fsfreeze").arg("--unfreeze").arg(disk));
}

/// Unmounts, unlinks and forgets everything that bears a lab's name.
fn remove(name: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = std::env::temp_dir().join(name);
    let under = format!("{}/", dir.display());
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if mount.starts_with(&under) {
            // Whoever waits for a frozen disk cannot even be killed.
            thaw(Path::new(mount));
            let _ = run(Command::new("umount").args(["-l", mount]));
        }
    }
    let of_lab = format!("{name}-");
    for namespace in namespaces().filter(|namespace| namespace.starts_with(&of_lab)) {
        let _ = try_ip(&["netns", "del", &namespace]);
    }
    let _ = fs::remove_dir_all(dir);
}

fn namespaces() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// A test that was killed could not clean up; the next lab does it for the ones whose process is gone.
fn remove_leftovers() {
    let folders = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let folders = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    for name in namespaces().chain(folders) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let mut parts = rest.split('-');
        let (Some(pid), Some(number)) = (parts.next(), parts.next()) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new(&format!("/proc/{pid}")).exists() {
            remove(&format!("{PREFIX}{pid}-{number}"));
        }
    }
}
