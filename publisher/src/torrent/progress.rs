//! One line of progress on a terminal; nothing elsewhere.

use crate::output;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often the line is written again.
const INTERVAL: Duration = Duration::from_millis(100);

/// Told by many threads; writes to stderr.
#[derive(Debug)]
pub struct Progress {
    verb: &'static str,
    started: Instant,
    written: Option<Mutex<Instant>>,
}

impl Progress {
    /// A line that starts with `verb`.
    pub fn new(verb: &'static str) -> Self {
        let now = Instant::now();
        let written = std::io::stderr().is_terminal().then(|| Mutex::new(now));
        Self { verb, started: now, written }
    }

    /// Tells that `done` of `total` bytes are done.
    pub fn tell(&self, done: u64, total: u64) {
        // Whoever finds the line taken leaves it to the other thread.
        let Some(Ok(mut written)) = self.written.as_ref().map(Mutex::try_lock) else { return };
        if written.elapsed() < INTERVAL {
            return;
        }
        *written = Instant::now();
        let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100);
        let ms = self.started.elapsed().as_millis().max(1);
        let rate = u64::try_from(u128::from(done) * 1000 / ms).unwrap_or(u64::MAX);
        let (done, total, rate) = (output::bytes(done), output::bytes(total), output::bytes(rate));
        let line = format!("{} {percent:>3}%  {done} of {total}  {rate}/s", self.verb);
        let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.written.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
