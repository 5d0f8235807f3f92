//! Which ranges are fetched over HTTP: what the policy decides, applied to what is here and under way.

use super::{Fetch, RATE_GUESS, Unpacking};
use crate::geometry::{BLOCK_LEN, Span};
use crate::ids::{PeerId, PeerKey, PieceIndex};
use crate::policy::endgame;
use crate::policy::http::{self, Need, Situation};
use crate::policy::limiter::Limiter;
use crate::swarm::peer::Peer;
use crate::swarm::{Output, Swarm};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// Nobody we know of collects beside us if nobody was reached in this time.
const ALONE_AFTER: Duration = Duration::from_secs(10);
/// HTTP was looked at this long ago at the most while it was needed without a break.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// HTTP is looked at so often in the last percent.
const LOOK_TAIL: Duration = Duration::from_millis(100);
/// Missing pieces up to which the last percent is looked for, beyond a hundredth of all.
const TAIL_PIECES: u32 = 2;

impl Swarm {
    /// Begins ranges where HTTP is needed.
    pub(in crate::swarm) fn plan_http(&mut self, now: Duration, limiter: &mut Limiter) {
        self.http.look_at = None;
        if self.http.sources.is_empty() || self.supplying || self.picker.is_complete() {
            return;
        }
        let tail = self.tail_due(now);
        self.http.look_at = tail.map(|_| now + LOOK_TAIL);
        let mut left = 0;
        let pieces = self.geometry.pieces().filter(|&piece| self.picker.wants(piece));
        pieces.for_each(|piece| left += u64::from(self.geometry.data_len(piece)));
        if self.http.ready(now, left).is_empty() {
            return;
        }
        let rivals = self.rivals(now);
        let situation = self.situation(now, limiter, rivals, tail);
        let need = http::need(&situation);
        if need.is_nothing() {
            self.http.needed = None;
            return;
        }
        let (since, looked_at) = self.http.needed.unwrap_or((now, now));
        self.http.needed = Some((since, now));
        let passed = (now - looked_at).min(LOOK_MAX);
        let size = (self.geometry.content_len(), self.geometry.piece_length());
        let rate = http::swarm_rate(&situation);
        self.http.budget.grow(passed, rate, rivals, size, &mut self.rng);
        let limited = limiter.down.rate().is_some();
        let most = http::span_bytes(limiter.down.rate());
        // The last percent is little, whoever takes it.
        let free = rivals == 0 || need.tail;
        let mut places = None;
        while let Some(room) = if free { Some(most) } else { self.http.budget.room() } {
            if limited && !limiter.down.take(now, 0) {
                self.limited = true;
                return;
            }
            let places = places.get_or_insert_with(|| self.places(rivals > 0));
            let begun = self.http.ready(now, left).into_iter().find_map(|source| {
                let fetch = self.http.fetch_name(source);
                let room = room.min(most);
                let taken = self.take_span(now, source, fetch, room, need, places);
                let late = |swarm: &mut Self| swarm.take_late(now, source, fetch, room, need);
                let (span, pack) = taken.or_else(|| Some((late(self)?, None)))?;
                Some((source, fetch, span, pack))
            });
            let Some((source, fetch, span, pack)) = begun else { return };
            let bytes = pack.map_or_else(|| self.geometry.bytes_of(span), |pack| pack.packed());
            limiter.down.take(now, bytes);
            if !free {
                self.http.budget.take(bytes, size.1, &mut self.rng);
            }
            self.http.sources[source].fetches.push(Fetch { key: fetch, span, pack, due: bytes });
            let pack = pack.map(|pack| pack.number());
            self.outputs.push_back(Output::Fetch { fetch, source, span, pack });
        }
    }

    /// True if pieces are so few that the last percent may have begun.
    pub(in crate::swarm) fn near_end(&self) -> bool {
        self.picker.wanted_left() <= self.geometry.piece_count() / 100 + TAIL_PIECES
    }

    fn situation(
        &self,
        now: Duration,
        limiter: &Limiter,
        rivals: u32,
        tail: Option<Duration>,
    ) -> Situation {
        let useful = |peer: &&Peer| peer.useful > 0 && !peer.snubbed;
        let useful_peers = self.peers.values().filter(useful).count();
        let wanted = || self.geometry.pieces().filter(|&piece| self.picker.wants(piece));
        // Not asked for while there is no peer: everything is needed then.
        let rare = |piece: &PieceIndex| useful_peers > 0 && self.picker.availability(*piece) == 0;
        let first = wanted().filter(|&piece| self.picker.priority(piece).is_first());
        Situation {
            now,
            began: self.began.unwrap_or(now),
            nobody_left_to_try: self.nobody_left_to_try(now),
            useful_peers,
            seeded: self.http.seeders > 0,
            jitter: if rivals > 0 { self.http.jitter } else { Duration::ZERO },
            last_payload: self.last_payload,
            peer_rate: self.peer_rate(),
            limit: limiter.down.rate(),
            nobody_has: u32::try_from(wanted().filter(rare).count()).unwrap_or(u32::MAX),
            first_left: first.map(|piece| u64::from(self.geometry.data_len(piece))).sum(),
            tail,
        }
    }

    fn peer_rate(&self) -> u64 {
        self.peers.values().map(|peer| peer.down.get()).sum()
    }

    fn nobody_left_to_try(&self, now: Duration) -> bool {
        // A new connection has not yet had the time to say what the peer has.
        let newcomers = self
            .peers
            .values()
            .any(|peer| peer.opening && now.saturating_sub(peer.connected_at) < http::PATIENCE);
        self.trackers_asked && !self.dialer.is_busy(now) && !newcomers
    }

    /// How many others collect the same, as far as they concern us: nobody if we reach nobody, or if
    /// those we reach are far ahead.
    fn rivals(&self, now: Duration) -> u32 {
        let collects = |peer: &&Peer| !peer.have.is_full() && !peer.extensions.upload_only;
        let mut theirs: Vec<u64> =
            self.peers.values().filter(collects).map(|peer| peer.have.count().into()).collect();
        let waited = now.saturating_sub(self.began.unwrap_or(now));
        let tried = self.nobody_left_to_try(now) || waited >= ALONE_AFTER;
        let ours = self.picker.have().count().into();
        let total = self.geometry.piece_count().into();
        let known = u32::try_from(theirs.len()).unwrap_or(u32::MAX);
        if (self.peers.is_empty() && tried) || http::is_behind(ours, &mut theirs, total) {
            return 0;
        }
        known.max(self.http.leechers.saturating_sub(1))
    }

    /// Whose turn it is at each part of the torrent: our place among the clients of our kind here that
    /// collect as well, and how far the part is from where we begin.
    fn places(&self, shared: bool) -> Vec<(usize, u32)> {
        let own = name(self.config.peer_id);
        let collects = |peer: &&Peer| peer.id.is_ours() && !peer.have.is_full();
        let rivals = self.peers.values().filter(|peer| shared && collects(peer));
        let others: Vec<u64> = rivals.map(|peer| name(peer.id)).collect();
        let parts = self.geometry.piece_count().div_ceil(self.part_pieces()).max(1);
        let from = u32::try_from(http::weight(own, 0) % u64::from(parts)).expect("below a u32");
        (0..parts)
            .map(|part| (http::place(own, &others, part), (part + parts - from) % parts))
            .collect()
    }

    /// Pieces in one of the parts that are shared out.
    fn part_pieces(&self) -> u32 {
        let bytes = u64::from(self.geometry.piece_length());
        u32::try_from((http::PART_BYTES / bytes).max(1)).expect("at most 2^20")
    }

    /// Reserves a range that nobody is at work on, or a pack where that is cheaper.
    fn take_span(
        &mut self,
        now: Duration,
        source: usize,
        fetch: PeerKey,
        bytes: u64,
        need: Need,
        places: &[(usize, u32)],
    ) -> Option<(Span, Option<Unpacking>)> {
        if self.picker.free_blocks() == 0 {
            return None;
        }
        let (at, source, part_pieces) = (source, &self.http.sources[source], self.part_pieces());
        let all = need.everything || need.tail;
        let needed = self.http.needed.map_or(Duration::ZERO, |(since, _)| now - since);
        // What only seeds and the origin have helps others, too.
        let state: Vec<_> = self
            .geometry
            .pieces()
            .map(|piece| {
                let priority = self.picker.priority(piece);
                let fits = all
                    || (need.first && priority.is_first())
                    || (need.rare && self.picker.availability(piece) == 0);
                let (place, way) = places[(piece.0 / part_pieces) as usize];
                // Who waits for the end, or for something, waits for nobody else.
                let ours = need.tail
                    || (need.first && priority.is_first())
                    || place <= http::last_place(needed);
                let spread = self.picker.is_spread(piece);
                (fits && ours && source.may_have(now, piece))
                    .then_some(((Reverse(priority), spread, place), way))
            })
            .collect();
        let (untouched, rank) = (source.parole, |piece: PieceIndex| state[piece.get()]);
        let first = self.picker.next_idle(untouched, rank)?;
        let packed = self.take_pack(at, fetch, bytes, first, |piece| rank(piece).is_some());
        if let Some((span, pack)) = packed {
            return Some((span, Some(pack)));
        }
        let until = self.next_pack_border(at, first);
        Some((self.picker.take_span(fetch, bytes, (first, until), rank), None))
    }

    /// Reserves blocks that were asked of others and will come clearly later from there: the endgame.
    fn take_late(
        &mut self,
        now: Duration,
        source: usize,
        fetch: PeerKey,
        bytes: u64,
        need: Need,
    ) -> Option<Span> {
        let wanted = need.tail || (need.everything && self.picker.free_blocks() == 0);
        let from = &self.http.sources[source];
        if !wanted || from.parole {
            return None;
        }
        let due = self.blocks_due(now);
        let own = |at: &(PieceIndex, u32)| {
            from.fetches.iter().any(|range| range.span.contains(at.0, at.1))
        };
        let outstanding: usize =
            from.fetches.iter().map(|range| self.missing_in(range.span).count()).sum();
        let rate = if from.rate.is_known() { from.rate.get() } else { RATE_GUESS };
        let late = |at: &(PieceIndex, u32), count: usize| {
            due.get(at).is_some_and(|&due| {
                let ours = endgame::eta(outstanding + count, rate);
                endgame::is_late(due, ours) && from.may_have(now, at.0) && !own(at)
            })
        };
        let (&start, _) = due
            .iter()
            .filter(|(at, _)| late(at, 1))
            .max_by_key(|&(at, due)| (*due, Reverse(*at)))?;
        let most = usize::try_from(bytes / u64::from(BLOCK_LEN)).unwrap_or(usize::MAX).max(1);
        let (mut end, mut count) = (self.next_block(start), 1);
        while count < most && late(&end, count + 1) {
            (end, count) = (self.next_block(end), count + 1);
        }
        let span = Span { start, end };
        self.picker.double_span(fetch, span);
        Some(span)
    }

    fn next_block(&self, (piece, index): (PieceIndex, u32)) -> (PieceIndex, u32) {
        if index + 1 < self.geometry.block_count(piece) {
            (piece, index + 1)
        } else {
            (PieceIndex(piece.0 + 1), 0)
        }
    }

    pub(super) fn missing_in(&self, span: Span) -> impl Iterator<Item = (PieceIndex, u32)> + '_ {
        span.pieces().map(PieceIndex).flat_map(move |piece| {
            let missing = self.picker.missing_blocks(piece).map(|(index, _)| index);
            missing.filter(move |&at| span.contains(piece, at)).map(move |at| (piece, at))
        })
    }

    /// When each block that is out is predicted to come from whoever brings it soonest.
    fn blocks_due(&self, now: Duration) -> BTreeMap<(PieceIndex, u32), Duration> {
        let mut due = BTreeMap::new();
        let mut note = |at, when: Duration| {
            due.entry(at).and_modify(|due: &mut Duration| *due = when.min(*due)).or_insert(when);
        };
        for peer in self.peers.values() {
            let mut asked = peer.requests.iter().filter(|request| !request.released).peekable();
            let Some(oldest) = asked.peek() else { continue };
            let idle = now.saturating_sub(peer.last_block.max(oldest.sent));
            let rate = if peer.snubbed { 0 } else { endgame::rate_after(idle, peer.down.get()) };
            for (place, request) in (1..).zip(asked) {
                if let Some(index) = self.geometry.block_index(request.block) {
                    note((request.block.piece, index), endgame::eta(place, rate));
                }
            }
        }
        for source in &self.http.sources {
            let missing = source.fetches.iter().flat_map(|range| self.missing_in(range.span));
            let rate = if source.rate.is_known() { source.rate.get() } else { RATE_GUESS };
            for (place, at) in (1..).zip(missing) {
                note(at, endgame::eta(place, rate));
            }
        }
        due
    }

    /// How long the last percent is predicted to take, if it has begun.
    fn tail_due(&mut self, now: Duration) -> Option<Duration> {
        let rest = self.rest_due(now);
        self.http.tail_since = self.http.tail_since.filter(|_| rest.is_some()).or(Some(now));
        Some(now.saturating_sub(self.http.tail_since?) + rest?)
    }

    /// When the rest is predicted to be through, if it is the last percent.
    fn rest_due(&self, now: Duration) -> Option<Duration> {
        if !self.near_end() {
            return None;
        }
        let wanted = || self.geometry.pieces().filter(|&piece| self.picker.wants(piece));
        let missing: Vec<_> = wanted()
            .flat_map(|piece| self.picker.missing_blocks(piece).map(move |block| (piece, block)))
            .collect();
        // Who chokes us brings nothing now.
        let open = self.peers.values().filter(|peer| !peer.chokes_us);
        let rate = open.map(|peer| peer.down.get()).sum();
        let bytes = |blocks: usize| blocks as u64 * u64::from(BLOCK_LEN);
        if !http::is_tail(bytes(missing.len()), self.geometry.content_len()) {
            return None;
        }
        let unasked = missing.iter().filter(|(_, (_, asked))| !asked).count();
        let due = self.blocks_due(now);
        let asked = missing.iter().filter_map(|(piece, (at, _))| due.get(&(*piece, *at))).max();
        Some(endgame::eta(unasked, rate).max(asked.copied().unwrap_or_default()))
    }
}

/// A client's name as a number: the random part of its peer id.
fn name(id: PeerId) -> u64 {
    u64::from_be_bytes(id.0[12..].try_into().expect("the last eight of twenty bytes"))
}
