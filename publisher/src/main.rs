//! `updraft-publisher`: see the library.
#![forbid(unsafe_code)]

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Older consoles take what moves the cursor for text unless they are asked.
    #[cfg(windows)]
    anstyle_query::windows::enable_ansi_colors();
    let cli = updraft_publisher::cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("UPDRAFT_LOG")
                .unwrap_or_else(|_| "error,mainline=off".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let out = cli.output();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
