//! Changes of keys as launchers see them, at every instant of a change.

use super::*;
use crate::init::init;
use crate::passphrase::{Passphrase, Passphrases};
use crate::publish::{Publish, publish};
use updraft_manifests::head::HEAD_PATH;
use updraft_manifests::names::Name;

const ALL: [Role; 4] = [Role::Root, Role::Release, Role::Launcher, Role::Head];

fn product(dir: &Path) -> Home {
    let home = init(&dir.join("home"), &Name::parse("game").unwrap(), &[], None).unwrap();
    disk::make_folder(&dir.join("build")).unwrap();
    std::fs::write(dir.join("build/game"), "content").unwrap();
    publish_as(&home, dir, "1.0");
    home
}

fn made(file: &Path) -> NewKey<'_> {
    NewKey::Made { file, seal: false }
}

fn read(path: &Path) -> SecretKey {
    key_file::read(Some(Role::Root), path, &Passphrases::default()).unwrap()
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
        let changed = rotate(&home, &ALL, &[], false).unwrap();
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
    rotate(&home, &ALL, &[], false).unwrap();
    // As if it had been killed when the root was written and no file had its new name.
    for (role, old) in ALL.into_iter().zip(before) {
        let path = home.key_path(role);
        rename(&path, &beside(&path, "next")).unwrap();
        std::fs::write(&path, old).unwrap();
    }
    is_installable(&home, away.clone()).unwrap();
    let changed = rotate(&home, &ALL, &[], false).unwrap();
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
    let added = add(&home, Role::Release, made(&spare), &[]).unwrap();
    assert_eq!((added.root, list(&home).unwrap().len()), (2, 5));
    assert!(add(&home, Role::Release, made(&spare), &[]).is_err(), "once is enough");
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
    add(&home, Role::Root, made(&spare), &[]).unwrap();
    threshold(&home, Role::Root, 2, None, &[read(&spare)]).unwrap();
    let error = rotate(&home, &[Role::Head], &[], false).unwrap_err();
    assert_eq!(error.exit_code(), crate::exit::WAITING, "{error}");
    assert!(error.to_string().contains("waits for 1 more of the root keys"), "{error}");
    assert!(!home.repository().join(root::path(4)).exists());
    rotate(&home, &[Role::Head], &[read(&spare)], false).unwrap();
    assert!(!home.dir.join("waiting/root-4.toml").exists(), "it waits no more");
    assert!(list(&home).unwrap().iter().all(|key| key.at_hand || key.role == Role::Root));
}

#[test]
fn thresholds_that_would_lock_players_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let refused = |home: &Home, role, count, why: &str| {
        let error = threshold(home, role, count, None, &[]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    };
    refused(&home, Role::Release, 2, "cannot have to sign");
    refused(&home, Role::Root, 0, "from 1 to 1");
    let elsewhere = SecretKey::from_random(Role::Release, [8; 32]);
    add(&home, Role::Release, NewKey::Elsewhere(elsewhere.public()), &[]).unwrap();
    // What players have is signed by one of them only.
    refused(&home, Role::Release, 2, "1 of the release keys that would count signed it");
    add(
        &home,
        Role::Head,
        NewKey::Elsewhere(SecretKey::from_random(Role::Head, [8; 32]).public()),
        &[],
    )
    .unwrap();
    refused(&home, Role::Head, 2, "one key has to be enough");
    let beta = Name::parse("beta").unwrap();
    threshold(&home, Role::Release, 2, Some(&beta), &[]).unwrap();
    assert!(threshold(&home, Role::Launcher, 1, Some(&beta), &[]).is_err());
    // With both signatures under what is named, more may be asked for.
    let repository = open(&home);
    let head = repository.head(now()).unwrap().unwrap().head;
    let path = home.repository().join(head.releases[0].manifest_path());
    let mut named = Signed::parse(Role::Release, &std::fs::read(&path).unwrap()).unwrap();
    named.sign(&elsewhere);
    std::fs::write(&path, named.to_bytes()).unwrap();
    threshold(&home, Role::Release, 2, None, &[]).unwrap();
    is_installable(&home, open(&home).trust).unwrap();
}

/// Two keys sign releases, and one of them lies elsewhere.
#[test]
fn a_release_waits_for_its_other_signature() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    let elsewhere = SecretKey::from_random(Role::Release, [8; 32]);
    add(&home, Role::Release, NewKey::Elsewhere(elsewhere.public()), &[]).unwrap();
    let stable = Name::parse("beta").unwrap();
    threshold(&home, Role::Release, 2, Some(&stable), &[]).unwrap();
    let what = |version: &str| Publish {
        channel: stable.clone(),
        ..Publish::stable(&dir.path().join("build"), version)
    };
    let run = |version: &str| publish(&home, &what(version), &mut |_| Ok(()), &|_, _| {});
    let before = std::fs::read(home.repository().join(HEAD_PATH)).unwrap();
    for _ in 0..2 {
        let error = run("1.1").unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::WAITING, "{error}");
        assert!(error.to_string().contains(&elsewhere.public().to_string()), "{error}");
    }
    assert_eq!(std::fs::read(home.repository().join(HEAD_PATH)).unwrap(), before);
    let path = home.dir.join("waiting/release-beta-any.toml");
    let mut waiting = Signed::parse(Role::Release, &std::fs::read(&path).unwrap()).unwrap();
    waiting.sign(&elsewhere);
    std::fs::write(&path, waiting.to_bytes()).unwrap();
    // It was another version that they signed.
    let published = run("1.2").unwrap_err();
    assert_eq!(published.exit_code(), crate::exit::WAITING);
    let text = published.to_string();
    assert!(text.contains("took the place of 1.1, which waited there with 2"), "{text}");
    // Whoever is no signer of this product changes nothing, and is told so.
    let stranger = SecretKey::from_random(Role::Release, [9; 32]);
    let mut strange = Signed::parse(Role::Release, &std::fs::read(&path).unwrap()).unwrap();
    strange.sign(&stranger);
    std::fs::write(&path, strange.to_bytes()).unwrap();
    let text = run("1.2").unwrap_err().to_string();
    let said = format!("signed by {}, too, which does not count", stranger.public());
    assert!(text.contains(&said), "{text}");
    std::fs::write(&path, waiting.to_bytes()).unwrap();
    let published = run("1.1").unwrap();
    assert_eq!(published.manifest, waiting.hash());
    assert!(!path.exists() && run("1.1").unwrap().already);
    is_installable(&home, away).unwrap();
}

#[test]
fn a_role_that_is_named_twice_changes_once() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    let changed = rotate(&home, &[Role::Head, Role::Root, Role::Head], &[], false).unwrap();
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
    rotate(&home, &ALL, &[], false).unwrap();
    for role in ALL {
        let path = home.key_path(role);
        std::fs::rename(&path, beside(&path, "next")).unwrap();
    }
    rotate(&home, &[Role::Head], &[], false).unwrap();
    assert!(list(&home).unwrap().iter().all(|key| key.at_hand));
    is_installable(&home, away).unwrap();
}

#[test]
fn a_spare_key_may_be_made_for_every_role() {
    let dir = tempfile::tempdir().unwrap();
    let home = product(dir.path());
    let away = open(&home).trust;
    for role in ALL {
        add(&home, role, made(&dir.path().join(format!("spare-{role}.key"))), &[]).unwrap();
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
        rotate(&home, &[Role::Release], &[], false).unwrap();
    }
    is_installable(&home, away).unwrap();
}

#[test]
fn new_keys_are_sealed_as_the_old_ones_were() {
    let dir = tempfile::tempdir().unwrap();
    let passphrases = Passphrases::only(Passphrase::new("correct horse battery"));
    let product = Name::parse("game").unwrap();
    let mut home = init(&dir.path().join("home"), &product, &[], Some(&passphrases)).unwrap();
    let sealed = |home: &Home| ALL.map(|role| home.seen_key(role).unwrap().sealed);
    assert_eq!(sealed(&home), [true, true, true, false], "`serve` signs heads alone");
    home.passphrases = passphrases.into();
    rotate(&home, &ALL, &[], true).unwrap();
    assert_eq!(sealed(&home), [true, true, true, false]);
    key_file::change(
        &home.key_path(Role::Head),
        &home.passphrases,
        home.passphrases.choose().ok().as_ref(),
    )
    .unwrap();
    rotate(&home, &ALL, &[], true).unwrap();
    assert_eq!(sealed(&home), [true; 4]);
    assert!(list(&home).unwrap().iter().all(|key| key.at_hand), "seen without a passphrase");
    rotate(&home, &[Role::Release], &[], false).unwrap();
    assert!(!home.seen_key(Role::Release).unwrap().sealed);
}
