//! The names of things: info-hashes, peer ids, and indices that cannot be mixed up.

use std::fmt;

/// Formats bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Parses exactly `N` bytes of hexadecimal, either case.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads the lower- or upper-case hexadecimal form.
            pub fn from_hex(text: &str) -> Option<Self> {
                from_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

hash_type! {
    /// The 20 bytes that name a swarm in handshakes and announces: SHA-1 of a v1 info dictionary
    /// (BEP 3), or the first 20 bytes of the SHA-256 of a v2 one (BEP 52).
    InfoHash, 20
}
hash_type! {
    /// The full SHA-256 of a v2 info dictionary (BEP 52).
    InfoHashV2, 32
}
hash_type! {
    /// A SHA-256 digest: a leaf, a node or the `pieces root` of a file (BEP 52).
    Sha256Hash, 32
}
hash_type! {
    /// The SHA-1 digest of a piece (BEP 3).
    Sha1Hash, 20
}

impl InfoHashV2 {
    /// The form used wherever only 20 bytes fit: handshakes, trackers, DHT.
    pub fn truncated(&self) -> InfoHash {
        let mut out = [0; 20];
        out.copy_from_slice(&self.0[..20]);
        InfoHash(out)
    }
}

/// Both names of a torrent; a hybrid has two, every other kind one (BEP 52).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InfoHashes {
    /// SHA-1 of the info dictionary, when it holds v1 pieces.
    pub v1: Option<InfoHash>,
    /// SHA-256 of the info dictionary, when it holds a v2 file tree.
    pub v2: Option<InfoHashV2>,
}

impl InfoHashes {
    /// Every 20-byte hash this torrent answers to, v1 first: one or two.
    pub fn swarm_hashes(&self) -> impl Iterator<Item = InfoHash> + use<> {
        self.v1.into_iter().chain(self.v2.map(|hash| hash.truncated()))
    }

    /// True if `hash` is one of ours.
    pub fn contains(&self, hash: InfoHash) -> bool {
        self.swarm_hashes().any(|own| own == hash)
    }

    /// The hash used to key local state: v2 when there is one.
    pub fn best(&self) -> InfoHash {
        self.v2.map(|hash| hash.truncated()).or(self.v1).expect("a torrent has v1 or v2 metadata")
    }
}

/// The 20 bytes a peer calls itself by (BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

impl PeerId {
    /// Our client prefix in the Azureus style: `UD`, then the version digits.
    pub const PREFIX: &'static [u8; 8] = b"-UD0100-";

    /// Our own kind of id with twelve bytes of caller-supplied randomness.
    pub fn ours(random: [u8; 12]) -> Self {
        let mut id = [0; 20];
        id[..8].copy_from_slice(Self::PREFIX);
        id[8..].copy_from_slice(&random);
        Self(id)
    }

    /// True if it names our own client, of any version. Anybody can say so: nothing but who takes
    /// turns with whom may hang on it.
    pub fn is_ours(&self) -> bool {
        self.0.starts_with(&Self::PREFIX[..3])
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            if byte.is_ascii_graphic() {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

macro_rules! index_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The index as a slice position.
            pub fn get(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index_type! {
    /// The number of a piece, from 0.
    PieceIndex
}
index_type! {
    /// The number of a file in the torrent's order, pad files not counted, from 0.
    FileIndex
}
index_type! {
    /// One connection to one peer, unique for the life of a session.
    PeerKey
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip_and_refusals() {
        let hash = InfoHash::from_hex("00ff10AB00ff10ab00ff10ab00ff10ab00ff10ab").unwrap();
        assert_eq!(hash.to_string(), "00ff10ab00ff10ab00ff10ab00ff10ab00ff10ab");
        assert_eq!(InfoHash::from_hex("00"), None);
        assert_eq!(InfoHash::from_hex(&"zz".repeat(20)), None);
        assert_eq!(InfoHash::from_hex(&"é".repeat(20)), None);
    }
}
