//! Against a tracker on 127.0.0.1 that says what each test wants.

use super::super::tests::{Lab, v1};
use super::*;
use crate::ids::{InfoHash, InfoHashV2, InfoHashes, PeerId};
use crate::io::trackers::{AnnounceState, SwarmSize};
use crate::wire::tracker::Event;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

const CONNECTION: u64 = 0x1234_5678_9abc_def0;
const PACKET_BYTES_MAX: usize = 1232;

/// What it answers to the n-th request: datagrams, from its own address or from another one.
type Script = dyn Fn(usize, &UdpRequest) -> Vec<(bool, Vec<u8>)> + Send + Sync;

struct Server {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<(SocketAddr, UdpRequest)>>>,
}

impl Server {
    async fn start(ip: IpAddr, port: u16, script: Arc<Script>) -> Self {
        let socket = UdpSocket::bind((ip, port)).await.unwrap();
        let stranger = UdpSocket::bind((ip, 0)).await.unwrap();
        let server = Self { addr: socket.local_addr().unwrap(), requests: Arc::default() };
        let requests = Arc::clone(&server.requests);
        tokio::spawn(async move {
            let mut datagram = [0; 2000];
            while let Ok((len, from)) = socket.recv_from(&mut datagram).await {
                let Some(request) = UdpRequest::parse(&datagram[..len]) else { continue };
                let answers = {
                    let mut requests = requests.lock().unwrap();
                    requests.push((from, request.clone()));
                    script(requests.len() - 1, &request)
                };
                for (own, answer) in answers {
                    let sender = if own { &socket } else { &stranger };
                    sender.send_to(&answer, from).await.unwrap();
                }
            }
        });
        server
    }

    async fn local(
        script: impl Fn(usize, &UdpRequest) -> Vec<(bool, Vec<u8>)> + Send + Sync + 'static,
    ) -> Self {
        Self::start(Ipv4Addr::LOCALHOST.into(), 0, Arc::new(script)).await
    }

    fn url(&self) -> Url {
        Url::parse(&format!("udp://{}/announce", self.addr)).unwrap()
    }

    fn count(&self, wanted: impl Fn(&UdpRequest) -> bool) -> usize {
        self.requests.lock().unwrap().iter().filter(|(_, request)| wanted(request)).count()
    }

    fn connects(&self) -> usize {
        self.count(|request| matches!(request, UdpRequest::Connect { .. }))
    }

    fn announces(&self) -> Vec<(u64, Announce)> {
        let announce = |(_, request): &(SocketAddr, UdpRequest)| match request {
            UdpRequest::Announce { connection, announce, .. } => {
                Some((*connection, announce.clone()))
            }
            UdpRequest::Connect { .. } | UdpRequest::Scrape { .. } => None,
        };
        self.requests.lock().unwrap().iter().filter_map(announce).collect()
    }
}

fn reply(peer: &str) -> UdpReply {
    UdpReply::Announce(AnnounceReply {
        interval_s: 1000,
        seeders: Some(2),
        leechers: Some(1),
        peers: vec![peer.parse().unwrap()],
        ..AnnounceReply::default()
    })
}

/// What a tracker that does everything right answers.
fn answer(request: &UdpRequest, family: Family) -> Vec<u8> {
    let peer = if family == Family::V4 { "1.2.3.4:5" } else { "[2001:db8::1]:6" };
    match request {
        UdpRequest::Connect { transaction } => UdpReply::Connect { connection: CONNECTION }.encode(
            *transaction,
            family,
            PACKET_BYTES_MAX,
        ),
        UdpRequest::Announce { transaction, .. } | UdpRequest::Scrape { transaction, .. } => {
            reply(peer).encode(*transaction, family, PACKET_BYTES_MAX)
        }
    }
}

fn well(request: &UdpRequest) -> Vec<(bool, Vec<u8>)> {
    vec![(true, answer(request, Family::V4))]
}

fn announce(hash: u8) -> Announce {
    Announce {
        info_hash: InfoHash([hash; 20]),
        peer_id: PeerId([5; 20]),
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: 9,
        event: None,
        numwant: Some(50),
        key: None,
        compact: true,
        tracker_id: None,
    }
}

/// Asks one address as often as `tries`.
async fn exchange(
    server: &Server,
    hashes: &[u8],
    tries: usize,
) -> Vec<Result<AnnounceReply, String>> {
    let url = server.url();
    let exchange = Exchange {
        addr: server.addr,
        bind: None,
        url: &url,
        connection: None,
        open: hashes.iter().map(|&hash| announce(hash)).collect(),
        answers: Vec::new(),
    };
    exchange.run(&vec![Duration::from_millis(200); tries]).await.2
}

#[tokio::test]
async fn a_life_from_started_to_stopped_with_one_connection() {
    let server = Server::local(|_, request| well(request)).await;
    let hashes = InfoHashes { v2: Some(InfoHashV2([2; 32])), ..v1() };
    let mut lab = Lab::new(vec![vec![server.url().to_string()]], hashes);
    let report = lab.next().await;
    assert_eq!(report.peers, ["1.2.3.4:5".parse().unwrap()]);
    assert_eq!(report.result, Ok(SwarmSize { seeders: Some(2), leechers: Some(1) }));
    lab.state.send_replace(AnnounceState {
        uploaded: 3,
        downloaded: 10,
        left: 0,
        want_peers: false,
    });
    lab.next().await;
    lab.announcer.stop().await;
    let announces = server.announces();
    let told: Vec<_> =
        announces.iter().map(|(_, told)| (told.event.unwrap(), told.info_hash.0[0])).collect();
    for (pair, event) in told.chunks(2).zip([Event::Started, Event::Completed, Event::Stopped]) {
        assert!(pair.contains(&(event, 1)) && pair.contains(&(event, 2)), "{told:?}");
    }
    assert_eq!(told.len(), 6, "both names of a hybrid, three times");
    assert!(announces.iter().all(|(connection, told)| {
        *connection == CONNECTION && told.key.as_deref() == Some("00000abc") && told.port == 6881
    }));
    assert_eq!((announces[2].1.uploaded, announces[2].1.left), (3, 0));
    assert_eq!(server.connects(), 1, "a connection id is good for a minute");
}

#[tokio::test]
async fn a_connection_id_is_not_used_for_longer_than_a_minute() {
    let server = Server::local(|_, request| well(request)).await;
    let mut tracker = UdpTracker::new(&server.url(), None);
    for expected in [1, 1, 2] {
        assert!(tracker.ask(&[announce(1)], Patience::Full).await[0].is_ok());
        assert_eq!(server.connects(), expected);
        if server.announces().len() == 2 {
            let known = tracker.connections.get_mut(&server.addr).unwrap();
            known.since -= CONNECTION_MAX;
        }
    }
}

/// Whoever does not see the question cannot answer it.
#[tokio::test]
async fn answers_that_do_not_belong_to_the_question_are_passed_over() {
    let server = Server::local(|_, request| {
        let right = answer(request, Family::V4);
        let (UdpRequest::Connect { transaction }
        | UdpRequest::Announce { transaction, .. }
        | UdpRequest::Scrape { transaction, .. }) = request;
        let poison = |transaction: u32| match request {
            UdpRequest::Connect { .. } => {
                UdpReply::Connect { connection: 666 }.encode(transaction, Family::V4, 100)
            }
            UdpRequest::Announce { .. } | UdpRequest::Scrape { .. } => {
                reply("6.6.6.6:6").encode(transaction, Family::V4, 100)
            }
        };
        vec![
            (false, poison(*transaction)),
            (true, poison(transaction.wrapping_add(1))),
            (true, right[..right.len() - 1].to_vec()),
            (true, [right.clone(), vec![0]].concat()),
            (true, Vec::new()),
            (true, UdpReply::Scrape(vec![]).encode(*transaction, Family::V4, 100)),
            (true, right),
        ]
    })
    .await;
    let answers = exchange(&server, &[1], 20).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].as_ref().unwrap().peers, ["1.2.3.4:5".parse().unwrap()]);
    assert!(server.announces().iter().all(|(connection, _)| *connection == CONNECTION));
}

#[tokio::test]
async fn what_got_lost_is_sent_again() {
    // The connect, the answer to one of two announces, and the connect after that.
    let server =
        Server::local(|nth, request| if [0, 2, 4].contains(&nth) { vec![] } else { well(request) })
            .await;
    let answers = exchange(&server, &[1, 2], 20).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2, "{answers:?}");
    let mut told: Vec<_> = server.announces().iter().map(|(_, told)| told.info_hash.0[0]).collect();
    told.sort_unstable();
    assert_eq!(told.len(), 3, "what was answered is not asked again");
    assert!(told == [1, 1, 2] || told == [1, 2, 2], "{told:?}");
}

#[tokio::test]
async fn silence_and_refusals_are_errors_in_words() {
    let silent = Server::local(|_, _| vec![]).await;
    let error = exchange(&silent, &[1], 2).await.remove(0).unwrap_err();
    assert!(error.contains("no answer from 127.0.0.1"), "{error}");
    assert_eq!(silent.connects(), 2);

    let refusing = Server::local(|_, request| match request {
        UdpRequest::Announce { transaction, .. } => {
            let text = "not\x1b[31m registered".to_owned();
            vec![(true, UdpReply::Error(text).encode(*transaction, Family::V4, 100))]
        }
        UdpRequest::Connect { .. } | UdpRequest::Scrape { .. } => well(request),
    })
    .await;
    let error = exchange(&refusing, &[1], 20).await.remove(0).unwrap_err();
    assert_eq!(error, "the tracker refuses: not[31m registered");

    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = Url::parse(&format!("udp://{nobody}/announce")).unwrap();
    let answers = UdpTracker::new(&url, None).ask(&[announce(1)], Patience::Full).await;
    assert!(answers[0].as_ref().unwrap_err().contains("refused"), "{answers:?}");
}

/// A name with addresses of both families is told at both.
#[tokio::test]
async fn both_families_of_a_name_are_told() {
    let script: Arc<Script> = Arc::new(|_, request| well(request));
    let v4 = Server::start(Ipv4Addr::LOCALHOST.into(), 0, script).await;
    let script: Arc<Script> = Arc::new(|_, request| vec![(true, answer(request, Family::V6))]);
    let v6 = Server::start(Ipv6Addr::LOCALHOST.into(), v4.addr.port(), script).await;
    let url = Url::parse(&format!("udp://localhost:{}", v4.addr.port())).unwrap();
    let found: Vec<_> = lookup_host(("localhost", v4.addr.port())).await.unwrap().collect();
    let answers = UdpTracker::new(&url, None).ask(&[announce(1)], Patience::Full).await;
    for (server, peer) in [(v4, "1.2.3.4:5"), (v6, "[2001:db8::1]:6")] {
        let known = found.contains(&server.addr);
        assert_eq!(server.announces().len(), usize::from(known), "{found:?}");
        let peers = answers.iter().flat_map(|answer| answer.as_ref().unwrap().peers.clone());
        assert_eq!(peers.into_iter().any(|told| told == peer.parse().unwrap()), known);
    }
}
