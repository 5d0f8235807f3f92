//! What can be set with `config`.

use super::{Answer, DirArgs, Rate};
use crate::settings::Settings;
use crate::status::MachineName;
use clap::{Args as ClapArgs, ValueEnum};

/// What to set to what.
#[derive(Debug, ClapArgs)]
pub struct ConfigArgs {
    /// The setting; without it, show all.
    #[arg(requires = "value")]
    pub setting: Option<Setting>,
    /// `yes` or `no`; for limits bytes per second, like 500K or 2M, or `none`; for the name the name, or `none`.
    pub value: Option<String>,
    /// The folder of the game.
    #[command(flatten)]
    pub dir: DirArgs,
}

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Setting {
    /// Upload to others on the internet, who then see your address.
    Upload,
    /// Look for others on your own network, and help them.
    Lan,
    /// Send to the internet at most so much a second.
    UpLimit,
    /// Take from the internet at most so much a second.
    DownLimit,
    /// Upload while the machine runs on its battery, too.
    OnBattery,
    /// Every byte to the internet costs: upload none.
    Metered,
    /// What others in the room shall call this machine.
    Name,
}

impl Setting {
    /// Sets it in `settings`.
    ///
    /// # Errors
    /// In words, if the value is none for it.
    pub fn set(self, settings: &mut Settings, value: &str) -> Result<(), String> {
        let truth = || Answer::from_str(value, true).map(Answer::is_yes);
        match self {
            Self::Upload => settings.upload = Some(truth()?),
            Self::Lan => settings.lan = truth()?,
            Self::UpLimit => settings.up_limit = Rate::parse(value)?.0,
            Self::DownLimit => settings.down_limit = Rate::parse(value)?.0,
            Self::OnBattery => settings.on_battery = truth()?,
            Self::Metered => settings.metered = truth()?,
            Self::Name if value == "none" => settings.name = None,
            Self::Name => settings.name = Some(value.parse::<MachineName>()?),
        }
        Ok(())
    }
}
