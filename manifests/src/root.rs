//! The root: which keys count for which role, and how many of them must sign.
//!
//! Root 1 is pinned by the feed's fingerprint; root N+1 counts when it is signed by the root keys of
//! N and by its own. Served as `root/<N>.toml` and kept for ever, so that anybody can walk.

use crate::document::{KeySet, Payload};
use crate::keys::Role;
use crate::names::Name;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most keys of one role.
pub const KEYS_MAX: usize = 16;
/// The most channels with a threshold of their own.
pub const CHANNEL_THRESHOLDS_MAX: usize = 64;

/// Payload of `root/<version>.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// [`crate::document::FORMAT`].
    pub format: u32,
    /// Whose keys these are.
    pub product: Name,
    /// Counts from 1 without gaps.
    pub version: u64,
    /// When it was signed.
    pub created: Time,
    /// Keys and thresholds.
    pub roles: Roles,
}

/// The keys of every role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// May sign roots.
    pub root: KeySet,
    /// May sign manifests.
    pub release: ReleaseKeys,
    /// May sign heads.
    pub head: KeySet,
    /// May sign releases of the launcher, if this product is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<KeySet>,
}

/// The release role: its threshold may differ by channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseKeys {
    /// Keys, and the threshold of channels that are not listed.
    #[serde(flatten)]
    pub keys: KeySet,
    /// Thresholds by channel.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<Name, u32>,
}

impl Roles {
    /// The keys of `role`, with the threshold of channels that have none of their own.
    pub fn of(&self, role: Role) -> Option<&KeySet> {
        match role {
            Role::Root => Some(&self.root),
            Role::Release => Some(&self.release.keys),
            Role::Head => Some(&self.head),
            Role::Launcher => self.launcher.as_ref(),
        }
    }
}

impl ReleaseKeys {
    /// The keys and threshold for manifests of `channel`.
    pub fn for_channel(&self, channel: &Name) -> KeySet {
        let threshold = self.channels.get(channel).copied().unwrap_or(self.keys.threshold);
        KeySet { threshold, keys: self.keys.keys.clone() }
    }
}

impl Payload for Root {
    fn check(&self) -> Result<(), String> {
        if self.version == 0 {
            return Err("root versions count from 1".to_owned());
        }
        let roles = &self.roles;
        let release = &roles.release.keys;
        let sets = [(Role::Root, &roles.root), (Role::Release, release), (Role::Head, &roles.head)];
        for (role, set) in
            sets.into_iter().chain(roles.launcher.iter().map(|set| (Role::Launcher, set)))
        {
            check_threshold(role, set.threshold, set.keys.len())?;
            if set.keys.len() > KEYS_MAX {
                return Err(format!("the {role} role has more than {KEYS_MAX} keys"));
            }
        }
        if roles.release.channels.len() > CHANNEL_THRESHOLDS_MAX {
            return Err(format!("more than {CHANNEL_THRESHOLDS_MAX} channels have thresholds"));
        }
        for threshold in roles.release.channels.values() {
            check_threshold(Role::Release, *threshold, release.keys.len())?;
        }
        if let Some(launcher) = &roles.launcher
            && !launcher.keys.is_disjoint(&release.keys)
        {
            return Err("a key is both a launcher and a release key".to_owned());
        }
        Ok(())
    }
}

fn check_threshold(role: Role, threshold: u32, keys: usize) -> Result<(), String> {
    if threshold == 0 || threshold as usize > keys {
        return Err(format!("the {role} role needs {threshold} of {keys} keys, which cannot be"));
    }
    Ok(())
}

/// Where root `version` lies in the repository.
pub fn path(version: u64) -> String {
    format!("root/{version}.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn impossible_thresholds_are_refused() {
        let good = World::new().root();
        good.check().unwrap();
        let check = |change: fn(&mut Root)| {
            let mut root = good.clone();
            change(&mut root);
            assert!(root.check().is_err(), "{root:?}");
        };
        check(|root| root.version = 0);
        check(|root| root.roles.head.threshold = 0);
        check(|root| root.roles.root.threshold = 2);
        check(|root| {
            root.roles.release.channels.insert(Name::parse("stable").unwrap(), 2);
        });
        check(|root| root.roles.launcher = Some(root.roles.release.keys.clone()));
    }

    #[test]
    fn text_round_trip() {
        let mut root = World::new().root();
        root.roles.release.channels.insert(Name::parse("stable").unwrap(), 1);
        let text = toml::to_string(&root).unwrap();
        assert_eq!(toml::from_str::<Root>(&text).unwrap(), root, "{text}");
    }
}
