//! HTTP sources: which ranges to fetch when, and when to leave a source alone.

use super::{Output, Swarm};
use crate::geometry::Block;
use crate::ids::{PeerKey, PieceIndex};
use crate::policy::endgame;
use crate::policy::http::{self, Need, Situation};
use crate::policy::limiter::Limiter;
use crate::policy::rate::Rate;
use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;

/// Names of ranges lie above the names of connections.
const FETCH_BASE: u32 = 1 << 31;
/// Wait after the first failure of a source; doubles with each.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A source that sent a wrong piece is left alone this long.
const DISTRUST: Duration = Duration::from_secs(3600);

/// One HTTP source.
#[derive(Debug, Default)]
pub(super) struct Source {
    spans: Vec<(PeerKey, Range<u32>)>,
    failures: u32,
    blocked_until: Duration,
    pub(super) rate: Rate,
}

/// True for the name of a range.
pub(super) fn is_fetch(key: PeerKey) -> bool {
    key.0 >= FETCH_BASE
}

impl Swarm {
    /// Begins ranges where HTTP is needed.
    pub(super) fn plan_http(&mut self, now: Duration, limiter: &mut Limiter) {
        if self.supplying || self.picker.is_complete() || self.picker.free_blocks() == 0 {
            return;
        }
        let idle =
            |source: &Source| source.spans.len() < http::SPANS_MAX && source.blocked_until <= now;
        if !self.sources.iter().any(idle) {
            return;
        }
        let need = http::need(&self.situation(now, limiter));
        let nobody_only = match need {
            Need::Nothing => return,
            Need::Rare => true,
            Need::Everything => false,
        };
        let span_bytes = http::span_bytes(limiter.down.rate());
        // The source with the least to do first, so that mirrors share the work.
        while let Some(source) = (0..self.sources.len())
            .filter(|&at| idle(&self.sources[at]))
            .min_by_key(|&at| (self.sources[at].failures, self.sources[at].spans.len()))
        {
            if limiter.down.rate().is_some() && !limiter.down.take(now, 0) {
                self.limited = true;
                return;
            }
            let fetch = self.fetch_name(source);
            let taken = self.picker.take_span(fetch, span_bytes, nobody_only, &mut self.rng);
            let Some(pieces) = taken else { return };
            self.fetches += 1;
            let bytes: u64 = pieces
                .clone()
                .map(|piece| u64::from(self.geometry.data_len(PieceIndex(piece))))
                .sum();
            limiter.down.take(now, bytes);
            self.sources[source].spans.push((fetch, pieces.clone()));
            self.outputs.push_back(Output::Fetch { fetch, source, pieces });
        }
    }

    fn situation(&self, now: Duration, limiter: &Limiter) -> Situation {
        let useful_peers =
            self.peers.values().filter(|peer| peer.useful > 0 && !peer.snubbed).count();
        let rare =
            |piece: &PieceIndex| self.picker.wants(*piece) && self.picker.availability(*piece) == 0;
        // A new connection has not yet had the time to say what the peer has.
        let newcomers = self
            .peers
            .values()
            .any(|peer| peer.opening && now.saturating_sub(peer.connected_at) < http::PATIENCE);
        Situation {
            now,
            began: self.began.unwrap_or(now),
            nobody_left_to_try: self.trackers_asked && !self.dialer.is_busy(now) && !newcomers,
            useful_peers,
            last_payload: self.last_payload,
            peer_rate: self.peers.values().map(|peer| peer.down.get()).sum(),
            limit: limiter.down.rate(),
            nobody_has: if useful_peers == 0 {
                0 // Not asked for then: everything is needed.
            } else {
                u32::try_from(self.geometry.pieces().filter(rare).count()).unwrap_or(u32::MAX)
            },
        }
    }

    pub(super) fn on_fetched(&mut self, now: Duration, fetch: PeerKey, block: Block, data: Bytes) {
        let bytes = data.len() as u64;
        self.down.add(bytes);
        self.stats.down_http += bytes;
        if let Some(source) = self.source_of(fetch) {
            source.rate.add(bytes);
            source.failures = 0;
        }
        self.take_block(now, fetch, block, data, false);
    }

    pub(super) fn on_fetch_ended(
        &mut self,
        now: Duration,
        fetch: PeerKey,
        complete: bool,
        retry_after: Option<Duration>,
    ) {
        let Some(source) = self.source_of(fetch) else { return };
        if !complete {
            source.failures += 1;
            let wait = RETRY * (1 << source.failures.min(7)) / 2;
            source.blocked_until = source
                .blocked_until
                .max(now + wait.min(RETRY_MAX).max(retry_after.unwrap_or_default()));
        }
        let at = source.spans.iter().position(|(key, _)| *key == fetch);
        let (_, span) = source.spans.swap_remove(at.expect("source_of found the range"));
        self.picker.return_span(span);
    }

    /// A source delivered a wrong piece.
    pub(super) fn strike_source(&mut self, now: Duration, key: PeerKey) {
        if !is_fetch(key) {
            return;
        }
        let at = (key.0 - FETCH_BASE) as usize % self.sources.len().max(1);
        if let Some(source) = self.sources.get_mut(at) {
            source.failures += 1;
            source.blocked_until = now + DISTRUST;
        }
    }

    /// When the pieces of ranges under way are predicted to be through.
    pub(super) fn fetches_due(&self) -> Vec<(Duration, PieceIndex)> {
        let mut due = Vec::new();
        for source in &self.sources {
            let mut blocks = 0;
            for (_, span) in &source.spans {
                for piece in span.clone().map(PieceIndex).filter(|&piece| self.picker.wants(piece))
                {
                    blocks += self.geometry.block_count(piece) as usize;
                    due.push((endgame::eta(blocks, source.rate.get()), piece));
                }
            }
        }
        due
    }

    /// A name for the next range; it tells the source even when the range has long ended.
    fn fetch_name(&self, source: usize) -> PeerKey {
        let count = u32::try_from(self.sources.len()).expect("sources are few");
        let round = self.fetches % (FETCH_BASE / count - 1);
        PeerKey(FETCH_BASE + round * count + u32::try_from(source).expect("sources are few"))
    }

    fn source_of(&mut self, fetch: PeerKey) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.spans.iter().any(|(key, _)| *key == fetch))
    }
}
