//! Which peers are near: on this machine or on its local network. They cost no uplink, so they
//! stand outside limits, slots and the consent to upload.

use std::net::{IpAddr, Ipv6Addr};

/// True for loopback, private (RFC 1918), link-local and unique local (RFC 4193) addresses.
pub fn is_lan(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || is_link_local(ip) || ip.segments()[0] & 0xfe00 == 0xfc00
        }
    }
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        for near in [
            "127.0.0.9",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_lan(near.parse().unwrap()), "{near}");
        }
        for far in ["198.51.100.1", "8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:198.51.100.1"] {
            assert!(!is_lan(far.parse().unwrap()), "{far}");
        }
    }
}
