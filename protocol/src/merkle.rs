//! The SHA-256 trees of BEP 52: 16 KiB leaves, binary nodes, missing leaves as 32 zero bytes.
//!
//! A root alone does not name a file: leaves and nodes are hashed alike, so a 64-byte file that
//! holds two leaf hashes has the root of the 32 KiB file with those leaves. Identity is the pair
//! (length, root), always.

use crate::geometry::BLOCK_LEN;
use crate::ids::Sha256Hash;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// Levels of the tallest tree: 2^48 leaves are more bytes than a length can say.
pub const LEVELS_MAX: usize = 49;

/// The hash of one leaf: at most 16 KiB of a file.
pub fn leaf(data: &[u8]) -> Sha256Hash {
    Sha256Hash(Sha256::digest(data).into())
}

/// The hash of a node above two others.
pub fn node(left: &Sha256Hash, right: &Sha256Hash) -> Sha256Hash {
    let mut sha = Sha256::new();
    sha.update(left.0);
    sha.update(right.0);
    Sha256Hash(sha.finalize().into())
}

/// The root of a subtree of 2^`level` missing leaves.
///
/// Panics if `level` is not below [`LEVELS_MAX`].
pub fn zero(level: usize) -> Sha256Hash {
    static ZEROS: LazyLock<[Sha256Hash; LEVELS_MAX]> = LazyLock::new(|| {
        let mut zeros = [Sha256Hash([0; 32]); LEVELS_MAX];
        for level in 1..LEVELS_MAX {
            zeros[level] = node(&zeros[level - 1], &zeros[level - 1]);
        }
        zeros
    });
    ZEROS[level]
}

/// The root above `hashes`, which stand `level` levels above the leaves (0: they are leaves),
/// filled up with missing ones to `width`, or to the next power of two if that is more.
///
/// The root of nothing is that of one missing subtree.
pub fn root(mut hashes: Vec<Sha256Hash>, mut level: usize, width: usize) -> Sha256Hash {
    let mut width = hashes.len().max(width).max(1).next_power_of_two();
    while width > 1 {
        let pairs = hashes.len().div_ceil(2);
        for pair in 0..pairs {
            let missing = zero(level);
            let right = hashes.get(pair * 2 + 1).unwrap_or(&missing);
            hashes[pair] = node(&hashes[pair * 2], right);
        }
        hashes.truncate(pairs);
        level += 1;
        width /= 2;
    }
    hashes.first().copied().unwrap_or_else(|| zero(level))
}

/// How many levels above the leaves the roots of pieces of `piece_length` bytes stand.
///
/// `piece_length` is a power of two of at least 16 KiB.
pub fn piece_level(piece_length: u32) -> usize {
    (piece_length / BLOCK_LEN).trailing_zeros() as usize
}

/// The `pieces root` of a file of more than one piece, from its piece layer.
pub fn root_of_layer(layer: &[Sha256Hash], piece_length: u32) -> Sha256Hash {
    root(layer.to_vec(), piece_level(piece_length), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// BEP 52 in plain recursion: the oracle.
    fn slow_root(leaves: &[Sha256Hash]) -> Sha256Hash {
        match leaves {
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(leaves.len() / 2);
                node(&slow_root(left), &slow_root(right))
            }
        }
    }

    proptest! {
        #[test]
        fn padded_roots_agree_with_the_oracle(count in 0usize..40, width in 0usize..70, piece_leaves in 0u32..4) {
            let leaves: Vec<_> = (0..count).map(|n| leaf(&n.to_le_bytes())).collect();
            let full = count.max(width).max(1).next_power_of_two();
            let mut padded = leaves.clone();
            padded.resize(full, Sha256Hash([0; 32]));
            prop_assert_eq!(root(leaves.clone(), 0, width), slow_root(&padded));
            // By way of a piece layer.
            let per_piece = 1usize << piece_leaves;
            if count > per_piece {
                let layer: Vec<_> =
                    leaves.chunks(per_piece).map(|piece| root(piece.to_vec(), 0, per_piece)).collect();
                padded.truncate(count);
                padded.resize(count.next_power_of_two(), Sha256Hash([0; 32]));
                prop_assert_eq!(root_of_layer(&layer, BLOCK_LEN << piece_leaves), slow_root(&padded));
            }
        }
    }

    #[test]
    fn a_root_does_not_tell_a_leaf_from_a_node() {
        let halves = [[1u8; BLOCK_LEN as usize], [2u8; BLOCK_LEN as usize]];
        let leaves = halves.map(|half| leaf(&half));
        let long_file = root(leaves.to_vec(), 0, 1);
        let short_file = [leaves[0].0, leaves[1].0].concat();
        assert_eq!(short_file.len(), 64);
        // 64 bytes and 32 KiB, one root: only (length, root) is an identity.
        assert_eq!(leaf(&short_file), long_file);
    }
}
