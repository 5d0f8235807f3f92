//! The room: other launchers of the product, met at its rendezvous, whatever release they have. They pass
//! on documents; nothing that they say is believed before it is verified.

use bytes::Bytes;
use futures_util::future::join_all;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use updraft_protocol::ids::PeerKey;
use updraft_protocol::io::{PeerSummary, Rendezvous};

/// Who is near is there within this time after the room was opened: whoever is heard first need not have
/// the newest release.
const GATHER_TIME: Duration = Duration::from_secs(1);
/// Who is alone for so long is alone.
const ALONE_MAX: Duration = Duration::from_secs(8);
/// How often is looked meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What everybody is asked for is small: who takes longer is passed over.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

/// The room of one product.
#[derive(Debug)]
pub struct Room {
    meeting: Rendezvous,
    since: Instant,
    /// Who had the newest head: asked first for what that names.
    best: Mutex<Option<PeerKey>>,
}

impl Room {
    /// Just opened.
    pub fn new(meeting: Rendezvous) -> Self {
        Self { meeting, since: Instant::now(), best: Mutex::new(None) }
    }

    /// Those who are there and pass on documents, the one with the newest head first. Right after the
    /// room was opened this waits for others to come: a second, or several as long as there is nobody.
    pub async fn present(&self) -> Vec<PeerSummary> {
        loop {
            let mut peers = self.meeting.peers().await;
            peers.retain(|peer| peer.documents);
            let age = self.since.elapsed();
            if age >= if peers.is_empty() { ALONE_MAX } else { GATHER_TIME } {
                let best = *self.best.lock().unwrap_or_else(PoisonError::into_inner);
                peers.sort_by_key(|peer| (Some(peer.peer) != best, peer.peer));
                return peers;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns when anybody is there.
    pub async fn somebody(&self) {
        while !self.meeting.peers().await.iter().any(|peer| peer.documents) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks one of them for the document at a repository path. What comes is **not verified**.
    pub async fn ask(&self, peer: PeerKey, path: &str) -> Option<Bytes> {
        self.meeting.request_document(peer, path).await
    }

    /// Asks everybody for a small document. What comes is **not verified**.
    pub async fn ask_all(&self, path: &str) -> Vec<(PeerSummary, Bytes)> {
        let asked = self.present().await.into_iter().map(|peer| async {
            let answer = tokio::time::timeout(ANSWER_WAIT_MAX, self.ask(peer.peer, path)).await;
            Some((peer, answer.ok()??))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// From now on `peer` is asked first.
    pub fn prefer(&self, peer: PeerKey) {
        *self.best.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
    }
}
