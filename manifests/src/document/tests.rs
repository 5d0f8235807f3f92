//! Signatures, damage, and what comes from elsewhere.

use super::*;
use crate::head::Head;
use crate::testing::World;
use proptest::prelude::*;

fn keys(of: &[&SecretKey], threshold: u32) -> KeySet {
    KeySet { threshold, keys: of.iter().map(|key| key.public()).collect() }
}

#[test]
fn thresholds_count_distinct_trusted_keys() {
    let [a, b, c] = [1, 2, 3].map(|seed| SecretKey::from_random(Role::Head, [seed; 32]));
    let head = World::new().head();
    let signed = Signed::create(Role::Head, &head, &[&a, &c]).unwrap();
    let verify = |set: KeySet| signed.clone().verify::<Head>(&set);
    assert!(verify(keys(&[&a], 1)).is_ok());
    assert!(verify(keys(&[&a, &b, &c], 2)).is_ok());
    assert!(matches!(
        verify(keys(&[&a, &b], 2)),
        Err(DocumentError::Signatures { good: 1, threshold: 2, .. })
    ));
    assert!(verify(keys(&[&b], 1)).is_err());
    assert!(verify(keys(&[&a], 0)).is_err(), "a threshold of nothing trusts nobody");

    let mut other = Signed::create(Role::Head, &head, &[&b]).unwrap();
    assert!(other.merge(&signed));
    assert!(other.verify::<Head>(&keys(&[&a, &b, &c], 3)).is_ok());

    // The same signature written twice in a header counts once.
    let text = String::from_utf8(signed.to_bytes()).unwrap();
    let (header, payload) = text.split_once("+++\n").unwrap();
    let block = header.split_once("[[signatures]]").unwrap().1.split("[[").next().unwrap();
    let twice = format!("{header}\n[[signatures]]{block}\n+++\n{payload}");
    let twice = Signed::parse(Role::Head, twice.as_bytes()).unwrap();
    assert!(twice.verify::<Head>(&keys(&[&a, &b], 2)).is_err());
}

#[test]
fn the_payload_is_kept_as_served() {
    let key = SecretKey::from_random(Role::Head, [1; 32]);
    let signed = Signed::create(Role::Head, &World::new().head(), &[&key]).unwrap();
    let bytes = signed.to_bytes();
    let again = Signed::parse(Role::Head, &bytes).unwrap();
    assert_eq!(again, signed);
    assert_eq!(again.to_bytes(), bytes);
    assert!(matches!(Signed::parse(Role::Root, &bytes), Err(DocumentError::Malformed { .. })));
    let large = vec![b'a'; Role::Head.document_bytes_max() + 1];
    assert!(matches!(Signed::parse(Role::Head, &large), Err(DocumentError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn damage_is_noticed(at: prop::sample::Index, bit in 0u8..8, cut: bool) {
        let key = SecretKey::from_random(Role::Head, [1; 32]);
        let set = keys(&[&key], 1);
        let signed = Signed::create(Role::Head, &World::new().head(), &[&key]).unwrap();
        let mut bytes = signed.to_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        // A flip in the unsigned header may do no harm; the payload never differs.
        if let Ok(verified) = Signed::parse(Role::Head, &bytes).and_then(|s| s.verify::<Head>(&set)) {
            prop_assert_eq!(verified.hash(), signed.hash());
            prop_assert!(!cut);
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Signed::parse(Role::Root, &bytes);
        let _ = Signed::parse(Role::Root, &[b"updraft-document = 1\nrole = \"root\"\n+++\n", &bytes[..]].concat())
            .map(|signed| read_payload::<crate::root::Root>(Role::Root, signed.payload()));
    }
}

#[test]
fn signatures_from_elsewhere_count_when_they_are_good() {
    let [a, b] = [1, 2].map(|seed| SecretKey::from_random(Role::Head, [seed; 32]));
    let head = World::new().head();
    let mut here = Signed::create(Role::Head, &head, &[]).unwrap();
    assert_eq!(here.unverified::<Head>().unwrap(), head);
    assert_eq!(Signed::role_of(&here.to_bytes()), Some(Role::Head));
    assert_eq!(Signed::role_of(b"payload"), None);
    // What a token or another machine makes of the bytes that it is given.
    let signature = {
        use ed25519_dalek::Signer as _;
        ed25519_dalek::SigningKey::from_bytes(&[1; 32]).sign(&here.message()).to_bytes()
    };
    assert!(!here.add(&b.public(), &signature));
    assert!(here.add(&a.public(), &signature));
    assert_eq!(here.signed_by(&keys(&[&a, &b], 2)), 1);

    // A bad signature in a copy neither takes the place of a good one nor keeps it out.
    let text = String::from_utf8(here.to_bytes()).unwrap();
    let spoilt = text.replace(&hex(&signature), &"0".repeat(128));
    let mut spoilt = Signed::parse(Role::Head, spoilt.as_bytes()).unwrap();
    assert!(here.merge(&spoilt) && spoilt.merge(&here));
    assert_eq!(here, spoilt);
    assert_eq!(here.signed_by(&keys(&[&a], 1)), 1);
}
