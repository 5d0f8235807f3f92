//! Updraft's own extension, `ud_documents` (BEP 10): the small files of a product (roots, head,
//! manifests, torrents, side files) travel between launchers over the peer connection, named by
//! their path in the repository. Nothing that comes this way is trusted: the receiver verifies it
//! exactly as if it had come from the origin.
//!
//! A payload is a dictionary, with `t` for its kind and `path` for the document, then raw bytes for
//! data. Unknown kinds and keys are skipped, so the family can grow.

use crate::bencode::{self, encode_dict};
use bytes::Bytes;

/// The longest path of a document.
pub const PATH_BYTES_MAX: usize = 200;
/// The longest document that travels this way: an info dictionary of 8 MiB with its layers.
pub const DOCUMENT_BYTES_MAX: u32 = 32 << 20;
/// Bytes of a document in one message.
pub const CHUNK: u32 = 64 * 1024;

/// One message of the family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentMessage {
    /// Asks for up to [`CHUNK`] bytes of a document.
    Want {
        /// Repository path.
        path: String,
        /// First byte.
        at: u32,
    },
    /// Bytes of a document.
    Have {
        /// Repository path.
        path: String,
        /// First byte.
        at: u32,
        /// Length of the whole document.
        size: u32,
        /// The bytes.
        data: Bytes,
    },
    /// The document is not here.
    Lack {
        /// Repository path.
        path: String,
    },
}

impl DocumentMessage {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Want { path, at } => encode_dict(|dict| {
                dict.key(b"at").int(i64::from(*at));
                dict.key(b"path").bytes(path.as_bytes());
                dict.key(b"t").int(0);
            })
            .into(),
            Self::Have { path, at, size, data } => {
                let mut out = encode_dict(|dict| {
                    dict.key(b"at").int(i64::from(*at));
                    dict.key(b"path").bytes(path.as_bytes());
                    dict.key(b"size").int(i64::from(*size));
                    dict.key(b"t").int(1);
                });
                out.extend_from_slice(data);
                out.into()
            }
            Self::Lack { path } => encode_dict(|dict| {
                dict.key(b"path").bytes(path.as_bytes());
                dict.key(b"t").int(2);
            })
            .into(),
        }
    }

    /// Reads what a peer sent; `None` for what is not understood or out of bounds: to be skipped.
    pub fn parse(payload: &Bytes) -> Option<Self> {
        let (value, used) = bencode::parse_prefix(payload).ok()?;
        let dict = value.dict()?;
        let number = |key: &[u8]| dict.get(key)?.int().and_then(|n| u32::try_from(n).ok());
        let path =
            dict.get(b"path")?.text().filter(|path| path.len() <= PATH_BYTES_MAX)?.to_owned();
        match number(b"t")? {
            0 => Some(Self::Want { path, at: number(b"at")? }),
            1 => {
                let (at, size, data) = (number(b"at")?, number(b"size")?, payload.slice(used..));
                let end = u64::from(at) + data.len() as u64;
                let fits = size <= DOCUMENT_BYTES_MAX
                    && data.len() <= CHUNK as usize
                    && end <= u64::from(size);
                fits.then_some(Self::Have { path, at, size, data })
            }
            2 => Some(Self::Lack { path }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        for message in [
            DocumentMessage::Want { path: "head.toml".into(), at: 65_536 },
            DocumentMessage::Lack { path: "root/2.toml".into() },
            DocumentMessage::Have {
                path: "root/1.toml".into(),
                at: 5,
                size: 9,
                data: Bytes::from_static(b"e4:x"),
            },
        ] {
            assert_eq!(DocumentMessage::parse(&message.encode()), Some(message));
        }
    }

    #[test]
    fn claims_beyond_the_bounds_are_skipped() {
        let have = |at, size, len: usize| DocumentMessage::Have {
            path: "a".into(),
            at,
            size,
            data: vec![0; len].into(),
        };
        assert_eq!(DocumentMessage::parse(&have(0, DOCUMENT_BYTES_MAX + 1, 1).encode()), None);
        assert_eq!(DocumentMessage::parse(&have(9, 9, 1).encode()), None);
        assert_eq!(DocumentMessage::parse(&have(0, 99_999, CHUNK as usize + 1).encode()), None);
        let long = DocumentMessage::Lack { path: "x".repeat(PATH_BYTES_MAX + 1) };
        assert_eq!(DocumentMessage::parse(&long.encode()), None);
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_skipped(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = DocumentMessage::parse(&bytes.into());
        }
    }
}
