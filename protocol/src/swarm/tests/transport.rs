//! Which transport peers are dialled by, and which of two connections stays.

use super::*;
use crate::ids::PeerId;
use crate::policy::transport::Preference;
use crate::wire::handshake::Abilities;
use crate::wire::pex::{Contact, PexMessage};

const OURS: PeerId = PeerId([5; 20]);
const HOST: [u8; 4] = [198, 51, 100, 1];

fn swarm(transport: Preference) -> (Swarm, Limiter) {
    let config = Config {
        peer_id: OURS,
        listen_port: Some(6881),
        quic_port: Some(6882),
        transport,
        ..plain_config()
    };
    let geometry = Geometry::new(16_384, 16_384, Vec::new()).unwrap();
    let have = Bitfield::empty(1);
    (
        Swarm::new(config, Arc::new(geometry), &have, vec![Priority::NORMAL]),
        Limiter::new(None, None),
    )
}

fn outputs(swarm: &mut Swarm) -> Vec<Output> {
    std::iter::from_fn(|| swarm.poll()).collect()
}

/// A connection with the peer of this name at port 7000 of `host`.
fn connect(
    (swarm, limiter): &mut (Swarm, Limiter),
    key: u32,
    id: u8,
    host: [u8; 4],
    (outgoing, transport): (bool, Transport),
) -> Vec<Output> {
    let input = Input::Connected {
        peer: PeerKey(key),
        addr: (host, 7000).into(),
        outgoing,
        id: PeerId([id; 20]),
        abilities: Abilities { extensions: true, fast: true, v2: true, dht: false },
        lan: false,
        transport,
    };
    swarm.handle(Duration::ZERO, limiter, input);
    outputs(swarm)
}

fn hello(
    (swarm, limiter): &mut (Swarm, Limiter),
    key: u32,
    quic: Option<u16>,
    pex: Option<u8>,
) -> Vec<Output> {
    let hello = ExtensionHandshake { quic, pex, ..ExtensionHandshake::default() };
    let message = Message::Extended { id: 0, payload: hello.encode() };
    swarm.handle(Duration::ZERO, limiter, Input::Received { peer: PeerKey(key), message });
    outputs(swarm)
}

fn closed(outputs: &[Output]) -> Vec<u32> {
    let closed = outputs.iter().filter_map(|output| match output {
        Output::Close { peer } => Some(peer.0),
        _ => None,
    });
    closed.collect()
}

fn upgrades(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Upgrade { quic: 7001, .. })).count()
}

#[test]
fn who_says_that_it_has_quic_is_met_there_once_if_nobody_waits() {
    for (preference, expected) in [(Preference::Background, 1), (Preference::Now, 0)] {
        let mut alone = swarm(preference);
        connect(&mut alone, 1, 9, HOST, (true, Transport::Tcp));
        assert_eq!(upgrades(&hello(&mut alone, 1, None, None)), 0);
        assert_eq!(upgrades(&hello(&mut alone, 1, Some(7001), None)), expected);
        assert_eq!(upgrades(&hello(&mut alone, 1, Some(7001), None)), 0, "it was tried");
        hello(&mut alone, 1, None, None);
        assert_eq!(upgrades(&hello(&mut alone, 1, Some(7001), None)), 0, "whatever it says since");
    }
}

#[test]
fn quic_takes_the_place_of_tcp_and_not_the_other_way() {
    for outgoing in [true, false] {
        for id in [1, 9] {
            let mut alone = swarm(Preference::Background);
            connect(&mut alone, 1, id, HOST, (true, Transport::Tcp));
            let taken = connect(&mut alone, 2, id, HOST, (outgoing, Transport::Quic));
            assert_eq!(closed(&taken), [1]);
            let late = connect(&mut alone, 3, id, HOST, (outgoing, Transport::Tcp));
            assert_eq!(closed(&late), [3]);
        }
    }
}

#[test]
fn a_stranger_with_the_name_of_another_does_not_take_its_place() {
    let mut alone = swarm(Preference::Background);
    connect(&mut alone, 1, 9, HOST, (false, Transport::Tcp));
    let stranger = connect(&mut alone, 2, 9, [203, 0, 113, 7], (false, Transport::Quic));
    assert_eq!(closed(&stranger), [2]);
}

/// Both dialled, so the connection of the lower name stays, which is the peer's; but a while later, or from an
/// address that is out, only a stranger would come that way.
#[test]
fn two_that_dial_each_other_keep_one_connection_and_no_stranger_takes_it() {
    for (seconds, host, banned, takes) in [
        (1, [203, 0, 113, 7], false, true),
        (1, [203, 0, 113, 7], true, false),
        (60, [203, 0, 113, 7], false, false),
        (60, HOST, false, true),
    ] {
        let mut alone = swarm(Preference::Tcp);
        connect(&mut alone, 1, 1, HOST, (true, Transport::Tcp));
        let (swarm, limiter) = &mut alone;
        let now = secs(seconds);
        let addr = (host, 7000).into();
        if banned {
            swarm.dialer.ban(Duration::ZERO, addr, BAN);
        }
        let id = PeerId([1; 20]);
        assert_eq!(swarm.place_of(now, id, addr, Transport::Tcp).is_some(), takes || banned);
        let second = Input::Connected {
            peer: PeerKey(2),
            addr,
            outgoing: false,
            id,
            abilities: Abilities::default(),
            lan: false,
            transport: Transport::Tcp,
        };
        swarm.handle(now, limiter, second);
        let expected = if takes { [1] } else { [2] };
        assert_eq!(closed(&outputs(swarm)), expected, "{host:?} after {seconds} s");
    }
}

#[test]
fn who_is_told_to_have_quic_is_dialled_by_it_until_it_turns_out_otherwise() {
    let mut alone = swarm(Preference::Background);
    connect(&mut alone, 1, 9, HOST, (true, Transport::Tcp));
    hello(&mut alone, 1, None, Some(1));
    let other: SocketAddr = ([203, 0, 113, 7], 7100).into();
    let contact = Contact { addr: other, seed: false, reachable: true, quic: true };
    let payload = PexMessage { added: vec![contact], dropped: Vec::new() }.encode();
    let message = Message::Extended { id: ours::PEX, payload };
    let (swarm, limiter) = &mut alone;
    swarm.handle(Duration::ZERO, limiter, Input::Received { peer: PeerKey(1), message });
    swarm.handle(Duration::ZERO, limiter, Input::Timeout);
    swarm.handle(Duration::from_secs(2), limiter, Input::Timeout);
    let dials = |outputs: &[Output]| -> Vec<(SocketAddr, Option<u16>)> {
        let dials = outputs.iter().filter_map(|output| match output {
            Output::Dial { addr, quic, .. } => Some((*addr, *quic)),
            _ => None,
        });
        dials.collect()
    };
    assert_eq!(dials(&outputs(swarm)), [(other, Some(7100))]);
    // It answered by TCP, and left.
    let input = |outgoing| Input::Connected {
        peer: PeerKey(2),
        addr: other,
        outgoing,
        id: PeerId([7; 20]),
        abilities: Abilities::default(),
        lan: false,
        transport: Transport::Tcp,
    };
    swarm.handle(Duration::from_secs(3), limiter, input(true));
    swarm.handle(Duration::from_secs(3), limiter, Input::Closed { peer: PeerKey(2) });
    outputs(swarm);
    swarm.handle(Duration::from_secs(90), limiter, Input::Timeout);
    assert_eq!(dials(&outputs(swarm)), [(other, None)]);
}
