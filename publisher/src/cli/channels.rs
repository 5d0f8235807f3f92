//! `promote`, `rollout`, `halt`, `revoke`: what a channel offers, and to whom.

use crate::Error;
use crate::channels::{self, Pace};
use crate::home::Home;
use crate::output::Output;
use crate::repository::now;
use crate::torrent::create::parse_bytes;
use clap::Args;
use serde_json::{Value, json};
use updraft_manifests::head::Release;
use updraft_manifests::names::{Name, Version};
use updraft_manifests::rollout::{BUCKETS, Step};
use updraft_manifests::time::Time;

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// The version.
    #[arg(id = "release-version", value_name = "VERSION")]
    version: Version,
    /// The channel.
    #[arg(long)]
    channel: Name,
    /// One platform only.
    #[arg(long)]
    platform: Option<Name>,
}

#[derive(Debug, Args)]
pub(super) struct PromoteArgs {
    /// The version.
    #[arg(id = "release-version", value_name = "VERSION")]
    version: Version,
    /// The channel that offers it now.
    #[arg(long)]
    from: Name,
    /// The channel that shall offer it, too.
    #[arg(long)]
    to: Name,
    /// At first, only to so many percent of those who have an older release: see `rollout`.
    #[arg(long, value_name = "PERCENT", value_parser = parse_share)]
    first: Option<u16>,
    /// Bring back a version that was revoked there, as a release of its own.
    #[arg(long)]
    unrevoke: bool,
    /// Memory for making patches, such as 500MiB; half of the machine's if not given.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct RolloutArgs {
    /// The channel.
    channel: Name,
    /// Percent of the players, and from when on: `5%`, `25%@+1d`, `100%@2027-01-31T12:00:00Z`.
    #[arg(required_unless_present_any = ["resume", "critical"], value_parser = parse_step)]
    steps: Vec<Step>,
    /// Go on after `halt`.
    #[arg(long, conflicts_with_all = ["steps", "critical"])]
    resume: bool,
    /// Everybody at once, steps or no steps.
    #[arg(long, conflicts_with = "steps")]
    critical: bool,
    /// One platform only.
    #[arg(long)]
    platform: Option<Name>,
}

#[derive(Debug, Args)]
pub(super) struct HaltArgs {
    /// The channel.
    channel: Name,
    /// One platform only.
    #[arg(long)]
    platform: Option<Name>,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The version.
    #[arg(id = "release-version", value_name = "VERSION")]
    version: Version,
    /// One channel only.
    #[arg(long, conflicts_with = "launcher")]
    channel: Option<Name>,
    /// A version of the launcher instead of a release.
    #[arg(long)]
    launcher: bool,
}

/// `5%` or `0.5` as buckets.
pub(super) fn parse_share(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is not a share from 0% to 100%");
    let number: f64 = text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| wrong())?;
    let buckets = (number * f64::from(BUCKETS) / 100.0).round();
    let all = (0..=BUCKETS).find(|whole| f64::from(*whole) == buckets);
    all.ok_or_else(wrong)
}

/// Buckets as percent.
pub(super) fn percent(buckets: u16) -> f64 {
    f64::from(buckets) * 100.0 / f64::from(BUCKETS)
}

fn parse_step(text: &str) -> Result<Step, String> {
    let (share, from) = text.split_once('@').map_or((text, None), |(share, at)| (share, Some(at)));
    let from = match from {
        None => now(),
        Some(at) => match at.strip_prefix('+') {
            Some(later) => now().after(seconds(later)?),
            None => Time::parse(at).map_err(|error| error.to_string())?,
        },
    };
    Ok(Step { from, buckets: parse_share(share)? })
}

/// `90m`, `12h`, `3d` in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`+{text}` is no time such as +90m, +12h or +3d");
    let units = [('m', 60), ('h', 3600), ('d', 86_400)];
    let (number, unit) = units
        .iter()
        .find_map(|(letter, unit)| Some((text.strip_suffix(*letter)?, unit)))
        .ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(*unit).ok_or_else(wrong)
}

pub(super) fn release(home: &Home, args: &ReleaseArgs, out: Output) -> Result<(), Error> {
    let ReleaseArgs { version, channel, platform } = args;
    let (released, already) = channels::release(home, version, channel, platform.as_ref())?;
    for release in released {
        let how = if already { "is offered already" } else { "is offered from now on" };
        out.tell(
            "released",
            format!(
                "{version} on `{channel}` ({}) {how}, as release {}",
                release.platform, release.sequence
            ),
            json!({
                "version": version,
                "channel": channel,
                "platform": release.platform,
                "sequence": release.sequence,
                "already": already,
            }),
        );
    }
    Ok(())
}

pub(super) fn promote(home: &Home, args: &PromoteArgs, out: Output) -> Result<(), Error> {
    let PromoteArgs { version, from, to, first, unrevoke, memory } = args;
    let all = channels::promote(home, version, from, to, *first, *unrevoke)?;
    for promoted in &all {
        let name = format!("{version} on `{to}` ({})", promoted.platform);
        let text = if promoted.already {
            format!("{name} is offered already, as release {}", promoted.sequence)
        } else {
            let share = first.map_or_else(String::new, |share| {
                format!(", at first to {} % of those who have an older one", percent(share))
            });
            format!("{name} is offered as release {}{share}", promoted.sequence)
        };
        out.tell(
            "promoted",
            text,
            json!({
                "version": version,
                "channel": to,
                "platform": promoted.platform,
                "sequence": promoted.sequence,
                "already": promoted.already,
                "first": first.map(percent),
            }),
        );
    }
    // Live already; who has an older release gets it for less once they are there.
    all.iter().try_for_each(|promoted| super::offer_patches(home, &promoted.manifest, *memory, out))
}

pub(super) fn rollout(home: &Home, args: RolloutArgs, out: Output) -> Result<(), Error> {
    let pace = match (args.resume, args.critical) {
        (true, _) => Pace::Resume,
        (_, true) => Pace::Critical,
        _ => Pace::Steps(in_order(args.steps)?),
    };
    let releases = channels::pace(home, &args.channel, args.platform.as_ref(), &pace)?;
    releases.iter().for_each(|release| tell_pace(release, out));
    Ok(())
}

/// Shares that rise with time: who has had a turn keeps it.
fn in_order(steps: Vec<Step>) -> Result<Vec<Step>, Error> {
    if !steps.is_sorted_by_key(|step| step.from) {
        return Err(Error::Usage("the steps are not in order of time".to_owned()));
    }
    if let Some(pair) = steps.windows(2).find(|pair| pair[1].buckets < pair[0].buckets) {
        return Err(Error::Usage(format!(
            "the steps go down, from {} % to {} %: who has the release by then keeps it, so use `halt` to \
             stop it, or `revoke` to take it back",
            percent(pair[0].buckets),
            percent(pair[1].buckets)
        )));
    }
    Ok(steps)
}

pub(super) fn halt(home: &Home, args: &HaltArgs, out: Output) -> Result<(), Error> {
    let releases = channels::pace(home, &args.channel, args.platform.as_ref(), &Pace::Pause)?;
    releases.iter().for_each(|release| tell_pace(release, out));
    Ok(())
}

/// How a release goes to players.
pub(super) fn pace_text(release: &Release) -> String {
    match &release.rollout {
        Some(rollout) if rollout.paused => {
            "is halted: nobody installs it until `rollout --resume`; who has it keeps it".to_owned()
        }
        Some(rollout) if !rollout.critical && !rollout.steps.is_empty() => {
            let steps = rollout.steps.iter();
            let steps = steps.map(|s| format!("{} % from {}", percent(s.buckets), s.from));
            format!("goes to {}", steps.collect::<Vec<_>>().join(", "))
        }
        Some(_) | None => "goes to everybody".to_owned(),
    }
}

/// What programs are told of a release and its pace.
pub(super) fn pace_fields(release: &Release) -> Value {
    let rollout = release.rollout.as_ref();
    json!({
        "version": release.version,
        "channel": release.channel,
        "platform": release.platform,
        "paused": rollout.is_some_and(|rollout| rollout.paused),
        "critical": rollout.is_some_and(|rollout| rollout.critical),
        "steps": rollout.map_or(&[][..], |rollout| &rollout.steps),
    })
}

fn tell_pace(release: &Release, out: Output) {
    let name = format!("{} on `{}` ({})", release.version, release.channel, release.platform);
    out.tell("rollout", format!("{name} {}", pace_text(release)), pace_fields(release));
}

pub(super) fn revoke(home: &Home, args: &RevokeArgs, out: Output) -> Result<(), Error> {
    let RevokeArgs { version, channel, launcher } = args;
    let revoked = channels::revoke(home, version, channel.as_ref(), *launcher)?;
    for (channel, platform) in &revoked.empty {
        out.warn(format!(
            "`{channel}` ({platform}) still points at it, so players get nothing there: publish or \
             promote another release"
        ));
    }
    out.tell(
        "revoked",
        format!("{version} is revoked: it is not installed any more, and who has it is told"),
        json!({
            "version": version,
            "manifests": revoked.manifests.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_times() {
        assert_eq!(parse_share("5%"), Ok(500));
        assert_eq!(parse_share("0.01"), Ok(1));
        assert_eq!(parse_share("100"), Ok(BUCKETS));
        for bad in ["", "%", "-1", "100.1", "x", "NaN", "inf"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
        assert_eq!(seconds("90m"), Ok(5400));
        assert_eq!(seconds("3d"), Ok(259_200));
        for bad in ["", "3", "d", "-1h", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        let step = parse_step("25%@2027-01-31T12:00:00Z").unwrap();
        assert_eq!(step.from, Time::parse("2027-01-31T12:00:00Z").unwrap());
        assert!(parse_step("25%@+1d").unwrap().from > now());
        let steps = |texts: &[&str]| texts.iter().map(|text| parse_step(text).unwrap()).collect();
        in_order(steps(&["5%", "25%@+1d", "25%@+2d", "100%@+3d"])).unwrap();
        let error = in_order(steps(&["25%", "5%@+1d"])).unwrap_err();
        assert!(error.to_string().contains("from 25 % to 5 %"), "{error}");
        let error = in_order(steps(&["25%@+2d", "50%@+1d"])).unwrap_err();
        assert!(error.to_string().contains("order of time"), "{error}");
    }
}
