//! What a channel offers after a release is published: promoted from another channel, revoked, rolled
//! out step by step, paused.

use crate::home::Home;
use crate::publish::{sign_manifest, waiting_name};
use crate::repository::{Repository, now};
use crate::signers::Signers;
use crate::{Error, base, disk, head, versions, waiting};
use std::path::PathBuf;
use updraft_manifests::document::{Signed, Verified};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::{Head, Release};
use updraft_manifests::keys::Role;
use updraft_manifests::manifest::{self, Manifest};
use updraft_manifests::names::{Name, Version};
use updraft_manifests::rollout::{BUCKETS, Rollout, Step};
use updraft_manifests::time::Time;

/// One release that was promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// Its platform.
    pub platform: Name,
    /// Its sequence in the new channel.
    pub sequence: u64,
    /// Its manifest there.
    pub manifest: ContentHash,
    /// True if the channel offered it already.
    pub already: bool,
}

/// Offers `version`, which channel `from` offers now, on channel `to`, too: a new manifest of the same
/// content, with that channel's next sequence and its signatures. With `first` only so many of 10 000
/// installs get it by themselves at first. `unrevoke` brings back what was revoked on `to`.
///
/// # Errors
/// [`Error`]; the repository then offers what it offered before.
pub fn promote(
    home: &Home,
    version: &Version,
    from: &Name,
    to: &Name,
    first: Option<u16>,
    unrevoke: bool,
) -> Result<Vec<Promoted>, Error> {
    if from == to {
        return Err(Error::Usage(format!("--from and --to are both `{to}`")));
    }
    let (signers, head_key) = (Signers::at_hand(home, Role::Release)?, home.key(Role::Head)?);
    let (mut lock, repository) = base::begin(home)?;
    let head = published(&repository)?;
    let on_from = || head.releases.iter().filter(|release| release.channel == *from);
    let mut promoted = Vec::new();
    let mut entries = Vec::new();
    let (mut waits, mut names) = (Vec::new(), Vec::new());
    for release in on_from().filter(|release| release.version == *version) {
        if head.revoked.contains(&release.manifest) {
            let text = format!("{version} on `{from}` is revoked: no player would install it");
            return Err(Error::Usage(text));
        }
        let old = repository.manifest(&head, release)?;
        let there = head
            .releases
            .iter()
            .find(|other| other.channel == *to && other.platform == release.platform);
        let before = there.map(|there| repository.manifest(&head, there)).transpose()?;
        let sequence = next_sequence(Some(&head), to, &release.platform);
        let platform = release.platform.clone();
        if let (Some(there), Some(before)) = (there, before)
            && is_same(&before, &old)
            && !head.revoked.contains(&there.manifest)
        {
            let (sequence, manifest) = (before.sequence, there.manifest);
            promoted.push(Promoted { platform, sequence, manifest, already: true });
            continue;
        }
        if !unrevoke {
            versions::refuse_revoked(&repository, &head, version, to, &platform)?;
        }
        let v2 = &old.torrent.v2;
        versions::refuse_other_content(&repository, &head, version, to, &platform, v2)?;
        let new = Manifest { channel: to.clone(), sequence, created: now(), ..old.into_inner() };
        let signed = match sign_manifest(home, &repository, &new, &signers) {
            // So that those of all platforms can be signed in one go.
            Err(Error::Waiting(more)) => {
                waits.extend(more);
                continue;
            }
            signed => signed?,
        };
        names.push(waiting_name(&new));
        let path = repository.dir.join(manifest::path(&signed.hash()));
        disk::write_atomic(&path, &signed.to_bytes())?;
        entries.push(Release {
            channel: to.clone(),
            sequence,
            manifest: signed.hash(),
            length: signed.payload().len() as u64,
            rollout: first.map(|share| first_share(signed.hash(), share)),
            ..release.clone()
        });
        let manifest = signed.hash();
        promoted.push(Promoted { platform, sequence, manifest, already: false });
    }
    if !waits.is_empty() {
        return Err(Error::Waiting(waits));
    }
    if promoted.is_empty() {
        let offered: Vec<_> =
            on_from().map(|r| format!("{} ({})", r.version, r.platform)).collect();
        let offered = if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") };
        return Err(Error::Usage(format!("`{from}` does not offer {version}, but {offered}")));
    }
    if !entries.is_empty() {
        head::sign(home, &head_key, &repository, &mut lock, |head| {
            for entry in entries {
                put(head, entry);
            }
        })?;
    }
    names.iter().try_for_each(|name| waiting::done(home, name))?;
    Ok(promoted)
}

/// Puts a release in the place of the one that the channel offered before. A preload that it has overtaken goes.
pub fn put(head: &mut Head, entry: Release) {
    head.preloads
        .retain(|preload| !preload.is_in_place_of(&entry) || preload.sequence > entry.sequence);
    replace(&mut head.releases, entry);
}

/// Announces a release: launchers fetch it, and install it when it is [`put`].
pub fn announce(head: &mut Head, entry: Release) {
    replace(&mut head.preloads, entry);
}

fn replace(list: &mut Vec<Release>, entry: Release) {
    list.retain(|other| !other.is_in_place_of(&entry));
    list.push(entry);
    list.sort_by(|a, b| (&a.channel, &a.platform).cmp(&(&b.channel, &b.platform)));
}

/// The number that no release of that channel has had yet, announced ones included.
pub fn next_sequence(head: Option<&Head>, channel: &Name, platform: &Name) -> u64 {
    let named = head.into_iter().flat_map(Head::named);
    let there = named.filter(|r| r.channel == *channel && r.platform == *platform);
    there.map(|release| release.sequence).max().unwrap_or(0) + 1
}

/// Lets `channel` point at the preload of `version`, on one platform or all: launchers that have fetched it switch
/// at once. Returns what is released, and whether it was already.
///
/// # Errors
/// [`Error`]; the repository then offers what it offered before.
pub fn release(
    home: &Home,
    version: &Version,
    channel: &Name,
    platform: Option<&Name>,
) -> Result<(Vec<Release>, bool), Error> {
    let key = home.key(Role::Head)?;
    let (mut lock, repository) = base::begin(home)?;
    let head = published(&repository)?;
    let meant = |release: &&Release| {
        release.channel == *channel
            && release.version == *version
            && platform.is_none_or(|name| release.platform == *name)
    };
    let announced: Vec<_> = head.preloads.iter().filter(meant).cloned().collect();
    if announced.is_empty() {
        let there: Vec<_> = head.releases.iter().filter(meant).cloned().collect();
        if !there.is_empty() {
            return Ok((there, true));
        }
        let known = head
            .preloads
            .iter()
            .map(|r| format!("{} on `{}` ({})", r.version, r.channel, r.platform));
        let known = known.collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "nothing".to_owned() } else { known };
        return Err(Error::Usage(format!(
            "{version} is not announced on `{channel}`, but {known}: see `publish --preload`"
        )));
    }
    if let Some(revoked) = announced.iter().find(|r| head.revoked.contains(&r.manifest)) {
        let text =
            format!("{version} ({}) is revoked: no player would install it", revoked.platform);
        return Err(Error::Usage(text));
    }
    // Judged as a launcher would.
    for entry in &announced {
        repository.manifest(&head, entry)?;
    }
    head::sign(home, &key, &repository, &mut lock, |head| {
        for entry in &announced {
            put(head, entry.clone());
            head.preloads.retain(|preload| !preload.is_in_place_of(entry));
        }
    })?;
    Ok((announced, false))
}

/// A rollout that has begun with so many of 10 000.
pub fn first_share(manifest: ContentHash, buckets: u16) -> Rollout {
    let steps = vec![Step { from: now(), buckets }];
    Rollout { salt: manifest, paused: false, critical: false, steps }
}

fn is_same(there: &Manifest, promoted: &Manifest) -> bool {
    let Manifest { channel, sequence, created, .. } = there.clone();
    *there == Manifest { channel, sequence, created, ..promoted.clone() }
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The manifests.
    pub manifests: Vec<ContentHash>,
    /// Channels, with their platforms, that still point at one of them.
    pub empty: Vec<(Name, Name)>,
}

/// Takes `version` back: of the launcher, or of the product, on one channel or all. It is not installed
/// any more, and whoever has it is told so.
///
/// # Errors
/// [`Error`]; the repository then offers what it offered before.
pub fn revoke(
    home: &Home,
    version: &Version,
    channel: Option<&Name>,
    launcher: bool,
) -> Result<Revoked, Error> {
    let key = home.key(Role::Head)?;
    let (mut lock, repository) = base::begin(home)?;
    let head = published(&repository)?;
    let role = if launcher { Role::Launcher } else { Role::Release };
    let manifests = manifests_of(&repository, role, version, channel)?;
    if manifests.is_empty() {
        let what = if launcher { "launcher" } else { "release" };
        let text =
            format!("no {what} {version} was published here: check the version and --channel");
        return Err(Error::Usage(text));
    }
    let empty = head.releases.iter().filter(|release| manifests.contains(&release.manifest));
    let empty = empty.map(|release| (release.channel.clone(), release.platform.clone())).collect();
    if manifests.iter().any(|hash| !head.revoked.contains(hash)) {
        head::sign(home, &key, &repository, &mut lock, |head| {
            let known = std::mem::take(&mut head.revoked);
            let new = manifests.iter().filter(|hash| !known.contains(hash)).copied();
            head.revoked = known.iter().copied().chain(new).collect();
        })?;
    }
    Ok(Revoked { manifests, empty })
}

/// Every manifest of that version in the tree, also those that no head names any more.
fn manifests_of(
    repository: &Repository,
    role: Role,
    version: &Version,
    channel: Option<&Name>,
) -> Result<Vec<ContentHash>, Error> {
    #[derive(serde::Deserialize)]
    struct Identity {
        version: Version,
        channel: Option<Name>,
    }
    let dir = repository.dir.join("manifests");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(Error::disk("list", &dir))? {
        let path: PathBuf = entry.map_err(Error::disk("list", &dir))?.path();
        let Ok(bytes) = disk::read_capped(&path, role.document_bytes_max()) else { continue };
        let Ok(signed) = Signed::parse(role, &bytes) else { continue };
        let text = String::from_utf8_lossy(signed.payload()).into_owned();
        let Ok(identity) = toml::from_str::<Identity>(&text) else { continue };
        let fits = channel.is_none() || identity.channel.as_ref() == channel;
        if identity.version == *version && fits {
            found.push(signed.hash());
        }
    }
    found.sort();
    Ok(found)
}

/// How what a channel offers is to reach players.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pace {
    /// In these steps.
    Steps(Vec<Step>),
    /// Not at all, until it goes on.
    Pause,
    /// As before the pause.
    Resume,
    /// At once, to everybody, steps or no steps.
    Critical,
}

/// Sets the pace of what `channel` offers, on one platform or all. The channel's version is returned for
/// each platform.
///
/// # Errors
/// [`Error`]; the repository then offers what it offered before.
pub fn pace(
    home: &Home,
    channel: &Name,
    platform: Option<&Name>,
    pace: &Pace,
) -> Result<Vec<Release>, Error> {
    let key = home.key(Role::Head)?;
    let (mut lock, repository) = base::begin(home)?;
    let head = published(&repository)?;
    let meant = |release: &Release| {
        release.channel == *channel && platform.is_none_or(|name| release.platform == *name)
    };
    if !head.releases.iter().any(meant) {
        let offered: Vec<_> =
            head.releases.iter().map(|r| format!("{} ({})", r.channel, r.platform)).collect();
        let text = format!("nothing is offered there; there are: {}", offered.join(", "));
        return Err(Error::Usage(format!("`{channel}`: {text}")));
    }
    for release in head.releases.iter().filter(|release| meant(release)) {
        if let (Pace::Steps(steps), Some(old)) = (pace, &release.rollout) {
            refuse_fewer(old, steps)?;
        }
    }
    let head = head::sign(home, &key, &repository, &mut lock, |head| {
        for release in head.releases.iter_mut().filter(|release| meant(release)) {
            set_pace(release, pace);
        }
    })?;
    Ok(head.releases.into_iter().filter(meant).collect())
}

fn set_pace(release: &mut Release, pace: &Pace) {
    // The manifest's hash is as good a salt as any: known to all, other for every release.
    let salt = release.manifest;
    let fresh = Rollout { salt, paused: false, critical: false, steps: Vec::new() };
    let rollout = release.rollout.get_or_insert(fresh);
    match pace {
        Pace::Steps(steps) => rollout.steps.clone_from(steps),
        Pace::Pause => rollout.paused = true,
        Pace::Resume => rollout.paused = false,
        Pace::Critical => (rollout.critical, rollout.paused) = (true, false),
    }
}

/// How many of 10 000 have their turn at `now`; without steps all.
pub fn share(steps: &[Step], now: Time) -> u16 {
    let due = steps.iter().rev().find(|step| step.from <= now);
    if steps.is_empty() { BUCKETS } else { due.map_or(0, |step| step.buckets) }
}

/// Who has a release already keeps it: a smaller share than today's is a mistake.
fn refuse_fewer(old: &Rollout, steps: &[Step]) -> Result<(), Error> {
    let (before, after) = (share(&old.steps, now()), share(steps, now()));
    if after < before {
        return Err(Error::Usage(format!(
            "{} % have their turn now, and {} % would: who has the release keeps it, so use `halt` to \
             stop it, or start from there",
            f64::from(before) / 100.0,
            f64::from(after) / 100.0
        )));
    }
    Ok(())
}

fn published(repository: &Repository) -> Result<Verified<Head>, Error> {
    let accepted = repository.head(now())?;
    accepted.map(|accepted| accepted.head).ok_or_else(|| {
        Error::content(
            &repository.dir,
            "nothing was published yet: run `updraft-publisher publish`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::init;
    use crate::publish::{Publish, publish};
    use std::path::Path;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn product(dir: &Path) -> Home {
        let home = init(&dir.join("home"), &name("game"), &[], None).unwrap();
        publish_on(&home, dir, "1.0", "beta");
        home
    }

    fn publish_on(home: &Home, dir: &Path, version: &str, channel: &str) {
        let build = dir.join("build");
        disk::make_folder(&build).unwrap();
        std::fs::write(build.join("game"), version).unwrap();
        let what = Publish { channel: name(channel), ..Publish::stable(&build, version) };
        publish(home, &what, &mut |_| Ok(()), &|_, _| {}).unwrap();
    }

    fn head(home: &Home) -> Head {
        let repository = Repository::open(&home.repository(), None).unwrap();
        published(&repository).unwrap().into_inner()
    }

    #[test]
    fn promotion_is_a_new_manifest_of_the_same_content() {
        let dir = tempfile::tempdir().unwrap();
        let home = product(dir.path());
        publish_on(&home, dir.path(), "0.9", "stable");
        let (beta, stable) = (name("beta"), name("stable"));
        assert!(
            promote(&home, &version("0.9"), &beta, &stable, None, false).is_err(),
            "beta has no 0.9"
        );
        assert!(promote(&home, &version("1.0"), &beta, &beta, None, false).is_err());
        let promoted = promote(&home, &version("1.0"), &beta, &stable, None, false).unwrap();
        assert_eq!((promoted[0].sequence, promoted[0].already), (2, false));
        let repository = Repository::open(&home.repository(), None).unwrap();
        let accepted = repository.head(now()).unwrap().unwrap().head;
        let on = |channel: &Name| {
            let entry = accepted.release(channel, &Name::any_platform()).unwrap();
            repository.manifest(&accepted, entry).unwrap().into_inner()
        };
        assert_eq!((on(&beta).torrent, on(&beta).sequence), (on(&stable).torrent, 1));
        assert_eq!((on(&stable).channel, on(&stable).sequence), (stable.clone(), 2));
        let sequence = accepted.sequence;
        assert!(promote(&home, &version("1.0"), &beta, &stable, None, false).unwrap()[0].already);
        assert_eq!(head(&home).sequence, sequence, "nothing was changed");
        crate::verify::verify(&home.repository(), None, &mut |fault| panic!("{fault}")).unwrap();
    }

    #[test]
    fn a_preload_is_announced_released_and_overtaken() {
        let dir = tempfile::tempdir().unwrap();
        let home = product(dir.path());
        let (beta, any) = (name("beta"), Name::any_platform());
        let build = dir.path().join("build");
        let preload = |version: &str| {
            std::fs::write(build.join("game"), version).unwrap();
            let channel = beta.clone();
            let what = Publish { channel, preload: true, ..Publish::stable(&build, version) };
            publish(&home, &what, &mut |_| Ok(()), &|_, _| {}).unwrap()
        };
        let offered = |home: &Home| head(home).release(&beta, &any).unwrap().clone();
        assert_eq!((preload("2.0").sequence, preload("2.0").already), (2, true));
        assert_eq!((offered(&home).sequence, head(&home).preloads.len()), (1, 1));
        crate::verify::verify(&home.repository(), None, &mut |fault| panic!("{fault}")).unwrap();
        let error = release(&home, &version("3.0"), &beta, None).unwrap_err();
        assert!(error.to_string().contains("but 2.0 on `beta` (any)"), "{error}");
        // A hotfix overtakes it, and no number is used twice.
        publish_on(&home, dir.path(), "1.1", "beta");
        assert_eq!((offered(&home).sequence, head(&home).preloads.len()), (3, 0));
        assert!(release(&home, &version("2.0"), &beta, None).is_err());
        let announced = preload("2.0");
        assert_eq!(announced.sequence, 4);
        let (released, already) = release(&home, &version("2.0"), &beta, Some(&any)).unwrap();
        assert_eq!((released[0].manifest, already), (announced.manifest, false));
        assert_eq!((offered(&home).sequence, head(&home).preloads.len()), (4, 0));
        assert!(release(&home, &version("2.0"), &beta, None).unwrap().1, "it was released already");
        // Nobody would fetch what follows nothing.
        let what = Publish { preload: true, ..Publish::stable(&build, "1.0") };
        assert!(publish(&home, &what, &mut |_| Ok(()), &|_, _| {}).is_err());
    }

    #[test]
    fn revoking_names_every_manifest_of_a_version() {
        let dir = tempfile::tempdir().unwrap();
        let home = product(dir.path());
        let (beta, stable) = (name("beta"), name("stable"));
        promote(&home, &version("1.0"), &beta, &stable, None, false).unwrap();
        publish_on(&home, dir.path(), "1.1", "beta");
        assert!(revoke(&home, &version("7"), None, false).is_err());
        assert!(revoke(&home, &version("1.0"), None, true).is_err(), "no launcher has it");
        let one = revoke(&home, &version("1.0"), Some(&beta), false).unwrap();
        assert_eq!((one.manifests.len(), one.empty.len()), (1, 0));
        let both = revoke(&home, &version("1.0"), None, false).unwrap();
        assert_eq!(both.manifests.len(), 2);
        assert_eq!(both.empty, [(stable.clone(), Name::any_platform())]);
        assert_eq!(head(&home).revoked.len(), 2);
        assert!(promote(&home, &version("1.0"), &stable, &name("old"), None, false).is_err());
        // The next release takes its place, and stays.
        promote(&home, &version("1.1"), &beta, &stable, None, false).unwrap();
        assert_eq!(head(&home).revoked.len(), 2);
        crate::verify::verify(&home.repository(), None, &mut |fault| panic!("{fault}")).unwrap();
    }

    #[test]
    fn what_was_revoked_is_not_offered_already() {
        let dir = tempfile::tempdir().unwrap();
        let home = product(dir.path());
        let (beta, stable) = (name("beta"), name("stable"));
        promote(&home, &version("1.0"), &beta, &stable, None, false).unwrap();
        revoke(&home, &version("1.0"), Some(&stable), false).unwrap();
        let again = |unrevoke| promote(&home, &version("1.0"), &beta, &stable, None, unrevoke);
        let error = again(false).unwrap_err();
        assert!(error.to_string().contains("1.0 was revoked on `stable` (any)"), "{error}");
        let promoted = again(true).unwrap();
        assert_eq!((promoted[0].already, promoted[0].sequence), (false, 2));
        assert!(again(false).unwrap()[0].already, "it is there again");
        revoke(&home, &version("1.0"), Some(&stable), false).unwrap();
        let build = dir.path().join("build");
        let back = |unrevoke| {
            let what = Publish { unrevoke, ..Publish::stable(&build, "1.0") };
            publish(&home, &what, &mut |_| Ok(()), &|_, _| {})
        };
        let error = back(false).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::USAGE);
        assert!(error.to_string().contains("1.0 was revoked on `stable` (any)"), "{error}");
        back(true).unwrap();
        assert!(back(false).unwrap().already, "it is there again");
        let head = head(&home);
        let offered = head.releases.iter().find(|release| release.channel == stable).unwrap();
        assert!(offered.sequence == 3 && !head.revoked.contains(&offered.manifest));
    }

    #[test]
    fn a_version_is_one_content() {
        let dir = tempfile::tempdir().unwrap();
        let home = product(dir.path());
        let (beta, stable) = (name("beta"), name("stable"));
        let build = dir.path().join("build");
        let put = |channel: &Name, version: &str, content: &str| {
            std::fs::write(build.join("game"), content).unwrap();
            let what = Publish { channel: channel.clone(), ..Publish::stable(&build, version) };
            publish(&home, &what, &mut |_| Ok(()), &|_, _| {})
        };
        let error = put(&beta, "1.0", "other").unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::USAGE);
        assert!(error.to_string().contains("with other content already, as release 1"), "{error}");
        put(&beta, "1.1", "other").unwrap();
        assert!(put(&beta, "1.0", "third").is_err(), "also when it is not the newest");
        // What was there may come back, and other channels have versions of their own.
        assert_eq!(put(&beta, "1.0", "1.0").unwrap().sequence, 3);
        put(&stable, "1.0", "third").unwrap();
        let error = promote(&home, &version("1.0"), &beta, &stable, None, false).unwrap_err();
        assert!(error.to_string().contains("with other content already"), "{error}");
    }

    #[test]
    fn paces() {
        let dir = tempfile::tempdir().unwrap();
        let home = product(dir.path());
        let beta = name("beta");
        let set = |to: Pace| pace(&home, &beta, None, &to).map(|mut all| all.remove(0).rollout);
        let step = |buckets| Step { from: now(), buckets };
        let rollout = set(Pace::Steps(vec![step(500)])).unwrap().unwrap();
        assert_eq!(rollout.steps[0].buckets, 500);
        let error = set(Pace::Steps(vec![step(100)])).unwrap_err();
        assert!(error.to_string().contains("halt"), "{error}");
        assert!(set(Pace::Pause).unwrap().unwrap().paused);
        assert_eq!(set(Pace::Resume).unwrap(), Some(rollout));
        let critical = set(Pace::Critical).unwrap().unwrap();
        assert!(critical.critical && !critical.paused);
        assert!(pace(&home, &name("stable"), None, &Pace::Pause).is_err());
        // The next release starts anew.
        publish_on(&home, dir.path(), "1.1", "beta");
        assert_eq!(head(&home).releases[0].rollout, None);
    }
}
