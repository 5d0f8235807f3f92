//! Who is on the local network, and what they have.

use super::Launcher;
use super::swarm::session_error;
use crate::documents::Documents;
use crate::error::Error;
use crate::events::{Event, Sink};
use crate::news;
use crate::room::Room;
use crate::status::{STATUS_PATH, Status};
use crate::stop::Stop;
use crate::store::{State, Store};
use crate::transfer::Network;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use updraft_manifests::head::HEAD_PATH;
use updraft_manifests::trust::{Freshness, TrustError, TrustState};
use updraft_protocol::ids::{InfoHash, PeerKey};
use updraft_protocol::io::PeerSummary;

impl Launcher {
    /// Tells of each launcher of the product that can be found: [`Event::Neighbour`], then
    /// [`Event::Neighbours`]. Works beside a launcher that is at work at `dir`, changes nothing there,
    /// and asks nobody beyond the local network.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::State`], [`Error::Listen`], [`Error::Interrupted`].
    pub async fn lan(
        dir: &Path,
        network: &Network,
        events: &Sink,
        stop: &Stop,
    ) -> Result<(), Error> {
        let store = Store::open(dir)?;
        let state = store.state()?.ok_or_else(|| Error::NotInstalled(dir.to_path_buf()))?;
        let trust = store.trust(&state.feed)?;
        let documents = Documents::open(dir).map_err(Error::disk("open the documents in", dir))?;
        let installed = store.installed()?;
        documents.set_status(Status::of(network.name.as_ref(), installed.as_ref()));
        let session = network.start(events).await?;
        let hash = InfoHash(state.feed.rendezvous());
        let peers = network.peers.clone();
        let meeting = session.add_rendezvous(hash, Arc::new(documents), Vec::new(), peers).await;
        let room = Room::new(meeting.map_err(|error| session_error(&error))?);
        let told = tokio::select! {
            neighbours = look(&room, &state, &trust) => Ok(neighbours),
            () = stop.raised() => Err(Error::Interrupted),
        };
        session.stop().await;
        let neighbours = told?;
        let count = neighbours.len() as u64;
        neighbours.into_iter().for_each(|neighbour| events(neighbour));
        events(Event::Neighbours { product: state.feed.product.to_string(), count });
        Ok(())
    }
}

async fn look(room: &Room, state: &State, trust: &TrustState) -> Vec<Event> {
    let present = room.present().await;
    let (heads, statuses) = tokio::join!(room.ask_all(HEAD_PATH), room.ask_all(STATUS_PATH));
    let by_peer = |answers: Vec<(PeerSummary, Bytes)>| {
        answers.into_iter().map(|(peer, bytes)| (peer.peer, bytes)).collect()
    };
    let heads: HashMap<PeerKey, Bytes> = by_peer(heads);
    let statuses: HashMap<PeerKey, Bytes> = by_peer(statuses);
    let now = trust.fix_time(news::clock());
    let tell = |peer: &PeerSummary| {
        let status = statuses.get(&peer.peer).and_then(|bytes| Status::parse(bytes));
        let head = heads.get(&peer.peer).map(|bytes| trust.accept_head(bytes, now));
        let (newest, newest_sequence, signed, news) = match &head {
            Some(Ok((_, head))) => {
                let entry = trust.find_release(&head.head, &state.channel, &state.platform).ok();
                let news = match head.freshness {
                    Freshness::Fresh => "valid",
                    Freshness::ExpiredSince(_) | Freshness::ExcusedSince(_) => "expired",
                };
                let (version, sequence) =
                    entry.map(|entry| (entry.version.to_string(), entry.sequence)).unzip();
                (version, sequence, Some(head.head.created.to_string()), news)
            }
            Some(Err(TrustError::Older { .. })) => (None, None, None, "older than ours"),
            // Without the first root nothing can be verified.
            Some(Err(TrustError::NoRoot)) => (None, None, None, "unknown"),
            Some(Err(_)) => (None, None, None, "refused"),
            None => (None, None, None, "none"),
        };
        let Status { name, version, sequence } = status.unwrap_or_default();
        let (name, installed) = (name.map(String::from), version.map(|it| it.to_string()));
        let address = peer.addr.ip().to_canonical().to_string();
        Event::Neighbour {
            address,
            name,
            installed,
            sequence,
            newest,
            newest_sequence,
            signed,
            news,
        }
    };
    present.iter().map(tell).collect()
}
