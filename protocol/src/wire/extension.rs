//! The extension handshake (BEP 10) and the metadata messages (BEP 9) that answer magnet links.

use super::{holepunch, parcel, pex};
use crate::bencode::{self, encode_dict};
use bytes::Bytes;

/// Our numbers for the extensions we take; told to the peer in the handshake's `m`.
pub mod ours {
    /// BEP 9 `ut_metadata`.
    pub const METADATA: u8 = 1;
    /// Updraft's documents, see [`crate::wire::documents`].
    pub const DOCUMENTS: u8 = 2;
    /// BEP 11 `ut_pex`, see [`crate::wire::pex`].
    pub const PEX: u8 = 3;
    /// Blocks that travel compressed together, see [`crate::wire::parcel`].
    pub const PARCELS: u8 = 4;
    /// BEP 55 `ut_holepunch`, see [`crate::wire::holepunch`].
    pub const HOLEPUNCH: u8 = 5;
}

/// The name of the document extension.
pub const DOCUMENTS_NAME: &str = "ud_documents";
const METADATA_NAME: &str = "ut_metadata";
const SPREAD_NAME: &[u8] = b"ud_spread";
const PICKS_NAME: &[u8] = b"ud_picks";
const QUIC_NAME: &[u8] = b"ud_quic";

/// Bytes of one piece of metadata (BEP 9).
pub const METADATA_PIECE: usize = 16 * 1024;

/// What an extension handshake says, as far as we use it. All of it is the peer's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionHandshake {
    /// The peer's number for `ut_metadata`; `None` if it has none.
    pub metadata: Option<u8>,
    /// The peer's number for the document extension: it is an Updraft client.
    pub documents: Option<u8>,
    /// The peer's number for peer exchange; `None` if it has none.
    pub pex: Option<u8>,
    /// The sender's number for [`crate::wire::parcel`], if it takes them.
    pub parcels: Option<u8>,
    /// The sender's number for [`crate::wire::holepunch`], if it speaks that.
    pub holepunch: Option<u8>,
    /// Length of the info dictionary.
    pub metadata_size: Option<u32>,
    /// Where the sender listens.
    pub listen_port: Option<u16>,
    /// Requests the sender keeps queued for us.
    pub requests_max: Option<u32>,
    /// Name and version of the client.
    pub client: Option<String>,
    /// BEP 21: wants nothing any more.
    pub upload_only: bool,
    /// The sender is a publisher's seed that gives each piece to somebody once before any twice: only
    /// the pieces it suggests (BEP 6) are to be asked of it, until it says otherwise.
    pub spread: bool,
    /// The sender wants some pieces only, or some first: a seed that spreads is to suggest it nothing
    /// and give it what it asks for.
    pub picks: bool,
    /// The UDP port where the sender speaks this protocol over QUIC.
    pub quic: Option<u16>,
}

impl ExtensionHandshake {
    /// The payload of extension message 0.
    pub fn encode(&self) -> Bytes {
        Bytes::from(encode_dict(|dict| {
            dict.key(b"m").dict(|m| {
                if let Some(id) = self.documents {
                    m.key(DOCUMENTS_NAME.as_bytes()).int(i64::from(id));
                }
                if let Some(id) = self.parcels {
                    m.key(parcel::NAME.as_bytes()).int(i64::from(id));
                }
                if let Some(id) = self.holepunch {
                    m.key(holepunch::NAME.as_bytes()).int(i64::from(id));
                }
                if let Some(id) = self.metadata {
                    m.key(METADATA_NAME.as_bytes()).int(i64::from(id));
                }
                if let Some(id) = self.pex {
                    m.key(pex::NAME.as_bytes()).int(i64::from(id));
                }
            });
            if let Some(size) = self.metadata_size {
                dict.key(b"metadata_size").int(i64::from(size));
            }
            if let Some(port) = self.listen_port {
                dict.key(b"p").int(i64::from(port));
            }
            if let Some(requests) = self.requests_max {
                dict.key(b"reqq").int(i64::from(requests));
            }
            if self.picks {
                dict.key(PICKS_NAME).int(1);
            }
            if let Some(port) = self.quic {
                dict.key(QUIC_NAME).int(i64::from(port));
            }
            if self.spread {
                dict.key(SPREAD_NAME).int(1);
            }
            if self.upload_only {
                dict.key(b"upload_only").int(1);
            }
            if let Some(client) = &self.client {
                dict.key(b"v").bytes(client.as_bytes());
            }
        }))
    }

    /// Reads what a peer sent; `None` if it is no dictionary. Entries of a wrong type count as
    /// absent.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (value, _) = bencode::parse_prefix(payload).ok()?;
        let dict = value.dict()?;
        let number = |key: &[u8]| dict.get(key).and_then(bencode::Value::int);
        let port = |key| number(key).and_then(|n| u16::try_from(n).ok()).filter(|&port| port != 0);
        let extension = |name: &str| {
            let id = dict.get(b"m")?.dict()?.get(name.as_bytes())?.int()?;
            u8::try_from(id).ok().filter(|&id| id != 0)
        };
        let client = dict.get(b"v").and_then(bencode::Value::bytes).map(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            text.chars().filter(|c| !c.is_control()).take(64).collect()
        });
        Some(Self {
            metadata: extension(METADATA_NAME),
            documents: extension(DOCUMENTS_NAME),
            pex: extension(pex::NAME),
            parcels: extension(parcel::NAME),
            holepunch: extension(holepunch::NAME),
            metadata_size: number(b"metadata_size").and_then(|n| u32::try_from(n).ok()),
            listen_port: port(b"p"),
            requests_max: number(b"reqq").and_then(|n| u32::try_from(n).ok()).filter(|&n| n != 0),
            client,
            upload_only: number(b"upload_only") == Some(1),
            spread: number(SPREAD_NAME) == Some(1),
            picks: number(PICKS_NAME) == Some(1),
            quic: port(QUIC_NAME),
        })
    }
}

/// A metadata message (BEP 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataMessage {
    /// Asks for a piece of the info dictionary.
    Request {
        /// Its number.
        piece: u32,
    },
    /// A piece of the info dictionary.
    Data {
        /// Its number.
        piece: u32,
        /// Length of the whole info dictionary.
        total: u32,
        /// The bytes.
        data: Bytes,
    },
    /// The piece will not come.
    Reject {
        /// Its number.
        piece: u32,
    },
}

impl MetadataMessage {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        let head = |kind: i64, piece: u32, total: Option<u32>| {
            encode_dict(|dict| {
                dict.key(b"msg_type").int(kind);
                dict.key(b"piece").int(i64::from(piece));
                if let Some(total) = total {
                    dict.key(b"total_size").int(i64::from(total));
                }
            })
        };
        match self {
            Self::Request { piece } => head(0, *piece, None).into(),
            Self::Reject { piece } => head(2, *piece, None).into(),
            Self::Data { piece, total, data } => {
                let mut out = head(1, *piece, Some(*total));
                out.extend_from_slice(data);
                out.into()
            }
        }
    }

    /// Reads what a peer sent; `None` for what is not understood, which is to be skipped.
    pub fn parse(payload: &Bytes) -> Option<Self> {
        let (value, used) = bencode::parse_prefix(payload).ok()?;
        let dict = value.dict()?;
        let number = |key: &[u8]| dict.get(key)?.int().and_then(|n| u32::try_from(n).ok());
        let piece = number(b"piece")?;
        match number(b"msg_type")? {
            0 => Some(Self::Request { piece }),
            1 => {
                let total = number(b"total_size")?;
                Some(Self::Data { piece, total, data: payload.slice(used..) })
            }
            2 => Some(Self::Reject { piece }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn handshake_round_trip() {
        let full = ExtensionHandshake {
            metadata: Some(ours::METADATA),
            documents: Some(ours::DOCUMENTS),
            pex: Some(ours::PEX),
            parcels: Some(ours::PARCELS),
            holepunch: Some(ours::HOLEPUNCH),
            metadata_size: Some(1234),
            listen_port: Some(7601),
            requests_max: Some(2000),
            client: Some("Updraft 0.1".into()),
            upload_only: true,
            spread: true,
            picks: true,
            quic: Some(7602),
        };
        assert_eq!(ExtensionHandshake::parse(&full.encode()), Some(full));
        let none = ExtensionHandshake::default();
        assert_eq!(ExtensionHandshake::parse(&none.encode()), Some(none));
    }

    #[test]
    fn odd_entries_count_as_absent() {
        let text = b"d1:mi3e1:pi99999e4:reqqi-1e1:v2:\xff\x07e";
        let read = ExtensionHandshake::parse(text).unwrap();
        assert_eq!((read.listen_port, read.requests_max, read.metadata), (None, None, None));
        assert_eq!(ExtensionHandshake::parse(b"le"), None);
    }

    #[test]
    fn metadata_round_trip() {
        for message in [
            MetadataMessage::Request { piece: 3 },
            MetadataMessage::Reject { piece: 0 },
            MetadataMessage::Data { piece: 1, total: 20_000, data: Bytes::from_static(b"d4:...") },
        ] {
            assert_eq!(MetadataMessage::parse(&message.encode()), Some(message));
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_skipped(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ExtensionHandshake::parse(&bytes);
            let _ = MetadataMessage::parse(&bytes.into());
        }
    }
}
