//! The sending half: who is unchoked, and which requests are answered when.

use super::peer::{Misbehaviour, Peer};
use super::{Output, REQUESTS_IN_MAX, Swarm};
use crate::geometry::{BLOCK_LEN, Block, Geometry};
use crate::ids::{PeerKey, PieceIndex};
use crate::policy::choker::{self, Candidate, Turn};
use crate::policy::limiter::Limiter;
use crate::wire::message::{Message, REQUEST_BYTES_MAX};
use crate::wire::parcel;
use std::collections::VecDeque;
use std::time::Duration;

/// Payload read ahead for one peer: a quarter of a second of its rate, within these bounds. What lies in
/// the socket cannot be taken back, and what does not lie there leaves the link idle.
const READ_AHEAD_MIN: u64 = 48 * 1024;
const READ_AHEAD_MAX: u64 = 4 << 20;
/// Payload read ahead for all peers of a swarm.
const READ_AHEAD_TOTAL: u64 = 12 << 20;
/// Payload that goes into one message, compressed: a second of the peer's rate, this at the least.
const PARCEL_MIN: u64 = 64 * 1024;
/// Requests wait for others to go with so long: a peer that asks for each block when one has come would
/// get every one alone.
const PARCEL_WAIT: Duration = Duration::from_millis(30);
/// Blocks in one read: 256 KiB when they follow each other.
const READ_BLOCKS: usize = 16;
/// Requests turned away for a full queue, within the last seconds, before a peer is thrown out.
const OVERFLOW_MAX: u32 = 20_000;

impl Peer {
    /// Requests of it are waiting or on their way.
    pub(super) fn is_busy(&self) -> bool {
        !self.upload_queue.is_empty() || self.reading > 0
    }

    /// Payload sent to it in its turn, in bytes per second.
    pub(super) fn turn_rate(&self, now: Duration) -> u64 {
        let millis = now.saturating_sub(self.choke_changed_at).as_millis().max(1);
        u64::try_from(u128::from(self.turn_sent) * 1000 / millis).unwrap_or(u64::MAX)
    }

    fn begin_turn(&mut self, now: Duration) {
        (self.choke_changed_at, self.busy_at) = (now, now);
        (self.turn_bytes, self.turn_sent, self.serving) = (0, 0, None);
    }

    /// It has had its turn. While newcomers wait one piece is a turn.
    fn turn_over(&self, now: Duration, leech: bool, newcomers: bool, geometry: &Geometry) -> bool {
        let least = match self.id.is_ours() || !leech {
            true if newcomers => Duration::ZERO,
            true => choker::TURN,
            false => choker::TURN_FOREIGN,
        };
        // Another client may take them criss-cross: whoever goes on with another piece is between two.
        let goes_on = |piece| self.upload_queue.front().is_none_or(|block| block.piece == piece);
        let in_piece = self
            .serving
            .is_some_and(|(piece, sent)| sent < geometry.data_len(piece) && goes_on(piece));
        let turn = Turn {
            lasted: now.saturating_sub(self.choke_changed_at),
            bytes: self.turn_bytes,
            in_piece,
            idle: if self.is_busy() { Duration::ZERO } else { now.saturating_sub(self.busy_at) },
        };
        !self.am_choking && turn.is_over(least, geometry.piece_length())
    }
}

impl Swarm {
    /// Decides anew whom to serve. Says who goes on being served.
    pub(super) fn rechoke(&mut self, now: Duration) -> Vec<PeerKey> {
        (self.choke_now, self.rechoke_at) = (false, None);
        let mut stay = Vec::new();
        let leech = !self.picker.is_complete();
        let piece_length = self.geometry.piece_length();
        for lan in [true, false] {
            let serves = self.config.upload.serves(lan);
            let newcomers = if lan { self.lan.newcomers } else { self.wide.newcomers };
            let candidates: Vec<Candidate> = self
                .peers
                .iter()
                .filter(|(_, peer)| peer.lan == lan)
                .map(|(&key, peer)| Candidate {
                    peer: key,
                    wants: peer.interested && serves,
                    ours: peer.id.is_ours(),
                    rate_from: peer.down.get(),
                    rate_to: peer.turn_rate(now),
                    unchoked: !peer.am_choking,
                    changed_at: peer.choke_changed_at,
                    busy: peer.is_busy(),
                    turn_over: peer.turn_over(now, leech, newcomers, &self.geometry),
                    // Who was sent a piece and still shows none is slow to take it in: no newcomer.
                    has_nothing: peer.have.is_empty() && peer.up.total() < u64::from(piece_length),
                })
                .collect();
            let uplink = if lan { &mut self.lan } else { &mut self.wide };
            let count = uplink.slots.count(piece_length);
            let chosen = choker::choose(now, leech, count, &candidates, &mut self.rng);
            let wanting = candidates.iter().filter(|candidate| candidate.wants).count();
            uplink.short = chosen.len() < wanting;
            uplink.newcomers = choker::newcomers_wait(&candidates);
            // Who has not asked for anything yet is looked at again when it should have.
            let fresh = |candidate: &Candidate| {
                let waited = now.saturating_sub(candidate.changed_at);
                !candidate.unchoked || (!candidate.busy && waited < choker::GRACE)
            };
            let mut served = candidates.iter().filter(|candidate| chosen.contains(&candidate.peer));
            if uplink.short && served.any(fresh) {
                self.rechoke_at = Some(now + choker::GRACE);
            }
            for Candidate { peer, unchoked, turn_over, .. } in candidates {
                match (unchoked, chosen.contains(&peer)) {
                    (true, false) => self.choke(now, peer),
                    (false, true) => self.unchoke(now, peer),
                    (true, true) => {
                        if turn_over && let Some(peer) = self.peers.get_mut(&peer) {
                            peer.begin_turn(now);
                        }
                        stay.push(peer);
                    }
                    (false, false) => {}
                }
            }
        }
        stay
    }

    fn unchoke(&mut self, now: Duration, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.am_choking = false;
        peer.begin_turn(now);
        let again: Vec<PieceIndex> = peer.given.iter().map(|given| given.piece).collect();
        let hidden = peer.hidden;
        self.send(now, key, Message::Unchoke);
        // A choke takes suggestions back; what was begun is to be finished.
        for piece in again.into_iter().filter(|_| !hidden) {
            self.send(now, key, Message::Suggest(piece));
        }
        self.give(now, key);
    }

    /// What it asked for and did not get is rejected.
    fn choke(&mut self, now: Duration, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        (peer.am_choking, peer.choke_changed_at) = (true, now);
        let fast = peer.abilities.fast;
        let dropped = std::mem::take(&mut peer.upload_queue);
        self.send(now, key, Message::Choke);
        if fast {
            dropped.iter().for_each(|&block| self.send(now, key, Message::Reject(block)));
        }
        self.take_back_untouched(key, &dropped);
    }

    pub(super) fn on_request(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        block: Block,
    ) {
        if !self.geometry.may_request(block, REQUEST_BYTES_MAX) {
            return self.ban(now, key, Misbehaviour::ImpossibleRequest);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let full = peer.upload_queue.len() >= REQUESTS_IN_MAX as usize;
        if full {
            peer.overflow += 1;
            if peer.overflow > OVERFLOW_MAX {
                return self.ban(now, key, Misbehaviour::RequestFlood);
            }
        }
        let (choked, fast) = (peer.am_choking, peer.abilities.fast);
        if full || choked || !self.picker.have().has(block.piece) || !self.may_have(now, key, block)
        {
            if fast {
                self.send(now, key, Message::Reject(block));
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.upload_queue.push_back(block);
        self.serve(now, limiter, key);
    }

    pub(super) fn on_cancel(&mut self, now: Duration, key: PeerKey, block: Block) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(at) = peer.upload_queue.iter().position(|&queued| queued == block) else { return };
        peer.upload_queue.remove(at);
        if peer.abilities.fast {
            self.send(now, key, Message::Reject(block)); // BEP 6: a cancelled request is answered too.
        }
    }

    pub(super) fn on_sent(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        bytes: u32,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let bytes = u64::from(bytes);
        peer.reading = peer.reading.saturating_sub(bytes);
        self.reading = self.reading.saturating_sub(bytes);
        peer.up.add(bytes);
        peer.turn_sent += bytes;
        (peer.last_sent, peer.busy_at) = (now, now);
        let lan = peer.lan;
        self.up.add(bytes);
        if lan { &mut self.lan } else { &mut self.wide }.rate.add(bytes);
        self.stats.up += bytes;
        self.stats.up_lan += if lan { bytes } else { 0 };
        self.serve(now, limiter, key);
        self.give_on(now, key);
        self.choke_now |= self.peers.get(&key).is_some_and(|peer| !peer.is_busy());
        if self.reading + READ_AHEAD_MIN > READ_AHEAD_TOTAL {
            // The common bound may have held others up.
            self.limited = true;
        }
    }

    pub(super) fn on_unsent(
        &mut self,
        now: Duration,
        limiter: &mut Limiter,
        key: PeerKey,
        blocks: &[Block],
    ) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let bytes: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
        peer.reading = peer.reading.saturating_sub(bytes);
        self.reading = self.reading.saturating_sub(bytes);
        if !peer.lan {
            limiter.up.give_back(bytes);
        }
        if peer.abilities.fast {
            blocks.iter().for_each(|&block| self.send(now, key, Message::Reject(block)));
        }
        self.serve(now, limiter, key);
    }

    /// Orders reads for what the peer asked for, as far as it, the limit and memory allow. Under a
    /// limit that is one block at a time, so that it is exact and shared out evenly: true if the
    /// peer may have more.
    pub(super) fn serve(&mut self, now: Duration, limiter: &mut Limiter, key: PeerKey) -> bool {
        if self.shrinks && self.parcels_id(key).is_some() {
            self.serve_parcel(now, limiter, key);
            return false;
        }
        loop {
            let Some(peer) = self.peers.get_mut(&key) else { return false };
            // Until its rate is known, as much again as it took: like a window that opens.
            let rate = if peer.up.is_known() { peer.up.get() } else { peer.turn_bytes };
            let ahead = (rate / 4).clamp(READ_AHEAD_MIN, READ_AHEAD_MAX);
            if peer.upload_queue.is_empty() || peer.reading >= ahead {
                return false;
            }
            if self.reading >= READ_AHEAD_TOTAL {
                self.limited = true;
                return false;
            }
            if self.turn_ends(now, key) {
                return false;
            }
            let Some(peer) = self.peers.get_mut(&key) else { return false };
            let unlimited = peer.lan || limiter.up.rate().is_none();
            let room = usize::try_from((ahead - peer.reading).div_ceil(u64::from(BLOCK_LEN)));
            let room = room.unwrap_or(READ_BLOCKS).min(READ_BLOCKS);
            let blocks = next_run(&mut peer.upload_queue, if unlimited { room } else { 1 });
            let bytes: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
            if !unlimited && !limiter.up.take(now, bytes) {
                blocks.into_iter().rev().for_each(|block| peer.upload_queue.push_front(block));
                self.limited = true;
                return false;
            }
            let more = !peer.upload_queue.is_empty();
            self.tell(key);
            self.read_for(key, blocks);
            if !unlimited {
                self.limited |= more;
                return more;
            }
        }
    }
}

impl Swarm {
    /// Orders reads for as much as goes well into one message, compressed. While some of it is on its way,
    /// the rest waits until there is that much again.
    fn serve_parcel(&mut self, now: Duration, limiter: &mut Limiter, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let rate = if peer.up.is_known() { peer.up.get() } else { peer.turn_bytes };
        let most = rate.clamp(PARCEL_MIN, parcel::BYTES_MAX as u64);
        let (mut blocks, mut bytes) = (0, 0);
        for block in peer.upload_queue.iter().take(parcel::BLOCKS_MAX) {
            if blocks > 0 && bytes + u64::from(block.len) > most {
                break;
            }
            (blocks, bytes) = (blocks + 1, bytes + u64::from(block.len));
        }
        let whole = blocks < peer.upload_queue.len();
        if blocks == 0 || peer.reading >= 2 * most || (peer.reading > 0 && !whole) {
            return;
        }
        if !whole && peer.parcel_due.is_none_or(|due| now < due) {
            let Some(peer) = self.peers.get_mut(&key) else { return };
            let due = *peer.parcel_due.get_or_insert(now + PARCEL_WAIT);
            self.parcel_at = Some(self.parcel_at.map_or(due, |at| at.min(due)));
            return;
        }
        if self.reading >= READ_AHEAD_TOTAL {
            self.limited = true;
            return;
        }
        if self.turn_ends(now, key) {
            return;
        }
        // What compression saves is given back.
        if !limiter.up.take(now, bytes) {
            self.limited = true;
            return;
        }
        self.tell(key);
        self.peers.get_mut(&key).into_iter().for_each(|peer| peer.parcel_due = None);
        while blocks > 0 {
            let Some(peer) = self.peers.get_mut(&key) else { return };
            let run = next_run(&mut peer.upload_queue, READ_BLOCKS.min(blocks));
            blocks -= run.len();
            self.read_for(key, run);
        }
    }

    /// Serves those whose requests have waited long enough for others.
    pub(super) fn serve_waiting(&mut self, now: Duration, limiter: &mut Limiter) {
        self.parcel_at = None;
        let waiting: Vec<(PeerKey, Duration)> =
            self.peers.iter().filter_map(|(&key, peer)| Some((key, peer.parcel_due?))).collect();
        for (key, due) in waiting {
            if due <= now {
                self.serve(now, limiter, key);
            } else {
                self.parcel_at = Some(self.parcel_at.map_or(due, |at| at.min(due)));
            }
        }
    }

    /// Whether somebody else is to be served first.
    fn turn_ends(&mut self, now: Duration, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get(&key) else { return true };
        let uplink = if peer.lan { &self.lan } else { &self.wide };
        let leech = !self.picker.is_complete();
        let ends = uplink.short && peer.turn_over(now, leech, uplink.newcomers, &self.geometry);
        self.choke_now |= ends;
        ends
    }

    fn read_for(&mut self, key: PeerKey, blocks: Vec<Block>) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let bytes: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
        peer.reading += bytes;
        self.reading += bytes;
        peer.turn_bytes += bytes;
        if let Some(piece) = blocks.first().map(|block| block.piece) {
            let before = peer.serving.filter(|&(serving, _)| serving == piece);
            let len = u32::try_from(bytes).expect("a run of blocks is within a piece");
            peer.serving = Some((piece, before.map_or(0, |(_, sent)| sent).saturating_add(len)));
        }
        self.outputs.push_back(Output::Read { peer: key, blocks });
    }
}

/// Takes up to `count` requests that follow each other in one piece: one read serves them.
fn next_run(queue: &mut VecDeque<Block>, count: usize) -> Vec<Block> {
    let mut run: Vec<Block> = Vec::with_capacity(count);
    while let Some(&next) = queue.front().filter(|_| run.len() < count) {
        let follows = run
            .last()
            .is_none_or(|last| last.piece == next.piece && last.offset + last.len == next.offset);
        if !follows {
            break;
        }
        queue.pop_front();
        run.push(next);
    }
    run
}
