//! Blocks that go out together, compressed: when they are read, and what the limit makes of it.

use super::*;
use crate::geometry::{BLOCK_LEN, Block};
use crate::ids::{PeerId, PieceIndex};
use crate::wire::handshake::Abilities;
use crate::wire::parcel;

const PEER: PeerKey = PeerKey(1);

/// A seed of 32 pieces of 128 KiB, with one peer unchoked.
struct Seed {
    swarm: Swarm,
    limiter: Limiter,
    now: Duration,
}

impl Seed {
    fn new(lan: bool, parcels: bool, limit: Option<u64>) -> Self {
        let config = Config { parcels: true, ..plain_config() };
        let geometry = Arc::new(Geometry::new(131_072, 32 * 131_072, Vec::new()).unwrap());
        let have = Bitfield::full(32);
        let swarm = Swarm::new(config, geometry, &have, vec![Priority::NORMAL; 32]);
        let mut seed = Self { swarm, limiter: Limiter::new(limit, None), now: Duration::ZERO };
        let abilities = Abilities { extensions: true, fast: true, v2: false, dht: false };
        seed.input(Input::Connected {
            peer: PEER,
            addr: ([198, 51, 100, 1], 7000).into(),
            outgoing: false,
            id: PeerId([9; 20]),
            abilities,
            lan,
            transport: Transport::Tcp,
        });
        let parcels = parcels.then_some(9);
        let hello = ExtensionHandshake { parcels, ..ExtensionHandshake::default() };
        seed.hear(Message::Extended { id: 0, payload: hello.encode() });
        seed.hear(Message::HaveNone);
        seed.hear(Message::Interested);
        seed.now += Duration::from_secs(2);
        seed.input(Input::Timeout);
        seed
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.swarm.handle(self.now, &mut self.limiter, input);
        std::iter::from_fn(|| self.swarm.poll()).collect()
    }

    fn hear(&mut self, message: Message) -> Vec<Output> {
        self.input(Input::Received { peer: PEER, message })
    }

    /// Asks for so many blocks from the beginning of the torrent on; says how many are read.
    fn ask(&mut self, from: u32, until: u32) -> usize {
        (from..until)
            .map(|block| {
                let (piece, offset) = (PieceIndex(block / 8), block % 8 * BLOCK_LEN);
                let block = Block { piece, offset, len: BLOCK_LEN };
                read(&self.hear(Message::Request(block)))
            })
            .sum()
    }

    fn wait(&mut self, time: Duration) -> usize {
        self.now += time;
        read(&self.input(Input::Timeout))
    }
}

fn read(outputs: &[Output]) -> usize {
    let reads = outputs.iter().map(|output| match output {
        Output::Read { blocks, .. } => blocks.len(),
        _ => 0,
    });
    reads.sum()
}

#[test]
fn requests_wait_a_moment_for_others_where_content_shrinks() {
    let mut seed = Seed::new(false, true, None);
    assert_eq!(seed.ask(0, 1), 1, "nothing is known of the content");
    seed.input(Input::Sent { peer: PEER, bytes: BLOCK_LEN });
    seed.input(Input::Shrinks(true));
    assert_eq!(seed.ask(1, 4), 0);
    assert_eq!(seed.wait(Duration::from_millis(10)), 0);
    assert_eq!(seed.wait(Duration::from_millis(21)), 3);
    // While that is on its way, the rest waits until there is as much as goes together.
    assert_eq!(seed.ask(4, 8), 0);
    assert_eq!(seed.wait(Duration::from_millis(100)), 0);
    let (mut on_its_way, mut sent) = (3 + seed.ask(8, 40), 1);
    while sent < 40 {
        assert!(on_its_way > 0, "{sent} of 40");
        let bytes = u32::try_from(on_its_way).unwrap() * BLOCK_LEN;
        sent += on_its_way;
        on_its_way = read(&seed.input(Input::Sent { peer: PEER, bytes }));
        on_its_way += seed.wait(Duration::from_millis(31));
    }
}

#[test]
fn nothing_waits_on_a_lan_or_for_who_does_not_take_parcels() {
    for (lan, parcels) in [(true, true), (false, false)] {
        let mut seed = Seed::new(lan, parcels, None);
        seed.input(Input::Shrinks(true));
        assert_eq!(seed.ask(0, 3), 3);
    }
}

#[test]
fn what_is_saved_is_given_back_to_the_limit() {
    let rate = 4 * u64::from(BLOCK_LEN);
    let sent = |saved: u64| {
        let mut seed = Seed::new(false, true, Some(rate));
        seed.input(Input::Shrinks(true));
        let mut blocks = seed.ask(0, 256);
        for _ in 0..200 {
            blocks += seed.wait(Duration::from_millis(100));
            let bytes = u32::try_from(blocks).unwrap() * BLOCK_LEN;
            let saved = saved * u64::from(bytes) / 4;
            blocks += read(&seed.input(Input::Saved { peer: PEER, bytes: saved }));
            blocks += read(&seed.input(Input::Sent { peer: PEER, bytes }));
            if blocks >= 200 {
                break;
            }
        }
        seed.now
    };
    let (plain, packed) = (sent(0), sent(3));
    assert!(plain > packed * 2, "{plain:?} {packed:?}");
}

#[test]
fn a_malformed_parcel_is_a_ban() {
    let mut seed = Seed::new(false, true, None);
    let payload = Bytes::from_static(b"no frame");
    let outputs = seed.hear(Message::Extended { id: ours::PARCELS, payload });
    let banned = |output: &Output| {
        matches!(
            output,
            Output::Event(Event::PeerBanned { reason: Misbehaviour::MalformedParcel, .. })
        )
    };
    assert!(outputs.iter().any(banned));
}

#[test]
fn a_parcel_fits_what_is_read_ahead() {
    const { assert!(parcel::BYTES_MAX as u64 * 2 <= 12 << 20) };
}

/// Others may ask for 128 KiB at once (BEP 3 leaves it open).
#[test]
fn a_request_longer_than_a_parcel_is_served_all_the_same() {
    let mut seed = Seed::new(false, true, None);
    seed.input(Input::Shrinks(true));
    seed.hear(Message::Request(Block { piece: PieceIndex(3), offset: 0, len: 131_072 }));
    assert_eq!(seed.wait(Duration::from_millis(31)), 1);
}
