//! The room: other launchers of the product, met at its rendezvous, whatever release they have. They pass
//! on documents; nothing that they say is believed before it is verified.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use std::collections::HashSet;
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

/// How many are asked for the same at once. Two questions at a time to a room of any size stay below what the engine
/// keeps under way.
const ASKED_AT_ONCE: usize = 24;

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
            let mut peers = self.here().await;
            let age = self.since.elapsed();
            if age >= if peers.is_empty() { ALONE_MAX } else { GATHER_TIME } {
                let best = *self.best.lock().unwrap_or_else(PoisonError::into_inner);
                peers.sort_by_key(|peer| (Some(peer.peer) != best, peer.peer));
                return peers;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The same room for somebody else who asks in it.
    pub fn beside(&self) -> Self {
        Self::new(self.meeting.clone())
    }

    /// Those who are there now and pass on documents, in no order.
    pub async fn here(&self) -> Vec<PeerSummary> {
        let mut peers = self.meeting.peers().await;
        peers.retain(|peer| peer.documents);
        peers
    }

    /// Those who have come besides `asked`, waited for as long as the room is young; nobody later.
    pub async fn more(&self, asked: &HashSet<PeerKey>) -> Vec<PeerKey> {
        while self.since.elapsed() < ALONE_MAX {
            let here = self.here().await.into_iter().map(|peer| peer.peer);
            let more: Vec<PeerKey> = here.filter(|peer| !asked.contains(peer)).collect();
            if !more.is_empty() {
                return more;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Vec::new()
    }

    /// Returns when anybody is there.
    pub async fn somebody(&self) {
        while self.here().await.is_empty() {
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
        let answers = stream::iter(asked).buffered(ASKED_AT_ONCE);
        answers.filter_map(std::future::ready).collect().await
    }

    /// From now on `peer` is asked first.
    pub fn prefer(&self, peer: PeerKey) {
        *self.best.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use updraft_protocol::ids::InfoHash;
    use updraft_protocol::io::{DocumentPart, DocumentStore, Session, SessionConfig};

    struct Says(&'static str);

    impl DocumentStore for Says {
        fn part(&self, _: &str, at: u32) -> Option<DocumentPart> {
            DocumentPart::of(&Bytes::from_static(self.0.as_bytes()), at)
        }
    }

    /// A room of forty is asked two things at once, and everybody is heard.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everybody_in_a_large_room_is_heard() {
        const GUESTS: usize = 40;
        let hash = InfoHash([7; 20]);
        let session = || {
            let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
            Session::start(SessionConfig { listen, ..SessionConfig::default() })
        };
        let host = session().await.unwrap();
        let at = host.listen_addrs().to_vec();
        let meeting = host.add_rendezvous(hash, Arc::new(Says("host")), vec![], vec![]).await;
        let room = Room::new(meeting.unwrap());
        let mut guests = Vec::new();
        for _ in 0..GUESTS {
            let guest = session().await.unwrap();
            let says = Arc::new(Says("guest"));
            let meeting = guest.add_rendezvous(hash, says, vec![], at.clone()).await;
            guests.push((meeting.unwrap(), guest));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while room.present().await.len() < GUESTS {
            assert!(Instant::now() < deadline, "{} came", room.present().await.len());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let (heads, statuses) =
            tokio::join!(room.ask_all("head.toml"), room.ask_all("root/1.toml"));
        assert_eq!((heads.len(), statuses.len()), (GUESTS, GUESTS));
    }
}
