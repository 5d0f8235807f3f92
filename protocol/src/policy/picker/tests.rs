//! One check over bitfields, and a property over any order of events.

use super::*;
use crate::geometry::{BLOCK_LEN, FileSpan, Span};
use proptest::prelude::*;

fn picker(pieces: u32, have: &str) -> Picker {
    let total = u64::from(pieces) * 32_768;
    let files = vec![FileSpan { offset: 0, length: total }];
    let geometry = Arc::new(Geometry::new(32_768, total, files).unwrap());
    let priorities = vec![Priority::NORMAL; pieces as usize];
    Picker::new(geometry, &field(have), &priorities)
}

fn field(text: &str) -> Bitfield {
    let mut field = Bitfield::empty(u32::try_from(text.len()).unwrap());
    for (at, bit) in (0..).zip(text.chars()) {
        if bit == '1' {
            field.insert(PieceIndex(at));
        }
    }
    field
}

/// `have` ours, `others` the bitfields of the peers around, `theirs` of the peer that is asked.
fn check(have: &str, others: &[&str], theirs: &str, expected: &[u32]) {
    let mut picker = picker(u32::try_from(have.len()).unwrap(), have);
    others.iter().for_each(|other| picker.peer_joined(&field(other)));
    picker.peer_joined(&field(theirs));
    let their_field = field(theirs);
    let ask =
        Ask { peer: PeerKey(1), have: &their_field, current: None, exclusive: false, only: None };
    let mut out = Vec::new();
    picker.pick(&ask, 2 * expected.len(), &mut fastrand::Rng::with_seed(1), &mut out);
    let mut pieces: Vec<u32> = out.iter().map(|block| block.piece.0).collect();
    pieces.dedup();
    assert_eq!(pieces, expected);
}

#[test]
fn rarest_first() {
    check("11110000", &["00001110", "00000110", "00000010"], "11111110", &[4, 5, 6]);
    check("11110000", &["00001111", "00000111"], "11110001", &[7]);
}

#[test]
fn what_the_peer_lacks_is_never_picked() {
    check("11110000", &["00001111"], "11110000", &[]);
}

#[test]
fn a_piece_begun_is_finished_before_another_is_begun() {
    let mut picker = picker(6, "111100");
    let full = Bitfield::full(6);
    picker.peer_joined(&full);
    let ask = |peer| Ask {
        peer: PeerKey(peer),
        have: &full,
        current: None,
        exclusive: false,
        only: None,
    };
    let (mut rng, mut out) = (fastrand::Rng::with_seed(3), Vec::new());
    picker.pick(&ask(1), 1, &mut rng, &mut out);
    picker.pick(&ask(2), 1, &mut rng, &mut out);
    assert_eq!(out[0].piece, out[1].piece);
    assert_ne!(out[0].offset, out[1].offset);
}

#[test]
fn a_piece_on_parole_is_one_peers_alone() {
    let mut picker = picker(6, "111100");
    let full = Bitfield::full(6);
    let ask = |peer, exclusive| Ask {
        peer: PeerKey(peer),
        have: &full,
        current: None,
        exclusive,
        only: None,
    };
    let (mut rng, mut out) = (fastrand::Rng::with_seed(3), Vec::new());
    picker.pick(&ask(1, true), 1, &mut rng, &mut out);
    picker.pick(&ask(2, false), 1, &mut rng, &mut out);
    assert_ne!(out[0].piece, out[1].piece);
}

proptest! {
    /// Whatever happens to requests, no block is lost and the counters agree with the slots.
    #[test]
    fn no_block_is_ever_lost(
        pieces in 1u32..12,
        ops in prop::collection::vec((0u8..8, any::<u32>(), 0u32..3), 0..300),
    ) {
        let mut picker = picker(pieces, &"0".repeat(pieces as usize));
        let mut rng = fastrand::Rng::with_seed(5);
        let full = Bitfield::full(pieces);
        let mut out: Vec<(u32, Block)> = Vec::new();
        let mut spans: Vec<(PeerKey, Span)> = Vec::new();
        let mut fetches = 0;
        picker.peer_joined(&full);
        for (op, any, peer) in ops {
            match op {
                0 | 1 => {
                    let ask = Ask { peer: PeerKey(peer), have: &full, current: None, exclusive: op == 1, only: None };
                    let mut got = Vec::new();
                    picker.pick(&ask, (any % 5) as usize, &mut rng, &mut got);
                    out.extend(got.into_iter().map(|block| (peer, block)));
                }
                2 if !out.is_empty() => {
                    let (_, block) = out.swap_remove(any as usize % out.len());
                    picker.release(block);
                }
                3 | 4 if !out.is_empty() => {
                    let (peer, block) = out.swap_remove(any as usize % out.len());
                    picker.received(block, PeerKey(peer));
                }
                5 => {
                    fetches += 1;
                    let (fetch, bytes) = (PeerKey(100 + fetches), u64::from(any % 100_000));
                    let taken = if any % 3 == 0 {
                        let end = any / 3 % pieces + 1;
                        let span = Span { start: (PieceIndex(end - 1), any % 2), end: (PieceIndex(end), 0) };
                        let out = picker.open.contains_key(&PieceIndex(end - 1));
                        out.then(|| picker.double_span(fetch, span)).map(|()| span)
                    } else {
                        let rank = |piece: PieceIndex| Some((piece.0 / 3, (piece.0 + any) % pieces));
                        let first = picker.next_idle(any % 3 == 1, rank);
                        first.map(|first| picker.take_span(fetch, bytes, (first, first.0 + 1 + any), rank))
                    };
                    spans.extend(taken.map(|span| (fetch, span)));
                }
                6 => if let Some((fetch, span)) = spans.pop() { picker.return_span(fetch, span); },
                7 => {
                    let whole: Vec<_> = picker.open.iter()
                        .filter(|(_, open)| open.received as usize == open.slots.len())
                        .map(|(&piece, _)| piece).collect();
                    for piece in whole {
                        if any % 2 == 0 { picker.verified(piece); }
                        else { picker.wrong(piece); out.retain(|(_, block)| block.piece != piece); }
                    }
                }
                _ => {}
            }
            let free: u64 = picker.geometry.pieces().map(|piece| match picker.state[piece.get()] {
                State::Free => u64::from(picker.geometry.block_count(piece)),
                State::Open => picker.open[&piece].slots.iter()
                    .filter(|slot| !slot.received && slot.requesters == 0).count() as u64,
                State::Have | State::Unwanted => 0,
            }).sum();
            prop_assert_eq!(picker.free_blocks(), free);
            prop_assert_eq!(picker.wanted_left() + picker.have().count(), pieces);
        }
        for (fetch, span) in spans { picker.return_span(fetch, span); }
        for (_, block) in out { picker.release(block); }
        let ask = Ask { peer: PeerKey(1), have: &full, current: None, exclusive: false, only: None };
        let mut rest = Vec::new();
        picker.pick(&ask, usize::MAX >> 1, &mut rng, &mut rest);
        for block in rest {
            prop_assert!(block.len <= BLOCK_LEN);
            picker.received(block, PeerKey(1));
        }
        let open: Vec<_> = picker.open.keys().copied().collect();
        for piece in open { picker.verified(piece); }
        prop_assert!(picker.is_complete());
    }
}
