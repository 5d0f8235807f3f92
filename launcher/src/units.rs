//! Numbers as people write and read them: bytes, rates, times.

use std::time::Duration;

/// `1536` as `1.5 KiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Seventeen digits are more than a display needs.
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 file`, `2 files`.
pub fn files(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// `3.2 s`, `4 min 10 s`, `2 h 5 min`.
pub fn time(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600.. => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Reads `500K`, `2.5M`, `1G`, `800 KiB`, `2MB/s` or a plain number of bytes per second. K, M and G
/// are powers of 1024, whatever follows them. `0`, `off` and `unlimited` are no limit.
///
/// # Errors
/// A sentence saying what is accepted.
pub fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    let refuse = || format!("`{text}` is not a rate: write bytes per second like 500K, 2.5M or 1G");
    let lower = text.trim().to_ascii_lowercase();
    if lower == "off" || lower == "unlimited" {
        return Ok(None);
    }
    let lower = lower.strip_suffix("/s").unwrap_or(&lower);
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let factor = match unit.trim() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(refuse()),
    };
    let value = number.parse::<f64>().map_err(|_| refuse())? * factor;
    if !(0.0..1e15).contains(&value) {
        return Err(refuse());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let value = value as u64;
    Ok((value > 0).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!([0, 1, 2].map(files), ["0 files", "1 file", "2 files"]);
        assert_eq!(time(Duration::from_millis(3210)), "3.2 s");
        assert_eq!(time(Duration::from_secs(250)), "4 min 10 s");
        assert_eq!(time(Duration::from_secs(7500)), "2 h 5 min");
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate("500K"), Ok(Some(512_000)));
        assert_eq!(parse_rate("2.5MiB/s"), Ok(Some(2_621_440)));
        assert_eq!(parse_rate("7"), Ok(Some(7)));
        assert_eq!(parse_rate("0"), Ok(None));
        assert_eq!(parse_rate("off"), Ok(None));
        for bad in ["", "K", "-1", "1X", "1e9", "nan", "99999999999999G"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
