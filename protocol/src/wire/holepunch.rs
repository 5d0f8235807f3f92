//! Messages by which two peers that cannot be dialled meet through one that both are connected to (BEP 55).

use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

/// The name of the extension.
pub const NAME: &str = "ut_holepunch";

/// Why nobody was brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The address is none.
    NoSuchPeer = 1,
    /// The relay is not connected with it.
    NotConnected = 2,
    /// Who is there does not speak this extension.
    NoSupport = 3,
    /// It is the relay's own address.
    NoSelf = 4,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolepunchMessage {
    /// To the relay: tell this peer and me to dial each other.
    Rendezvous(SocketAddr),
    /// From the relay: dial this peer, which is told the same.
    Connect(SocketAddr),
    /// From the relay: it cannot be done.
    Error(SocketAddr, Refusal),
}

impl HolepunchMessage {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        let (kind, addr, why) = match *self {
            Self::Rendezvous(addr) => (0, addr, 0),
            Self::Connect(addr) => (1, addr, 0),
            Self::Error(addr, why) => (2, addr, why as u32),
        };
        let mut out = vec![kind, u8::from(addr.is_ipv6())];
        match addr.ip() {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
        out.extend(addr.port().to_be_bytes());
        out.extend(why.to_be_bytes());
        out.into()
    }

    /// Reads what a peer sent; `None` for what makes no sense, which is to be passed over.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&[kind, family], rest) = payload.split_first_chunk()?;
        let (ip, rest) = match family {
            0 => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
            1 => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
            _ => return None,
        };
        let (port, rest) = rest.split_first_chunk()?;
        let addr = SocketAddr::new(ip, u16::from_be_bytes(*port));
        match kind {
            // What comes behind an address is there for errors alone; some leave it out.
            0 => Some(Self::Rendezvous(addr)),
            1 => Some(Self::Connect(addr)),
            2 => {
                let why = match u32::from_be_bytes(*rest.first_chunk()?) {
                    1 => Refusal::NoSuchPeer,
                    2 => Refusal::NotConnected,
                    3 => Refusal::NoSupport,
                    4 => Refusal::NoSelf,
                    _ => return None,
                };
                Some(Self::Error(addr, why))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        for addr in ["192.0.2.1:6881", "[2001:db8::1]:1"] {
            let addr = addr.parse().unwrap();
            for message in [
                HolepunchMessage::Rendezvous(addr),
                HolepunchMessage::Connect(addr),
                HolepunchMessage::Error(addr, Refusal::NoSupport),
            ] {
                assert_eq!(HolepunchMessage::parse(&message.encode()), Some(message));
            }
        }
        let connect = HolepunchMessage::Connect("192.0.2.1:6881".parse().unwrap()).encode();
        assert_eq!(&connect[..], [1, 0, 192, 0, 2, 1, 0x1a, 0xe1, 0, 0, 0, 0]);
        assert!(HolepunchMessage::parse(&connect[..8]).is_some());
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_skipped(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(message) = HolepunchMessage::parse(&bytes) {
                prop_assert_eq!(HolepunchMessage::parse(&message.encode()), Some(message));
            }
        }
    }
}
