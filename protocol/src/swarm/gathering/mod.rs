//! What comes before a torrent that is known by a link alone: its info dictionary (BEP 9), verified by the
//! link's hashes, then the piece layers that a v2 or hybrid torrent needs (BEP 52), verified by the roots
//! in it. The engine has no pieces meanwhile: it dials, listens and exchanges peers as always, and
//! passes over whatever is said of pieces.

mod dictionary;
mod layers;
#[cfg(test)]
mod tests;

use super::{Event, Misbehaviour, Swarm};
use crate::ids::{InfoHashes, PeerKey, Sha256Hash};
use crate::metainfo::{Info, MetainfoError};
use crate::wire::extension::{MetadataMessage, ours};
use crate::wire::message::Message;
use bytes::Bytes;
use dictionary::{Dictionary, Verdict};
use layers::Layers;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a torrent cannot be had by its link, whoever is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// The bytes are those that the link names, and no torrent that can be used.
    #[error("the link leads to a torrent that cannot be used: {0}")]
    Malformed(#[from] MetainfoError),
    /// It has not the kinds of hashes that the link says.
    #[error(
        "the link names hashes of another kind than its torrent has: use a link that its maker gives"
    )]
    OtherHashes,
    /// BEP 27: its peers come from its own trackers alone.
    #[error(
        "the torrent is private: its peers come from its own trackers alone, so get its .torrent file \
         instead of the link"
    )]
    Private,
    /// Its piece layers are longer than a torrent file may be.
    #[error("the torrent's hashes of pieces are longer than a torrent file may be")]
    TooLarge,
}

/// A torrent found by its link.
#[derive(Clone, Debug)]
pub struct Description {
    /// The torrent, with all that it takes to verify it; but if the link did not name its v2 hash, without its
    /// piece layers ([`Info::lacks_layers`]): peers give these to those who know that name.
    pub info: Info,
    /// Where peers listen that we were connected to.
    pub peers: Vec<SocketAddr>,
}

/// The search.
#[derive(Debug)]
pub(super) struct Gathering {
    hashes: InfoHashes,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Dictionary(Dictionary),
    Layers { raw: Bytes, layers: Layers },
    Done(Box<Result<Info, DescriptionError>>),
}

impl Gathering {
    pub(super) fn new(hashes: InfoHashes) -> Self {
        Self { hashes, stage: Stage::Dictionary(Dictionary::new(hashes)) }
    }

    /// The bytes that the link names are here.
    fn on_dictionary(&mut self, raw: Bytes) {
        self.stage = match self.read(raw) {
            Ok(stage) => stage,
            Err(error) => Stage::Done(Box::new(Err(error))),
        };
    }

    fn read(&self, raw: Bytes) -> Result<Stage, DescriptionError> {
        let info = Info::parse(raw, &[])?;
        let named = self.hashes.v1.is_none_or(|hash| info.hashes.v1 == Some(hash))
            && self.hashes.v2.is_none_or(|hash| info.hashes.v2 == Some(hash));
        if !named {
            return Err(DescriptionError::OtherHashes);
        }
        if info.private {
            return Err(DescriptionError::Private);
        }
        let layers = Layers::new(&info).ok_or(DescriptionError::TooLarge)?;
        Ok(if layers.is_complete() || self.hashes.v2.is_none() {
            Stage::Done(Box::new(Ok(info)))
        } else {
            Stage::Layers { raw: info.raw, layers }
        })
    }

    /// Every layer is here.
    fn on_layers(raw: Bytes, layers: Layers) -> Result<Info, DescriptionError> {
        let layers = layers.take();
        let bytes: Vec<(Sha256Hash, Vec<u8>)> = layers
            .iter()
            .map(|(root, layer)| (*root, layer.iter().flat_map(|hash| hash.0).collect()))
            .collect();
        let slices: Vec<(Sha256Hash, &[u8])> =
            bytes.iter().map(|(root, layer)| (*root, layer.as_slice())).collect();
        Ok(Info::parse(raw, &slices)?)
    }

    fn forget(&mut self, peer: PeerKey) {
        match &mut self.stage {
            Stage::Dictionary(dictionary) => dictionary.forget(peer),
            Stage::Layers { layers, .. } => layers.forget(peer),
            Stage::Done(_) => {}
        }
    }
}

impl Swarm {
    /// The search's result, once [`Event::Described`] has told that it is there.
    pub fn description(&self) -> Option<Result<Description, DescriptionError>> {
        let Stage::Done(result) = &self.gathering.as_ref()?.stage else { return None };
        let listening = self
            .peers
            .values()
            .filter_map(|peer| if peer.outgoing { Some(peer.addr) } else { peer.listens });
        let described = |info| Description { info, peers: listening.collect() };
        Some(result.as_ref().clone().map(described))
    }

    /// Connected peers that say that they have what is searched for.
    pub(super) fn describing(&self) -> usize {
        match self.gathering.as_ref().map(|gathering| &gathering.stage) {
            Some(Stage::Dictionary(dictionary)) => dictionary.sources(),
            Some(Stage::Layers { layers, .. }) => layers.sources(),
            Some(Stage::Done(_)) | None => 0,
        }
    }

    pub(super) fn on_gathering_message(&mut self, now: Duration, key: PeerKey, message: Message) {
        match message {
            Message::Extended { id: 0, payload } => {
                self.on_extension_handshake(now, key, &payload);
                self.on_source(now, key);
            }
            Message::Extended { id: ours::METADATA, payload } => {
                self.on_dictionary_message(now, key, &payload);
            }
            Message::Extended { id: ours::PEX, payload } => {
                self.on_peer_exchange(now, key, &payload);
            }
            Message::Hashes { range, hashes } => {
                if let Some(layers) = self.layers()
                    && !layers.on_hashes(key, &range, &hashes)
                {
                    self.ban(now, key, Misbehaviour::WrongHashes);
                }
            }
            Message::HashReject(range) => {
                if let Some(layers) = self.layers() {
                    layers.on_reject(now, key, &range);
                }
            }
            Message::HashRequest(range) => {
                self.send(now, key, Message::HashReject(range));
            }
            Message::Piece { data, .. } => self.on_unasked(now, key, data.len() as u64),
            // Without the dictionary nothing can be made of what is said of pieces.
            _ => {}
        }
        self.gather(now);
    }

    /// Asks whom there is to ask, and finishes what is complete.
    pub(super) fn gather(&mut self, now: Duration) {
        let Some(gathering) = &mut self.gathering else { return };
        match &mut gathering.stage {
            Stage::Dictionary(dictionary) => {
                for (key, piece) in dictionary.asks(now) {
                    let peer = self.peers.get(&key);
                    let Some(id) = peer.and_then(|peer| peer.extensions.metadata) else { continue };
                    let payload = MetadataMessage::Request { piece }.encode();
                    self.send(now, key, Message::Extended { id, payload });
                }
            }
            Stage::Layers { layers, .. } if layers.is_complete() => {
                let done = Stage::Done(Box::new(Err(DescriptionError::TooLarge)));
                if let Stage::Layers { raw, layers } = std::mem::replace(&mut gathering.stage, done)
                {
                    let result = Gathering::on_layers(raw, layers);
                    gathering.stage = Stage::Done(Box::new(result));
                    self.event(Event::Described);
                }
            }
            Stage::Layers { layers, .. } => {
                for (key, range) in layers.asks(now) {
                    self.send(now, key, Message::HashRequest(range));
                }
            }
            Stage::Done(_) => {}
        }
    }

    /// A peer is gone.
    pub(super) fn forget_source(&mut self, key: PeerKey) {
        if let Some(gathering) = &mut self.gathering {
            gathering.forget(key);
        }
    }

    /// A peer has said what it can do.
    fn on_source(&mut self, now: Duration, key: PeerKey) {
        let (Some(peer), Some(gathering)) = (self.peers.get(&key), &mut self.gathering) else {
            return;
        };
        match &mut gathering.stage {
            Stage::Dictionary(dictionary) => {
                let size = peer.extensions.metadata.and(peer.extensions.metadata_size);
                dictionary.on_size(now, key, size);
            }
            // Who does not say that it knows v2 may take such a message for a fault.
            Stage::Layers { layers, .. } if peer.abilities.v2 => layers.add(key),
            Stage::Layers { .. } | Stage::Done(_) => {}
        }
    }

    fn on_dictionary_message(&mut self, now: Duration, key: PeerKey, payload: &Bytes) {
        let (peer, message) = (self.peers.get(&key), MetadataMessage::parse(payload));
        let id = peer.and_then(|peer| peer.extensions.metadata);
        let Some(gathering) = &mut self.gathering else { return };
        match (message, &mut gathering.stage) {
            (Some(MetadataMessage::Request { piece }), _) => {
                let payload = MetadataMessage::Reject { piece }.encode();
                if let Some(id) = id {
                    self.send(now, key, Message::Extended { id, payload });
                }
            }
            (Some(MetadataMessage::Reject { .. }), Stage::Dictionary(dictionary)) => {
                dictionary.on_reject(now, key);
            }
            (Some(MetadataMessage::Data { piece, total, data }), Stage::Dictionary(dictionary)) => {
                match dictionary.on_data(now, key, piece, total, &data) {
                    Verdict::Wait => {}
                    Verdict::Lie => self.ban(now, key, Misbehaviour::WrongMetadata),
                    Verdict::Whole(raw) => {
                        gathering.on_dictionary(raw);
                        if matches!(gathering.stage, Stage::Done(_)) {
                            self.event(Event::Described);
                        }
                        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
                        keys.into_iter().for_each(|key| self.on_source(now, key));
                    }
                }
            }
            (Some(_), _) | (None, _) => {}
        }
    }

    fn layers(&mut self) -> Option<&mut Layers> {
        match &mut self.gathering.as_mut()?.stage {
            Stage::Layers { layers, .. } => Some(layers),
            Stage::Dictionary(_) | Stage::Done(_) => None,
        }
    }
}
