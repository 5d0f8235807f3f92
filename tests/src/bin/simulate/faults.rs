//! What goes wrong, and how much later everybody else is done for it.

use super::at_least_one;
use std::thread;
use updraft_protocol::simulation::{Crowd, FAULTS, Fault, Loss, Quantiles};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The faults by name; all of them if none is named.
    names: Vec<String>,
    /// Leechers beside the one seed.
    #[arg(long, default_value_t = 30, value_parser = at_least_one::<usize>)]
    leechers: usize,
    /// Pieces of the release, of 256 KiB.
    #[arg(long, default_value_t = 320, value_parser = at_least_one::<u32>)]
    pieces: u32,
    /// Home links of all kinds instead of equal ones.
    #[arg(long)]
    mixed: bool,
    /// Runs of each fault, with different luck.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<u64>)]
    seeds: u64,
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let known: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
    if let Some(unknown) = args.names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("no fault is called `{unknown}`; known: {}", known.join(" ")));
    }
    println!("fault      seeds  median   worst   bound");
    let mut beyond = Vec::new();
    let wanted =
        |fault: &&Fault| args.names.is_empty() || args.names.iter().any(|name| name == fault.name);
    for fault in FAULTS.iter().filter(wanted) {
        let losses: Result<Vec<Loss>, String> =
            (1..=args.seeds).map(|random| measure(fault, args, random)).collect();
        let losses = losses?;
        let median = Quantiles::new(losses.iter().map(|loss| loss.median).collect()).at(0.5);
        let worst = Quantiles::new(losses.iter().map(|loss| loss.worst).collect()).at(1.0);
        let (name, seeds, bound) = (fault.name, args.seeds, fault.bound);
        println!("{name:<10} {seeds:>5} {median:>7.3} {worst:>7.3} {bound:>7.3}  {}", fault.about);
        if worst > bound {
            beyond.push(name);
        }
    }
    if beyond.is_empty() {
        return Ok(());
    }
    Err(format!("beyond the bound: {}", beyond.join(" ")))
}

/// Runs a fault twice, which must be the same, and the crowd without it.
fn measure(fault: &Fault, args: &Args, random: u64) -> Result<Loss, String> {
    let base = if args.mixed { Crowd::mixed } else { Crowd::plain };
    let crowd = Crowd { random, ..base(args.leechers, args.pieces, 256 << 10) };
    let without = fault.without(&crowd);
    let (once, again) = thread::scope(|scope| {
        let again = scope.spawn(|| fault.run(&crowd, &without));
        (fault.run(&crowd, &without), again.join().expect("the simulator does not panic"))
    });
    if once.trace == again.trace {
        Ok(once)
    } else {
        Err(format!("{} with seed {random} is not the same when it is run again", fault.name))
    }
}
