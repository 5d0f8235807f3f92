//! What a signing run builds on: the newest head, wherever it is.
//!
//! Numbers of heads and releases that players have seen must never be given again, or players stop for good. The
//! tree alone cannot tell: it may come from a backup, or another machine may have signed meanwhile and serve
//! that. So the publisher's folder keeps the last head that was signed here, and before anything is signed the
//! head is asked for where players reach it. What is newest goes on; where two heads each offer what the other
//! does not, nothing is signed.

use crate::home::Home;
use crate::lock::RepositoryLock;
use crate::output::Output;
use crate::repository::{Repository, now};
use crate::{Error, disk};
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use updraft_manifests::document::{Signed, Verified};
use updraft_manifests::head::{HEAD_PATH, Head, Release, as_folder};
use updraft_manifests::keys::Role;
use updraft_protocol::io::webseed::http_client;
use url::Url;

/// The last head that was signed here, in the publisher's folder.
const LAST_HEAD: &str = "last-head.toml";
/// How long the configured URLs may take to tell their head.
const SERVED_WAIT: Duration = Duration::from_secs(4);

/// Takes the repository for signing, with the newest head in its place: of the tree, of what was signed here, and
/// of what the configured URLs serve, if they answer within seconds.
///
/// # Errors
/// [`Error::Busy`]; [`Error::Content`] saying what does not fit together, and what to do.
pub fn begin(home: &Home) -> Result<(RepositoryLock, Repository), Error> {
    start(home, served(home))
}

/// As [`begin`], without asking any URL: for who serves the tree, and for the later steps of a run.
///
/// # Errors
/// As [`begin`].
pub fn begin_here(home: &Home) -> Result<(RepositoryLock, Repository), Error> {
    start(home, Vec::new())
}

fn start(home: &Home, served: Vec<(Url, Vec<u8>)>) -> Result<(RepositoryLock, Repository), Error> {
    let mut lock = home.lock()?;
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    lock.head_floor = settle(home, &repository, &mut lock, served)?;
    Ok((lock, repository))
}

/// Keeps in mind the head that was just written.
///
/// # Errors
/// [`Error::Disk`].
pub fn remember(home: &Home, head: &[u8]) -> Result<(), Error> {
    disk::write_atomic(&last_head(home), head)
}

/// Why players may not take what the tree at hand offers, if so: its head is gone, or older than what was signed
/// here.
///
/// # Errors
/// [`Error::Content`] for documents that do not verify; [`Error::Disk`].
pub fn behind(home: &Home, repository: &Repository) -> Result<Option<String>, Error> {
    let here = repository.head(now())?.map_or(0, |accepted| accepted.head.sequence);
    let Some(last) = last(home, repository)? else { return Ok(None) };
    let path = repository.dir.join(HEAD_PATH);
    Ok((here < last.head.sequence).then(|| {
        format!(
            "{}: head {} was signed here, and this is {}: players that have seen it take nothing older. \
             Run `updraft-publisher head`, or bring the newer tree back",
            path.display(),
            last.head.sequence,
            if here == 0 { "gone".to_owned() } else { format!("head {here}") }
        )
    }))
}

struct Known {
    place: String,
    bytes: Vec<u8>,
    head: Verified<Head>,
}

fn last_head(home: &Home) -> PathBuf {
    home.dir.join(LAST_HEAD)
}

fn last(home: &Home, repository: &Repository) -> Result<Option<Known>, Error> {
    let path = last_head(home);
    let Some(bytes) = disk::read_if_there(&path, Role::Head.document_bytes_max())? else {
        return Ok(None);
    };
    known(repository, path.display().to_string(), bytes).map(Some).map_err(|why| {
        Error::content(
            &path,
            format!(
                "this head was signed here, but the roots in {} do not vouch for it ({why}): bring back the \
                 newest files of its folder root; if another product was here, remove this file",
                repository.dir.display()
            ),
        )
    })
}

fn known(repository: &Repository, place: String, bytes: Vec<u8>) -> Result<Known, String> {
    let (_, accepted) =
        repository.trust.accept_head(&bytes, now()).map_err(|error| error.to_string())?;
    Ok(Known { place, bytes, head: accepted.head })
}

/// Puts the newest head in its place, and says which number the next one has to be above.
fn settle(
    home: &Home,
    repository: &Repository,
    lock: &mut RepositoryLock,
    served: Vec<(Url, Vec<u8>)>,
) -> Result<u64, Error> {
    let path = repository.dir.join(HEAD_PATH);
    let local = disk::read_if_there(&path, Role::Head.document_bytes_max())?;
    let local = local.map(|bytes| known(repository, path.display().to_string(), bytes));
    let local = local.transpose().map_err(|why| Error::content(&path, why))?;
    let in_place = local.as_ref().map(|known| known.head.hash());

    let own = match (local, last(home, repository)?) {
        (None, last) => last,
        (Some(local), Some(last)) if last.head.sequence > local.head.sequence => Some(last),
        (Some(local), Some(last)) if last.head.sequence == local.head.sequence => {
            Some(both(repository, local, last)?)
        }
        (local, _) => local,
    };
    if let Some(own) = own.as_ref().filter(|own| in_place != Some(own.head.hash())) {
        Output::new(false).warn(format!(
            "the tree was older than head {}, which was signed here, and goes on from there{}",
            own.head.sequence,
            match missing(repository, &own.head) {
                Some(what) =>
                    format!(": {what} is not here any more and has to be published again"),
                None => String::new(),
            }
        ));
    }
    let mut floor = own.as_ref().map_or(0, |own| own.head.sequence);
    let served = served.into_iter().filter_map(|(url, bytes)| {
        // Anybody may answer at a URL: what no root vouches for is nothing.
        known(repository, url.to_string(), bytes).ok()
    });
    let newest = served.max_by_key(|known| known.head.sequence);
    let base = match (own, newest) {
        (Some(own), Some(newest)) if own.head.hash() == newest.head.hash() => Some(own),
        (Some(own), Some(newest)) if newest.head.sequence >= floor => {
            floor = newest.head.sequence;
            let there = newest.head.hash();
            let base = both(repository, own, newest)?;
            Some(if base.head.hash() == there { refuse_missing(repository, base)? } else { base })
        }
        (None, Some(newest)) => {
            floor = newest.head.sequence;
            Some(refuse_missing(repository, newest)?)
        }
        (own, _) => own,
    };
    if let Some(base) = base.filter(|base| in_place != Some(base.head.hash())) {
        lock.put_head(&base.bytes)?;
    }
    Ok(floor)
}

/// The one that offers all that the other does.
fn both(repository: &Repository, here: Known, there: Known) -> Result<Known, Error> {
    if here.head.hash() == there.head.hash() {
        return Ok(here);
    }
    let Some(unknown_there) = lacks(&there.head, &here.head) else { return Ok(there) };
    let Some(unknown_here) = lacks(&here.head, &there.head) else { return Ok(here) };
    Err(Error::content(
        &repository.dir,
        format!(
            "two machines have signed heads: {} has number {} and not {unknown_there}; {} has number {} and not \
             {unknown_here}. Nothing was signed: copy the tree that players get over this one, and do again \
             what was only done here",
            there.place, there.head.sequence, here.place, here.head.sequence
        ),
    ))
}

/// What is served was published elsewhere, unless all of it is here.
fn refuse_missing(repository: &Repository, base: Known) -> Result<Known, Error> {
    match missing(repository, &base.head) {
        None => Ok(base),
        Some(what) => Err(Error::content(
            &repository.dir,
            format!(
                "{} serves head {}, which offers {what}, and that is not here. Nothing was signed: copy the tree \
                 from there first",
                base.place, base.head.sequence
            ),
        )),
    }
}

/// A release of `head` whose documents the tree lacks.
fn missing(repository: &Repository, head: &Verified<Head>) -> Option<String> {
    let is_missing = |release: &&Release| {
        repository
            .manifest(head, release)
            .map_or(true, |manifest| !repository.torrent_path(&manifest.torrent.v2).is_file())
    };
    let release = head.named().find(is_missing).map(told);
    release.or_else(|| {
        let launcher = head.launchers.iter().find(|l| repository.launcher(head, l).is_err())?;
        Some(format!("launcher {} for {}", launcher.version, launcher.platform))
    })
}

fn told(release: &Release) -> String {
    format!("{} on `{}` ({})", release.version, release.channel, release.platform)
}

/// What `old` says and `new` neither says nor has overtaken.
fn lacks(new: &Head, old: &Head) -> Option<String> {
    let release = old.releases.iter().find(|release| {
        let there = new.releases.iter().find(|there| there.is_in_place_of(release));
        there.is_none_or(|there| {
            there.sequence < release.sequence
                || there.sequence == release.sequence
                    && (there.manifest != release.manifest || there.rollout != release.rollout)
        })
    });
    if let Some(release) = release {
        return Some(format!("{} as it is offered there", told(release)));
    }
    let preload = old.preloads.iter().find(|preload| {
        !new.named().any(|there| {
            there.is_in_place_of(preload)
                && (there.sequence > preload.sequence || there.manifest == preload.manifest)
        })
    });
    if let Some(preload) = preload {
        return Some(format!("the announced {}", told(preload)));
    }
    let launcher = old.launchers.iter().find(|launcher| {
        let there = new.launcher(&launcher.platform);
        there.is_none_or(|there| {
            there.sequence < launcher.sequence
                || there.sequence == launcher.sequence && there.manifest != launcher.manifest
        })
    });
    if let Some(launcher) = launcher {
        return Some(format!("launcher {} for {}", launcher.version, launcher.platform));
    }
    let revoked = old.revoked.iter().find(|hash| !new.revoked.contains(hash));
    revoked.map(|hash| format!("the revocation of {hash}"))
}

/// The heads at the configured URLs, of those that answer in time.
fn served(home: &Home) -> Vec<(Url, Vec<u8>)> {
    let urls = &home.config.urls;
    if urls.is_empty() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let ask = async {
        let mut asked = JoinSet::new();
        for url in urls.iter().cloned() {
            asked.spawn(async move {
                let head = tokio::time::timeout(SERVED_WAIT, head_at(&url)).await.ok().flatten();
                head.map(|bytes| (url, bytes))
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    };
    // On a thread of its own: whoever calls may be in a runtime.
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(ask)).join().unwrap_or_default())
}

async fn head_at(url: &Url) -> Option<Vec<u8>> {
    let url = as_folder(url.clone()).join(HEAD_PATH).ok()?;
    let mut answer = http_client(None).ok()?.get(url).send().await.ok()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > Role::Head.document_bytes_max() {
            return None;
        }
    }
    Signed::parse(Role::Head, &bytes).is_ok().then_some(bytes)
}

#[cfg(test)]
mod tests;
