//! Finding what the new bytes have in common with the old ones.

use super::index::{Index, Rolling};
use super::stretch::SLACK;
use std::ops::Range;
use updraft_manifests::patch::equal_len;

/// New bytes that are old ones, but for differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// Where in the new bytes.
    pub(super) new: usize,
    /// Where in the old bytes.
    pub(super) old: usize,
    /// How many.
    pub(super) len: usize,
}

/// The old bytes of a part: many ranges of files, one after the other.
pub(super) struct Old<'a> {
    pub(super) bytes: &'a [u8],
    /// Where each range begins, and the end: no match goes over these.
    pub(super) starts: &'a [usize],
}

impl Old<'_> {
    /// The range that holds `at`.
    pub(super) fn around(&self, at: usize) -> Range<usize> {
        let after = self.starts.partition_point(|start| *start <= at);
        self.starts[after - 1]..self.starts[after]
    }
}

/// How hard to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Places of one hash that are looked at.
    pub(super) places_max: usize,
    /// How many bytes more another alignment must explain to be changed to.
    pub(super) margin: usize,
}

/// The line old = new + shift that the last match lies on, within one old range.
struct Line {
    shift: isize,
    range: Range<usize>,
}

impl Line {
    fn at(&self, new: usize) -> Option<usize> {
        new.checked_add_signed(self.shift).filter(|old| self.range.contains(old))
    }
}

/// Exact matches of `new[range]` with indexed old blocks, in the order of the new bytes: one wherever
/// another alignment explains the bytes better than the one before, and where that one explains them again after
/// a long break. They may overlap.
pub(super) fn seeds(
    old: &Old<'_>,
    new: &[u8],
    range: Range<usize>,
    index: &Index,
    effort: Effort,
) -> Vec<Match> {
    let window = index.window;
    let mut found = Vec::new();
    if range.len() < window {
        return found;
    }
    let mut at = range.start;
    let mut hash = Rolling::new(&new[at..at + window]);
    let mut explained = range.start;
    let mut line: Option<Line> = None;
    loop {
        let mut step = on_line(old, new, range.end, at, window, effort.margin, line.as_ref());
        if step == 0 {
            step = 1;
            let floor = explained.min(at);
            let best = best_match(old, &new[..range.end], floor, at, index, hash, effort);
            if let Some(best) = best
                && best.len > same(old, new, &best, line.as_ref()) + effort.margin
            {
                let end = best.new + best.len;
                step = end - window + 1 - at;
                explained = end;
                let shift = best.old.cast_signed().wrapping_sub(best.new.cast_signed());
                line = Some(Line { shift, range: old.around(best.old) });
                found.push(best);
            }
        } else if let Some(line) = &line
            && step > window
        {
            // Far from what was explained last, stretching does not come here by itself.
            if at - explained.min(at) > SLACK
                && let Some(from) = line.at(at)
            {
                found.push(Match { new: at, old: from, len: step + window - 1 });
            }
            explained = explained.max(at + step);
        }
        let next = at + step;
        if next + window > range.end {
            return found;
        }
        if step < window {
            for at in at..next {
                hash.roll(new[at], new[at + window]);
            }
        } else {
            hash = Rolling::new(&new[next..next + window]);
        }
        at = next;
    }
}

/// How far the line explains the bytes so well that no other block could do better; 0 if it does not.
fn on_line(
    old: &Old<'_>,
    new: &[u8],
    end: usize,
    at: usize,
    window: usize,
    margin: usize,
    line: Option<&Line>,
) -> usize {
    let Some((from, limit)) = line.and_then(|line| Some((line.at(at)?, line.range.end))) else {
        return 0;
    };
    let old = &old.bytes[from..limit];
    let equal = equal_len(old, &new[at..end]);
    if equal >= window {
        return equal - window + 1;
    }
    if old.len() < window || window <= margin {
        return 0;
    }
    let alike = old[..window].iter().zip(&new[at..at + window]).filter(|(a, b)| a == b).count();
    (alike + margin + 1).saturating_sub(window)
}

/// The longest match through the block at `at`, backwards no further than `floor`.
fn best_match(
    old: &Old<'_>,
    new: &[u8],
    floor: usize,
    at: usize,
    index: &Index,
    hash: Rolling,
    effort: Effort,
) -> Option<Match> {
    let mut best: Option<Match> = None;
    for place in index.places(hash).take(effort.places_max) {
        let range = old.around(place);
        let forward = equal_len(&old.bytes[place..range.end], &new[at..]);
        if forward < index.window {
            continue;
        }
        let before = old.bytes[range.start..place].iter().rev();
        let back = before.zip(new[floor..at].iter().rev()).take_while(|(a, b)| a == b).count();
        if best.is_none_or(|best| forward + back > best.len) {
            best = Some(Match { new: at - back, old: place - back, len: forward + back });
        }
    }
    best
}

/// How many bytes of a match the line explains as well.
fn same(old: &Old<'_>, new: &[u8], found: &Match, line: Option<&Line>) -> usize {
    let Some(line) = line else { return 0 };
    let equal = |at: &usize| line.at(*at).is_some_and(|from| old.bytes[from] == new[*at]);
    (found.new..found.new + found.len).filter(equal).count()
}
