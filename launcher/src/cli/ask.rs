//! What the player is asked: may we upload to the internet, may we do without a way back?

use crate::error::Error;
use std::io::{IsTerminal, Write, stderr, stdin};

/// True if somebody sits there to answer.
pub(super) fn is_possible() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks; `None` if there was no answer.
pub(super) fn upload() -> Option<bool> {
    let mut out = stderr();
    writeln!(
        out,
        "This product is delivered by its players to each other: while it downloads, and with `seed`\n\
         or `--stay` afterwards, your computer can send parts of it to others on the internet. They\n\
         then see your IP address. You can limit it (--up-limit) and change your mind at any time\n\
         (--upload yes|no). Computers in your own network are always served."
    )
    .ok()?;
    yes_or_no("Upload to others on the internet?")
}

/// Asks whether files may be replaced one after the other, where `error` says that space is short.
pub(super) fn bounded(error: &Error) -> bool {
    let told = writeln!(
        stderr(),
        "{error}. The files can be replaced one after the other instead. Until the last one is, the\n\
         game cannot be played and there is no way back to the release that is installed now."
    );
    told.is_ok() && yes_or_no("Replace them one after the other?") == Some(true)
}

fn yes_or_no(question: &str) -> Option<bool> {
    let mut out = stderr();
    for _ in 0..3 {
        write!(out, "{question} [y/n] ").ok()?;
        out.flush().ok()?;
        let mut line = String::new();
        if stdin().read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return Some(true),
            "n" | "no" => return Some(false),
            _ => {}
        }
    }
    None
}
