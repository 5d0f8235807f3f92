//! The sending half: who is unchoked, and which requests are answered when.

use super::peer::Misbehaviour;
use super::{Output, REQUESTS_IN_MAX, Swarm, UploadPolicy};
use crate::geometry::Block;
use crate::ids::PeerKey;
use crate::policy::choker::{self, Candidate};
use crate::policy::limiter::Limiter;
use crate::wire::message::{Message, REQUEST_BYTES_MAX};
use std::collections::VecDeque;
use std::time::Duration;

/// Payload read ahead for one peer: half a second of its rate, within these bounds. What lies in
/// the socket cannot be taken back, and what does not lie there leaves the link idle.
const READ_AHEAD_MIN: u64 = 512 * 1024;
const READ_AHEAD_MAX: u64 = 4 << 20;
/// Payload read ahead for all peers of a swarm.
const READ_AHEAD_TOTAL: u64 = 12 << 20;
/// Blocks in one read: 256 KiB when they follow each other.
const READ_BLOCKS: usize = 16;
/// Requests turned away for a full queue, within the last seconds, before a peer is thrown out.
const OVERFLOW_MAX: u32 = 20_000;

impl Swarm {
    /// Decides anew whom to serve; between full rounds only free places are filled.
    pub(super) fn rechoke(&mut self, now: Duration, full_round: bool) {
        self.choke_now = false;
        let new_optimistic =
            full_round && now.saturating_sub(self.optimistic_at) >= choker::OPTIMISTIC_ROUND;
        if full_round {
            self.choked_at = now;
        }
        if new_optimistic {
            self.optimistic_at = now;
        }
        let everyone = self.config.upload == UploadPolicy::Everyone;
        let candidates: Vec<Candidate> = self
            .peers
            .iter()
            .map(|(&key, peer)| Candidate {
                peer: key,
                interested: peer.interested,
                allowed: everyone || peer.lan,
                lan: peer.lan,
                rate_from: peer.down.get(),
                unchoked: !peer.am_choking,
                changed_at: peer.choke_changed_at,
                optimistic: peer.optimistic,
            })
            .collect();
        let choice = choker::choose(
            now,
            self.picker.is_complete(),
            self.config.upload_slots,
            full_round,
            new_optimistic,
            &candidates,
            &mut self.rng,
        );
        for Candidate { peer: key, .. } in candidates {
            let serve = choice.unchoked.contains(&key);
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.optimistic = choice.optimistic == Some(key);
            if peer.am_choking != serve {
                continue;
            }
            peer.am_choking = !serve;
            peer.choke_changed_at = now;
            if serve {
                self.send(now, key, Message::Unchoke);
            } else {
                let dropped: Vec<Block> = peer.upload_queue.drain(..).collect();
                let fast = peer.abilities.fast;
                self.send(now, key, Message::Choke);
                if fast {
                    dropped
                        .into_iter()
                        .for_each(|block| self.send(now, key, Message::Reject(block)));
                }
            }
        }
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
        if full || peer.am_choking || !self.picker.have().has(block.piece) {
            if peer.abilities.fast {
                self.send(now, key, Message::Reject(block));
            }
            return;
        }
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
        self.up.add(bytes);
        self.stats.up += bytes;
        peer.last_sent = now;
        self.serve(now, limiter, key);
        if self.reading + READ_AHEAD_MIN > READ_AHEAD_TOTAL {
            // The common bound may have held others up.
            self.limited = true;
        }
    }

    pub(super) fn on_unsent(&mut self, now: Duration, key: PeerKey, blocks: &[Block]) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let bytes: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
        peer.reading = peer.reading.saturating_sub(bytes);
        self.reading = self.reading.saturating_sub(bytes);
        if peer.abilities.fast {
            blocks.iter().for_each(|&block| self.send(now, key, Message::Reject(block)));
        }
    }

    /// Orders reads for what the peer asked for, as far as it, the limit and memory allow. Under a
    /// limit that is one block at a time, so that it is exact and shared out evenly: true if the
    /// peer may have more.
    pub(super) fn serve(&mut self, now: Duration, limiter: &mut Limiter, key: PeerKey) -> bool {
        loop {
            let Some(peer) = self.peers.get_mut(&key) else { return false };
            let ahead = (peer.up.get() / 2).clamp(READ_AHEAD_MIN, READ_AHEAD_MAX);
            if peer.upload_queue.is_empty() || peer.reading >= ahead {
                return false;
            }
            if self.reading >= READ_AHEAD_TOTAL {
                self.limited = true;
                return false;
            }
            let unlimited = peer.lan || limiter.up.rate().is_none();
            let blocks = next_run(&mut peer.upload_queue, if unlimited { READ_BLOCKS } else { 1 });
            let bytes: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
            if !unlimited && !limiter.up.take(now, bytes) {
                blocks.into_iter().rev().for_each(|block| peer.upload_queue.push_front(block));
                self.limited = true;
                return false;
            }
            peer.reading += bytes;
            self.reading += bytes;
            let more = !peer.upload_queue.is_empty();
            self.outputs.push_back(Output::Read { peer: key, blocks });
            if !unlimited {
                self.limited |= more;
                return more;
            }
        }
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
