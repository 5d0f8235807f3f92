//! Two peers that nobody can dial, and the one that both are connected to.

use super::*;
use crate::ids::PeerId;
use crate::wire::handshake::Abilities;
use crate::wire::holepunch::{HolepunchMessage, Refusal};
use crate::wire::pex::{Contact, PexMessage};

/// A peer's own numbers for the extensions.
const PEX: u8 = 9;
const HOLEPUNCH: u8 = 8;

fn swarm() -> (Swarm, Limiter) {
    let config = Config {
        peer_id: PeerId([5; 20]),
        listen_port: Some(6881),
        quic_port: Some(6881),
        ..plain_config()
    };
    let geometry = Geometry::new(16_384, 16_384, Vec::new()).unwrap();
    let have = Bitfield::empty(1);
    let swarm = Swarm::new(config, Arc::new(geometry), &have, vec![Priority::NORMAL]);
    (swarm, Limiter::new(None, None))
}

fn give((swarm, limiter): &mut (Swarm, Limiter), input: Input) -> Vec<Output> {
    swarm.handle(Duration::ZERO, limiter, input);
    std::iter::from_fn(|| swarm.poll()).collect()
}

/// Somebody who came from port 50000 of 198.51.100.`key` and listens at 6881.
fn meet(swarm: &mut (Swarm, Limiter), key: u8, transport: Transport, speaks: bool) {
    give(
        swarm,
        Input::Connected {
            peer: PeerKey(key.into()),
            addr: ([198, 51, 100, key], 50_000).into(),
            outgoing: false,
            id: PeerId([key; 20]),
            abilities: Abilities { extensions: true, fast: true, v2: true, dht: false },
            lan: false,
            transport,
        },
    );
    let hello = ExtensionHandshake {
        pex: Some(PEX),
        holepunch: speaks.then_some(HOLEPUNCH),
        listen_port: Some(6881),
        ..ExtensionHandshake::default()
    };
    say(swarm, key, 0, hello.encode());
}

fn say(swarm: &mut (Swarm, Limiter), key: u8, id: u8, payload: Bytes) -> Vec<Output> {
    let message = Message::Extended { id, payload };
    give(swarm, Input::Received { peer: PeerKey(key.into()), message })
}

fn ask(swarm: &mut (Swarm, Limiter), key: u8, message: HolepunchMessage) -> Vec<Output> {
    say(swarm, key, ours::HOLEPUNCH, message.encode())
}

/// What was told to whom.
fn told(outputs: &[Output]) -> Vec<(u32, HolepunchMessage)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Send { peer, message: Message::Extended { id: HOLEPUNCH, payload } } => {
            Some((peer.0, HolepunchMessage::parse(payload)?))
        }
        _ => None,
    });
    told.collect()
}

fn dialled(outputs: &[Output]) -> Vec<SocketAddr> {
    let dialled = outputs.iter().filter_map(|output| match output {
        Output::Dial { addr, punch: true, .. } => Some(*addr),
        _ => None,
    });
    dialled.collect()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_relay_tells_both_where_they_are_reached() {
    let mut relay = swarm();
    meet(&mut relay, 1, Transport::Tcp, true);
    meet(&mut relay, 2, Transport::Utp, true);
    meet(&mut relay, 3, Transport::Tcp, false);
    // Who came by UDP is reached where it came from.
    let (one, two) = (addr("198.51.100.1:6881"), addr("198.51.100.2:50000"));
    for asked in [two, addr("198.51.100.2:6881")] {
        let told = told(&ask(&mut relay, 1, HolepunchMessage::Rendezvous(asked)));
        let connect = HolepunchMessage::Connect;
        assert_eq!(told, [(2, connect(one)), (1, connect(two))]);
    }
    for (asked, why) in [
        ("198.51.100.3:6881", Refusal::NoSupport),
        ("198.51.100.4:6881", Refusal::NotConnected),
        ("198.51.100.1:6881", Refusal::NoSelf),
    ] {
        let told = told(&ask(&mut relay, 1, HolepunchMessage::Rendezvous(addr(asked))));
        assert_eq!(told, [(1, HolepunchMessage::Error(addr(asked), why))]);
    }
    // BEP 55: who does not say that it speaks this is passed over.
    assert!(told(&ask(&mut relay, 3, HolepunchMessage::Rendezvous(two))).is_empty());
}

#[test]
fn who_was_dialled_in_vain_is_asked_for_where_it_is_known_once() {
    let mut alone = swarm();
    meet(&mut alone, 1, Transport::Tcp, true);
    meet(&mut alone, 2, Transport::Tcp, true);
    let other = addr("203.0.113.9:6881");
    let contact = Contact { addr: other, seed: false, reachable: false, quic: false };
    let message = PexMessage { added: vec![contact], dropped: Vec::new() };
    say(&mut alone, 2, ours::PEX, message.encode());
    let asked = told(&give(&mut alone, Input::DialFailed { addr: other }));
    assert_eq!(asked, [(2, HolepunchMessage::Rendezvous(other))]);
    assert!(told(&give(&mut alone, Input::DialFailed { addr: other })).is_empty());
    let strange = addr("203.0.113.10:6881");
    assert!(told(&give(&mut alone, Input::DialFailed { addr: strange })).is_empty());
}

#[test]
fn a_relay_makes_us_dial_so_often_and_nobody_of_our_own_network() {
    let mut alone = swarm();
    meet(&mut alone, 1, Transport::Tcp, true);
    for nowhere in ["192.168.1.1:80", "127.0.0.1:80", "0.0.0.0:80", "203.0.113.1:0", "224.0.0.1:9"]
    {
        let named = HolepunchMessage::Connect(addr(nowhere));
        assert!(dialled(&ask(&mut alone, 1, named)).is_empty(), "{nowhere}");
    }
    // Connected already.
    let known = HolepunchMessage::Connect(addr("198.51.100.1:6881"));
    assert!(dialled(&ask(&mut alone, 1, known)).is_empty());
    let mut count = 0;
    for port in 1..100 {
        let at = SocketAddr::from(([203, 0, 113, 1], port));
        let dialled = dialled(&ask(&mut alone, 1, HolepunchMessage::Connect(at)));
        count += dialled.len();
        for addr in dialled {
            give(&mut alone, Input::DialFailed { addr });
        }
    }
    assert_eq!(count, 14, "twenty within a minute, six of which were nobody");
}
