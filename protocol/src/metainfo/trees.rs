//! Answers to BEP 52 hash requests: parts of the SHA-256 trees of files, down to the roots of pieces.
//!
//! A client that came by a magnet link has the info dictionary and none of the piece layers; without
//! these it cannot verify a piece of a large file. Each answer comes with the uncles that lead up to
//! the file's root, so that it is verified by itself. What lies below pieces is not kept.

use super::Info;
use crate::ids::{FileIndex, Sha256Hash};
use crate::merkle::{node, piece_level, zero};
use crate::wire::message::HashRange;
use std::collections::HashMap;
use std::sync::Arc;

/// Hashes of one request at most (BEP 52: not more than 512 should be asked for).
pub const HASHES_MAX: u32 = 512;

/// The trees of a torrent's files.
#[derive(Debug)]
pub struct Trees {
    info: Arc<Info>,
    /// Files of more than one piece, by their root; made when somebody asks.
    by_root: Option<HashMap<Sha256Hash, FileIndex>>,
    /// The trees that were asked for, from the pieces' level up: twice the layers at the most.
    built: HashMap<Sha256Hash, Vec<Vec<Sha256Hash>>>,
}

impl Trees {
    /// The trees of `info`; costs nothing yet.
    pub fn new(info: Arc<Info>) -> Self {
        Self { info, by_root: None, built: HashMap::new() }
    }

    /// The hashes that `range` asks for, then the uncles, from below. `None` if the torrent has no such
    /// file or does not know its layer, if leaves below the pieces are asked for, or if BEP 52 does not
    /// allow such a request.
    pub fn answer(&mut self, range: &HashRange) -> Option<Vec<Sha256Hash>> {
        let base_level = piece_level(self.info.geometry.piece_length());
        let (index, length) = (range.index as usize, range.length as usize);
        let base = usize::try_from(range.base_layer).ok()?.checked_sub(base_level)?;
        let allowed = (2..=HASHES_MAX).contains(&range.length)
            && range.length.is_power_of_two()
            && range.index.is_multiple_of(range.length);
        if !allowed {
            return None;
        }
        let levels = self.levels(&range.root)?;
        let width = 1_usize << (levels.len() - 1).checked_sub(base)?;
        if index + length > width {
            return None;
        }
        let hash = |level: usize, at: usize| {
            levels[level].get(at).copied().unwrap_or_else(|| zero(base_level + level))
        };
        let mut hashes: Vec<Sha256Hash> =
            (index..index + length).map(|at| hash(base, at)).collect();
        // The subtree above what was asked for is made of it; its siblings on the way up are not.
        let subtree = range.length.trailing_zeros() as usize;
        let last = (range.proof_layers as usize).min(levels.len() - 1 - base);
        for above in subtree..=last {
            let (level, at) = (base + above, index >> above);
            if level + 1 < levels.len() {
                hashes.push(hash(level, at ^ 1));
            }
        }
        Some(hashes)
    }

    fn levels(&mut self, root: &Sha256Hash) -> Option<&[Vec<Sha256Hash>]> {
        if !self.built.contains_key(root) {
            let file = *self.by_root().get(root)?;
            let base_level = piece_level(self.info.geometry.piece_length());
            let levels = levels_above(&self.info.files[file.get()].layer, base_level);
            self.built.insert(*root, levels);
        }
        self.built.get(root).map(Vec::as_slice)
    }

    fn by_root(&mut self) -> &HashMap<Sha256Hash, FileIndex> {
        let files = &self.info.files;
        self.by_root.get_or_insert_with(|| {
            let large = (0..).zip(files).filter(|(_, file)| file.layer.len() > 1);
            large.filter_map(|(index, file)| Some((file.root?, FileIndex(index)))).collect()
        })
    }
}

/// A layer and all above it, up to the root. Missing hashes at the end of a layer are left out.
fn levels_above(layer: &[Sha256Hash], level: usize) -> Vec<Vec<Sha256Hash>> {
    let height = layer.len().next_power_of_two().trailing_zeros() as usize;
    let mut levels = vec![layer.to_vec()];
    for above in 0..height {
        let below = &levels[above];
        let missing = zero(level + above);
        let next = below.chunks(2).map(|pair| node(&pair[0], pair.get(1).unwrap_or(&missing)));
        levels.push(next.collect());
    }
    levels
}

#[cfg(test)]
#[cfg(feature = "io")]
mod tests {
    use super::*;
    use crate::io::create;
    use crate::merkle;
    use crate::metainfo::create::{Format, Options};
    use proptest::prelude::*;

    /// One file of so many pieces of 32 KiB, the last one short.
    fn trees(pieces: usize) -> (Trees, Sha256Hash) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; pieces * 32_768 - 5];
        fastrand::Rng::with_seed(pieces as u64).fill(&mut bytes);
        std::fs::write(dir.path().join("file"), bytes).unwrap();
        let source = create::scan(&dir.path().join("file")).unwrap();
        let options =
            Options { format: Format::V2, piece_length: Some(32_768), ..Options::default() };
        let info = create::create(&source, &options, &|_, _| {}).unwrap().info;
        let root = info.files[0].root.unwrap();
        (Trees::new(Arc::new(info)), root)
    }

    /// Whether an answer to `range` leads to the root that it names, for a file of `pieces` pieces whose
    /// layer stands `level` levels above the leaves.
    fn is_right(range: &HashRange, hashes: &[Sha256Hash], level: usize, pieces: usize) -> bool {
        let length = range.length as usize;
        let base = range.base_layer as usize;
        let Some((asked, uncles)) = hashes.split_at_checked(length) else { return false };
        let subtree = range.length.trailing_zeros() as usize;
        let top = level + pieces.next_power_of_two().trailing_zeros() as usize;
        if base + subtree + uncles.len() != top {
            return false;
        }
        let mut hash = merkle::root(asked.to_vec(), base, length);
        let mut at = range.index as usize >> subtree;
        for uncle in uncles {
            hash = if at.is_multiple_of(2) { node(&hash, uncle) } else { node(uncle, &hash) };
            at /= 2;
        }
        hash == range.root
    }

    fn range(root: Sha256Hash, base_layer: u32, index: u32, length: u32, proofs: u32) -> HashRange {
        HashRange { root, base_layer, index, length, proof_layers: proofs }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_part_of_a_layer_leads_to_the_root(
            pieces in 2_usize..40, length in 1_u32..6, at in any::<prop::sample::Index>(),
        ) {
            let (mut trees, root) = trees(pieces);
            let height = pieces.next_power_of_two().trailing_zeros();
            let length = 1 << length.min(height);
            let index = u32::try_from(at.index(1 << height)).unwrap() / length * length;
            let asked = range(root, 1, index, length, height - 1);
            let hashes = trees.answer(&asked).unwrap();
            prop_assert!(is_right(&asked, &hashes, 1, pieces));
            let expected: Vec<_> = trees.info.files[0].layer.iter().copied()
                .skip(index as usize).take(length as usize).collect();
            prop_assert_eq!(&hashes[..expected.len()], &expected[..]);
            let mut wrong = hashes.clone();
            wrong[at.index(hashes.len())].0[7] ^= 1;
            prop_assert!(!is_right(&asked, &wrong, 1, pieces));
        }
    }

    #[test]
    fn what_may_not_be_asked_for_is_not_answered() {
        let (mut trees, root) = trees(9);
        assert!(trees.answer(&range(root, 1, 0, 16, 4)).is_some());
        assert!(trees.answer(&range(root, 2, 4, 4, 3)).is_some(), "a higher layer");
        for bad in [
            range(root, 0, 0, 2, 4),
            range(root, 1, 1, 2, 4),
            range(root, 1, 0, 1, 4),
            range(root, 1, 0, 3, 4),
            range(root, 1, 16, 2, 4),
            range(root, 1, 0, 32, 4),
            range(root, 1, u32::MAX - 1, 2, 4),
            range(root, u32::MAX, 0, 2, u32::MAX),
            range(root, 5, 0, 2, 0),
            range(Sha256Hash([1; 32]), 1, 0, 2, 4),
        ] {
            assert_eq!(trees.answer(&bad), None, "{bad:?}");
        }
    }
}
