//! The one question: may we upload to the internet?

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
    for _ in 0..3 {
        write!(out, "Upload to others on the internet? [y/n] ").ok()?;
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
