//! What the program says: plain lines for people, or one JSON object per line.

use serde_json::{Value, json};
use std::io::Write as _;

/// Where and how results are told.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// Lines of text, or of JSON.
    pub fn new(json: bool) -> Self {
        Self { json, quiet: false }
    }

    /// Says nothing; for tests.
    pub fn silent() -> Self {
        Self { json: false, quiet: true }
    }

    /// Tells of `event`: `text` for people, `fields` (an object) for programs.
    pub fn tell(&self, event: &str, text: impl AsRef<str>, fields: Value) {
        if self.quiet {
            return;
        }
        let line = if self.json {
            let mut object = json!({ "event": event });
            if let (Value::Object(all), Value::Object(fields)) = (&mut object, fields) {
                all.extend(fields);
            }
            object.to_string()
        } else {
            text.as_ref().to_owned()
        };
        if line.is_empty() {
            return;
        }
        // A closed pipe is no reason to fail: who does not read does not care.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
    }

    /// A warning: on stderr for people.
    pub fn warn(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        if self.quiet {
            return;
        }
        if self.json {
            self.tell("warning", "", json!({ "message": text }));
        } else {
            let _ = writeln!(std::io::stderr(), "warning: {text}");
        }
    }

    /// The reason for a failure.
    pub fn error(&self, error: &crate::Error) {
        if self.quiet {
            return;
        }
        if self.json {
            let fields = json!({ "message": error.to_string(), "exit_code": error.exit_code() });
            self.tell("error", "", fields);
        } else {
            let _ = writeln!(std::io::stderr(), "error: {error}");
        }
    }
}

/// Bytes for people: `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(super::bytes(count), text);
        }
    }
}
