//! From exact matches to copies with differences.

use super::seeds::{Match, Old};
use std::ops::Range;

/// How far a run of differences may outweigh the equal bytes before stretching ends.
pub(super) const SLACK: usize = 200;

/// Stretches the matches of one new range, sorted, over the gaps between them: as far as more bytes are
/// equal than not, and where two meet, to the point that leaves the fewest differences (as bsdiff does:
/// C. Percival, *Naive differences of executable code*, 2003). The result does not overlap.
pub(super) fn stretch(
    old: &Old<'_>,
    new: &[u8],
    range: Range<usize>,
    matches: &[Match],
) -> Vec<Match> {
    let mut out: Vec<Match> = Vec::with_capacity(matches.len());
    for found in matches {
        let mut found = *found;
        let from = out.last().map_or(range.start, |before| before.new + before.len);
        if found.new < from {
            let cut = from - found.new;
            if cut >= found.len {
                continue;
            }
            found = Match { new: from, old: found.old + cut, len: found.len - cut };
        }
        let gap = found.new - from;
        let room = gap.min(found.old - old.around(found.old).start);
        let mut back =
            best(room, |step| old.bytes[found.old - 1 - step] == new[found.new - 1 - step]);
        if let Some(before) = out.last_mut() {
            let end = before.old + before.len;
            let room = gap.min(old.around(before.old).end - end);
            let forward = best(room, |step| old.bytes[end + step] == new[from + step]);
            let both = (forward + back).saturating_sub(gap);
            let cut = split(
                old,
                new,
                from + forward - both,
                end + forward - both,
                found.old - back,
                both,
            );
            before.len += forward - both + cut;
            back -= cut;
        }
        found = Match { new: found.new - back, old: found.old - back, len: found.len + back };
        match out.last_mut() {
            Some(before) if goes_on(old, before, &found) => before.len += found.len,
            _ => out.push(found),
        }
    }
    if let Some(last) = out.last_mut() {
        let (from, end) = (last.new + last.len, last.old + last.len);
        let room = (range.end - from).min(old.around(last.old).end - end);
        last.len += best(room, |step| old.bytes[end + step] == new[from + step]);
    }
    out
}

fn goes_on(old: &Old<'_>, before: &Match, found: &Match) -> bool {
    before.new + before.len == found.new
        && before.old + before.len == found.old
        && old.around(before.old).contains(&found.old)
}

/// The distance up to which most more bytes are equal than not.
fn best(room: usize, equal: impl Fn(usize) -> bool) -> usize {
    let (mut score, mut best, mut len) = (0_isize, 0, 0);
    for step in 0..room {
        score += if equal(step) { 1 } else { -1 };
        if score > best {
            (best, len) = (score, step + 1);
        } else if score < best - SLACK.cast_signed() {
            break;
        }
    }
    len
}

/// Of `len` bytes that two matches could have, how many the first shall get.
fn split(old: &Old<'_>, new: &[u8], at: usize, first: usize, second: usize, len: usize) -> usize {
    let (mut score, mut best, mut cut) = (0_i64, 0, 0);
    for step in 0..len {
        let byte = new[at + step];
        score += i64::from(old.bytes[first + step] == byte);
        score -= i64::from(old.bytes[second + step] == byte);
        if score > best {
            (best, cut) = (score, step + 1);
        }
    }
    cut
}

/// How many bytes of a match are equal.
pub(super) fn equal_bytes(old: &Old<'_>, new: &[u8], found: &Match) -> usize {
    let old = &old.bytes[found.old..found.old + found.len];
    old.iter().zip(&new[found.new..found.new + found.len]).filter(|(a, b)| a == b).count()
}
