//! From sources to verified documents: roots, head, manifest, torrent; in this order, each stored
//! before anything is done with it.
//!
//! Sources are the feed's repositories, and, when none of them answers, other launchers. None of them
//! is believed: every document goes through [`updraft_manifests::trust`].

use crate::documents::{Documents, Kind};
use crate::error::Error;
use crate::home::install::own_version;
use crate::http::{Answer, DOCUMENT_WAIT_MAX, Http};
use crate::room::Room;
use crate::store::{State, Store};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use updraft_manifests::document::{DocumentError, Verified};
use updraft_manifests::head::{HEAD_PATH, LauncherRelease, Release as Entry};
use updraft_manifests::launcher::LauncherManifest;
use updraft_manifests::manifest::Manifest;
use updraft_manifests::rollout::Turn;
use updraft_manifests::root;
use updraft_manifests::time::Time;
use updraft_manifests::trust::{
    AcceptedHead, Freshness, ROOT_WALK_MAX, TrustError, TrustState, check_launcher,
};
use updraft_protocol::ids::PeerKey;
use url::Url;

/// Where documents come from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Asks repositories.
    pub http: &'a Http,
    /// The repositories, in the order to try.
    pub repositories: Vec<Url>,
    /// Other launchers, if there is a session.
    pub room: Option<&'a Room>,
    /// The player chose to do without the publisher's server: a room or a bundle may have old news.
    pub without_origin: bool,
    /// Counts the bytes of documents that come, but for leaf indexes.
    pub received: &'a AtomicU64,
}

/// Where one document came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// That repository.
    Repository(Url),
    /// Another launcher.
    Peer,
    /// Our own store: nobody could be asked.
    Kept,
}

/// What the sources say.
#[derive(Debug)]
pub struct News {
    /// The head.
    pub head: AcceptedHead,
    /// Where it came from.
    pub origin: Origin,
    /// The release that our channel offers.
    pub entry: Entry,
    /// What is believed now; stored.
    pub trust: TrustState,
}

impl News {
    /// True if a repository confirmed it, and it has not expired. What other players or a bundle have may be old.
    pub fn is_fresh(&self) -> bool {
        matches!(self.origin, Origin::Repository(_))
            && !self.is_from_bundle()
            && self.head.freshness == Freshness::Fresh
    }

    /// True if nobody was asked: it lay in a bundle.
    pub fn is_from_bundle(&self) -> bool {
        matches!(&self.origin, Origin::Repository(url) if url.scheme() == "file")
    }

    /// Whether the release may come to this install now.
    pub fn turn(&self, state: &State) -> Turn {
        let now = self.trust.fix_time(clock());
        let rollout = self.entry.rollout.as_ref();
        rollout.map_or(Turn::Now, |rollout| rollout.turn(&state.number.0, now))
    }

    /// The URL that the head's sources are seen from.
    pub fn base(&self, state: &State) -> Url {
        match &self.origin {
            Origin::Repository(url) => url.clone(),
            Origin::Peer | Origin::Kept => state.feed.urls[0].clone(),
        }
    }
}

/// Asks for roots and the head, and finds what our channel offers.
///
/// # Errors
/// [`Error::Network`] if nothing is known and nobody answers, [`Error::Trust`] if what is served is
/// refused.
pub async fn ask(
    store: &Store,
    documents: &Documents,
    sources: &Sources<'_>,
    state: &State,
) -> Result<News, Error> {
    let mut trust = walk_roots(store, documents, sources, store.trust(&state.feed)?).await?;
    let now = trust.fix_time(clock());
    let (mut head, origin) = newest_head(store, documents, sources, &mut trust, now).await?;
    if sources.without_origin {
        head = head.excused(now);
    }
    let entry = trust.find_release(&head.head, &state.channel, &state.platform)?.clone();
    Ok(News { head, origin, entry, trust })
}

/// The news heard last, without asking anybody.
pub fn kept(store: &Store, documents: &Documents, state: &State) -> Option<News> {
    let trust = store.trust(&state.feed).ok()?;
    let bytes = documents.read(HEAD_PATH)?;
    let (trust, head) = trust.accept_head(&bytes, trust.fix_time(clock())).ok()?;
    let entry = trust.find_release(&head.head, &state.channel, &state.platform).ok()?.clone();
    Some(News { head, origin: Origin::Kept, entry, trust })
}

/// The manifest that the news names, from the store or the sources.
///
/// # Errors
/// As [`ask`]; [`TrustError::HeadExpired`] when the head is too old to install from.
pub async fn manifest(
    store: &Store,
    documents: &Documents,
    sources: &Sources<'_>,
    news: &mut News,
) -> Result<Verified<Manifest>, Error> {
    let entry = news.entry.clone();
    let accept = |news: &News, bytes: &[u8]| news.trust.accept_manifest(&news.head, &entry, bytes);
    usable(store, documents, sources, news, accept).await
}

/// The same for news whose entry is one that the head announces for later. What is believed stays as it is.
///
/// # Errors
/// As [`manifest`].
pub async fn preload(
    store: &Store,
    documents: &Documents,
    sources: &Sources<'_>,
    news: &mut News,
) -> Result<Verified<Manifest>, Error> {
    let entry = news.entry.clone();
    let accept = |news: &News, bytes: &[u8]| {
        let manifest = news.trust.check_preload(&news.head, &entry, bytes)?;
        Ok((news.trust.clone(), manifest))
    };
    usable(store, documents, sources, news, accept).await
}

/// The manifest of the news' entry that `accept` takes, if this launcher can install it.
async fn usable(
    store: &Store,
    documents: &Documents,
    sources: &Sources<'_>,
    news: &mut News,
    accept: impl Fn(&News, &[u8]) -> Result<(TrustState, Verified<Manifest>), TrustError>,
) -> Result<Verified<Manifest>, Error> {
    let path = news.entry.manifest_path();
    let manifest = document(store, documents, sources, news, &path, accept).await?;
    check_launcher(&manifest, &own_version())?;
    Ok(manifest)
}

/// The manifest of the launcher that the news name for this platform, likewise.
///
/// # Errors
/// As [`manifest`].
pub async fn launcher(
    store: &Store,
    documents: &Documents,
    sources: &Sources<'_>,
    news: &mut News,
    entry: &LauncherRelease,
) -> Result<Verified<LauncherManifest>, Error> {
    let accept = |news: &News, bytes: &[u8]| news.trust.accept_launcher(&news.head, entry, bytes);
    document(store, documents, sources, news, &entry.manifest_path(), accept).await
}

/// The document at `path` that `accept` takes, from the store or the sources.
async fn document<T>(
    store: &Store,
    documents: &Documents,
    sources: &Sources<'_>,
    news: &mut News,
    path: &str,
    accept: impl Fn(&News, &[u8]) -> Result<(TrustState, Verified<T>), TrustError>,
) -> Result<Verified<T>, Error> {
    let mut refused = None;
    let kept = documents.read(path).map(|bytes| (bytes, Origin::Kept));
    let mut tried = kept.into_iter();
    let mut rounds = sources.rounds(path);
    loop {
        let (bytes, origin) = match tried.next() {
            Some(found) => found,
            None => match rounds.next().await {
                Some(found) => found,
                None => break,
            },
        };
        match accept(news, &bytes) {
            Ok((trust, manifest)) => {
                store.set_trust(&trust)?;
                news.trust = trust;
                if origin != Origin::Kept {
                    keep(documents, path, &manifest.to_bytes())?;
                }
                return Ok(manifest);
            }
            Err(error @ TrustError::HeadExpired(_)) => return Err(error.into()),
            Err(error) => {
                note_equivocation(store, &mut news.trust, &error, &bytes)?;
                refused = Some(error);
            }
        }
    }
    Err(refused.map_or_else(|| rounds.failure(path), Error::Trust))
}

/// The bytes at `path` for which `good` holds, from the store or the sources; kept in the store.
///
/// # Errors
/// [`Error::Network`] if no source has such bytes.
pub async fn checked<T>(
    documents: &Documents,
    sources: &Sources<'_>,
    path: &str,
    mut good: impl FnMut(&Bytes) -> Result<T, String>,
) -> Result<T, Error> {
    if let Some(value) = documents.read(path).and_then(|bytes| good(&bytes).ok()) {
        return Ok(value);
    }
    let mut rounds = sources.rounds(path);
    while let Some((bytes, _)) = rounds.next().await {
        match good(&bytes) {
            Ok(value) => {
                keep(documents, path, &bytes)?;
                return Ok(value);
            }
            Err(why) => rounds.blame(&why),
        }
    }
    Err(rounds.failure(path))
}

async fn walk_roots(
    store: &Store,
    documents: &Documents,
    sources: &Sources<'_>,
    mut trust: TrustState,
) -> Result<TrustState, Error> {
    for _ in 0..ROOT_WALK_MAX {
        let path = root::path(trust.next_root());
        let mut refused = None;
        let mut next = None;
        let mut rounds = sources.rounds(&path);
        while let Some((bytes, origin)) = rounds.next().await {
            match trust.accept_root(&bytes) {
                Ok((accepted, root)) => {
                    keep(documents, &path, &root.to_bytes())?;
                    store.set_trust(&accepted)?;
                    next = Some(accepted);
                    break;
                }
                // Anybody can make one up: it says nothing of what the others have.
                Err(error) if origin == Origin::Peer => rounds.blame(&error.to_string()),
                Err(error) => refused = Some(error),
            }
        }
        match (next, refused) {
            (Some(accepted), _) => trust = accepted,
            // Most often there is no next one, and some hosts answer that with a page of theirs.
            (None, Some(error @ TrustError::Document(DocumentError::Malformed { .. })))
                if trust.root().is_some() =>
            {
                tracing::warn!(%path, %error, "what was served for a root is none");
                return Ok(trust);
            }
            // One that lies does not spoil what the others say.
            (None, Some(error)) if trust.root().is_some() && rounds.missing => {
                tracing::warn!(%path, %error, "a source serves a root that is none");
                return Ok(trust);
            }
            (None, Some(error)) => return Err(error.into()),
            // Without the first root nothing can be verified; without a next one the walk is over.
            (None, None) if trust.root().is_none() => return Err(rounds.failure(&path)),
            (None, None) => return Ok(trust),
        }
    }
    Ok(trust)
}

async fn newest_head(
    store: &Store,
    documents: &Documents,
    sources: &Sources<'_>,
    trust: &mut TrustState,
    now: Time,
) -> Result<(AcceptedHead, Origin), Error> {
    let mut best: Option<(AcceptedHead, Origin)> = None;
    let (mut refused, mut disputed) = (None, None);
    let mut failures = Vec::new();
    // All repositories are asked: the highest head wins.
    let asked = sources.repositories.iter().map(|url| sources.ask(url, HEAD_PATH, false));
    for (url, answer) in sources.repositories.iter().zip(join_all(asked).await) {
        let origin = Origin::Repository(url.clone());
        let mut answer = answer;
        for again in [false, true] {
            if again {
                answer = sources.ask(url, HEAD_PATH, true).await;
            }
            match answer.as_ref() {
                Ok(Some(bytes)) => match accept_head(store, documents, trust, bytes, now) {
                    Ok(head) => {
                        best = Some((head, origin.clone()));
                        break;
                    }
                    // An older valid head is no news, not an attack.
                    Err(Error::Trust(TrustError::Older { .. })) => break,
                    Err(Error::Trust(error @ TrustError::Equivocation { .. })) => {
                        disputed = Some(error);
                    }
                    Err(Error::Trust(error)) => refused = Some((url.clone(), error)),
                    Err(error) => return Err(error),
                },
                Ok(None) => {
                    failures.push(format!("{url} has no {HEAD_PATH}"));
                    break;
                }
                Err(why) => {
                    failures.push(why.clone());
                    break;
                }
            }
        }
    }
    // Whatever else was served: of two heads of one number neither is used, until a higher one comes.
    if is_disputed(trust)
        && let Some(error) = disputed.take()
    {
        return Err(error.into());
    }
    if best.is_none()
        && let Some(room) = sources.room
    {
        // Whoever answers first need not have the newest.
        for (peer, bytes) in room.ask_all(HEAD_PATH).await {
            match accept_head(store, documents, trust, &bytes, now) {
                Ok(head) => {
                    room.prefer(peer.peer);
                    best = Some((head, Origin::Peer));
                }
                Err(Error::Trust(error @ TrustError::Equivocation { .. })) => {
                    (best, disputed) = (None, Some(error));
                }
                Err(Error::Trust(error)) => {
                    tracing::info!(addr = %peer.addr, %error, "a player's head is of no use");
                }
                Err(error) => return Err(error),
            }
        }
    }
    if let Some(best) = best {
        return Ok(best);
    }
    if let Some(error) = disputed.filter(|_| is_disputed(trust)) {
        return Err(error.into());
    }
    if let Some((from, error)) = refused {
        return Err(Error::Refused { from: Box::new(from), error });
    }
    let kept = documents.read(HEAD_PATH).and_then(|bytes| trust.accept_head(&bytes, now).ok());
    match kept {
        Some((_, head)) => Ok((head, Origin::Kept)),
        None => {
            let why = if failures.is_empty() {
                "every source has an older one than we have seen".to_owned()
            } else {
                failures.join("; ")
            };
            Err(Error::Network { what: HEAD_PATH.to_owned(), why })
        }
    }
}

fn is_disputed(trust: &TrustState) -> bool {
    trust.head_floor().is_some_and(|floor| floor.disputed)
}

fn accept_head(
    store: &Store,
    documents: &Documents,
    trust: &mut TrustState,
    bytes: &[u8],
    now: Time,
) -> Result<AcceptedHead, Error> {
    match trust.accept_head(bytes, now) {
        Ok((next, head)) => {
            store.set_trust(&next)?;
            *trust = next;
            keep(documents, HEAD_PATH, &head.head.to_bytes())?;
            Ok(head)
        }
        Err(error) => {
            note_equivocation(store, trust, &error, bytes)?;
            Err(error.into())
        }
    }
}

fn note_equivocation(
    store: &Store,
    trust: &mut TrustState,
    error: &TrustError,
    bytes: &[u8],
) -> Result<(), Error> {
    if let TrustError::Equivocation { state, .. } = error {
        store.keep_evidence(bytes);
        store.set_trust(state)?;
        *trust = (**state).clone();
    }
    Ok(())
}

/// Keeps a verified document at its `path`.
///
/// # Errors
/// From the file system.
pub fn keep(documents: &Documents, path: &str, bytes: &[u8]) -> Result<(), Error> {
    documents.write(path, bytes).map_err(Error::disk("keep the document", path))
}

/// What the system's clock says, but never earlier than this program was built: an install that remembers nothing, with a
/// clock that was set back, would take any old head for news.
pub fn clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    no_earlier_than_built(since.as_secs())
}

fn no_earlier_than_built(seconds: u64) -> Time {
    let built = env!("UPDRAFT_BUILT").parse().unwrap_or(0);
    Time::from_unix(seconds.max(built))
}

impl<'a> Sources<'a> {
    /// One document from one repository: `None` if it is not there.
    async fn ask(
        &self,
        repository: &Url,
        path: &str,
        past_caches: bool,
    ) -> Result<Option<Bytes>, String> {
        let kind = Kind::of(path).ok_or_else(|| format!("{path} is no document"))?;
        let url = repository.join(path).map_err(|error| format!("{repository}: {error}"))?;
        let get = async {
            let get = self.http.get(&url, kind.bytes_max(), past_caches);
            if kind == Kind::Torrent {
                return get.await;
            }
            let answer = tokio::time::timeout(DOCUMENT_WAIT_MAX, get).await;
            answer.unwrap_or_else(|_| Err("it took too long".to_owned()))
        };
        let answer = tokio::select! {
            answer = get => answer,
            why = self.others_are_nearer(&url) => Err(why),
        };
        match answer {
            Ok(Answer::Found(bytes)) => {
                self.count(kind, &bytes);
                Ok(Some(bytes))
            }
            Ok(Answer::Missing) => Ok(None),
            Err(why) => Err(format!("{url}: {why}")),
        }
    }

    /// Returns when somebody is in the room and the host of `url` still takes no connection: a room without
    /// internet shall not wait for one.
    async fn others_are_nearer(&self, url: &Url) -> String {
        match self.room {
            Some(room) => room.somebody().await,
            None => std::future::pending().await,
        }
        self.http.cannot_connect(url).await
    }

    fn count(&self, kind: Kind, bytes: &Bytes) {
        if kind != Kind::Index {
            self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }

    /// A range of a large side file of `length` bytes, from the first repository that has it.
    pub async fn range(&self, path: &str, range: Range<u64>, length: u64) -> Result<Bytes, Error> {
        let mut failures = Vec::new();
        for repository in &self.repositories {
            let Ok(url) = repository.join(path) else { continue };
            let get = self.http.get_range(&url, range.clone(), length);
            match get.await {
                Ok(bytes) => return Ok(bytes),
                Err(why) => failures.push(format!("{url}: {why}")),
            }
        }
        Err(Error::Network { what: path.to_owned(), why: failures.join("; ") })
    }

    /// One document from one source after another.
    fn rounds(&'a self, path: &str) -> Rounds<'a> {
        Rounds {
            sources: self,
            path: path.to_owned(),
            at: 0,
            unreachable: self.repositories.is_empty(),
            peers: VecDeque::new(),
            asked: HashSet::new(),
            missing: false,
            again: false,
            failures: Vec::new(),
        }
    }
}

/// The bytes of one document, source by source: every repository, once more past caches when its
/// answer was not taken, then peers.
struct Rounds<'a> {
    sources: &'a Sources<'a>,
    path: String,
    at: usize,
    again: bool,
    /// Some repository did not answer: then, and only then, peers are asked, each once.
    unreachable: bool,
    peers: VecDeque<PeerKey>,
    asked: HashSet<PeerKey>,
    /// Some repository says that there is no such document.
    missing: bool,
    failures: Vec<String>,
}

impl Rounds<'_> {
    async fn next(&mut self) -> Option<(Bytes, Origin)> {
        while let Some(url) = self.sources.repositories.get(self.at) {
            let past_caches = self.again;
            match self.sources.ask(url, &self.path, past_caches).await {
                Ok(Some(bytes)) => {
                    // Asked for another: this one was refused.
                    if past_caches {
                        self.at += 1;
                    }
                    self.again = !past_caches;
                    return Some((bytes, Origin::Repository(url.clone())));
                }
                Ok(None) => {
                    self.missing = true;
                    self.failures.push(format!("{url} does not have it"));
                }
                Err(why) => {
                    self.unreachable = true;
                    self.failures.push(why);
                }
            }
            self.at += 1;
            self.again = false;
        }
        let room = self.sources.room?;
        if std::mem::take(&mut self.unreachable) {
            self.peers = room.present().await.iter().map(|peer| peer.peer).collect();
            if self.peers.is_empty() {
                self.failures.push("no other player was found".to_owned());
            }
        }
        loop {
            while let Some(peer) = self.peers.pop_front() {
                self.asked.insert(peer);
                if let Some(bytes) = room.ask(peer, &self.path).await {
                    Kind::of(&self.path).inspect(|&kind| self.sources.count(kind, &bytes));
                    return Some((bytes, Origin::Peer));
                }
                self.blame("not every other player has it");
            }
            // Without the first root there is nothing; and where many begin at once, those who have it may be the
            // last to be met.
            if self.asked.is_empty() || self.path != root::path(1) {
                return None;
            }
            self.peers = room.more(&self.asked).await.into();
            if self.peers.is_empty() {
                return None;
            }
        }
    }

    fn blame(&mut self, why: &str) {
        if !self.failures.iter().any(|known| known == why) {
            self.failures.push(why.to_owned());
        }
    }

    fn failure(&self, path: &str) -> Error {
        Error::Network { what: path.to_owned(), why: self.failures.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_clock_is_earlier_than_the_program() {
        let built = no_earlier_than_built(0);
        assert!(built > Time::from_unix(1_700_000_000), "{built}");
        let later = Time::from_unix(4_000_000_000);
        assert_eq!(no_earlier_than_built(4_000_000_000), later);
        assert!(clock() >= built);
    }
}
