//! Turns at a busy uplink.

use super::*;
use crate::geometry::{BLOCK_LEN, Block};
use crate::ids::{PeerId, PieceIndex};
use crate::wire::handshake::Abilities;

/// One of our own launchers and many other clients want what we have while we are not through ourselves:
/// whoever is chosen again after its turn goes on being served.
#[test]
fn who_is_chosen_again_is_served_again() {
    const OURS: PeerKey = PeerKey(1);
    let geometry = Arc::new(Geometry::new(131_072, 65 * 131_072, Vec::new()).unwrap());
    let mut have = Bitfield::full(65);
    have.remove(PieceIndex(64));
    let mut swarm = Swarm::new(plain_config(), geometry, &have, vec![Priority::NORMAL; 65]);
    let (mut limiter, mut now) = (Limiter::new(None, None), Duration::ZERO);
    let mut asked = 0;
    let mut served = 0;
    for key in 1..=9 {
        let mut id = [u8::try_from(key).unwrap(); 20];
        if PeerKey(key) == OURS {
            id[..8].copy_from_slice(&PeerId::PREFIX[..]);
        }
        swarm.handle(
            now,
            &mut limiter,
            Input::Connected {
                peer: PeerKey(key),
                addr: ([198, 51, 100, u8::try_from(key).unwrap()], 7000).into(),
                outgoing: false,
                id: PeerId(id),
                abilities: Abilities { extensions: true, fast: true, v2: false },
                lan: false,
                transport: Transport::Tcp,
            },
        );
        for message in [Message::HaveNone, Message::Interested] {
            swarm.handle(now, &mut limiter, Input::Received { peer: PeerKey(key), message });
        }
    }
    let ask = |peer: PeerKey, asked: &mut u32, swarm: &mut Swarm, limiter: &mut Limiter, now| {
        let (piece, offset) = (PieceIndex(*asked / 8 % 64), *asked % 8 * BLOCK_LEN);
        *asked += 1;
        let message = Message::Request(Block { piece, offset, len: BLOCK_LEN });
        swarm.handle(now, limiter, Input::Received { peer, message });
    };
    let mut last = Duration::ZERO;
    let mut unchoked = [false; 10];
    for _ in 0..600 {
        now += Duration::from_millis(50);
        swarm.handle(now, &mut limiter, Input::Timeout);
        let mut sent = Vec::new();
        while let Some(output) = swarm.poll() {
            match output {
                Output::Send { peer, message: Message::Unchoke } => {
                    unchoked[peer.0 as usize] = true;
                    for _ in 0..16 {
                        ask(peer, &mut asked, &mut swarm, &mut limiter, now);
                    }
                }
                Output::Send { peer, message: Message::Choke } => {
                    unchoked[peer.0 as usize] = false;
                }
                Output::Read { peer, blocks } => {
                    sent.push((peer, u32::try_from(blocks.len()).unwrap()));
                }
                _ => {}
            }
        }
        for (peer, blocks) in sent {
            if peer == OURS {
                (served, last) = (served + blocks, now);
            }
            let bytes = blocks * BLOCK_LEN;
            swarm.handle(now, &mut limiter, Input::Sent { peer, bytes });
            for _ in 0..blocks {
                if unchoked[peer.0 as usize] {
                    ask(peer, &mut asked, &mut swarm, &mut limiter, now);
                }
            }
        }
    }
    assert!(
        served > 0 && now - last < Duration::from_secs(10),
        "{served} blocks, last at {last:?}"
    );
}
