//! Whom to serve, and what leaves in a step.

use super::peer::{Flow, Peer};
use super::{FlowLevel, STEP, STEPS_PER_SECOND};
use crate::geometry::BLOCK_LEN;
use crate::ids::PeerKey;
use crate::policy::choker::{self, Candidate, Turn};
use crate::policy::rate::Rate;
use crate::policy::spread::Spread;
use crate::policy::window::Window;
use std::collections::VecDeque;
use std::time::Duration;

/// How often in a step whoever has had its turn makes room for others.
const ROUNDS_MAX: usize = 4;

impl FlowLevel {
    /// Sends what fits into a step.
    pub(super) fn serve(&mut self, at: usize) {
        let block = f64::from(BLOCK_LEN);
        let now = self.now;
        let peer = &mut self.peers[at];
        let may = peer.up * STEP.as_secs_f64();
        peer.credit += may;
        let due = |peer: &Peer| peer.choke_now || peer.rechoke_at.is_some_and(|due| due <= now);
        if peer.credit < block && !peer.idle && !due(peer) {
            return; // Most often: a block is on its way.
        }
        for _ in 0..ROUNDS_MAX {
            // The last pieces to be spread go before anything else, as at the engine's seed.
            if self.peers[at].spread.as_ref().is_some_and(Spread::is_over) {
                self.send_in_turn(at, true);
            }
            self.send_in_turn(at, false);
            if !due(&self.peers[at]) {
                break;
            }
            self.rechoke(at);
            if self.peers[at].credit < block {
                break;
            }
        }
        let peer = &mut self.peers[at];
        let left = peer.credit.min(may);
        if peer.spread.is_some() && left >= block {
            peer.idle_time += STEP.mul_f64((left / may).clamp(0.0, 1.0));
        }
        // What was not used is gone; what is too little for a block is kept.
        peer.credit = peer.credit.min(block);
        peer.idle = peer.flows.iter().all(|flow| flow.requests.is_empty());
        if peer.idle {
            peer.credit = 0.0;
        }
    }

    /// A block each, in turn, until the uplink or those who ask have had enough.
    fn send_in_turn(&mut self, at: usize, suggested_only: bool) {
        let mut flows = std::mem::take(&mut self.peers[at].flows);
        let (mut turn, mut nothing_sent) = (self.peers[at].turn, 0);
        while self.peers[at].credit > 0.0 && nothing_sent < flows.len() {
            turn = (turn + 1) % flows.len();
            let flow = &mut flows[turn];
            let sent = (!suggested_only || self.owes(flow)) && self.send_block(at, flow);
            nothing_sent = if sent { 0 } else { nothing_sent + 1 };
        }
        self.peers[at].turn = turn;
        self.peers[at].flows = flows;
    }

    /// Sends the next block of a flow, if there is one, the credit for it, and room in the other's
    /// downlink. The flows have been taken out.
    fn send_block(&mut self, at: usize, flow: &mut Flow) -> bool {
        if flow.ready_at > self.now || flow.dry_until > self.step {
            return false;
        }
        let turn_over = self.turn_over(at, flow);
        if turn_over && self.peers[at].short {
            self.peers[at].choke_now = true;
            return false;
        }
        self.request(at, flow);
        let Some(&block) = flow.requests.front() else {
            // Looked at again soon, then once in a second.
            flow.dry_steps = (2 * flow.dry_steps).clamp(1, STEPS_PER_SECOND);
            flow.dry_until = self.step + flow.dry_steps;
            self.peers[at].choke_now |= flow.busy_at + STEP >= self.now;
            return false;
        };
        let len = f64::from(block.len);
        if self.peers[at].credit < len || !self.peers[flow.peer].take_room(self.step, len) {
            flow.busy_at = self.now;
            return false;
        }
        flow.requests.pop_front();
        flow.dry_steps = 0;
        flow.busy_at = self.now;
        flow.rate.add(u64::from(block.len));
        flow.window.on_block();
        flow.sent += u64::from(block.len);
        let before = flow.serving.filter(|&(piece, _)| piece == block.piece);
        flow.serving = Some((block.piece, before.map_or(0, |(_, sent)| sent) + block.len));
        self.peers[at].credit -= len;
        self.peers[at].up_rate.add(u64::from(block.len));
        self.received(flow, block);
        true
    }

    fn turn_over(&self, at: usize, flow: &Flow) -> bool {
        let goes_on = |piece| flow.requests.front().is_none_or(|block| block.piece == piece);
        let in_piece = flow
            .serving
            .is_some_and(|(piece, sent)| sent < self.geometry.data_len(piece) && goes_on(piece));
        let idle = match flow.requests.is_empty() {
            true => self.now.saturating_sub(flow.busy_at),
            false => Duration::ZERO,
        };
        let lasted = self.now.saturating_sub(self.peers[at].neighbours[flow.neighbour].changed_at);
        let turn = Turn { lasted, bytes: flow.sent, in_piece, idle };
        let newcomers = self.peers[at].newcomers;
        let least = if newcomers { Duration::ZERO } else { choker::TURN };
        turn.is_over(least, self.geometry.piece_length())
    }

    /// Decides anew whom to serve.
    fn rechoke(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        (peer.choke_now, peer.rechoke_at) = (false, None);
        let mut candidates = Vec::with_capacity(peer.neighbours.len());
        for (index, neighbour) in (0u32..).zip(&self.peers[at].neighbours) {
            if !neighbour.interested && !neighbour.unchoked {
                continue;
            }
            let flow = match neighbour.unchoked {
                true => self.peers[at].flows.iter().find(|flow| flow.neighbour == index as usize),
                false => None,
            };
            let lasted = self.now.saturating_sub(neighbour.changed_at).as_secs_f64().max(0.001);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            #[allow(clippy::cast_precision_loss)] // a rate is an estimate
            let rate_to = flow.map_or(0, |flow| (flow.sent as f64 / lasted) as u64);
            candidates.push(Candidate {
                peer: PeerKey(index),
                wants: neighbour.interested,
                ours: true,
                rate_from: 0,
                rate_to,
                unchoked: neighbour.unchoked,
                changed_at: neighbour.changed_at,
                busy: flow.is_some_and(|flow| !flow.requests.is_empty()),
                turn_over: flow.is_some_and(|flow| self.turn_over(at, flow)),
                has_nothing: !neighbour.served
                    && self.got_count[neighbour.peer as usize] == 0
                    && !self.peers[neighbour.peer as usize].seed,
            });
        }
        let peer = &mut self.peers[at];
        let leech = !peer.picker.is_complete();
        let count = peer.slots.count(self.geometry.piece_length());
        let chosen = choker::choose(self.now, leech, count, &candidates, &mut peer.rng);
        let wanting = candidates.iter().filter(|candidate| candidate.wants).count();
        peer.short = chosen.len() < wanting;
        peer.newcomers = choker::newcomers_wait(&candidates);
        let fresh = |candidate: &&Candidate| {
            let waited = self.now.saturating_sub(candidate.changed_at);
            chosen.contains(&candidate.peer)
                && (!candidate.unchoked || (!candidate.busy && waited < choker::GRACE))
        };
        if peer.short && candidates.iter().any(|candidate| fresh(&candidate)) {
            peer.rechoke_at = Some(self.now + choker::GRACE);
        }
        for candidate in candidates {
            match (candidate.unchoked, chosen.contains(&candidate.peer)) {
                (true, false) => self.choke(at, candidate.peer.0 as usize),
                (false, true) => self.unchoke(at, candidate.peer.0 as usize),
                (true, true) | (false, false) => {}
            }
        }
    }

    fn unchoke(&mut self, at: usize, index: usize) {
        let neighbour = &mut self.peers[at].neighbours[index];
        (neighbour.unchoked, neighbour.changed_at) = (true, self.now);
        let (to, back) = (neighbour.peer as usize, neighbour.back);
        let trip = self.peers[at].delay + self.peers[to].delay;
        let flow = Flow {
            neighbour: index,
            peer: to,
            back,
            ready_at: self.now + 2 * trip,
            dry_steps: 0,
            dry_until: 0,
            busy_at: self.now,
            requests: VecDeque::new(),
            found_nothing: None,
            window: Window::default(),
            rate: Rate::default(),
            current: None,
            sent: 0,
            serving: None,
            suggested: Vec::new(),
        };
        self.peers[at].flows.push(flow);
        self.peers[to].sources.push(u32::try_from(at).expect("peers are counted in u32"));
    }

    fn choke(&mut self, at: usize, index: usize) {
        let flows = &mut self.peers[at].flows;
        let place = flows.iter().position(|flow| flow.neighbour == index);
        let flow = flows.remove(place.expect("who is unchoked has a flow"));
        self.end_flow(at, flow);
    }

    /// What was asked for and did not come is free again.
    pub(super) fn end_flow(&mut self, at: usize, flow: Flow) {
        let neighbour = &mut self.peers[at].neighbours[flow.neighbour];
        (neighbour.unchoked, neighbour.changed_at) = (false, self.now);
        neighbour.served |= flow.sent >= u64::from(self.geometry.piece_length());
        let there = &mut self.peers[flow.peer];
        there.sources.retain(|&source| source as usize != at);
        flow.requests.iter().for_each(|&block| there.picker.release(block));
        there.given_up = there.given_up.wrapping_add(u32::from(!flow.requests.is_empty()));
        if let Some(spread) = &mut self.peers[at].spread {
            let have = &self.have[flow.peer];
            let not_there = flow.suggested.into_iter().filter(|&piece| !have.has(piece));
            not_there.for_each(|piece| spread.give_back(piece));
        }
    }
}
