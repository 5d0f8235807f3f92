//! Asking a UDP tracker (BEP 15), at one IPv4 and one IPv6 address of its name.
//!
//! An answer counts only if it comes from the address that was asked, to the port it was asked from,
//! and with the number that was drawn for the question.

use crate::wire::tracker::{Announce, AnnounceReply};
use crate::wire::udp_tracker::{Family, UdpReply, UdpRequest};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout};
use url::{Host, Url};

/// BEP 15: a client uses a connection id for a minute.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// BEP 15: 15 x 2^n seconds to the next try. Two of them: then the tracker's turn comes again by the
/// back-off of its tier, which goes on as slowly.
const WAITS: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(30)];
/// Where another tracker can be asked instead: two round trips from anywhere, and no more, or players
/// behind a wall against UDP would begin late.
const WAIT_SHORT: [Duration; 1] = [Duration::from_secs(2)];
/// The longest that looking up a name takes.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// How long to wait for a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// There are others to ask.
    Short,
    /// There are not.
    Full,
}

impl Patience {
    fn waits(self) -> &'static [Duration] {
        match self {
            Self::Short => &WAIT_SHORT,
            Self::Full => &WAITS,
        }
    }
}

/// A tracker, and the connections with its addresses.
pub(super) struct UdpTracker {
    url: Url,
    bind: Option<IpAddr>,
    connections: BTreeMap<SocketAddr, Connection>,
}

/// The right to ask, bound to our address as the tracker sees it.
struct Connection {
    socket: UdpSocket,
    id: u64,
    since: Instant,
}

impl UdpTracker {
    /// The tracker at `url`, which names a port. Datagrams leave from `bind` if that is given.
    pub(super) fn new(url: &Url, bind: Option<IpAddr>) -> Self {
        Self { url: url.clone(), bind, connections: BTreeMap::new() }
    }

    /// Sends the announces to an address of each family; an answer for each of both, or in words why
    /// there is none.
    pub(super) async fn ask(
        &mut self,
        announces: &[Announce],
        patience: Patience,
    ) -> Vec<Result<AnnounceReply, String>> {
        let addrs = match self.resolve().await {
            Ok(addrs) => addrs,
            Err(why) => return vec![Err(why)],
        };
        self.connections.retain(|_, known| known.since.elapsed() < CONNECTION_MAX);
        let exchanges = addrs.into_iter().map(|addr| Exchange {
            addr,
            bind: self.bind,
            url: &self.url,
            connection: self.connections.remove(&addr),
            open: announces.to_vec(),
            answers: Vec::new(),
        });
        let ended = join_all(exchanges.map(|exchange| exchange.run(patience.waits()))).await;
        let mut answers = Vec::new();
        for (addr, connection, answered) in ended {
            self.connections.extend(connection.map(|connection| (addr, connection)));
            answers.extend(answered);
        }
        answers
    }

    /// The first address of each family that we can send to.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let port = self.url.port().ok_or("the URL of a UDP tracker must name its port")?;
        let name = match self.url.host() {
            Some(Host::Ipv6(ip)) => ip.to_string(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Domain(name)) => name.to_owned(),
            None => return Err("the URL names no host".to_owned()),
        };
        let found = timeout(LOOKUP_MAX, lookup_host((name.as_str(), port))).await;
        let found = found.map_err(|_| format!("looking up {name} takes too long"))?;
        let found = found.map_err(|error| format!("cannot look up {name}: {error}"))?;
        let mut addrs: Vec<SocketAddr> = Vec::new();
        for addr in found {
            let sendable = self.bind.is_none_or(|own| own.is_ipv4() == addr.is_ipv4());
            if sendable && addrs.iter().all(|known| known.is_ipv4() != addr.is_ipv4()) {
                addrs.push(addr);
            }
        }
        if addrs.is_empty() {
            Err(format!("{name} has no address we can send to"))
        } else {
            Ok(addrs)
        }
    }
}

/// Announces on their way to one address.
struct Exchange<'a> {
    addr: SocketAddr,
    bind: Option<IpAddr>,
    url: &'a Url,
    connection: Option<Connection>,
    /// Without an answer yet.
    open: Vec<Announce>,
    answers: Vec<Result<AnnounceReply, String>>,
}

impl Exchange<'_> {
    async fn run(
        mut self,
        waits: &[Duration],
    ) -> (SocketAddr, Option<Connection>, Vec<Result<AnnounceReply, String>>) {
        for wait in waits {
            match self.attempt(*wait).await {
                Ok(true) => return (self.addr, self.connection, self.answers),
                // The tracker may have forgotten us, or our address may have changed.
                Ok(false) => self.connection = None,
                Err(error) => {
                    self.answers.push(Err(format!("{}: {error}", self.addr)));
                    return (self.addr, None, self.answers);
                }
            }
        }
        let waited = waits.iter().sum::<Duration>().as_secs();
        self.answers.push(Err(format!("no answer from {} within {waited} s", self.addr)));
        (self.addr, None, self.answers)
    }

    /// True once everything is answered, false if time ran out.
    async fn attempt(&mut self, wait: Duration) -> io::Result<bool> {
        if self.connection.is_none() {
            let Ok(connected) = timeout(wait, self.connect()).await else { return Ok(false) };
            match connected? {
                Ok(connection) => self.connection = Some(connection),
                Err(refused) => {
                    self.answers.push(Err(refused));
                    self.open.clear();
                    return Ok(true);
                }
            }
        }
        match timeout(wait, self.announce()).await {
            Ok(announced) => announced.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    async fn connect(&self) -> io::Result<Result<Connection, String>> {
        let any: IpAddr = match self.addr {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((self.bind.unwrap_or(any), 0)).await?;
        // The system drops what others send to a connected socket.
        socket.connect(self.addr).await?;
        let transaction = getrandom::u32().map_err(io::Error::other)?;
        socket.send(&UdpRequest::Connect { transaction }.encode(None)).await?;
        loop {
            match self.receive(&socket).await? {
                Some((heard, UdpReply::Connect { connection: id })) if heard == transaction => {
                    return Ok(Ok(Connection { socket, id, since: Instant::now() }));
                }
                Some((heard, UdpReply::Error(text))) if heard == transaction => {
                    return Ok(Err(format!("the tracker refuses: {text}")));
                }
                Some(_) | None => {}
            }
        }
    }

    async fn announce(&mut self) -> io::Result<()> {
        let Some(Connection { socket, id, .. }) = &self.connection else { return Ok(()) };
        let mut transactions = BTreeMap::new();
        for announce in &self.open {
            let transaction = getrandom::u32().map_err(io::Error::other)?;
            let (connection, announce) = (*id, announce.clone());
            transactions.insert(transaction, announce.info_hash);
            let asked = UdpRequest::Announce { connection, transaction, announce };
            socket.send(&asked.encode(Some(self.url))).await?;
        }
        while !self.open.is_empty() {
            let Some((heard, reply)) = self.receive(socket).await? else { continue };
            let answer = match reply {
                // BEP 15: not again until the interval has passed.
                UdpReply::Announce(reply) => {
                    Ok(AnnounceReply { min_interval_s: Some(reply.interval_s), ..reply })
                }
                UdpReply::Error(text) => Err(format!("the tracker refuses: {text}")),
                UdpReply::Connect { .. } | UdpReply::Scrape(_) => continue,
            };
            if let Some(hash) = transactions.remove(&heard) {
                self.open.retain(|announce| announce.info_hash != hash);
                self.answers.push(answer);
            }
        }
        Ok(())
    }

    /// One datagram; `None` for what is no answer at all.
    async fn receive(&self, socket: &UdpSocket) -> io::Result<Option<(u32, UdpReply)>> {
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        socket.recv_buf(&mut datagram).await?;
        let reply = UdpReply::parse(&datagram, Family::of(self.addr.ip()));
        if reply.is_none() {
            tracing::debug!(tracker = %self.addr, bytes = datagram.len(), "a malformed answer");
        }
        Ok(reply)
    }
}

#[cfg(test)]
mod tests;
