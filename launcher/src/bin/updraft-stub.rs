//! `updraft-stub`: starts the launcher that lies beside it. It is never replaced, so it does nothing
//! else. Arguments, standard streams and exit code are the launcher's.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use updraft_launcher::home::{Home, trial};

fn main() -> ExitCode {
    let program = std::env::current_exe().and_then(dunce::canonicalize);
    let started = match program.as_deref().map(std::path::Path::parent) {
        Ok(Some(dir)) => {
            let arguments: Vec<_> = std::env::args_os().skip(1).collect();
            trial::start(&Home::at(dir), &arguments)
        }
        Ok(None) => Err("it does not know where it lies".to_owned()),
        Err(error) => Err(format!("it does not know where it lies: {error}")),
    };
    started.unwrap_or_else(|why| {
        trial::eprintln(&why);
        ExitCode::FAILURE
    })
}
