//! Asks the router to let others in (UPnP, by `igd-next`): the listening TCP port, and the UDP port, at
//! the same numbers outside as inside, since that is what trackers and peers are told.
//!
//! Nothing depends on it: a router that does not answer, or refuses, is a line in the log, and is asked again
//! much later. A mapping is for an hour, renewed before that is over, and taken back at the end.

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{PortMappingProtocol, SearchOptions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the router keeps a mapping by itself.
const LEASE: Duration = Duration::from_secs(3600);
/// When it is asked again: halfway, or after it refused or nobody answered.
const RENEW: Duration = Duration::from_secs(1800);
/// Time for giving everything back at the end.
const GOODBYE: Duration = Duration::from_secs(2);
/// What routers show beside the mapping.
const NAME: &str = "Updraft";

/// Ports that are held open until this is stopped.
#[derive(Debug)]
pub(super) struct Mapping {
    stop: oneshot::Sender<oneshot::Sender<()>>,
}

impl Mapping {
    /// Begins to ask for the ports of `listen` and for the UDP port `datagrams`; `None` where no router would help: who listens on
    /// loopback or at public addresses alone needs none.
    pub(super) fn start(listen: &Arc<[SocketAddr]>, datagrams: Option<u16>) -> Option<Self> {
        let inside = listen.iter().find_map(|addr| match addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() || ip.is_private() => Some((ip, addr.port())),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        });
        let (ip, port) = inside?;
        let ports = [(PortMappingProtocol::TCP, Some(port)), (PortMappingProtocol::UDP, datagrams)];
        let ports = ports.into_iter().filter_map(|(kind, port)| Some((kind, port?))).collect();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(hold(ip, ports, stopped));
        Some(Self { stop })
    }

    /// Gives the ports back.
    pub(super) async fn stop(self) {
        let (reply, done) = oneshot::channel();
        if self.stop.send(reply).is_ok() {
            let _ = timeout(GOODBYE, done).await;
        }
    }
}

type Ports = Vec<(PortMappingProtocol, u16)>;

async fn hold(ip: Ipv4Addr, ports: Ports, mut stopped: oneshot::Receiver<oneshot::Sender<()>>) {
    let mut held: Option<(Gateway<Tokio>, Ports)> = None;
    loop {
        tokio::select! {
            () = ask(ip, &ports, &mut held) => {}
            reply = &mut stopped => return give_back(held, reply.ok()).await,
        }
        tokio::select! {
            () = tokio::time::sleep(RENEW) => {}
            reply = &mut stopped => return give_back(held, reply.ok()).await,
        }
    }
}

/// The router, and the address that it knows us by.
async fn find(
    ip: Ipv4Addr,
) -> Result<(Gateway<Tokio>, IpAddr), Box<dyn std::error::Error + Send + Sync>> {
    let mut options = SearchOptions::default();
    options.bind_addr = (ip, 0).into();
    let gateway = search_gateway(options).await?;
    // Nothing is sent: the system only says which of our addresses leads there.
    let socket = UdpSocket::bind((ip, 0)).await?;
    socket.connect(gateway.addr).await?;
    let inside = socket.local_addr()?.ip();
    Ok((gateway, inside))
}

/// Asks for `ports`, and notes in `held` what may be mapped before it is: what is broken off is given back,
/// too. One that could not be renewed is still ours until its hour is over.
async fn ask(ip: Ipv4Addr, ports: &Ports, held: &mut Option<(Gateway<Tokio>, Ports)>) {
    let (gateway, inside) = match find(ip).await {
        Ok(found) => found,
        Err(error) => return tracing::debug!(%error, "no router maps ports here"),
    };
    let kept = held.take().filter(|(before, _)| before.addr == gateway.addr);
    let (gateway, mapped) =
        held.insert((gateway, kept.map(|(_, ports)| ports).unwrap_or_default()));
    let seconds = u32::try_from(LEASE.as_secs()).expect("an hour");
    for &(kind, port) in ports {
        let new = !mapped.contains(&(kind, port));
        if new {
            mapped.push((kind, port));
        }
        let inside = SocketAddr::new(inside, port);
        match gateway.add_port(kind, port, inside, seconds, NAME).await {
            Ok(()) => {
                tracing::info!(?kind, port, router = %gateway.addr, "the router lets others in");
            }
            Err(error) => {
                tracing::info!(?kind, port, %error, "the router maps no port");
                if new {
                    mapped.pop(); // It may be another's.
                }
            }
        }
    }
}

async fn give_back(held: Option<(Gateway<Tokio>, Ports)>, reply: Option<oneshot::Sender<()>>) {
    if let Some((gateway, ports)) = held {
        for (kind, port) in ports {
            if let Err(error) = gateway.remove_port(kind, port).await {
                tracing::debug!(?kind, port, %error, "the router keeps a port");
            }
        }
    }
    if let Some(reply) = reply {
        let _ = reply.send(());
    }
}
