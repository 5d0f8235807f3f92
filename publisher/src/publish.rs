//! `publish`: a build folder becomes a release.
//!
//! The order is what makes it safe to kill at any instant: contents, torrent, manifest, each under a
//! name that nobody asks for yet, and the head last, by one rename. Whoever looks sees the old set or
//! the new one. A second run finds what the first left and goes on.

use crate::home::Home;
use crate::objects::{Objects, Source as ObjectSource};
use crate::repository::{Repository, now};
use crate::scan::{Kind, Scan, ScannedFile, scan};
use crate::signers::Signers;
use crate::{Error, base, channels, disk, head, leaf_index, packs, versions, waiting};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use updraft_manifests::document::{FORMAT, Signed};
use updraft_manifests::hash::{ContentHash, V1Hash};
use updraft_manifests::head::{Head, LauncherRelease, Release, Sources, as_folder};
use updraft_manifests::keys::Role;
use updraft_manifests::manifest::{self, FORMAT_WITH_RULES, Launch, Manifest, Torrent};
use updraft_manifests::names::{Name, Version};
use updraft_manifests::path::RelPath;
use updraft_manifests::plan::{Content, NewFile};
use updraft_manifests::time::Time;
use updraft_manifests::trust::check_launcher;
use updraft_protocol::io::create::create;
use updraft_protocol::metainfo::Metainfo;
use updraft_protocol::metainfo::create::{
    CreateError, Format, Options, Source, SourceFile, choose_piece_length, padding,
};
use url::Url;

/// A hybrid whose pad files would add more than this share of the build is made v2-only.
pub const PADDING_PERCENT_MAX: u64 = 10;
/// Padding up to this is no matter, whatever its share.
pub const PADDING_BYTES_FREE: u64 = 16 << 20;

/// What to publish, and as what.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The build folder.
    pub build: PathBuf,
    /// The version.
    pub version: Version,
    /// The channel.
    pub channel: Name,
    /// The platform.
    pub platform: Name,
    /// What is new.
    pub notes: Option<String>,
    /// The program to start.
    pub launch: Option<Launch>,
    /// The oldest launcher that can install it.
    pub minimum_launcher: Option<Version>,
    /// Of 10 000 installs, how many get it by themselves at first; `None` for all.
    pub first: Option<u16>,
    /// Only announce it: launchers fetch it ahead and install it once [`channels::release`] says so.
    pub preload: bool,
    /// Bring back a version that was revoked.
    pub unrevoke: bool,
    /// Paths that only look like secrets.
    pub allow: Vec<RelPath>,
    /// The kind of torrent; `None` takes a hybrid, or v2-only when padding would be too much.
    pub format: Option<Format>,
    /// Bytes per piece; `None` chooses by the sizes.
    pub piece_length: Option<u32>,
    /// When it is published; `None` takes the clock.
    pub created: Option<Time>,
}

#[cfg(test)]
impl Publish {
    /// A build for the stable channel of any platform, and nothing special.
    pub(crate) fn stable(build: &std::path::Path, version: &str) -> Self {
        Self {
            build: build.to_path_buf(),
            version: Version::parse(version).unwrap(),
            channel: Name::parse("stable").unwrap(),
            platform: Name::any_platform(),
            notes: None,
            launch: None,
            minimum_launcher: None,
            first: None,
            preload: false,
            unrevoke: false,
            allow: vec![],
            format: None,
            piece_length: None,
            created: None,
        }
    }
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// True if this very release was there already and nothing was changed.
    pub already: bool,
    /// The version.
    pub version: Version,
    /// The release's sequence.
    pub sequence: u64,
    /// SHA-256 of the manifest's payload.
    pub manifest: ContentHash,
    /// The torrent's v2 info-hash.
    pub v2: ContentHash,
    /// The torrent's v1 info-hash, if it is a hybrid.
    pub v1: Option<V1Hash>,
    /// Files of the build.
    pub files: u64,
    /// Bytes of the build.
    pub bytes: u64,
    /// Bytes that no earlier release had.
    pub added_bytes: u64,
    /// The head's sequence.
    pub head_sequence: u64,
    /// When the head expires.
    pub head_expires: Time,
    /// That nothing was offered on that channel or platform before, in words.
    pub new_place: Option<String>,
    /// Where files of a release that was there already had to be written again.
    pub repaired: Vec<&'static str>,
    /// What the publisher should know.
    pub warnings: Vec<String>,
}

/// What is about to be done. The callback of [`publish`] may refuse to go on, which leaves the
/// repository as a kill at that instant would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The build was scanned; it is hashed next.
    Hash {
        /// Files.
        files: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The leaf index is made and written next.
    Index,
    /// The content of one file is stored next.
    Object,
    /// All contents are made durable next.
    Objects,
    /// Contents are packed for first installs over HTTP next.
    Packs,
    /// The torrent is written next.
    Torrent,
    /// The manifest is written next.
    Manifest,
    /// The head is written next: the release goes live.
    Head,
}

/// Publishes `what`. `step` is told before everything that changes the repository; `hashed` is told
/// (bytes hashed, bytes in all) now and then, from several threads.
///
/// # Errors
/// [`Error`]; the repository then offers what it offered before.
pub fn publish(
    home: &Home,
    what: &Publish,
    step: &mut dyn FnMut(Step) -> Result<(), Error>,
    hashed: &(dyn Fn(u64, u64) + Sync),
) -> Result<Published, Error> {
    // All that can be wrong without looking at the build comes first.
    let signers = Signers::at_hand(home, Role::Release)?;
    let head_key = home.key(Role::Head)?;
    let (mut lock, repository) = base::begin(home)?;
    let old_head = repository.head(now())?;
    let (channel, platform) = (&what.channel, &what.platform);
    let there = |list: fn(&Head) -> &[Release]| {
        let list = old_head.as_ref().map_or(&[][..], |accepted| list(&accepted.head));
        list.iter().find(|entry| entry.channel == *channel && entry.platform == *platform)
    };
    let current = there(|head| &head.releases);
    if what.preload && current.is_none() {
        return Err(Error::Usage(format!(
            "--preload: `{channel}` offers nothing on `{platform}` yet, so nobody would fetch it ahead: \
             publish without it"
        )));
    }
    // What is announced again is compared with what was announced before.
    let announced = there(|head| &head.preloads).filter(|_| what.preload);
    let old = announced.or(current);
    let revoked = |old: &Release| {
        old_head.as_ref().is_some_and(|accepted| accepted.head.revoked.contains(&old.manifest))
    };
    let offered = old.is_some_and(|old| old.version == what.version && !revoked(old));
    if let Some(accepted) = old_head.as_ref().filter(|_| !what.unrevoke && !offered) {
        versions::refuse_revoked(&repository, &accepted.head, &what.version, channel, platform)?;
    }

    let scan = scan(&what.build, &what.allow)?;
    check_launch(what, &scan)?;
    let rules = &home.config.files;
    let listed = listed(&scan);
    rules.check(&listed).map_err(|problem| Error::Refused { problems: vec![problem] })?;
    step(Step::Hash { files: scan.files.len() as u64, bytes: scan.total })?;
    let mut warnings = Vec::new();
    warnings.extend(rules.idle(&listed).into_iter().map(|pattern| {
        format!("`{pattern}` in [files] of updraft.toml fits no file of the build")
    }));
    let metainfo = make_torrent(home, what, &scan, &mut warnings, hashed)?;
    let info = &metainfo.info;
    let v2 = info.hashes.v2.ok_or_else(|| Error::Internal("the torrent has no v2 hash".into()))?;
    let v2 = ContentHash(v2.0);
    let v1 = info.hashes.v1.map(|hash| V1Hash(hash.0));
    let piece_length = info.geometry.piece_length();
    if let Some(accepted) = &old_head {
        let (head, version) = (&accepted.head, &what.version);
        versions::refuse_other_content(&repository, head, version, channel, platform, &v2)?;
    }

    let folders = ["", "root", "manifests", "torrents", "indexes", "objects", "packs", "packlists"];
    for folder in folders {
        disk::remove_temporaries(&repository.dir.join(folder));
    }
    let sources = object_sources(&metainfo, &scan)?;
    step(Step::Index)?;
    let mut written = Vec::new();
    let (leaf_index, is_new) = leaf_index::write(&repository.dir, &sources)?;
    written.extend(is_new.then_some("indexes"));
    let mut objects = Objects::open(&repository.dir)?;
    for source in &sources {
        step(Step::Object)?;
        objects.add(source)?;
    }
    step(Step::Objects)?;
    objects.finish()?;
    written.extend((objects.added > 0).then_some("objects"));

    let mut packs = None;
    if home.config.packs {
        step(Step::Packs)?;
        let before = old_head.as_ref().zip(old);
        let before = before.and_then(|(head, old)| repository.manifest(&head.head, old).ok());
        let known = before.map(|before| packs::known(&repository, &before)).unwrap_or_default();
        let is_new;
        (packs, is_new) = packs::write(&repository.dir, &sources, piece_length, &known)?;
        written.extend(is_new.then_some("packs"));
    }

    step(Step::Torrent)?;
    if write_torrent(home, &repository, &v2, metainfo)? {
        written.push("torrents");
    }

    let sequence =
        channels::next_sequence(old_head.as_ref().map(|head| &*head.head), channel, platform);
    let manifest = Manifest {
        format: if rules.is_empty() { FORMAT } else { FORMAT_WITH_RULES },
        product: home.config.product.clone(),
        platform: platform.clone(),
        channel: channel.clone(),
        version: what.version.clone(),
        sequence,
        created: what.created.unwrap_or_else(now),
        total_size: scan.total,
        file_count: scan.files.len() as u64,
        minimum_launcher: what.minimum_launcher.clone(),
        notes: what.notes.clone(),
        empty_folders: scan.empty_folders.clone(),
        torrent: Torrent { v2, v1, piece_length },
        leaf_index,
        packs,
        launch: what.launch.clone(),
        rules: rules.clone(),
    };
    warnings.extend(no_launcher_for(&manifest, old_head.as_ref().map(|accepted| &*accepted.head)));
    let new_place = new_place(old_head.as_ref().map(|accepted| &*accepted.head), channel, platform);
    let (files, added_bytes) = (manifest.file_count, objects.added_bytes);
    let published = |already, sequence, manifest, head: &Head| Published {
        already,
        version: what.version.clone(),
        sequence,
        manifest,
        v2,
        v1,
        files,
        bytes: scan.total,
        added_bytes,
        head_sequence: head.sequence,
        head_expires: head.expires,
        new_place,
        repaired: if already { written } else { vec![] },
        warnings,
    };
    if let (Some(accepted), Some(old)) = (&old_head, old)
        && let Ok(before) = repository.manifest(&accepted.head, old)
        && is_same_release(&before, &manifest)
        && !revoked(old)
    {
        if now() < accepted.head.expires {
            return Ok(published(true, old.sequence, old.manifest, &accepted.head));
        }
        step(Step::Head)?;
        let head = head::sign(home, &head_key, &repository, &mut lock, |_| {})?;
        return Ok(published(true, old.sequence, old.manifest, &head));
    }

    let waiting = waiting_name(&manifest);
    let signed = sign_manifest(home, &repository, &manifest, &signers)?;
    step(Step::Manifest)?;
    let path = repository.dir.join(manifest::path(&signed.hash()));
    make_parent(&path)?;
    disk::write_atomic(&path, &signed.to_bytes())?;

    step(Step::Head)?;
    let entry = Release {
        channel: channel.clone(),
        platform: platform.clone(),
        version: what.version.clone(),
        sequence,
        manifest: signed.hash(),
        length: signed.payload().len() as u64,
        patches: None,
        rollout: what.first.map(|share| channels::first_share(signed.hash(), share)),
    };
    let head = head::sign(home, &head_key, &repository, &mut lock, |head| {
        if what.preload { channels::announce(head, entry) } else { channels::put(head, entry) }
    })?;
    waiting::done(home, &waiting)?;
    Ok(published(false, sequence, signed.hash(), &head))
}

/// A channel, or a platform of it, that is offered for the first time: it may be a slip of the pen.
fn new_place(head: Option<&Head>, channel: &Name, platform: &Name) -> Option<String> {
    let there: Vec<_> = head.into_iter().flat_map(|head| &head.releases).collect();
    let others = |names: Vec<&Name>| {
        let mut names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
        names.dedup();
        if names.is_empty() {
            "the first".to_owned()
        } else {
            format!("beside {}", names.join(", "))
        }
    };
    let platforms: Vec<_> =
        there.iter().filter(|r| r.channel == *channel).map(|release| &release.platform).collect();
    if platforms.is_empty() {
        let channels = there.iter().map(|release| &release.channel).collect();
        return Some(format!("new channel `{channel}`: {}", others(channels)));
    }
    let is_new = !platforms.contains(&platform);
    is_new.then(|| format!("new platform `{platform}` on `{channel}`: {}", others(platforms)))
}

/// Whether players will wait for a launcher that nobody has published.
fn no_launcher_for(manifest: &Manifest, head: Option<&Head>) -> Option<String> {
    let needed = manifest.minimum_launcher.as_ref()?;
    let platform = &manifest.platform;
    let fits_platform = |launcher: &&LauncherRelease| {
        *platform == Name::any_platform() || launcher.platform == *platform
    };
    let launchers: Vec<_> =
        head.into_iter().flat_map(|head| &head.launchers).filter(fits_platform).collect();
    let old = launchers.iter().filter(|l| check_launcher(manifest, l.version.as_str()).is_err());
    let old: Vec<_> = old.map(|l| format!("{} for {}", l.version, l.platform)).collect();
    let why = match (launchers.is_empty(), old.is_empty()) {
        (true, _) => "no launcher is published here".to_owned(),
        (false, false) => format!("the launchers published here are {}", old.join(", ")),
        (false, true) => return None,
    };
    Some(format!(
        "the release needs launcher {needed}, and {why}: players with an older one wait for it until \
         `updraft-publisher publish-launcher`"
    ))
}

/// Equal but for what every publishing makes new.
fn is_same_release(old: &Manifest, new: &Manifest) -> bool {
    let renumbered = Manifest { sequence: old.sequence, created: old.created, ..new.clone() };
    *old == renumbered
}

fn check_launch(what: &Publish, scan: &Scan) -> Result<(), Error> {
    match &what.launch {
        Some(launch) if !scan.files.iter().any(|file| file.path == launch.program) => {
            Err(Error::Usage(format!("--launch {}: the build has no such file", launch.program)))
        }
        _ => Ok(()),
    }
}

/// `manifest` with as many signatures as its channel asks for.
///
/// # Errors
/// Those of [`waiting::signed`].
pub(crate) fn sign_manifest(
    home: &Home,
    repository: &Repository,
    manifest: &Manifest,
    signers: &Signers,
) -> Result<Signed, Error> {
    let root = repository.trust.root().expect("an open repository has a root");
    let keys = root.roles.release.for_channel(&manifest.channel);
    let is_same =
        |old: &Manifest, new: &Manifest| is_same_release(old, new) && old.sequence == new.sequence;
    let name = waiting_name(manifest);
    waiting::signed(home, &name, manifest, is_same, signers, &[&keys], &[])
}

/// Under which name it waits for signatures.
pub(crate) fn waiting_name(manifest: &Manifest) -> String {
    format!("release-{}-{}", manifest.channel, manifest.platform)
}

/// The files of the build as its rules see them: their content does not matter.
fn listed(scan: &Scan) -> Vec<NewFile> {
    let content = |kind: &Kind| match kind {
        Kind::File { length, executable, .. } => {
            Content::File { length: *length, root: None, executable: *executable }
        }
        Kind::Symlink { target } => Content::Symlink { target: target.clone() },
    };
    let file =
        |file: &ScannedFile| NewFile { path: file.path.clone(), content: content(&file.kind) };
    scan.files.iter().map(file).collect()
}

fn make_parent(path: &Path) -> Result<(), Error> {
    path.parent().map_or(Ok(()), disk::make_folder)
}

/// The torrent's name: the product, so that a stock client finds the next release in the same place.
fn torrent_name(product: &Name, platform: &Name) -> String {
    if *platform == Name::any_platform() {
        product.to_string()
    } else {
        format!("{product}-{platform}")
    }
}

fn make_torrent(
    home: &Home,
    what: &Publish,
    scan: &Scan,
    warnings: &mut Vec<String>,
    hashed: &(dyn Fn(u64, u64) + Sync),
) -> Result<Metainfo, Error> {
    let source = Source {
        name: torrent_name(&home.config.product, &what.platform),
        single_file: false,
        files: scan.files.iter().map(source_file).collect(),
    };
    let format = what.format.unwrap_or_else(|| {
        let piece_length =
            what.piece_length.unwrap_or_else(|| choose_piece_length(&source, Format::Hybrid));
        let pad = padding(&source, piece_length);
        if pad <= PADDING_BYTES_FREE.max(scan.total / 100 * PADDING_PERCENT_MAX) {
            return Format::Hybrid;
        }
        warnings.push(format!(
            "padding would add {} to {}, so the torrent is v2-only: clients that know only v1 \
             cannot take part (--format hybrid overrides)",
            crate::output::bytes(pad),
            crate::output::bytes(scan.total)
        ));
        Format::V2
    });
    let options = Options { format, piece_length: what.piece_length, ..Options::default() };
    create(&source, &options, hashed).map_err(failed)
}

/// An error of hashing in the program's words.
pub(crate) fn failed(error: CreateError) -> Error {
    match error {
        CreateError::Io { action, path, error } => Error::Disk { action, path, source: error },
        CreateError::Changed { path } => Error::BuildChanged { path },
        CreateError::PieceLength { .. } => Error::Usage(error.to_string()),
        CreateError::Unsupported { .. } | CreateError::Empty { .. } | CreateError::Invalid(_) => {
            Error::Refused { problems: vec![error.to_string()] }
        }
    }
}

fn source_file(file: &ScannedFile) -> SourceFile {
    let components = |path: &RelPath| path.components().map(str::to_owned).collect();
    let (length, executable, symlink) = match &file.kind {
        Kind::File { length, executable, .. } => (*length, *executable, None),
        Kind::Symlink { target } => (0, false, Some(components(target))),
    };
    SourceFile {
        path: components(&file.path),
        source: file.source.clone(),
        length,
        executable,
        symlink,
    }
}

/// The files of the torrent that hold bytes, with the places they come from.
fn object_sources(metainfo: &Metainfo, scan: &Scan) -> Result<Vec<ObjectSource>, Error> {
    let scanned: HashMap<&str, &ScannedFile> =
        scan.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut sources = Vec::new();
    for entry in &metainfo.info.files {
        let Some(root) = entry.root else { continue };
        let path = entry.path.join("/");
        let file = scanned.get(path.as_str());
        let Some(ScannedFile { source, kind: Kind::File { length, modified, .. }, .. }) = file
        else {
            return Err(Error::Internal(format!("the torrent lists `{path}`, the build does not")));
        };
        sources.push(ObjectSource {
            path: source.clone(),
            length: *length,
            modified: *modified,
            root: ContentHash(root.0),
        });
    }
    Ok(sources)
}

/// Writes the .torrent file. Trackers and web seeds in it are for stock clients only, and only where
/// the repository has a public URL; launchers take sources from the head. True if it was not there as it is.
pub(crate) fn write_torrent(
    home: &Home,
    repository: &Repository,
    v2: &ContentHash,
    mut metainfo: Metainfo,
) -> Result<bool, Error> {
    let bases: Vec<Url> = home.config.urls.iter().cloned().map(as_folder).collect();
    for base in &bases {
        let sources = Sources { http: Vec::new(), trackers: home.config.trackers.clone() };
        for mut tier in sources.resolve(base).tiers() {
            tier.retain(|url| !metainfo.trackers.iter().flatten().any(|known| known == url));
            if !tier.is_empty() {
                metainfo.trackers.push(tier);
            }
        }
        metainfo.web_seeds.extend(base.join(&format!("releases/{v2}/")).ok().map(String::from));
    }
    let path = repository.torrent_path(v2);
    make_parent(&path)?;
    disk::write_if_changed(&path, &metainfo.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::init;
    use std::fs;

    struct Fixture {
        _dir: tempfile::TempDir,
        home: Home,
        build: PathBuf,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let urls = [Url::parse("http://127.0.0.1:7600/").unwrap()];
        let home = init(&dir.path().join("home"), &name("game"), &urls, None).unwrap();
        let build = dir.path().join("build");
        fs::create_dir_all(build.join("bin/empty")).unwrap();
        fs::write(build.join("bin/game"), vec![1; 100_000]).unwrap();
        fs::write(build.join("data"), vec![2; 70_000]).unwrap();
        fs::write(build.join("same"), vec![2; 70_000]).unwrap();
        fs::write(build.join("none"), "").unwrap();
        Fixture { _dir: dir, home, build }
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn what(fixture: &Fixture, version: &str) -> Publish {
        Publish::stable(&fixture.build, version)
    }

    fn run(fixture: &Fixture, what: &Publish) -> Result<Published, Error> {
        publish(&fixture.home, what, &mut |_| Ok(()), &|_, _| {})
    }

    /// The version that a launcher would see, everything behind it checked.
    fn offered(fixture: &Fixture) -> Option<String> {
        crate::verify::verify(&fixture.home.repository(), None, &mut |_| {}).unwrap();
        let repository = Repository::open(&fixture.home.repository(), None).unwrap();
        let head = repository.head(now()).unwrap()?;
        let release = head.head.release(&name("stable"), &name("any"))?;
        let manifest = repository.manifest(&head.head, release).unwrap();
        Some(manifest.version.to_string())
    }

    #[test]
    fn a_release_and_its_successor() {
        let f = fixture();
        let first = run(&f, &what(&f, "1")).unwrap();
        assert_eq!((first.sequence, first.head_sequence, first.already), (1, 1, false));
        assert_eq!(first.new_place.unwrap(), "new channel `stable`: the first");
        assert_eq!((first.files, first.bytes, first.added_bytes), (4, 240_000, 170_000));
        assert_eq!(offered(&f).unwrap(), "1");
        let again = run(&f, &what(&f, "1")).unwrap();
        assert!(again.already && again.manifest == first.manifest && again.head_sequence == 1);
        assert!(again.repaired.is_empty());
        let in_tree = |path: &str| f.home.repository().join(path);
        for lost in ["objects", "torrents"] {
            fs::remove_dir_all(in_tree(lost)).unwrap();
        }
        let again = run(&f, &what(&f, "1")).unwrap();
        assert!(again.already && again.repaired == ["objects", "torrents"], "{:?}", again.repaired);
        fs::write(f.build.join("data"), vec![3; 70_000]).unwrap();
        let second = run(&f, &what(&f, "2")).unwrap();
        assert_eq!((second.sequence, second.head_sequence), (2, 2));
        assert_eq!(second.added_bytes, 70_000);
        assert_eq!(offered(&f).unwrap(), "2");
        let mut beta = what(&f, "2");
        beta.channel = name("beta");
        assert_eq!(second.new_place, None);
        beta.minimum_launcher = Some(Version::parse("1.2.3").unwrap());
        let beta = run(&f, &beta).unwrap();
        assert_eq!(beta.new_place.unwrap(), "new channel `beta`: beside `stable`");
        assert!(beta.warnings[0].contains("needs launcher 1.2.3, and no"), "{:?}", beta.warnings);
        assert_eq!((beta.sequence, beta.v2, beta.added_bytes), (1, second.v2, 0));
    }

    #[test]
    fn a_damaged_object_is_not_blamed_on_its_packs() {
        let f = fixture();
        run(&f, &what(&f, "1")).unwrap();
        assert!(fs::read_dir(f.home.repository().join("packs")).unwrap().count() > 0);
        let objects = fs::read_dir(f.home.repository().join("objects")).unwrap();
        let object = objects.flatten().next().unwrap().path();
        let mut bytes = fs::read(&object).unwrap();
        bytes[0] ^= 1;
        fs::write(&object, bytes).unwrap();
        let mut faults = vec![];
        let check = |faults: &mut Vec<String>| {
            crate::verify::verify(&f.home.repository(), None, &mut |fault| faults.push(fault))
        };
        check(&mut faults).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains("objects"), "{faults:?}");
        // What is advised mends it.
        fs::remove_file(&object).unwrap();
        assert_eq!(run(&f, &what(&f, "1")).unwrap().repaired, ["objects"]);
        check(&mut faults).unwrap();
    }

    #[test]
    fn same_input_same_bytes() {
        let f = fixture();
        let mut what = what(&f, "1");
        what.created = Some(Time::from_unix(1_700_000_000));
        let one = run(&f, &what).unwrap();
        fs::remove_dir_all(f.home.repository().join("objects")).unwrap();
        fs::remove_file(f.home.dir.join("last-head.toml")).unwrap();
        for name in ["head.toml", &manifest::path(&one.manifest), &manifest::torrent_path(&one.v2)]
        {
            fs::remove_file(f.home.repository().join(name)).unwrap();
        }
        let two = run(&f, &what).unwrap();
        assert_eq!((one.manifest, one.v2, one.v1), (two.manifest, two.v2, two.v1));
    }

    #[test]
    fn stopped_at_every_step_and_run_again() {
        let f = fixture();
        run(&f, &what(&f, "1")).unwrap();
        let mut stop_at = 0;
        loop {
            fs::write(f.build.join("data"), format!("{stop_at}").repeat(20_000)).unwrap();
            let version = format!("2.{stop_at}");
            let before = offered(&f);
            let mut left = stop_at;
            let stopped = publish(
                &f.home,
                &what(&f, &version),
                &mut |_| {
                    if left == 0 {
                        return Err(Error::Stopped);
                    }
                    left -= 1;
                    Ok(())
                },
                &|_, _| {},
            );
            match stopped {
                Ok(_) => break,
                Err(Error::Stopped) => assert_eq!(offered(&f), before, "step {stop_at}"),
                Err(other) => panic!("{other}"),
            }
            run(&f, &what(&f, &version)).unwrap();
            assert_eq!(offered(&f).unwrap(), version, "after step {stop_at}");
            stop_at += 1;
        }
        let objects = fs::read_dir(f.home.repository().join("objects")).unwrap();
        let unfinished = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
        assert!(!objects.flatten().any(|entry| unfinished(&entry.file_name())));
        // Hash, Index, an object for each of three files with bytes, Objects, Packs, Torrent, Manifest, Head.
        assert_eq!(stop_at, 10);
    }

    #[test]
    fn rules_are_signed_and_their_contradictions_refused() {
        let mut f = fixture();
        let manifest = |f: &Fixture| {
            let repository = Repository::open(&f.home.repository(), None).unwrap();
            let head = repository.head(now()).unwrap().unwrap();
            let release = head.head.release(&name("stable"), &name("any")).unwrap().clone();
            repository.manifest(&head.head, &release).unwrap().into_inner()
        };
        run(&f, &what(&f, "1")).unwrap();
        assert_eq!(manifest(&f).format, 1);
        f.home.config.files =
            toml::from_str("config = [\"data\", \"*.ini\"]\nowned = [\"saves\"]").unwrap();
        let ruled = run(&f, &what(&f, "1")).unwrap();
        assert!(!ruled.already, "other rules make another release");
        assert_eq!(ruled.warnings.len(), 1, "{:?}", ruled.warnings);
        assert!(ruled.warnings[0].contains("`*.ini`"), "{:?}", ruled.warnings);
        let signed = manifest(&f);
        assert_eq!((signed.format, &signed.rules), (2, &f.home.config.files));
        assert!(run(&f, &what(&f, "1")).unwrap().already);
        fs::create_dir_all(f.build.join("saves/deep")).unwrap();
        fs::write(f.build.join("saves/deep/slot"), "x").unwrap();
        let error = run(&f, &what(&f, "2")).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::REFUSED);
        assert!(error.to_string().contains("`saves/deep/slot` in folders that"), "{error}");
    }

    #[test]
    fn errors_name_what_is_missing() {
        let f = fixture();
        let check = |error: Error, code: u8, text: &str| {
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        };
        let mut missing = what(&f, "1");
        missing.build = f.build.join("no");
        check(run(&f, &missing).unwrap_err(), crate::exit::DISK, "no");
        let mut launch = what(&f, "1");
        launch.launch =
            Some(Launch { program: RelPath::parse("nothing").unwrap(), arguments: vec![] });
        check(run(&f, &launch).unwrap_err(), crate::exit::USAGE, "nothing");
        fs::rename(f.home.key_path(Role::Release), f.build.join("../release")).unwrap();
        check(run(&f, &what(&f, "1")).unwrap_err(), crate::exit::WAITING, "release-stable-any");
        // A key that the root does not know.
        let foreign = updraft_manifests::keys::SecretKey::from_random(Role::Release, [5; 32]);
        fs::write(f.home.key_path(Role::Release), foreign.to_text()).unwrap();
        check(run(&f, &what(&f, "1")).unwrap_err(), crate::exit::KEY, "init");
        assert_eq!(offered(&f), None);
    }
}
