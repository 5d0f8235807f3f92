//! The publisher's seed at work: what it gives to whom.

use super::downloads::SUGGESTED_MAX;
use super::peer::{Given, Peer};
use super::{Output, Swarm};
use crate::geometry::Block;
use crate::ids::{PeerKey, PieceIndex};
use crate::policy::spread::Spread;
use crate::wire::message::Message;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a peer is given ahead: half a second of its rate, within these bounds, in bytes.
const AHEAD_MIN: u64 = 64 * 1024;
const AHEAD_MAX: u64 = 16 << 20;
/// Pieces that a peer is given ahead: what it keeps of them, less those whose coming is not yet known.
const GIVEN_MAX: usize = SUGGESTED_MAX / 2;
/// The least that is shown ahead to other clients, in bytes.
const AHEAD_HIDDEN_MIN: u64 = 1 << 20;
/// A peer that takes nothing for this long keeps no link busy.
const STALLED: Duration = Duration::from_secs(1);
/// A peer that was given something and for this long neither asks for it, nor takes it, nor says that
/// it has it, does not count: others are given the same.
const PATIENCE: Duration = Duration::from_secs(4);

impl Peer {
    /// Bytes that it was given and has not been sent.
    fn ahead(&self) -> u64 {
        let queued = self.upload_queue.iter().map(|block| u64::from(block.len));
        queued.chain(self.given.iter().map(|given| u64::from(given.left))).sum()
    }

    /// Payload that it will have been sent when it has been sent all that it asked for, in bytes.
    fn asked(&self) -> u64 {
        let queued: u64 = self.upload_queue.iter().map(|block| u64::from(block.len)).sum();
        self.up.total() + self.reading + queued
    }
}

impl Swarm {
    /// Something was sent to a peer, so it, or towards the end anybody, may be given more.
    pub(super) fn give_on(&mut self, now: Duration, key: PeerKey) {
        let Some(spread) = &self.spread else { return };
        if !spread.is_over() {
            return self.give(now, key);
        }
        let unchoked = self.peers.iter().filter(|(_, peer)| !peer.am_choking);
        let keys: Vec<PeerKey> = unchoked.map(|(&key, _)| key).collect();
        keys.into_iter().for_each(|key| self.give(now, key));
    }

    /// Gives a peer more pieces if it will soon have asked for all it was given.
    pub(super) fn give(&mut self, now: Duration, key: PeerKey) {
        if self.spread.is_none() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        // To be interested at all, a peer that was shown nothing must be shown something.
        let first = peer.hidden && peer.given.is_empty();
        if (peer.am_choking && !first) || !(peer.hidden || peer.abilities.fast) {
            return;
        }
        if peer.extensions.picks {
            return; // It would take nothing but what it wants.
        }
        // One more try at a time.
        let once = first || peer.given_in_vain;
        if peer.given_in_vain && !peer.given.is_empty() {
            return;
        }
        // Until its rate is known, twice what it took: like a window that opens.
        let rate = if peer.up.is_known() { peer.up.get() / 2 } else { peer.turn_bytes };
        // Other clients look for work now and then only.
        let goal = match peer.hidden {
            true => (4 * rate).clamp(AHEAD_HIDDEN_MIN, AHEAD_MAX),
            false => rate.clamp(AHEAD_MIN, AHEAD_MAX),
        };
        let mut ahead = peer.ahead();
        let mut room = GIVEN_MAX.saturating_sub(peer.given.len());
        while ahead < goal && room > 0 {
            room -= 1;
            let next = self.spread.as_mut().and_then(|spread| spread.next(&self.peers[&key].have));
            let Some(piece) = next.or_else(|| self.rarest_not_given(now, key)) else { break };
            let left = self.geometry.data_len(piece);
            let Some(peer) = self.peers.get_mut(&key) else { return };
            peer.given.push(Given { piece, left, sent_by: 0, at: now });
            let message = if peer.hidden { Message::Have(piece) } else { Message::Suggest(piece) };
            self.outputs.push_back(Output::Send { peer: key, message });
            ahead += u64::from(left);
            if once {
                break;
            }
        }
        self.end_spread_if_over(now);
    }

    /// While the last pieces are on their way to those they were given to, others get what fewest
    /// have.
    fn rarest_not_given(&self, now: Duration, key: PeerKey) -> Option<PieceIndex> {
        let peer = self.peers.get(&key)?;
        // What the last pieces will take of the link in the next half second.
        let moving = |peer: &&Peer| now.saturating_sub(peer.busy_at) < STALLED;
        let soon = |peer: &Peer| peer.ahead().min(peer.turn_rate(now) / 2);
        let left: u64 = self.peers.values().filter(moving).map(soon).sum();
        let best = self.wide.slots.best() + self.lan.slots.best();
        if left > AHEAD_MIN.max(best / 4) {
            return None; // They go first, and keep it busy.
        }
        let mut given: BTreeMap<PieceIndex, usize> = BTreeMap::new();
        for one in self.peers.values().flat_map(|peer| &peer.given) {
            *given.entry(one.piece).or_default() += 1;
        }
        let known = |piece: &PieceIndex| peer.given.iter().any(|given| given.piece == *piece);
        let times_given = |piece: &PieceIndex| given.get(piece).copied().unwrap_or(0);
        let have = self.picker.have().iter();
        // What nobody has yet, though somebody was given it, first: the copy is out the sooner.
        have.filter(|piece| !peer.have.has(*piece) && !known(piece))
            .min_by_key(|piece| (self.picker.availability(*piece), times_given(piece)))
    }

    /// True if a peer may be sent `block`: while pieces are spread, only of those it was given.
    pub(super) fn may_have(&mut self, now: Duration, key: PeerKey, block: Block) -> bool {
        let Some(spread) = &mut self.spread else { return true };
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let sent_by = peer.asked() + u64::from(block.len);
        if let Some(given) = peer.given.iter_mut().find(|given| given.piece == block.piece) {
            given.sent_by = sent_by;
            given.left = given.left.saturating_sub(block.len);
            given.at = now;
            peer.given_in_vain = false;
            return true;
        }
        // What other clients were shown they may ask for at any time.
        let bound = peer.abilities.fast && !peer.hidden && !peer.extensions.picks;
        if !spread.take(block.piece) && bound {
            return false;
        }
        let left = self.geometry.data_len(block.piece).saturating_sub(block.len);
        peer.given.push(Given { piece: block.piece, left, sent_by, at: now });
        if !peer.hidden && peer.abilities.fast {
            // Asked for before a choke that took the suggestion back: it is to ask for the rest, too.
            self.send(now, key, Message::Suggest(block.piece));
        }
        true
    }

    /// A peer has `piece`: nobody else need be given it.
    pub(super) fn seen_elsewhere(&mut self, now: Duration, key: PeerKey, piece: PieceIndex) {
        let Some(spread) = &mut self.spread else { return };
        spread.take(piece);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.given.retain(|given| given.piece != piece);
        }
        self.give(now, key);
    }

    /// The peer is gone: what it was given and did not get is for others.
    pub(super) fn take_back(&mut self, peer: &Peer) {
        let Some(spread) = &mut self.spread else { return };
        let nobody_has = |piece: PieceIndex| self.peers.values().all(|peer| !peer.have.has(piece));
        for given in peer.given.iter().filter(|given| nobody_has(given.piece)) {
            spread.give_back(given.piece);
        }
    }

    /// The peer is choked: what it was given and has not begun is for others.
    pub(super) fn take_back_untouched(&mut self, key: PeerKey, rejected: &VecDeque<Block>) {
        let Some(spread) = &mut self.spread else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        for block in rejected {
            let given = peer.given.iter_mut().find(|given| given.piece == block.piece);
            // Never more than the piece, however often a peer asks for the same block.
            let most = self.geometry.data_len(block.piece);
            given.into_iter().for_each(|given| given.left = most.min(given.left + block.len));
        }
        if peer.hidden {
            return; // What it was shown it knows.
        }
        peer.given.retain(|given| {
            let begun = given.left < self.geometry.data_len(given.piece);
            // What others have by now need not be given again.
            if !begun && self.picker.availability(given.piece) == 0 {
                spread.give_back(given.piece);
            }
            begun
        });
    }

    /// A second is over: what did not arrive is given to others.
    pub(super) fn review_given(&mut self, now: Duration) {
        let Some(spread) = &mut self.spread else { return };
        for peer in self.peers.values_mut() {
            let (busy_at, sent, in_vain) = (peer.busy_at, peer.up.total(), &mut peer.given_in_vain);
            peer.given.retain_mut(|given| {
                // What was sent whole and is not shown lies on a disk that stands still, or nowhere; what is
                // still to be sent may wait behind other blocks to the same peer.
                if given.left > 0 || sent < given.sent_by {
                    given.at = given.at.max(busy_at);
                }
                let waits = now.saturating_sub(given.at) < PATIENCE;
                *in_vain |= !waits;
                if !waits && self.picker.availability(given.piece) == 0 {
                    spread.give_back(given.piece);
                }
                waits
            });
        }
        let unchoked = self.peers.iter().filter(|(_, peer)| !peer.am_choking);
        let keys: Vec<PeerKey> = unchoked.map(|(&key, _)| key).collect();
        keys.into_iter().for_each(|key| self.give(now, key));
    }

    /// When everything has reached somebody, everybody may ask for anything.
    fn end_spread_if_over(&mut self, now: Duration) {
        let given =
            |peer: &Peer| peer.given.iter().any(|given| self.picker.availability(given.piece) == 0);
        if !self.spread.as_ref().is_some_and(Spread::is_over) || self.peers.values().any(given) {
            return;
        }
        self.spread = None;
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let hidden = std::mem::take(&mut peer.hidden);
            let given = std::mem::take(&mut peer.given);
            if hidden {
                let shown = |piece: PieceIndex| given.iter().any(|given| given.piece == piece);
                let rest: Vec<PieceIndex> = self
                    .picker
                    .have()
                    .iter()
                    .filter(|&piece| !peer.have.has(piece) && !shown(piece))
                    .collect();
                rest.into_iter().for_each(|piece| self.send(now, key, Message::Have(piece)));
            }
            self.introduce(now, key);
        }
    }
}
