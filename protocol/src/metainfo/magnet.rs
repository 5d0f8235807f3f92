//! Magnet links (BEP 9, BEP 53): a torrent's hashes, and hints where to find the rest.

use super::Metainfo;
use crate::ids::{InfoHash, InfoHashV2, InfoHashes};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt;
use std::ops::RangeInclusive;

/// The longest link that is read.
pub const MAGNET_BYTES_MAX: usize = 64 << 10;

/// The most trackers, web seeds and peers that are read; the rest is left out.
pub const HINTS_MAX: usize = 200;

/// The most runs of files that are read.
const SELECTED_MAX: usize = 1000;

/// Kept readable in parameters: what RFC 3986 calls unreserved, and the `:` of host and port.
const KEEP: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// A magnet link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnet {
    /// `xt`: at least one of the two.
    pub hashes: InfoHashes,
    /// `dn`: a name to show until the metadata is there.
    pub name: Option<String>,
    /// `tr`
    pub trackers: Vec<String>,
    /// `ws`: BEP 19 web seeds.
    pub web_seeds: Vec<String>,
    /// `x.pe`: peers as `host:port`.
    pub peers: Vec<String>,
    /// `so`: numbers of the files to fetch, as [`super::Info::file_numbers`]; none for all.
    pub select: Vec<RangeInclusive<u32>>,
}

/// Why a link was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// Another scheme.
    #[error("this is not a magnet link: it does not start with `magnet:?`")]
    Scheme,
    /// Longer than [`MAGNET_BYTES_MAX`].
    #[error("the magnet link is longer than {MAGNET_BYTES_MAX} bytes")]
    TooLong,
    /// An `xt=urn:bt…` that is no hash, or contradicts another one.
    #[error("`{text}` is not a BitTorrent info-hash, or a second one of its kind")]
    Hash {
        /// The value.
        text: String,
    },
    /// No hash we know.
    #[error("the magnet link names no BitTorrent info-hash (xt=urn:btih:… or xt=urn:btmh:1220…)")]
    NoHash,
}

impl Magnet {
    /// The link of a torrent, with all its trackers and web seeds.
    pub fn of(torrent: &Metainfo) -> Self {
        Self {
            hashes: torrent.info.hashes,
            name: Some(torrent.info.name.clone()),
            trackers: torrent.trackers.iter().flatten().cloned().collect(),
            web_seeds: torrent.web_seeds.clone(),
            peers: Vec::new(),
            select: Vec::new(),
        }
    }

    /// Reads a link. Parameters that are not ours are passed over.
    pub fn parse(link: &str) -> Result<Self, MagnetError> {
        if link.len() > MAGNET_BYTES_MAX {
            return Err(MagnetError::TooLong);
        }
        let query = match link.split_at_checked("magnet:?".len()) {
            Some((scheme, query)) if scheme.eq_ignore_ascii_case("magnet:?") => query,
            Some(_) | None => return Err(MagnetError::Scheme),
        };
        let mut hashes = InfoHashes { v1: None, v2: None };
        let (mut name, mut trackers, mut web_seeds, mut peers) = (None, vec![], vec![], vec![]);
        let mut select = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A plus is a space only where forms wrote the link, and only in names does it matter.
            let value = if key == "dn" { value.replace('+', " ") } else { value.to_owned() };
            let value = percent_decode_str(&value).decode_utf8_lossy().into_owned();
            // BEP 9 numbers repeated keys in some links: `tr.1`.
            let (key, number) = key.rsplit_once('.').unwrap_or((key, "0"));
            let numbered = number.bytes().all(|digit| digit.is_ascii_digit());
            match (key, number) {
                ("xt", _) if numbered => exact_topic(&value, &mut hashes)?,
                ("dn", _) if numbered => name = Some(value),
                ("tr", _) if numbered => push(&mut trackers, value),
                ("ws", _) if numbered => push(&mut web_seeds, value),
                ("x", "pe") => push(&mut peers, value),
                ("so", _) if numbered => select.extend(runs(&value).take(SELECTED_MAX)),
                _ => {}
            }
        }
        if hashes.v1.is_none() && hashes.v2.is_none() {
            return Err(MagnetError::NoHash);
        }
        select.truncate(SELECTED_MAX);
        Ok(Self { hashes, name, trackers, web_seeds, peers, select })
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("magnet:?")?;
        let mut join = "";
        if let Some(hash) = self.hashes.v1 {
            write!(f, "xt=urn:btih:{hash}")?;
            join = "&";
        }
        if let Some(hash) = self.hashes.v2 {
            write!(f, "{join}xt=urn:btmh:1220{hash}")?;
        }
        let name = self.name.iter().map(|name| ("dn", name));
        let trackers = self.trackers.iter().map(|url| ("tr", url));
        let web_seeds = self.web_seeds.iter().map(|url| ("ws", url));
        let peers = self.peers.iter().map(|peer| ("x.pe", peer));
        for (key, value) in name.chain(trackers).chain(web_seeds).chain(peers) {
            write!(f, "&{key}={}", utf8_percent_encode(value, KEEP))?;
        }
        for (at, run) in self.select.iter().enumerate() {
            f.write_str(if at == 0 { "&so=" } else { "," })?;
            match (run.start(), run.end()) {
                (start, end) if start == end => write!(f, "{start}")?,
                (start, end) => write!(f, "{start}-{end}")?,
            }
        }
        Ok(())
    }
}

/// Numbers and runs of them, as `0,2,4-7`; what is neither is passed over.
fn runs(text: &str) -> impl Iterator<Item = RangeInclusive<u32>> {
    text.split(',').filter_map(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(first..=last)
    })
}

fn push(list: &mut Vec<String>, value: String) {
    if !value.is_empty() && list.len() < HINTS_MAX && !list.contains(&value) {
        list.push(value);
    }
}

/// `urn:btih:` hexadecimal or base 32, `urn:btmh:` a multihash of SHA-256; other topics are not ours.
fn exact_topic(value: &str, hashes: &mut InfoHashes) -> Result<(), MagnetError> {
    let wrong = || MagnetError::Hash { text: value.to_owned() };
    let (v1, v2) = (hashes.v1, hashes.v2);
    if let Some(text) = value.strip_prefix("urn:btih:") {
        let hash = InfoHash::from_hex(text).or_else(|| base32(text)).ok_or_else(wrong)?;
        hashes.v1 = Some(hash);
    } else if let Some(text) = value.strip_prefix("urn:btmh:") {
        let hash = text.strip_prefix("1220").and_then(InfoHashV2::from_hex).ok_or_else(wrong)?;
        hashes.v2 = Some(hash);
    }
    let changed = v1.is_some_and(|old| hashes.v1 != Some(old))
        || v2.is_some_and(|old| hashes.v2 != Some(old));
    if changed { Err(wrong()) } else { Ok(()) }
}

/// RFC 4648 base 32 of 20 bytes: 32 letters, either case.
fn base32(text: &str) -> Option<InfoHash> {
    if text.len() != 32 {
        return None;
    }
    let mut out = [0; 20];
    for (group, letters) in out.chunks_exact_mut(5).zip(text.as_bytes().chunks_exact(8)) {
        let mut bits = 0u64;
        for letter in letters {
            let value = match letter.to_ascii_uppercase() {
                letter @ b'A'..=b'Z' => letter - b'A',
                digit @ b'2'..=b'7' => digit - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        group.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(InfoHash(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_v1_hash() {
        let hex = "magnet:?xt=urn:btih:000102030405060708090a0b0c0d0e0f10111213";
        let base = "MAGNET:?xt.1=urn:btih:aaaqeayeaudaocajbifqydiob4ibceqt&foo=bar&dn=a%20b";
        let link = Magnet::parse(base).unwrap();
        assert_eq!(link.name.as_deref(), Some("a b"));
        assert_eq!(Magnet { name: None, ..link }, Magnet::parse(hex).unwrap());
        assert_eq!(Magnet::parse(hex).unwrap().to_string(), hex);
    }

    #[test]
    fn a_hybrid_round_trip() {
        let link = Magnet {
            hashes: InfoHashes { v1: Some(InfoHash([1; 20])), v2: Some(InfoHashV2([2; 32])) },
            name: Some("a & b/ü+1".into()),
            trackers: vec!["http://t.example/a?b=c&d".into(), "udp://t.example:1".into()],
            web_seeds: vec!["http://w.example/".into()],
            peers: vec!["[::1]:6881".into()],
            select: vec![0..=0, 2..=2, 4..=7],
        };
        let text = link.to_string();
        assert!(text.is_ascii() && text.contains("xt=urn:btmh:12200202"), "{text}");
        assert!(text.ends_with("&so=0,2,4-7"), "{text}");
        assert_eq!(Magnet::parse(&text), Ok(link));
    }

    #[test]
    fn what_is_no_number_of_a_file_is_passed_over() {
        let hash = "0".repeat(40);
        let link = format!("magnet:?xt=urn:btih:{hash}&so=1,x,7-5,3-,-4,4294967296,%32,9-9");
        assert_eq!(Magnet::parse(&link).unwrap().select, [1..=1, 2..=2, 9..=9]);
    }

    #[test]
    fn refusals() {
        let zeros = "0".repeat(40);
        for (link, error) in [
            ("http://x", MagnetError::Scheme),
            ("magnet:?", MagnetError::NoHash),
            ("magnet:?xt=urn:sha1:x", MagnetError::NoHash),
            ("magnet:?xt=urn:btih:12", MagnetError::Hash { text: "urn:btih:12".into() }),
            (
                &format!("magnet:?xt=urn:btmh:1120{zeros}"),
                MagnetError::Hash { text: format!("urn:btmh:1120{zeros}") },
            ),
            (
                &format!("magnet:?xt=urn:btih:{zeros}&xt=urn:btih:1{}", &zeros[1..]),
                MagnetError::Hash { text: format!("urn:btih:1{}", &zeros[1..]) },
            ),
            (&"magnet:?".repeat(MAGNET_BYTES_MAX), MagnetError::TooLong),
        ] {
            assert_eq!(Magnet::parse(link), Err(error), "{}", &link[..link.len().min(80)]);
        }
    }
}
