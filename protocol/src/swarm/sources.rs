//! HTTP sources: which ranges to fetch when, from which of them, and when to leave a source alone.

mod packs;
mod plan;

use super::{FetchEnd, Output, Swarm};
use crate::bitfield::Bitfield;
use crate::geometry::{Block, Span};
use crate::ids::{FileIndex, PeerKey, PieceIndex};
use crate::policy::endgame;
use crate::policy::http::{self, Budget, Packed};
use crate::policy::rate::Rate;
use bytes::Bytes;
use packs::Unpacking;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Names of ranges lie above the names of connections.
const FETCH_BASE: u32 = 1 << 31;
/// Wait after the first failure of a source; doubles with each.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Wrong pieces from one source alone before it is left alone: one file of a mirror may have rotted.
const STRIKES_MAX: u32 = 2;
/// A source that sent wrong pieces is left alone this long.
const DISTRUST: Duration = Duration::from_secs(3600);
/// What a source lacks it may have later.
const LACK: Duration = Duration::from_secs(600);
/// Until a source has shown what it delivers, in bytes per second.
const RATE_GUESS: u64 = 512 * 1024;

/// All that belongs to HTTP.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) sources: Vec<Source>,
    packs: Vec<Packed>,
    /// Ranges begun so far.
    fetches: u32,
    budget: Budget,
    jitter: Duration,
    /// Since when it has been needed, and when that was last looked at.
    needed: Option<(Duration, Duration)>,
    /// When the last percent began.
    tail_since: Option<Duration>,
    /// When to look again at the latest: in the last percent a second is long.
    pub(super) look_at: Option<Duration>,
    /// The swarm by the trackers' count.
    pub(super) seeders: u32,
    pub(super) leechers: u32,
}

/// One HTTP source.
#[derive(Debug, Default)]
pub(super) struct Source {
    fetches: Vec<Fetch>,
    failures: u32,
    blocked_until: Duration,
    /// Wrong pieces that it alone delivered.
    strikes: u32,
    /// It took part in a wrong piece with others: whole pieces only, until one is right.
    parole: bool,
    /// Pieces that it does not have, or not right, and until when that is believed.
    lacks: Option<(Bitfield, Duration)>,
    /// Packs that could not be had, or did not hold what they should, by number.
    packs_lost: BTreeSet<usize>,
    /// The packs fetched last, and by which names: wrong pieces may show later.
    packs_tried: VecDeque<(PeerKey, usize)>,
    rate: Rate,
}

#[derive(Clone, Copy, Debug)]
struct Fetch {
    key: PeerKey,
    span: Span,
    /// If it comes as a pack.
    pack: Option<Unpacking>,
    /// What of it was charged to the download limit and has not come, in bytes.
    due: u64,
}

impl Http {
    pub(super) fn new(sources: usize, packs: Vec<Packed>, rng: &mut fastrand::Rng) -> Self {
        let patience = u64::try_from(http::PATIENCE.as_millis()).expect("some seconds");
        Self {
            sources: (0..sources).map(|_| Source::default()).collect(),
            packs,
            fetches: 0,
            budget: Budget::default(),
            jitter: Duration::from_millis(rng.u64(0..patience)),
            needed: None,
            tail_since: None,
            look_at: None,
            seeders: 0,
            leechers: 0,
        }
    }

    pub(super) fn tick(&mut self, passed: Duration) {
        // An idle source is no slow one.
        let busy = self.sources.iter_mut().filter(|source| !source.fetches.is_empty());
        busy.for_each(|source| source.rate.tick(passed));
    }

    fn source_of(&mut self, fetch: PeerKey) -> Option<&mut Source> {
        let holds = |source: &&mut Source| source.fetches.iter().any(|range| range.key == fetch);
        self.sources.iter_mut().find(holds)
    }

    /// The source that a range was asked of, even when it has long ended.
    fn source_named(&mut self, fetch: PeerKey) -> Option<&mut Source> {
        let count = self.sources.len().max(1);
        let at = fetch.0.checked_sub(FETCH_BASE)? as usize % count;
        self.sources.get_mut(at)
    }

    /// A name for the next range; it tells the source.
    fn fetch_name(&mut self, source: usize) -> PeerKey {
        let count = u32::try_from(self.sources.len()).expect("sources are few");
        let round = self.fetches % (FETCH_BASE / count - 1);
        self.fetches = self.fetches.wrapping_add(1);
        PeerKey(FETCH_BASE + round * count + u32::try_from(source).expect("sources are few"))
    }

    /// Sources that may be asked for one more range, the best first: those that did not fail, then by
    /// when they would be through with it.
    fn ready(&self, now: Duration, left: u64) -> Vec<usize> {
        let busy: usize = self.sources.iter().map(|source| source.fetches.len()).sum();
        if busy >= http::SPANS_TOTAL_MAX {
            return Vec::new();
        }
        let known = |source: &Source| source.rate.is_known().then(|| source.rate.get());
        let best = self.sources.iter().filter_map(known).max().unwrap_or(RATE_GUESS);
        let due = |at: usize| {
            let source = &self.sources[at];
            let queued = http::SPAN_BYTES * source.fetches.len() as u64;
            let bytes = queued + http::SPAN_BYTES.min(left);
            bytes * 1000 / known(source).unwrap_or(best).max(1)
        };
        let able = |source: &Source| source.failures == 0 && source.blocked_until <= now;
        let mut ready: Vec<usize> = (0..self.sources.len())
            .filter(|&at| {
                let source = &self.sources[at];
                source.blocked_until <= now && source.fetches.len() < http::SPANS_MAX
            })
            .collect();
        ready.sort_by_key(|&at| (self.sources[at].failures, due(at), at));
        // A mirror that would be through when others have long brought the rest is no help.
        let first = ready.first().copied();
        ready.retain(|&at| {
            let others = (0..self.sources.len()).filter(|&other| other != at);
            let others = others.map(|other| &self.sources[other]).filter(|source| able(source));
            let rate: u64 = others.filter_map(known).sum();
            let rest = left.saturating_mul(1000).checked_div(rate);
            Some(at) == first || rest.is_none_or(|rest| due(at) <= 2 * rest)
        });
        ready
    }
}

impl Source {
    fn may_have(&self, now: Duration, piece: PieceIndex) -> bool {
        self.lacks.as_ref().is_none_or(|(lacks, until)| *until <= now || !lacks.has(piece))
    }

    fn lack(&mut self, now: Duration, pieces: impl Iterator<Item = PieceIndex>, count: u32) {
        let fresh = self.lacks.take().filter(|(_, until)| *until > now);
        let (mut lacks, _) = fresh.unwrap_or_else(|| (Bitfield::empty(count), now));
        pieces.for_each(|piece| _ = lacks.insert(piece));
        self.lacks = Some((lacks, now + LACK));
    }

    fn fail(&mut self, now: Duration, retry_after: Option<Duration>) {
        self.failures += 1;
        let wait = (RETRY * (1 << self.failures.min(7)) / 2).min(RETRY_MAX);
        let until = now + wait.max(retry_after.unwrap_or_default());
        self.blocked_until = self.blocked_until.max(until);
    }
}

impl Swarm {
    pub(super) fn on_fetched(&mut self, now: Duration, fetch: PeerKey, block: Block, data: Bytes) {
        let bytes = data.len() as u64;
        self.down.add(bytes);
        let mut packed = None;
        if let Some(source) = self.http.source_of(fetch) {
            source.rate.add(bytes);
            source.failures = 0;
            if let Some(range) = source.fetches.iter_mut().find(|range| range.key == fetch) {
                packed = range.pack.as_mut().map(|pack| pack.share(bytes));
                range.due = range.due.saturating_sub(packed.unwrap_or(bytes));
            }
        }
        self.stats.down_http += packed.unwrap_or(bytes);
        if packed.is_some() && !self.picker.wants(block.piece) {
            return; // It came along with what was needed, and its bytes are counted.
        }
        self.stats.http_content += bytes;
        self.take_block(now, fetch, block, data, false);
    }

    pub(super) fn on_fetch_ended(&mut self, now: Duration, fetch: PeerKey, end: FetchEnd) {
        let count = self.geometry.piece_count();
        let Some(source) = self.http.source_of(fetch) else { return };
        match end {
            FetchEnd::Complete => {}
            FetchEnd::Failed { retry_after } => source.fail(now, retry_after),
            FetchEnd::Unpackable => {
                let range = source.fetches.iter().find(|range| range.key == fetch);
                let pack = range.and_then(|range| range.pack);
                source.packs_lost.extend(pack.map(|pack| pack.number()));
            }
            FetchEnd::Absent(FileIndex(file)) => {
                source.fail(now, None);
                if (file as usize) < self.geometry.files().len() {
                    let pieces = self.geometry.pieces_of(FileIndex(file));
                    source.lack(now, pieces.map(PieceIndex), count);
                }
            }
        }
        let at = source.fetches.iter().position(|range| range.key == fetch);
        let range = source.fetches.swap_remove(at.expect("source_of found the range"));
        self.unspent += range.due;
        self.picker.return_span(fetch, range.span);
    }

    /// Ends the ranges that have nothing left to bring.
    pub(super) fn cancel_fetches(&mut self) {
        let ranges: Vec<Fetch> =
            self.http.sources.iter().flat_map(|source| &source.fetches).copied().collect();
        for range in ranges {
            if self.missing_in(range.span).next().is_none() {
                let source = self.http.source_of(range.key).expect("it was listed by its source");
                source.fetches.retain(|other| other.key != range.key);
                self.unspent += range.due;
                self.picker.return_span(range.key, range.span);
                self.outputs.push_back(Output::FetchCancel { fetch: range.key });
            }
        }
    }

    /// A source alone delivered a wrong piece.
    pub(super) fn strike_source(&mut self, now: Duration, fetch: PeerKey, piece: PieceIndex) {
        let count = self.geometry.piece_count();
        let Some(source) = self.http.source_named(fetch) else { return };
        // A bad pack costs itself and nothing else.
        if source.lose_pack_of(fetch) {
            return;
        }
        source.strikes += 1;
        source.failures += 1;
        source.lack(now, std::iter::once(piece), count);
        if source.strikes >= STRIKES_MAX {
            source.blocked_until = now + DISTRUST;
        }
    }

    /// A source had a hand in a piece: alone in a right one, or with others in a wrong one.
    pub(super) fn judge_source(&mut self, fetch: PeerKey, right: bool) {
        if let Some(source) = self.http.source_named(fetch) {
            source.parole = !right;
        }
    }

    /// When the pieces of ranges under way are predicted to be through.
    pub(super) fn fetches_due(&self) -> Vec<(Duration, PieceIndex)> {
        let mut due = Vec::new();
        for source in &self.http.sources {
            let mut blocks = 0;
            for range in &source.fetches {
                for piece in range.span.pieces().map(PieceIndex) {
                    let missing = self.picker.missing_blocks(piece).count();
                    if missing > 0 {
                        blocks += missing;
                        due.push((endgame::eta(blocks, source.rate.get()), piece));
                    }
                }
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources by what they deliver, in KiB/s (0: not known yet), and how often they failed; `expected` are
    /// those to ask for a range, in order, while so many MiB are left.
    fn check(sources: &[(u64, u32)], left_mib: u64, expected: &[usize]) {
        let mut http = Http::new(sources.len(), Vec::new(), &mut fastrand::Rng::with_seed(1));
        for (source, &(rate, failures)) in http.sources.iter_mut().zip(sources) {
            source.failures = failures;
            source.rate.add(rate << 10);
            if rate > 0 {
                source.rate.tick(Duration::from_secs(1));
            }
        }
        assert_eq!(http.ready(Duration::ZERO, left_mib << 20), expected);
    }

    #[test]
    fn mirrors_are_ranked_by_what_they_deliver() {
        check(&[(0, 0), (0, 0)], 100, &[0, 1]);
        check(&[(100, 0), (1000, 0)], 100, &[1, 0]);
        check(&[(1000, 3), (1000, 1), (1000, 0)], 100, &[2, 1, 0]);
        check(&[(1000, 0), (0, 0)], 100, &[0, 1]);
    }

    #[test]
    fn a_mirror_that_would_be_last_is_no_help() {
        check(&[(10, 0), (10_000, 0)], 100, &[1]);
        check(&[(10, 0), (10_000, 2)], 100, &[0, 1]);
        check(&[(10, 0)], 100, &[0]);
        check(&[(1000, 0), (1000, 0)], 1, &[0, 1]);
    }
}
