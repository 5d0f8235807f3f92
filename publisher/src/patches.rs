//! Patches of published releases: made when the release is live already, offered one by one.
//!
//! A patch is made and compared in the publisher's own folder, without the repository's lock, because
//! it takes minutes. Then it is added like a release: content, torrent, patch list, and the head last.
//! Whatever is killed when, the head names a list of whole patches, and the next run goes on: what lies
//! made in the work folder is compared again and used.

use crate::home::Home;
use crate::lock::{RepositoryLock, lock_file};
use crate::objects::{Objects, Source as ObjectSource};
use crate::patch::{Options, Side, compare, make};
use crate::publish::{failed, write_torrent};
use crate::repository::{Repository, now};
use crate::{Error, base, disk, head, torrent, torrent_deltas};
use std::collections::HashSet;
use std::path::Path;
use updraft_manifests::document::{FORMAT, Signed, Verified};
use updraft_manifests::hash::{ContentHash, V1Hash};
use updraft_manifests::head::{Head, Release};
use updraft_manifests::keys::{Role, SecretKey};
use updraft_manifests::manifest::Manifest;
use updraft_manifests::names::Version;
use updraft_manifests::patch::{MEMORY_MAX, Patch, VERSION};
use updraft_manifests::patchlist::{LIST_BYTES_MAX, OFFERS_MAX, Offer, PatchList, PatchListRef};
use updraft_protocol::io::create::{create, scan};
use updraft_protocol::metainfo::Info;
use updraft_protocol::metainfo::create::{Format, Options as TorrentOptions};

/// Patches per release, if the configuration does not say.
pub const PATCHES_DEFAULT: u16 = 3;
/// Manifests looked at to find the releases before.
const MANIFESTS_MAX: usize = 1 << 16;
/// A patch is offered if it is at most so many tenths of what it makes: a smaller saving is not worth the
/// room on the server, and the reading of all old files.
const TENTHS_MAX: u64 = 9;
/// The folder, beside the configuration, where patches are made.
const WORK_FOLDER: &str = "patches";

/// A patch that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The version that it starts from.
    pub from: Version,
    /// The version that it leads to.
    pub to: Version,
    /// Bytes of the patch.
    pub size: u64,
    /// Bytes of what it makes.
    pub makes: u64,
    /// The v2 info-hash of its torrent, which the head offers from now on. `None` if it is not offered,
    /// because it saves too little.
    pub v2: Option<ContentHash>,
}

/// What is about to be done. The callback of [`offer`] may refuse to go on, which leaves all as a kill
/// at that instant would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchStep {
    /// The differences between torrents are written next.
    Torrents,
    /// A patch is made next.
    Make,
    /// It is applied and compared next.
    Compare,
    /// Its content is stored next.
    Object,
    /// Its torrent is written next.
    Torrent,
    /// A patch list is written next.
    List,
    /// The head is written next: what the list names is offered.
    Head,
}

/// Makes the patches to the release of `manifest`, from the last releases before, and offers each as soon as it is
/// done. `told` hears of each. Nothing is done for a release that the head names no more.
///
/// # Errors
/// [`Error`]; the release itself, and patches offered before, stay as they are.
pub fn offer(
    home: &Home,
    manifest: &ContentHash,
    memory: Option<u64>,
    step: &mut dyn FnMut(PatchStep) -> Result<(), Error>,
    told: &mut dyn FnMut(&Made),
) -> Result<(), Error> {
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    let Some((head, entry)) = entry(&repository, manifest)? else { return Ok(()) };
    let newest = repository.manifest(&head, &entry)?;
    let wanted = usize::from(home.config.patches);
    // Little and soon made: also for who wants no patches.
    let torrents = releases_before(&repository, &newest, wanted.max(PATCHES_DEFAULT.into()))?;
    if torrents.is_empty() {
        return Ok(());
    }
    offer_torrents(home, &newest, &torrents, step)?;
    let before = &torrents[..wanted.min(torrents.len())];
    if before.is_empty() {
        return Ok(());
    }
    let work = home.dir.join(WORK_FOLDER);
    disk::make_folder(&work)?;
    let _alone = lock_file(&work.join(".lock"))?;
    let newest_info = info(&repository, &newest)?;
    let known = list(&repository, &entry, &newest);
    let offered = |from: &Manifest| {
        known.patches.iter().any(|offer| {
            let object = repository.object_path(&offer.root, offer.size);
            let torrent = torrent::read(&repository.torrent_path(&offer.v2));
            offer.from == from.torrent.v2
                && object.is_file()
                && torrent.is_ok_and(|torrent| is_torrent_of(&torrent.info, offer))
        })
    };
    let to = Side::of_release(&repository, &newest_info)?;
    for from in before.iter().filter(|from| !offered(from)) {
        let path = work.join(file_name(&newest, from));
        let old = Side::of_release(&repository, &info(&repository, from)?)?;
        let patch = made(&old, &to, memory, &path, step)?;
        let size = std::fs::metadata(&path).map_err(Error::disk("read", &path))?.len();
        let makes = patch.outputs.iter().map(|output| output.length).sum();
        let (is_useful, mut v2) = (size.saturating_mul(10) <= makes * TENTHS_MAX, None);
        if is_useful {
            v2 = add(home, &newest, before, from, &path, &patch, step)?.map(|offer| offer.v2);
        }
        if !is_useful || v2.is_some() {
            let (from, to) = (from.version.clone(), newest.version.clone());
            told(&Made { from, to, size, makes, v2 });
        }
        std::fs::remove_file(&path).map_err(Error::disk("remove", &path))?;
    }
    Ok(())
}

/// What the head says of a release, if it still names it.
fn entry(
    repository: &Repository,
    manifest: &ContentHash,
) -> Result<Option<(Verified<Head>, Release)>, Error> {
    let Some(accepted) = repository.head(now())? else { return Ok(None) };
    let found = accepted.head.named().find(|release| release.manifest == *manifest).cloned();
    Ok(found.map(|entry| (accepted.head, entry)))
}

/// The last `count` releases of the channel before `newest` with other content, the last first. Manifests
/// that were never validly signed, and those without their torrent, count for nothing. Keys that were replaced
/// since do count: players have those releases, and what a patch makes counts by its roots alone.
fn releases_before(
    repository: &Repository,
    newest: &Manifest,
    count: usize,
) -> Result<Vec<Verified<Manifest>>, Error> {
    let roots = repository.roots.iter().rev();
    let sets: Vec<_> = roots.map(|root| root.roles.release.for_channel(&newest.channel)).collect();
    let folder = repository.dir.join("manifests");
    let mut found: Vec<Verified<Manifest>> = Vec::new();
    for entry in
        std::fs::read_dir(&folder).map_err(Error::disk("read", &folder))?.take(MANIFESTS_MAX)
    {
        let path = entry.map_err(Error::disk("read", &folder))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let bytes = disk::read_capped(&path, Role::Release.document_bytes_max())?;
        let Ok(signed) = Signed::parse(Role::Release, &bytes) else { continue };
        let mut verified = sets.iter().map(|keys| signed.clone().verify(keys));
        let Some(manifest) = verified.find_map(Result::ok) else { continue };
        let manifest: Verified<Manifest> = manifest;
        let before = manifest.product == newest.product
            && manifest.channel == newest.channel
            && manifest.platform == newest.platform
            && manifest.sequence < newest.sequence
            && manifest.torrent.v2 != newest.torrent.v2;
        if before && repository.torrent_path(&manifest.torrent.v2).is_file() {
            found.push(manifest);
        }
    }
    found.sort_by_key(|manifest| std::cmp::Reverse(manifest.sequence));
    let mut seen = HashSet::new();
    found.retain(|manifest| seen.insert(manifest.torrent.v2));
    found.truncate(count.min(OFFERS_MAX));
    Ok(found)
}

/// The patch list that the head names, or an empty one.
fn list(repository: &Repository, entry: &Release, newest: &Manifest) -> PatchList {
    let to = newest.torrent.v2;
    let read = entry.patches.as_ref().map(|named| read_list(repository, named, &to));
    // One that is damaged is made anew.
    read.and_then(Result::ok).unwrap_or(PatchList {
        format: FORMAT,
        to,
        patches: vec![],
        torrents: vec![],
    })
}

/// The patch list `named` of the release whose torrent has the v2 info-hash `to`.
///
/// # Errors
/// [`Error::Content`] if it is not what the head names; [`Error::Disk`].
pub fn read_list(
    repository: &Repository,
    named: &PatchListRef,
    to: &ContentHash,
) -> Result<PatchList, Error> {
    let path = repository.dir.join(named.path());
    let bytes = disk::read_capped(&path, LIST_BYTES_MAX)?;
    PatchList::parse(&bytes, named, to).map_err(|error| Error::content(&path, error))
}

/// True if `info` is the torrent of the patch that `offer` names.
pub fn is_torrent_of(info: &Info, offer: &Offer) -> bool {
    let file = match info.files.as_slice() {
        [file] => Some((file.length, file.root.map(|root| root.0))),
        _ => None,
    };
    info.hashes.v2.map(|hash| hash.0) == Some(offer.v2.0)
        && info.hashes.v1.map(|hash| hash.0) == offer.v1.map(|hash| hash.0)
        && file == Some((offer.size, Some(offer.root.0)))
}

fn info(repository: &Repository, manifest: &Manifest) -> Result<Info, Error> {
    Ok(torrent::read(&repository.torrent_path(&manifest.torrent.v2))?.info)
}

/// The patch's name, for stock clients too: by content, since versions may be called anything.
fn file_name(newest: &Manifest, from: &Manifest) -> String {
    let short = |manifest: &Manifest| manifest.torrent.v2.to_string()[..16].to_owned();
    format!("{}-{}-{}.patch", newest.product, short(from), short(newest))
}

/// Makes the patch at `path`, or takes the one that an earlier run left there; compared in any case.
fn made(
    old: &Side,
    new: &Side,
    memory: Option<u64>,
    path: &Path,
    step: &mut dyn FnMut(PatchStep) -> Result<(), Error>,
) -> Result<Patch, Error> {
    let patch = match crate::patch::open(path) {
        Ok(patch) if compare(path, old, new).is_ok() => return Ok(patch),
        Ok(_) | Err(_) => {
            step(PatchStep::Make)?;
            make(old, new, None, &Options::new(memory), path)?.patch
        }
    };
    step(PatchStep::Compare)?;
    compare(path, old, new)?;
    Ok(patch)
}

/// Adds the patch at `path` to the repository and to the list that the head names. `None` if the
/// channel has moved on in the meantime.
fn add(
    home: &Home,
    newest: &Verified<Manifest>,
    before: &[Verified<Manifest>],
    from: &Manifest,
    path: &Path,
    patch: &Patch,
    step: &mut dyn FnMut(PatchStep) -> Result<(), Error>,
) -> Result<Option<Offer>, Error> {
    let head_key = home.key(Role::Head)?;
    let source = scan(path).map_err(failed)?;
    let options = TorrentOptions { format: Format::Hybrid, ..TorrentOptions::default() };
    let metainfo = create(&source, &options, &|_, _| {}).map_err(failed)?;
    let (Some(v2), [file]) = (metainfo.info.hashes.v2, metainfo.info.files.as_slice()) else {
        return Err(Error::Internal("the torrent of a patch is not of one file".into()));
    };
    let root = file.root.ok_or_else(|| Error::Internal("a patch has no root".into()))?;
    let offer = Offer {
        from: from.torrent.v2,
        version: VERSION,
        features: patch.features(),
        size: file.length,
        makes: patch.outputs.iter().map(|output| output.length).sum(),
        memory: MEMORY_MAX,
        root: ContentHash(root.0),
        v2: ContentHash(v2.0),
        v1: metainfo.info.hashes.v1.map(|hash| V1Hash(hash.0)),
    };

    let (mut lock, repository) = base::begin_here(home)?;
    let Some((_, entry)) = entry(&repository, &newest.hash())? else { return Ok(None) };
    step(PatchStep::Object)?;
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let mut objects = Objects::open(&repository.dir)?;
    let (path, length) = (path.to_path_buf(), offer.size);
    objects.add(&ObjectSource { path, length, modified, root: offer.root })?;
    objects.finish()?;
    step(PatchStep::Torrent)?;
    write_torrent(home, &repository, &offer.v2, metainfo)?;

    let place = |offer: &Offer| before.iter().position(|m| m.torrent.v2 == offer.from);
    let mut list = list(&repository, &entry, newest);
    list.patches.retain(|known| known.from != offer.from && place(known).is_some());
    list.patches.push(offer.clone());
    list.patches.sort_by_key(place);
    publish_list(home, &head_key, &repository, &mut lock, newest, &list, step)?;
    Ok(Some(offer))
}

/// Offers the torrent of `newest` as differences to those of `before`, unless that is done already.
fn offer_torrents(
    home: &Home,
    newest: &Verified<Manifest>,
    before: &[Verified<Manifest>],
    step: &mut dyn FnMut(PatchStep) -> Result<(), Error>,
) -> Result<(), Error> {
    let head_key = home.key(Role::Head)?;
    let (mut lock, repository) = base::begin_here(home)?;
    let Some((_, entry)) = entry(&repository, &newest.hash())? else { return Ok(()) };
    let list = list(&repository, &entry, newest);
    let offered = list.torrents.iter().filter(|delta| repository.dir.join(delta.path()).is_file());
    let is_done = offered.map(|delta| delta.from).eq(before.iter().map(|from| from.torrent.v2));
    if is_done {
        return Ok(());
    }
    step(PatchStep::Torrents)?;
    let list = PatchList { torrents: torrent_deltas::write(&repository, newest, before)?, ..list };
    publish_list(home, &head_key, &repository, &mut lock, newest, &list, step)
}

/// Writes the patch list of `newest`, and the head that names it.
fn publish_list(
    home: &Home,
    head_key: &SecretKey,
    repository: &Repository,
    lock: &mut RepositoryLock,
    newest: &Verified<Manifest>,
    list: &PatchList,
    step: &mut dyn FnMut(PatchStep) -> Result<(), Error>,
) -> Result<(), Error> {
    let (bytes, list_ref) = list.encode();
    let path = repository.dir.join(list_ref.path());
    step(PatchStep::List)?;
    disk::make_folder(&repository.dir.join("patchlists"))?;
    disk::write_if_changed(&path, &bytes)?;
    step(PatchStep::Head)?;
    head::sign(home, head_key, repository, lock, |head| {
        let named = head.releases.iter_mut().chain(&mut head.preloads);
        for entry in named.filter(|entry| entry.manifest == newest.hash()) {
            entry.patches = Some(list_ref);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::init;
    use crate::publish::{Publish, publish};
    use crate::verify::verify;
    use std::fs;
    use updraft_manifests::names::Name;
    use updraft_manifests::time::Time;

    struct Fixture {
        dir: tempfile::TempDir,
        home: Home,
    }

    impl Fixture {
        /// Publishes a build of one file with this content, and one with the version.
        fn publish(&self, release: u8, content: &[u8]) {
            let build = self.dir.path().join("build");
            fs::create_dir_all(&build).unwrap();
            fs::write(build.join("data"), content).unwrap();
            fs::write(build.join("version"), [release]).unwrap();
            let what = Publish {
                created: Some(Time::from_unix(1_800_000_000)),
                ..Publish::stable(&build, &release.to_string())
            };
            publish(&self.home, &what, &mut |_| Ok(()), &|_, _| {}).unwrap();
        }
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// A product with releases 1, 2… whose one large file grows.
    fn fixture(releases: u8) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let home = init(&dir.path().join("home"), &name("game"), &[], None).unwrap();
        let fixture = Fixture { dir, home };
        for release in 1..=releases {
            let content: Vec<u8> = (0..100_000_u32)
                .flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes())
                .chain([release; 10])
                .collect();
            fixture.publish(release, &content);
        }
        fixture
    }

    /// The manifest that the channel points at.
    fn current(home: &Home) -> ContentHash {
        let repository = Repository::open(&home.repository(), None).unwrap();
        let head = repository.head(now()).unwrap().unwrap().head;
        head.release(&name("stable"), &Name::any_platform()).unwrap().manifest
    }

    /// Runs [`offer`], stopped before step `stop` if that comes; says what was offered and whether it
    /// went to the end.
    fn run(home: &Home, stop: usize) -> (Vec<Made>, bool) {
        let (mut steps, mut offered) = (0, vec![]);
        let mut step = |_| {
            steps += 1;
            if steps > stop { Err(Error::Stopped) } else { Ok(()) }
        };
        let told = &mut |one: &Made| offered.push(one.clone());
        let ended = offer(home, &current(home), None, &mut step, told).is_ok();
        (offered, ended)
    }

    fn offers(home: &Home) -> Vec<Offer> {
        let repository = Repository::open(&home.repository(), None).unwrap();
        let (head, entry) = entry(&repository, &current(home)).unwrap().unwrap();
        let newest = repository.manifest(&head, &entry).unwrap();
        list(&repository, &entry, &newest).patches
    }

    #[test]
    fn patches_from_the_last_releases() {
        let fixture = fixture(5);
        let (offered, ended) = run(&fixture.home, usize::MAX);
        let from: Vec<_> = offered.iter().map(|offered| offered.from.to_string()).collect();
        assert_eq!((from.join(" ").as_str(), ended), ("4 3 2", true));
        assert!(offered.iter().all(|offered| offered.size < 1000 && offered.makes > 400_000));
        assert_eq!(offers(&fixture.home).len(), 3);
        verify(&fixture.home.repository(), None, &mut |fault| panic!("{fault}")).unwrap();
        assert_eq!(run(&fixture.home, 0), (vec![], true), "a second run has nothing to do");
    }

    #[test]
    fn releases_from_before_a_change_of_keys_get_patches() {
        let fixture = fixture(3);
        crate::keys::rotate(&fixture.home, &[Role::Release], &[], false).unwrap();
        fixture.publish(4, &[7; 300_000]);
        let (made, _) = run(&fixture.home, usize::MAX);
        let from: Vec<_> = made.iter().map(|made| made.from.to_string()).collect();
        assert_eq!(from, ["3", "2", "1"]);
    }

    #[test]
    fn a_lost_torrent_of_a_patch_comes_back() {
        let fixture = fixture(2);
        run(&fixture.home, usize::MAX);
        let before = offers(&fixture.home);
        let repository = Repository::open(&fixture.home.repository(), None).unwrap();
        let torrent = repository.torrent_path(&before[0].v2);
        fs::remove_file(&torrent).unwrap();
        assert!(run(&fixture.home, usize::MAX).1);
        assert!(torrent.is_file());
        assert_eq!(offers(&fixture.home), before);
        verify(&repository.dir, None, &mut |fault| panic!("{fault}")).unwrap();
    }

    #[test]
    fn a_patch_that_saves_nothing_is_not_offered() {
        let fixture = fixture(1);
        fixture.publish(2, &crate::patch::tests::noise(1, 5000));
        let (made, ended) = run(&fixture.home, usize::MAX);
        assert_eq!((made.len(), made[0].v2, ended), (1, None, true));
        assert_eq!(offers(&fixture.home), []);
    }

    #[test]
    fn none_when_none_are_wanted_or_there_is_nothing_before() {
        assert_eq!(run(&fixture(1).home, 0), (vec![], true));
        let mut fixture = fixture(2);
        fixture.home.config.patches = 0;
        assert_eq!(run(&fixture.home, 3), (vec![], true), "torrents, list, head");
        assert_eq!(offers(&fixture.home), []);
    }

    /// Stopped at any step: the head names whole patches, and the next run comes to the same bytes.
    #[test]
    fn stopped_anywhere() {
        let whole = fixture(2);
        run(&whole.home, usize::MAX);
        let expected = offers(&whole.home);
        for stop in 0.. {
            let fixture = fixture(2);
            let (_, ended) = run(&fixture.home, stop);
            if ended {
                assert!(stop >= 6, "it has six steps");
                break;
            }
            assert_eq!(offers(&fixture.home), []);
            verify(&fixture.home.repository(), None, &mut |fault| panic!("{fault}")).unwrap();
            assert!(run(&fixture.home, usize::MAX).1);
            assert_eq!(offers(&fixture.home), expected, "stopped before step {stop}");
        }
    }

    #[test]
    fn damage_is_found() {
        let fixture = fixture(2);
        run(&fixture.home, usize::MAX);
        let offer = &offers(&fixture.home)[0];
        let repository = fixture.home.repository();
        let object = repository.join(format!("objects/{}-{}", offer.root, offer.size));
        let mut bytes = fs::read(&object).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&object, bytes).unwrap();
        let mut faults = vec![];
        assert!(verify(&repository, None, &mut |fault| faults.push(fault)).is_err());
        assert!(faults.iter().any(|fault| fault.contains("the patch to stable 2")), "{faults:?}");
        let deltas = repository.join("deltas");
        let delta = fs::read_dir(&deltas).unwrap().next().unwrap().unwrap().path();
        fs::write(&delta, b"damaged").unwrap();
        let mut faults = vec![];
        assert!(verify(&repository, None, &mut |fault| faults.push(fault)).is_err());
        assert!(faults.iter().any(|fault| fault.contains("deltas")), "{faults:?}");
    }
}
