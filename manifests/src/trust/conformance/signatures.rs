//! Who signed, and how often.

use super::*;

pub(super) const SIGNATURES: &[Case] = &[
    (
        "unsigned head",
        || {
            then(Client::new(), |c| {
                let bytes = c.signed(Role::Head, &c.world.head(), &[]);
                c.take_head(&bytes)
            })
        },
        "Document(Signatures { role: Head, good: 0, threshold: 1",
    ),
    (
        "unsigned root",
        || then(Client::new(), |c| c.next_root(&[], |_| {})),
        "Document(Signatures { role: Root, good: 0",
    ),
    (
        "unsigned manifest",
        || {
            then(Client::new(), |c| {
                let head = c.head_bytes(|_| {});
                c.take_head(&head)?;
                let bytes = c.signed(Role::Release, &c.world.manifest(), &[]);
                c.take_manifest(&bytes)
            })
        },
        "Document(Signatures { role: Release, good: 0",
    ),
    (
        "head signed by a key that the root does not list",
        || {
            then(Client::new(), |c| {
                let bytes = c.signed(Role::Head, &c.world.head(), &[&key(Role::Head, 77)]);
                c.take_head(&bytes)
            })
        },
        "Document(Signatures { role: Head, good: 0",
    ),
    (
        "manifest signed by the head key under another label",
        || {
            then(Client::new(), |c| {
                let head = c.head_bytes(|_| {});
                c.take_head(&head)?;
                let same_secret = key(Role::Release, 13);
                let bytes = c.signed(Role::Release, &c.world.manifest(), &[&same_secret]);
                c.take_manifest(&bytes)
            })
        },
        "Document(Signatures { role: Release, good: 0",
    ),
    (
        "payload changed after signing",
        || {
            then(Client::new(), |c| {
                let bytes = with_payload(&c.head_bytes(|_| {}), |p| {
                    p.replace("sequence = 1", "sequence = 2")
                });
                c.take_head(&bytes)
            })
        },
        "Document(Signatures { role: Head, good: 0",
    ),
    (
        "threshold not met",
        || {
            let (a, b) = (key(Role::Head, 31), key(Role::Head, 32));
            then(Client::with_head_keys(2, &[&a, &b]), |c| {
                let bytes = c.signed(Role::Head, &c.world.head(), &[&a]);
                c.take_head(&bytes)
            })
        },
        "Document(Signatures { role: Head, good: 1, threshold: 2",
    ),
    (
        "threshold met by distinct keys",
        || {
            let (a, b) = (key(Role::Head, 31), key(Role::Head, 32));
            then(Client::with_head_keys(2, &[&a, &b]), |c| {
                let bytes = c.signed(Role::Head, &c.world.head(), &[&a, &b]);
                c.take_head(&bytes)
            })
        },
        "",
    ),
    (
        "duplicate signatures by one key",
        || {
            let (a, b) = (key(Role::Head, 31), key(Role::Head, 32));
            then(Client::with_head_keys(2, &[&a, &b]), |c| {
                let once = c.signed(Role::Head, &c.world.head(), &[&a]);
                let block = signature_block(&once);
                c.take_head(&with_header(&once, |header| format!("{header}\n{block}")))
            })
        },
        "Document(Signatures { role: Head, good: 1, threshold: 2",
    ),
    (
        "one key under two ids",
        || {
            let (a, b) = (key(Role::Head, 31), key(Role::Head, 32));
            then(Client::with_head_keys(2, &[&a, &b]), |c| {
                let once = c.signed(Role::Head, &c.world.head(), &[&a]);
                let (id, block) = (a.public().to_string(), signature_block(&once));
                let other = block.replace(&id, &id.to_uppercase());
                let stranger = block.replace(&id, &b.public().to_string());
                c.take_head(&with_header(&once, |header| format!("{header}\n{other}\n{stranger}")))
            })
        },
        "Document(Signatures { role: Head, good: 1, threshold: 2",
    ),
    (
        "signatures beside the good one that are no signatures",
        || {
            then(Client::new(), |c| {
                let block = "[[signatures]]\nkey = \"?\"\nsignature = \"00\"\n";
                let bytes =
                    with_header(&c.head_bytes(|_| {}), |header| format!("{header}\n{block}"));
                c.take_head(&bytes)
            })
        },
        "",
    ),
    (
        "more signatures than anybody needs",
        || {
            then(Client::new(), |c| {
                let bytes = c.head_bytes(|_| {});
                let block = signature_block(&bytes).repeat(crate::document::SIGNATURES_MAX + 1);
                c.take_head(&with_header(&bytes, |header| format!("{header}\n{block}")))
            })
        },
        "Document(Malformed { role: Head",
    ),
];
