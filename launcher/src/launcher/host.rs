//! The host of a room: shares what is installed over BitTorrent and over HTTP, and shows the organiser who is there.

use super::Launcher;
use super::swarm::Shared;
use crate::documents::DOCUMENTS_FOLDER;
use crate::error::Error;
use crate::events::Event;
use crate::release::Release;
use crate::room::Room;
use crate::status::{STATUS_PATH, Status};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Response, StatusCode};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use updraft_hosting::files::{self, Counters, Places, View, Views, plain};
use updraft_hosting::listener::{Ends, Listener, shown_ip};
use updraft_hosting::room::{self, Board, Seen};
use updraft_manifests::feed::Feed;
use updraft_manifests::installed::Installed;
use updraft_manifests::manifest::object_path;
use updraft_manifests::plan::Content;
use updraft_protocol::ids::PeerKey;
use updraft_protocol::io::{PeerSummary, TorrentHandle, is_lan};
use url::Url;

/// How often the board is brought up to date.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after their last answers others are asked what they have installed.
const ASK_EVERY: Duration = Duration::from_secs(4);

/// What the web server of the room answers from.
struct Site {
    places: Places,
    views: Views,
    counters: Arc<Counters>,
    board: Mutex<Board>,
    /// Whether somebody beyond the local network is answered.
    everyone: bool,
}

impl Launcher {
    /// Shares the installed release until stopped, with a web server at `http` that has it by ranges, and the page
    /// of who is there.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address is taken; those of [`Launcher::seed`].
    pub async fn host(&mut self, http: SocketAddr) -> Result<(), Error> {
        let installed = self.installed()?;
        let release = self.installed_release(&installed).await?;
        let places = self.places(&installed, &release)?;
        let listen = |error| Error::Listen(format!("cannot listen on {http}: {error}"));
        let socket = TcpListener::bind(http).await.map_err(listen)?;
        let at = socket.local_addr().map_err(listen)?;
        let known = self.known_swarm_sources();
        self.share(&known).await?;
        let view = Arc::new(View::of(&release.info));
        let site = Arc::new(Site {
            places,
            views: [(release.identity.torrent, view)].into(),
            counters: Arc::default(),
            board: Mutex::default(),
            everyone: self.network.upload,
        });
        self.tell_hosting(SocketAddr::new(shown_ip(at.ip()), at.port()))?;
        let app = Router::new().fallback(answer).with_state(Arc::clone(&site));
        let service = app.into_make_service_with_connect_info::<Ends>();
        let server = async { axum::serve(Listener::new(socket), service).await };
        let handle = self.handle.clone().expect("it was just shared");
        let room = self.room.as_ref().expect("it was opened with the torrent").beside();
        let watch = watch(&site, &handle, &room, &release);
        tokio::select! {
            done = Box::pin(self.go_on_seeding(None)) => done.map(|_| ()),
            ended = server => Err(Error::Failed(format!("the web server ended: {ended:?}"))),
            () = watch => Ok(()),
        }
    }

    /// Where the documents and contents of the installed release lie.
    fn places(&self, installed: &Installed, release: &Release) -> Result<Places, Error> {
        let Shared { paths, whole, .. } = self.shared_files(installed, release)?;
        let files = release.files.iter().zip(paths).zip(whole);
        let object = files.filter_map(|((file, path), whole)| match file.content {
            Content::File { root: Some(root), length, .. } if whole => {
                Some((object_path(&root, length), path))
            }
            Content::File { .. } | Content::Symlink { .. } => None,
        });
        let objects = object.collect();
        Ok(Places::Install { documents: self.store.path(DOCUMENTS_FOLDER), objects })
    }

    fn tell_hosting(&self, at: SocketAddr) -> Result<(), Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
        let url = Url::parse(&format!("http://{at}/")).map_err(|error| failed(&error))?;
        let page = url.join(room::PAGE_PATH).map_err(|error| failed(&error))?;
        let own = &self.state.feed;
        let feed = Feed::new(own.product.clone(), own.root, vec![url.clone()]);
        let feed = feed.map_err(|error| failed(&error))?.to_link();
        (self.events)(Event::Hosting { page: page.into(), url: url.into(), feed });
        Ok(())
    }
}

async fn answer(
    State(site): State<Arc<Site>>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    request: Request,
) -> Response<Body> {
    if !site.everyone && !is_lan(ends.remote.ip()) {
        return plain(StatusCode::FORBIDDEN, "this is for the local network\n");
    }
    let (method, path) = (request.method(), request.uri().path());
    let shown = {
        let board = site.board.lock().unwrap_or_else(PoisonError::into_inner);
        room::answer(&board, Instant::now(), method, path)
    };
    if let Some(shown) = shown {
        return shown;
    }
    let (headers, views) = (request.headers(), &site.views);
    files::answer(&site.places, views, &site.counters, method, path, headers).await
}

/// Keeps the board up to date; does not end.
async fn watch(site: &Site, handle: &TorrentHandle, room: &Room, release: &Release) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut statuses = HashMap::new();
    loop {
        let ask = async {
            let answers = room.ask_all(STATUS_PATH).await;
            tokio::time::sleep(ASK_EVERY).await;
            answers
        };
        tokio::pin!(ask);
        let answers = loop {
            tokio::select! {
                answers = &mut ask => break answers,
                _ = tick.tick() => {
                    let (here, swarm) = (room.here().await, handle.peers().await);
                    let seen = seen(&here, &statuses, &swarm, release);
                    let shared = shared(site, handle, release);
                    let mut board = site.board.lock().unwrap_or_else(PoisonError::into_inner);
                    board.update(Instant::now(), shared, seen);
                }
            }
        };
        let parsed =
            answers.iter().filter_map(|(peer, bytes)| Some((peer.peer, Status::parse(bytes)?)));
        statuses = parsed.collect();
    }
}

fn shared(site: &Site, handle: &TorrentHandle, release: &Release) -> room::Shared {
    let status = handle.status();
    let status = status.borrow();
    room::Shared {
        product: release.identity.product.to_string(),
        versions: vec![release.identity.version.to_string()],
        bytes: release.total(),
        sent_bytes: status.up_total,
        sent_rate: status.up_rate,
        http_bytes: site.counters.object_bytes.load(Ordering::Relaxed),
    }
}

/// Who is in the room by what they say of themselves, and in the swarm by what they say they have.
fn seen(
    room: &[PeerSummary],
    statuses: &HashMap<PeerKey, Status>,
    swarm: &[PeerSummary],
    release: &Release,
) -> Vec<Seen> {
    let geometry = &release.info.geometry;
    let (total, pieces) = (release.total(), u64::from(geometry.piece_count().max(1)));
    let in_room = room.iter().map(|peer| {
        let status = statuses.get(&peer.peer);
        Seen {
            ip: peer.addr.ip(),
            name: status.and_then(|status| status.name.clone()).map(String::from),
            installed: status.and_then(|status| status.version.as_ref()).map(ToString::to_string),
            have: None,
        }
    });
    let in_swarm = swarm.iter().map(|peer| {
        // Pieces are alike but for the last: near enough for a bar.
        let have = u64::from(peer.pieces).saturating_mul(total) / pieces;
        Seen { ip: peer.addr.ip(), name: None, installed: None, have: Some((have, total)) }
    });
    in_room.chain(in_swarm).collect()
}
