//! The chain of roots.

use super::*;

pub(super) const ROOTS: &[Case] = &[
    (
        "first root that the feed does not name",
        || {
            then(Client::new(), |c| {
                c.state = TrustState::new(&c.world.feed());
                let other = Root { created: Time::from_unix(NOW + 1), ..c.world.root() };
                let bytes = c.signed(Role::Root, &other, &[&c.world.root_key]);
                c.take_root(&bytes)
            })
        },
        "Fingerprint",
    ),
    (
        "root skipped",
        || then(Client::new(), |c| c.next_root(&[&key(Role::Root, 11)], |r| r.version = 3)),
        "RootVersion { expected: 2, found: 3",
    ),
    (
        "root of the same version",
        || then(Client::new(), |c| c.next_root(&[&key(Role::Root, 11)], |r| r.version = 1)),
        "RootVersion { expected: 2, found: 1",
    ),
    (
        "older root",
        || {
            then(Client::new(), |c| {
                c.next_root(&[&key(Role::Root, 11)], |_| {})?;
                c.next_root(&[&key(Role::Root, 11)], |r| r.version = 1)
            })
        },
        "RootVersion { expected: 3, found: 1",
    ),
    (
        "root of another product",
        || {
            then(Client::new(), |c| {
                c.next_root(&[&key(Role::Root, 11)], |r| r.product = name("other"))
            })
        },
        "Product { role: Root",
    ),
    (
        "root signed by its own keys alone",
        || {
            then(Client::new(), |c| {
                let thief = key(Role::Root, 66);
                c.next_root(&[&thief], |r| r.roles.root.keys = [thief.public()].into())
            })
        },
        "Document(Signatures { role: Root, good: 0",
    ),
    (
        "root signed by the keys before it alone",
        || {
            then(Client::new(), |c| {
                let new = key(Role::Root, 66);
                c.next_root(&[&key(Role::Root, 11)], |r| r.roles.root.keys = [new.public()].into())
            })
        },
        "Document(Signatures { role: Root, good: 0",
    ),
    (
        "root keys change, signed by both",
        || {
            then(Client::new(), |c| {
                let new = c.replace_root_key()?;
                c.next_root(&[&new], |_| {})
            })
        },
        "",
    ),
    (
        "root signed by a key that the one before took away",
        || {
            then(Client::new(), |c| {
                c.replace_root_key()?;
                c.next_root(&[&key(Role::Root, 11)], |_| {})
            })
        },
        "Document(Signatures { role: Root, good: 0",
    ),
    (
        "root threshold raised, not met by itself",
        || {
            then(Client::new(), |c| {
                let second = key(Role::Root, 66);
                c.next_root(&[&key(Role::Root, 11)], |r| {
                    r.roles.root.keys.insert(second.public());
                    r.roles.root.threshold = 2;
                })
            })
        },
        "Document(Signatures { role: Root, good: 1, threshold: 2",
    ),
    (
        "root threshold raised, then only one signs",
        || {
            then(Client::new(), |c| {
                let second = c.need_two_root_keys()?;
                c.next_root(&[&second], |_| {})
            })
        },
        "Document(Signatures { role: Root, good: 1, threshold: 2",
    ),
    (
        "root threshold lowered by too few",
        || {
            then(Client::new(), |c| {
                let second = c.need_two_root_keys()?;
                c.next_root(&[&second], |r| r.roles.root.threshold = 1)
            })
        },
        "Document(Signatures { role: Root, good: 1, threshold: 2",
    ),
    (
        "head signed by a key that a later root took away",
        || {
            then(Client::new(), |c| {
                let new = key(Role::Head, 66);
                c.next_root(&[&key(Role::Root, 11)], |r| {
                    r.roles.head.keys = [new.public()].into();
                })?;
                let bytes = c.head_bytes(|_| {});
                c.take_head(&bytes)
            })
        },
        "Document(Signatures { role: Head, good: 0",
    ),
    (
        "manifest signed by a key that a later root took away",
        || {
            then(Client::new(), |c| {
                let new = key(Role::Release, 66);
                c.next_root(&[&key(Role::Root, 11)], |r| {
                    r.roles.release.keys.keys = [new.public()].into();
                })?;
                c.offer(1, |_| {})
            })
        },
        "Document(Signatures { role: Release, good: 0",
    ),
    (
        "expired root: roots of any age are walked, and the head says what is news",
        || {
            then(Client::new(), |c| {
                for _ in 0..3 {
                    c.next_root(&[&key(Role::Root, 11)], |r| r.created = Time::from_unix(1))?;
                }
                c.offer(1, |_| {})
            })
        },
        "",
    ),
];
