//! The messages after the handshake: BEP 3, fast extension (BEP 6), extension messages (BEP 10) and
//! the hash messages of BEP 52.

use crate::geometry::Block;
use crate::ids::{PieceIndex, Sha256Hash};
use bytes::{BufMut, Bytes, BytesMut};

/// The longest message taken from a peer, in bytes after the length prefix: a bitfield of
/// [`crate::geometry::PIECES_MAX`] pieces is the largest honest one.
pub const MESSAGE_BYTES_MAX: usize = (1 << 20) + 16;

/// The longest block a peer may ask for: 128 KiB, as other clients allow. We ask for 16 KiB.
pub const REQUEST_BYTES_MAX: u32 = 128 * 1024;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing but a sign of life.
    KeepAlive,
    /// No more requests are answered.
    Choke,
    /// Requests are answered.
    Unchoke,
    /// The sender wants something of the receiver.
    Interested,
    /// The sender wants nothing of the receiver.
    NotInterested,
    /// The sender has verified this piece.
    Have(PieceIndex),
    /// What the sender has, as the first message only.
    Bitfield(Bytes),
    /// Asks for a block.
    Request(Block),
    /// A block's bytes.
    Piece {
        /// The piece.
        piece: PieceIndex,
        /// First byte within the piece.
        offset: u32,
        /// The bytes.
        data: Bytes,
    },
    /// Takes a request back.
    Cancel(Block),
    /// The sender's DHT port (BEP 5).
    Port(u16),
    /// BEP 6: a piece that the sender could serve cheaply.
    Suggest(PieceIndex),
    /// BEP 6: the sender has everything.
    HaveAll,
    /// BEP 6: the sender has nothing.
    HaveNone,
    /// BEP 6: this request will not be answered.
    Reject(Block),
    /// BEP 6: this piece is served even while choked.
    AllowedFast(PieceIndex),
    /// BEP 10: `id` 0 is the extension handshake, others as the receiver numbered them.
    Extended {
        /// Number of the extension.
        id: u8,
        /// Its payload.
        payload: Bytes,
    },
    /// On the way out only: an extension message whose payload is a compressed
    /// [`crate::wire::parcel::Parcel`]. It comes as [`Message::Extended`].
    Parcel {
        /// Number of the extension.
        id: u8,
        /// Its payload.
        frame: Bytes,
        /// Bytes of the blocks in it.
        plain: u32,
    },
    /// BEP 52: asks for hashes of a file's tree.
    HashRequest(HashRange),
    /// BEP 52: answers with hashes. Those that were not asked for are passed over.
    Hashes {
        /// What was asked for.
        range: HashRange,
        /// The hashes, then the uncles, 32 bytes each.
        hashes: Bytes,
    },
    /// BEP 52: the hashes asked for will not come.
    HashReject(HashRange),
    /// A message of a kind not known here; peers may send them, and they are skipped.
    Unknown(u8),
}

/// What a BEP 52 hash request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    /// The file, by its pieces root.
    pub root: Sha256Hash,
    /// Layer, counted from the leaves.
    pub base_layer: u32,
    /// First hash of the layer.
    pub index: u32,
    /// Number of hashes.
    pub length: u32,
    /// Number of proof layers.
    pub proof_layers: u32,
}

/// A message that no honest peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes (at most {MESSAGE_BYTES_MAX} are taken)")]
    TooLong(u32),
    /// The length does not fit the kind.
    #[error("a message of kind {kind} with {len} bytes")]
    WrongLength {
        /// Kind byte.
        kind: u8,
        /// Payload length.
        len: usize,
    },
}

/// The length of the message at the front of `bytes`, length prefix included, once the prefix is
/// there.
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some(prefix) = bytes.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_be_bytes(*prefix);
    if len as usize > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong(len));
    }
    Ok(Some(4 + len as usize))
}

/// Reads one whole message, the length prefix cut off. Payloads are slices of `body`.
pub fn decode(body: &Bytes) -> Result<Message, WireError> {
    let Some((&kind, rest)) = body.split_first() else { return Ok(Message::KeepAlive) };
    let wrong = WireError::WrongLength { kind, len: rest.len() };
    let word = |at: usize| {
        u32::from_be_bytes(rest[at..at + 4].try_into().expect("the slice is four bytes long"))
    };
    let sized = |len: usize| if rest.len() == len { Ok(()) } else { Err(wrong) };
    let block = || Block { piece: PieceIndex(word(0)), offset: word(4), len: word(8) };
    let hash_range = || HashRange {
        root: Sha256Hash(rest[..32].try_into().expect("the slice is 32 bytes long")),
        base_layer: word(32),
        index: word(36),
        length: word(40),
        proof_layers: word(44),
    };
    let message = match kind {
        0 => sized(0).map(|()| Message::Choke)?,
        1 => sized(0).map(|()| Message::Unchoke)?,
        2 => sized(0).map(|()| Message::Interested)?,
        3 => sized(0).map(|()| Message::NotInterested)?,
        4 => sized(4).map(|()| Message::Have(PieceIndex(word(0))))?,
        5 => Message::Bitfield(body.slice(1..)),
        6 => sized(12).map(|()| Message::Request(block()))?,
        7 if rest.len() >= 8 => {
            Message::Piece { piece: PieceIndex(word(0)), offset: word(4), data: body.slice(9..) }
        }
        7 => return Err(wrong),
        8 => sized(12).map(|()| Message::Cancel(block()))?,
        9 => sized(2).map(|()| Message::Port(u16::from_be_bytes([rest[0], rest[1]])))?,
        13 => sized(4).map(|()| Message::Suggest(PieceIndex(word(0))))?,
        14 => sized(0).map(|()| Message::HaveAll)?,
        15 => sized(0).map(|()| Message::HaveNone)?,
        16 => sized(12).map(|()| Message::Reject(block()))?,
        17 => sized(4).map(|()| Message::AllowedFast(PieceIndex(word(0))))?,
        20 if !rest.is_empty() => Message::Extended { id: rest[0], payload: body.slice(2..) },
        20 => return Err(wrong),
        21 => sized(48).map(|()| Message::HashRequest(hash_range()))?,
        22 if rest.len() >= 48 && rest.len() % 32 == 16 => {
            Message::Hashes { range: hash_range(), hashes: body.slice(1 + 48..) }
        }
        22 => return Err(wrong),
        23 => sized(48).map(|()| Message::HashReject(hash_range()))?,
        other => Message::Unknown(other),
    };
    Ok(message)
}

/// Appends `message` to `out`, but for the data of a [`Message::Piece`], which the caller sends
/// right after: payload is not copied.
pub fn encode(message: &Message, out: &mut BytesMut) {
    let plain = |out: &mut BytesMut, kind: u8| {
        out.put_u32(1);
        out.put_u8(kind);
    };
    let index = |out: &mut BytesMut, kind: u8, piece: PieceIndex| {
        out.put_u32(5);
        out.put_u8(kind);
        out.put_u32(piece.0);
    };
    let block = |out: &mut BytesMut, kind: u8, block: &Block| {
        out.put_u32(13);
        out.put_u8(kind);
        out.put_u32(block.piece.0);
        out.put_u32(block.offset);
        out.put_u32(block.len);
    };
    let hashes = |out: &mut BytesMut, kind: u8, range: &HashRange| {
        out.put_u32(49);
        out.put_u8(kind);
        out.put_slice(&range.root.0);
        for word in [range.base_layer, range.index, range.length, range.proof_layers] {
            out.put_u32(word);
        }
    };
    let length = |bytes: &Bytes, more: usize| {
        u32::try_from(bytes.len() + more).expect("our own messages are short")
    };
    match message {
        Message::KeepAlive => out.put_u32(0),
        Message::Choke => plain(out, 0),
        Message::Unchoke => plain(out, 1),
        Message::Interested => plain(out, 2),
        Message::NotInterested => plain(out, 3),
        Message::Have(piece) => index(out, 4, *piece),
        Message::Bitfield(bytes) => {
            out.put_u32(length(bytes, 1));
            out.put_u8(5);
            out.put_slice(bytes);
        }
        Message::Request(which) => block(out, 6, which),
        Message::Piece { piece, offset, data } => {
            out.put_u32(length(data, 9));
            out.put_u8(7);
            out.put_u32(piece.0);
            out.put_u32(*offset);
        }
        Message::Cancel(which) => block(out, 8, which),
        Message::Port(port) => {
            out.put_u32(3);
            out.put_u8(9);
            out.put_u16(*port);
        }
        Message::Suggest(piece) => index(out, 13, *piece),
        Message::HaveAll => plain(out, 14),
        Message::HaveNone => plain(out, 15),
        Message::Reject(which) => block(out, 16, which),
        Message::AllowedFast(piece) => index(out, 17, *piece),
        Message::Extended { id, payload } => {
            out.put_u32(length(payload, 2));
            out.put_u8(20);
            out.put_u8(*id);
            out.put_slice(payload);
        }
        Message::Parcel { id, frame, .. } => {
            out.put_u32(length(frame, 2));
            out.put_u8(20);
            out.put_u8(*id);
        }
        Message::HashRequest(range) => hashes(out, 21, range),
        Message::HashReject(range) => hashes(out, 23, range),
        Message::Hashes { range, hashes: found } => {
            let from = out.len();
            hashes(out, 22, range);
            out[from..from + 4].copy_from_slice(&length(found, 49).to_be_bytes());
            out.put_slice(found);
        }
        Message::Unknown(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_block() -> impl Strategy<Value = Block> {
        any::<(u32, u32, u32)>().prop_map(|(piece, offset, len)| Block {
            piece: PieceIndex(piece),
            offset,
            len,
        })
    }

    fn any_bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from)
    }

    fn any_range() -> impl Strategy<Value = HashRange> {
        any::<([u8; 32], u32, u32)>().prop_map(|(root, index, length)| HashRange {
            root: Sha256Hash(root),
            base_layer: 0,
            index,
            length,
            proof_layers: 3,
        })
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let index = || any::<u32>().prop_map(PieceIndex);
        prop_oneof![
            Just(Message::KeepAlive),
            Just(Message::Choke),
            Just(Message::Unchoke),
            Just(Message::Interested),
            Just(Message::NotInterested),
            Just(Message::HaveAll),
            Just(Message::HaveNone),
            index().prop_map(Message::Have),
            index().prop_map(Message::Suggest),
            index().prop_map(Message::AllowedFast),
            any_bytes().prop_map(Message::Bitfield),
            any_block().prop_map(Message::Request),
            any_block().prop_map(Message::Cancel),
            any_block().prop_map(Message::Reject),
            any::<u16>().prop_map(Message::Port),
            (any::<u8>(), any_bytes()).prop_map(|(id, payload)| Message::Extended { id, payload }),
            (index(), any::<u32>(), any_bytes()).prop_map(|(piece, offset, data)| Message::Piece {
                piece,
                offset,
                data
            }),
            any_range().prop_map(Message::HashRequest),
            any_range().prop_map(Message::HashReject),
            (any_range(), prop::collection::vec(any::<[u8; 32]>(), 0..5)).prop_map(
                |(range, hashes)| Message::Hashes { range, hashes: hashes.concat().into() }
            ),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(message in any_message()) {
            let mut out = BytesMut::new();
            encode(&message, &mut out);
            if let Message::Piece { data, .. } = &message {
                out.put_slice(data);
            }
            let out = out.freeze();
            prop_assert_eq!(frame_len(&out), Ok(Some(out.len())));
            prop_assert_eq!(decode(&out.slice(4..)), Ok(message));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in any_bytes()) {
            let _ = frame_len(&bytes);
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_message_of_a_gigabyte_is_refused_at_its_prefix() {
        assert_eq!(frame_len(&[0x40, 0, 0, 0]), Err(WireError::TooLong(0x4000_0000)));
        assert_eq!(frame_len(&[0, 0]), Ok(None));
    }
}
