//! Which transport a connection has: TCP where somebody waits or the network is local, QUIC where a
//! transfer is to yield to all else on an uplink, uTP where TCP does not get through.
//!
//! Almost every peer speaks TCP, so that is what strangers are dialled by, and then uTP. Whoever is known to have QUIC, from
//! its extension handshake or from peer exchange, is dialled by that, or met there after all: see
//! [`Preference::upgrades`].

use std::time::Duration;

/// A peer that does not answer by QUIC for this long is dialled by TCP: many networks drop UDP.
pub const QUIC_PATIENCE: Duration = Duration::from_secs(1);

/// What a connection runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, as every client speaks it.
    Tcp,
    /// uTP (BEP 29), which most clients speak as well.
    Utp,
    /// The same messages over one bidirectional QUIC stream (RFC 9000), between Updraft's own.
    Quic,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Utp => "uTP",
            Self::Quic => "QUIC",
        })
    }
}

/// What connections are to run over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// Somebody waits for the transfer: TCP. QUIC is spoken with whoever dials by it.
    #[default]
    Now,
    /// Nobody waits: QUIC with everybody beyond the LAN who has it, sent so that it yields.
    Background,
    /// TCP alone: no UDP port is opened.
    Tcp,
    /// uTP first, where the other end has it: for networks that hold up TCP, and to compare.
    Utp,
    /// QUIC with everybody who has it, on the LAN too.
    Quic,
}

/// A word that is no [`Preference`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one of now, background, tcp, utp and quic is expected")]
pub struct NoPreference;

impl std::str::FromStr for Preference {
    type Err = NoPreference;

    fn from_str(text: &str) -> Result<Self, NoPreference> {
        match text {
            "now" => Ok(Self::Now),
            "background" => Ok(Self::Background),
            "tcp" => Ok(Self::Tcp),
            "utp" => Ok(Self::Utp),
            "quic" => Ok(Self::Quic),
            _ => Err(NoPreference),
        }
    }
}

impl Preference {
    /// Whether a peer that has both is dialled by QUIC.
    pub fn prefers_quic(self, lan: bool) -> bool {
        match self {
            Self::Now | Self::Tcp | Self::Utp => false,
            Self::Background => !lan,
            Self::Quic => true,
        }
    }

    /// Whether a connection by `transport` is to be replaced by one over QUIC, now that the peer says
    /// that it has it.
    pub fn upgrades(self, transport: Transport, lan: bool) -> bool {
        transport != Transport::Quic && self.prefers_quic(lan)
    }

    /// What every client has, in the order in which it is tried. uTP comes second: others' makes way for all
    /// other traffic, ours costs several times the processor time of TCP.
    pub fn ways(self) -> [Transport; 2] {
        match self {
            Self::Now | Self::Background | Self::Tcp | Self::Quic => {
                [Transport::Tcp, Transport::Utp]
            }
            Self::Utp => [Transport::Utp, Transport::Tcp],
        }
    }

    /// Whether what is sent yields to other traffic.
    pub fn yields(self) -> bool {
        self == Self::Background
    }

    /// Whether a UDP port is opened, for QUIC and uTP.
    pub fn has_datagrams(self) -> bool {
        self != Self::Tcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_waits_for_moves_to_quic_and_never_on_the_lan() {
        let upgrades = |preference: Preference, lan| preference.upgrades(Transport::Tcp, lan);
        assert!(upgrades(Preference::Background, false));
        assert!(!upgrades(Preference::Background, true));
        assert!(!upgrades(Preference::Now, false));
        assert!(!upgrades(Preference::Tcp, false));
        assert!(upgrades(Preference::Quic, true));
        assert!(!Preference::Quic.upgrades(Transport::Quic, false));
        assert!(Preference::Background.upgrades(Transport::Utp, false));
    }
}
