//! What a publisher signs, and what lies beside it in the repository.

use super::{corpus, fuzz};
use updraft_manifests::document::{Payload, Signed};
use updraft_manifests::feed::Feed;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::Head;
use updraft_manifests::keys::Role;
use updraft_manifests::launcher::LauncherManifest;
use updraft_manifests::manifest::Manifest;
use updraft_manifests::patch::{PREFIX_LEN, Patch};
use updraft_manifests::patchlist::{PatchList, PatchListRef};
use updraft_manifests::root::Root;
use updraft_manifests::time::Time;
use updraft_manifests::{leaf_index, packs, torrent_delta};
use updraft_protocol::metainfo::Metainfo;

const ROLES: [(&str, Role); 4] = [
    ("root", Role::Root),
    ("head", Role::Head),
    ("manifest", Role::Release),
    ("launcher", Role::Launcher),
];

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[test]
fn signed_documents() {
    let all = ROLES.iter().flat_map(|(name, _)| corpus(name)).collect();
    fuzz("document", all, |bytes| {
        let read = |(_, role): &(&str, Role)| Signed::parse(*role, bytes).ok();
        let Some(signed) = ROLES.iter().find_map(read) else { return false };
        let again = Signed::parse(signed.role(), &signed.to_bytes()).expect("it reads its own");
        assert_eq!(again.payload(), signed.payload());
        assert!(again.signers().eq(signed.signers()));
        true
    });
}

/// Payloads come behind a header without signatures, so that the changes meet what is inside.
fn payloads<T: Payload + PartialEq + std::fmt::Debug>(name: &str, role: Role, used: impl Fn(&T)) {
    let signed = corpus(name)
        .into_iter()
        .map(|bytes| Signed::parse(role, &bytes).expect("the corpus is good").payload().to_vec());
    let header = Signed::parse(role, &corpus(name)[0]).expect("the corpus is good").to_bytes();
    let separator = header.windows(5).position(|window| window == b"\n+++\n").expect("it has one");
    let header = &header[..separator + 5];
    fuzz(&format!("{name} payload"), signed.collect(), |payload| {
        let document = Signed::parse(role, &[header, payload].concat());
        let Ok(value) = document.and_then(|document| document.unverified::<T>()) else {
            return false;
        };
        used(&value);
        let again = Signed::create(role, &value, &[]).expect("what was read can be written");
        assert_eq!(again.unverified::<T>().expect("it reads its own"), value);
        true
    });
}

#[test]
fn roots() {
    payloads("root", Role::Root, |root: &Root| {
        for role in [Role::Root, Role::Head, Role::Release, Role::Launcher] {
            let _ = root.roles.of(role);
        }
    });
}

#[test]
fn heads() {
    let base = url::Url::parse("https://game.example/a/").expect("it is a URL");
    payloads("head", Role::Head, |head: &Head| {
        let sources = head.sources.resolve(&base);
        let good =
            |url: &url::Url| matches!(url.scheme(), "http" | "https" | "udp") && url.has_host();
        assert!(sources.http.iter().chain(&sources.trackers).all(good), "{sources:?}");
        let _ = sources.tiers();
        for release in head.named() {
            let _ = head.preload(release);
            let _ = head.release(&release.channel, &release.platform);
            if let Some(rollout) = &release.rollout {
                let _ = rollout.turn(&[7; 16], Time::from_unix(1_800_000_000));
            }
        }
    });
}

#[test]
fn manifests() {
    payloads("manifest", Role::Release, |manifest: &Manifest| {
        let _ = manifest.rules.is_empty();
    });
}

#[test]
fn launcher_manifests() {
    payloads("launcher", Role::Launcher, |_: &LauncherManifest| {});
}

#[test]
fn feeds() {
    fuzz("feed", corpus("feed"), |bytes| {
        let Some(Ok(feed)) = text(bytes).map(Feed::parse) else { return false };
        assert_eq!(Feed::parse(&feed.to_link()).as_ref(), Ok(&feed));
        assert_eq!(Feed::parse(&feed.to_toml()).as_ref(), Ok(&feed));
        true
    });
}

#[test]
fn patch_lists() {
    let good = corpus("patch-list");
    let to = text(&good[0]).and_then(|text| text.split('"').nth(1)).and_then(ContentHash::from_hex);
    let to = to.expect("it names its release");
    fuzz("patch-list", good, |bytes| {
        let named = PatchListRef { hash: ContentHash::of(bytes), length: bytes.len() as u64 };
        let Ok(list) = PatchList::parse(bytes, &named, &to) else { return false };
        let _ = (list.usable_from(&to), list.torrent_from(&to));
        let (bytes, named) = list.encode();
        assert_eq!(PatchList::parse(&bytes, &named, &to).as_ref(), Ok(&list));
        true
    });
}

#[test]
fn pack_lists() {
    fuzz("pack-list", corpus("pack-list"), |bytes| {
        let Ok(list) = packs::parse(bytes) else { return false };
        assert_eq!(packs::encode(&list), bytes);
        true
    });
}

#[test]
fn leaf_indexes() {
    fuzz("leaf-index", corpus("leaf-index"), |bytes| {
        leaf_index::parse_hashes(bytes).is_some_and(|hashes| hashes.count() == bytes.len() / 8)
    });
}

#[test]
fn torrent_deltas() {
    let old = &corpus("torrent")[0];
    let old = Metainfo::parse(old).expect("the corpus is good").bare();
    fuzz("torrent-delta", corpus("torrent-delta"), |bytes| {
        let made = torrent_delta::decode(&old, bytes, 1 << 16);
        made.is_ok_and(|made| made.len() <= 1 << 16)
    });
}

#[test]
fn patches() {
    fuzz("patch", corpus("patch"), |bytes| {
        let prefix = bytes.first_chunk::<PREFIX_LEN>();
        let len = prefix.and_then(|prefix| Patch::header_len(prefix).ok());
        let Ok(patch) = Patch::parse(bytes) else { return false };
        assert!(len.expect("it has a prefix") <= bytes.len());
        let _ = patch.features();
        true
    });
}
