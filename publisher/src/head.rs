//! Signing the head: every time with a higher sequence, and the last thing that is written.

use crate::home::Home;
use crate::lock::RepositoryLock;
use crate::repository::{Repository, now};
use crate::{Error, base};
use updraft_manifests::document::Signed;
use updraft_manifests::head::{HEAD_PATH, Head, Sources};
use updraft_manifests::keys::{Role, SecretKey};
use updraft_manifests::time::Time;
use updraft_manifests::trust::TrustState;

/// Seconds in a day.
const DAY: u64 = 86_400;

/// Signs the head anew: same releases, or as `change` makes them; sources as configured.
///
/// # Errors
/// [`Error::Content`] if the tree does not verify, or the new head would not be accepted by launchers
/// (a key that the root does not list); [`Error::Overtaken`] if it is not the head any more that was there when
/// the lock was taken; [`Error::Disk`].
pub fn sign(
    home: &Home,
    key: &SecretKey,
    repository: &Repository,
    lock: &mut RepositoryLock,
    change: impl FnOnce(&mut Head),
) -> Result<Head, Error> {
    sign_with(home, &[key], &[&repository.trust], repository, lock, change)
}

/// As [`sign`], with several keys, for launchers that believe any of `trusts`.
///
/// # Errors
/// As [`sign`].
pub fn sign_with(
    home: &Home,
    keys: &[&SecretKey],
    trusts: &[&TrustState],
    repository: &Repository,
    lock: &mut RepositoryLock,
    change: impl FnOnce(&mut Head),
) -> Result<Head, Error> {
    let head = next(home, repository, lock, change)?;
    let path = repository.dir.join(HEAD_PATH);
    let signed = Signed::create(Role::Head, &head, keys).map_err(|e| Error::content(&path, e))?;
    let bytes = signed.to_bytes();
    // Judged as a launcher would: better refused here than by every player.
    if let Some(error) =
        trusts.iter().find_map(|trust| trust.accept_head(&bytes, head.created).err())
    {
        let why = format!("{error}; is it the key that `init` made for this repository?");
        return Err(Error::Key { role: "head", path: home.key_path(Role::Head), why });
    }
    lock.put_head(&bytes)?;
    base::remember(home, &bytes)?;
    Ok(head)
}

fn next(
    home: &Home,
    repository: &Repository,
    lock: &RepositoryLock,
    change: impl FnOnce(&mut Head),
) -> Result<Head, Error> {
    let old = repository.head(now())?.map(|accepted| accepted.head.into_inner());
    // A clock that was set back must not make the new head older than the old one.
    let created = now().max(old.as_ref().map_or(Time::default(), |old| old.created));
    let mut head = Head {
        format: 1,
        product: home.config.product.clone(),
        sequence: old.as_ref().map_or(0, |old| old.sequence).max(lock.head_floor) + 1,
        created,
        expires: created.after(u64::from(home.config.head_days) * DAY),
        root: repository.trust.next_root() - 1,
        sources: Sources { http: home.config.http.clone(), trackers: home.config.trackers.clone() },
        releases: old.as_ref().map(|old| old.releases.clone()).unwrap_or_default(),
        preloads: old.as_ref().map(|old| old.preloads.clone()).unwrap_or_default(),
        launchers: old.as_ref().map(|old| old.launchers.clone()).unwrap_or_default(),
        revoked: old.map(|old| old.revoked).unwrap_or_default(),
    };
    change(&mut head);
    Ok(head)
}

/// When `head` has lived half its life: time to sign the next one.
pub fn half_life(head: &Head) -> Time {
    let life = head.expires.unix().saturating_sub(head.created.unix());
    head.created.after(life / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::init;
    use updraft_manifests::names::Name;

    #[test]
    fn every_signing_is_newer() {
        let dir = tempfile::tempdir().unwrap();
        let home = init(dir.path(), &Name::parse("game").unwrap(), &[], None).unwrap();
        let key = home.key(Role::Head).unwrap();
        let mut lock = home.lock().unwrap();
        let repository = Repository::open(&home.repository(), None).unwrap();
        let one = sign(&home, &key, &repository, &mut lock, |_| {}).unwrap();
        // As if the clock had been ahead for a while.
        let ahead = one.created.after(1000);
        let two = sign(&home, &key, &repository, &mut lock, |head| {
            head.created = ahead;
            head.expires = ahead.after(DAY);
        })
        .unwrap();
        assert_eq!(half_life(&two), ahead.after(DAY / 2));
        let three = sign(&home, &key, &repository, &mut lock, |_| {}).unwrap();
        assert_eq!((one.sequence, two.sequence, three.sequence), (1, 2, 3));
        assert_eq!(three.created, ahead);
        assert_eq!(three.expires, ahead.after(7 * DAY));
        let stranger = SecretKey::from_random(Role::Head, [9; 32]);
        let error = sign(&home, &stranger, &repository, &mut lock, |_| {}).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::KEY);
        assert_eq!(repository.head(now()).unwrap().unwrap().head.sequence, 3);
    }
}
