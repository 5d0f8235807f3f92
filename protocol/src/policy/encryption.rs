//! When a TCP connection hides what it is (message stream encryption), and how much of it.
//!
//! What travels is public and verified, so there is nothing to keep secret: encryption is for peers that
//! take nothing else, and for networks that slow BitTorrent down when they know it. It costs a round trip
//! and, where all of it is encrypted, processor time. So by default nobody is asked for it before it has
//! turned out to be needed, and everybody who asks for it gets it.

/// Told in the handshake: what comes after it is not encrypted.
pub const PLAIN: u32 = 1;
/// Told in the handshake: all of it is encrypted by RC4.
pub const RC4: u32 = 2;

/// How connections are made and taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// Neither asked for nor answered.
    Off,
    /// Asked for where a peer hangs up at once without it; answered, and ended with the handshake where the
    /// peer agrees.
    #[default]
    Allow,
    /// Asked for first, and kept up where the peer agrees; without where that fails.
    Prefer,
    /// Nobody is spoken with otherwise, and all of it is encrypted.
    Require,
}

/// A word that is no [`Encryption`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one of off, allow, prefer and require is expected")]
pub struct NoEncryption;

impl std::str::FromStr for Encryption {
    type Err = NoEncryption;

    fn from_str(text: &str) -> Result<Self, NoEncryption> {
        match text {
            "off" => Ok(Self::Off),
            "allow" => Ok(Self::Allow),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            _ => Err(NoEncryption),
        }
    }
}

impl Encryption {
    /// Whether somebody who begins without it is answered.
    pub fn takes_plain(self) -> bool {
        self != Self::Require
    }

    /// Whether somebody who begins with it is answered.
    pub fn takes_encrypted(self) -> bool {
        self != Self::Off
    }

    /// Whether a peer is dialled with it, at first.
    pub fn dials_encrypted(self) -> bool {
        matches!(self, Self::Prefer | Self::Require)
    }

    /// Whether a peer that failed so is dialled the other way.
    pub fn dials_twice(self) -> bool {
        matches!(self, Self::Allow | Self::Prefer)
    }

    /// What a peer that we dial may choose from.
    pub fn provides(self) -> u32 {
        if self == Self::Require { RC4 } else { PLAIN | RC4 }
    }

    /// What we choose from what a peer provides; `None` if there is nothing that we take.
    pub fn selects(self, provided: u32) -> Option<u32> {
        let order = match self {
            Self::Off => [].as_slice(),
            Self::Allow => &[PLAIN, RC4],
            Self::Prefer => &[RC4, PLAIN],
            Self::Require => &[RC4],
        };
        order.iter().copied().find(|kind| provided & kind != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_meets_agrees_or_not() {
        use Encryption::*;
        let all = [Off, Allow, Prefer, Require];
        for dials in all {
            for takes in all {
                let encrypted = takes.takes_encrypted() && dials != Off;
                let chosen = takes.selects(dials.provides()).filter(|_| encrypted);
                // Who requires it gets all of it or nothing.
                if dials == Require || takes == Require {
                    assert_ne!(chosen, Some(PLAIN), "{dials:?} {takes:?}");
                }
                let plain = takes.takes_plain() && (!dials.dials_encrypted() || dials == Prefer);
                let meets = chosen.is_some() || plain;
                let hopeless = [(Off, Require), (Require, Off)].contains(&(dials, takes));
                assert_eq!(meets, !hopeless, "{dials:?} {takes:?}");
            }
        }
        assert_eq!(Allow.selects(PLAIN | RC4), Some(PLAIN));
        assert_eq!(Prefer.selects(PLAIN | RC4), Some(RC4));
        assert_eq!(Require.selects(PLAIN), None);
        assert_eq!(Allow.selects(0xffff_fffc), None);
        assert_eq!("require".parse(), Ok(Require));
        assert_eq!("always".parse::<Encryption>(), Err(NoEncryption));
    }
}
