//! What goes into an engine and what comes out: the whole of its contact with the world.

use super::Misbehaviour;
use crate::geometry::{Block, Span};
use crate::ids::{FileIndex, InfoHashes, PeerId, PeerKey, PieceIndex};
use crate::metainfo::Info;
use crate::policy::http::Packed;
use crate::policy::transport::{Preference, Transport};
use crate::wire::handshake::Abilities;
use crate::wire::message::Message;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Who may be sent payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadPolicy {
    /// Everybody.
    Everyone,
    /// Only peers on the LAN and on this machine: the player has not agreed to more.
    LanOnly,
    /// Nobody: the line or the machine is needed for something else.
    Nobody,
}

impl UploadPolicy {
    /// Whether a peer may be sent payload that is on the LAN, or is not.
    pub fn serves(self, lan: bool) -> bool {
        match self {
            Self::Everyone => true,
            Self::LanOnly => lan,
            Self::Nobody => false,
        }
    }
}

/// What an engine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own name in this swarm.
    pub peer_id: PeerId,
    /// Name and version told to peers.
    pub client: String,
    /// The port others reach us at; told to peers.
    pub listen_port: Option<u16>,
    /// The UDP port others reach us at by QUIC; told to peers.
    pub quic_port: Option<u16>,
    /// What connections are to run over.
    pub transport: Preference,
    /// Connections at once.
    pub connections_max: usize,
    /// Who may be sent payload.
    pub upload: UploadPolicy,
    /// Whether the document extension is offered.
    pub documents: bool,
    /// Peers come from trackers alone (BEP 27): none are told of others.
    pub private: bool,
    /// The publisher's seed: gives each piece to somebody once before any twice.
    pub spread: bool,
    /// The torrent, of which the info dictionary (BEP 9) and hashes of pieces (BEP 52) are served to
    /// peers that came by a magnet link; `None` to not serve.
    pub info: Option<Arc<Info>>,
    /// The torrent is known by these hashes of a link alone: what describes it is searched for, and the
    /// engine has no pieces.
    pub link: Option<InfoHashes>,
    /// How many HTTP sources there are.
    pub sources: usize,
    /// What HTTP sources may have compressed, in the torrent's order; no piece is in two.
    pub packs: Vec<Packed>,
    /// Blocks come from the caller first ([`Input::Supplied`]): until [`Input::SupplyEnded`] nobody
    /// is asked for any.
    pub supplied: bool,
    /// Whether blocks are taken, and may be sent, compressed together ([`crate::wire::parcel`]).
    pub parcels: bool,
    /// Seed of every random choice.
    pub seed: u64,
}

/// How an HTTP range has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchEnd {
    /// All of it came.
    Complete,
    /// It broke off, or never began.
    Failed {
        /// How long the server asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The source does not have this file, or not in ranges.
    Absent(FileIndex),
    /// The source does not have this pack, or not as promised: what is in it is fetched as it is.
    Unpackable,
}

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// The handshake with a peer is done.
    Connected {
        /// The connection's name, never used before.
        peer: PeerKey,
        /// The other end.
        addr: SocketAddr,
        /// We dialled.
        outgoing: bool,
        /// What it calls itself.
        id: PeerId,
        /// What it can do.
        abilities: Abilities,
        /// It is on the LAN or on this machine.
        lan: bool,
        /// What it runs over. One over QUIC takes the place of one over TCP.
        transport: Transport,
    },
    /// A message came.
    Received {
        /// From whom.
        peer: PeerKey,
        /// The message.
        message: Message,
    },
    /// The connection is gone.
    Closed {
        /// Whose.
        peer: PeerKey,
    },
    /// Dialling failed.
    DialFailed {
        /// The address.
        addr: SocketAddr,
    },
    /// Payload that was read for a peer has left for the network, or never will.
    Sent {
        /// To whom.
        peer: PeerKey,
        /// Bytes of payload.
        bytes: u32,
    },
    /// Blocks ordered by [`Output::Read`] could not be read.
    Unsent {
        /// For whom.
        peer: PeerKey,
        /// The blocks.
        blocks: Vec<Block>,
    },
    /// A piece came in whole and has been written and hashed.
    Stored {
        /// The piece.
        piece: PieceIndex,
        /// Whether it is right.
        right: bool,
    },
    /// A piece that was there is no longer: its file was changed or is gone.
    Lost {
        /// The piece.
        piece: PieceIndex,
    },
    /// Addresses of peers.
    Peers(Vec<SocketAddr>),
    /// A peer on the local network says that it is there.
    Announced(SocketAddr),
    /// Every tracker has been asked once, or there is none.
    TrackersAsked,
    /// How large the swarm is by a tracker's count.
    SwarmSize {
        /// Peers that have everything.
        seeders: u32,
        /// Peers that do not, ourselves perhaps among them.
        leechers: u32,
    },
    /// A block came from an HTTP source.
    Fetched {
        /// The range it belongs to.
        fetch: PeerKey,
        /// The block.
        block: Block,
        /// Its bytes.
        data: Bytes,
    },
    /// A block that the caller had: a guess until its piece is verified.
    Supplied {
        /// The block.
        block: Block,
        /// Its bytes.
        data: Bytes,
    },
    /// The caller has no more blocks: what is missing is fetched.
    SupplyEnded,
    /// An HTTP range has ended.
    FetchEnded {
        /// The range.
        fetch: PeerKey,
        /// How.
        end: FetchEnd,
    },
    /// Whether what is read for peers shrinks when it is compressed, as far as is known: then it is read
    /// a parcel at a time.
    Shrinks(bool),
    /// What was read for a peer goes out compressed, with so many bytes less than it counts.
    Saved {
        /// To whom.
        peer: PeerKey,
        /// Bytes.
        bytes: u64,
    },
    /// So many bytes of the payload from a peer did not have to travel, as it came compressed.
    Spared {
        /// From whom.
        peer: PeerKey,
        /// Bytes.
        bytes: u64,
    },
    /// Who may be sent payload from now on.
    SetUpload(UploadPolicy),
    /// What gets lost on disk from now on is not fetched again: others own the files.
    SeedOnly,
    /// Nothing but time has passed.
    Timeout,
}

/// What is to be done outside.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a message.
    Send {
        /// To whom.
        peer: PeerKey,
        /// The message.
        message: Message,
    },
    /// Read blocks and send them as [`Message::Piece`], then report [`Input::Sent`].
    Read {
        /// For whom.
        peer: PeerKey,
        /// The blocks, in order.
        blocks: Vec<Block>,
    },
    /// Write a block.
    Write {
        /// Where.
        block: Block,
        /// Its bytes.
        data: Bytes,
    },
    /// Open a connection.
    Dial {
        /// Where to.
        addr: SocketAddr,
        /// By QUIC first, at this UDP port; by TCP or uTP if that does not come about.
        quic: Option<u16>,
        /// By uTP alone, at once: it dials us at the same time (BEP 55).
        punch: bool,
    },
    /// Open a second connection, over QUIC, with a peer that we are connected to over TCP. If that does
    /// not come about, nothing has happened.
    Upgrade {
        /// Where the peer is dialled.
        addr: SocketAddr,
        /// Its UDP port for QUIC.
        quic: u16,
    },
    /// Close a connection; nothing more will be said of it.
    Close {
        /// Whose.
        peer: PeerKey,
    },
    /// Fetch a run of blocks over HTTP.
    Fetch {
        /// Name of this range.
        fetch: PeerKey,
        /// Which source, by the order they were given.
        source: usize,
        /// The blocks.
        span: Span,
        /// The pack to fetch them by, if not as they are: its number in [`Config::packs`].
        pack: Option<usize>,
    },
    /// Give up a range: what it was to bring has come from elsewhere. No more need be said of it.
    FetchCancel {
        /// The range.
        fetch: PeerKey,
    },
    /// Something worth telling.
    Event(Event),
}

/// Decisions and results a user may ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece is verified and on disk.
    PieceVerified(PieceIndex),
    /// A piece came in wrong.
    PieceWrong(PieceIndex),
    /// A piece that was there is no longer right on disk.
    PieceLost(PieceIndex),
    /// A peer was thrown out for lying.
    PeerBanned {
        /// Its address.
        addr: SocketAddr,
        /// What it did.
        reason: Misbehaviour,
    },
    /// What is needed first is here.
    FirstComplete,
    /// Everything wanted is here.
    Complete,
    /// What a link leads to is known: [`super::Swarm::description`].
    Described,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Payload from peers, in bytes.
    pub down_peers: u64,
    /// The part of it that came from the LAN.
    pub down_lan: u64,
    /// Payload from HTTP sources, as it came: packs count by their compressed length.
    pub down_http: u64,
    /// What was needed of it, unpacked.
    pub http_content: u64,
    /// Payload that the caller had ([`Input::Supplied`]) and that was missing.
    pub supplied: u64,
    /// Payload sent.
    pub up: u64,
    /// The part of it that went to the LAN.
    pub up_lan: u64,
    /// Of the payload from peers, what did not travel, as it came compressed.
    pub down_spared: u64,
    /// Of the payload sent, what did not travel.
    pub up_saved: u64,
    /// Payload that came twice, or wrong, or unasked.
    pub wasted: u64,
    /// Payload in, bytes per second.
    pub down_rate: u64,
    /// Payload out, bytes per second.
    pub up_rate: u64,
    /// Connections.
    pub peers: usize,
    /// Connections to peers that have everything; while a link is followed, to those that say that they
    /// have what it leads to.
    pub seeds: usize,
    /// Connections over QUIC.
    pub quic: usize,
    /// Connections over uTP.
    pub utp: usize,
}
