//! uTP (BEP 29), by `librqbit-utp`: for clients and networks that TCP does not get through to. Its congestion
//! control is CUBIC, so it does not make way for other traffic as other clients' does.
//!
//! Everything a stranger can make us keep is bounded: streams and buffers here, handshakes where they are taken
//! in.

#[cfg(test)]
mod tests;

use super::datagrams::UtpEnd;
use super::plain::Plain;
use librqbit_utp::{SocketOpts, UtpSocket, UtpSocketUdp};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Streams at once, of each address family.
const STREAMS_MAX: usize = 128;
/// What one stream may hold of what came and nobody has read, in bytes: 100 Mbit/s at 80 ms.
const RECEIVE_MAX: usize = 1 << 20;
/// What one stream may hold of what is sent and not yet acknowledged. What waits there cannot be taken back.
const SEND_MAX: usize = 512 << 10;
/// A packet is sent again so often before its stream counts as dead.
const TRIES: usize = 5;
/// Peers say something every two minutes (BEP 3).
const SILENCE_MAX: Duration = Duration::from_secs(150);
/// Time for a peer to answer a SYN; each is sent once.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
const SYNS: usize = 2;

/// The crate's clock has no public name of its own.
trait Clock {
    type Of;
}

impl<T, E> Clock for UtpSocket<T, E> {
    type Of = E;
}

type Socket = UtpSocket<UtpEnd, <UtpSocketUdp as Clock>::Of>;

/// The uTP sockets of a session. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Utp {
    sockets: Arc<[Arc<Socket>]>,
}

impl Utp {
    /// Opens uTP at `ends`, on the runtime this is called on.
    pub(super) fn open(ends: Vec<UtpEnd>) -> io::Result<Self> {
        let options = || SocketOpts {
            vsock_rx_bufsize_bytes: NonZeroUsize::new(RECEIVE_MAX),
            vsock_tx_bufsize_bytes_max: NonZeroUsize::new(SEND_MAX),
            disable_nagle: true,
            max_retransmissions: NonZeroUsize::new(TRIES),
            remote_inactivity_timeout: Some(SILENCE_MAX),
            max_live_vsocks: NonZeroUsize::new(STREAMS_MAX),
            ..SocketOpts::default()
        };
        let open = |end| Socket::new_with_opts(end, Default::default(), options());
        let sockets: Result<Vec<_>, _> = ends.into_iter().map(open).collect();
        Ok(Self { sockets: sockets.map_err(io::Error::other)?.into() })
    }

    /// Dials.
    pub(super) async fn connect(&self, addr: SocketAddr) -> io::Result<Plain> {
        let fits = |socket: &&Arc<Socket>| socket.bind_addr().is_ipv4() == addr.is_ipv4();
        let socket = self.sockets.iter().find(fits).ok_or(io::ErrorKind::AddrNotAvailable)?;
        for _ in 0..SYNS {
            if let Ok(connected) = timeout(ANSWER_TIMEOUT, socket.connect(addr)).await {
                return Ok(Plain::Utp(Box::new(connected.map_err(io::Error::other)?)));
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Where those who dial us come in.
    pub(super) fn listeners(&self) -> impl Iterator<Item = Listener> {
        self.sockets.iter().map(|socket| Listener(Arc::clone(socket)))
    }
}

/// Takes in those who dial us at one address.
pub(super) struct Listener(Arc<Socket>);

impl Listener {
    /// The next.
    pub(super) async fn accept(&self) -> io::Result<(Plain, SocketAddr)> {
        let stream = self.0.accept().await.map_err(io::Error::other)?;
        let addr = stream.remote_addr();
        Ok((Plain::Utp(Box::new(stream)), addr))
    }
}
