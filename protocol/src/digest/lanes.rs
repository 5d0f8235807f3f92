//! Which message is in which lane: lanes go on together until one is through, then it takes the next
//! message.

use super::{Block, LANES};

/// The hash states of all lanes, word by word.
pub(super) type States<const WORDS: usize> = [[u32; LANES]; WORDS];

/// With fewer lanes in use, one message after the other is faster.
pub(super) const SHA1_LANES_MIN: usize = 6;
pub(super) const SHA256_LANES_MIN: usize = 9;

/// A hash state and the blocks it is to take.
pub(super) struct Job<'a, const WORDS: usize> {
    pub(super) state: &'a mut [u32; WORDS],
    pub(super) blocks: &'a [Block],
}

/// Does all jobs: with `wide`, which takes as many blocks into all lanes, while at least
/// `worthwhile` lanes are in use, and the rest one by one with `single`.
pub(super) fn run<'a, const WORDS: usize>(
    jobs: impl IntoIterator<Item = Job<'a, WORDS>>,
    worthwhile: usize,
    wide: impl Fn(&mut States<WORDS>, &[&[Block]; LANES], usize),
    single: impl Fn(&mut [u32; WORDS], &[Block]),
) {
    let mut jobs = jobs.into_iter().filter(|job| !job.blocks.is_empty());
    let mut lanes: Vec<Job<'_, WORDS>> = Vec::with_capacity(LANES);
    let mut states = [[0; LANES]; WORDS];
    loop {
        while lanes.len() < LANES
            && let Some(job) = jobs.next()
        {
            for (row, word) in states.iter_mut().zip(&*job.state) {
                row[lanes.len()] = *word;
            }
            lanes.push(job);
        }
        if lanes.len() < worthwhile.max(1) {
            break;
        }
        // A lane without a message hashes the last one once more, for nobody.
        let blocks = std::array::from_fn(|lane| lanes[lane.min(lanes.len() - 1)].blocks);
        let count = blocks.iter().map(|blocks| blocks.len()).min().expect("there are lanes");
        wide(&mut states, &blocks, count);
        for lane in (0..lanes.len()).rev() {
            lanes[lane].blocks = &lanes[lane].blocks[count..];
            if lanes[lane].blocks.is_empty() {
                take_out(&mut lanes, &mut states, lane);
            }
        }
    }
    while let Some(last) = lanes.len().checked_sub(1) {
        let job = take_out(&mut lanes, &mut states, last);
        single(job.state, job.blocks);
    }
}

/// Ends the job in `lane`; the last one moves there.
fn take_out<'a, const WORDS: usize>(
    lanes: &mut Vec<Job<'a, WORDS>>,
    states: &mut States<WORDS>,
    lane: usize,
) -> Job<'a, WORDS> {
    let job = lanes.swap_remove(lane);
    for (row, word) in states.iter_mut().zip(&mut *job.state) {
        *word = row[lane];
        row[lane] = row[lanes.len()];
    }
    job
}
