//! Strangers at the UDP port.

use super::*;
use crate::ids::{InfoHash, InfoHashes, PeerId};
use crate::io::datagrams;
use crate::io::{Encryption, Preference, Session, SessionConfig};
use crate::wire::handshake::{Abilities, HANDSHAKE_LEN, Handshake};
use std::net::{Ipv4Addr, UdpSocket};

const PATIENCE: Duration = Duration::from_secs(60);
const HASH: InfoHash = InfoHash([7; 20]);

/// A session with a meeting place under [`HASH`].
async fn host() -> (Session, crate::io::Rendezvous, SocketAddr) {
    struct Nothing;
    impl crate::io::DocumentStore for Nothing {
        fn part(&self, _: &str, _: u32) -> Option<crate::io::DocumentPart> {
            None
        }
    }
    let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
    let config = SessionConfig { listen, transport: Preference::Quic, ..SessionConfig::default() };
    let session = Session::start(config).await.unwrap();
    let meeting =
        session.add_rendezvous(HASH, Arc::new(Nothing), Vec::new(), Vec::new()).await.unwrap();
    // Nobody else takes ports of this address between the two.
    let addr = session.listen_addrs()[0];
    (session, meeting, addr)
}

fn client(protocol: &[u8]) -> Endpoint {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody::new(&provider)))
        .with_no_client_auth();
    client.alpn_protocols = vec![protocol.to_vec()];
    let client = QuicClientConfig::try_from(client).unwrap();
    let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(client)));
    endpoint
}

fn hello() -> [u8; HANDSHAKE_LEN] {
    let abilities = Abilities { extensions: true, fast: true, v2: false, dht: false };
    Handshake { info_hash: HASH, peer_id: PeerId([9; 20]), abilities }.encode()
}

async fn answered(endpoint: &Endpoint, addr: SocketAddr) -> bool {
    let greet = async {
        let connection = endpoint.connect(addr, NAME).unwrap().await.ok()?;
        let (mut send, mut receive) = connection.open_bi().await.ok()?;
        send.write_all(&hello()).await.ok()?;
        let mut answer = [0; HANDSHAKE_LEN];
        receive.read_exact(&mut answer).await.ok()?;
        Handshake::parse(&answer).ok().filter(|answer| answer.info_hash == HASH)
    };
    timeout(PATIENCE, greet).await.unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_are_refused_and_peers_answered() {
    let (session, _meeting, addr) = host().await;
    assert!(!answered(&client(b"h3"), addr).await);
    assert!(answered(&client(PROTOCOL), addr).await);
    session.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_at_the_port_disturbs_nobody() {
    let (session, _meeting, addr) = host().await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut rng = fastrand::Rng::with_seed(3);
    for round in 0..2000_usize {
        let mut datagram = vec![0; round % 1400];
        rng.fill(&mut datagram);
        // A good part looks like the first packet of a handshake, some like uTP (0x41).
        if let Some(first) = datagram.first_mut() {
            *first = [0xc3, 0x41, *first][round % 3];
        }
        let _ = socket.send_to(&datagram, addr);
    }
    assert!(answered(&client(PROTOCOL), addr).await);
    session.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_is_all_that_a_connection_has() {
    let (session, _meeting, addr) = host().await;
    let endpoint = client(PROTOCOL);
    let connection = endpoint.connect(addr, NAME).unwrap().await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&hello()).await.unwrap();
    assert!(timeout(Duration::from_millis(200), connection.open_bi()).await.is_err());
    assert!(timeout(Duration::from_millis(200), connection.open_uni()).await.is_err());
    session.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_handshake_ends_the_connection() {
    let (session, _meeting, addr) = host().await;
    let connection = client(PROTOCOL).connect(addr, NAME).unwrap().await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(b"GET / HTTP/1.1\r\nHost: game\r\n\r\n").await.unwrap();
    timeout(PATIENCE, connection.closed()).await.unwrap();
    session.stop().await;
}

/// More handshakes at once than there is room for: each is answered in the end, or refused, and the next
/// peer is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_half_open_connections_keeps_nobody_out_for_good() {
    let (session, _meeting, addr) = host().await;
    let endpoint = client(PROTOCOL);
    let crowd: Vec<_> = (0..HANDSHAKES_MAX + 8)
        .filter_map(|_| Some(tokio::spawn(endpoint.connect(addr, NAME).ok()?)))
        .collect();
    let mut open = Vec::new();
    for one in crowd {
        if let Ok(Ok(Ok(connection))) = timeout(PATIENCE, one).await {
            open.push(connection);
        }
    }
    drop(open);
    let other = client(PROTOCOL);
    let served = async { while !answered(&other, addr).await {} };
    timeout(PATIENCE, served).await.unwrap();
    session.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_answer_by_quic_is_dialled_by_tcp() {
    let (session, _meeting, addr) = host().await;
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let (own, _utp) = datagrams::share(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
    let quic = Quic::open(vec![own], true, false).unwrap();
    let dial = || connection::Dial {
        bind: None,
        quic: Some(quic.clone()),
        utp: None,
        ways: Preference::Quic.ways(),
        hashes: InfoHashes { v1: Some(HASH), v2: None },
        peer_id: PeerId([8; 20]),
        encryption: Encryption::default(),
        dht: false,
    };
    let (stream, _) = dial().dial(addr, connection::Route::QuicFirst(port)).await.unwrap();
    assert!(matches!(stream, Stream::Plain(_)));
    assert!(dial().dial(addr, connection::Route::Quic(port)).await.is_none());
    let (stream, _) = dial().dial(addr, connection::Route::QuicFirst(addr.port())).await.unwrap();
    assert!(matches!(stream, Stream::Quic(..)));
    session.stop().await;
}
