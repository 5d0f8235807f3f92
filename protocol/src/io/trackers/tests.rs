//! Against a tracker on 127.0.0.1.

use super::super::webseed::http_client;
use super::super::webseed::test_server::{Answer, Server, response, target};
use super::*;
use crate::ids::InfoHashV2;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn peers() -> Vec<SocketAddr> {
    ["1.2.3.4:5", "[2001:db8::1]:6"].map(|peer| peer.parse().unwrap()).to_vec()
}

fn answer(interval_s: u32) -> Answer {
    let reply = AnnounceReply {
        interval_s,
        min_interval_s: Some(interval_s),
        seeders: Some(2),
        leechers: Some(1),
        peers: peers(),
        tracker_id: Some(b"id&1".to_vec()),
        warning: None,
    };
    Answer::Keep(response(200, "", &reply.encode()))
}

fn asked(server: &Server) -> Vec<Announce> {
    let parse =
        |request: &String| Announce::parse(target(request).split_once('?').unwrap().1).unwrap();
    server.requests().iter().map(parse).collect()
}

fn events(server: &Server) -> Vec<Option<Event>> {
    asked(server).iter().map(|announce| announce.event).collect()
}

pub(super) struct Lab {
    pub(super) announcer: Announcer,
    pub(super) state: watch::Sender<AnnounceState>,
    reports: mpsc::Receiver<TrackerReport>,
}

impl Lab {
    pub(super) fn new(tiers: Vec<Vec<String>>, hashes: InfoHashes) -> Self {
        let config = AnnouncerConfig {
            tiers,
            hashes,
            peer_id: PeerId::ours([5; 12]),
            port: 6881,
            bind: None,
            key: 0xabc,
            seed: 1,
        };
        let begin = AnnounceState { left: 10, want_peers: true, ..AnnounceState::default() };
        let (state, watched) = watch::channel(begin);
        let (sender, reports) = mpsc::channel(8);
        let announcer = Announcer::start(http_client(None).unwrap(), config, watched, sender);
        Self { announcer, state, reports }
    }

    pub(super) async fn next(&mut self) -> TrackerReport {
        timeout(Duration::from_secs(10), self.reports.recv()).await.unwrap().unwrap()
    }
}

pub(super) fn v1() -> InfoHashes {
    InfoHashes { v1: Some(InfoHash([1; 20])), v2: None }
}

#[tokio::test]
async fn a_life_from_started_to_stopped() {
    let server = Server::start(|_| answer(1000)).await;
    let hashes = InfoHashes { v2: Some(InfoHashV2([2; 32])), ..v1() };
    let mut lab = Lab::new(vec![vec![format!("{}announce?pass=1", server.url)]], hashes);
    let report = lab.next().await;
    assert_eq!(report.peers, peers());
    assert_eq!(report.result, Ok(SwarmSize { seeders: Some(2), leechers: Some(1) }));
    assert!(report.url.ends_with("/announce?pass=1"));

    lab.state.send_modify(|state| state.downloaded = 5);
    lab.state.send_replace(AnnounceState {
        uploaded: 3,
        downloaded: 10,
        left: 0,
        want_peers: false,
    });
    lab.next().await;
    lab.announcer.stop().await;

    let asked = asked(&server);
    let kinds: Vec<_> = asked.iter().map(|ask| (ask.event.unwrap(), ask.info_hash.0[0])).collect();
    for (pair, event) in kinds.chunks(2).zip([Event::Started, Event::Completed, Event::Stopped]) {
        assert!(pair.contains(&(event, 1)) && pair.contains(&(event, 2)), "{kinds:?}");
    }
    assert_eq!(asked.len(), 6, "both names of a hybrid, three times");
    assert_eq!((asked[2].uploaded, asked[2].left, asked[2].port), (3, 0, 6881));
    assert_eq!(asked[0].numwant, Some(PEERS_WANTED));
    assert_eq!(asked[0].key.as_deref(), Some("00000abc"));
    assert_eq!(asked[2].tracker_id.as_deref(), Some(&b"id&1"[..]));
    assert_eq!(asked[4].numwant, Some(0));
}

#[tokio::test]
async fn who_had_everything_from_the_start_never_completes() {
    let server = Server::start(|_| answer(1000)).await;
    let mut lab = Lab::new(vec![vec![server.url.to_string()]], v1());
    // Before the task first looks.
    lab.state.send_modify(|state| state.left = 10);
    lab.next().await;
    lab.state.send_modify(|state| state.uploaded = 7);
    lab.announcer.stop().await;
    assert_eq!(events(&server), [Some(Event::Started), Some(Event::Stopped)]);
}

#[tokio::test]
async fn every_tier_is_told_and_a_failing_tracker_is_passed_over() {
    let good = Server::start(|_| answer(1000)).await;
    let other = Server::start(|_| answer(1000)).await;
    let bad = Server::start(|_| {
        Answer::Keep(response(403, "", &crate::wire::tracker::encode_failure("not registered")))
    })
    .await;
    let tiers = vec![
        vec![bad.url.to_string(), good.url.to_string()],
        vec![],
        vec!["udp://tracker.example/announce".into()],
        vec!["rubbish".into(), other.url.to_string()],
    ];
    let mut lab = Lab::new(tiers, v1());
    let mut reports = Vec::new();
    while reports.iter().filter(|report: &&TrackerReport| report.result.is_ok()).count() < 2
        || !reports.iter().any(|report| report.url.starts_with("udp"))
    {
        reports.push(lab.next().await);
    }
    let of = |url: &str| reports.iter().find(|report| report.url.starts_with(url)).unwrap();
    assert!(of("udp").result.as_ref().unwrap_err().contains("must name its port"));
    assert!(of("rubbish").result.as_ref().unwrap_err().contains("not a URL"));
    assert!(of(good.url.as_str()).result.is_ok() && of(other.url.as_str()).result.is_ok());
    if let Some(report) = reports.iter().find(|report| report.url == bad.url.as_str()) {
        assert_eq!(report.result, Err("the tracker refuses: not registered".into()));
    }
    lab.announcer.stop().await;
    assert_eq!(events(&good), [Some(Event::Started), Some(Event::Stopped)]);
    assert!(events(&bad).iter().all(|event| *event == Some(Event::Started)), "no good-bye");
}

#[tokio::test]
async fn asks_again_on_demand_but_not_faster_than_allowed() {
    let server = Server::start(|_| answer(1)).await;
    let mut lab = Lab::new(vec![vec![server.url.to_string()]], v1());
    lab.next().await;
    let first = Instant::now();
    lab.next().await;
    let waited = first.elapsed();
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    assert_eq!(events(&server), [Some(Event::Started), None]);
}

#[tokio::test]
async fn a_hanging_tracker_does_not_hold_up_the_end() {
    let hang = Arc::new(AtomicBool::new(false));
    let hanging = Arc::clone(&hang);
    let server = Server::start(move |_| {
        if hanging.load(Ordering::Relaxed) { Answer::Hang(Vec::new()) } else { answer(1000) }
    })
    .await;
    let mut lab = Lab::new(vec![vec![server.url.to_string()]], v1());
    lab.next().await;
    hang.store(true, Ordering::Relaxed);
    let before = Instant::now();
    lab.announcer.stop().await;
    assert!(before.elapsed() < STOP_TIMEOUT + Duration::from_secs(1));
    assert_eq!(events(&server).last(), Some(&Some(Event::Stopped)));
}

#[tokio::test]
async fn hostile_answers_are_errors_in_words() {
    let check = |answer: fn() -> Answer, expected: &'static str| async move {
        let server = Server::start(move |_| answer()).await;
        let mut lab = Lab::new(vec![vec![server.url.to_string()]], v1());
        let error = lab.next().await.result.unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check(|| Answer::Keep(response(500, "", b"<html>")), "HTTP 500").await;
    check(|| Answer::Keep(response(200, "", b"<html>")), "not bencode").await;
    check(|| Answer::Keep(response(200, "", b"d5:peersi1ee")), "makes no sense").await;
    let endless = || Answer::Endless(b"HTTP/1.1 200 X\r\n\r\n".to_vec());
    check(endless, "larger than 1 MiB").await;
    check(|| Answer::Keep(response(302, "Location: /x\r\n", b"")), "sent on too many times").await;
    check(|| Answer::Close(b"\0\0\0".to_vec()), "").await;
}

#[test]
fn trackers_have_three_schemes() {
    for good in ["http://a.example/announce", "https://[2001:db8::1]:9/a", "udp://a.example:9"] {
        assert!(super::supported(good).is_ok(), "{good}");
    }
    for bad in
        ["file:///etc/passwd", "udp://a.example", "wss://a.example", "ftp://a.example", "x", ""]
    {
        assert!(super::supported(bad).is_err(), "{bad}");
    }
}
