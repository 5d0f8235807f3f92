//! The receiving half: what peers have, what they are asked for, what came, and who is to blame.

use super::peer::{Misbehaviour, Peer, Request};
use super::supply::SUPPLY;
use super::{Event, Output, Swarm};
use crate::bitfield::Bitfield;
use crate::geometry::{BLOCK_LEN, Block};
use crate::ids::{PeerKey, PieceIndex};
use crate::policy::endgame;
use crate::policy::limiter::Limiter;
use crate::policy::picker::{Ask, Receipt};
use crate::policy::window::Window;
use crate::wire::message::Message;
use bytes::Bytes;
use std::time::Duration;

/// A peer from which nothing came for this time, though asked, is passed over.
const SNUB_AFTER: Duration = Duration::from_secs(20);
/// The same while only blocks that are out elsewhere are left.
const SNUB_AFTER_ENDGAME: Duration = Duration::from_secs(5);
/// Blocks that nobody asked for, beyond what races explain, before a peer is thrown out.
const UNREQUESTED_MAX: u32 = 600;
/// Wrong pieces from one peer alone before it is thrown out: an honest player's disk may rot once.
const STRIKES_MAX: u32 = 2;
/// Allowed-fast pieces remembered of a peer (BEP 6 suggests ten).
const ALLOWED_FAST_MAX: usize = 32;
/// Peers are told of a piece with the next message to them, and no later than this: a packet for each
/// piece and peer would cost a twentieth of a crowd's uplinks.
const TELL_DELAY: Duration = Duration::from_millis(400);
/// The first pieces are told at once: a crowd that has nothing yet waits for them.
const TELL_AT_ONCE: u32 = 8;
/// Suggested pieces remembered of a peer.
pub(super) const SUGGESTED_MAX: usize = 2048;

impl Swarm {
    pub(super) fn on_bitfield(&mut self, now: Duration, key: PeerKey, have: Bitfield) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        self.picker.peer_left(&peer.have);
        self.picker.peer_joined(&have);
        peer.useful = self.picker.useful(&have);
        if let Some(spread) = &mut self.spread {
            have.iter().for_each(|piece| _ = spread.take(piece));
        }
        peer.have = have;
        self.update_interest(now, key);
    }

    pub(super) fn on_have(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        piece: PieceIndex,
    ) {
        if self.geometry.piece(piece.0).is_none() {
            return self.ban(now, key, Misbehaviour::NoSuchPiece);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.have.insert(piece) {
            return;
        }
        self.picker.peer_gained(piece, peer.have.is_full());
        self.seen_elsewhere(now, key, piece);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if self.picker.wants(piece) {
            peer.useful += 1;
            self.update_interest(now, key);
            self.request(now, limiter, key);
        }
    }

    pub(super) fn on_choke(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.chokes_us = true;
        peer.suggested.clear();
        self.picker.disown(key);
        if peer.abilities.fast {
            return; // BEP 6: every request is answered or rejected, choke or not.
        }
        // BEP 3: a choked peer's requests are dropped silently; what is on its way may still come.
        let races = u32::try_from(peer.requests.len()).unwrap_or(u32::MAX);
        peer.unrequested = peer.unrequested.saturating_sub(races);
        self.unspent += peer.owed();
        for request in peer.requests.drain(..).filter(|request| !request.released) {
            self.picker.release(request.block);
        }
    }

    pub(super) fn on_reject(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        block: Block,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.abilities.fast {
            return self.ban(now, key, Misbehaviour::NotNegotiated);
        }
        let Some(at) = peer.requests.iter().position(|request| request.block == block) else {
            return;
        };
        let request = peer.requests.remove(at).expect("the position was found just now");
        self.unspent += peer.paid(&request);
        if !request.released {
            self.picker.release(block);
        }
        if peer.chokes_us {
            peer.allowed_fast.retain(|&piece| piece != block.piece);
        } else {
            if peer.extensions.spread {
                peer.suggested.retain(|&piece| piece != block.piece); // Somebody else was given it.
            } else if !request.cancelled {
                // It serves us but not this: asking again at once would only spin.
                self.drop_claim(now, key, block.piece);
            }
            self.request(now, limiter, key);
        }
    }

    /// A piece may be asked for though we are choked (BEP 6, allowed fast).
    pub(super) fn on_allowed_fast(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        piece: PieceIndex,
    ) {
        if self.peers.get(&key).is_some_and(|peer| !peer.abilities.fast) {
            return self.ban(now, key, Misbehaviour::NotNegotiated);
        }
        self.on_offer(now, limiter, key, piece, |peer| (&mut peer.allowed_fast, ALLOWED_FAST_MAX));
    }

    /// A piece is suggested (BEP 6): by a seed that spreads, the ones to ask it for. From others it is
    /// a hint, and rarest first knows better.
    pub(super) fn on_suggest(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        piece: PieceIndex,
    ) {
        if self.peers.get(&key).is_some_and(|peer| peer.extensions.spread) {
            self.on_offer(now, limiter, key, piece, |peer| (&mut peer.suggested, SUGGESTED_MAX));
        }
    }

    /// Remembers a piece that a peer offers, in one of its lists with a bound.
    fn on_offer(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        piece: PieceIndex,
        list: impl Fn(&mut Peer) -> (&mut Vec<PieceIndex>, usize),
    ) {
        if self.geometry.piece(piece.0).is_none() {
            return self.ban(now, key, Misbehaviour::NoSuchPiece);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let (offered, most) = list(peer);
        offered.retain(|&known| known != piece && self.picker.wants(known));
        if offered.len() < most {
            offered.push(piece);
            self.request(now, limiter, key);
        }
    }

    pub(super) fn on_piece(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        piece: PieceIndex,
        offset: u32,
        data: Bytes,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let bytes = data.len() as u64;
        peer.down.add(bytes);
        self.down.add(bytes);
        self.stats.down_peers += bytes;
        if peer.lan {
            self.stats.down_lan += bytes;
        }
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let block = Block { piece, offset, len };
        let Some(at) = peer.requests.iter().position(|request| request.block == block) else {
            return self.on_unasked(now, key, bytes);
        };
        let request = peer.requests.remove(at).expect("the position was found just now");
        peer.last_block = now;
        peer.snubbed = false;
        peer.window.on_block();
        self.last_payload = now;
        self.take_block(now, key, block, data, request.released);
        self.request(now, limiter, key);
    }

    /// A block came that nobody asked for.
    pub(super) fn on_unasked(&mut self, now: Duration, key: PeerKey, bytes: u64) {
        self.stats.wasted += bytes;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.unrequested += 1;
        if peer.unrequested > UNREQUESTED_MAX {
            self.ban(now, key, Misbehaviour::Unrequested);
        }
    }

    /// A block that was asked for is in, from a peer or over HTTP.
    pub(super) fn take_block(
        &mut self,
        now: Duration,
        from: PeerKey,
        block: Block,
        data: Bytes,
        released: bool,
    ) {
        match self.picker.received(block, from) {
            Receipt::Duplicate => self.stats.wasted += u64::from(block.len),
            Receipt::Needed { others } => {
                self.outputs.push_back(Output::Write { block, data });
                if others > 0 || released {
                    self.cancel_elsewhere(now, from, block);
                }
            }
        }
    }

    fn cancel_elsewhere(&mut self, now: Duration, from: PeerKey, block: Block) {
        let holders: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(key, peer)| {
                **key != from && peer.requests.iter().any(|request| request.block == block)
            })
            .map(|(&key, _)| key)
            .collect();
        for key in holders {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            if peer.abilities.fast {
                // The peer answers the cancel with a block or a reject; either takes it out.
                for request in peer.requests.iter_mut().filter(|request| request.block == block) {
                    (request.released, request.cancelled) = (true, true);
                }
            } else {
                let at = peer.requests.iter().position(|request| request.block == block);
                let taken = at.and_then(|at| peer.requests.remove(at));
                self.unspent += taken.map_or(0, |request| peer.paid(&request));
                peer.unrequested = peer.unrequested.saturating_sub(1);
            }
            self.send(now, key, Message::Cancel(block));
        }
    }

    /// Keeps the peer's window full.
    pub(super) fn request(&mut self, now: Duration, limiter: &mut Limiter, key: PeerKey) {
        let picks = self.picks();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let may_ask = !peer.chokes_us || !peer.allowed_fast.is_empty();
        if !peer.am_interested || !may_ask || self.supplying || self.picker.is_complete() {
            return;
        }
        let mut size = peer.window.size() as usize;
        if !peer.proven {
            let trial = Window::trial(self.geometry.piece_length().div_ceil(BLOCK_LEN)) as usize;
            size = size.min(trial.saturating_sub(self.picker.unjudged(key)));
        }
        let outstanding = peer.requests.len();
        let room = size.saturating_sub(outstanding);
        // In batches: a pick for each block would look through the piece each time.
        if room == 0 || (room < size / 4 && outstanding > 0) {
            return;
        }
        let ask = Ask {
            peer: key,
            have: &peer.have,
            current: peer.current,
            exclusive: peer.parole,
            only: if peer.chokes_us {
                Some(peer.allowed_fast.as_slice())
            } else {
                let led = peer.extensions.spread && !picks;
                led.then_some(peer.suggested.as_slice())
            },
        };
        let mut blocks = Vec::new();
        if peer.lan || limiter.down.rate().is_none() {
            self.picker.pick(&ask, room, &mut self.rng, &mut blocks);
        } else {
            while blocks.len() < room {
                if !limiter.down.take(now, u64::from(BLOCK_LEN)) {
                    self.limited = true;
                    break;
                }
                let before = blocks.len();
                self.picker.pick(&ask, 1, &mut self.rng, &mut blocks);
                let asked = blocks[before..].iter().map(|block| u64::from(block.len)).sum();
                limiter.down.give_back(u64::from(BLOCK_LEN).saturating_sub(asked));
                if blocks.len() == before {
                    break;
                }
            }
        }
        let spreads = peer.extensions.spread;
        if blocks.is_empty()
            && outstanding == 0
            && !self.limited
            && !spreads
            && self.picker.free_blocks() == 0
        {
            blocks = self.steal(now, limiter, key, room);
        }
        self.send_requests(now, key, &blocks);
    }

    fn send_requests(&mut self, now: Duration, key: PeerKey, blocks: &[Block]) {
        if blocks.is_empty() {
            return;
        }
        self.tell(key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(last) = blocks.last() {
            if peer.requests.is_empty() {
                peer.last_block = now; // The clock for snubbing starts with the first request.
            }
            peer.current = Some(last.piece);
            peer.last_sent = now;
        }
        for &block in blocks {
            // Given up on, and now asked of the same peer again: it has been told already.
            let known = |request: &&mut Request| request.block == block && !request.cancelled;
            if let Some(request) = peer.requests.iter_mut().find(known) {
                request.released = false;
                self.unspent += if peer.lan { 0 } else { u64::from(block.len) };
                continue;
            }
            peer.requests.push_back(Request {
                block,
                sent: now,
                released: false,
                cancelled: false,
            });
            self.outputs.push_back(Output::Send { peer: key, message: Message::Request(block) });
        }
    }

    /// The endgame: blocks that are out elsewhere and would come sooner from this peer.
    fn steal(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        room: usize,
    ) -> Vec<Block> {
        let Some(peer) = self.peers.get(&key) else { return Vec::new() };
        if peer.chokes_us || peer.parole || !peer.down.is_known() {
            return Vec::new();
        }
        let mut out_there: Vec<(Duration, Block)> = Vec::new();
        let others = self.peers.iter().filter(|(other, _)| **other != key);
        for (_, other) in others.filter(|(_, other)| other.down.is_known()) {
            let rate = if other.snubbed { 0 } else { other.down.get() };
            let mut place = 0;
            for request in other.requests.iter().filter(|request| !request.released) {
                place += 1;
                if peer.have.has(request.block.piece) {
                    out_there.push((endgame::eta(place, rate), request.block));
                }
            }
        }
        for (due, piece) in self.fetches_due() {
            if peer.have.has(piece) {
                let blocks = (0..self.geometry.block_count(piece))
                    .map(|index| self.geometry.block(piece, index))
                    .filter(|&block| self.picker.is_out(block));
                out_there.extend(blocks.map(|block| (due, block)));
            }
        }
        let rate = peer.down.get();
        let count = room.min(endgame::at_once(rate));
        let mut chosen = endgame::steal(out_there, peer.requests.len(), rate, count);
        let lan = peer.lan;
        chosen.retain(|&block| {
            let paid = lan || limiter.down.take(now, u64::from(block.len));
            self.limited |= !paid;
            paid && self.picker.request_again(block)
        });
        chosen
    }

    /// Gives up on a peer that was asked and does not deliver, until it does.
    pub(super) fn snub_if_stalled(&mut self, now: Duration, key: PeerKey, endgame: bool) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let patience = if endgame { SNUB_AFTER_ENDGAME } else { SNUB_AFTER };
        let Some(oldest) = peer.requests.iter().find(|request| !request.released) else { return };
        let waited = now.saturating_sub(peer.last_block.max(oldest.sent));
        if waited < patience {
            return;
        }
        peer.snubbed = true;
        peer.window.on_snub();
        for request in peer.requests.iter_mut().filter(|request| !request.released) {
            request.released = true;
            self.picker.release(request.block);
        }
    }

    pub(super) fn on_stored(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        piece: PieceIndex,
        right: bool,
    ) {
        if !right {
            self.on_wrong(now, piece);
            return self.ask_idle(now, limiter);
        }
        let was_complete = self.picker.is_complete();
        let lacked_first = self.picker.lacks_first();
        let contributors = self.picker.verified(piece);
        let early = self.picker.have().count() < TELL_AT_ONCE;
        for contributor in contributors {
            let Some(peer) = self.peers.get_mut(&contributor) else {
                if contributor != SUPPLY {
                    self.judge_source(contributor, true);
                }
                continue;
            };
            peer.proven = true;
            if std::mem::take(&mut peer.parole) {
                self.picker.disown(contributor);
            }
        }
        self.event(Event::PieceVerified(piece));
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let has = peer.have.has(piece);
            // A seed that spreads goes by what it hears.
            let tell = !has || peer.extensions.spread;
            if has {
                peer.useful = peer.useful.saturating_sub(1);
                if peer.useful == 0 {
                    self.update_interest(now, key);
                }
            }
            let Some(peer) = self.peers.get_mut(&key).filter(|_| tell) else { continue };
            peer.untold.push(piece);
            // Whoever wants nothing of us yet may do so now, and a seed that spreads gives by what it
            // hears; others need not know at once.
            if !peer.interested || early || peer.extensions.spread {
                self.tell(key);
            } else {
                self.tell_at = self.tell_at.or(Some(now + TELL_DELAY));
            }
        }
        self.introduce_anew(now);
        if lacked_first && !self.picker.lacks_first() {
            self.event(Event::FirstComplete);
        }
        if self.picker.is_complete() && !was_complete {
            self.event(Event::Complete);
            self.choke_now = true;
        } else {
            self.ask_idle(now, limiter);
        }
    }

    /// Asks those that are asked for nothing: they may have waited for a verdict.
    fn ask_idle(&mut self, now: Duration, limiter: &mut Limiter) {
        if self.picker.free_blocks() == 0 {
            return;
        }
        let idle: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.requests.is_empty() && !peer.chokes_us)
            .map(|(&key, _)| key)
            .collect();
        idle.into_iter().for_each(|key| self.request(now, limiter, key));
    }

    fn on_wrong(&mut self, now: Duration, piece: PieceIndex) {
        let contributors = self.picker.wrong(piece);
        self.stats.wasted += u64::from(self.geometry.data_len(piece));
        self.event(Event::PieceWrong(piece));
        if contributors.contains(&SUPPLY) {
            return; // Our own guess was wrong, most likely: nobody is to blame.
        }
        for contributor in &contributors {
            if let Some(peer) = self.peers.get_mut(contributor) {
                peer.proven = false;
            }
        }
        if let [culprit] = contributors[..] {
            self.strike(now, culprit, piece);
        } else {
            // One of several lied: from now on each delivers pieces of its own.
            for key in contributors {
                match self.peers.get_mut(&key) {
                    Some(peer) => (peer.parole, peer.current) = (true, None),
                    None => self.judge_source(key, false),
                }
            }
        }
    }

    /// The peer alone delivered a wrong piece.
    fn strike(&mut self, now: Duration, key: PeerKey, piece: PieceIndex) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return self.strike_source(now, key, piece);
        };
        peer.strikes += 1;
        peer.parole = true;
        peer.current = None;
        if peer.strikes >= STRIKES_MAX {
            self.ban(now, key, Misbehaviour::WrongData);
        } else {
            self.drop_claim(now, key, piece);
        }
    }

    /// The peer's word that it has `piece` no longer counts.
    fn drop_claim(&mut self, now: Duration, key: PeerKey, piece: PieceIndex) {
        self.picker.disown(key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let was_full = peer.have.is_full();
        if peer.have.remove(piece) {
            self.picker.peer_lost(piece, was_full);
            if self.picker.wants(piece) {
                peer.useful = peer.useful.saturating_sub(1);
                self.update_interest(now, key);
            }
        }
    }

    pub(super) fn on_lost(&mut self, now: Duration, piece: PieceIndex) {
        if !self.picker.have().has(piece) {
            return;
        }
        self.picker.lost(piece, self.priorities[piece.get()].is_wanted());
        self.event(Event::PieceLost(piece));
        self.introduce_anew(now);
        for peer in self.peers.values_mut() {
            peer.untold.retain(|&untold| untold != piece);
            if self.picker.wants(piece) && peer.have.has(piece) {
                peer.useful += 1;
            }
        }
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        keys.into_iter().for_each(|key| self.update_interest(now, key));
    }

    pub(super) fn update_interest(&mut self, now: Duration, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let interested = peer.useful > 0;
        if interested != peer.am_interested {
            peer.am_interested = interested;
            let message = if interested { Message::Interested } else { Message::NotInterested };
            self.send(now, key, message);
        }
    }
}
