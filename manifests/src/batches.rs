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
    let mut outputs = outputs.to_vec();
    let mut left: BTreeSet<usize> = (0..outputs.len()).collect();
    let mut removed = removed.clone();
    let mut held: i128 = 0;
    let mut replacer = vec![None; old.len()];
    for (number, output) in outputs.iter().enumerate() {
        output.replaces.into_iter().for_each(|old| replacer[old] = Some(number));
    }
    loop {
        let mut batch = Batch::default();
        let needed = |outputs: &[Output], left: &BTreeSet<usize>, old: usize, by: usize| {
            left.iter().any(|&other| other != by && outputs[other].reads.contains(&old))
        };
        let mut bytes: i128 = 0;
        let space = i128::from(room) - held;
        // First what frees the most for what it takes.
        let mut order: Vec<usize> = left.iter().copied().collect();
        let growth = |&number: &usize| {
            let output: &Output = &outputs[number];
            let last =
                |old: &&usize| removed.contains(old) && !needed(&outputs, &left, **old, number);
            let frees = output.replaces.iter().chain(output.reads.iter().filter(last));
            i128::from(output.bytes) - frees.map(|&number| i128::from(old[number])).sum::<i128>()
        };
        order.sort_by_key(growth);
        // What only takes room, and holds nobody up, waits until all others are there.
        let holds_up = |number: &usize, old: &usize| {
            replacer[*old].is_some_and(|other| other != *number && left.contains(&other))
        };
        let is_late = |number: &usize| {
            growth(number) > 0 && !outputs[*number].reads.iter().any(|old| holds_up(number, old))
        };
        let (late, mut order): (Vec<usize>, Vec<usize>) = order.into_iter().partition(is_late);
        if order.is_empty() {
            order.clone_from(&late);
        }
        for &number in order.iter().chain(&late) {
            let output = &outputs[number];
            let waits = late.contains(&number) && left.iter().any(|other| !late.contains(other));
            if waits || !left.contains(&number) {
                continue;
            }
            let free = output.replaces.is_none_or(|old| !needed(&outputs, &left, old, number));
            if free && bytes + i128::from(output.bytes) <= space {
                bytes += i128::from(output.bytes);
                batch.outputs.push(number);
                left.remove(&number);
            }
        }
        if batch.outputs.is_empty() && !left.is_empty() {
            let fits = |number: &&usize| i128::from(outputs[**number].bytes) <= space;
            let readers = |number: usize| readers_of(&outputs, &left, number);
            let sum = |numbers: &BTreeSet<usize>| -> i128 {
                numbers.iter().map(|&number| i128::from(outputs[number].bytes)).sum()
            };
            // A whole ring at once, if there is room for it.
            let rings = order.iter().map(|&number| ring_of(&outputs, &left, number));
            let smallest = rings.min_by_key(&sum).filter(|ring| sum(ring) <= space);
            if let Some(ring) = smallest {
                bytes = sum(&ring);
                left.retain(|number| !ring.contains(number));
                batch.outputs = ring.into_iter().collect();
            } else {
                // Else the fewest bytes lose a source.
                let first = order.iter().filter(fits).min_by_key(|&&n| (sum(&readers(n)), n));
                let first = *first?;
                let source = outputs[first].replaces?;
                for reader in readers(first) {
                    outputs[reader].reads.remove(&source);
                    plan.without.push((reader, source));
                }
                continue;
            }
        }
        plan.peak = plan.peak.max(u64::try_from(held + bytes).unwrap_or(0));
        held += bytes;
        for &number in &batch.outputs {
            held -= outputs[number].replaces.map_or(0, |number| i128::from(old[number]));
        }
        let gone = |&number: &usize| !needed(&outputs, &left, number, usize::MAX);
        batch.removes = removed.iter().copied().filter(gone).collect();
        for number in &batch.removes {
            removed.remove(number);
            held -= i128::from(old[*number]);
        }
        if batch == Batch::default() {
            assert!(left.is_empty() && removed.is_empty(), "nothing is left to do");
            return Some(plan);
        }
        plan.batches.push(batch);
    }
}

/// Who of `left` is built out of what `number` replaces, itself left out.
fn readers_of(outputs: &[Output], left: &BTreeSet<usize>, number: usize) -> BTreeSet<usize> {
    let Some(old) = outputs[number].replaces else { return BTreeSet::new() };
    let reads = |other: &usize| *other != number && outputs[*other].reads.contains(&old);
    left.iter().copied().filter(reads).collect()
}

/// `number` and all that have to be there before or with it.
fn ring_of(outputs: &[Output], left: &BTreeSet<usize>, number: usize) -> BTreeSet<usize> {
    let (mut ring, mut new) = (BTreeSet::from([number]), vec![number]);
    while let Some(number) = new.pop() {
        new.extend(readers_of(outputs, left, number).into_iter().filter(|n| ring.insert(*n)));
    }
    ring
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
