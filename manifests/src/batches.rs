//! In which order files are replaced when the disk has no room for the old and the new of all of them.
//!
//! Files are built batch by batch, and after each batch the old files that nobody needs any more are
//! gone. An old file can only go when every file that is built out of it is there. Where files need
//! each other's old content in a ring that has no room as a whole, one of them is built without it.

use std::collections::BTreeSet;

/// A file to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Bytes of disk it takes.
    pub bytes: u64,
    /// The old files that it is built out of, by number.
    pub reads: BTreeSet<usize>,
    /// The old file at its place, by number.
    pub replaces: Option<usize>,
}

/// What is built together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Outputs by number.
    pub outputs: Vec<usize>,
    /// Old files, by number, that go afterwards; those that an output replaces are not among them.
    pub removes: Vec<usize>,
}

/// The way from old to new files in little space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// In this order.
    pub batches: Vec<Batch>,
    /// Outputs that have to do without some old file: output and old file by number.
    pub without: Vec<(usize, usize)>,
    /// The most bytes that the disk holds beyond what it held before.
    pub peak: u64,
}

/// Orders `outputs` such that the disk never holds more than `room` bytes beyond what it holds now.
/// `old` are the bytes of the old files, `removed` the numbers of those at whose place nothing comes.
/// `None` if even one file after the other does not fit.
pub fn batches(
    outputs: &[Output],
    old: &[u64],
    removed: &BTreeSet<usize>,
    room: u64,
) -> Option<Batches> {
    let mut plan = Batches::default();
    let mut rest = Rest::new(outputs, old, removed);
    let mut held: i128 = 0;
    while !rest.left.is_empty() || !rest.removed.is_empty() {
        let space = i128::from(room) - held;
        let order = rest.order();
        let mut batch = Batch { outputs: rest.take_free(&order, space), removes: Vec::new() };
        if batch.outputs.is_empty() && !order.is_empty() {
            // A whole ring at once, if there is room for it.
            let rings = order.iter().map(|&number| rest.ring_of(number));
            match rings.min_by_key(|ring| rest.sum(ring)).filter(|ring| rest.sum(ring) <= space) {
                Some(ring) => {
                    ring.iter().for_each(|&number| rest.take(number));
                    batch.outputs = ring.into_iter().collect();
                }
                None => {
                    plan.without.extend(rest.break_ring(&order, space)?);
                    continue;
                }
            }
        }
        held += rest.sum(&batch.outputs);
        plan.peak = plan.peak.max(u64::try_from(held).unwrap_or(0));
        batch.removes = rest.take_removable();
        let replaced = batch.outputs.iter().filter_map(|&number| rest.outputs[number].replaces);
        let gone = replaced.chain(batch.removes.iter().copied());
        held -= gone.map(|number| i128::from(old[number])).sum::<i128>();
        plan.batches.push(batch);
    }
    Some(plan)
}

/// What is still to be done.
struct Rest<'a> {
    outputs: Vec<Output>,
    old: &'a [u64],
    left: BTreeSet<usize>,
    /// Those of `left` that read each old file.
    readers: Vec<BTreeSet<usize>>,
    /// Who replaces each old file.
    replacer: Vec<Option<usize>>,
    removed: BTreeSet<usize>,
}

impl<'a> Rest<'a> {
    fn new(outputs: &[Output], old: &'a [u64], removed: &BTreeSet<usize>) -> Self {
        let mut readers = vec![BTreeSet::new(); old.len()];
        let mut replacer = vec![None; old.len()];
        for (number, output) in outputs.iter().enumerate() {
            output.replaces.into_iter().for_each(|old| replacer[old] = Some(number));
            output.reads.iter().for_each(|old| _ = readers[*old].insert(number));
        }
        let left = (0..outputs.len()).collect();
        Self { outputs: outputs.to_vec(), old, left, readers, replacer, removed: removed.clone() }
    }

    /// True if an output other than `but` is still to be built out of this old file.
    fn is_needed(&self, old: usize, but: usize) -> bool {
        self.readers[old].iter().any(|reader| *reader != but)
    }

    fn sum<'n>(&self, numbers: impl IntoIterator<Item = &'n usize>) -> i128 {
        numbers.into_iter().map(|&number| i128::from(self.outputs[number].bytes)).sum()
    }

    /// Bytes that the disk holds more when it is there and what nobody else needs is gone.
    fn growth(&self, number: usize) -> i128 {
        let output = &self.outputs[number];
        let last = |old: &&usize| self.removed.contains(old) && !self.is_needed(**old, number);
        let frees = output.replaces.iter().chain(output.reads.iter().filter(last));
        i128::from(output.bytes) - frees.map(|&old| i128::from(self.old[old])).sum::<i128>()
    }

    /// What may be built next, what frees the most first. What only takes room, and holds nobody up,
    /// waits until all others are there.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<(i128, usize)> =
            self.left.iter().map(|&number| (self.growth(number), number)).collect();
        order.sort_unstable();
        let holds_up = |number: usize| {
            let waits = |other: usize| other != number && self.left.contains(&other);
            self.outputs[number].reads.iter().any(|old| self.replacer[*old].is_some_and(waits))
        };
        let late = |&(growth, number): &(i128, usize)| growth > 0 && !holds_up(number);
        if !order.iter().all(late) {
            order.retain(|one| !late(one));
        }
        order.into_iter().map(|(_, number)| number).collect()
    }

    /// Takes, of `order`, all that stand in nobody's way and fit.
    fn take_free(&mut self, order: &[usize], space: i128) -> Vec<usize> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for &number in order {
            let Output { bytes: more, replaces, .. } = self.outputs[number];
            let is_free = replaces.is_none_or(|old| !self.is_needed(old, number));
            if is_free && bytes + i128::from(more) <= space {
                bytes += i128::from(more);
                self.take(number);
                taken.push(number);
            }
        }
        taken
    }

    fn take(&mut self, number: usize) {
        self.left.remove(&number);
        for old in &self.outputs[number].reads {
            self.readers[*old].remove(&number);
        }
    }

    /// Who has to be there before or with `number`, itself left out.
    fn readers_of(&self, number: usize) -> impl Iterator<Item = usize> + '_ {
        let readers = self.outputs[number].replaces.map(|old| &self.readers[old]);
        readers.into_iter().flatten().copied().filter(move |reader| *reader != number)
    }

    /// `number` and all that have to be there before or with it.
    fn ring_of(&self, number: usize) -> BTreeSet<usize> {
        let (mut ring, mut new) = (BTreeSet::from([number]), vec![number]);
        while let Some(number) = new.pop() {
            new.extend(self.readers_of(number).filter(|reader| ring.insert(*reader)));
        }
        ring
    }

    /// Makes one of `order` that fits free: the fewest bytes lose a source. Says which outputs lose which
    /// old file; `None` if none fits.
    fn break_ring(&mut self, order: &[usize], space: i128) -> Option<Vec<(usize, usize)>> {
        let fits = |number: &&usize| i128::from(self.outputs[**number].bytes) <= space;
        let lost = |number: usize| self.readers_of(number).collect::<Vec<_>>();
        let cost = |number: &&usize| (self.sum(&lost(**number)), **number);
        let first = *order.iter().filter(fits).min_by_key(cost)?;
        let (source, readers) = (self.outputs[first].replaces?, lost(first));
        for &reader in &readers {
            self.outputs[reader].reads.remove(&source);
            self.readers[source].remove(&reader);
        }
        Some(readers.into_iter().map(|reader| (reader, source)).collect())
    }

    /// Old files at whose place nothing comes and that nobody needs any more.
    fn take_removable(&mut self) -> Vec<usize> {
        let is_idle = |old: &usize| self.readers[*old].is_empty();
        let gone: Vec<usize> = self.removed.iter().copied().filter(is_idle).collect();
        gone.iter().for_each(|old| _ = self.removed.remove(old));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn output(bytes: u64, reads: &[usize], replaces: Option<usize>) -> Output {
        Output { bytes, reads: reads.iter().copied().collect(), replaces }
    }

    fn check(
        outputs: &[Output],
        old: &[u64],
        removed: &[usize],
        room: u64,
        expected: &[(&[usize], &[usize])],
        without: &[(usize, usize)],
    ) {
        let removed = removed.iter().copied().collect();
        let plan = batches(outputs, old, &removed, room).unwrap();
        let found: Vec<(&[usize], &[usize])> =
            plan.batches.iter().map(|batch| (&batch.outputs[..], &batch.removes[..])).collect();
        assert_eq!(found, expected);
        assert_eq!(plan.without, without);
    }

    #[test]
    fn all_at_once_where_there_is_room() {
        let outputs = [output(10, &[0], Some(0)), output(10, &[1], Some(1))];
        check(&outputs, &[10, 10], &[], 20, &[(&[0, 1], &[])], &[]);
        check(&outputs, &[10, 10], &[], 10, &[(&[0], &[]), (&[1], &[])], &[]);
        assert_eq!(batches(&outputs, &[10, 10], &BTreeSet::new(), 9), None);
    }

    #[test]
    fn what_is_new_does_not_take_the_room_of_what_is_replaced() {
        // 0 and 1 need each other's old content; 2 is new.
        let outputs = [output(10, &[1], Some(0)), output(10, &[0], Some(1)), output(1, &[], None)];
        let expected: [(&[usize], &[usize]); 3] = [(&[0], &[]), (&[1], &[]), (&[2], &[])];
        check(&outputs, &[10, 10], &[], 10, &expected, &[(1, 0)]);
        check(&outputs, &[10, 10], &[], 21, &[(&[0, 1], &[]), (&[2], &[])], &[]);
        // 0 is new; 1 is built out of a file that goes with it.
        let outputs = [output(1, &[], None), output(10, &[0], None)];
        check(&outputs, &[10], &[0], 10, &[(&[1], &[0]), (&[0], &[])], &[]);
    }

    #[test]
    fn the_last_reader_comes_first() {
        // 1 is built out of what 0 replaces, 2 out of what 1 replaces.
        let outputs =
            [output(10, &[], Some(0)), output(10, &[0], Some(1)), output(10, &[1], Some(2))];
        let expected: [(&[usize], &[usize]); 3] = [(&[2], &[]), (&[1], &[]), (&[0], &[])];
        check(&outputs, &[10, 10, 10], &[], 10, &expected, &[]);
    }

    #[test]
    fn a_ring_is_broken_where_it_costs_least() {
        let outputs = [output(10, &[1], Some(0)), output(8, &[0], Some(1))];
        check(&outputs, &[10, 8], &[], 10, &[(&[0], &[]), (&[1], &[])], &[(1, 0)]);
        check(&outputs, &[10, 8], &[], 18, &[(&[0, 1], &[])], &[]);
    }

    #[test]
    fn what_is_removed_makes_room() {
        let outputs = [output(10, &[0], None), output(10, &[], None)];
        let expected: [(&[usize], &[usize]); 2] = [(&[0], &[0]), (&[1], &[])];
        check(&outputs, &[10], &[0], 10, &expected, &[]);
    }

    proptest! {
        /// Carried out step by step: no output lacks a source, and the room is never exceeded.
        #[test]
        fn never_reads_what_is_gone_and_never_exceeds_the_room(
            files in prop::collection::vec((1u64..20, 1u64..20, prop::collection::btree_set(0usize..8, 0..4), any::<bool>()), 1..8),
            extra in 0u64..30,
        ) {
            let old: Vec<u64> = files.iter().map(|file| file.0).collect();
            let mut removed = BTreeSet::new();
            let outputs: Vec<Output> = files.iter().enumerate().map(|(at, (_, bytes, reads, replaces))| {
                if !replaces { removed.insert(at); }
                let reads = reads.iter().copied().filter(|old| *old < files.len()).collect();
                Output { bytes: *bytes, reads, replaces: replaces.then_some(at) }
            }).collect();
            // Files may grow: what they grow by is needed in any case.
            let growth: u64 = files.iter().map(|file| file.1).sum();
            let room = growth.min(19 + extra);
            let Some(plan) = batches(&outputs, &old, &removed, room) else { return Ok(()) };
            let mut there: BTreeSet<usize> = (0..old.len()).collect();
            let mut built = BTreeSet::new();
            let mut held = 0i64;
            for batch in &plan.batches {
                for &number in &batch.outputs {
                    prop_assert!(built.insert(number));
                    for source in &outputs[number].reads {
                        prop_assert!(there.contains(source) || plan.without.contains(&(number, *source)));
                    }
                    held += i64::try_from(outputs[number].bytes).unwrap();
                }
                prop_assert!(held <= i64::try_from(room).unwrap());
                let replaced = batch.outputs.iter().filter_map(|number| outputs[*number].replaces);
                for number in replaced.chain(batch.removes.iter().copied()) {
                    prop_assert!(there.remove(&number));
                    held -= i64::try_from(old[number]).unwrap();
                }
            }
            prop_assert_eq!(built.len(), outputs.len());
            prop_assert!(removed.iter().all(|old| !there.contains(old)));
            prop_assert!(plan.peak <= room);
        }
    }
}
