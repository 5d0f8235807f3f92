//! The info dictionary by BEP 9, from peers that may lie about its length, its bytes, or be silent.
//!
//! A few peers are asked at once, each for all of it: pieces of several are never put together, so what
//! does not hash is the work of one peer, and no liar can spoil what an honest one gives. Whoever is slow
//! makes place for others after a while, and gets a longer turn the next time.

use crate::ids::{InfoHashes, PeerKey};
use crate::metainfo::INFO_BYTES_MAX;
use crate::wire::extension::METADATA_PIECE;
use bytes::{Bytes, BytesMut};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::time::Duration;

/// Peers that are asked at once, each for all of it: what they send is held in memory.
const ATTEMPTS_MAX: usize = 3;
/// Pieces asked of one peer and not yet here.
const REQUESTS_MAX: usize = 8;
/// A peer that gives nothing for so long has had its turn.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A first turn, if others wait; each later one of the same peer is twice as long as the one before.
const TURN: Duration = Duration::from_secs(15);
/// How often turns double.
const TURNS_MAX: u32 = 8;
/// Rest of a peer whose turn came to nothing.
const REST: Duration = Duration::from_secs(5);

/// The dictionary under way.
#[derive(Debug)]
pub(super) struct Dictionary {
    hashes: InfoHashes,
    sources: BTreeMap<PeerKey, Source>,
}

/// A peer that says that it has the dictionary.
#[derive(Debug)]
struct Source {
    /// How long the dictionary is by its word; 0 while it gives none that anybody takes.
    size: usize,
    turns: u32,
    rests_until: Duration,
    attempt: Option<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    pieces: Vec<Option<Bytes>>,
    /// Pieces before this one have been asked for.
    next: usize,
    here: usize,
    began: Duration,
    /// When a piece came last.
    heard: Duration,
}

/// What a message meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// More is needed, or it was nothing we wait for.
    Wait,
    /// The peer lied.
    Lie,
    /// These are the bytes that the link names.
    Whole(Bytes),
}

impl Dictionary {
    pub(super) fn new(hashes: InfoHashes) -> Self {
        Self { hashes, sources: BTreeMap::new() }
    }

    /// A peer says how long the dictionary is; `None` or a length nobody takes: it is of no use.
    pub(super) fn on_size(&mut self, now: Duration, peer: PeerKey, size: Option<u32>) {
        let size = size.map_or(0, |size| size as usize);
        let size = if size <= INFO_BYTES_MAX { size } else { 0 };
        let new = Source { size, turns: 0, rests_until: now, attempt: None };
        let source = self.sources.entry(peer).or_insert(new);
        if source.size != size {
            // Or whoever says another one again and again would never have had its turn.
            if source.attempt.is_some() {
                source.end_turn(now);
            }
            source.size = size;
        }
    }

    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.sources.remove(&peer);
    }

    /// Peers that say that they have it.
    pub(super) fn sources(&self) -> usize {
        self.sources.values().filter(|source| source.size > 0).count()
    }

    pub(super) fn on_data(
        &mut self,
        now: Duration,
        peer: PeerKey,
        piece: u32,
        total: u32,
        data: &Bytes,
    ) -> Verdict {
        let Some(source) = self.sources.get_mut(&peer) else { return Verdict::Wait };
        let Some(attempt) = &mut source.attempt else { return Verdict::Wait };
        let piece = piece as usize;
        if piece >= attempt.next || attempt.pieces[piece].is_some() {
            return Verdict::Wait; // Of an earlier turn, perhaps.
        }
        let expected = METADATA_PIECE.min(source.size - piece * METADATA_PIECE);
        if total as usize != source.size || data.len() != expected {
            return Verdict::Lie;
        }
        attempt.pieces[piece] = Some(Bytes::copy_from_slice(data)); // Not the buffer that it came in.
        attempt.here += 1;
        attempt.heard = now;
        if attempt.here < attempt.pieces.len() {
            return Verdict::Wait;
        }
        let mut whole = BytesMut::with_capacity(source.size);
        attempt.pieces.iter().flatten().for_each(|piece| whole.extend_from_slice(piece));
        if is_named(&self.hashes, &whole) { Verdict::Whole(whole.freeze()) } else { Verdict::Lie }
    }

    /// The peer will not give a piece: perhaps it does not have the dictionary either.
    pub(super) fn on_reject(&mut self, now: Duration, peer: PeerKey) {
        if let Some(source) = self.sources.get_mut(&peer)
            && source.attempt.is_some()
        {
            source.end_turn(now);
        }
    }

    /// Ends turns, begins others, and says which pieces to ask whom for.
    pub(super) fn asks(&mut self, now: Duration) -> Vec<(PeerKey, u32)> {
        let waits = |source: &Source| {
            source.size > 0 && source.attempt.is_none() && source.rests_until <= now
        };
        let others = self.sources.values().any(waits);
        for source in self.sources.values_mut() {
            let Some(attempt) = &source.attempt else { continue };
            let turn = TURN * 2_u32.pow(source.turns.min(TURNS_MAX));
            let silent = now.saturating_sub(attempt.heard) >= SILENCE_MAX;
            if silent || (others && now.saturating_sub(attempt.began) >= turn) {
                source.end_turn(now);
            }
        }
        let busy = self.sources.values().filter(|source| source.attempt.is_some()).count();
        let mut idle: Vec<_> = self.sources.values_mut().filter(|source| waits(source)).collect();
        idle.sort_by_key(|source| source.turns);
        for source in idle.into_iter().take(ATTEMPTS_MAX.saturating_sub(busy)) {
            let count = source.size.div_ceil(METADATA_PIECE);
            let pieces = vec![None; count];
            source.attempt = Some(Attempt { pieces, next: 0, here: 0, began: now, heard: now });
        }
        let mut asks = Vec::new();
        for (&peer, source) in &mut self.sources {
            let Some(attempt) = &mut source.attempt else { continue };
            while attempt.next < attempt.pieces.len() && attempt.next - attempt.here < REQUESTS_MAX
            {
                asks.push((peer, u32::try_from(attempt.next).expect("pieces are few")));
                attempt.next += 1;
            }
        }
        asks
    }
}

impl Source {
    fn end_turn(&mut self, now: Duration) {
        self.attempt = None;
        self.turns += 1;
        self.rests_until = now + REST;
    }
}

/// True if these are the bytes that a link with `hashes` names: by all of them, SHA-256 at full length.
fn is_named(hashes: &InfoHashes, bytes: &[u8]) -> bool {
    hashes.v1.is_none_or(|hash| hash.0[..] == Sha1::digest(bytes)[..])
        && hashes.v2.is_none_or(|hash| hash.0[..] == Sha256::digest(bytes)[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InfoHash, InfoHashV2};
    use proptest::prelude::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn content(len: usize) -> (Bytes, InfoHashes) {
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
        let (v1, v2) = (Sha1::digest(&bytes).into(), Sha256::digest(&bytes).into());
        (bytes.into(), InfoHashes { v1: Some(InfoHash(v1)), v2: Some(InfoHashV2(v2)) })
    }

    fn piece(bytes: &Bytes, piece: u32) -> Bytes {
        let from = piece as usize * METADATA_PIECE;
        bytes.slice(from..bytes.len().min(from + METADATA_PIECE))
    }

    /// How peers of a test behave.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Manner {
        Honest,
        /// Another length, which it keeps to.
        OtherSize,
        /// One piece wrong.
        WrongPiece,
        /// The right bytes under another total.
        WrongTotal,
        Silent,
        /// Silent, and every few seconds it says another length.
        Changing,
        Rejects,
    }

    /// Plays until the dictionary is there; how many liars were found, and after how many seconds.
    fn play(len: usize, manners: &[Manner]) -> Option<(Vec<PeerKey>, u64)> {
        let (bytes, hashes) = content(len);
        let mut dictionary = Dictionary::new(hashes);
        let size = u32::try_from(len).unwrap();
        for (at, manner) in (0..).zip(manners) {
            let lie = u32::from(*manner == Manner::OtherSize);
            dictionary.on_size(Duration::ZERO, PeerKey(at), Some(size + lie));
        }
        let mut liars = Vec::new();
        for second in 0..600 {
            let now = secs(second);
            let changing = (0..).zip(manners).filter(|(_, manner)| **manner == Manner::Changing);
            for (at, _) in changing.filter(|_| second % 7 == 0) {
                let other = u32::try_from(second).unwrap() + 1;
                dictionary.on_size(now, PeerKey(at), Some(other));
                dictionary.on_size(now, PeerKey(at), None);
                dictionary.on_size(now, PeerKey(at), Some(other + 1));
            }
            let mut asks = dictionary.asks(now);
            while let Some((peer, index)) = asks.pop() {
                let right = piece(&bytes, index);
                let (total, data) = match manners[peer.0 as usize] {
                    Manner::Silent | Manner::Changing => continue,
                    Manner::Rejects => {
                        dictionary.on_reject(now, peer);
                        continue;
                    }
                    Manner::Honest => (size, right),
                    Manner::OtherSize => {
                        let len = METADATA_PIECE.min(len + 1 - index as usize * METADATA_PIECE);
                        (size + 1, vec![0; len].into())
                    }
                    Manner::WrongPiece if index == 0 => (size, vec![7; right.len()].into()),
                    Manner::WrongPiece => (size, right),
                    Manner::WrongTotal => (size + 9, right),
                };
                match dictionary.on_data(now, peer, index, total, &data) {
                    Verdict::Wait => {}
                    Verdict::Lie => {
                        liars.push(peer);
                        dictionary.forget(peer);
                        asks.retain(|(other, _)| *other != peer);
                    }
                    Verdict::Whole(whole) => {
                        assert_eq!(whole, bytes);
                        return Some((liars, second));
                    }
                }
                asks.extend(dictionary.asks(now));
            }
        }
        None
    }

    #[test]
    fn one_honest_peer_is_enough() {
        use Manner::*;
        for len in [1, METADATA_PIECE, METADATA_PIECE * 20 + 7] {
            assert_eq!(play(len, &[Honest]), Some((vec![], 0)));
            let (liars, after) =
                play(len, &[WrongPiece, OtherSize, WrongTotal, Silent, Silent, Rejects, Honest])
                    .unwrap();
            assert!(!liars.contains(&PeerKey(6)), "{liars:?}");
            assert!(after <= 40, "after {after} s");
        }
    }

    #[test]
    fn who_changes_its_word_has_its_turn_and_no_more() {
        let manners = [[Manner::Changing; 4].as_slice(), &[Manner::Honest]].concat();
        let (liars, after) = play(40_000, &manners).unwrap();
        assert!(liars.is_empty() && after <= 20, "after {after} s");
    }

    #[test]
    fn silence_and_refusal_are_no_lie_and_end_nothing() {
        use Manner::*;
        assert_eq!(play(40_000, &[Silent, Rejects]), None);
        assert_eq!(play(40_000, &[WrongPiece]), None);
    }

    #[test]
    fn lengths_that_nobody_takes_are_passed_over() {
        let mut dictionary = Dictionary::new(content(1).1);
        for size in [None, Some(0), Some(u32::MAX), u32::try_from(INFO_BYTES_MAX + 1).ok()] {
            dictionary.on_size(Duration::ZERO, PeerKey(1), size);
            assert_eq!(dictionary.sources(), 0);
        }
        dictionary.on_size(Duration::ZERO, PeerKey(1), Some(1));
        dictionary.on_size(Duration::ZERO, PeerKey(1), None);
        assert_eq!(dictionary.asks(secs(1)), []);
    }

    #[test]
    fn one_that_drips_makes_place() {
        let (bytes, hashes) = content(METADATA_PIECE * 64);
        let mut dictionary = Dictionary::new(hashes);
        let size = u32::try_from(bytes.len()).unwrap();
        (0..4).for_each(|peer| dictionary.on_size(Duration::ZERO, PeerKey(peer), Some(size)));
        let mut drips: Vec<(PeerKey, u32)> = dictionary.asks(secs(0));
        assert!(drips.iter().all(|(peer, _)| peer.0 < 3));
        for second in 1..60 {
            // Each of the three gives a piece every nine seconds.
            if second % 9 == 0 {
                for peer in 0..3 {
                    let Some(at) = drips.iter().position(|(from, _)| from.0 == peer) else {
                        continue;
                    };
                    let (from, index) = drips.remove(at);
                    let data = piece(&bytes, index);
                    dictionary.on_data(secs(second), from, index, size, &data);
                }
            }
            let asks = dictionary.asks(secs(second));
            if asks.iter().any(|(peer, _)| peer.0 == 3) {
                return;
            }
            drips.extend(asks);
        }
        panic!("the fourth was never asked");
    }

    proptest! {
        /// Whatever comes, nothing but the named bytes is taken.
        #[test]
        fn only_the_named_bytes(
            steps in proptest::collection::vec((0u32..4, 0u32..5, 0u32..70_000, 0usize..20_000, any::<bool>()), 0..60)
        ) {
            let (bytes, hashes) = content(33_000);
            let mut dictionary = Dictionary::new(hashes);
            for (second, (peer, index, total, len, right)) in (0..).zip(steps) {
                let now = secs(second);
                let peer = PeerKey(peer);
                let verdict = if right && (index as usize) < 3 {
                    dictionary.on_size(now, peer, Some(33_000));
                    dictionary.asks(now);
                    dictionary.on_data(now, peer, index, 33_000, &piece(&bytes, index))
                } else {
                    dictionary.on_size(now, peer, Some(total));
                    dictionary.asks(now);
                    dictionary.on_data(now, peer, index, total, &vec![0; len].into())
                };
                if let Verdict::Whole(whole) = verdict {
                    prop_assert_eq!(&whole, &bytes);
                }
            }
        }
    }
}
