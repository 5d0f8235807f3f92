//! From a link to a torrent: what [`Session::follow`] gives.

use super::session::{Session, SessionError, TorrentHandle};
use crate::ids::InfoHashes;
use crate::metainfo::Info;
use crate::swarm::{Description, DescriptionError};
use std::net::SocketAddr;
use tokio::sync::oneshot;

/// What a link says.
#[derive(Clone, Debug)]
pub struct Link {
    /// The torrent's names.
    pub hashes: InfoHashes,
    /// HTTP and UDP trackers in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// Peers known from the start.
    pub peers: Vec<SocketAddr>,
    /// Whether peers are looked for in the DHT, where the session is in it.
    pub dht: bool,
}

/// A search for what a link leads to. It ends when it has found that, or is dropped.
#[derive(Debug)]
pub struct Search {
    handle: TorrentHandle,
    found: oneshot::Receiver<Result<Description, DescriptionError>>,
}

impl Search {
    /// Connections, how many of them say that they have what is searched for (as `seeds`), and what
    /// trackers say, as events.
    pub fn handle(&self) -> &TorrentHandle {
        &self.handle
    }

    /// Waits until the torrent is known. To be called until it gives something; dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// When the link leads to no torrent that can be used; `None` when the session is stopped.
    pub async fn found(&mut self) -> Option<Result<Description, DescriptionError>> {
        (&mut self.found).await.ok()
    }

    /// Ends it: says goodbye to trackers and peers. The torrent can be added then.
    pub async fn end(self) {
        self.handle.remove().await;
    }
}

impl Session {
    /// Looks for the torrent that a link leads to: what it holds (BEP 9), and the hashes of pieces of v2
    /// and hybrid torrents (BEP 52).
    ///
    /// # Errors
    /// As [`Session::add`].
    pub async fn follow(&self, link: Link) -> Result<Search, SessionError> {
        let (reply, found) = oneshot::channel();
        let handle = self.add_nameless(link, None, Some(reply)).await?;
        Ok(Search { handle, found })
    }
}

/// A torrent of which nothing is known but its names.
pub(super) fn nameless(hashes: InfoHashes) -> Info {
    let geometry = crate::geometry::Geometry::new(crate::geometry::BLOCK_LEN, 0, Vec::new())
        .expect("a torrent of nothing is well formed");
    Info {
        raw: bytes::Bytes::new(),
        hashes,
        name: String::new(),
        private: false,
        single_file: false,
        files: Vec::new(),
        geometry,
        v1_pieces: Some(Vec::new()),
    }
}
