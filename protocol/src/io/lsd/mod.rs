//! Local service discovery (BEP 14): peers of the same torrents are found on every link that this
//! machine is on, without a tracker, a route or a configuration.
//!
//! One task owns what is said and believed ([`crate::policy::local_announce`]); for each link and
//! address family there is a socket and a task that reads it. Links that come and go are seen within
//! [`LOOK_EVERY`]. Nothing is ever sent further than the link.

mod links;

use super::engine::Note;
use crate::ids::InfoHash;
use crate::policy::local_announce::{Heard, Schedule, Verdict};
use crate::wire::lsd::{Announcement, DATAGRAM_BYTES_MAX, GROUP_V4, GROUP_V6, HASHES_MAX, PORT};
use links::{Link, LinkKey};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(super) use links::is_on_link;

/// How often the links are looked at: who plugs a cable in is heard of within this and an answer's time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Announcements waiting to be judged; more are dropped, as a full socket would.
const WAITING_MAX: usize = 256;
/// Datagrams read in one go. Where there are as many as [`FLOOD`], the link rests before the next:
/// a flood then costs a bounded part of a core, and what the socket cannot hold is lost.
const READ_MAX: usize = 128;
const FLOOD: usize = 16;
const REST: Duration = Duration::from_millis(20);

/// The part of a session that is on the local network. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Lsd {
    torrents: watch::Sender<Vec<InfoHash>>,
    task: AbortHandle,
}

impl Lsd {
    /// Begins to listen and to announce that a peer listens at `listen`. Peers that are found are told as
    /// [`Note::Found`]. Must be called in a tokio runtime.
    pub(super) fn start(listen: Arc<[SocketAddr]>, seed: u64, note: mpsc::Sender<Note>) -> Self {
        let (torrents, watched) = watch::channel(Vec::new());
        let (said, heard) = mpsc::channel(WAITING_MAX);
        let mut rng = fastrand::Rng::with_seed(seed);
        let cookie = format!("{:08x}", rng.u32(..));
        let (heard_before, links, epoch) = (Heard::default(), BTreeMap::new(), Instant::now());
        let work = Work {
            listen,
            epoch,
            rng,
            cookie,
            heard: heard_before,
            links,
            torrents: watched,
            said,
        };
        let task = tokio::spawn(work.run(heard, note)).abort_handle();
        Self { torrents, task }
    }

    /// The torrents to find peers of from now on; none of them private (BEP 27).
    pub(super) fn set_torrents(&self, torrents: Vec<InfoHash>) {
        self.torrents.send_if_modified(|old| {
            let changed = *old != torrents;
            *old = torrents;
            changed
        });
    }
}

impl Drop for Lsd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An announcement, and where its sender says that it listens.
struct Said {
    link: LinkKey,
    from: SocketAddr,
    announcement: Announcement,
}

/// A link in use. It outlives the cable: what was announced there just now is not announced again.
struct Place {
    schedule: Schedule,
    open: Option<Open>,
}

struct Open {
    link: Link,
    port: u16,
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Work {
    listen: Arc<[SocketAddr]>,
    epoch: Instant,
    rng: fastrand::Rng,
    cookie: String,
    heard: Heard,
    links: BTreeMap<LinkKey, Place>,
    torrents: watch::Receiver<Vec<InfoHash>>,
    said: mpsc::Sender<Said>,
}

impl Work {
    async fn run(mut self, mut heard: mpsc::Receiver<Said>, note: mpsc::Sender<Note>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.open().filter_map(|(place, _)| place.schedule.next_due()).min();
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(self.epoch + due).await,
                    None => std::future::pending().await,
                }
            };
            let mut torrents = self.torrents.clone();
            let found = tokio::select! {
                _ = look.tick() => { self.look(); Vec::new() }
                changed = torrents.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.set_torrents();
                    Vec::new()
                }
                said = heard.recv() => said.map_or_else(Vec::new, |said| self.on_said(said)),
                () = due => Vec::new(),
            };
            self.announce();
            for note_of in found {
                if note.send(note_of).await.is_err() {
                    return;
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn open(&self) -> impl Iterator<Item = (&Place, &Open)> {
        self.links.values().filter_map(|place| Some((place, place.open.as_ref()?)))
    }

    fn set_torrents(&mut self) {
        let (now, torrents) = (self.now(), self.torrents.borrow_and_update().clone());
        self.links.values_mut().for_each(|place| place.schedule.set(now, &torrents));
    }

    /// Opens links that have appeared or changed, and closes those that are gone.
    fn look(&mut self) {
        let there = match links::links() {
            Ok(links) => links::reachable(links, &self.listen),
            Err(error) => return tracing::debug!(%error, "cannot look at the network's interfaces"),
        };
        for place in self.links.values_mut() {
            place.open.take_if(|open| !there.iter().any(|(link, _)| *link == open.link));
        }
        // Interfaces of containers come and go under new numbers.
        let known = |key: &LinkKey| there.iter().any(|(link, _)| link.key == *key);
        if self.links.len() > 2 * there.len() + 8 {
            self.links.retain(|key, _| known(key));
        }
        for (link, port) in there {
            let key = link.key;
            if self.links.get(&key).is_some_and(|place| place.open.is_some()) {
                continue;
            }
            let socket = match join(&link) {
                Ok(socket) => Arc::new(socket),
                Err(error) => {
                    tracing::debug!(link = link.name, v6 = key.v6, %error, "no discovery on this link");
                    continue;
                }
            };
            tracing::info!(link = link.name, v6 = key.v6, "looking for peers on this link");
            let task = read(link.clone(), Arc::clone(&socket), self.said.clone());
            let reader = tokio::spawn(task).abort_handle();
            let (now, torrents) = (self.now(), self.torrents.borrow().clone());
            let empty = || Place { schedule: Schedule::default(), open: None };
            let place = self.links.entry(key).or_insert_with(empty);
            place.schedule.set(now, &torrents);
            place.schedule.link_is_back(now);
            place.open = Some(Open { link, port, socket, reader });
        }
    }

    /// Somebody announces: peers to dial of each torrent that is ours, too.
    fn on_said(&mut self, said: Said) -> Vec<Note> {
        let Said { link, from, announcement } = said;
        if announcement.cookie.as_ref() == Some(&self.cookie) {
            return Vec::new();
        }
        let (now, cookie) = (self.now(), announcement.cookie.as_deref());
        let ours = self.torrents.borrow();
        let mut found = Vec::new();
        for hash in announcement.hashes.into_iter().filter(|hash| ours.contains(hash)) {
            let verdict = self.heard.hear(now, from, hash, cookie);
            if verdict == Verdict::Ignored {
                continue;
            }
            if verdict == Verdict::New
                && let Some(place) = self.links.get_mut(&link)
            {
                place.schedule.answer(now, hash, self.rng.f64());
            }
            found.push(Note::Found { hash, addr: from });
        }
        found
    }

    /// Says what is due on each link.
    fn announce(&mut self) {
        let now = self.now();
        for place in self.links.values_mut() {
            let Some(open) = &place.open else { continue };
            let due = place.schedule.take_due(now);
            for hashes in due.chunks(HASHES_MAX) {
                let (port, cookie) = (open.port, Some(self.cookie.clone()));
                let said = Announcement { port, hashes: hashes.to_vec(), cookie };
                let to = group(open.link.key);
                if let Err(error) = open.socket.try_send_to(&said.encode(to), to) {
                    // An address that is not yet known to be nobody else's cannot be sent from.
                    tracing::debug!(link = open.link.name, %error, "not announced; again soon");
                    place.schedule.put_back(now + LOOK_EVERY, hashes);
                }
            }
        }
    }
}

fn group(link: LinkKey) -> SocketAddr {
    if link.v6 {
        SocketAddrV6::new(GROUP_V6, PORT, 0, link.index).into()
    } else {
        SocketAddr::from((GROUP_V4, PORT))
    }
}

/// A socket that hears what is announced on one link, and announces there and no further.
fn join(link: &Link) -> io::Result<UdpSocket> {
    let (index, v6) = (link.key.index, link.key.v6);
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    // Other programs look for peers here as well.
    socket.set_reuse_address(true)?;
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "solaris", target_os = "illumos"))))]
    socket.set_reuse_port(true)?;
    // Where the system does not permit this, what comes from elsewhere fails the test of its source.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket.bind_device(Some(link.name.as_bytes())) {
        tracing::debug!(link = link.name, %error, "not bound to the interface");
    }
    if v6 {
        socket.set_only_v6(true)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
        socket.join_multicast_v6(&GROUP_V6, index)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(1)?;
    } else {
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
        let index = InterfaceIndexOrAddress::Index(index);
        socket.join_multicast_v4_n(&GROUP_V4, &index)?;
        if let Some(IpAddr::V4(own)) = link.own() {
            socket.set_multicast_if_v4(&own)?;
        }
        socket.set_multicast_ttl_v4(1)?;
    }
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// False for what a router, or another link, let through.
fn is_neighbour(link: &Link, from: SocketAddr) -> bool {
    let elsewhere = match from {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(from) => {
            from.ip().is_unicast_link_local() && from.scope_id() != link.key.index
        }
    };
    !elsewhere && link.holds(from.ip())
}

/// Hands on what is announced by hosts of the link.
async fn read(link: Link, socket: Arc<UdpSocket>, said: mpsc::Sender<Said>) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let mut count = 0;
        while count < READ_MAX {
            let (len, from) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Too long on Windows, or the link is going down.
                Err(_) => {
                    count = READ_MAX;
                    break;
                }
            };
            count += 1;
            if !is_neighbour(&link, from) {
                continue;
            }
            let Some(announcement) = Announcement::parse(&buffer[..len]) else { continue };
            let mut from = from;
            from.set_port(announcement.port);
            if said.try_send(Said { link: link.key, from, announcement }).is_err() {
                break; // Full: whoever floods is not waited for.
            }
        }
        if count >= FLOOD {
            tokio::time::sleep(REST).await;
        }
    }
}
