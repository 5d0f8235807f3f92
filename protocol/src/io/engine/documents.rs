//! Documents that peers ask for and bring.

use super::{Engine, Note};
use crate::ids::PeerKey;
use crate::io::documents::Order;
use crate::io::storage::TorrentKey;
use crate::swarm::UploadPolicy;
use crate::wire::documents::{CHUNK, DocumentMessage};
use crate::wire::message::Message;
use bytes::Bytes;
use std::sync::Arc;

impl Engine {
    pub(super) fn on_document_message(&mut self, key: TorrentKey, peer: PeerKey, payload: &Bytes) {
        let Some(message) = DocumentMessage::parse(payload) else { return };
        let DocumentMessage::Want { path, at } = message else {
            let order = self.documents.on_answer(self.now(), peer, message);
            return self.send_documents(order);
        };
        let has_documents = self.torrents.get(&key).is_some_and(|it| it.documents.is_some());
        let everyone = self.setup.config.upload == UploadPolicy::Everyone;
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let asked = match has_documents && (everyone || entry.lan) {
            true => entry.lookups.ask(path, at),
            false => Err(path),
        };
        match asked {
            Ok(()) => self.look_up(peer),
            Err(path) => self.send_documents([(peer, DocumentMessage::Lack { path })]),
        }
    }

    /// Begins to look up what a peer waits for, as far as it and the limit allow.
    fn look_up(&mut self, peer: PeerKey) {
        let now = self.now();
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let store = self.torrents.get(&entry.torrent).and_then(|it| it.documents.clone());
        let Some(store) = store else { return };
        while entry.lookups.has_next() {
            if !entry.lan && !self.limiter.up.take(now, u64::from(CHUNK)) {
                self.lookups_wait = true;
                return;
            }
            let Some((path, at)) = entry.lookups.next() else { return };
            let (note, store) = (self.note.clone(), Arc::clone(&store));
            let lookups = Arc::clone(&self.lookups);
            tokio::spawn(async move {
                let Ok(permit) = lookups.acquire_owned().await else { return };
                let found = tokio::task::spawn_blocking(move || match store.part(&path, at) {
                    Some(part) => part.answer(path, at),
                    None => DocumentMessage::Lack { path },
                });
                if let Ok(message) = found.await {
                    let _ = note.send(Note::Answer { peer, message }).await;
                }
                drop(permit);
            });
        }
    }

    pub(super) fn on_looked_up(&mut self, peer: PeerKey, message: DocumentMessage) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.lookups.done();
        if !entry.lan {
            let used = match &message {
                DocumentMessage::Have { data, .. } => data.len() as u64,
                DocumentMessage::Want { .. } | DocumentMessage::Lack { .. } => 0,
            };
            self.limiter.up.give_back(u64::from(CHUNK).saturating_sub(used));
        }
        self.send_documents([(peer, message)]);
        self.look_up(peer);
    }

    /// The upload limit may no longer stand in the way.
    pub(super) fn resume_lookups(&mut self) {
        if std::mem::take(&mut self.lookups_wait) {
            let waiting = self.peers.iter().filter(|(_, entry)| entry.lookups.has_next());
            let waiting: Vec<PeerKey> = waiting.map(|(&peer, _)| peer).collect();
            waiting.into_iter().for_each(|peer| self.look_up(peer));
        }
    }

    pub(super) fn send_documents(&mut self, orders: impl IntoIterator<Item = Order>) {
        for (peer, message) in orders {
            let Some(entry) = self.peers.get(&peer) else { continue };
            let id =
                self.torrents.get(&entry.torrent).and_then(|torrent| torrent.documents_id(peer));
            let Some(id) = id else { continue };
            self.send(peer, vec![Message::Extended { id, payload: message.encode() }]);
        }
    }
}
