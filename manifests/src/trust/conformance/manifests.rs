//! Manifests that the head does not mean.

use super::*;

pub(super) const MANIFESTS: &[Case] = &[
    (
        "manifest of other content than the head names",
        || {
            then(Client::new(), |c| {
                let head = c.head_bytes(|_| {});
                c.take_head(&head)?;
                let other = Manifest { total_size: 11, ..c.world.manifest() };
                let bytes = c.signed(Role::Release, &other, &[&c.world.release_key]);
                c.take_manifest(&bytes)
            })
        },
        "ManifestHash",
    ),
    (
        "manifest of another length than the head names",
        || {
            then(Client::new(), |c| {
                let head = c.head_bytes(|h| h.releases[0].length += 1);
                c.take_head(&head)?;
                let bytes = c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                c.take_manifest(&bytes)
            })
        },
        "ManifestHash",
    ),
    (
        "mix and match: an old manifest under a new head",
        || {
            then(Client::on_release_2(), |c| {
                let head = c.head_bytes(|h| h.sequence = 3);
                c.take_head(&head)?;
                let bytes = c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                c.take_manifest(&bytes)
            })
        },
        "Older { what: \"manifest of `stable` on `any`\", floor: 2, found: 1",
    ),
    (
        "mix and match: an old manifest under the number of a new one",
        || {
            then(Client::on_release_2(), |c| {
                let head = c.head_bytes(|h| (h.sequence, h.releases[0].sequence) = (3, 3));
                c.take_head(&head)?;
                let bytes = c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                c.take_manifest(&bytes)
            })
        },
        "ManifestMismatch { hash: ContentHash",
    ),
    (
        "mix and match: the manifest of another channel",
        || {
            then(Client::new(), |c| {
                let head = c.head_bytes(|h| h.releases[0].channel = name("beta"));
                c.take_head(&head)?;
                let bytes = c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                c.take_manifest(&bytes)
            })
        },
        "ManifestMismatch",
    ),
    (
        "another manifest of the same sequence",
        || {
            then(Client::on_release_2(), |c| {
                let mut other = Manifest { sequence: 2, total_size: 99, ..c.world.manifest() };
                other.total_size = 99;
                let head = Head { sequence: 3, ..c.world.head_of(&other) };
                let head = c.signed(Role::Head, &head, &[&c.world.head_key]);
                c.take_head(&head)?;
                let bytes = c.signed(Role::Release, &other, &[&c.world.release_key]);
                c.take_manifest(&bytes)
            })
        },
        "Equivocation { what: \"manifest",
    ),
    (
        "manifest far ahead",
        || then(Client::on_release_2(), |c| c.offer(3, |m| m.sequence = u64::MAX)),
        "Jump { what: \"manifest",
    ),
    (
        "fast-forward of a manifest, recovered from by other release keys",
        || {
            then(Client::on_release_2(), |c| {
                c.offer(3, |m| m.sequence = 1 << 20)?;
                let new = key(Role::Release, 66);
                c.next_root(&[&key(Role::Root, 11)], |r| {
                    r.roles.release.keys.keys = [new.public()].into();
                })?;
                c.world.release_key = new;
                c.offer(4, |m| m.sequence = 4)
            })
        },
        "",
    ),
    (
        "manifest of another product",
        || then(Client::new(), |c| c.offer(1, |m| m.product = name("other"))),
        "Product { role: Release",
    ),
    (
        "revoked manifest",
        || {
            then(Client::new(), |c| {
                let head = c.head_bytes(|h| h.revoked = vec![h.releases[0].manifest]);
                c.take_head(&head)?;
                let bytes = c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                c.take_manifest(&bytes)
            })
        },
        "Revoked",
    ),
    (
        "threshold of a channel not met",
        || {
            then(Client::new(), |c| {
                let second = key(Role::Release, 66);
                c.next_root(&[&key(Role::Root, 11)], |r| {
                    r.roles.release.keys.keys.insert(second.public());
                    r.roles.release.channels.insert(name("stable"), 2);
                })?;
                c.offer(1, |_| {})
            })
        },
        "Document(Signatures { role: Release, good: 1, threshold: 2",
    ),
    (
        "threshold of another channel does not matter",
        || {
            then(Client::new(), |c| {
                let second = key(Role::Release, 66);
                c.next_root(&[&key(Role::Root, 11)], |r| {
                    r.roles.release.keys.keys.insert(second.public());
                    r.roles.release.channels.insert(name("beta"), 2);
                })?;
                c.offer(1, |_| {})
            })
        },
        "",
    ),
    (
        "oversized manifest",
        || {
            then(Client::new(), |c| {
                let head = c.head_bytes(|_| {});
                c.take_head(&head)?;
                let mut bytes =
                    c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                bytes.resize(Role::Release.document_bytes_max() + 1, b'#');
                c.take_manifest(&bytes)
            })
        },
        "Document(TooLarge { role: Release",
    ),
];
