//! Hosts that TCP does not reach, and strangers at the UDP port.

use super::*;
use crate::ids::{InfoHash, InfoHashes, PeerId};
use crate::io::accept::{self, accept_all};
use crate::io::connection::{self, Greeter, NetEvent};
use crate::io::datagrams;
use crate::io::engine::Command;
use crate::io::quic::Quic;
use crate::io::{Encryption, Preference, Transport};
use std::net::{Ipv4Addr, UdpSocket};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(60);
const HASH: InfoHash = InfoHash([7; 20]);
const HASHES: InfoHashes = InfoHashes { v1: Some(HASH), v2: None };

/// A UDP port where nobody listens by TCP. uTP is read as long as the QUIC endpoint is there.
fn open() -> (Quic, Utp, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    let (port, end) = datagrams::share(socket).unwrap();
    let quic = Quic::open(vec![port], false, false).unwrap();
    (quic, Utp::open(vec![end]).unwrap(), addr)
}

fn dial(utp: &Utp, encryption: Encryption) -> connection::Dial {
    connection::Dial {
        bind: None,
        quic: None,
        utp: Some(utp.clone()),
        ways: Preference::Now.ways(),
        hashes: HASHES,
        peer_id: PeerId([8; 20]),
        encryption,
        dht: false,
    }
}

/// Greets everybody who comes, as an engine with one torrent would.
fn greet(utp: &Utp, encryption: Encryption) -> mpsc::Sender<Command> {
    let (events, mut heard) = mpsc::channel(8);
    let (alive, _) = mpsc::channel(1);
    let torrents = watch::channel(vec![HASH]).1;
    let greeter = Greeter { events, torrents, encryption };
    for listener in utp.listeners().map(accept::Listener::Utp) {
        tokio::spawn(accept_all(listener, greeter.clone(), alive.downgrade(), false));
    }
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(event) = heard.recv().await {
            let NetEvent::Incoming { mut stream, handshake, .. } = event else { continue };
            assert_eq!((stream.transport(), handshake.info_hash), (Transport::Utp, HASH));
            let hello = connection::handshake(HASHES, HASH, PeerId([9; 20]), false).encode();
            stream.write_all(&hello).await.unwrap();
            open.push(stream);
        }
    });
    alive
}

#[tokio::test]
async fn who_refuses_tcp_is_met_by_utp_encrypted_or_not() {
    use Encryption::{Allow, Off, Require};
    // The last of them is found out at the second try.
    for (dials, takes) in [(Off, Off), (Require, Require), (Allow, Require)] {
        let (_quic, host, addr) = open();
        let _alive = greet(&host, takes);
        let (_own_quic, utp, _) = open();
        let dialled = dial(&utp, dials).dial(addr, connection::Route::Plain);
        let (stream, theirs) = timeout(PATIENCE, dialled).await.unwrap().unwrap();
        assert_eq!((stream.transport(), theirs.peer_id), (Transport::Utp, PeerId([9; 20])));
    }
    let (_quic, utp, _) = open();
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = silent.local_addr().unwrap();
    let dialled = dial(&utp, Off).dial(nobody, connection::Route::Plain);
    assert!(timeout(PATIENCE, dialled).await.unwrap().is_none());
}

/// Whoever forges the sender of a SYN has somebody else sent as much three times, at most.
#[tokio::test]
async fn a_syn_is_answered_with_three_times_its_length_at_most() {
    let (_quic, host, addr) = open();
    let _alive = greet(&host, Encryption::Allow);
    let victim = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut syn = [0; 20];
    (syn[0], syn[3], syn[17]) = (0x41, 7, 1);
    victim.send_to(&syn, addr).await.unwrap();
    let (mut buffer, mut bytes) = ([0; 1500], 0);
    // Until the stream is given up: an answer is sent again after a fifth of a second.
    while let Ok(len) = timeout(Duration::from_secs(3), victim.recv(&mut buffer)).await {
        bytes += len.unwrap();
    }
    assert!((20..=60).contains(&bytes), "{bytes}");
}
