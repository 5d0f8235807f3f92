//! The engine of one torrent.
//!
//! Contract, in one sentence: after every [`Swarm::handle`], drain [`Swarm::poll`] to `None`, then
//! wait for input or until [`Swarm::poll_timeout`], whichever comes first.
//!
//! In go messages, verdicts of the disk, and the passing of time; out come messages to send, blocks
//! to write and read, addresses to dial and ranges to fetch. There is no clock, socket, file or task
//! in here, and no randomness but the seed it is given, so two runs with the same input are the same
//! run. Payload passes through untouched: the engine looks at descriptions of blocks only.

mod downloads;
mod gathering;
mod holepunch;
mod interface;
mod metadata;
mod peer;
mod pex;
mod sources;
mod spreading;
mod supply;
#[cfg(test)]
mod tests;
mod uploads;

pub use gathering::{Description, DescriptionError};
pub use interface::{Config, Event, FetchEnd, Input, Output, Stats, UploadPolicy};
pub use peer::{Misbehaviour, PeerSummary};

use crate::bitfield::Bitfield;
use crate::geometry::Geometry;
use crate::ids::{PeerId, PeerKey};
use crate::metainfo::trees::Trees;
use crate::policy::bans::{BAN, Bans, HostAddr};
use crate::policy::choker::Slots;
use crate::policy::dialer::{self, Dialer};
use crate::policy::limiter::Limiter;
use crate::policy::locality::is_lan;
use crate::policy::picker::{Picker, Priority, run_pieces};
use crate::policy::rate::Rate;
use crate::policy::spread::Spread;
use crate::policy::transport::Transport;
use crate::wire::extension::{ExtensionHandshake, ours};
use crate::wire::message::Message;
use bytes::Bytes;
use gathering::Gathering;
use holepunch::Tried;
use peer::Peer;
use sources::Http;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time between two rounds of housekeeping while anything is going on.
const TICK: Duration = Duration::from_secs(1);
/// A sign of life is sent after this time of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(100);
/// A peer that said nothing for this time is gone.
const SILENCE_MAX: Duration = Duration::from_secs(150);
/// Connections with one host beyond the LAN: a few players behind one router.
const PEERS_PER_HOST_MAX: usize = 8;
/// Two peers that dial each other at the same time find out within this.
const CROSSING: Duration = Duration::from_secs(10);
/// Requests that a peer may keep queued with us; told in the extension handshake.
pub const REQUESTS_IN_MAX: u32 = 2000;

/// What goes out to peers of one kind.
#[derive(Debug, Default)]
struct Uplink {
    slots: Slots,
    rate: Rate,
    /// Somebody waits for a place.
    short: bool,
    /// Somebody waits for a first piece.
    newcomers: bool,
}

impl Uplink {
    fn tick(&mut self, passed: Duration) {
        self.rate.tick(passed);
        self.slots.on_tick(self.rate.get(), self.short);
    }
}

/// The engine.
#[derive(Debug)]
pub struct Swarm {
    config: Config,
    geometry: Arc<Geometry>,
    priorities: Vec<Priority>,
    picker: Picker,
    peers: BTreeMap<PeerKey, Peer>,
    dialer: Dialer,
    bans: Bans,
    http: Http,
    trackers_asked: bool,
    /// The caller still has blocks for us.
    supplying: bool,
    began: Option<Duration>,
    last_payload: Duration,
    /// Payload read for peers and not yet sent, in bytes.
    reading: u64,
    /// What is read shrinks when it is compressed.
    shrinks: bool,
    /// What the download limit was charged for and will not come, in bytes.
    unspent: u64,
    /// Where the next round of uploads and requests begins, so that a short limit is shared out.
    turn: u32,
    ticked_at: Option<Duration>,
    /// Places for peers on the LAN, and for others, with what goes to each.
    lan: Uplink,
    wide: Uplink,
    choke_now: bool,
    /// When peers are told of pieces at the latest.
    tell_at: Option<Duration>,
    /// When requests no longer wait for others to go with them.
    parcel_at: Option<Duration>,
    /// When to look again whether those unchoked have asked for something.
    rechoke_at: Option<Duration>,
    spread: Option<Spread>,
    limited: bool,
    trees: Option<Trees>,
    /// The torrent is known by a link alone, and this is the search for the rest.
    gathering: Option<Box<Gathering>>,
    down: Rate,
    up: Rate,
    stats: Stats,
    /// The [`Swarm::manner`] that peers were told.
    introduced: (bool, bool),
    /// For whom a relay was asked.
    tried: Tried,
    outputs: VecDeque<Output>,
    rng: fastrand::Rng,
}

impl Swarm {
    /// An engine that has `have` of the torrent on disk and wants each piece by its priority.
    pub fn new(
        config: Config,
        geometry: Arc<Geometry>,
        have: &Bitfield,
        priorities: Vec<Priority>,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(config.seed);
        let spread = (config.spread && !have.is_empty())
            .then(|| Spread::new(have, run_pieces(&geometry), &mut rng));
        Self {
            picker: Picker::new(Arc::clone(&geometry), have, &priorities),
            peers: BTreeMap::new(),
            dialer: Dialer::default(),
            bans: Bans::default(),
            http: Http::new(config.sources, config.packs.clone(), &mut rng),
            trackers_asked: false,
            supplying: config.supplied,
            began: None,
            last_payload: Duration::ZERO,
            reading: 0,
            shrinks: false,
            unspent: 0,
            turn: 0,
            ticked_at: None,
            lan: Uplink::default(),
            wide: Uplink::default(),
            choke_now: false,
            tell_at: None,
            parcel_at: None,
            rechoke_at: None,
            spread,
            limited: false,
            gathering: config.link.map(|hashes| Box::new(Gathering::new(hashes))),
            trees: config.info.clone().filter(|info| info.is_v2()).map(Trees::new),
            down: Rate::default(),
            up: Rate::default(),
            stats: Stats::default(),
            introduced: (false, false),
            tried: Tried::default(),
            outputs: VecDeque::new(),
            rng,
            config,
            geometry,
            priorities,
        }
    }

    /// Takes one input at `now`, the time since any fixed instant.
    pub fn handle(&mut self, now: Duration, limiter: &mut Limiter, input: Input) {
        if self.began.is_none() {
            self.began = Some(now);
            self.last_payload = now;
            self.introduced = self.manner();
            if self.picker.has_first() && !self.picker.lacks_first() {
                self.event(Event::FirstComplete);
            }
        }
        // Messages by the thousand change nothing about whom to dial and what to fetch elsewhere that
        // cannot wait for the next tick.
        let frequent = matches!(
            input,
            Input::Received { .. }
                | Input::Sent { .. }
                | Input::Fetched { .. }
                | Input::Supplied { .. }
                | Input::Stored { .. }
                | Input::Saved { .. }
                | Input::Spared { .. }
        );
        let stored = matches!(input, Input::Stored { .. });
        match input {
            Input::Connected { peer, addr, outgoing, id, abilities, lan, transport } => {
                let (net, pieces) = ((lan, transport), self.geometry.piece_count());
                let new = Peer::new(now, addr, outgoing, id, abilities, net, pieces);
                self.on_connected(now, peer, new);
            }
            Input::Received { peer, message } => self.on_message(now, limiter, peer, message),
            Input::Closed { peer } => self.remove_peer(now, peer),
            Input::DialFailed { addr } => {
                let calm = self.picker.is_complete() && self.gathering.is_none();
                self.dialer.failed(now, addr, calm);
                self.ask_relay(now, addr);
            }
            Input::Sent { peer, bytes } => self.on_sent(now, limiter, peer, bytes),
            Input::Unsent { peer, blocks } => self.on_unsent(now, limiter, peer, &blocks),
            Input::Stored { piece, right } => self.on_stored(now, limiter, piece, right),
            Input::Lost { piece } => self.on_lost(now, piece),
            Input::Peers(addrs) => addrs.into_iter().for_each(|addr| self.dialer.add(now, addr)),
            Input::Announced(addr) => self.dialer.announced(now, addr),
            Input::TrackersAsked => self.trackers_asked = true,
            Input::Supplied { block, data } => self.on_supplied(block, data),
            Input::SupplyEnded => self.on_supply_ended(now, limiter),
            Input::SwarmSize { seeders, leechers } => {
                (self.http.seeders, self.http.leechers) = (seeders, leechers);
            }
            Input::Fetched { fetch, block, data } => self.on_fetched(now, fetch, block, data),
            Input::FetchEnded { fetch, end } => self.on_fetch_ended(now, fetch, end),
            Input::Shrinks(shrinks) => self.shrinks = shrinks,
            Input::Saved { peer, bytes } => {
                if self.peers.get(&peer).is_some_and(|peer| !peer.lan) {
                    limiter.up.give_back(bytes);
                }
                self.stats.up_saved += bytes;
            }
            Input::Spared { peer, bytes } => {
                if self.peers.get(&peer).is_some_and(|peer| !peer.lan) {
                    limiter.down.give_back(bytes);
                }
                self.stats.down_spared += bytes;
            }
            Input::SetUpload(policy) => {
                self.config.upload = policy;
                self.choke_now = true;
            }
            Input::SeedOnly => self.priorities.fill(Priority::UNWANTED),
            Input::Timeout => {}
        }
        limiter.down.give_back(std::mem::take(&mut self.unspent));
        let ticks = self.ticked_at.is_none_or(|at| now.saturating_sub(at) >= TICK);
        if ticks {
            self.on_tick(now, limiter);
        }
        if self.limited {
            self.limited = false;
            limiter.refill(now);
            self.resume_limited(now, limiter);
        }
        if self.choke_now || self.rechoke_at.is_some_and(|at| at <= now) {
            for key in self.rechoke(now) {
                self.serve(now, limiter, key);
            }
        }
        if self.parcel_at.is_some_and(|at| at <= now) {
            self.serve_waiting(now, limiter);
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_all(now);
        }
        if ticks || !frequent {
            self.dial(now);
        }
        if ticks || (stored && self.near_end()) {
            self.cancel_fetches();
        }
        let look = self.http.look_at.is_some_and(|at| at <= now);
        if ticks || !frequent || look || (stored && self.near_end()) {
            self.plan_http(now, limiter);
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due at the latest; `None` if only input can change anything.
    pub fn poll_timeout(&self, limiter: &Limiter) -> Option<Duration> {
        let active = !self.peers.is_empty()
            || self.dialer.dialling() > 0
            || (!self.picker.is_complete() && !self.http.sources.is_empty());
        let tick = active.then(|| self.ticked_at.unwrap_or_default() + TICK);
        let dial = self
            .dialer
            .next_due(self.peers.len(), self.dial_until(self.ticked_at.unwrap_or_default()));
        let limit = self.limited.then(|| {
            let at = [limiter.up.ready_at(), limiter.down.ready_at()];
            at.into_iter().flatten().min()
        });
        let waits = [self.rechoke_at, self.parcel_at, self.tell_at, self.http.look_at];
        [tick, dial, limit.flatten()].into_iter().chain(waits).flatten().min()
    }

    /// What is verified and on disk.
    pub fn have(&self) -> &Bitfield {
        self.picker.have()
    }

    /// True when nothing wanted is missing.
    pub fn is_complete(&self) -> bool {
        self.picker.is_complete()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats {
            down_rate: self.down.get(),
            up_rate: self.up.get(),
            peers: self.peers.len(),
            seeds: match self.gathering {
                None => self.peers.values().filter(|peer| peer.have.is_full()).count(),
                Some(_) => self.describing(),
            },
            quic: self.over(Transport::Quic),
            utp: self.over(Transport::Utp),
            ..self.stats
        }
    }

    fn over(&self, transport: Transport) -> usize {
        self.peers.values().filter(|peer| peer.transport == transport).count()
    }

    /// One line for each connection.
    pub fn peers(&self) -> Vec<PeerSummary> {
        self.peers.iter().map(|(&key, peer)| peer.summary(key)).collect()
    }

    /// The peer's own number for the document extension, if it speaks it.
    pub fn documents_id(&self, peer: PeerKey) -> Option<u8> {
        self.peers.get(&peer)?.extensions.documents
    }

    /// The peer's own number for parcels, if what is sent to it may go compressed: on a LAN the network is
    /// faster than that.
    pub fn parcels_id(&self, peer: PeerKey) -> Option<u8> {
        let peer = self.peers.get(&peer).filter(|peer| !peer.lan && self.config.parcels)?;
        peer.extensions.parcels
    }

    /// True if a connection with `addr` is to be refused: the address is banned, or there are enough
    /// and all of them in use, `twin` not counted whose place it would take. Beyond the LAN one host gets few
    /// places.
    pub fn refuses(
        &self,
        now: Duration,
        addr: SocketAddr,
        lan: bool,
        twin: Option<PeerKey>,
    ) -> bool {
        let others = || self.peers.iter().filter(|(key, _)| Some(**key) != twin);
        let full = others().count() >= self.config.connections_max;
        let host = HostAddr::of(addr.ip());
        let of_host = || others().filter(|(_, peer)| HostAddr::of(peer.addr.ip()) == host).count();
        (full && self.idle_peer(now).is_none())
            || (!lan && of_host() >= PEERS_PER_HOST_MAX)
            || self.dialer.is_banned(now, addr)
            || self.bans.shuts_out(now, host)
    }

    /// The connection that makes place for another one, if any does.
    fn idle_peer(&self, now: Duration) -> Option<PeerKey> {
        let carried_at = |peer: &Peer| peer.connected_at.max(peer.last_block).max(peer.busy_at);
        dialer::makes_place(now, self.peers.iter().map(|(&key, peer)| (key, carried_at(peer))))
    }

    fn send(&mut self, now: Duration, peer: PeerKey, message: Message) {
        self.tell(peer);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.last_sent = now;
            self.outputs.push_back(Output::Send { peer, message });
        }
    }

    /// Tells a peer of the pieces that have come since it was told last.
    fn tell(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let untold = std::mem::take(&mut peer.untold);
        self.outputs.extend(
            untold
                .into_iter()
                .map(|piece| Output::Send { peer: key, message: Message::Have(piece) }),
        );
    }

    fn tell_all(&mut self, now: Duration) {
        self.tell_at = None;
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            if self.peers.get(&key).is_some_and(|peer| !peer.untold.is_empty()) {
                self.tell(key);
                self.peers.get_mut(&key).into_iter().for_each(|peer| peer.last_sent = now);
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn on_connected(&mut self, now: Duration, key: PeerKey, peer: Peer) {
        let addr = peer.addr;
        if peer.id == self.config.peer_id {
            self.outputs.push_back(Output::Close { peer: key });
            // Trackers and peers tell of us, too.
            self.dialer.ban(now, addr, BAN);
            return;
        }
        let twin = self.peers.iter().find(|(_, other)| other.id == peer.id).map(|(&key, _)| key);
        if let Some(twin) = twin {
            let (id, outgoing, transport) = (peer.id, peer.outgoing, peer.transport);
            if !self.takes_over(now, (id, addr, outgoing, transport), twin) {
                self.outputs.push_back(Output::Close { peer: key });
                self.dialer.leads_to_twin(now, addr);
                return;
            }
        }
        if self.refuses(now, addr, peer.lan, twin) {
            self.outputs.push_back(Output::Close { peer: key });
            self.dialer.closed(now, addr);
            return;
        }
        twin.into_iter().for_each(|twin| self.close(now, twin));
        if self.peers.len() >= self.config.connections_max
            && let Some(idle) = self.idle_peer(now)
        {
            self.close(now, idle);
        }
        if peer.outgoing {
            self.dialer.connected(addr);
            if peer.transport != Transport::Quic {
                // It may not have answered by QUIC; if it has that, it will say so.
                self.dialer.set_quic(addr, None);
            }
        }
        let abilities = peer.abilities;
        // BEP 16: to other clients the publisher's seed shows only what they are to ask for.
        let hides = self.spread.is_some() && !peer.id.is_ours();
        self.picker.peer_joined(&peer.have);
        self.peers.insert(key, Peer { hidden: hides, ..peer });
        self.introduce(now, key);
        let have = self.picker.have();
        let nothing = hides || have.is_empty();
        let opening = match abilities.fast {
            true if nothing => Some(Message::HaveNone),
            true if have.is_full() => Some(Message::HaveAll),
            false if nothing => None,
            true | false => Some(Message::Bitfield(Bytes::copy_from_slice(have.as_bytes()))),
        };
        if let Some(opening) = opening {
            self.send(now, key, opening);
        }
        if hides {
            self.give(now, key);
        }
    }

    /// Whether a second connection with a peer takes the place of the first; both ends agree on it.
    fn takes_over(
        &self,
        now: Duration,
        (id, addr, outgoing, transport): (PeerId, SocketAddr, bool, Transport),
        old: PeerKey,
    ) -> bool {
        let Some(old) = self.peers.get(&old) else { return true };
        let is_quic = transport == Transport::Quic;
        if is_quic != (old.transport == Transport::Quic) {
            // A name is public: whoever takes over the connection of another must be at its address.
            return is_quic && addr.ip() == old.addr.ip();
        }
        // Both dialled: the connection of the lower peer id stays. Later on nobody has a reason to come
        // by another address.
        let ours_is_lower = self.config.peer_id < id;
        let crossing = now.saturating_sub(old.connected_at) < CROSSING;
        old.outgoing != outgoing
            && outgoing == ours_is_lower
            && (crossing || addr.ip() == old.addr.ip())
    }

    /// The connection whose place somebody takes who comes by `transport`: it is connected already, and
    /// the new connection is the better one.
    pub fn place_of(
        &self,
        now: Duration,
        id: PeerId,
        addr: SocketAddr,
        transport: Transport,
    ) -> Option<PeerKey> {
        let (&twin, _) = self.peers.iter().find(|(_, peer)| peer.id == id)?;
        self.takes_over(now, (id, addr, false, transport), twin).then_some(twin)
    }

    /// True if the peer of this name is connected, or it is our own.
    pub fn has_peer(&self, id: PeerId) -> bool {
        id == self.config.peer_id || self.peers.values().any(|peer| peer.id == id)
    }

    /// Says, or says anew, who we are.
    fn introduce(&mut self, now: Duration, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        if !peer.abilities.extensions {
            return;
        }
        let serves_info = self.config.info.is_some() && self.may_send(peer.lan);
        let hello = ExtensionHandshake {
            metadata: (serves_info || self.gathering.is_some()).then_some(ours::METADATA),
            documents: self.config.documents.then_some(ours::DOCUMENTS),
            pex: (!self.config.private).then_some(ours::PEX),
            parcels: self.config.parcels.then_some(ours::PARCELS),
            holepunch: self.punches().then_some(ours::HOLEPUNCH),
            metadata_size: serves_info
                .then(|| u32::try_from(self.metadata().len()).ok())
                .flatten()
                .filter(|&size| size > 0),
            listen_port: self.config.listen_port,
            requests_max: Some(REQUESTS_IN_MAX),
            client: Some(self.config.client.clone()),
            upload_only: self.picker.is_complete() && !peer.hidden && self.gathering.is_none(),
            spread: self.spread.is_some() && peer.abilities.fast,
            picks: self.picks(),
            quic: self.config.quic_port,
        };
        self.send(now, key, Message::Extended { id: 0, payload: hello.encode() });
    }

    /// True if a peer on the LAN, or one beyond it, may be sent what takes uplink.
    fn may_send(&self, lan: bool) -> bool {
        lan || self.config.upload == UploadPolicy::Everyone
    }

    /// Not everything is wanted alike, so we choose what to ask a seed that spreads for.
    fn picks(&self) -> bool {
        !self.picker.is_complete() && (self.picker.is_partial() || self.picker.lacks_first())
    }

    /// Whether we pick, and whether we are a partial seed.
    fn manner(&self) -> (bool, bool) {
        (self.picks(), self.picker.is_complete() && self.picker.is_partial())
    }

    /// Tells everybody anew who we are, if that has changed: what BEP 21 wants of a partial seed.
    fn introduce_anew(&mut self, now: Duration) {
        let manner = self.manner();
        if std::mem::replace(&mut self.introduced, manner) != manner {
            let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
            keys.into_iter().for_each(|key| self.introduce(now, key));
        }
    }

    fn on_message(&mut self, now: Duration, limiter: &mut Limiter, key: PeerKey, message: Message) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.last_received = now;
        let opens_with = std::mem::replace(&mut peer.opening, false);
        let fast = peer.abilities.fast;
        if self.gathering.is_some() {
            return self.on_gathering_message(now, key, message);
        }
        match message {
            Message::KeepAlive
            | Message::Port(_)
            | Message::Unknown(_)
            | Message::Parcel { .. } => {
                peer.opening = opens_with;
            }
            Message::Choke => self.on_choke(key),
            Message::Unchoke => {
                peer.chokes_us = false;
                self.request(now, limiter, key);
            }
            Message::Interested => {
                peer.interested = true;
                self.choke_now |= peer.am_choking;
            }
            Message::NotInterested => {
                peer.interested = false;
                self.choke_now |= !peer.am_choking;
            }
            Message::Have(piece) => self.on_have(now, limiter, key, piece),
            Message::Bitfield(bytes) => {
                // BEP 3 has it first only; aria2 says many HAVEs at once with another one.
                match Bitfield::from_bytes(&bytes, self.geometry.piece_count()) {
                    Some(have) => {
                        self.on_bitfield(now, key, have);
                        self.request(now, limiter, key);
                    }
                    None => self.ban(now, key, Misbehaviour::MalformedBitfield),
                }
            }
            Message::HaveAll | Message::HaveNone if !fast => {
                self.ban(now, key, Misbehaviour::NotNegotiated);
            }
            Message::HaveAll => {
                self.on_bitfield(now, key, Bitfield::full(self.geometry.piece_count()));
            }
            Message::HaveNone => {
                self.on_bitfield(now, key, Bitfield::empty(self.geometry.piece_count()));
            }
            Message::Request(block) => self.on_request(now, limiter, key, block),
            Message::Cancel(block) => self.on_cancel(now, key, block),
            Message::Piece { piece, offset, data } => {
                self.on_piece(now, limiter, key, piece, offset, data);
            }
            Message::Reject(block) => self.on_reject(now, limiter, key, block),
            Message::Suggest(piece) => self.on_suggest(now, limiter, key, piece),
            Message::AllowedFast(piece) => self.on_allowed_fast(now, limiter, key, piece),
            Message::Extended { id: 0, payload } => {
                peer.opening = opens_with;
                self.on_extension_handshake(now, key, &payload);
            }
            Message::Extended { id: ours::METADATA, payload } => {
                peer.opening = opens_with;
                self.on_metadata_message(now, limiter, key, &payload);
            }
            Message::Extended { id: ours::PEX, payload } => {
                peer.opening = opens_with;
                self.on_peer_exchange(now, key, &payload);
            }
            // Those that are well formed were unpacked before.
            Message::Extended { id: ours::HOLEPUNCH, payload } => {
                peer.opening = opens_with;
                self.on_holepunch(now, key, &payload);
            }
            Message::Extended { id: ours::PARCELS, .. } => {
                self.ban(now, key, Misbehaviour::MalformedParcel);
            }
            Message::Extended { .. } => peer.opening = opens_with,
            Message::HashRequest(range) => self.on_hash_request(now, limiter, key, range),
            Message::Hashes { .. } | Message::HashReject(_) => {}
        }
    }

    fn on_extension_handshake(&mut self, now: Duration, key: PeerKey, payload: &[u8]) {
        let Some(hello) = ExtensionHandshake::parse(payload) else {
            return self.ban(now, key, Misbehaviour::MalformedExtension);
        };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(requests) = hello.requests_max {
            peer.window.set_peer_max(requests);
        }
        if let Some(port) = hello.listen_port.filter(|_| !peer.outgoing && peer.listens.is_none()) {
            // Known as connected, so that it is not dialled as well, and can be dialled later.
            let mut listens = peer.addr; // With its scope, if it has one.
            listens.set_port(port);
            peer.listens = Some(listens);
            self.dialer.listens(now, listens, key);
        }
        let upgrade = hello.quic.filter(|_| {
            // Where there is nothing to send, nothing has to make way.
            let new = !peer.upgrade_tried && self.geometry.piece_count() > 0;
            new && self.config.transport.upgrades(peer.transport, peer.lan)
        });
        let at = if peer.outgoing { peer.addr } else { peer.listens.unwrap_or(peer.addr) };
        self.dialer.set_quic(at, hello.quic);
        if let Some(quic) = upgrade {
            peer.upgrade_tried = true;
            self.outputs.push_back(Output::Upgrade { addr: at, quic });
        }
        peer.extensions = hello;
    }

    /// Throws a peer out for `reason` and keeps it out for a while.
    fn ban(&mut self, now: Duration, key: PeerKey, reason: Misbehaviour) {
        let Some(peer) = self.peers.get(&key) else { return };
        let (addr, listens, lan) = (peer.addr, peer.listens, peer.lan);
        self.dialer.ban(now, addr, BAN);
        if let Some(listens) = listens {
            self.dialer.ban(now, listens, BAN);
        }
        // Many players share an address on a LAN or behind this machine's loopback.
        if !lan {
            self.bans.add(now, HostAddr::of(addr.ip()));
        }
        self.event(Event::PeerBanned { addr, reason });
        self.close(now, key);
    }

    fn close(&mut self, now: Duration, key: PeerKey) {
        self.outputs.push_back(Output::Close { peer: key });
        self.remove_peer(now, key);
    }

    fn remove_peer(&mut self, now: Duration, key: PeerKey) {
        let Some(peer) = self.peers.remove(&key) else { return };
        self.picker.peer_left(&peer.have);
        self.unspent += peer.owed();
        for request in peer.requests.iter().filter(|request| !request.released) {
            self.picker.release(request.block);
        }
        self.picker.disown(key);
        self.reading -= peer.reading;
        self.take_back(&peer);
        self.forget_source(key);
        if let Some(addr) = if peer.outgoing { Some(peer.addr) } else { peer.listens } {
            self.dialer.closed(now, addr);
        }
        self.choke_now |= !peer.am_choking;
        // What it was asked for is free again: others with room take it at their next block or tick.
    }

    /// Connections to dial for. A seed dials too, because it may be the one that cannot be dialled.
    fn dial_until(&self, now: Duration) -> usize {
        let waited = now.saturating_sub(self.began.unwrap_or(now));
        dialer::dial_until(waited, self.config.connections_max)
    }

    fn dial(&mut self, now: Duration) {
        let (open, until) = (self.peers.len(), self.dial_until(now));
        for addr in self.dialer.due(now, open, until, &mut self.rng) {
            let prefers = self.config.transport.prefers_quic(is_lan(addr.ip()));
            let quic = self.dialer.quic(addr).filter(|_| prefers);
            self.outputs.push_back(Output::Dial { addr, quic, punch: false });
        }
    }

    fn on_tick(&mut self, now: Duration, limiter: &mut Limiter) {
        let passed = now - self.ticked_at.unwrap_or(now);
        self.ticked_at = Some(now);
        self.down.tick(passed);
        self.up.tick(passed);
        self.http.tick(passed);
        self.lan.tick(passed);
        self.wide.tick(passed);
        let endgame = self.picker.free_blocks() == 0;
        let complete = self.picker.is_complete() && self.geometry.piece_count() > 0;
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.tick(passed);
            if now.saturating_sub(peer.last_received) > SILENCE_MAX {
                self.close(now, key);
                continue;
            }
            let ours = peer.extensions.documents.is_some() && self.config.documents;
            // A partial seed wants nothing either (BEP 21).
            let wants_nothing = peer.have.is_full() || peer.extensions.upload_only;
            if complete && wants_nothing && !ours {
                // Two seeds have nothing to say to each other, now or later.
                let addrs = [Some(peer.addr), peer.listens];
                self.close(now, key);
                addrs.into_iter().flatten().for_each(|addr| self.dialer.forget(addr));
                continue;
            }
            if now.saturating_sub(peer.last_sent) >= KEEP_ALIVE {
                self.send(now, key, Message::KeepAlive);
            }
            self.snub_if_stalled(now, key, endgame);
        }
        if !complete
            && self.peers.len() >= self.dial_until(now)
            && self.dialer.is_busy(now)
            && let Some(idle) = self.idle_peer(now)
        {
            self.close(now, idle);
        }
        self.choke_now = true;
        self.review_given(now);
        self.exchange_peers(now);
        self.gather(now);
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        keys.into_iter().for_each(|key| self.request(now, limiter, key));
    }

    /// A limit stood in the way and may no longer: everybody gets a share, in turn.
    fn resume_limited(&mut self, now: Duration, limiter: &mut Limiter) {
        self.turn = self.turn.wrapping_add(1);
        let mut keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        if !keys.is_empty() {
            let from = self.turn as usize % keys.len();
            keys.rotate_left(from);
        }
        // Round by round, a block each, until the limit or the peers have had enough.
        let mut more = true;
        while more {
            more = keys.iter().filter(|&&key| self.serve(now, limiter, key)).count() > 0;
        }
        for &key in &keys {
            self.request(now, limiter, key);
        }
    }
}
