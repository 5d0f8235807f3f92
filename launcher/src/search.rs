//! The leaf search: windows of 16 KiB that a release needs, found anywhere in old files.
//!
//! Goes in: the rolling hashes of an index ([`updraft_manifests::leaf_index`]), then the bytes of old
//! files, each once, in any order. Comes out: for every window a place where its hash was met, or
//! none. A place is a hint and no more.
//!
//! Every byte moves the hash and looks at one word of a filter; only what passes that and another one is
//! looked up. Memory: below 40 bytes for each window, whatever is read.

mod filter;

use filter::Filter;
use std::io::{self, Read};
use updraft_manifests::rolling::{self, WINDOW};

/// Bytes read at once.
const CHUNK_LEN: usize = 512 << 10;
/// Bits for each window of the filter that every byte asks: with 100 000 windows it takes a quarter of a
/// usual second-level cache.
const FILTER_BITS: usize = 16;
/// Bits for each window of the filter behind it, which spares most misses of the cache.
const SECOND_BITS: usize = 8;
/// Stretches searched side by side.
const LANES: usize = 4;
/// Windows hashed before they are looked at.
const BATCH: usize = 64;
/// Windows that are looked at with one branch.
const GROUP: usize = 8;
/// Below so many windows, stretches would cost more than they gain: each begins with a hash of its own.
const LANES_WORTH: usize = 2 * WINDOW;
/// No place found.
const NOWHERE: u64 = u64::MAX;
/// An empty slot.
const EMPTY: u32 = u32::MAX;

/// The windows looked for, and where they were found.
#[derive(Debug)]
pub struct Search {
    /// The windows' hashes in the order given.
    hashes: Vec<u64>,
    /// Open addressing: the first window of each hash.
    slots: Vec<u32>,
    /// All hashes.
    filter: Filter,
    /// All hashes once more, mixed.
    second: Filter,
    /// The hash met last: in a run of one byte it comes again and again.
    last_met: Option<u64>,
    /// By window, but only for the first of each hash.
    found: Vec<u64>,
    /// Different hashes not met yet.
    missing: usize,
}

impl Search {
    /// Looks for windows with these hashes. The same hash may stand there more than once.
    ///
    /// # Panics
    /// If there are 2^32 - 1 windows or more: an index has fewer.
    pub fn new(hashes: Vec<u64>) -> Self {
        assert!(u32::try_from(hashes.len()).is_ok_and(|len| len < EMPTY), "bounded by the index");
        let mut search = Self {
            slots: vec![EMPTY; (hashes.len() * 3 / 2 + 1).next_power_of_two()],
            filter: Filter::new(hashes.len(), FILTER_BITS),
            second: Filter::new(hashes.len(), SECOND_BITS),
            last_met: None,
            found: vec![NOWHERE; hashes.len()],
            missing: 0,
            hashes,
        };
        for window in 0..search.hashes.len() {
            let hash = search.hashes[window];
            let slot = search.slot(hash);
            if search.slots[slot] == EMPTY {
                search.slots[slot] = u32::try_from(window).expect("counted above");
                search.missing += 1;
                search.filter.insert(hash);
                search.second.insert(mix(hash));
            }
        }
        search
    }

    /// Different windows not met yet: at 0 nothing more need be read.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Reads `file` to its end, or until nothing is missing. Its first byte counts as `position` in what
    /// [`Search::place`] tells. `read` is told the bytes of each read; its `false` stops the search.
    ///
    /// # Errors
    /// Of reading; what was met before stays.
    pub fn scan(
        &mut self,
        mut file: impl Read,
        position: u64,
        buffer: &mut Vec<u8>,
        mut read: impl FnMut(u64) -> bool,
    ) -> io::Result<()> {
        buffer.resize(WINDOW + CHUNK_LEN, 0);
        // `buffer[..held]` are bytes of the file from `at`; their first window has been looked at
        // unless `hash` is none.
        let (mut held, mut at, mut hash) = (0, position, None);
        while self.missing > 0 {
            let count = read_full(&mut file, &mut buffer[held..])?;
            if count == 0 || !read(count as u64) {
                break;
            }
            held += count;
            if held < WINDOW {
                break;
            }
            let last = self.scan_chunk(&buffer[..held], at, hash);
            // The last window is the start of the next chunk.
            let gone = held - WINDOW;
            buffer.copy_within(gone..held, 0);
            (held, at, hash) = (WINDOW, at + gone as u64, Some(last));
        }
        Ok(())
    }

    /// Looks at every window of `data` (at the first only if `hash`, its hash, is none yet); returns
    /// the hash of the last.
    fn scan_chunk(&mut self, data: &[u8], at: u64, hash: Option<u64>) -> u64 {
        let first = hash.unwrap_or_else(|| {
            let first = rolling::hash(&data[..WINDOW]);
            self.meet(first, at);
            first
        });
        // Four stretches side by side, as each step of one waits for the step before.
        let steps = data.len() - WINDOW;
        let stretch = if steps < LANES_WORTH { 0 } else { steps / LANES / BATCH * BATCH };
        let mut lanes = [first; LANES];
        if stretch > 0 {
            for (lane, hash) in lanes.iter_mut().enumerate().skip(1) {
                *hash = rolling::hash(&data[lane * stretch..][..WINDOW]);
            }
        }
        let mut hashes = [[0; BATCH]; LANES];
        for batch in (0..stretch).step_by(BATCH) {
            let part = |from: usize| -> &[u8; BATCH] {
                data[from + batch..].first_chunk().expect("a stretch is whole batches")
            };
            let gone: [&[u8; BATCH]; LANES] = std::array::from_fn(|lane| part(lane * stretch));
            let next: [&[u8; BATCH]; LANES] =
                std::array::from_fn(|lane| part(lane * stretch + WINDOW));
            let [mut a, mut b, mut c, mut d] = lanes;
            for step in 0..BATCH {
                a = rolling::roll(a, gone[0][step], next[0][step]);
                b = rolling::roll(b, gone[1][step], next[1][step]);
                c = rolling::roll(c, gone[2][step], next[2][step]);
                d = rolling::roll(d, gone[3][step], next[3][step]);
                hashes[0][step] = a;
                hashes[1][step] = b;
                hashes[2][step] = c;
                hashes[3][step] = d;
            }
            lanes = [a, b, c, d];
            for (lane, hashes) in hashes.iter().enumerate() {
                self.look(hashes, at + (lane * stretch + batch + 1) as u64);
            }
        }
        // The hash of the last stretch's last window, and what is left after it.
        let mut hash = lanes[LANES - 1];
        let done = stretch * LANES;
        for (step, (gone, next)) in data[done..].iter().zip(&data[done + WINDOW..]).enumerate() {
            hash = rolling::roll(hash, *gone, *next);
            if self.filter.may_hold(hash) {
                self.meet(hash, at + (done + step + 1) as u64);
            }
        }
        hash
    }

    /// Looks at windows that follow each other, the first at `at`: without a branch for each.
    fn look(&mut self, hashes: &[u64; BATCH], at: u64) {
        let mut passed = 0u64;
        for (number, group) in hashes.as_chunks::<GROUP>().0.iter().enumerate() {
            // Summed, not or-ed: that is one instruction after the test.
            let count: u64 = group.iter().map(|hash| u64::from(self.filter.may_hold(*hash))).sum();
            passed |= u64::from(count != 0) << number;
        }
        while passed != 0 {
            let first = passed.trailing_zeros() as usize * GROUP;
            passed &= passed - 1;
            for (step, hash) in hashes[first..first + GROUP].iter().enumerate() {
                if self.filter.may_hold(*hash) {
                    self.meet(*hash, at + (first + step) as u64);
                }
            }
        }
    }

    /// Remembers that a window with this hash, which the filter let through, lies at `at`.
    #[cold]
    fn meet(&mut self, hash: u64, at: u64) {
        if self.last_met == Some(hash) || !self.second.may_hold(mix(hash)) {
            return;
        }
        let window = self.slots[self.slot(hash)];
        if window != EMPTY {
            self.last_met = Some(hash);
            if self.found[window as usize] == NOWHERE {
                self.found[window as usize] = at;
                self.missing -= 1;
            }
        }
    }

    /// The slot that holds `hash`, or that it would have.
    fn slot(&self, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        #[allow(clippy::cast_possible_truncation)] // It is cut on purpose.
        let mut slot = (mix(hash) >> 12) as usize & mask;
        loop {
            let window = self.slots[slot];
            if window == EMPTY || self.hashes[window as usize] == hash {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Where each window was met, in the order given.
    pub fn into_places(mut self) -> Places {
        for window in 0..self.hashes.len() {
            let first = self.slots[self.slot(self.hashes[window])];
            self.found[window] = self.found[first as usize];
        }
        Places { found: self.found }
    }
}

/// Where windows were met.
#[derive(Debug, Clone, Default)]
pub struct Places {
    found: Vec<u64>,
}

impl Places {
    /// The position of the window with this number, if it was met.
    pub fn get(&self, window: usize) -> Option<u64> {
        self.found.get(window).copied().filter(|&at| at != NOWHERE)
    }
}

/// Other bits in other places, as one multiplication can.
#[inline]
fn mix(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// As much as there is room for, or to the end.
fn read_full(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..len).map(step).collect()
    }

    fn search(windows: &[&[u8]], files: &[&[u8]]) -> Vec<Option<u64>> {
        let mut search = Search::new(windows.iter().map(|window| rolling::hash(window)).collect());
        let (mut position, mut buffer) = (0, Vec::new());
        for file in files {
            search.scan(*file, position, &mut buffer, |_| true).unwrap();
            position += file.len() as u64;
        }
        let places = search.into_places();
        (0..windows.len()).map(|window| places.get(window)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// What lies anywhere is found there, across the borders of what is read at once.
        #[test]
        fn found_where_it_lies(
            before in prop_oneof![0usize..50_000, CHUNK_LEN - 20_000..CHUNK_LEN + WINDOW + 20_000],
            after in 0usize..20_000,
            seed: u64,
        ) {
            let (wanted, other) = (random(WINDOW, seed), random(WINDOW, seed ^ 1));
            let file = [random(before, seed ^ 2), wanted.clone(), random(after, seed ^ 3)].concat();
            let first = random(1000, seed ^ 4);
            let places = search(&[&wanted, &other, &wanted], &[&first, &file]);
            let here = Some(1000 + before as u64);
            prop_assert_eq!(places, [here, None, here]);
        }
    }

    #[test]
    fn short_files_and_runs_of_one_byte() {
        let zeros = vec![0; 3 * WINDOW];
        let one = random(WINDOW, 9);
        assert_eq!(search(&[&zeros[..WINDOW]], &[&zeros[..WINDOW - 1], &zeros]), [Some(16_383)]);
        assert_eq!(search(&[&zeros[..WINDOW], &one], &[&zeros, &one]), [Some(0), Some(49_152)]);
        assert_eq!(search(&[], &[&zeros]), []);
    }

    #[test]
    fn it_ends_when_nothing_is_missing_or_it_is_stopped() {
        let data = random(3 * CHUNK_LEN, 5);
        let scan = |wanted: &[u8], go_on: bool| {
            let mut search = Search::new(vec![rolling::hash(wanted)]);
            let mut bytes = 0;
            let read = |count| {
                bytes += count;
                go_on
            };
            search.scan(data.as_slice(), 0, &mut Vec::new(), read).unwrap();
            (bytes, search.missing())
        };
        let first = (WINDOW + CHUNK_LEN) as u64;
        assert_eq!(scan(&data[100..100 + WINDOW], true), (first, 0));
        assert_eq!(scan(&data[2 * CHUNK_LEN..][..WINDOW], false), (first, 1));
        assert_eq!(scan(&[7; WINDOW], true), (data.len() as u64, 1));
    }
}
