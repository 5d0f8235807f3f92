//! `status`: what is live.

use super::channels::{pace_fields, pace_text, percent};
use crate::channels::share;
use crate::home::Home;
use crate::output::Output;
use crate::repository::{Repository, now};
use crate::{Error, base};
use serde_json::{Value, json};
use updraft_manifests::head::{Head, Release};
use updraft_manifests::time::Time;

pub(super) fn run(home: &Home, out: Output) -> Result<(), Error> {
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    if let Some(why) = base::behind(home, &repository)? {
        out.warn(why);
    }
    let Some(accepted) = repository.head(now())? else {
        out.tell("empty", "nothing was published yet", json!({}));
        return Ok(());
    };
    for (event, text, fields) in lines(&accepted.head, now()) {
        out.tell(event, text, fields);
    }
    Ok(())
}

/// An event for each thing that is live at `now`.
fn lines(head: &Head, now: Time) -> Vec<(&'static str, String, Value)> {
    let mut lines = vec![head_line(head, now)];
    lines.extend(head.releases.iter().map(|release| release_line(head, release, now)));
    lines.extend(head.preloads.iter().map(|release| {
        let Release { version, channel, platform, sequence, .. } = release;
        (
            "announced",
            format!("`{channel}` ({platform}): {version} is announced, as release {sequence}"),
            json!({
                "version": version, "channel": channel, "platform": platform, "sequence": sequence,
            }),
        )
    }));
    lines.extend(head.launchers.iter().map(|launcher| {
        let is_revoked = head.revoked.contains(&launcher.manifest);
        let revoked = if is_revoked { ", revoked" } else { "" };
        let (version, platform, number) =
            (&launcher.version, &launcher.platform, launcher.sequence);
        (
            "launcher",
            format!("launcher for {platform}: {version}, number {number}{revoked}"),
            json!({
                "version": version, "platform": platform, "sequence": number, "revoked": is_revoked,
            }),
        )
    }));
    lines
}

fn head_line(head: &Head, now: Time) -> (&'static str, String, Value) {
    let age = now.unix().saturating_sub(head.created.unix());
    let is_expired = now >= head.expires;
    let valid = if is_expired {
        format!(
            "expired since {}: players get no updates; run `updraft-publisher head`",
            head.expires
        )
    } else {
        format!("valid until {}", head.expires)
    };
    let revoked = match head.revoked.len() {
        0 => String::new(),
        count => format!(", {count} manifests revoked"),
    };
    (
        "head",
        format!(
            "head {}, root {}, signed {} ago, {valid}{revoked}",
            head.sequence,
            head.root,
            span(age)
        ),
        json!({
            "head": head.sequence,
            "root": head.root,
            "created": head.created.to_string(),
            "age_seconds": age,
            "expires": head.expires.to_string(),
            "expired": is_expired,
            "revoked": head.revoked.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    )
}

fn release_line(head: &Head, release: &Release, now: Time) -> (&'static str, String, Value) {
    let Release { version, channel, platform, sequence, .. } = release;
    let is_revoked = head.revoked.contains(&release.manifest);
    let live = release.rollout.as_ref().map_or(share(&[], now), |rollout| {
        if rollout.critical { share(&[], now) } else { share(&rollout.steps, now) }
    });
    let how = if is_revoked {
        "is revoked: players get nothing until another release is published or promoted".to_owned()
    } else {
        let how = pace_text(release);
        let is_halted = release.rollout.as_ref().is_some_and(|rollout| rollout.paused);
        if is_halted || live == share(&[], now) {
            how
        } else {
            format!("{how} ({} % now)", percent(live))
        }
    };
    let mut fields = pace_fields(release);
    if let Value::Object(fields) = &mut fields {
        fields.insert("sequence".to_owned(), json!(sequence));
        fields.insert("percent_now".to_owned(), json!(percent(live)));
        fields.insert("revoked".to_owned(), json!(is_revoked));
        fields.insert("patches".to_owned(), json!(release.patches.is_some()));
    }
    let text = format!("`{channel}` ({platform}): {version}, release {sequence}, {how}");
    ("offered", text, fields)
}

/// Seconds for people: the largest unit that fits.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_manifests::hash::ContentHash;
    use updraft_manifests::head::Sources;
    use updraft_manifests::names::{Name, Version};
    use updraft_manifests::rollout::{Rollout, Step};

    fn release(channel: &str, version: &str, hash: u8) -> Release {
        Release {
            channel: Name::parse(channel).unwrap(),
            platform: Name::any_platform(),
            version: Version::parse(version).unwrap(),
            sequence: hash.into(),
            manifest: ContentHash([hash; 32]),
            length: 1,
            patches: None,
            rollout: None,
        }
    }

    #[test]
    fn everything_that_is_live_is_told() {
        let at = Time::parse("2027-01-31T12:00:00Z").unwrap();
        let step = |days: u64, buckets| Step { from: at.after(days * 86_400), buckets };
        let rollout = Rollout {
            salt: ContentHash([0; 32]),
            paused: false,
            critical: false,
            steps: vec![step(0, 500), step(2, 10_000)],
        };
        let stepped = Release { rollout: Some(rollout.clone()), ..release("stable", "2.0", 4) };
        let paused = Rollout { paused: true, ..rollout };
        let halted = Release { rollout: Some(paused), ..release("beta", "2.1", 5) };
        let head = Head {
            format: 1,
            product: Name::parse("game").unwrap(),
            sequence: 7,
            created: at,
            expires: at.after(7 * 86_400),
            root: 3,
            sources: Sources::default(),
            releases: vec![halted, release("old", "1.0", 1), stepped],
            preloads: vec![release("stable", "3.0", 6)],
            launchers: vec![],
            revoked: vec![ContentHash([1; 32])],
        };
        let texts =
            |now| lines(&head, now).into_iter().map(|(_, text, _)| text).collect::<Vec<_>>();
        assert_eq!(
            texts(at.after(86_400)),
            [
                "head 7, root 3, signed 24 h ago, valid until 2027-02-07T12:00:00Z, 1 manifests revoked",
                "`beta` (any): 2.1, release 5, is halted: nobody installs it until `rollout --resume`; who has \
                 it keeps it",
                "`old` (any): 1.0, release 1, is revoked: players get nothing until another release is published \
                 or promoted",
                "`stable` (any): 2.0, release 4, goes to 5 % from 2027-01-31T12:00:00Z, 100 % from \
                 2027-02-02T12:00:00Z (5 % now)",
                "`stable` (any): 3.0 is announced, as release 6",
            ]
        );
        let late = texts(at.after(9 * 86_400));
        assert!(late[0].contains("signed 9 days ago, expired since 2027-02-07"), "{}", late[0]);
        assert!(late[3].ends_with("100 % from 2027-02-02T12:00:00Z"), "{}", late[3]);
        let fields = &lines(&head, at)[3].2;
        assert_eq!(fields["percent_now"], json!(5.0));
        assert_eq!(fields["steps"].as_array().unwrap().len(), 2);
    }
}
