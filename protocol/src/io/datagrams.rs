//! One UDP port for all that is spoken over UDP: QUIC between our own, uTP (BEP 29) with every other client, at
//! the number of the TCP port, where clients look for it.
//!
//! QUIC's endpoint reads the socket; what is uTP goes aside to [`UtpEnd`]. Both send by the same socket, so
//! that a router sees one flow.

use librqbit_dualstack_sockets::PollSendToVectored;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};

/// Datagrams of uTP that wait to be read, 1.5 MiB at most; more are lost, as a full socket would lose them.
const WAITING_MAX: usize = 1024;

/// What somebody gets who has another's address answered: so many times the 20 bytes of a SYN.
const ANSWERS_MAX: u32 = 3;
/// Addresses remembered for that, many times the handshakes under way.
const UNPROVEN_MAX: usize = 1024;
/// The first byte of what asks for a connection (BEP 29).
const SYN: u8 = 0x41;

type Datagram = (Box<[u8]>, SocketAddr);

/// A UDP port, as QUIC sees it.
#[derive(Debug)]
pub(super) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    utp: mpsc::Sender<Datagram>,
}

/// The same port, as uTP sees it.
pub(super) struct UtpEnd {
    port: Arc<Port>,
    local: SocketAddr,
    received: Mutex<mpsc::Receiver<Datagram>>,
    unproven: Unproven,
}

/// Addresses that asked for a connection and have shown nothing of getting what is sent there, and how often
/// something was.
#[derive(Default)]
struct Unproven(std::sync::Mutex<HashMap<SocketAddr, u32>>);

impl Unproven {
    fn on_received(&self, datagram: &[u8], from: SocketAddr) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if datagram.first() != Some(&SYN) {
            sent.remove(&from);
        } else if sent.contains_key(&from) || sent.len() < UNPROVEN_MAX {
            sent.entry(from).or_default();
        } else {
            *sent = HashMap::from([(from, 0)]);
        }
    }

    /// Whether something more may be sent there.
    fn may_send(&self, to: SocketAddr) -> bool {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = sent.get_mut(&to) else { return true };
        *count += 1;
        *count <= ANSWERS_MAX
    }
}

/// Shares a socket; must be called in a tokio runtime. uTP gets something only while a QUIC endpoint reads.
pub(super) fn share(socket: std::net::UdpSocket) -> io::Result<(Arc<Port>, UtpEnd)> {
    let (utp, received) = mpsc::channel(WAITING_MAX);
    let state = UdpSocketState::new((&socket).into())?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    let local = socket.local_addr()?;
    let port = Arc::new(Port { socket, state, utp });
    Ok((
        Arc::clone(&port),
        UtpEnd { port, local, received: Mutex::new(received), unproven: Unproven::default() },
    ))
}

impl Port {
    /// Takes the datagrams of uTP out of what was received; how many receptions are left for QUIC.
    fn sort(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut kept = 0;
        for at in 0..metas.len() {
            // The system may hand over several datagrams of one sender together, all but the last of one
            // length.
            let (len, stride) = (metas[at].len, metas[at].stride.max(1));
            let (mut from, mut left) = (0, 0);
            while from < len {
                let to = (from + stride).min(len);
                if is_utp(&buffers[at][from..to]) {
                    let _ = self.utp.try_send((buffers[at][from..to].into(), metas[at].addr));
                } else {
                    buffers[at].copy_within(from..to, left);
                    left += to - from;
                }
                from = to;
            }
            if left > 0 {
                metas[at].len = left;
                metas.swap(kept, at);
                buffers.swap(kept, at);
                kept += 1;
            }
        }
        kept
    }
}

/// Tells uTP from QUIC. The first byte of uTP has its version, 1, below its type, 0 to 4 (BEP 29); QUIC has one
/// of the two highest bits set (RFC 9000, 17), which leaves the type of a SYN to both. A SYN has nothing to
/// say of its peer's clock yet, where a packet of QUIC has encrypted bytes.
fn is_utp(datagram: &[u8]) -> bool {
    match datagram.first() {
        Some(0x01 | 0x11 | 0x21 | 0x31) => true,
        Some(&SYN) => datagram.get(8..12) == Some(&[0; 4]),
        _ => false,
    }
}

impl AsyncUdpSocket for Port {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { port: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || self.state.send((&self.socket).into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let received = self.socket.try_io(Interest::READABLE, || {
                self.state.recv((&self.socket).into(), buffers, metas)
            });
            // What fails belongs to one datagram, or to none: the next may come.
            let Ok(received) = received else { continue };
            let kept = self.sort(buffers, &mut metas[..received]);
            if kept > 0 {
                return Poll::Ready(Ok(kept));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits for room in the socket, for one of those who send.
struct Writable {
    port: Arc<Port>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let port = Arc::clone(&self.port);
        let wait = || -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>> {
            Box::pin(async move { port.socket.writable().await })
        };
        let result = ready!(self.waiting.get_or_insert_with(wait).as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl librqbit_utp::Transport for UtpEnd {
    async fn recv_from<'a>(&'a self, buffer: &'a mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self.received.lock().await.recv().await;
        let (datagram, from) = received.ok_or(io::ErrorKind::BrokenPipe)?;
        self.unproven.on_received(&datagram, from);
        let len = datagram.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram[..len]);
        Ok((len, from))
    }

    async fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> io::Result<usize> {
        if self.unproven.may_send(to) {
            self.port.socket.send_to(bytes, to).await
        } else {
            Ok(bytes.len())
        }
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        if !self.unproven.may_send(to) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.port.socket.poll_send_to(cx, bytes, to)
    }

    fn bind_addr(&self) -> SocketAddr {
        self.local
    }
}

impl PollSendToVectored for UtpEnd {
    fn poll_send_to_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.port.socket.poll_send_to_vectored(cx, slices, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librqbit_utp::Transport;
    use std::net::Ipv4Addr;

    /// A header of uTP: type and version, then sixteen bytes that matter to nobody here but the four of the
    /// clocks' difference.
    fn utp(kind: u8, difference: u32) -> Vec<u8> {
        let mut header = vec![kind << 4 | 1, 0, 7, 7, 9, 9, 9, 9];
        header.extend(difference.to_be_bytes());
        header.resize(20, 3);
        header
    }

    #[test]
    fn every_packet_goes_where_it_belongs() {
        for kind in 0..=3 {
            assert!(is_utp(&utp(kind, 5)));
        }
        assert!(is_utp(&utp(4, 0)));
        assert!(!is_utp(&utp(4, 5)), "a short header of QUIC");
        assert!(!is_utp(&utp(5, 0)));
        assert!(!is_utp(&[]) && !is_utp(&[0x41]) && !is_utp(b"d1:ad2:id20:"));
        assert!((0x40..=0xff).filter(|&first| is_utp(&[first; 40])).count() == 0);
    }

    #[test]
    fn datagrams_received_together_are_told_apart() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let (port, end) = share(socket).unwrap();
            let quic = |fill: u8, len: usize| {
                vec![0x40 | fill, fill].into_iter().chain(vec![fill; len - 2]).collect::<Vec<u8>>()
            };
            // Of one sender: QUIC, uTP and QUIC again, the last one shorter; of another, uTP alone; of a
            // third, QUIC.
            let mut runs = [
                [quic(1, 20), utp(0, 1), quic(2, 20), utp(2, 2), quic(3, 10)].concat(),
                utp(4, 0),
                quic(4, 30),
            ];
            let mut metas = [RecvMeta::default(); 3];
            for ((port, meta), run) in (0..).zip(&mut metas).zip(&runs) {
                (meta.len, meta.stride) = (run.len(), if port == 0 { 20 } else { run.len() });
                meta.addr = SocketAddr::from(([192, 0, 2, 1], port));
            }
            let mut buffers: Vec<IoSliceMut> =
                runs.iter_mut().map(|run| IoSliceMut::new(run)).collect();
            assert_eq!(port.sort(&mut buffers, &mut metas), 2);
            let left = [quic(1, 20), quic(2, 20), quic(3, 10)].concat();
            assert_eq!(buffers[0][..metas[0].len], left);
            assert_eq!(buffers[1][..metas[1].len], quic(4, 30));
            assert_eq!((metas[0].addr.port(), metas[1].addr.port()), (0, 2));
            for (expected, from) in [(utp(0, 1), 0), (utp(2, 2), 0), (utp(4, 0), 1)] {
                let mut buffer = [0; 1500];
                let (len, addr) = end.recv_from(&mut buffer).await.unwrap();
                assert_eq!((&buffer[..len], addr.port()), (&expected[..], from));
            }
        });
    }
}
