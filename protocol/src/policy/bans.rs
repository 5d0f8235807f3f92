//! Hosts beyond the LAN, as far as addresses tell them apart, and those that are out for a while because
//! several liars came from there.

use super::locality::is_lan;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// How long a peer that lied stays out, and its host if there were others.
pub const BAN: Duration = Duration::from_secs(3600);
/// Bans of peers at one host after which the whole host is out: many players may share one address.
const BANS_PER_HOST: u32 = 3;
/// Hosts remembered for that; the one heard of longest ago makes place.
const HOSTS_MAX: usize = 1000;

/// One host: an IPv4 address, or an IPv6 network of 64 bits, all of whose addresses any host in it may use
/// (RFC 4291). On the LAN hosts share such a network, so there it is the whole address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddr(IpAddr);

impl HostAddr {
    /// The host at `ip`.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(ip) if !is_lan(ip.into()) => {
                Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()
            }
            other => other,
        })
    }
}

/// Hosts from which liars came.
#[derive(Debug, Default)]
pub struct Bans {
    /// How many, and when the last one was found out.
    hosts: BTreeMap<HostAddr, (u32, Duration)>,
}

impl Bans {
    /// A peer at `host` is thrown out.
    pub fn add(&mut self, now: Duration, host: HostAddr) {
        self.hosts.retain(|_, (_, last)| now.saturating_sub(*last) < BAN);
        if self.hosts.len() >= HOSTS_MAX
            && !self.hosts.contains_key(&host)
            && let Some((&oldest, _)) = self.hosts.iter().min_by_key(|(_, (_, last))| *last)
        {
            self.hosts.remove(&oldest);
        }
        let (count, last) = self.hosts.entry(host).or_default();
        (*count, *last) = (count.saturating_add(1), now);
    }

    /// True while nobody at `host` is talked to.
    pub fn shuts_out(&self, now: Duration, host: HostAddr) -> bool {
        self.hosts
            .get(&host)
            .is_some_and(|(count, last)| *count >= BANS_PER_HOST && now.saturating_sub(*last) < BAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostAddr {
        HostAddr::of(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_network_beyond_the_lan_is_one_host() {
        assert_eq!(host("2001:db8::1"), host("2001:db8::ffff:0:0:1"));
        assert_ne!(host("2001:db8::1"), host("2001:db8:0:1::1"));
        assert_ne!(host("fe80::1"), host("fe80::2"));
        assert_ne!(host("198.51.100.1"), host("198.51.100.2"));
        assert_eq!(host("::ffff:198.51.100.1"), host("198.51.100.1"));
    }

    #[test]
    fn several_liars_shut_their_host_out_for_a_while() {
        let (mut bans, mut now) = (Bans::default(), Duration::ZERO);
        for count in 1..=BANS_PER_HOST {
            bans.add(now, host("198.51.100.1"));
            assert_eq!(bans.shuts_out(now, host("198.51.100.1")), count == BANS_PER_HOST);
        }
        assert!(!bans.shuts_out(now, host("198.51.100.2")));
        now += BAN;
        assert!(!bans.shuts_out(now, host("198.51.100.1")));
        bans.add(now, host("198.51.100.1"));
        assert!(!bans.shuts_out(now, host("198.51.100.1")), "what is long ago does not count");
    }

    #[test]
    fn a_full_list_goes_on() {
        let mut bans = Bans::default();
        for second in 0..5000_u32 {
            bans.add(Duration::from_secs(second.into()), HostAddr(IpAddr::V4(second.into())));
        }
        assert_eq!(bans.hosts.len(), HOSTS_MAX);
        let now = Duration::from_secs(5000);
        (0..BANS_PER_HOST).for_each(|_| bans.add(now, host("198.51.100.1")));
        assert!(bans.shuts_out(now, host("198.51.100.1")));
    }
}
