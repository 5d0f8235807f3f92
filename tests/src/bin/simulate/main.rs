//! Runs a release day in the simulator: the shipping engine under virtual time, or its policy alone.
//!
//! ```text
//! simulate [--leechers N] [--mixed] [--pieces N] [--origin BYTES_PER_SECOND] …   engines, by the thousand
//! simulate scale [--leechers N,N,…] [--size BYTES] [--plot FILE] …              policy, by 100 000
//! simulate faults [NAME…] [--seeds N] …                                         what goes wrong, and its price
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod crowd;
mod faults;
mod plot;
mod scale;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Runs a flash crowd of shipping engines under virtual time")]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    crowd: crowd::Args,
}

#[derive(Subcommand)]
enum Command {
    /// How the time grows with the crowd: the policy alone, for up to 100 000 players. One line of JSON
    /// for each crowd.
    Scale(scale::Args),
    /// What goes wrong, and how much later everybody else is done for it.
    Faults(faults::Args),
}

/// A number of something that there must be.
fn at_least_one<T: std::str::FromStr + PartialOrd + Default>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| *number > T::default());
    number.ok_or_else(|| "name a number from 1".to_owned())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => {
            crowd::run(&cli.crowd);
            Ok(())
        }
        Some(Command::Scale(args)) => scale::run(args),
        Some(Command::Faults(args)) => faults::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("simulate: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
