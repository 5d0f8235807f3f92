//! The head: old, frozen, foreign, too large.

use super::*;

pub(super) const HEADS: &[Case] = &[
    (
        "no root yet",
        || {
            then(Client::new(), |c| {
                c.state = TrustState::new(&c.world.feed());
                let bytes = c.head_bytes(|_| {});
                c.take_head(&bytes)
            })
        },
        "NoRoot",
    ),
    (
        "head rolled back",
        || {
            then(Client::on_release_2(), |c| {
                let bytes = c.head_bytes(|h| h.sequence = 1);
                c.take_head(&bytes)
            })
        },
        "Older { what: \"head\", floor: 2, found: 1",
    ),
    ("the same head again", || then(Client::on_release_2(), |c| c.offer(2, |_| {})), ""),
    (
        "another head of the same sequence",
        || {
            then(Client::on_release_2(), |c| {
                let bytes = c.head_bytes(|h| h.sequence = 2);
                c.take_head(&bytes)
            })
        },
        "Equivocation { what: \"head\", sequence: 2",
    ),
    (
        "head far ahead",
        || {
            then(Client::on_release_2(), |c| {
                let bytes = c.head_bytes(|h| h.sequence = u64::MAX);
                c.take_head(&bytes)
            })
        },
        "Jump { what: \"head\", floor: 2",
    ),
    (
        "fast-forward, recovered from by other head keys",
        || {
            then(Client::on_release_2(), |c| {
                let bytes = c.head_bytes(|h| h.sequence = 2 + SEQUENCE_JUMP_MAX);
                c.take_head(&bytes)?;
                let new = key(Role::Head, 66);
                c.next_root(&[&key(Role::Root, 11)], |r| {
                    r.roles.head.keys = [new.public()].into();
                })?;
                let head = Head { sequence: 3, ..c.world.head() };
                let bytes = c.signed(Role::Head, &head, &[&new]);
                c.take_head(&bytes)
            })
        },
        "",
    ),
    (
        "freeze: an expired head installs nothing",
        || {
            then(Client::new(), |c| {
                let head = c.world.head();
                let bytes = c.head_bytes(|_| {});
                c.take_head_at(&bytes, head.expires.unix())?;
                let manifest =
                    c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                c.take_manifest(&manifest)
            })
        },
        "HeadExpired",
    ),
    (
        "freeze with a clock that went back",
        || {
            then(Client::new(), |c| {
                let expires = c.world.head().expires;
                let later = c.head_bytes(|h| {
                    (h.sequence, h.created, h.expires) = (2, expires.after(10), expires.after(20));
                });
                c.take_head_at(&later, expires.unix() + 15)?;
                let frozen = c.head_bytes(|h| h.sequence = 3);
                c.take_head_at(&frozen, 0)?;
                let manifest =
                    c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                c.take_manifest(&manifest)
            })
        },
        "HeadExpired",
    ),
    (
        "head of another product",
        || {
            then(Client::new(), |c| {
                let bytes = c.head_bytes(|h| h.product = name("other"));
                c.take_head(&bytes)
            })
        },
        "Product { role: Head",
    ),
    (
        "a manifest where the head is expected",
        || {
            then(Client::new(), |c| {
                let bytes = c.signed(Role::Release, &c.world.manifest(), &[&c.world.release_key]);
                c.take_head(&bytes)
            })
        },
        "Document(Malformed { role: Head",
    ),
    (
        "a root where the head is expected",
        || {
            then(Client::new(), |c| {
                let bytes = c.signed(Role::Root, &c.root, &[&c.world.root_key]);
                c.take_head(&with_header(&bytes, |header| header.replace("\"root\"", "\"head\"")))
            })
        },
        "Document(Signatures { role: Head, good: 0",
    ),
    (
        "oversized head",
        || {
            then(Client::new(), |c| {
                let mut bytes = c.head_bytes(|_| {});
                bytes.resize(Role::Head.document_bytes_max() + 1, b'#');
                c.take_head(&bytes)
            })
        },
        "Document(TooLarge { role: Head",
    ),
    (
        "header without an end",
        || {
            then(Client::new(), |c| {
                let bytes = vec![b'#'; crate::document::HEADER_BYTES_MAX + 100];
                c.take_head(&bytes)
            })
        },
        "Document(Malformed { role: Head",
    ),
    (
        "not a document at all",
        || then(Client::new(), |c| c.take_head(b"<html>404</html>")),
        "Document(Malformed { role: Head",
    ),
    (
        "payload of a newer format",
        || {
            then(Client::new(), |c| {
                let bytes = c.head_bytes(|h| h.format = 99);
                c.take_head(&bytes)
            })
        },
        "Document(Newer { role: Head, format: 99",
    ),
    (
        "document of a newer format",
        || {
            then(Client::new(), |c| {
                let newer = |header: &str| header.replace("document = 1", "document = 2");
                let bytes = with_header(&c.head_bytes(|_| {}), newer);
                c.take_head(&bytes)
            })
        },
        "Document(Newer { role: Head, format: 2",
    ),
    (
        "custom fields in the header",
        || {
            then(Client::new(), |c| {
                let bytes =
                    with_header(&c.head_bytes(|_| {}), |header| format!("custom = [1]\n{header}"));
                c.take_head(&bytes)
            })
        },
        "",
    ),
    (
        "custom fields that were signed",
        || {
            then(Client::new(), |c| {
                let key = key(Role::Head, 13);
                let unsigned =
                    with_payload(&c.head_bytes(|_| {}), |p| format!("custom = {{ a = 1 }}\n{p}"));
                let mut signed = Signed::parse(Role::Head, &unsigned).unwrap();
                signed.sign(&key);
                c.take_head(&signed.to_bytes())
            })
        },
        "",
    ),
];
