//! `updraft-launcher`: the command line.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use updraft_launcher::cli::{self, args::Args};
use updraft_launcher::exit::Exit;
use updraft_launcher::home;

/// Threads for documents and the command line; transfers and hashing have their own.
const THREADS: usize = 2;

fn main() -> ExitCode {
    // Older consoles show colours only to who asks; one that cannot shows them to nobody.
    #[cfg(windows)]
    anstyle_query::windows::enable_ansi_colors();
    let args = Args::try_parse().unwrap_or_else(|told| {
        // Help and complaints are the work of a launcher that came up.
        home::report_healthy();
        told.exit()
    });
    let level = match args.verbose {
        // Having no way into the DHT is not worth an error: it is tried again.
        0 => "error,mainline=off",
        1 => "info,mainline=off",
        2.. => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("UPDRAFT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(cli::run(args));
            runtime.shutdown_background();
            exit.into()
        }
        Err(error) => {
            tracing::error!(%error, "the system gives no threads");
            Exit::Failed.into()
        }
    }
}
