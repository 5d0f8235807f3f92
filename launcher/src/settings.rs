//! What the player wants of every launcher that works on an install. Kept apart from other records, so that one who
//! changes it need not wait for a launcher at work, which follows within a second.

use crate::status::MachineName;
use serde::{Deserialize, Serialize};
use updraft_protocol::io::UploadPolicy;

/// What the player wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Settings {
    /// Whether to upload to the internet; `None` if never decided: then only the local network is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<bool>,
    /// Whether others on the local network are looked for and served.
    pub lan: bool,
    /// Bytes per second to the internet; `None` for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_limit: Option<u64>,
    /// Bytes per second from the internet; `None` for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_limit: Option<u64>,
    /// Whether to upload while the machine runs on its battery.
    pub on_battery: bool,
    /// Whether every byte to the internet costs: then none is uploaded there.
    pub metered: bool,
    /// What others in the room shall call this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<MachineName>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upload: None,
            lan: true,
            up_limit: None,
            down_limit: None,
            on_battery: false,
            metered: false,
            name: None,
        }
    }
}

/// What else has to do with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The game runs.
    pub playing: bool,
    /// The machine runs on its battery.
    pub on_battery: bool,
}

impl Settings {
    /// Who may be uploaded to now, and why nobody may, if that is for a while only.
    pub fn upload_now(&self, now: Circumstances) -> (UploadPolicy, Option<&'static str>) {
        if now.playing {
            return (UploadPolicy::Nobody, Some("the game runs"));
        }
        if now.on_battery && !self.on_battery {
            return (UploadPolicy::Nobody, Some("the machine runs on its battery"));
        }
        let internet = self.upload == Some(true) && !self.metered;
        let policy = match (internet, self.lan) {
            (true, _) => UploadPolicy::Everyone,
            (false, true) => UploadPolicy::LanOnly,
            (false, false) => UploadPolicy::Nobody,
        };
        (policy, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use UploadPolicy::{Everyone, LanOnly, Nobody};

    #[test]
    fn who_is_uploaded_to() {
        let check = |change: fn(&mut Settings), playing, on_battery, expected| {
            let mut settings = Settings::default();
            change(&mut settings);
            let (policy, why) = settings.upload_now(Circumstances { playing, on_battery });
            assert_eq!(policy, expected, "{settings:?}");
            assert_eq!(why.is_some(), playing || (on_battery && !settings.on_battery));
        };
        check(|_| {}, false, false, LanOnly);
        check(|it| it.upload = Some(true), false, false, Everyone);
        check(|it| it.upload = Some(false), false, false, LanOnly);
        check(|it| it.lan = false, false, false, Nobody);
        check(|it| (it.upload, it.metered) = (Some(true), true), false, false, LanOnly);
        check(|it| it.upload = Some(true), true, false, Nobody);
        check(|it| it.upload = Some(true), false, true, Nobody);
        check(|it| (it.upload, it.on_battery) = (Some(true), true), false, true, Everyone);
        check(|it| it.on_battery = true, true, true, Nobody);
    }

    #[test]
    fn what_is_not_written_is_as_by_default() {
        let settings: Settings = toml::from_str("metered = true").unwrap();
        assert_eq!(settings, Settings { metered: true, ..Settings::default() });
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings);
    }
}
