//! The head: the one document that changes. It points every channel at a signed manifest.
//!
//! # Where sources lie
//! Every entry of [`Sources`] is a URL reference, resolved by RFC 3986 against the *repository URL*:
//! the folder URL (ending in `/`) that the head itself was asked from. Absolute URLs stand for
//! themselves. So `http = ["."]` and `trackers = ["announce"]` mean "the host you came from", and the
//! same tree works, unchanged, from any host, mirror or port. `udp:announce` is the UDP tracker beside
//! it: the same host, port number and path, if the repository was asked for over plain HTTP (whoever
//! speaks TLS for a server does not speak for its UDP port). An empty `http` means `["."]`. A head
//! that came from a peer is resolved against the first URL of the feed. [`Sources::resolve`] does it.

use crate::document::Payload;
use crate::hash::ContentHash;
use crate::names::{Name, Version};
use crate::patchlist::PatchListRef;
use crate::rollout::Rollout;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use url::Url;

/// Where the head lies in the repository.
pub const HEAD_PATH: &str = "head.toml";
/// The most releases (channel × platform) a head may name.
pub const RELEASES_MAX: usize = 256;
/// The most platforms with a launcher.
pub const LAUNCHERS_MAX: usize = 64;
/// The most revoked manifests.
pub const REVOKED_MAX: usize = 1024;
/// The most sources of one kind.
pub const SOURCES_MAX: usize = 32;
/// The longest source in bytes.
pub const SOURCE_LEN_MAX: usize = 1024;
/// The longest life of a head in seconds: a year.
pub const LIFE_SECONDS_MAX: u64 = 366 * 86_400;
/// The usual life of a head in seconds: 7 days.
pub const LIFE_SECONDS_DEFAULT: u64 = 7 * 86_400;

/// Payload of `head.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`crate::document::FORMAT`].
    pub format: u32,
    /// The product.
    pub product: Name,
    /// Rises with every signing.
    pub sequence: u64,
    /// When it was signed.
    pub created: Time,
    /// When it stops being news.
    pub expires: Time,
    /// The newest root's version.
    pub root: u64,
    /// Where content comes from.
    #[serde(default)]
    pub sources: Sources,
    /// What every channel points at.
    #[serde(default)]
    pub releases: Vec<Release>,
    /// What channels will point at next: fetched ahead, installed when it is among `releases`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preloads: Vec<Release>,
    /// The newest launcher of every platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launchers: Vec<LauncherRelease>,
    /// Manifests, of releases and of launchers, that are taken back: by the SHA-256 of their payloads.
    /// None of them is installed, and whoever has one is told so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<ContentHash>,
}

/// One channel on one platform, and the manifest it points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The channel.
    pub channel: Name,
    /// The platform.
    pub platform: Name,
    /// The manifest's version, for people.
    pub version: Version,
    /// The manifest's sequence.
    pub sequence: u64,
    /// SHA-256 of the manifest's payload; it lies at `manifests/<hash>.toml`.
    pub manifest: ContentHash,
    /// Length of the manifest's payload in bytes.
    pub length: u64,
    /// The patches that lead to it, once they are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patches: Option<PatchListRef>,
    /// Who gets it when; nothing means everybody, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// The launcher of one platform, and the manifest it points at ([`crate::launcher`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherRelease {
    /// The platform.
    pub platform: Name,
    /// The manifest's version.
    pub version: Version,
    /// The manifest's sequence.
    pub sequence: u64,
    /// SHA-256 of the manifest's payload; it lies at `manifests/<hash>.toml`.
    pub manifest: ContentHash,
    /// Length of the manifest's payload in bytes.
    pub length: u64,
}

/// HTTP bases and trackers; see the module for how they are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Repository bases, all with the same tree.
    #[serde(default)]
    pub http: Vec<String>,
    /// Announce URLs, HTTP and UDP.
    #[serde(default)]
    pub trackers: Vec<String>,
}

/// [`Sources`] as absolute URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedSources {
    /// Repository bases, each ending in `/`.
    pub http: Vec<Url>,
    /// Announce URLs.
    pub trackers: Vec<Url>,
}

impl Sources {
    /// The absolute URLs, seen from the repository at `base`. What is no http(s) or udp URL is left
    /// out: a newer publisher may name sources that this code cannot use.
    pub fn resolve(&self, base: &Url) -> ResolvedSources {
        let base = as_folder(base.clone());
        let usable = |list: &[String], schemes: &[&str]| -> Vec<Url> {
            let urls = list.iter().take(SOURCES_MAX).filter_map(|text| seen_from(&base, text));
            urls.filter(|url| schemes.contains(&url.scheme()) && url.has_host()).collect()
        };
        let mut http: Vec<Url> =
            usable(&self.http, &["http", "https"]).into_iter().map(as_folder).collect();
        if self.http.is_empty() {
            http.push(base.clone());
        }
        ResolvedSources { http, trackers: usable(&self.trackers, &["http", "https", "udp"]) }
    }
}

impl ResolvedSources {
    /// The trackers in tiers (BEP 12). Those of one host stand in one, whatever they speak: they are one
    /// source, and to hear one of them is enough.
    pub fn tiers(&self) -> Vec<Vec<String>> {
        let mut tiers: Vec<(Option<&str>, Vec<String>)> = Vec::new();
        for url in &self.trackers {
            match tiers.iter_mut().find(|(host, _)| *host == url.host_str()) {
                Some((_, tier)) => tier.push(url.to_string()),
                None => tiers.push((url.host_str(), vec![url.to_string()])),
            }
        }
        tiers.into_iter().map(|(_, tier)| tier).collect()
    }
}

/// What `text` means in a head that came from `base`.
fn seen_from(base: &Url, text: &str) -> Option<Url> {
    match text.strip_prefix("udp:") {
        Some(path) if !path.starts_with("//") => {
            let beside = base.join(path).ok().filter(|url| url.scheme() == "http")?;
            let (host, port) = (beside.host_str()?, beside.port_or_known_default()?);
            Url::parse(&format!("udp://{host}:{port}{}", beside.path())).ok()
        }
        Some(_) | None => base.join(text).ok(),
    }
}

/// The URL with a path that ends in `/`, so that joining a name adds to it.
pub fn as_folder(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url.set_query(None);
    url.set_fragment(None);
    url
}

impl Head {
    /// What `channel` points at on `platform`; a release for `any` platform serves all.
    pub fn release(&self, channel: &Name, platform: &Name) -> Option<&Release> {
        let on = |platform: &Name| {
            self.releases.iter().find(|r| r.channel == *channel && r.platform == *platform)
        };
        on(platform).or_else(|| on(&Name::any_platform()))
    }

    /// What will follow `current`, if that is announced: of the same channel and platform, with a higher sequence.
    pub fn preload(&self, current: &Release) -> Option<&Release> {
        self.preloads
            .iter()
            .find(|preload| preload.is_in_place_of(current) && preload.sequence > current.sequence)
    }

    /// All releases that it names: those that channels point at, and preloads.
    pub fn named(&self) -> impl Iterator<Item = &Release> {
        self.releases.iter().chain(&self.preloads)
    }

    /// The newest launcher for `platform`. Programs run on one platform only.
    pub fn launcher(&self, platform: &Name) -> Option<&LauncherRelease> {
        self.launchers.iter().find(|launcher| launcher.platform == *platform)
    }
}

impl LauncherRelease {
    /// Where the manifest lies in the repository.
    pub fn manifest_path(&self) -> String {
        crate::manifest::path(&self.manifest)
    }
}

impl Release {
    /// Whether both are of one channel and platform.
    pub fn is_in_place_of(&self, other: &Self) -> bool {
        self.channel == other.channel && self.platform == other.platform
    }

    /// Where the manifest lies in the repository.
    pub fn manifest_path(&self) -> String {
        crate::manifest::path(&self.manifest)
    }
}

impl Payload for Head {
    fn check(&self) -> Result<(), String> {
        if self.expires <= self.created {
            return Err("it expires before it was made".to_owned());
        }
        if self.expires > self.created.after(LIFE_SECONDS_MAX) {
            return Err("it lives for more than a year".to_owned());
        }
        if self.releases.len() > RELEASES_MAX || self.preloads.len() > RELEASES_MAX {
            return Err(format!("it names more than {RELEASES_MAX} releases"));
        }
        if self.launchers.len() > LAUNCHERS_MAX {
            return Err(format!("it names more than {LAUNCHERS_MAX} launchers"));
        }
        if self.revoked.len() > REVOKED_MAX {
            return Err(format!("it revokes more than {REVOKED_MAX} manifests"));
        }
        for list in [&self.sources.http, &self.sources.trackers] {
            if list.len() > SOURCES_MAX || list.iter().any(|s| s.len() > SOURCE_LEN_MAX) {
                return Err("it names too many sources, or too long ones".to_owned());
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(twin) = self.launchers.iter().find(|l| !seen.insert(&l.platform)) {
            return Err(format!("it names two launchers for `{}`", twin.platform));
        }
        for list in [&self.releases, &self.preloads] {
            let mut seen = BTreeSet::new();
            for release in list {
                release.rollout.as_ref().map_or(Ok(()), Rollout::check)?;
                if !seen.insert((&release.channel, &release.platform)) {
                    return Err(format!(
                        "it names `{}` on `{}` twice",
                        release.channel, release.platform
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn sources_follow_the_host() {
        let sources = Sources {
            http: vec![".".into(), "https://cdn.example/g".into(), "file:///etc".into()],
            trackers: vec!["announce".into(), "udp://t.example:1/announce".into(), "::".into()],
        };
        let base = Url::parse("http://10.0.0.1:7600/games/x").unwrap();
        let resolved = sources.resolve(&base);
        let text = |urls: &[Url]| urls.iter().map(Url::to_string).collect::<Vec<_>>();
        assert_eq!(
            text(&resolved.http),
            ["http://10.0.0.1:7600/games/x/", "https://cdn.example/g/"]
        );
        assert_eq!(
            text(&resolved.trackers)[..2],
            ["http://10.0.0.1:7600/games/x/announce", "udp://t.example:1/announce"]
        );
        let none = Sources::default().resolve(&base);
        assert_eq!(text(&none.http), ["http://10.0.0.1:7600/games/x/"]);
        assert!(none.trackers.is_empty());
    }

    #[test]
    fn a_udp_tracker_beside_the_repository() {
        let sources = Sources {
            http: vec![],
            trackers: ["announce", "udp://t.example:1/announce", "udp:announce", "udp:"]
                .map(str::to_owned)
                .to_vec(),
        };
        let check = |base: &str, expected: &[&[&str]]| {
            let resolved = sources.resolve(&Url::parse(base).unwrap());
            assert_eq!(resolved.tiers(), expected, "{base}");
        };
        let other: &[&str] = &["udp://t.example:1/announce"];
        check(
            "http://10.0.0.1:7600/games/x/",
            &[
                &[
                    "http://10.0.0.1:7600/games/x/announce",
                    "udp://10.0.0.1:7600/games/x/announce",
                    "udp://10.0.0.1:7600/games/x/",
                ],
                other,
            ],
        );
        check(
            "http://[fd00::1]/",
            &[
                &[
                    "http://[fd00::1]/announce",
                    "udp://[fd00::1]:80/announce",
                    "udp://[fd00::1]:80/",
                ],
                other,
            ],
        );
        check("https://game.example/", &[&["https://game.example/announce"], other]);
    }

    #[test]
    fn bounds() {
        let good = World::new().head();
        good.check().unwrap();
        let check = |change: fn(&mut Head)| {
            let mut head = good.clone();
            change(&mut head);
            assert!(head.check().is_err(), "{head:?}");
        };
        check(|head| head.expires = head.created);
        check(|head| head.expires = head.created.after(LIFE_SECONDS_MAX + 1));
        check(|head| head.releases.push(head.releases[0].clone()));
        check(|head| head.preloads = vec![head.releases[0].clone(); 2]);
        check(|head| head.sources.http = vec![String::new(); SOURCES_MAX + 1]);
        check(|head| head.revoked = vec![ContentHash([1; 32]); REVOKED_MAX + 1]);
        check(|head| {
            let Release { platform, version, sequence, manifest, length, .. } =
                head.releases[0].clone();
            let launcher = LauncherRelease { platform, version, sequence, manifest, length };
            head.launchers = vec![launcher; 2];
        });
    }

    #[test]
    fn preloads_follow_what_is_current() {
        let mut head = World::new().head();
        let current = head.releases[0].clone();
        assert_eq!(head.preload(&current), None);
        head.preloads = vec![Release { sequence: 2, ..current.clone() }];
        assert_eq!(head.preload(&current).unwrap().sequence, 2);
        assert_eq!(head.named().count(), 2);
        let text = toml::to_string(&head).unwrap();
        assert_eq!(toml::from_str::<Head>(&text).unwrap(), head, "{text}");
        // A hotfix has overtaken it.
        assert_eq!(head.preload(&Release { sequence: 2, ..current.clone() }), None);
        let beta = Name::parse("beta").unwrap();
        assert_eq!(head.preload(&Release { channel: beta, ..current }), None);
    }

    #[test]
    fn any_platform_serves_all() {
        let head = World::new().head();
        let name = |text| Name::parse(text).unwrap();
        assert!(head.release(&name("stable"), &name("linux-x86_64")).is_some());
        assert!(head.release(&name("beta"), &name("any")).is_none());
    }
}
