//! The torrent of a release as the difference to that of an earlier one.
//!
//! A torrent lists every file with its hashes: for ten thousand files that is more than most updates
//! carry. Nearly all of it is as in the release before, so it travels as one zstd frame (RFC 8878)
//! whose history begins with the old torrent. Both sides take the torrents bare, info dictionary and
//! piece layers alone, so that trackers and comments do not matter. The result counts only by its
//! info-hash.

use std::io::{self, Read, Write};
use zstd::stream::{read, write};

/// zstd's level: a publisher makes a few of these for each release.
const LEVEL: i32 = 19;
/// The largest window, as a power of two: the old and the new torrent fit.
const WINDOW_LOG_MAX: u32 = 27;

/// What makes `new` out of `old`. The same input makes the same bytes.
///
/// # Errors
/// From zstd, when memory runs out.
pub fn encode(old: &[u8], new: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = write::Encoder::with_ref_prefix(Vec::new(), LEVEL, old)?;
    let window = (old.len() + new.len()).next_power_of_two().ilog2();
    encoder.window_log(window.clamp(10, WINDOW_LOG_MAX))?;
    encoder.set_pledged_src_size(Some(new.len() as u64))?;
    encoder.include_checksum(false)?;
    encoder.write_all(new)?;
    encoder.finish()
}

/// What `delta` makes out of `old`: at most `bytes_max` bytes.
///
/// # Errors
/// If it is not such a delta, or makes more.
pub fn decode(old: &[u8], delta: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut decoder = read::Decoder::with_ref_prefix(delta, old)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut new = Vec::new();
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut new)?;
    if new.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it makes more than a torrent has"));
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn little_for_a_small_change() {
        let mut noise = 1_u64;
        let old: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.to_be_bytes()[0]
        })
        .take(3 << 20)
        .collect();
        let mut new = old.clone();
        new.splice(1_000_000..1_000_032, [7; 64]);
        let delta = encode(&old, &new).unwrap();
        assert!(delta.len() < 1024, "{}", delta.len());
        assert_eq!(decode(&old, &delta, new.len()).unwrap(), new);
        assert!(decode(&old, &delta, new.len() - 1).is_err());
    }

    #[test]
    fn nonsense_and_bombs_are_refused() {
        assert!(decode(b"old", b"not zstd", 100).is_err());
        let bomb = encode(b"", &vec![0; 1 << 20]).unwrap();
        assert!(bomb.len() < 1000 && decode(b"", &bomb, 1 << 19).is_err());
    }

    proptest! {
        #[test]
        fn read_as_written(old: Vec<u8>, new: Vec<u8>) {
            let delta = encode(&old, &new).unwrap();
            prop_assert_eq!(decode(&old, &delta, new.len()).unwrap(), new);
        }
    }
}
