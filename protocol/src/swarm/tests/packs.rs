//! When HTTP takes a pack, and what it does about one that is of no use.

use super::*;
use crate::geometry::{FileSpan, Geometry, Span};
use crate::policy::http::Packed;

const PACKED: u64 = 20_000;

/// An engine that is alone with a source of 16 pieces of 16 KiB, of which the middle eight are a pack of
/// 20 000 bytes; it has `have`.
struct Alone {
    swarm: Swarm,
    limiter: Limiter,
    now: Duration,
}

type Fetched = (PeerKey, usize, Span, Option<usize>);

impl Alone {
    fn new(have: &[u32]) -> Self {
        let length = 16 * 16_384;
        let geometry = Geometry::new(16_384, length, vec![FileSpan { offset: 0, length }]).unwrap();
        let mut pieces = Bitfield::empty(16);
        have.iter().for_each(|&piece| _ = pieces.insert(PieceIndex(piece)));
        let config = Config {
            connections_max: 1,
            sources: 1,
            packs: vec![Packed { pieces: 4..12, bytes: PACKED }],
            ..plain_config()
        };
        let priorities = vec![Priority::NORMAL; 16];
        let swarm = Swarm::new(config, Arc::new(geometry), &pieces, priorities);
        Self { swarm, limiter: Limiter::new(None, None), now: Duration::ZERO }
    }

    /// What it fetches after `input`.
    fn input(&mut self, input: Input) -> Vec<Fetched> {
        self.now += Duration::from_secs(2);
        self.swarm.handle(self.now, &mut self.limiter, input);
        let mut fetched = Vec::new();
        while let Some(output) = self.swarm.poll() {
            if let Output::Fetch { fetch, source, span, pack } = output {
                fetched.push((fetch, source, span, pack));
            }
        }
        fetched
    }

    /// All of a range comes, and is right or not.
    fn deliver(&mut self, (fetch, _, span, _): Fetched, right: bool) -> Vec<Fetched> {
        let mut begun = Vec::new();
        for block in self.swarm.geometry.clone().blocks_of(span).collect::<Vec<_>>() {
            let data = Bytes::from(vec![0; block.len as usize]);
            begun.extend(self.input(Input::Fetched { fetch, block, data }));
        }
        begun.extend(self.input(Input::FetchEnded { fetch, end: FetchEnd::Complete }));
        for piece in span.pieces().map(PieceIndex) {
            if !self.swarm.have().has(piece) {
                begun.extend(self.input(Input::Stored { piece, right }));
            }
        }
        begun
    }
}

fn packs(fetched: &[Fetched]) -> Vec<Fetched> {
    fetched.iter().filter(|(.., pack)| pack.is_some()).copied().collect()
}

#[test]
fn a_pack_is_taken_where_it_is_cheaper_and_counts_as_it_came() {
    let mut alone = Alone::new(&[]);
    let begun = alone.input(Input::TrackersAsked);
    let [pack] = packs(&begun)[..] else { panic!("{begun:?}") };
    assert_eq!(pack.2, Span::of_pieces(4..12));
    for range in begun {
        alone.deliver(range, true);
    }
    assert!(alone.swarm.is_complete());
    let stats = alone.swarm.stats();
    assert_eq!(stats.down_http, 8 * 16_384 + PACKED);
    assert_eq!((stats.http_content, stats.wasted), (16 * 16_384, 0));
    // Two pieces of it are missing: 20 000 bytes are less. Of one they are more.
    let mut alone = Alone::new(&[4, 5, 6, 7, 8, 9, 0, 1, 2, 3]);
    let begun = alone.input(Input::TrackersAsked);
    let [pack] = packs(&begun)[..] else { panic!("{begun:?}") };
    alone.deliver(pack, true);
    let stats = alone.swarm.stats();
    assert_eq!((stats.down_http, stats.http_content), (PACKED, 2 * 16_384), "{stats:?}");
    assert_eq!(stats.wasted, 0, "what came along is counted by the pack");
    let mut alone = Alone::new(&[4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(packs(&alone.input(Input::TrackersAsked)), []);
}

#[test]
fn a_pack_that_cannot_be_had_is_fetched_as_it_is() {
    let mut alone = Alone::new(&[]);
    let begun = alone.input(Input::TrackersAsked);
    let pack = packs(&begun)[0];
    let end = FetchEnd::Unpackable;
    let plain = alone.input(Input::FetchEnded { fetch: pack.0, end });
    assert_eq!(packs(&plain), []);
    let pieces: usize = plain.iter().map(|(_, _, span, _)| span.pieces().len()).sum();
    assert_eq!(pieces, 8, "at once, and all of it: {plain:?}");
    for range in begun.into_iter().filter(|range| *range != pack).chain(plain) {
        alone.deliver(range, true);
    }
    assert!(alone.swarm.is_complete());
}

#[test]
fn wrong_pieces_out_of_a_pack_cost_the_pack_and_not_the_source() {
    let mut alone = Alone::new(&[0, 1, 2, 3, 12, 13, 14, 15]);
    let begun = alone.input(Input::TrackersAsked);
    let pack = packs(&begun)[0];
    let mut plain = alone.deliver(pack, false);
    plain.extend(alone.input(Input::Timeout));
    // The source is not left alone for it, at the most for the second that a failure takes.
    for _ in 0..5 {
        for range in std::mem::take(&mut plain) {
            assert_eq!(range.3, None);
            plain.extend(alone.deliver(range, true));
        }
        plain.extend(alone.input(Input::Timeout));
    }
    assert!(alone.now < secs(120), "{:?}", alone.now);
    assert!(alone.swarm.is_complete());
}
