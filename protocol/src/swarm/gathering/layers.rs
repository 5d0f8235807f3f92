//! The piece layers of BEP 52, which a link does not bring: asked of peers in runs of at most 512 hashes,
//! each with the uncles that lead up to the file's root. So every answer is verified by itself, before
//! anything of it is used, and a wrong one has one author.

use crate::ids::{PeerKey, Sha256Hash};
use crate::merkle::{self, node, piece_level};
use crate::metainfo::trees::HASHES_MAX;
use crate::metainfo::{Info, TORRENT_BYTES_MAX};
use crate::wire::message::HashRange;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Requests at one peer that it has not answered.
const REQUESTS_MAX: usize = 8;
/// A request that is not answered for so long goes to somebody else.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rest of a peer that refused or was silent; doubles each time.
const REST: Duration = Duration::from_secs(4);
/// How often it doubles.
const RESTS_MAX: u32 = 5;

/// The layers under way.
#[derive(Debug)]
pub(super) struct Layers {
    /// Runs that are neither here nor asked for, the next one last.
    missing: Vec<HashRange>,
    /// By file root: its layer, as far as it is here, and how many hashes are still to come.
    layers: HashMap<Sha256Hash, Layer>,
    peers: BTreeMap<PeerKey, Source>,
}

#[derive(Debug)]
struct Layer {
    hashes: Vec<Sha256Hash>,
    missing: usize,
}

#[derive(Debug, Default)]
struct Source {
    asked: Vec<(HashRange, Duration)>,
    refusals: u32,
    rests_until: Duration,
}

impl Layers {
    /// What `info` lacks: nothing for a v1 torrent, nor for files of one piece. `None` if the layers are
    /// longer than any torrent file may be.
    pub(super) fn new(info: &Info) -> Option<Self> {
        let piece_length = u64::from(info.geometry.piece_length());
        let level = if info.is_v2() { piece_level(info.geometry.piece_length()) } else { 0 };
        let level = u32::try_from(level).expect("pieces are below 4 GiB");
        let (mut missing, mut layers) = (Vec::new(), HashMap::new());
        let mut bytes = info.raw.len() as u64;
        for file in &info.files {
            let (Some(root), true) = (file.root, file.layer.is_empty()) else { continue };
            let count = file.length.div_ceil(piece_length);
            bytes = bytes.saturating_add(count.saturating_mul(32));
            if bytes > TORRENT_BYTES_MAX as u64 {
                return None;
            }
            let count = u32::try_from(count).expect("bounded by the line before");
            // Of files with one root but different lengths only one can be right: the parser refuses them.
            layers.entry(root).or_insert_with(|| {
                missing.extend(ranges(root, level, count));
                let hashes = vec![Sha256Hash([0; 32]); count as usize];
                Layer { hashes, missing: count as usize }
            });
        }
        missing.reverse();
        Some(Self { missing, layers, peers: BTreeMap::new() })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.layers.values().all(|layer| layer.missing == 0)
    }

    /// Adds a peer that may be asked; again is no harm.
    pub(super) fn add(&mut self, peer: PeerKey) {
        self.peers.entry(peer).or_default();
    }

    /// Peers that may be asked.
    pub(super) fn sources(&self) -> usize {
        self.peers.len()
    }

    /// The peer is gone: others are asked.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        if let Some(source) = self.peers.remove(&peer) {
            self.missing.extend(source.asked.into_iter().map(|(range, _)| range));
        }
    }

    /// The peer does not answer this one.
    pub(super) fn on_reject(&mut self, now: Duration, peer: PeerKey, range: &HashRange) {
        let Some(source) = self.peers.get_mut(&peer) else { return };
        let Some(at) = source.asked.iter().position(|(asked, _)| asked == range) else { return };
        self.missing.push(source.asked.swap_remove(at).0);
        source.rest(now);
    }

    /// Takes an answer; false if it is a lie. What was not asked of this peer is passed over.
    pub(super) fn on_hashes(&mut self, peer: PeerKey, range: &HashRange, bytes: &[u8]) -> bool {
        let Some(source) = self.peers.get_mut(&peer) else { return true };
        let Some(at) = source.asked.iter().position(|(asked, _)| asked == range) else {
            return true;
        };
        self.missing.push(source.asked.swap_remove(at).0);
        let (hashes, rest) = bytes.as_chunks::<32>();
        let hashes: Vec<Sha256Hash> = hashes.iter().map(|hash| Sha256Hash(*hash)).collect();
        let Some(layer) = self.layers.get_mut(&range.root) else { return true };
        if !rest.is_empty() || !leads_to_root(range, &hashes, layer.hashes.len()) {
            return false;
        }
        self.missing.pop();
        source.refusals = 0;
        let here = &mut layer.hashes[range.index as usize..];
        let count = here.len().min(range.length as usize);
        here[..count].copy_from_slice(&hashes[..count]);
        layer.missing -= count;
        true
    }

    /// Takes back what was not answered, and says what to ask whom for.
    pub(super) fn asks(&mut self, now: Duration) -> Vec<(PeerKey, HashRange)> {
        for source in self.peers.values_mut() {
            let late = |asked_at: Duration| now.saturating_sub(asked_at) >= PATIENCE;
            if source.asked.iter().any(|(_, at)| late(*at)) {
                self.missing.extend(source.asked.drain(..).map(|(range, _)| range));
                source.rest(now);
            }
        }
        let mut asks = Vec::new();
        // One each in turn, so that several peers share the work.
        let mut more = true;
        while more && !self.missing.is_empty() {
            more = false;
            for (&peer, source) in &mut self.peers {
                if source.rests_until > now || source.asked.len() >= REQUESTS_MAX {
                    continue;
                }
                let Some(range) = self.missing.pop() else { break };
                source.asked.push((range, now));
                asks.push((peer, range));
                more = true;
            }
        }
        asks
    }

    /// What came: pairs of a file's root and its layer.
    pub(super) fn take(self) -> Vec<(Sha256Hash, Vec<Sha256Hash>)> {
        self.layers.into_iter().map(|(root, layer)| (root, layer.hashes)).collect()
    }
}

impl Source {
    fn rest(&mut self, now: Duration) {
        self.rests_until = now + REST * 2_u32.pow(self.refusals.min(RESTS_MAX));
        self.refusals += 1;
    }
}

/// The requests for a layer of `count` pieces, which is more than one.
fn ranges(root: Sha256Hash, base_layer: u32, count: u32) -> impl Iterator<Item = HashRange> {
    let width = count.next_power_of_two();
    let length = width.min(HASHES_MAX);
    // Counted from the pieces up to the layer below the root.
    let proof_layers = width.trailing_zeros() - 1;
    (0..count).step_by(length as usize).map(move |index| HashRange {
        root,
        base_layer,
        index,
        length,
        proof_layers,
    })
}

/// True if `hashes` (those asked for, then their uncles from below) lead to the root that `range` names,
/// in a layer of `count` pieces.
fn leads_to_root(range: &HashRange, hashes: &[Sha256Hash], count: usize) -> bool {
    let length = range.length as usize;
    let height = count.next_power_of_two().trailing_zeros() - range.length.trailing_zeros();
    let Some((asked, uncles)) = hashes.split_at_checked(length) else { return false };
    if uncles.len() != height as usize {
        return false;
    }
    let mut hash = merkle::root(asked.to_vec(), range.base_layer as usize, length);
    let mut at = range.index >> range.length.trailing_zeros();
    for uncle in uncles {
        hash = if at.is_multiple_of(2) { node(&hash, uncle) } else { node(uncle, &hash) };
        at /= 2;
    }
    hash == range.root
}
