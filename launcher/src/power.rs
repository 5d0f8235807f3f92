//! Whether the machine runs on its battery.

use starship_battery::{Manager, State};

/// True if a battery is being discharged. A machine without one, or whose system does not say, is not.
pub(crate) fn is_on_battery() -> bool {
    let look = || {
        let batteries = Manager::new()?.batteries()?;
        let mut states = batteries.filter_map(Result::ok).map(|battery| battery.state());
        Ok::<_, starship_battery::Error>(states.any(|state| state == State::Discharging))
    };
    look().unwrap_or_else(|error| {
        tracing::debug!(%error, "the system does not say whether there is a battery");
        false
    })
}
