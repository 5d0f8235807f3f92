//! The links that this machine is on: its interfaces, each with its addresses of one family.

use if_addrs::{IfAddr, IfOperStatus, Interface};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Links used at most; a machine with more is no player's.
const LINKS_MAX: usize = 32;

/// An interface and an address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkKey {
    pub(super) index: u32,
    pub(super) v6: bool,
}

/// What is known of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) key: LinkKey,
    /// The interface's name.
    pub(super) name: String,
    /// Our addresses there, with the length of their prefixes.
    pub(super) prefixes: Vec<(IpAddr, u8)>,
}

impl Link {
    /// True for addresses that are reached without a router.
    pub(super) fn holds(&self, ip: IpAddr) -> bool {
        self.prefixes.iter().any(|(own, bits)| same_prefix(*own, ip, *bits))
    }

    /// Our first address there.
    pub(super) fn own(&self) -> Option<IpAddr> {
        self.prefixes.first().map(|(ip, _)| *ip)
    }
}

/// The links that are up, but for loopback and tunnels to one other host: with nobody else on them,
/// there is nobody to find.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let mut links = BTreeMap::<LinkKey, Link>::new();
    for interface in if_addrs::get_if_addrs()? {
        let down = interface.oper_status == IfOperStatus::Down;
        if down || interface.is_loopback() || interface.is_p2p {
            continue;
        }
        let Interface { name, addr, index: Some(index), .. } = interface else { continue };
        let prefix = prefix(&addr);
        let key = LinkKey { index, v6: prefix.0.is_ipv6() };
        if links.len() < LINKS_MAX || links.contains_key(&key) {
            let link = links.entry(key).or_insert(Link { key, name, prefixes: Vec::new() });
            link.prefixes.push(prefix);
        }
    }
    Ok(links.into_values().collect())
}

/// True for addresses of this machine and those that are reached without a router; asks the system anew.
pub(crate) fn is_on_link(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || links().is_ok_and(|links| links.iter().any(|link| link.holds(ip)))
}

/// Of `links` those that a peer listening at `listen` can be reached on, with the port to announce:
/// all of a family where it listens at every address, else those with an address of the local network
/// that it listens at, and with that address alone. Who listens on loopback, or at a public address
/// only, is on none.
pub(super) fn reachable(links: Vec<Link>, listen: &[SocketAddr]) -> Vec<(Link, u16)> {
    let reached = links.into_iter().filter_map(|mut link| {
        let mut family = listen.iter().filter(|addr| addr.is_ipv6() == link.key.v6);
        if let Some(all) = family.clone().find(|addr| addr.ip().is_unspecified()) {
            return Some((link, all.port()));
        }
        let at = family.find(|addr| {
            let here = |(own, _): &(IpAddr, u8)| *own == addr.ip();
            crate::policy::locality::is_lan(addr.ip()) && link.prefixes.iter().any(here)
        })?;
        link.prefixes.retain(|(own, _)| *own == at.ip());
        Some((link, at.port()))
    });
    reached.collect()
}

fn prefix(addr: &IfAddr) -> (IpAddr, u8) {
    match addr {
        IfAddr::V4(v4) => (v4.ip.into(), v4.prefixlen),
        IfAddr::V6(v6) => (v6.ip.into(), v6.prefixlen),
    }
}

fn same_prefix(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let differ = Ipv4Addr::to_bits(one) ^ Ipv4Addr::to_bits(other);
            differ.leading_zeros() >= bits.min(32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let differ = Ipv6Addr::to_bits(one) ^ Ipv6Addr::to_bits(other);
            differ.leading_zeros() >= bits.min(128)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, prefixes: &[(&str, u8)]) -> Link {
        let prefixes: Vec<(IpAddr, u8)> =
            prefixes.iter().map(|(ip, bits)| (ip.parse().unwrap(), *bits)).collect();
        let key = LinkKey { index, v6: prefixes[0].0.is_ipv6() };
        Link { key, name: format!("eth{index}"), prefixes }
    }

    #[test]
    fn only_neighbours_are_on_a_link() {
        let check = |own: (&str, u8), other: &str, expected: bool| {
            let holds = link(1, &[own]).holds(other.parse().unwrap());
            assert_eq!(holds, expected, "{own:?} {other}");
        };
        check(("192.168.1.7", 24), "192.168.1.255", true);
        check(("192.168.1.7", 24), "192.168.2.1", false);
        check(("10.0.0.1", 8), "10.255.0.1", true);
        check(("10.0.0.1", 32), "10.0.0.1", true);
        check(("10.0.0.1", 32), "10.0.0.2", false);
        check(("fe80::1", 64), "fe80::2", true);
        check(("fd00::1", 64), "fd00:0:0:1::1", false);
        check(("10.0.0.1", 8), "fe80::1", false);
        check(("198.51.100.1", 0), "8.8.8.8", true);
    }

    #[test]
    fn who_listens_where_is_reached_on_which_links() {
        let check = |listen: &[&str], expected: &[(u32, bool, u16, usize)]| {
            let links = vec![
                link(2, &[("192.168.1.7", 24), ("203.0.113.9", 24)]),
                link(2, &[("fe80::7", 64)]),
                link(3, &[("10.0.0.1", 8)]),
            ];
            let listen: Vec<SocketAddr> = listen.iter().map(|addr| addr.parse().unwrap()).collect();
            let seen: Vec<_> = reachable(links, &listen)
                .iter()
                .map(|(link, port)| (link.key.index, link.key.v6, *port, link.prefixes.len()))
                .collect();
            assert_eq!(seen, expected, "{listen:?}");
        };
        let all = [(2, false, 5, 2), (2, true, 5, 1), (3, false, 5, 1)];
        check(&["0.0.0.0:5", "[::]:5"], &all);
        check(&["[::]:5"], &all[1..2]);
        check(&["192.168.1.7:5"], &[(2, false, 5, 1)]);
        check(&["127.0.0.1:5"], &[]);
        check(&["203.0.113.9:5"], &[]);
        check(&["10.0.0.1:5", "192.168.1.7:6"], &[(2, false, 6, 1), (3, false, 5, 1)]);
    }
}
