//! Taking connections in. Only so many handshakes are under way at once, and one that says nothing keeps
//! nobody out: when there is no room it makes place, first of all at the address that has most of them.

use super::connection::Greeter;
use super::engine::Command;
use super::plain::Plain;
use super::{lsd, stream, utp};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Handshakes under way at once.
const HANDSHAKES_MAX: usize = 64;
/// One that takes longer makes place when there is no room.
const PROMPT: Duration = Duration::from_secs(1);
/// How long to wait when the system has no handle left for another connection.
const RETRY: Duration = Duration::from_millis(200);

/// Where connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Utp(utp::Listener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Plain, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(stream, addr)| (Plain::Tcp(stream), addr))
            }
            Self::Utp(listener) => listener.accept().await,
        }
    }
}

struct Handshake {
    from: IpAddr,
    since: Instant,
    task: AbortHandle,
}

/// Accepts until the session is gone; with `local_only` nobody who is not on a link of this machine.
pub(super) async fn accept_all(
    listener: Listener,
    greeter: Greeter,
    alive: mpsc::WeakSender<Command>,
    local_only: bool,
) {
    let mut tasks = JoinSet::new();
    // In the order in which they came.
    let mut underway: VecDeque<Handshake> = VecDeque::new();
    loop {
        let full = underway.len() >= HANDSHAKES_MAX;
        let late = underway.front().filter(|_| full).map(|first| first.since + PROMPT);
        let accepted = tokio::select! {
            accepted = listener.accept(), if !full => accepted,
            Some(_) = tasks.join_next() => {
                underway.retain(|handshake| !handshake.task.is_finished());
                continue;
            }
            () = async { sleep_until(late.unwrap_or_else(Instant::now)).await }, if full => {
                let late = underway.iter().take_while(|one| one.since.elapsed() >= PROMPT);
                let froms: Vec<IpAddr> = underway.iter().map(|one| one.from).collect();
                if let Some(at) = makes_place(&froms, late.count()) {
                    underway.remove(at).into_iter().for_each(|one| one.task.abort());
                }
                continue;
            }
            () = greeter.events.closed() => return,
        };
        if alive.upgrade().is_none() {
            return;
        }
        match accepted {
            Ok((stream, addr)) => {
                let addr = stream::canonical(addr);
                if local_only && !lsd::is_on_link(addr.ip()) {
                    continue;
                }
                let task = tasks.spawn(greeter.clone().accept(stream, addr));
                underway.push_back(Handshake { from: addr.ip(), since: Instant::now(), task });
            }
            Err(error) => {
                // Out of file handles, most likely: others must end before we can go on.
                tracing::warn!(%error, "cannot accept connections");
                sleep(RETRY).await;
            }
        }
    }
}

/// Which handshake ends for another: of the first `late` of them, the oldest of the address with the most.
fn makes_place(froms: &[IpAddr], late: usize) -> Option<usize> {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    froms.iter().for_each(|&from| *counts.entry(from).or_default() += 1);
    // The last of equals is the one that min finds first when the order is turned around.
    (0..late).max_by_key(|&at| (counts[&froms[at]], std::cmp::Reverse(at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::connection::NetEvent;
    use crate::policy::encryption::Encryption;
    use std::net::Ipv4Addr;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::sync::watch;

    #[test]
    fn the_oldest_of_whoever_has_most_makes_place() {
        let froms = [1, 2, 2, 3, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        assert_eq!(makes_place(&froms, 5), Some(1));
        assert_eq!(makes_place(&froms, 1), Some(0), "the others are not late");
        assert_eq!(makes_place(&froms, 0), None);
        assert_eq!(makes_place(&[froms[0], froms[1]], 2), Some(0));
    }

    /// The system's queue and ours are full of connections that say nothing.
    #[tokio::test]
    async fn silent_connections_keep_nobody_out() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (events, mut heard) = mpsc::channel(1);
        let (_names, torrents) = watch::channel(Vec::new());
        let greeter = Greeter { events, torrents, encryption: Encryption::default() };
        let (commands, _held) = mpsc::channel(1);
        let listener = Listener::Tcp(listener);
        tokio::spawn(accept_all(listener, greeter, commands.downgrade(), false));
        let mut silent = Vec::new();
        for _ in 0..HANDSHAKES_MAX + 20 {
            silent.push(TcpStream::connect(addr).await.unwrap());
        }
        let mut honest = TcpStream::connect(addr).await.unwrap();
        let hello = [&b"\x13BitTorrent protocol"[..], &[0; 8], &[7; 40]].concat();
        honest.write_all(&hello).await.unwrap();
        assert!(matches!(heard.recv().await, Some(NetEvent::Incoming { .. })));
        // The oldest made place for it and those before it; nobody had to be given up for that.
        let open = |stream: &TcpStream| {
            let read = stream.try_read(&mut [0]);
            matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        assert!(open(&silent[HANDSHAKES_MAX - 1]));
        assert!(!open(&silent[0]));
    }
}
