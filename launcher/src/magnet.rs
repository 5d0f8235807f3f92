//! `fetch` by a magnet link: what it leads to is found among peers first, kept, and then fetched like any
//! .torrent file. A run that is taken up again asks nobody.

use crate::error::Error;
use crate::events::{Event, Sink};
use crate::fetch::STATE_FOLDER;
use crate::stop::Stop;
use crate::transfer::{Network, SILENCE_MAX, SILENCE_TOLD};
use crate::tree::Tree;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use updraft_protocol::ids::InfoHashes;
use updraft_protocol::io::{
    Description, Link, LocalNetwork, Search, Session, Status, TorrentError, TorrentEvent,
};
use updraft_protocol::metainfo::magnet::Magnet;
use updraft_protocol::metainfo::{Metainfo, TORRENT_BYTES_MAX};

/// What a search works with.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// Where what is found is kept.
    pub(crate) dir: &'a Tree,
    pub(crate) session: &'a Session,
    pub(crate) network: &'a Network,
    pub(crate) events: &'a Sink,
    pub(crate) stop: &'a Stop,
}

/// Addresses of one host name that are dialled.
const ADDRESSES_MAX: usize = 8;

/// True if a command line names a link rather than a file.
pub(crate) fn is_link(text: &str) -> bool {
    text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"))
}

/// Reads a link.
///
/// # Errors
/// [`Error::Usage`] if it is none.
pub(crate) fn parse(text: &str) -> Result<Magnet, Error> {
    Magnet::parse(text).map_err(|error| Error::Usage(error.to_string()))
}

/// The torrent that an earlier run found by this link, if it is kept in `dir`.
pub(crate) fn kept(magnet: &Magnet, dir: &Tree) -> Option<Metainfo> {
    let mut bytes = Vec::new();
    let file = dir.open_file(&place(&magnet.hashes)).ok()?;
    file.take(TORRENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
    let kept = Metainfo::parse(&bytes).ok()?;
    let (asked, has) = (magnet.hashes, kept.info.hashes);
    let same = asked.v1.is_none_or(|hash| has.v1 == Some(hash))
        && asked.v2.is_none_or(|hash| has.v2 == Some(hash));
    same.then_some(kept)
}

/// Finds what the link leads to, keeps it in `dir`, and gives it with the peers that had it.
///
/// # Errors
/// [`Error::Network`] when nobody had it for a long time, [`Error::Usage`] when there is nobody to ask,
/// [`Error::Failed`] when the link leads to nothing that can be used, [`Error::Interrupted`].
pub(crate) async fn find(
    magnet: &Magnet,
    Run { dir, session, network, events, stop }: Run<'_>,
) -> Result<(Metainfo, Vec<SocketAddr>), Error> {
    let (mut peers, local) = (peers(magnet, network).await, network.local);
    let trackers: Vec<Vec<String>> = magnet.trackers.iter().map(|url| vec![url.clone()]).collect();
    let asks_nobody = local == LocalNetwork::Off && network.dht.is_none();
    if peers.is_empty() && trackers.is_empty() && asks_nobody {
        let why = "the link names no tracker and no peer, and neither the DHT nor the local network is to be \
                   asked: there is nobody to ask; name a peer with --peer";
        return Err(Error::Usage(why.into()));
    }
    let mut hashes = magnet.hashes;
    let info = loop {
        let link = Link { hashes, trackers: trackers.clone(), peers: peers.clone(), dht: true };
        let search = session.follow(link).await;
        let mut search = search.map_err(|error| Error::Failed(error.to_string()))?;
        let waiting = Waiting::new(&search, peers.len(), local, events);
        let found = waiting.end(&mut search, stop).await;
        search.end().await;
        let Description { info, peers: had } = found?;
        peers.extend(had.into_iter().filter(|addr| !peers.contains(addr)).collect::<Vec<_>>());
        // A hybrid, known by its v1 hash alone: now it can be asked for by the name that peers want to hear.
        if !info.lacks_layers() {
            break info;
        }
        hashes = info.hashes;
    };
    let web_seeds = magnet.web_seeds.clone();
    let (comment, created_by) = (None, None);
    let meta = Metainfo { info, trackers, web_seeds, comment, created_by, creation_date: None };
    keep(magnet, &meta, dir).map_err(Error::disk("write", dir.path().join(STATE_FOLDER)))?;
    let files = meta.info.files.len() as u64;
    let bytes = meta.info.files.iter().map(|file| file.length).sum();
    events(Event::Found { name: meta.info.name.clone(), files, bytes });
    Ok((meta, peers))
}

/// Where the torrent of a link is kept.
fn place(hashes: &InfoHashes) -> String {
    format!("{STATE_FOLDER}/{}.torrent", hashes.best())
}

fn keep(magnet: &Magnet, meta: &Metainfo, dir: &Tree) -> io::Result<()> {
    dir.make_folders(STATE_FOLDER)?;
    let (place, new) = (place(&magnet.hashes), place(&magnet.hashes) + ".new");
    let mut file = dir.create_file(&new)?;
    file.write_all(&meta.encode())?;
    file.sync_all()?;
    dir.rename(&new, &place)
}

/// Peers to dial: those of the command line, and those of the link, which may be host names. On the local
/// network alone no name is looked up.
pub(crate) async fn peers(magnet: &Magnet, network: &Network) -> Vec<SocketAddr> {
    let mut found = network.peers.clone();
    for peer in &magnet.peers {
        if let Ok(addr) = peer.parse() {
            found.push(addr);
        } else if network.local != LocalNetwork::Only {
            match tokio::net::lookup_host(peer).await {
                Ok(addrs) => found.extend(addrs.take(ADDRESSES_MAX)),
                Err(error) => tracing::info!(peer, %error, "a peer of the link is not known"),
            }
        }
    }
    found
}

/// What is known of a search while it goes on.
struct Waiting<'a> {
    events: &'a Sink,
    status: tokio::sync::watch::Receiver<Status>,
    news: tokio::sync::broadcast::Receiver<TorrentEvent>,
    local: LocalNetwork,
    peers_named: usize,
    /// What each tracker said last.
    trackers: BTreeMap<String, String>,
    /// The most peers that were connected, and that said that they have it.
    met: (usize, usize),
    banned: usize,
}

impl<'a> Waiting<'a> {
    fn new(search: &Search, peers_named: usize, local: LocalNetwork, events: &'a Sink) -> Self {
        Self {
            events,
            status: search.handle().status(),
            news: search.handle().events(),
            local,
            peers_named,
            trackers: BTreeMap::new(),
            met: (0, 0),
            banned: 0,
        }
    }

    async fn end(mut self, search: &mut Search, stop: &Stop) -> Result<Description, Error> {
        let stopped = || Error::from(TorrentError::Stopped);
        let (began, mut told) = (Instant::now(), false);
        loop {
            let wait = if told { SILENCE_MAX } else { SILENCE_TOLD };
            tokio::select! {
                found = search.found() => {
                    let found = found.ok_or_else(stopped)?;
                    return found.map_err(|error| Error::Failed(error.to_string()));
                }
                () = stop.raised() => return Err(Error::Interrupted),
                changed = self.status.changed() => {
                    changed.map_err(|_| stopped())?;
                    let now = self.status.borrow_and_update().clone();
                    self.met = (self.met.0.max(now.peers), self.met.1.max(now.seeds));
                }
                event = self.news.recv() => match event {
                    Ok(event) => self.hear(event),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(stopped()),
                },
                () = tokio::time::sleep_until(began + wait) => {
                    let what = "what the link leads to";
                    if told {
                        return Err(Error::Network { what: what.into(), why: self.asked() });
                    }
                    told = true;
                    let message = format!("nobody has given {what} yet; still trying ({})", self.asked());
                    (self.events)(Event::Warning { message });
                }
            }
        }
    }

    fn hear(&mut self, event: TorrentEvent) {
        match event {
            TorrentEvent::TrackerOk { url, peers } => {
                self.trackers.insert(url, format!("named {peers} peers"));
            }
            TorrentEvent::TrackerError { url, error } => {
                self.trackers.insert(url, error);
            }
            TorrentEvent::PeerBanned { addr, reason } => {
                self.banned += 1;
                tracing::info!(%addr, reason, "a peer is banned");
            }
            _ => {}
        }
    }

    /// Who was asked, and what came of it.
    fn asked(&self) -> String {
        let mut asked = vec![format!(
            "of {} peers named and others found, {} could be connected to at once, {} of them said \
             that they have it, {} lied",
            self.peers_named, self.met.0, self.met.1, self.banned
        )];
        asked.extend(self.trackers.iter().map(|(url, said)| format!("tracker {url}: {said}")));
        if self.local == LocalNetwork::Off {
            asked.push("the local network was not asked".into());
        }
        asked.join("; ")
    }
}

/// The folder that a download goes to.
pub(crate) fn folder(dir: &Path) -> Result<Tree, Error> {
    std::fs::create_dir_all(dir).map_err(Error::disk("make the folder", dir))?;
    Tree::open(dir).map_err(Error::disk("open the folder", dir))
}
