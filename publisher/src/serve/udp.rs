//! The UDP tracker's sockets: beside HTTP, at the same port number.

use super::seeds::lock;
use super::tracker::Link;
use super::udp_tracker::UdpTracker;
use super::{LOOK_MAX, Site};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What one read takes: the system may hand over many datagrams of one sender at once.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Announces of unknown torrents that wait for a look at the repository, at once.
const WAITING_MAX: usize = 64;
/// Rest after the system refused to receive.
const ERROR_REST: Duration = Duration::from_millis(200);

/// A socket that tells which of our addresses a datagram reached, so that the answer leaves from there:
/// clients take it from nowhere else.
#[derive(Debug)]
pub(crate) struct Endpoint {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

/// Opens the sockets at `addr`: at every IPv4 address also means at every IPv6 address, where there is
/// IPv6. Must be called in a tokio runtime.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<Vec<Endpoint>> {
    let mut endpoints = vec![Endpoint::bind(addr, false)?];
    if addr.is_ipv4() && addr.ip().is_unspecified() {
        let beside = SocketAddr::from((Ipv6Addr::UNSPECIFIED, addr.port()));
        match Endpoint::bind(beside, true) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => tracing::debug!(%error, "no UDP tracker over IPv6"),
        }
    }
    Ok(endpoints)
}

impl Endpoint {
    /// `beside_v4`: IPv4 has a socket of its own; otherwise `[::]` means both families.
    fn bind(addr: SocketAddr, beside_v4: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() && addr.ip().is_unspecified() {
            socket.set_only_v6(beside_v4)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, state, local })
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<RecvMeta> {
        let mut meta = [RecvMeta::default()];
        let receive = || {
            let mut buffers = [IoSliceMut::new(buffer)];
            self.state.recv((&self.socket).into(), &mut buffers, &mut meta)
        };
        self.socket.async_io(Interest::READABLE, receive).await?;
        Ok(meta[0])
    }

    async fn send(&self, to: SocketAddr, from: Option<IpAddr>, datagram: &[u8]) {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: from,
        };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        if let Err(error) = self.socket.async_io(Interest::WRITABLE, send).await {
            tracing::debug!(%to, %error, "a tracker's answer was not sent");
        }
    }
}

/// Answers what comes to `endpoint` until it is dropped.
pub(crate) async fn serve(site: Arc<Site>, udp: Arc<UdpTracker>, endpoint: Endpoint) {
    let endpoint = Arc::new(endpoint);
    let places = Arc::new(Semaphore::new(WAITING_MAX));
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let meta = match endpoint.receive(&mut buffer).await {
            Ok(meta) => meta,
            Err(error) => {
                tracing::debug!(%error, "cannot receive datagrams");
                tokio::time::sleep(ERROR_REST).await;
                continue;
            }
        };
        while waiting.try_join_next().is_some() {}
        let local = meta.dst_ip.unwrap_or(endpoint.local.ip());
        let link = Link { remote: meta.addr.ip(), local, one_family: true };
        let datagrams = buffer[..meta.len.min(RECEIVE_BYTES)].chunks(meta.stride.max(1));
        for datagram in datagrams {
            let answer = udp.answer(Instant::now(), link, datagram, &mut lock(&site.tracker));
            let Some(answer) = answer else { continue };
            if !answer.is_unknown {
                endpoint.send(meta.addr, meta.dst_ip, &answer.datagram).await;
            } else if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                // The head may name it already: players are quick on release day.
                let (site, udp, endpoint) =
                    (Arc::clone(&site), Arc::clone(&udp), Arc::clone(&endpoint));
                let datagram = datagram.to_vec();
                waiting.spawn(async move {
                    let looked = site.looked.notified();
                    site.look.notify_one();
                    let _ = tokio::time::timeout(LOOK_MAX, looked).await;
                    let now = Instant::now();
                    let answer = udp.answer(now, link, &datagram, &mut lock(&site.tracker));
                    if let Some(answer) = answer {
                        endpoint.send(meta.addr, meta.dst_ip, &answer.datagram).await;
                    }
                    drop(place);
                });
            }
        }
    }
}
