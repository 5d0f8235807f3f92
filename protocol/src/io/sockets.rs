//! The sockets of a session: TCP to listen at, UDP beside it.

use super::session::SessionError;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket};

/// Connections the system may hold ready for us to accept.
const BACKLOG: u32 = 128;

/// Listens at all of `addrs`, which share a port if they leave it open.
pub(super) fn listen(addrs: &[SocketAddr]) -> Result<Vec<TcpListener>, SessionError> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut refused = None;
    let any_will_do = addrs.iter().all(|addr| addr.ip().is_unspecified());
    let mut port = 0;
    for &wanted in addrs {
        // One port for both families, so that one number reaches us.
        let same_port = if wanted.port() == 0 { port } else { wanted.port() };
        match bind(SocketAddr::new(wanted.ip(), same_port)) {
            Ok(listener) => {
                port = listener.local_addr().map_or(0, |addr| addr.port());
                listeners.push(listener);
            }
            Err(source) if any_will_do && wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                // A system without IPv6 is no reason to give up.
                refused = Some(SessionError::Listen { addr: wanted, source });
            }
            Err(source) => return Err(SessionError::Listen { addr: wanted, source }),
        }
    }
    match refused {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if addr.is_ipv6() {
        // Its own family only: IPv4 has a socket of its own.
        socket2::SockRef::from(&socket).set_only_v6(true)?;
    }
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?; // On Windows this would share the port with a stranger.
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// UDP sockets beside the listening ones: at the same port number, or else at one that both families
/// share.
pub(super) fn datagram_sockets(listen: &[SocketAddr]) -> io::Result<Vec<std::net::UdpSocket>> {
    let mut port = None;
    let mut sockets = Vec::new();
    for addr in listen {
        let addr = SocketAddr::new(addr.ip(), port.unwrap_or(addr.port()));
        let socket = match bind_datagrams(addr) {
            Ok(socket) => socket,
            Err(_) if port.is_none() => bind_datagrams(SocketAddr::new(addr.ip(), 0))?,
            // Reachable in one family: better than a port that nobody was told of.
            Err(_) => continue,
        };
        port = Some(socket.local_addr()?.port());
        sockets.push(socket);
    }
    Ok(sockets)
}

fn bind_datagrams(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(addr);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
