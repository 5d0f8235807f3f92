//! Documents from and for other launchers, over the connections that are there anyway
//! ([`crate::wire::documents`]). What comes in is handed on unverified, and said to be so.

mod serving;

use crate::ids::PeerKey;
use crate::wire::documents::{DOCUMENT_BYTES_MAX, DocumentMessage};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::sync::oneshot;

pub(super) use serving::Lookups;
pub use serving::{DocumentPart, DocumentStore};

/// Time a peer gets for the next part of a document.
const PER_PART: Duration = Duration::from_secs(8);
/// Time it gets for all of it.
const IN_ALL: Duration = Duration::from_secs(60);
/// Requests under way at once; more are refused. Everybody of a torrent can be asked at once.
const PENDING_MAX: usize = 64;

#[derive(Debug)]
struct Pending {
    peer: PeerKey,
    path: String,
    reply: oneshot::Sender<Option<Bytes>>,
    /// When the peer was last heard, or asked.
    heard: Duration,
    expires: Duration,
    got: BytesMut,
}

/// Requests for documents that are under way.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pending: Vec<Pending>,
}

/// A message for a peer.
pub(super) type Order = (PeerKey, DocumentMessage);

impl Documents {
    /// Asks a peer for a document; the reply comes when it is here, or the peer does not have it, is gone
    /// or too slow.
    pub(super) fn request(
        &mut self,
        now: Duration,
        peer: PeerKey,
        path: String,
        reply: oneshot::Sender<Option<Bytes>>,
    ) -> Option<Order> {
        if self.pending.len() >= PENDING_MAX {
            return None;
        }
        let want = DocumentMessage::Want { path: path.clone(), at: 0 };
        let (heard, expires, got) = (now, now + IN_ALL, BytesMut::new());
        self.pending.push(Pending { peer, path, reply, heard, expires, got });
        Some((peer, want))
    }

    /// Gives up what is late or no longer awaited.
    pub(super) fn expire(&mut self, now: Duration) {
        self.pending.retain(|pending| {
            pending.expires > now
                && now.saturating_sub(pending.heard) <= PER_PART
                && !pending.reply.is_closed()
        });
    }

    /// A peer answered.
    pub(super) fn on_answer(
        &mut self,
        now: Duration,
        peer: PeerKey,
        message: DocumentMessage,
    ) -> Option<Order> {
        match message {
            DocumentMessage::Want { .. } => None,
            DocumentMessage::Lack { path } => {
                let at = self.find(peer, &path)?;
                self.pending.swap_remove(at);
                None
            }
            DocumentMessage::Have { path, at, size, data } => {
                let found = self.find(peer, &path)?;
                let pending = &mut self.pending[found];
                if at as usize != pending.got.len() || size > DOCUMENT_BYTES_MAX {
                    return None;
                }
                pending.got.extend_from_slice(&data);
                pending.heard = now;
                if pending.got.len() >= size as usize {
                    let done = self.pending.swap_remove(found);
                    let _ = done.reply.send(Some(done.got.freeze()));
                    return None;
                }
                if data.is_empty() {
                    self.pending.swap_remove(found); // Nothing in the middle: no honest answer.
                    return None;
                }
                let at = u32::try_from(pending.got.len()).expect("below the document bound");
                Some((peer, DocumentMessage::Want { path, at }))
            }
        }
    }

    /// A connection is gone, and what was asked of it.
    pub(super) fn on_closed(&mut self, peer: PeerKey) {
        self.pending.retain(|pending| pending.peer != peer);
    }

    /// True while anything is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    fn find(&self, peer: PeerKey, path: &str) -> Option<usize> {
        self.pending.iter().position(|pending| pending.peer == peer && pending.path == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerKey = PeerKey(1);

    fn ask(documents: &mut Documents) -> (oneshot::Receiver<Option<Bytes>>, Option<Order>) {
        let (reply, answer) = oneshot::channel();
        let order = documents.request(Duration::ZERO, PEER, "head.toml".into(), reply);
        (answer, order)
    }

    /// The reply, where there is one: `None` inside if the request was given up.
    fn replied(answer: &mut oneshot::Receiver<Option<Bytes>>) -> Option<Option<Bytes>> {
        match answer.try_recv() {
            Ok(reply) => Some(reply),
            Err(oneshot::error::TryRecvError::Closed) => Some(None),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }

    #[test]
    fn a_document_comes_in_parts() {
        let mut documents = Documents::default();
        let (mut answer, mut next) = ask(&mut documents);
        let whole = Bytes::from(vec![3; 100_000]);
        let mut parts = 0;
        while let Some((peer, DocumentMessage::Want { path, at })) = next {
            parts += 1;
            let reply = DocumentPart::of(&whole, at).unwrap().answer(path, at);
            next = documents.on_answer(Duration::ZERO, peer, reply);
        }
        assert_eq!((replied(&mut answer), parts), (Some(Some(whole)), 2));
        assert!(!documents.is_waiting());
    }

    #[test]
    fn who_lacks_it_leaves_or_is_slow_is_given_up() {
        let lack = DocumentMessage::Lack { path: "head.toml".into() };
        let empty =
            DocumentMessage::Have { path: "head.toml".into(), at: 0, size: 8, data: Bytes::new() };
        for end in 0..4 {
            let mut documents = Documents::default();
            let (mut answer, _) = ask(&mut documents);
            documents.expire(PER_PART);
            assert_eq!(replied(&mut answer), None);
            match end {
                0 => drop(documents.on_answer(Duration::ZERO, PEER, lack.clone())),
                1 => drop(documents.on_answer(Duration::ZERO, PEER, empty.clone())),
                2 => documents.on_closed(PEER),
                _ => documents.expire(PER_PART + Duration::from_millis(1)),
            }
            assert_eq!(replied(&mut answer), Some(None), "end {end}");
            assert!(!documents.is_waiting());
        }
    }

    #[test]
    fn who_sends_a_little_now_and_then_is_given_up_as_well() {
        let mut documents = Documents::default();
        let (mut answer, _) = ask(&mut documents);
        let mut now = Duration::ZERO;
        for at in 0..100 {
            now += PER_PART / 2;
            let data = Bytes::from_static(b"x");
            let have = DocumentMessage::Have { path: "head.toml".into(), at, size: 1000, data };
            documents.on_answer(now, PEER, have);
            documents.expire(now);
        }
        assert_eq!(replied(&mut answer), Some(None));
    }

    #[test]
    fn an_answer_from_somebody_else_or_out_of_order_is_skipped() {
        let mut documents = Documents::default();
        let (mut answer, _) = ask(&mut documents);
        let have = |at| DocumentMessage::Have {
            path: "head.toml".into(),
            at,
            size: 8,
            data: Bytes::from_static(b"evil"),
        };
        assert_eq!(documents.on_answer(Duration::ZERO, PeerKey(2), have(0)), None);
        assert_eq!(documents.on_answer(Duration::ZERO, PEER, have(4)), None);
        assert_eq!(replied(&mut answer), None);
    }

    #[test]
    fn no_more_than_so_many_are_asked_at_once() {
        let mut documents = Documents::default();
        let mut answers: Vec<_> = (0..=PENDING_MAX).map(|_| ask(&mut documents)).collect();
        let (mut refused, order) = answers.pop().unwrap();
        assert_eq!((replied(&mut refused), order), (Some(None), None));
        assert!(answers.iter().all(|(_, order)| order.is_some()));
    }
}
