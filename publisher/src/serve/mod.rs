//! `serve`: one process that is everything an origin has to be: the repository over HTTP, a tracker
//! for its own torrents, and a seed of what the head names.
//!
//! Nothing that players trust depends on it: the same tree behind any web server does the same, but
//! slower, because nobody introduces the players to each other.

mod documents;
mod seeds;
pub mod tracker;
mod udp;
mod udp_tracker;

use crate::home::Home;
use crate::lock::RepositoryLock;
use crate::output::{Output, bytes};
use crate::repository::{Repository, now};
use crate::{Error, base, disk, head};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use seeds::{Seeds, lock};
use serde_json::json;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tracker::{Link, OwnSeed, Tracker};
use udp_tracker::UdpTracker;
use updraft_hosting::files::{self, Counters, Places, Views, plain};
use updraft_hosting::listener::{Ends, Listener, shown_ip};
use updraft_hosting::room::{self, Board};
use updraft_manifests::feed::{Feed, rendezvous};
use updraft_manifests::head::{HEAD_PATH, Head};
use updraft_manifests::keys::Role;
use updraft_manifests::trust::Freshness;
use updraft_protocol::io::{
    Encryption, LocalNetwork, Preference, Session, SessionConfig, SessionError, UploadPolicy,
    is_lan,
};
use updraft_protocol::wire::tracker::{
    Announce, encode_failure, encode_scrape, parse_scrape_query,
};
use url::Url;

/// How often the head file is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// …and not more often than this, whoever announces what.
const LOOK_MIN: Duration = Duration::from_millis(100);
/// How soon a repository of which something could not be offered is looked at again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long an announce of an unknown torrent waits for a look at the repository.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// How often numbers are told, when they changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// How often the head's age is looked at.
const SIGN_INTERVAL: Duration = Duration::from_secs(30);
/// Time for requests under way when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// With port 0: ports to try until one is free for TCP and UDP.
const PORT_TRIES: u32 = 8;
/// Peers connected at once, per torrent.
const CONNECTIONS_MAX: usize = 200;

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct Serve {
    /// HTTP and tracker; the tracker over UDP at the same port number.
    pub listen: SocketAddr,
    /// BitTorrent.
    pub listen_bittorrent: SocketAddr,
    /// Where players reach the repository; empty: where it listens.
    pub urls: Vec<Url>,
    /// Bytes per second that the seed may upload.
    pub up_limit: Option<u64>,
    /// What connections run over.
    pub transport: Preference,
    /// When connections over TCP and uTP hide what they are.
    pub encryption: Encryption,
    /// No seed: HTTP and tracker alone.
    pub no_seed: bool,
    /// A bundle for a room: launchers on the network are to find it, the room's page is shown to them, and nothing
    /// is written, as it may lie on a stick.
    pub room: bool,
}

struct Site {
    places: Places,
    views: RwLock<Views>,
    counters: Arc<Counters>,
    /// Who is in the room, if it is one.
    board: Option<Mutex<Board>>,
    tracker: Mutex<Tracker>,
    /// Somebody announced a torrent that is not known: a release may just have been published.
    look: Notify,
    /// The repository has been looked at.
    looked: Notify,
}

/// Serves until `stop` ends.
///
/// # Errors
/// [`Error::Listen`] when a port is taken; others when there is no repository to serve.
pub async fn serve(
    home: &Home,
    options: &Serve,
    out: Output,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    let (socket, datagrams) = listen(options.listen).await?;
    let addr = options.listen;
    let http = socket.local_addr().map_err(|source| Error::Listen { addr, source })?;
    let (mut random, mut key) = ([0; 8], [0; 32]);
    getrandom::fill(&mut random)
        .and_then(|()| getrandom::fill(&mut key))
        .map_err(|error| Error::Internal(format!("no randomness from the system: {error}")))?;
    let tracker = Tracker::new(home.config.serve.tracker_interval_s, u64::from_le_bytes(random));
    let site = Arc::new(Site {
        places: Places::Tree(repository.dir.clone()),
        views: RwLock::default(),
        counters: Arc::default(),
        board: options.room.then(Mutex::default),
        tracker: Mutex::new(tracker),
        look: Notify::new(),
        looked: Notify::new(),
    });
    let (mut seeds, bittorrent) = start_seeds(home, options, &repository).await?;
    seeds.open_rendezvous(rendezvous(&repository.fingerprint), &site.tracker).await?;

    if let Some(why) = base::behind(home, &repository)? {
        out.warn(why);
    }
    let feed = tell_feed(home, options, &repository, http)?;
    let url = &feed.urls[0];
    let page = options.room.then(|| url.join(room::PAGE_PATH).ok()).flatten();
    let shown = page.as_ref().map_or_else(String::new, |page| format!("\nwho is there: {page}"));
    let feed_file = (!options.room).then(|| home.feed_path());
    let written = feed_file
        .as_ref()
        .map_or_else(String::new, |path| format!("\nfeed file: {}", path.display()));
    out.tell(
        "serving",
        format!(
            "serving {url} (HTTP and tracker on {http}, the tracker over UDP too{})\nfeed: {}{written}{shown}",
            bittorrent.map_or_else(String::new, |addr| format!(", BitTorrent on {addr}")),
            feed.to_link(),
        ),
        json!({
            "url": url.as_str(),
            "http": http.to_string(),
            "bittorrent": bittorrent.map(|addr| addr.to_string()),
            "feed": feed.to_link(),
            "feed_file": feed_file,
            "page": page.as_ref().map(Url::as_str),
            "announce": url.join("announce").map(|url| url.to_string()).unwrap_or_default(),
        }),
    );

    let (drain, drained) = oneshot::channel::<()>();
    let app = Router::new().fallback(handle).with_state(Arc::clone(&site));
    let service = app.into_make_service_with_connect_info::<Ends>();
    let server = axum::serve(Listener::new(socket), service)
        .with_graceful_shutdown(async { drop(drained.await) });
    let server = tokio::spawn(server.into_future());
    let udp = Arc::new(UdpTracker::new(key, Instant::now()));
    // Ends with this function.
    let mut answering = JoinSet::new();
    for endpoint in datagrams {
        answering.spawn(udp::serve(Arc::clone(&site), Arc::clone(&udp), endpoint));
    }

    let ended = tokio::select! {
        ended = watch(home, &repository, &site, &mut seeds, out) => ended,
        () = stop => Ok(()),
    };
    out.tell("stopping", "stopping", json!({}));
    let _ = drain.send(());
    if tokio::time::timeout(DRAIN_MAX, server).await.is_err() {
        tracing::debug!("requests under way were cut off");
    }
    tell_numbers(&site, &seeds, out);
    seeds.stop().await;
    ended
}

/// The sockets for HTTP, and those for the tracker over UDP at the same port number.
async fn listen(addr: SocketAddr) -> Result<(tokio::net::TcpListener, Vec<udp::Endpoint>), Error> {
    let mut tries = if addr.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let open = async {
            let socket = tokio::net::TcpListener::bind(addr).await?;
            let datagrams = udp::bind(socket.local_addr()?)?;
            Ok((socket, datagrams))
        };
        tries -= 1;
        match open.await {
            Ok(sockets) => return Ok(sockets),
            Err(source) if tries == 0 => return Err(Error::Listen { addr, source }),
            Err(error) => tracing::debug!(%error, "a port is not free for both TCP and UDP"),
        }
    }
}

/// What is offered, and the address of the seed if there is to be one.
async fn start_seeds(
    home: &Home,
    options: &Serve,
    repository: &Repository,
) -> Result<(Seeds, Option<SocketAddr>), Error> {
    if options.no_seed {
        return Ok((Seeds::new(None, &repository.dir), None));
    }
    let mut listen = vec![options.listen_bittorrent];
    if options.listen_bittorrent.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        // Every address means those of IPv6, too, where there are any.
        listen.push((Ipv6Addr::UNSPECIFIED, options.listen_bittorrent.port()).into());
    }
    let config = SessionConfig {
        listen,
        upload: UploadPolicy::Everyone,
        up_limit: options.up_limit,
        transport: options.transport,
        encryption: options.encryption,
        connections_max: CONNECTIONS_MAX,
        spread: true,
        local_network: if options.room { LocalNetwork::On } else { LocalNetwork::Off },
        ..SessionConfig::default()
    };
    let session = Session::start(config).await.map_err(session_error)?;
    let addr = session.listen_addrs().first().copied().unwrap_or(options.listen_bittorrent);
    let own_seed = match home.config.serve.public_bittorrent {
        Some(addr) => OwnSeed::At(addr),
        // A seed on one specific address is there and nowhere else.
        None if !addr.ip().is_unspecified() => OwnSeed::At(addr),
        None => OwnSeed::SameHost(addr.port()),
    };
    Ok((Seeds::new(Some((session, own_seed)), &repository.dir), Some(addr)))
}

/// An error of the engine in the program's words.
pub(crate) fn session_error(error: SessionError) -> Error {
    match error {
        SessionError::Listen { addr, source } => Error::Listen { addr, source },
        SessionError::NoPieceHashes(_) => Error::Usage(error.to_string()),
        SessionError::Start(_)
        | SessionError::Duplicate(_)
        | SessionError::FileCount { .. }
        | SessionError::Stopped => Error::Internal(error.to_string()),
    }
}

/// Where players find it: as told, as configured, or where we listen. Written to `feed.toml`, but for a room.
fn tell_feed(
    home: &Home,
    options: &Serve,
    repository: &Repository,
    http: SocketAddr,
) -> Result<Feed, Error> {
    let mut urls = options.urls.clone();
    if urls.is_empty() {
        urls.clone_from(&home.config.urls);
    }
    if urls.is_empty() {
        let text = format!("http://{}/", SocketAddr::new(shown_ip(http.ip()), http.port()));
        urls.push(Url::parse(&text).map_err(|error| Error::Internal(error.to_string()))?);
    }
    let feed = Feed::new(home.config.product.clone(), repository.fingerprint, urls)
        .map_err(|error| Error::Usage(error.to_string()))?;
    if !options.room {
        disk::write_if_changed(&home.feed_path(), feed.to_toml().as_bytes())?;
    }
    Ok(feed)
}

async fn handle(
    State(site): State<Arc<Site>>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    request: Request,
) -> Response<Body> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
    match path {
        "/announce" | "/scrape" if request.method() == Method::GET => {
            let mut response = bencoded(if path == "/announce" {
                announce(&site, ends, query).await
            } else {
                scrape(&site, query)
            });
            // The next is half a minute away: its place is for others until then.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        "/announce" | "/scrape" => {
            plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n")
        }
        room::PAGE_PATH | room::NUMBERS_PATH if is_lan(ends.remote.ip()) => {
            let shown = site.board.as_ref().and_then(|board| {
                let board = board.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                room::answer(&board, Instant::now(), request.method(), path)
            });
            shown.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "there is nothing here\n"))
        }
        _ => {
            let headers: &HeaderMap = request.headers();
            let views =
                site.views.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            files::answer(&site.places, &views, &site.counters, request.method(), path, headers)
                .await
        }
    }
}

async fn announce(site: &Site, ends: Ends, query: &str) -> Vec<u8> {
    let asked = match Announce::parse(query) {
        Ok(asked) => asked,
        Err(error) => return encode_failure(&error.to_string()),
    };
    let link = Link { remote: ends.remote.ip(), local: ends.local.ip(), one_family: false };
    let answer = || lock(&site.tracker).announce(Instant::now(), link, &asked);
    let mut answered = answer();
    if answered.is_none() {
        // The head may name it already: players are quick on release day.
        let looked = site.looked.notified();
        site.look.notify_one();
        let _ = tokio::time::timeout(LOOK_MAX, looked).await;
        answered = answer();
    }
    match answered {
        Some((reply, _)) if asked.compact => reply.encode(),
        Some((reply, ids)) => reply.encode_listed(&ids),
        None => encode_failure("this tracker does not know that torrent"),
    }
}

fn scrape(site: &Site, query: &str) -> Vec<u8> {
    match parse_scrape_query(query) {
        Ok(hashes) => encode_scrape(&lock(&site.tracker).scrape(Instant::now(), &hashes)),
        Err(error) => encode_failure(&error.to_string()),
    }
}

fn bencoded(body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Keeps what is served in step with the head, and the head young. Runs until it is dropped.
async fn watch(
    home: &Home,
    repository: &Repository,
    site: &Site,
    seeds: &mut Seeds,
    out: Output,
) -> Result<(), Error> {
    let mut seen: Option<(SystemTime, u64)> = None;
    let mut current: Option<Head> = None;
    let mut told = (0, 0);
    let mut told_at = Instant::now();
    let mut signed_at: Option<Instant> = None;
    let mut first = true;
    let mut problems = Vec::new();
    let mut looked_at = Instant::now();
    loop {
        let stamp = stamp(&repository.dir);
        let again = !problems.is_empty() && looked_at.elapsed() >= AGAIN;
        if stamp != seen || first || again {
            (seen, first, looked_at) = (stamp, false, Instant::now());
            // Roots may have come with the head.
            let loaded = match Repository::open(&repository.dir, Some(&home.config.product)) {
                Ok(repository) => load(&repository, site, seeds, out).await,
                Err(error) => Err(error),
            };
            let found = match loaded {
                Ok((head, found)) => {
                    current = head.or(current);
                    found
                }
                Err(error) => vec![error.to_string()],
            };
            // Each is told once: it may take a while until all files of a copied repository are there.
            found.iter().filter(|new| !problems.contains(*new)).for_each(|new| out.warn(new));
            problems = found;
        }
        if signed_at.is_none_or(|at| at.elapsed() >= SIGN_INTERVAL)
            && let Some(head) = &current
        {
            signed_at = Some(Instant::now());
            sign_in_time(home, head, out);
        }
        if told_at.elapsed() >= REPORT_INTERVAL {
            told_at = Instant::now();
            let numbers = numbers(site, seeds);
            if numbers != told {
                told = numbers;
                tell_numbers(site, seeds, out);
            }
        }
        if let Some(board) = &site.board {
            let seen = seeds.seen().await;
            let shared = shared(home, site, seeds);
            let mut board = board.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            board.update(Instant::now(), shared, seen);
        }
        site.looked.notify_waiters();
        tokio::time::sleep(LOOK_MIN).await;
        let _ = tokio::time::timeout(WATCH_INTERVAL, site.look.notified()).await;
    }
}

/// What the room's page says of this machine.
fn shared(home: &Home, site: &Site, seeds: &Seeds) -> room::Shared {
    let (versions, bytes) = seeds.releases();
    room::Shared {
        product: home.config.product.to_string(),
        versions,
        bytes,
        sent_bytes: seeds.uploaded().0,
        sent_rate: seeds.up_rate(),
        http_bytes: site.counters.object_bytes.load(Ordering::Relaxed),
    }
}

fn stamp(dir: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(dir.join(HEAD_PATH)).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Offers what the head names; says what stands in the way.
async fn load(
    repository: &Repository,
    site: &Site,
    seeds: &mut Seeds,
    out: Output,
) -> Result<(Option<Head>, Vec<String>), Error> {
    let loaded = seeds.load(repository, &site.tracker).await?;
    *site.views.write().unwrap_or_else(std::sync::PoisonError::into_inner) = seeds.views();
    for started in loaded.started {
        let event = if seeds.is_seeding() { "seeding" } else { "offering" };
        out.tell(
            event,
            format!("{event} {}, {} ({})", started.label, bytes(started.bytes), started.v2),
            json!({ "release": started.label, "v2": started.v2.to_string(), "bytes": started.bytes }),
        );
    }
    if loaded.head.is_none() {
        out.tell("empty", "nothing is published yet", json!({}));
    }
    Ok((loaded.head, loaded.problems))
}

/// Signs the next head at half time, if its key is here.
fn sign_in_time(home: &Home, head: &Head, out: Output) {
    let now = now();
    if now < head::half_life(head) {
        return;
    }
    let warn = |why: String| {
        if now >= head.expires {
            out.warn(format!(
                "the head expired at {}: players get no updates; {why}",
                head.expires
            ));
        } else {
            out.warn(format!("the head expires at {}; {why}", head.expires));
        }
    };
    if !home.key_path(Role::Head).exists() {
        warn("run `updraft-publisher head` where the head key is".to_owned());
        return;
    }
    match sign_on(home, base::begin_here, None) {
        Ok((head, _)) => out.tell(
            "signed",
            format!("signed head {}, valid until {}", head.sequence, head.expires),
            json!({ "head": head.sequence, "expires": head.expires.to_string() }),
        ),
        // Whoever works on the repository signs a head too.
        Err(Error::Busy { .. } | Error::Overtaken { .. }) => {}
        Err(error) => warn(error.to_string()),
    }
}

/// `head`: signs the head anew, to live for `days`. Also says whether the one before had expired.
///
/// # Errors
/// As [`head::sign`]; [`Error::Key`] without the key.
pub fn sign_head(home: &Home, days: Option<u16>) -> Result<(Head, bool), Error> {
    sign_on(home, base::begin, days)
}

fn sign_on(
    home: &Home,
    begin: impl FnOnce(&Home) -> Result<(RepositoryLock, Repository), Error>,
    days: Option<u16>,
) -> Result<(Head, bool), Error> {
    let key = home.key(Role::Head)?;
    let (mut lock, repository) = begin(home)?;
    let was_expired =
        repository.head(now())?.is_some_and(|accepted| accepted.freshness != Freshness::Fresh);
    let head = head::sign(home, &key, &repository, &mut lock, |head| {
        if let Some(days) = days {
            head.expires = head.created.after(u64::from(days) * 86_400);
        }
    })?;
    Ok((head, was_expired))
}

fn numbers(site: &Site, seeds: &Seeds) -> (u64, u64) {
    let http = site.counters.object_bytes.load(Ordering::Relaxed);
    (http, seeds.uploaded().0)
}

fn tell_numbers(site: &Site, seeds: &Seeds, out: Output) {
    let (http, _) = numbers(site, seeds);
    let (peers, connections) = seeds.uploaded();
    let requests = site.counters.requests.load(Ordering::Relaxed);
    out.tell(
        "served",
        format!("served {} to peers, {} by HTTP; {connections} peers", bytes(peers), bytes(http)),
        json!({ "peer_bytes": peers, "http_bytes": http, "http_requests": requests, "peers": connections }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{Publish, publish};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use updraft_manifests::names::Name;
    use updraft_protocol::ids::{InfoHash, PeerId};
    use updraft_protocol::wire::tracker::{AnnounceReply, parse_scrape};

    async fn get(base: &Url, path: &str) -> (String, Vec<u8>) {
        let addr = base.socket_addrs(|| None).unwrap()[0];
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..at].to_vec()).unwrap(), answer[at + 4..].to_vec())
    }

    async fn eventually<T, F: Future<Output = Option<T>>>(mut check: impl FnMut() -> F) -> T {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(found) = check().await {
                return found;
            }
            assert!(Instant::now() < deadline, "it did not happen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn announce_path(hash: InfoHash) -> String {
        let asked = Announce {
            info_hash: hash,
            peer_id: PeerId([b'x'; 20]),
            port: 5,
            uploaded: 0,
            downloaded: 0,
            left: 1,
            event: None,
            numwant: None,
            key: None,
            compact: true,
            tracker_id: None,
        };
        let url = asked.url(&Url::parse("http://x/announce").unwrap());
        format!("{}?{}", url.path(), url.query().unwrap())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn files_tracker_and_a_new_release_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let product = Name::parse("game").unwrap();
        let home = crate::init::init(&dir.path().join("home"), &product, &[], None).unwrap();
        let build = dir.path().join("build");
        std::fs::create_dir(&build).unwrap();
        let release = |version: &str| {
            std::fs::write(build.join("file"), version.repeat(50_000)).unwrap();
            let what = Publish::stable(&build, version);
            publish(&home, &what, &mut |_| Ok(()), &|_, _| {}).unwrap()
        };
        let first = release("1");
        let (end, ended) = oneshot::channel::<()>();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = Serve {
            listen: any,
            listen_bittorrent: any,
            urls: vec![],
            up_limit: None,
            transport: Preference::default(),
            encryption: Encryption::default(),
            no_seed: false,
            room: false,
        };
        let server = tokio::spawn({
            let home = home.clone();
            async move { serve(&home, &options, Output::silent(), async { drop(ended.await) }).await }
        });
        let base = eventually(async || {
            let text = std::fs::read_to_string(home.feed_path()).ok()?;
            Some(Feed::parse(&text).unwrap().urls[0].clone())
        })
        .await;
        let (head, body) = get(&base, "/head.toml").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body, std::fs::read(home.repository().join("head.toml")).unwrap());
        let (head, _) = get(&base, "/../keys/head.key").await;
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");

        let v1 = InfoHash(first.v1.unwrap().0);
        let reply =
            eventually(async || AnnounceReply::parse(&get(&base, &announce_path(v1)).await.1).ok())
                .await;
        assert_eq!((reply.seeders, reply.leechers, reply.peers.len()), (Some(1), Some(1), 1));
        // Those who announce may hear of it an instant before it is offered over HTTP.
        let path = format!("/releases/{}/game/file", first.v2);
        let offered =
            async || Some(get(&base, &path).await).filter(|(head, _)| head.contains(" 200 "));
        assert!(eventually(offered).await.1 == "1".repeat(50_000).into_bytes());
        let meeting =
            InfoHash(rendezvous(&Repository::open(&home.repository(), None).unwrap().fingerprint));
        assert!(AnnounceReply::parse(&get(&base, &announce_path(meeting)).await.1).is_ok());
        assert!(
            AnnounceReply::parse(&get(&base, &announce_path(InfoHash([9; 20]))).await.1).is_err()
        );

        let second = release("2");
        eventually(async || {
            let hash = InfoHash(second.v1.unwrap().0);
            AnnounceReply::parse(&get(&base, &announce_path(hash)).await.1).ok()
        })
        .await;
        // Players are still on the first one.
        let scraped = parse_scrape(&get(&base, "/scrape").await.1).unwrap();
        assert!(scraped.iter().any(|entry| entry.info_hash == v1 && entry.seeders == 1));

        let taken = Serve {
            listen: base.socket_addrs(|| None).unwrap()[0],
            listen_bittorrent: any,
            urls: vec![],
            up_limit: None,
            transport: Preference::default(),
            encryption: Encryption::default(),
            no_seed: true,
            room: false,
        };
        let error = serve(&home, &taken, Output::silent(), async {}).await.unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::NETWORK);
        end.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}
