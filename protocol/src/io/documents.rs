//! Documents from and for other launchers, over the connections that are there anyway
//! ([`crate::wire::documents`]). What comes in is handed on unverified, and said to be so.

use super::storage::TorrentKey;
use crate::ids::PeerKey;
use crate::wire::documents::{DOCUMENT_BYTES_MAX, DocumentMessage};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// Time one peer gets for one document before the next is asked.
const PER_PEER: Duration = Duration::from_secs(8);
/// Time for a document over all peers.
const IN_ALL: Duration = Duration::from_secs(20);
/// How long a torrent's first request waits for a peer to ask; later ones do not wait again.
const FIRST_PEER: Duration = Duration::from_secs(8);
/// Requests under way at once; more are refused.
const PENDING_MAX: usize = 64;

/// Where the documents that others ask for come from.
pub trait DocumentStore: Send + Sync {
    /// The document at a repository path such as `head.toml`, if it is here and may be given away.
    /// May read files: it is not called on the engine's task.
    fn get(&self, path: &str) -> Option<Bytes>;
}

#[derive(Debug)]
struct Pending {
    torrent: TorrentKey,
    path: String,
    reply: oneshot::Sender<Option<Bytes>>,
    expires: Duration,
    asked: Vec<PeerKey>,
    from: Option<(PeerKey, Duration)>,
    got: BytesMut,
}

/// Requests for documents that are under way.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pending: Vec<Pending>,
    /// Since when requests of a torrent have found nobody to ask.
    alone: HashMap<TorrentKey, Duration>,
}

/// A message for a peer.
pub(super) type Order = (PeerKey, DocumentMessage);

impl Documents {
    /// Asks for a document; the reply comes when it is here or nobody has it.
    pub(super) fn request(
        &mut self,
        now: Duration,
        torrent: TorrentKey,
        path: String,
        reply: oneshot::Sender<Option<Bytes>>,
    ) {
        if self.pending.len() < PENDING_MAX {
            self.pending.push(Pending {
                torrent,
                path,
                reply,
                expires: now + IN_ALL,
                asked: Vec::new(),
                from: None,
                got: BytesMut::new(),
            });
        }
    }

    /// Gives up what is late and asks the next peer; `able` are the torrent's peers that speak the
    /// extension.
    pub(super) fn advance(
        &mut self,
        now: Duration,
        able: impl Fn(TorrentKey) -> Vec<PeerKey>,
    ) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut at = 0;
        while at < self.pending.len() {
            let pending = &mut self.pending[at];
            if pending.expires <= now || pending.reply.is_closed() {
                let _ = self.pending.swap_remove(at).reply.send(None);
                continue;
            }
            if pending.from.is_some_and(|(_, since)| now.saturating_sub(since) > PER_PEER) {
                pending.from = None;
            }
            if pending.from.is_none() {
                let peers = able(pending.torrent);
                let alone = self.alone.entry(pending.torrent).or_insert(now);
                if !peers.is_empty() {
                    *alone = now;
                }
                let nobody = now.saturating_sub(*alone) >= FIRST_PEER;
                if let Some(&peer) = peers.iter().find(|peer| !pending.asked.contains(peer)) {
                    pending.asked.push(peer);
                    pending.from = Some((peer, now));
                    pending.got.clear();
                    orders
                        .push((peer, DocumentMessage::Want { path: pending.path.clone(), at: 0 }));
                } else if nobody || !pending.asked.is_empty() {
                    let _ = self.pending.swap_remove(at).reply.send(None);
                    continue;
                }
            }
            at += 1;
        }
        orders
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
                self.find(peer, &path)?.from = None;
                None
            }
            DocumentMessage::Have { path, at, size, data } => {
                let pending = self.find(peer, &path)?;
                if at as usize != pending.got.len() || size > DOCUMENT_BYTES_MAX {
                    return None;
                }
                pending.got.extend_from_slice(&data);
                pending.from = Some((peer, now));
                if pending.got.len() < size as usize && !data.is_empty() {
                    let at = u32::try_from(pending.got.len()).expect("below the document bound");
                    return Some((peer, DocumentMessage::Want { path, at }));
                }
                if pending.got.len() < size as usize {
                    pending.from = None; // An empty chunk in the middle: no honest answer.
                    return None;
                }
                let at = self.pending.iter().position(|pending| {
                    pending.path == path && pending.from.is_some_and(|(from, _)| from == peer)
                })?;
                let done = self.pending.swap_remove(at);
                let _ = done.reply.send(Some(done.got.freeze()));
                None
            }
        }
    }

    /// A connection is gone: its requests go to somebody else.
    pub(super) fn on_closed(&mut self, peer: PeerKey) {
        for pending in &mut self.pending {
            if pending.from.is_some_and(|(from, _)| from == peer) {
                pending.from = None;
            }
        }
    }

    /// True while anything is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    fn find(&mut self, peer: PeerKey, path: &str) -> Option<&mut Pending> {
        self.pending.iter_mut().find(|pending| {
            pending.path == path && pending.from.is_some_and(|(from, _)| from == peer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TORRENT: TorrentKey = TorrentKey(1);

    fn ask(documents: &mut Documents) -> oneshot::Receiver<Option<Bytes>> {
        let (reply, answer) = oneshot::channel();
        documents.request(Duration::ZERO, TORRENT, "head.toml".into(), reply);
        answer
    }

    #[test]
    fn one_peer_lacks_it_the_next_gives_it_in_chunks() {
        let mut documents = Documents::default();
        let mut answer = ask(&mut documents);
        let able = |_| vec![PeerKey(1), PeerKey(2)];
        assert_eq!(documents.advance(Duration::ZERO, |_| vec![]), []);
        let orders = documents.advance(Duration::ZERO, able);
        assert_eq!(orders.len(), 1);
        let lack = DocumentMessage::Lack { path: "head.toml".into() };
        documents.on_answer(Duration::ZERO, orders[0].0, lack);
        let orders = documents.advance(Duration::ZERO, able);
        assert_eq!(orders[0].0, PeerKey(2));
        let whole = Bytes::from(vec![3; 100_000]);
        let mut next = Some(orders[0].clone());
        while let Some((peer, DocumentMessage::Want { path, at })) = next {
            let reply = DocumentMessage::answer(path, at, Some(&whole));
            next = documents.on_answer(Duration::ZERO, peer, reply);
        }
        assert_eq!(answer.try_recv().unwrap(), Some(whole));
        assert!(!documents.is_waiting());
    }

    #[test]
    fn nobody_has_it_or_nobody_comes() {
        let mut documents = Documents::default();
        let (mut lacking, able) = (ask(&mut documents), |_| vec![PeerKey(1)]);
        documents.advance(Duration::ZERO, able);
        documents.on_closed(PeerKey(1));
        documents.advance(Duration::ZERO, able);
        assert_eq!(lacking.try_recv().unwrap(), None);
        let mut alone = ask(&mut documents);
        documents.advance(FIRST_PEER / 2, |_| vec![]);
        assert!(alone.try_recv().is_err());
        documents.advance(FIRST_PEER, |_| vec![]);
        assert_eq!(alone.try_recv().unwrap(), None);
        // The second does not wait as long again.
        let mut second = ask(&mut documents);
        documents.advance(FIRST_PEER, |_| vec![]);
        assert_eq!(second.try_recv().unwrap(), None);
        // Until somebody comes.
        let mut third = ask(&mut documents);
        documents.advance(FIRST_PEER, able);
        assert!(third.try_recv().is_err());
    }

    #[test]
    fn an_answer_from_somebody_else_or_out_of_order_is_skipped() {
        let mut documents = Documents::default();
        let mut answer = ask(&mut documents);
        documents.advance(Duration::ZERO, |_| vec![PeerKey(1)]);
        let have = |at| DocumentMessage::Have {
            path: "head.toml".into(),
            at,
            size: 8,
            data: Bytes::from_static(b"evil"),
        };
        assert_eq!(documents.on_answer(Duration::ZERO, PeerKey(2), have(0)), None);
        assert_eq!(documents.on_answer(Duration::ZERO, PeerKey(1), have(4)), None);
        assert!(answer.try_recv().is_err());
    }
}
