//! Changes of keys as launchers see them, at every instant of a change.

use super::*;
use crate::init::init;
use crate::publish::{Publish, publish};
use updraft_manifests::head::HEAD_PATH;
use updraft_manifests::names::Name;

const ALL: [Role; 4] = [Role::Root, Role::Release, Role::Launcher, Role::Head];

fn product(dir: &Path) -> Home {
    let home = init(&dir.join("home"), &Name::parse("game").unwrap(), &[]).unwrap();
    disk::make_folder(&dir.join("build")).unwrap();
    std::fs::write(dir.join("build/game"), "content").unwrap();
    publish_as(&home, dir, "1.0");
    home
}

fn publish_as(home: &Home, dir: &Path, version: &str) {
    let what = Publish::stable(&dir.join("build"), version);
    publish(home, &what, &mut |_| Ok(()), &|_, _| {}).unwrap();
}

fn open(home: &Home) -> Repository {
    Repository::open(&home.repository(), None).unwrap()
}

/// What a launcher with `trust` makes of the tree: it walks on and installs.
fn is_installable(home: &Home, mut trust: TrustState) -> Result<(), String> {
    let told = |error: updraft_manifests::trust::TrustError| error.to_string();
    let read = |path: String| std::fs::read(home.repository().join(path)).ok();
    while let Some(bytes) = read(root::path(trust.next_root())) {
        trust = trust.accept_root(&bytes).map_err(told)?.0;
    }
    let head = read(HEAD_PATH.to_owned()).ok_or("no head")?;
    let (trust, head) = trust.accept_head(&head, now()).map_err(told)?;
    let release = head.head.releases[0].clone();
    let manifest = read(release.manifest_path()).ok_or("no manifest")?;
    trust.accept_manifest(&head, &release, &manifest).map(|_| ()).map_err(told)
}

#[test]
fn all_keys_change_and_nobody_is_locked_out() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    let old = ALL.map(|role| home.key(role).unwrap());
    for root in 2..5 {
        let changed = rotate(&home, &ALL, &[]).unwrap();
        assert_eq!((changed.root, changed.new.len(), changed.gone.len()), (root, 4, 4));
        assert!(changed.retired.iter().all(|path| path.is_file()));
        is_installable(&home, away.clone()).unwrap();
        assert!(list(&home).unwrap().iter().all(|key| key.at_hand));
    }
    publish_as(&home, dir.path(), "1.1");
    is_installable(&home, away).unwrap();
    // What the old keys sign counts for nothing.
    let repository = open(&home);
    let head = repository.head(now()).unwrap().unwrap().head;
    let mut forged = (*head).clone();
    forged.sequence += 1;
    let signed = Signed::create(Role::Head, &forged, &[&old[3]]).unwrap();
    assert!(repository.trust.accept_head(&signed.to_bytes(), now()).is_err());
    let mut forged = root_of(&repository).clone();
    forged.version += 1;
    let signed = Signed::create(Role::Root, &forged, &[&old[0]]).unwrap();
    assert!(repository.trust.accept_root(&signed.to_bytes()).is_err());
}

#[test]
fn a_rotation_that_was_killed_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    let files = || ALL.map(|role| std::fs::read_to_string(home.key_path(role)).unwrap());
    let before = files();
    rotate(&home, &ALL, &[]).unwrap();
    // As if it had been killed when the root was written and no file had its new name.
    for (role, old) in ALL.into_iter().zip(before) {
        let path = home.key_path(role);
        rename(&path, &beside(&path, "next")).unwrap();
        std::fs::write(&path, old).unwrap();
    }
    is_installable(&home, away.clone()).unwrap();
    let changed = rotate(&home, &ALL, &[]).unwrap();
    assert_eq!(changed.root, 2, "there is no third root");
    assert!(list(&home).unwrap().iter().all(|key| key.at_hand));
    // Killed before the root was written: everything is signed by both, under the first root, too.
    std::fs::remove_file(home.repository().join(root::path(2))).unwrap();
    is_installable(&home, away).unwrap();
}

#[test]
fn keys_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    let spare = dir.path().join("spare.key");
    let only = home.key(Role::Release).unwrap().public();
    let error = revoke(&home, &only, &[]).unwrap_err();
    assert!(error.to_string().contains("keys rotate release"), "{error}");
    let added = add(&home, Role::Release, &spare, &[]).unwrap();
    assert_eq!((added.root, list(&home).unwrap().len()), (2, 5));
    assert!(add(&home, Role::Release, &spare, &[]).is_err(), "once is enough");
    is_installable(&home, away.clone()).unwrap();
    // The spare one signed what is named, so the other may go.
    let gone = revoke(&home, &only, &[]).unwrap();
    assert_eq!(gone.gone, [(Role::Release, only)]);
    is_installable(&home, away).unwrap();
    let error = publish(
        &home,
        &Publish::stable(&dir.path().join("build"), "1.1"),
        &mut |_| Ok(()),
        &|_, _| {},
    )
    .unwrap_err();
    assert_eq!(error.exit_code(), crate::exit::KEY, "{error}");
    let stranger = SecretKey::from_random(Role::Head, [9; 32]).public();
    assert!(revoke(&home, &stranger, &[]).is_err());
}

#[test]
fn thresholds_hold_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let spare = dir.path().join("spare.key");
    add(&home, Role::Root, &spare, &[]).unwrap();
    // From now on two root keys have to sign.
    let repository = open(&home);
    let mut second = root_of(&repository).clone();
    second.version += 1;
    second.roles.root.threshold = 2;
    let keys = [home.key(Role::Root).unwrap(), read_key(Role::Root, &spare).unwrap()];
    let signed = Signed::create(Role::Root, &second, &[&keys[0], &keys[1]]).unwrap();
    let path = home.repository().join(root::path(second.version));
    disk::write_atomic(&path, &signed.to_bytes()).unwrap();
    let error = rotate(&home, &[Role::Head], &[]).unwrap_err();
    assert!(error.to_string().contains("2 are needed"), "{error}");
    assert!(!home.repository().join(root::path(second.version + 1)).exists());
    rotate(&home, &[Role::Head], &[read_key(Role::Root, &spare).unwrap()]).unwrap();
}

#[test]
fn a_role_that_is_named_twice_changes_once() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    let changed = rotate(&home, &[Role::Head, Role::Root, Role::Head], &[]).unwrap();
    assert_eq!(changed.new.len(), 2);
    assert!(list(&home).unwrap().iter().all(|key| key.at_hand));
    is_installable(&home, away).unwrap();
}

/// Stopped between moving the old key away and putting the new one in its place.
#[test]
fn a_change_of_keys_that_was_stopped_at_its_end_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    rotate(&home, &ALL, &[]).unwrap();
    for role in ALL {
        let path = home.key_path(role);
        std::fs::rename(&path, beside(&path, "next")).unwrap();
    }
    rotate(&home, &[Role::Head], &[]).unwrap();
    assert!(list(&home).unwrap().iter().all(|key| key.at_hand));
    is_installable(&home, away).unwrap();
}

#[test]
fn a_spare_key_may_be_made_for_every_role() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    for role in ALL {
        add(&home, role, &dir.path().join(format!("spare-{}.key", role.as_str())), &[]).unwrap();
        is_installable(&home, away.clone()).unwrap();
    }
}

/// More often than a document may have signatures.
#[test]
fn keys_may_change_any_number_of_times_while_one_release_is_offered() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    for _ in 0..40 {
        rotate(&home, &[Role::Release], &[]).unwrap();
    }
    is_installable(&home, away).unwrap();
}
