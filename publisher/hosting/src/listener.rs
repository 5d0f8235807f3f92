//! Accepting HTTP connections with bounds: so many at once, no request or answer without an end, and when there
//! is no place, the connection that has rested the longest between two requests makes one.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use std::future::Future as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, timeout};
use updraft_protocol::io::is_lan;

/// Connections open at once; the next waits in the system's queue.
const CONNECTIONS_MAX: usize = 512;
/// A request is complete, and its answer begins, within this of its first byte.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// A connection between two requests, or whose answer does not go on, is closed after this.
const REST_MAX: Duration = Duration::from_secs(30);
/// One whose client takes nothing of the answer is closed after this.
const STUCK_MAX: Duration = Duration::from_secs(30);
/// One that has rested for so long makes place for another.
const REST_MIN: Duration = Duration::from_secs(1);
/// How often a place is looked for while there is none.
const LOOK: Duration = Duration::from_millis(100);

/// A listening socket that hands out a bounded number of connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    places: Arc<Semaphore>,
    open: Vec<Weak<Mutex<Rest>>>,
}

/// What a listener knows of a connection, and may ask of it.
#[derive(Debug)]
struct Rest {
    /// Since when it has waited for a request, if it does.
    since: Option<Instant>,
    makes_place: bool,
    waker: Option<Waker>,
}

impl Listener {
    /// Over a socket that listens.
    pub fn new(socket: TcpListener) -> Self {
        Self::with(socket, CONNECTIONS_MAX)
    }

    fn with(socket: TcpListener, connections_max: usize) -> Self {
        Self { socket, places: Arc::new(Semaphore::new(connections_max)), open: Vec::new() }
    }

    async fn place(&mut self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = timeout(LOOK, Arc::clone(&self.places).acquire_owned()).await {
                self.open.retain(|rest| rest.strong_count() > 0);
                return place.expect("the semaphore is never closed");
            }
            self.end_longest_rest();
        }
    }

    fn end_longest_rest(&self) {
        let since = |rest: &Arc<Mutex<Rest>>| lock(rest).since;
        let resting = self.open.iter().filter_map(Weak::upgrade);
        let late = resting.filter_map(|rest| Some((since(&rest)?, rest)));
        let longest = late.filter(|(since, _)| since.elapsed() >= REST_MIN);
        if let Some((_, rest)) = longest.min_by_key(|(since, _)| *since) {
            let mut rest = lock(&rest);
            (rest.makes_place, rest.since) = (true, None);
            rest.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

fn lock(rest: &Mutex<Rest>) -> std::sync::MutexGuard<'_, Rest> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = self.place().await;
        loop {
            match self.socket.accept().await {
                Ok((stream, remote)) => {
                    let local = stream.local_addr().unwrap_or(remote);
                    let _ = stream.set_nodelay(true);
                    let connection = Connection::new(stream, local, place);
                    self.open.push(Arc::downgrade(&connection.rest));
                    return (connection, remote);
                }
                Err(error) => {
                    // Out of file handles, most likely: others must end before we can go on.
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// The address others reach this machine at, when it listens on all of them: that of the way to the internet, or else
/// the first one of a network that is not this machine alone.
pub fn shown_ip(ip: IpAddr) -> IpAddr {
    if !ip.is_unspecified() {
        return ip;
    }
    // Connecting a UDP socket sends nothing; the system only says which address it would use.
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    let on_a_link = || {
        let mut found: Vec<IpAddr> =
            if_addrs::get_if_addrs().unwrap_or_default().iter().map(|link| link.ip()).collect();
        found.retain(|ip| !ip.is_loopback());
        found.into_iter().min_by_key(|ip| (ip.is_ipv6(), !is_lan(*ip)))
    };
    routed.ok().map(|addr| addr.ip()).or_else(on_a_link).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Theirs.
    pub remote: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

impl Connected<IncomingStream<'_, Listener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self { remote: *stream.remote_addr(), local: stream.io().local }
    }
}

/// What a connection waits for, as far as bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For a request, or for more of an answer.
    Resting,
    /// A request has begun: for the rest of it, and its answer.
    Asked,
    /// For its client to take what was written.
    Stuck,
}

/// A connection that ends when it makes no progress, whatever trickles in.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    local: SocketAddr,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
    rest: Arc<Mutex<Rest>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, local: SocketAddr, place: OwnedSemaphorePermit) -> Self {
        let since = Some(Instant::now());
        let rest = Arc::new(Mutex::new(Rest { since, makes_place: false, waker: None }));
        let deadline = Box::pin(tokio::time::sleep(REQUEST_MAX));
        Self { stream, local, phase: Phase::Resting, deadline, rest, _place: place }
    }

    fn enter(&mut self, phase: Phase) {
        let now = Instant::now();
        let patience = match phase {
            Phase::Resting => REST_MAX,
            Phase::Asked => REQUEST_MAX,
            Phase::Stuck => STUCK_MAX,
        };
        self.phase = phase;
        self.deadline.as_mut().reset(now + patience);
        lock(&self.rest).since = (phase == Phase::Resting).then_some(now);
    }

    /// Ends a connection that has waited too long, or makes place.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            return poll;
        }
        let mut rest = lock(&self.rest);
        if rest.makes_place {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        rest.waker = Some(cx.waker().clone());
        drop(rest);
        self.deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if poll.is_ready() {
            self.enter(Phase::Resting);
        } else if self.phase != Phase::Stuck {
            self.enter(Phase::Stuck);
        }
        self.watch(cx, poll)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if poll.is_ready() && self.phase == Phase::Resting {
            self.enter(Phase::Asked);
        }
        self.watch(cx, poll)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::serve::Listener as _;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Two of two places are taken by connections that wait: the third gets the place of the one that has
    /// waited longer, and neither the other nor one with a request under way loses its own.
    #[tokio::test]
    async fn who_rests_longest_makes_place() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = socket.local_addr().unwrap();
        let mut listener = Listener::with(socket, 3);
        let mut clients = Vec::new();
        let mut reads = Vec::new();
        for at in 0..3 {
            let mut client = TcpStream::connect(addr).await.unwrap();
            let (mut connection, _) = listener.accept().await;
            if at == 0 {
                client.write_all(b"G").await.unwrap();
                assert_eq!(connection.read_u8().await.unwrap(), b'G');
            }
            clients.push(client);
            reads.push(tokio::spawn(async move { connection.read_u8().await }));
        }
        let _third = TcpStream::connect(addr).await.unwrap();
        let _accepted = listener.accept().await;
        let ended = reads.remove(1).await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
        assert!(reads.iter().all(|read| !read.is_finished()));
    }

    /// A request that trickles in is not waited for without end.
    #[tokio::test]
    async fn what_trickles_in_does_not_put_the_end_off() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (mut connection, _) = Listener::with(socket, 1).accept().await;
        let mut deadlines = Vec::new();
        for _ in 0..3 {
            client.write_all(b"G").await.unwrap();
            connection.read_u8().await.unwrap();
            deadlines.push(connection.deadline.deadline());
        }
        assert_eq!(deadlines[1], deadlines[2]);
        connection.write_all(b"answer").await.unwrap();
        assert!(connection.deadline.deadline() > deadlines[2]);
        assert!(lock(&connection.rest).since.is_some());
    }
}
