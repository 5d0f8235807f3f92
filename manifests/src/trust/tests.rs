//! The workflow step by step, and what must not get through.

use super::*;
use crate::document::DocumentError;
use crate::launcher::LauncherManifest;
use crate::names::Version;
use crate::testing::{NOW, World, name};
use proptest::prelude::*;

fn now() -> Time {
    Time::from_unix(NOW + 60)
}

fn rooted(world: &World) -> TrustState {
    let bytes = world.sign(&world.root(), &world.root_key);
    TrustState::new(&world.feed()).accept_root(&bytes).unwrap().0
}

#[test]
fn first_contact_to_manifest() {
    let world = World::new();
    let state = rooted(&world);
    assert_eq!(state.next_root(), 2);
    let head = world.sign(&world.head(), &world.head_key);
    let (state, accepted) = state.accept_head(&head, now()).unwrap();
    assert_eq!(accepted.freshness, Freshness::Fresh);
    let release = state.find_release(&accepted.head, &name("stable"), &name("linux")).unwrap();
    let manifest = world.sign(&world.manifest(), &world.release_key);
    let (state, manifest) = state.accept_manifest(&accepted, release, &manifest).unwrap();
    assert_eq!(manifest.total_size, 10);
    assert_eq!(state.manifest_floor(&name("any"), &name("stable")).unwrap().sequence, 1);
    assert_eq!(TrustState::parse(state.to_text().as_bytes()).unwrap(), state);
    assert!(state.is_of(&world.feed()));
    assert!(matches!(
        state.find_release(&accepted.head, &name("beta"), &name("linux")),
        Err(TrustError::NoRelease { .. })
    ));
}

#[test]
fn false_roots() {
    let world = World::new();
    let fresh = TrustState::new(&world.feed());
    let mut other = world.root();
    other.created = other.created.after(1);
    let bytes = world.sign(&other, &world.root_key);
    assert!(matches!(fresh.accept_root(&bytes), Err(TrustError::Fingerprint { .. })));
    let head = world.sign(&world.head(), &world.head_key);
    assert_eq!(fresh.accept_head(&head, now()).unwrap_err(), TrustError::NoRoot);
}

#[test]
fn roots_are_signed_by_the_old_and_the_new_keys() {
    let world = World::new();
    let state = rooted(&world);
    let new_key = SecretKey::from_random(Role::Root, [99; 32]);
    let mut second = world.root();
    second.version = 2;
    second.roles.root.keys = [new_key.public()].into();
    let sign = |keys: &[&SecretKey], root: &Root| {
        Signed::create(Role::Root, root, keys).unwrap().to_bytes()
    };
    assert!(state.accept_root(&sign(&[&new_key], &second)).is_err());
    assert!(state.accept_root(&sign(&[&world.root_key], &second)).is_err());
    let (next, _) = state.accept_root(&sign(&[&world.root_key, &new_key], &second)).unwrap();
    assert_eq!(next.next_root(), 3);
    second.version = 4;
    assert!(matches!(
        next.accept_root(&sign(&[&new_key], &second)),
        Err(TrustError::RootVersion { expected: 3, found: 4 })
    ));
}

use crate::keys::SecretKey;

#[test]
fn new_head_keys_drop_the_head_floor() {
    let world = World::new();
    let mut head = world.head();
    head.sequence = 1_000_000;
    let state = rooted(&world);
    let (state, _) = state.accept_head(&world.sign(&head, &world.head_key), now()).unwrap();
    let mut second = world.root();
    second.version = 2;
    let same_keys = world.sign(&second, &world.root_key);
    assert!(state.accept_root(&same_keys).unwrap().0.head_floor().is_some());
    let new_key = SecretKey::from_random(Role::Head, [98; 32]);
    second.roles.head.keys = [new_key.public()].into();
    let (state, _) = state.accept_root(&world.sign(&second, &world.root_key)).unwrap();
    assert_eq!(state.head_floor(), None);
    head.sequence = 2;
    assert!(state.accept_head(&world.sign(&head, &world.head_key), now()).is_err());
    assert!(state.accept_head(&world.sign(&head, &new_key), now()).is_ok());
}

#[test]
fn one_more_key_takes_no_floor_back_and_a_time_that_a_stolen_key_signed_goes_with_it() {
    let world = World::new();
    let mut head = world.head();
    // A thief says that it is the year 2100.
    head.created = Time::from_unix(4_102_444_800);
    head.expires = Time::from_unix(4_102_448_400);
    let (state, _) =
        rooted(&world).accept_head(&world.sign(&head, &world.head_key), now()).unwrap();
    let mut second = world.root();
    second.version = 2;
    let new_key = SecretKey::from_random(Role::Head, [98; 32]);
    second.roles.head.keys.insert(new_key.public());
    let (more, _) = state.accept_root(&world.sign(&second, &world.root_key)).unwrap();
    assert_eq!(more.head_floor(), state.head_floor());
    second.roles.head.keys = [new_key.public()].into();
    let (state, _) = state.accept_root(&world.sign(&second, &world.root_key)).unwrap();
    let (_, accepted) = state.accept_head(&world.sign(&world.head(), &new_key), now()).unwrap();
    assert_eq!(accepted.freshness, Freshness::Fresh);
}

#[test]
fn replays_jumps_and_equivocation() {
    let world = World::new();
    let head = |sequence, expires_in| {
        let mut head = world.head();
        head.sequence = sequence;
        head.expires = head.created.after(expires_in);
        world.sign(&head, &world.head_key)
    };
    let (state, _) = rooted(&world).accept_head(&head(5, 1000), now()).unwrap();
    assert!(matches!(
        state.accept_head(&head(4, 1000), now()),
        Err(TrustError::Older { floor: 5, found: 4, .. })
    ));
    assert!(matches!(
        state.accept_head(&head(6 + SEQUENCE_JUMP_MAX, 1000), now()),
        Err(TrustError::Jump { .. })
    ));
    assert!(state.accept_head(&head(5, 1000), now()).is_ok());
    let Err(TrustError::Equivocation { state, .. }) = state.accept_head(&head(5, 1001), now())
    else {
        panic!("two heads with one sequence")
    };
    // Neither of the two is used any more, also after a restart.
    let state = TrustState::parse(state.to_text().as_bytes()).unwrap();
    assert!(matches!(
        state.accept_head(&head(5, 1000), now()),
        Err(TrustError::Equivocation { .. })
    ));
    assert!(state.accept_head(&head(6, 1000), now()).is_ok());
}

#[test]
fn expired_heads_install_nothing() {
    let world = World::new();
    let head = world.head();
    let bytes = world.sign(&head, &world.head_key);
    let (state, accepted) = rooted(&world).accept_head(&bytes, head.expires).unwrap();
    assert_eq!(accepted.freshness, Freshness::ExpiredSince(head.expires));
    assert_eq!(state.head_floor().unwrap().sequence, 1);
    let manifest = world.sign(&world.manifest(), &world.release_key);
    assert_eq!(
        state.accept_manifest(&accepted, &head.releases[0], &manifest).unwrap_err(),
        TrustError::HeadExpired(head.expires)
    );
    // Among players alone it may for a while.
    let days = |days: u64| head.expires.after(days * 24 * 3600);
    let excused = accepted.clone().excused(days(29));
    assert_eq!(excused.freshness, Freshness::ExcusedSince(head.expires));
    assert!(state.accept_manifest(&excused, &head.releases[0], &manifest).is_ok());
    let late = accepted.excused(days(30));
    assert_eq!(late.freshness, Freshness::ExpiredSince(head.expires));
}

#[test]
fn a_wrong_clock_does_not_revive_an_old_head() {
    let world = World::new();
    let old = world.head();
    let mut newer = world.head();
    newer.sequence = 2;
    newer.created = old.expires.after(10);
    newer.expires = newer.created.after(20);
    let bytes = world.sign(&newer, &world.head_key);
    let (state, _) = rooted(&world).accept_head(&bytes, now()).unwrap();
    assert_eq!(state.fix_time(Time::from_unix(0)), newer.created);
}

#[test]
fn manifests_must_be_what_the_head_says() {
    let world = World::new();
    let accept = |manifest: &Manifest, head: &Head, key: &SecretKey| {
        let bytes = world.sign(head, &world.head_key);
        let (state, accepted) = rooted(&world).accept_head(&bytes, now()).unwrap();
        let bytes = world.sign(manifest, key);
        state.accept_manifest(&accepted, &accepted.head.releases[0], &bytes).map(|_| ())
    };
    let good = world.manifest();
    let release_key = &world.release_key;
    accept(&good, &world.head(), release_key).unwrap();
    let thief = SecretKey::from_random(Role::Release, [50; 32]);
    assert!(matches!(
        accept(&good, &world.head(), &thief),
        Err(TrustError::Document(DocumentError::Signatures { .. }))
    ));
    let mut other = good.clone();
    other.total_size = 11;
    assert!(matches!(
        accept(&other, &world.head(), release_key),
        Err(TrustError::ManifestHash { .. })
    ));
    let mut foreign = good.clone();
    foreign.product = name("other");
    assert!(matches!(
        accept(&foreign, &world.head_of(&foreign), release_key),
        Err(TrustError::Product { .. })
    ));
    // A head key alone cannot move a manifest to another channel or give it a number.
    for change in [
        (|r: &mut Release| r.channel = name("beta")) as fn(&mut Release),
        |r| r.platform = name("other"),
        |r| r.sequence = 7,
    ] {
        let mut head = world.head();
        change(&mut head.releases[0]);
        assert!(matches!(
            accept(&good, &head, release_key),
            Err(TrustError::ManifestMismatch { .. })
        ));
    }
}

#[test]
fn launcher_versions() {
    let mut manifest = World::new().manifest();
    check_launcher(&manifest, "0.1.0").unwrap();
    manifest.minimum_launcher = Some(Version::parse("0.2.0").unwrap());
    assert!(check_launcher(&manifest, "0.1.9").is_err());
    check_launcher(&manifest, "0.2.0").unwrap();
    check_launcher(&manifest, "0.10.0").unwrap();
    manifest.minimum_launcher = Some(Version::parse("soon").unwrap());
    assert!(check_launcher(&manifest, "0.1.9").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn floors_never_sink(steps in prop::collection::vec((0u64..6, 0u64..6, 0u64..3), 1..12)) {
        let world = World::new();
        let mut state = rooted(&world);
        for (head_sequence, sequence, variant) in steps {
            let mut manifest = world.manifest();
            manifest.sequence = sequence;
            manifest.total_size += variant;
            let mut head = world.head_of(&manifest);
            head.sequence = head_sequence;
            head.expires = head.expires.after(variant);
            let before = state.clone();
            match state.accept_head(&world.sign(&head, &world.head_key), now()) {
                Ok((next, accepted)) => {
                    state = next;
                    let bytes = world.sign(&manifest, &world.release_key);
                    match state.accept_manifest(&accepted, &accepted.head.releases[0], &bytes) {
                        Ok((next, _)) => state = next,
                        Err(TrustError::Equivocation { state: next, .. }) => state = *next,
                        Err(TrustError::Older { floor, found, .. }) => prop_assert!(found < floor),
                        Err(other) => prop_assert!(false, "{}", other),
                    }
                }
                Err(TrustError::Equivocation { state: next, .. }) => state = *next,
                Err(TrustError::Older { floor, found, .. }) => prop_assert!(found < floor),
                Err(other) => prop_assert!(false, "{}", other),
            }
            let sequences = |state: &TrustState| (
                state.head_floor().map(|f| f.sequence),
                state.manifest_floor(&name("any"), &name("stable")).map(|f| f.sequence),
            );
            prop_assert!(sequences(&state).0 >= sequences(&before).0);
            prop_assert!(sequences(&state).1 >= sequences(&before).1);
            prop_assert!(state.time_floor >= before.time_floor);
            prop_assert_eq!(TrustState::parse(state.to_text().as_bytes()).unwrap(), state.clone());
        }
    }
}

/// A head with that launcher, and what comes of its manifest as `signed` by somebody.
fn accept_launcher(
    world: &World,
    state: &TrustState,
    head: &Head,
    signed: &[u8],
) -> Result<TrustState, TrustError> {
    let (state, accepted) = state.accept_head(&world.sign(head, &world.head_key), now()).unwrap();
    let entry = accepted.head.launcher(&name("linux-x86_64")).unwrap();
    state.accept_launcher(&accepted, entry, signed).map(|(state, _)| state)
}

#[test]
fn launchers_are_signed_by_their_own_role() {
    let world = World::new();
    let good = world.launcher();
    let head = world.head_with(&good);
    let accept = |signed: &[u8]| accept_launcher(&world, &rooted(&world), &head, signed);
    let state = accept(&world.sign(&good, &world.launcher_key)).unwrap();
    assert_eq!(state.launcher_floor(&good.platform).unwrap().sequence, 1);
    assert_eq!(TrustState::parse(state.to_text().as_bytes()).unwrap(), state);
    let thief = SecretKey::from_random(Role::Launcher, [50; 32]);
    assert!(matches!(
        accept(&world.sign(&good, &thief)),
        Err(TrustError::Document(DocumentError::Signatures { .. }))
    ));
    // A release key signs no launchers, whatever the header says.
    let by_release = String::from_utf8(world.sign(&good, &world.release_key)).unwrap();
    assert!(accept(by_release.as_bytes()).is_err());
    let relabelled = by_release.replace("role = \"release\"", "role = \"launcher\"");
    assert!(matches!(
        accept(relabelled.as_bytes()),
        Err(TrustError::Document(DocumentError::Signatures { .. }))
    ));
    let other = LauncherManifest { version: Version::parse("9.0.0").unwrap(), ..good.clone() };
    assert!(matches!(
        accept(&world.sign(&other, &world.launcher_key)),
        Err(TrustError::ManifestHash { .. })
    ));
    // The head key alone gives a launcher no other number.
    let mut head = head.clone();
    head.launchers[0].sequence = 7;
    assert!(matches!(
        accept_launcher(&world, &rooted(&world), &head, &world.sign(&good, &world.launcher_key)),
        Err(TrustError::ManifestMismatch { what: "sequence", .. })
    ));
}

#[test]
fn no_launcher_keys_means_no_launchers() {
    let world = World::new();
    let mut second = world.root();
    second.version = 2;
    second.roles.launcher = None;
    let state = rooted(&world);
    let (state, _) = state.accept_root(&world.sign(&second, &world.root_key)).unwrap();
    let launcher = world.launcher();
    let signed = world.sign(&launcher, &world.launcher_key);
    let refused = accept_launcher(&world, &state, &world.head_with(&launcher), &signed);
    assert!(matches!(refused, Err(TrustError::NoLauncherKeys { .. })), "{refused:?}");
}

#[test]
fn thresholds_of_launchers() {
    let world = World::new();
    let second_key = SecretKey::from_random(Role::Launcher, [51; 32]);
    let mut second = world.root();
    second.version = 2;
    second.roles.launcher = Some(crate::document::KeySet {
        threshold: 2,
        keys: [world.launcher_key.public(), second_key.public()].into(),
    });
    let (state, _) = rooted(&world).accept_root(&world.sign(&second, &world.root_key)).unwrap();
    let launcher = world.launcher();
    let head = world.head_with(&launcher);
    let one = world.sign(&launcher, &world.launcher_key);
    assert!(accept_launcher(&world, &state, &head, &one).is_err());
    let both = Signed::create(Role::Launcher, &launcher, &[&world.launcher_key, &second_key]);
    accept_launcher(&world, &state, &head, &both.unwrap().to_bytes()).unwrap();
}

#[test]
fn launchers_do_not_go_back() {
    let world = World::new();
    let mut newer = world.launcher();
    newer.sequence = 5;
    newer.version = Version::parse("2.0.0").unwrap();
    let signed = world.sign(&newer, &world.launcher_key);
    let state =
        accept_launcher(&world, &rooted(&world), &world.head_with(&newer), &signed).unwrap();
    let old = world.launcher();
    let mut head = world.head_with(&old);
    head.sequence = 2;
    let signed = world.sign(&old, &world.launcher_key);
    assert!(matches!(
        accept_launcher(&world, &state, &head, &signed),
        Err(TrustError::Older { floor: 5, found: 1, .. })
    ));
}

#[test]
fn what_is_revoked_is_not_installed() {
    let world = World::new();
    let launcher = world.launcher();
    let mut head = world.head_with(&launcher);
    head.revoked = vec![head.releases[0].manifest, head.launchers[0].manifest];
    let signed = world.sign(&launcher, &world.launcher_key);
    let refused = accept_launcher(&world, &rooted(&world), &head, &signed);
    assert!(matches!(refused, Err(TrustError::Revoked { .. })), "{refused:?}");
    let (state, accepted) =
        rooted(&world).accept_head(&world.sign(&head, &world.head_key), now()).unwrap();
    let manifest = world.sign(&world.manifest(), &world.release_key);
    assert!(matches!(
        state.accept_manifest(&accepted, &head.releases[0], &manifest),
        Err(TrustError::Revoked { .. })
    ));
}

#[test]
fn what_is_announced_is_verified_and_raises_no_floor() {
    let world = World::new();
    let current = world.manifest();
    let next = |sequence| Manifest { sequence, ..world.manifest() };
    let mut head = world.head();
    head.preloads = world.head_of(&next(2)).releases;
    let state = rooted(&world);
    let (state, accepted) = state.accept_head(&world.sign(&head, &world.head_key), now()).unwrap();
    let announced = accepted.head.preload(&accepted.head.releases[0]).unwrap();
    let good = world.sign(&next(2), &world.release_key);
    assert_eq!(state.check_preload(&accepted, announced, &good).unwrap().sequence, 2);
    // The online key announces nothing that the release keys did not sign.
    let stranger = SecretKey::from_random(Role::Release, [77; 32]);
    let forged = world.sign(&next(2), &stranger);
    assert!(state.check_preload(&accepted, announced, &forged).is_err());
    let other = world.sign(&next(3), &world.release_key);
    assert!(state.check_preload(&accepted, announced, &other).is_err());
    let late = Time::from_unix(NOW + 8 * 86_400);
    let (_, expired) =
        rooted(&world).accept_head(&world.sign(&head, &world.head_key), late).unwrap();
    assert!(matches!(
        state.check_preload(&expired, announced, &good),
        Err(TrustError::HeadExpired(_))
    ));
    head.revoked = vec![announced.manifest];
    head.sequence = 2;
    let (after, revoked) = state.accept_head(&world.sign(&head, &world.head_key), now()).unwrap();
    assert!(matches!(
        after.check_preload(&revoked, announced, &good),
        Err(TrustError::Revoked { .. })
    ));
    // What is current is accepted still.
    let current = world.sign(&current, &world.release_key);
    let entry = &accepted.head.releases[0];
    assert!(state.accept_manifest(&accepted, entry, &current).is_ok());
}
