//! The 68 bytes that open a connection (BEP 3, reserved bits of BEP 5, 6, 10 and 52).

use crate::ids::{InfoHash, PeerId};

/// Length of a handshake in bytes.
pub const HANDSHAKE_LEN: usize = 68;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// What a peer can do, from the eight reserved bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// BEP 10 extension messages.
    pub extensions: bool,
    /// BEP 6 fast extension.
    pub fast: bool,
    /// BEP 52: speaks v2, and would rather use the v2 info-hash of a hybrid.
    pub v2: bool,
    /// BEP 5: has a node in the DHT, and tells its port.
    pub dht: bool,
}

/// An opening handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The swarm.
    pub info_hash: InfoHash,
    /// The sender.
    pub peer_id: PeerId,
    /// The sender's abilities.
    pub abilities: Abilities,
}

/// The first bytes were not BitTorrent's: another protocol, or an encrypted stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer did not open with a BitTorrent handshake")]
pub struct NotBitTorrent;

impl Handshake {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut out = [0; HANDSHAKE_LEN];
        out[..20].copy_from_slice(PROTOCOL);
        if self.abilities.extensions {
            out[25] |= 0x10;
        }
        if self.abilities.fast {
            out[27] |= 0x04;
        }
        if self.abilities.v2 {
            out[27] |= 0x10;
        }
        if self.abilities.dht {
            out[27] |= 0x01;
        }
        out[28..48].copy_from_slice(&self.info_hash.0);
        out[48..].copy_from_slice(&self.peer_id.0);
        out
    }

    /// Reads what a peer sent.
    pub fn parse(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, NotBitTorrent> {
        if !bytes.starts_with(PROTOCOL) {
            return Err(NotBitTorrent);
        }
        let part = |at: usize| -> [u8; 20] {
            bytes[at..at + 20].try_into().expect("the slice is twenty bytes long")
        };
        Ok(Self {
            info_hash: InfoHash(part(28)),
            peer_id: PeerId(part(48)),
            abilities: Abilities {
                extensions: bytes[25] & 0x10 != 0,
                fast: bytes[27] & 0x04 != 0,
                v2: bytes[27] & 0x10 != 0,
                dht: bytes[27] & 0x01 != 0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusal() {
        for bits in 0..16u8 {
            let sent = Handshake {
                info_hash: InfoHash([7; 20]),
                peer_id: PeerId::ours([9; 12]),
                abilities: Abilities {
                    extensions: bits & 1 != 0,
                    fast: bits & 2 != 0,
                    v2: bits & 4 != 0,
                    dht: bits & 8 != 0,
                },
            };
            assert_eq!(Handshake::parse(&sent.encode()), Ok(sent));
        }
        assert_eq!(Handshake::parse(&[0; HANDSHAKE_LEN]), Err(NotBitTorrent));
    }
}
