//! A set of piece indices of a fixed universe, in the bit order of BEP 3 (high bit first).

use crate::ids::PieceIndex;

/// Which of `len` pieces are in the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
    count: u32,
}

impl Bitfield {
    /// The empty set over `len` pieces.
    pub fn empty(len: u32) -> Self {
        Self { bytes: vec![0; len.div_ceil(8) as usize], len, count: 0 }
    }

    /// The full set over `len` pieces.
    pub fn full(len: u32) -> Self {
        let mut bytes = vec![0xff; len.div_ceil(8) as usize];
        if let Some(last) = bytes.last_mut().filter(|_| !len.is_multiple_of(8)) {
            *last = 0xff << (8 - len % 8);
        }
        Self { bytes, len, count: len }
    }

    /// Reads the payload of a BITFIELD message. `None` if the length is wrong or a spare bit is set.
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        let spare = Self::full(len);
        if bytes.iter().zip(&spare.bytes).any(|(byte, mask)| byte & !mask != 0) {
            return None;
        }
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(Self { bytes: bytes.to_vec(), len, count })
    }

    /// The payload of a BITFIELD message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many pieces the universe has.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// How many pieces are in the set.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// True if no piece is in the set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True if every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// True if `piece` is in the set. A piece outside the universe is not.
    pub fn has(&self, piece: PieceIndex) -> bool {
        piece.0 < self.len && self.bytes[piece.get() / 8] & (0x80 >> (piece.0 % 8)) != 0
    }

    /// Adds `piece`; true if it was not there before.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        assert!(piece.0 < self.len, "piece {piece} of {}", self.len);
        let (byte, bit) = (&mut self.bytes[piece.get() / 8], 0x80 >> (piece.0 % 8));
        let new = *byte & bit == 0;
        *byte |= bit;
        self.count += u32::from(new);
        new
    }

    /// Removes `piece`; true if it was there before.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        assert!(piece.0 < self.len, "piece {piece} of {}", self.len);
        let (byte, bit) = (&mut self.bytes[piece.get() / 8], 0x80 >> (piece.0 % 8));
        let old = *byte & bit != 0;
        *byte &= !bit;
        self.count -= u32::from(old);
        old
    }

    /// The pieces in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.bytes.iter().zip(0u32..).flat_map(|(&byte, at)| {
            (0..8)
                .filter(move |bit| byte & (0x80 >> bit) != 0)
                .map(move |bit| PieceIndex(at * 8 + bit))
        })
    }

    /// True if `other` has a piece that is not in this set.
    pub fn lacks_any_of(&self, other: &Self) -> bool {
        self.bytes.iter().zip(&other.bytes).any(|(own, theirs)| theirs & !own != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(len in 1u32..70, ops in prop::collection::vec((any::<bool>(), 0u32..70), 0..200)) {
            let (mut field, mut oracle) = (Bitfield::empty(len), BTreeSet::new());
            for (add, at) in ops {
                let piece = PieceIndex(at % len);
                if add {
                    prop_assert_eq!(field.insert(piece), oracle.insert(piece));
                } else {
                    prop_assert_eq!(field.remove(piece), oracle.remove(&piece));
                }
            }
            prop_assert_eq!(field.count() as usize, oracle.len());
            prop_assert_eq!(field.iter().collect::<Vec<_>>(), oracle.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Bitfield::from_bytes(field.as_bytes(), len), Some(field.clone()));
            prop_assert!(Bitfield::full(len).is_full());
            prop_assert_eq!(field.lacks_any_of(&Bitfield::full(len)), !field.is_full());
        }
    }

    #[test]
    fn spare_bits_and_wrong_lengths_are_refused() {
        assert!(Bitfield::from_bytes(&[0xff], 7).is_none());
        assert!(Bitfield::from_bytes(&[0xfe], 7).is_some());
        assert!(Bitfield::from_bytes(&[0, 0], 7).is_none());
        assert!(Bitfield::full(16).as_bytes() == [0xff, 0xff]);
    }
}
