//! What the engine knows of one connection.

use super::holepunch::Asked;
use super::pex::Exchange;
use crate::bitfield::Bitfield;
use crate::geometry::Block;
use crate::ids::{PeerId, PeerKey, PieceIndex};
use crate::policy::rate::Rate;
use crate::policy::transport::Transport;
use crate::policy::window::Window;
use crate::wire::extension::ExtensionHandshake;
use crate::wire::handshake::Abilities;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// What no honest peer does. The peer is thrown out for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// It alone delivered pieces that do not hash.
    #[error("it sent wrong data")]
    WrongData,
    /// Wrong length or spare bits set.
    #[error("its bitfield does not fit the torrent")]
    MalformedBitfield,
    /// A piece number outside the torrent.
    #[error("it named a piece that the torrent does not have")]
    NoSuchPiece,
    /// A request outside the torrent, or too long.
    #[error("it asked for an impossible block")]
    ImpossibleRequest,
    /// Messages of an extension that was not agreed on.
    #[error("it used an extension that was not agreed on")]
    NotNegotiated,
    /// An extension handshake that is no dictionary.
    #[error("its extension handshake is malformed")]
    MalformedExtension,
    /// Block after block that nobody asked for.
    #[error("it flooded us with blocks that nobody asked for")]
    Unrequested,
    /// More requests than any peer needs, without end.
    #[error("it flooded us with requests")]
    RequestFlood,
    /// Blocks compressed together that do not unpack to what they say.
    #[error("it sent compressed blocks that are malformed")]
    MalformedParcel,
    /// An info dictionary that is not what the link names.
    #[error("it gave a description that is not the link's")]
    WrongMetadata,
    /// Hashes of pieces that do not lead to the file's root.
    #[error("it gave hashes that do not belong to the torrent")]
    WrongHashes,
    /// More messages with addresses than BEP 11 allows, again and again.
    #[error("it flooded us with addresses of peers")]
    AddressFlood,
}

/// A request that is out at a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) block: Block,
    pub(super) sent: Duration,
    /// Given up: somebody else may be asked, but the block is welcome if it comes all the same.
    pub(super) released: bool,
    /// Taken back; the peer answers with the block or with a reject, and means nothing by it.
    pub(super) cancelled: bool,
}

/// A connection, as a line for the user.
#[derive(Clone, Debug)]
pub struct PeerSummary {
    /// The connection.
    pub peer: PeerKey,
    /// The other end.
    pub addr: SocketAddr,
    /// Its client, if it said.
    pub client: Option<String>,
    /// Bytes per second from it.
    pub down_rate: u64,
    /// Bytes per second to it.
    pub up_rate: u64,
    /// Payload from it.
    pub down: u64,
    /// Payload to it.
    pub up: u64,
    /// Pieces it has.
    pub pieces: u32,
    /// It speaks Updraft's document extension.
    pub documents: bool,
    /// What the connection runs over.
    pub transport: Transport,
}

/// A piece that a publisher's seed has given to a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) piece: PieceIndex,
    /// Bytes of it that the peer has not asked for yet.
    pub(super) left: u32,
    /// Payload that the peer will have been sent when it has been sent what it asked for of this, in bytes.
    pub(super) sent_by: u64,
    pub(super) at: Duration,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// Where it listens, if it dialled us and said so.
    pub(super) listens: Option<SocketAddr>,
    pub(super) outgoing: bool,
    pub(super) id: PeerId,
    pub(super) abilities: Abilities,
    pub(super) lan: bool,
    pub(super) transport: Transport,
    pub(super) connected_at: Duration,
    pub(super) extensions: ExtensionHandshake,
    pub(super) exchange: Exchange,
    /// What it has asked for of late.
    pub(super) asked: Asked,
    /// Nothing has come yet, so a bitfield still may.
    pub(super) opening: bool,
    pub(super) have: Bitfield,
    /// Pieces we want that it has.
    pub(super) useful: u32,
    /// Pieces it has not been told of yet: they go with the next message to it, or soon.
    pub(super) untold: Vec<PieceIndex>,
    pub(super) am_choking: bool,
    pub(super) am_interested: bool,
    pub(super) chokes_us: bool,
    pub(super) interested: bool,
    pub(super) choke_changed_at: Duration,
    pub(super) requests: VecDeque<Request>,
    pub(super) window: Window,
    pub(super) snubbed: bool,
    pub(super) last_block: Duration,
    pub(super) current: Option<PieceIndex>,
    pub(super) allowed_fast: Vec<PieceIndex>,
    /// Pieces it suggested; while it spreads, the only ones to ask it for.
    pub(super) suggested: Vec<PieceIndex>,
    /// Blocks that came unasked, less what cancels and chokes explain.
    pub(super) unrequested: u32,
    /// It took part in a wrong piece with others: it gets pieces of its own until one is right.
    pub(super) parole: bool,
    /// A piece it had a hand in was right, and none was wrong since.
    pub(super) proven: bool,
    /// Wrong pieces that it alone delivered.
    pub(super) strikes: u32,
    pub(super) upload_queue: VecDeque<Block>,
    /// It was dialled by QUIC when it said that it has it: once is enough.
    pub(super) upgrade_tried: bool,
    /// When its requests no longer wait for more to go with them.
    pub(super) parcel_due: Option<Duration>,
    /// Payload read for it since it was last unchoked, in bytes.
    pub(super) turn_bytes: u64,
    /// Payload that has left for it since, in bytes.
    pub(super) turn_sent: u64,
    /// The piece it is being sent, and how much of it.
    pub(super) serving: Option<(PieceIndex, u32)>,
    /// When requests of it were last waiting or on their way.
    pub(super) busy_at: Duration,
    /// Pieces it was given and has not yet said to have.
    pub(super) given: Vec<Given>,
    /// What it was given last came to nothing.
    pub(super) given_in_vain: bool,
    /// It was told that we have nothing but what it was given (BEP 16).
    pub(super) hidden: bool,
    /// Requests turned away because the queue was full.
    pub(super) overflow: u32,
    /// Pieces of metadata it asked for.
    pub(super) metadata_sent: u32,
    /// Hashes it asked for.
    pub(super) hashes_sent: u32,
    /// Payload read for it and not yet sent, in bytes.
    pub(super) reading: u64,
    pub(super) down: Rate,
    pub(super) up: Rate,
    pub(super) last_sent: Duration,
    pub(super) last_received: Duration,
}

impl Peer {
    /// What the download limit was charged for a request to it, in bytes.
    pub(super) fn paid(&self, request: &Request) -> u64 {
        if self.lan { 0 } else { u64::from(request.block.len) }
    }

    /// The same for all that it was asked for and has not answered.
    pub(super) fn owed(&self) -> u64 {
        self.requests.iter().map(|request| self.paid(request)).sum()
    }

    pub(super) fn new(
        now: Duration,
        addr: SocketAddr,
        outgoing: bool,
        id: PeerId,
        abilities: Abilities,
        (lan, transport): (bool, Transport),
        piece_count: u32,
    ) -> Self {
        Self {
            addr,
            listens: None,
            outgoing,
            id,
            abilities,
            lan,
            transport,
            connected_at: now,
            extensions: ExtensionHandshake::default(),
            exchange: Exchange::default(),
            asked: Asked::default(),
            opening: true,
            have: Bitfield::empty(piece_count),
            useful: 0,
            untold: Vec::new(),
            am_choking: true,
            am_interested: false,
            chokes_us: true,
            interested: false,
            choke_changed_at: now,
            requests: VecDeque::new(),
            window: Window::default(),
            snubbed: false,
            last_block: now,
            current: None,
            allowed_fast: Vec::new(),
            suggested: Vec::new(),
            unrequested: 0,
            parole: false,
            proven: false,
            strikes: 0,
            upload_queue: VecDeque::new(),
            upgrade_tried: false,
            parcel_due: None,
            turn_bytes: 0,
            turn_sent: 0,
            serving: None,
            busy_at: now,
            given: Vec::new(),
            given_in_vain: false,
            hidden: false,
            overflow: 0,
            metadata_sent: 0,
            hashes_sent: 0,
            reading: 0,
            down: Rate::default(),
            up: Rate::default(),
            last_sent: now,
            last_received: now,
        }
    }

    pub(super) fn tick(&mut self, passed: Duration) {
        self.down.tick(passed);
        self.up.tick(passed);
        self.window.on_tick(self.down.get());
        self.unrequested = self.unrequested.saturating_sub(4);
        self.overflow = self.overflow.saturating_sub(100);
    }

    pub(super) fn summary(&self, key: PeerKey) -> PeerSummary {
        PeerSummary {
            peer: key,
            addr: self.addr,
            client: self.extensions.client.clone(),
            down_rate: self.down.get(),
            up_rate: self.up.get(),
            down: self.down.total(),
            up: self.up.total(),
            pieces: self.have.count(),
            documents: self.extensions.documents.is_some(),
            transport: self.transport,
        }
    }
}
