//! Every parser of what comes from outside, and of our own records, under mutated bytes: none may panic, run on without
//! end, or read back something else than it wrote.
//!
//! The corpus (`tests/data/parsers`) holds one or a few good inputs for each, and those that once went wrong. Each is read
//! as it is, then changed at random, again and again; what is still accepted is changed further. The numbers are drawn from
//! a fixed seed, so a failure comes again. `UPDRAFT_FUZZ_EXECUTIONS` says how many for each parser; `tests/run fuzz` takes a
//! million.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "how much was tried is told")]

mod documents;
mod mutate;
mod records;
mod wire;

use mutate::Mutator;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Executions per parser where nothing else is said.
const EXECUTIONS: u64 = 2_000;
/// Inputs that were accepted and are changed further.
const POOL_MAX: usize = 256;

/// The good inputs of a parser.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/parsers").join(name);
    let entries = fs::read_dir(&folder).expect("the corpus is there");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("it is listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("it can be read")).collect()
}

/// Calls `accepts` with each of `corpus` and what mutations make of it. It says whether it took them.
fn fuzz(name: &str, corpus: Vec<Vec<u8>>, accepts: impl Fn(&[u8]) -> bool) {
    let executions = std::env::var("UPDRAFT_FUZZ_EXECUTIONS");
    let executions = executions.map_or(EXECUTIONS, |text| text.parse().expect("it is a number"));
    let run = |input: &[u8]| {
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| accepts(input)));
        let accepted = result.unwrap_or_else(|panic| {
            let path = std::env::temp_dir().join(format!("updraft-{name}.input"));
            fs::write(&path, input).expect("it can be written");
            eprintln!("{name}: the input is in {}", path.display());
            resume_unwind(panic)
        });
        (accepted, begun.elapsed())
    };
    assert!(corpus.iter().filter(|input| run(input).0).count() > 0, "{name}: nothing good is read");
    let (mut pool, originals) = (corpus.clone(), corpus.len());
    let mut mutator = Mutator::new(name);
    let (mut taken, mut slowest) = (0_u64, Duration::ZERO);
    for _ in 0..executions {
        let input = mutator.next(&pool);
        let (accepted, time) = run(&input);
        slowest = slowest.max(time);
        if accepted {
            taken += 1;
            match pool.len() {
                ..POOL_MAX => pool.push(input),
                POOL_MAX.. => pool[originals + mutator.below(POOL_MAX - originals)] = input,
            }
        }
    }
    println!("{name}: {executions} executions, {taken} accepted, the slowest {slowest:?}");
}
