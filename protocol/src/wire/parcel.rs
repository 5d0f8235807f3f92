//! Parcels: blocks that were asked for one by one and travel together, compressed.
//!
//! An extension (BEP 10) between our own clients. Requests stay as they are (BEP 3); whoever answers may
//! send several blocks in one message: one zstd frame (RFC 8878) that says how long its content is. The
//! content is
//!
//! ```text
//! count of blocks: u16 BE
//! for each: piece u32 BE, offset in it u32 BE, length u32 BE
//! the bytes of all of them, in that order
//! ```
//!
//! Each block counts as if it had come alone, and is verified as all are. Here is the content only;
//! compression is the shell's.

use super::message::REQUEST_BYTES_MAX;
use crate::geometry::Block;
use crate::ids::PieceIndex;
use bytes::{BufMut, Bytes};

/// The name of the extension.
pub const NAME: &str = "ud_parcels";
/// Blocks of one parcel at most: the last blocks of small files are short.
pub const BLOCKS_MAX: usize = 512;
/// Payload of one parcel at most, in bytes.
pub const BYTES_MAX: usize = 1 << 20;
/// The longest content.
pub const CONTENT_MAX: usize = 2 + BLOCKS_MAX * ENTRY_LEN + BYTES_MAX;

const ENTRY_LEN: usize = 12;

/// A content that no honest peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed parcel of blocks")]
pub struct Malformed;

/// Blocks on their way to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    blocks: Vec<Block>,
    bytes: Vec<u8>,
}

impl Parcel {
    /// Adds a block and its bytes; false if that would be too many for one parcel.
    ///
    /// # Panics
    /// If `bytes` has not the block's length.
    pub fn push(&mut self, block: Block, bytes: &[u8]) -> bool {
        assert_eq!(bytes.len(), block.len as usize, "a block's own bytes");
        if self.blocks.len() == BLOCKS_MAX || self.bytes.len() + bytes.len() > BYTES_MAX {
            return false;
        }
        self.blocks.push(block);
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// True without any block.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Payload, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Some bytes from the middle, at most `count`: what the rest is like.
    pub fn sample(&self, count: usize) -> &[u8] {
        let count = count.min(self.bytes.len());
        let from = (self.bytes.len() - count) / 2;
        &self.bytes[from..from + count]
    }

    /// The content of its message.
    pub fn content(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(2 + self.blocks.len() * ENTRY_LEN + self.bytes.len());
        content.put_u16(u16::try_from(self.blocks.len()).expect("a parcel has few blocks"));
        for block in &self.blocks {
            content.put_u32(block.piece.0);
            content.put_u32(block.offset);
            content.put_u32(block.len);
        }
        content.extend_from_slice(&self.bytes);
        content
    }

    /// The blocks one by one.
    pub fn into_blocks(self) -> Vec<(Block, Bytes)> {
        cut(self.blocks, &Bytes::from(self.bytes))
    }
}

/// Reads a content.
///
/// # Errors
/// [`Malformed`] if it has no blocks, too many, too long ones, or more or fewer bytes than they say.
pub fn parse(content: &Bytes) -> Result<Vec<(Block, Bytes)>, Malformed> {
    let (head, rest) = content.split_first_chunk::<2>().ok_or(Malformed)?;
    let count = usize::from(u16::from_be_bytes(*head));
    let (entries, payload) = rest.split_at_checked(count * ENTRY_LEN).ok_or(Malformed)?;
    if count == 0 || count > BLOCKS_MAX || payload.len() > BYTES_MAX {
        return Err(Malformed);
    }
    let word = |entry: &[u8], at: usize| {
        u32::from_be_bytes(entry[at..at + 4].try_into().expect("the slice is four bytes long"))
    };
    let blocks: Vec<Block> = entries
        .chunks_exact(ENTRY_LEN)
        .map(|entry| Block {
            piece: PieceIndex(word(entry, 0)),
            offset: word(entry, 4),
            len: word(entry, 8),
        })
        .collect();
    let fits = blocks.iter().all(|block| (1..=REQUEST_BYTES_MAX).contains(&block.len));
    let total: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
    if !fits || total != payload.len() as u64 {
        return Err(Malformed);
    }
    Ok(cut(blocks, &content.slice(content.len() - payload.len()..)))
}

fn cut(blocks: Vec<Block>, payload: &Bytes) -> Vec<(Block, Bytes)> {
    let mut at = 0;
    let cut = blocks.into_iter().map(|block| {
        let bytes = payload.slice(at..at + block.len as usize);
        at += bytes.len();
        (block, bytes)
    });
    cut.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(piece: u32, offset: u32, len: u32) -> Block {
        Block { piece: PieceIndex(piece), offset, len }
    }

    #[test]
    fn a_parcel_has_its_bounds() {
        let mut parcel = Parcel::default();
        let bytes = vec![0; BYTES_MAX / 4];
        for piece in 0..4 {
            assert!(parcel.push(block(piece, 0, u32::try_from(bytes.len()).unwrap()), &bytes));
        }
        assert!(!parcel.push(block(9, 0, 1), &[0]), "too many bytes");
        let mut parcel = Parcel::default();
        for piece in 0..u32::try_from(BLOCKS_MAX).unwrap() {
            assert!(parcel.push(block(piece, 0, 1), &[7]));
        }
        assert!(!parcel.push(block(9, 0, 1), &[0]), "too many blocks");
        assert!(parcel.content().len() <= CONTENT_MAX);
        assert_eq!(parcel.sample(3), [7; 3]);
    }

    #[test]
    fn what_does_not_add_up_is_malformed() {
        let mut parcel = Parcel::default();
        parcel.push(block(1, 16_384, 3), b"abc");
        let content = parcel.content();
        for len in 0..content.len() {
            assert_eq!(parse(&Bytes::copy_from_slice(&content[..len])), Err(Malformed), "{len}");
        }
        let longer = [&content[..], b"x"].concat();
        assert_eq!(parse(&longer.into()), Err(Malformed));
        assert_eq!(parse(&Bytes::from_static(&[0, 0])), Err(Malformed), "no block");
    }

    proptest! {
        #[test]
        fn blocks_come_over_unchanged(
            blocks in prop::collection::vec(
                (any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 1..2000)), 1..40)
        ) {
            let mut parcel = Parcel::default();
            let mut expected = Vec::new();
            for (piece, offset, bytes) in blocks {
                let block = block(piece, offset, u32::try_from(bytes.len()).unwrap());
                prop_assert!(parcel.push(block, &bytes));
                expected.push((block, Bytes::from(bytes)));
            }
            prop_assert_eq!(parse(&parcel.content().into()).unwrap(), expected.clone());
            prop_assert_eq!(parcel.into_blocks(), expected);
        }

        #[test]
        fn no_content_breaks_the_reader(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&content.into());
        }
    }
}
