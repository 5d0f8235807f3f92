//! One install and what can be done with it: the handle behind every face.
//!
//! A [`Launcher`] holds the install's lock. Opening it finishes whatever a crash left half done.
//! Every command is one method; while it works it tells [`Event`]s to the sink it was given, and it
//! ends early when its [`Stop`] is raised, leaving a folder from which the same command goes on.

mod patches;

use crate::apply::Report;
use crate::documents::Documents;
use crate::error::Error;
use crate::events::{Event, Sink};
use crate::feed;
use crate::http::Http;
use crate::lock::Lock;
use crate::news::{self, News, Origin, Sources};
use crate::patch::PatchJob;
use crate::release::{Release, identity};
use crate::reuse::{self, Gathered};
use crate::space;
use crate::stage::{Stage, Unready, installed_paths};
use crate::stop::Stop;
use crate::store::{RESUME_FOLDER, State, Store, own_platform};
use crate::survey::{Question, Survey, survey};
use crate::switch::{Switch, peek};
use crate::transfer::{self, Network, Split};
use crate::tree::{Node, Tree};
use bytes::Bytes;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use updraft_manifests::cost::costs;
use updraft_manifests::installed::Installed;
use updraft_manifests::manifest::{index_path, torrent_path};
use updraft_manifests::names::Name;
use updraft_manifests::plan::Action;
use updraft_manifests::trust::TrustError;
use updraft_protocol::bitfield::Bitfield;
use updraft_protocol::ids::InfoHash;
use updraft_protocol::io::storage::resume;
use updraft_protocol::io::{
    AddTorrent, DocumentStore, Have, Priority, Rendezvous, Session, SessionError, Supply,
    TorrentHandle, WebSeed,
};
use url::Url;

/// How often a release is planned anew because files changed under our hands.
const ATTEMPTS_MAX: u32 = 3;
/// How long seeding and repairing wait for news before old news has to do.
const NEWS_WAIT_MAX: Duration = Duration::from_secs(4);
/// Batches of blocks made ahead of the engine.
const SUPPLY_BATCHES_MAX: usize = 4;
/// How often hashing progress is told.
const CHECKING_EVERY: Duration = Duration::from_millis(250);

/// An install that this process works on.
pub struct Launcher {
    store: Store,
    documents: Arc<Documents>,
    http: Http,
    network: Network,
    events: Sink,
    stop: Stop,
    state: State,
    switch: Switch,
    session: Option<Session>,
    meeting: Option<Rendezvous>,
    handle: Option<TorrentHandle>,
    /// The patch of this update: others may want it, too.
    patch: Option<KeptPatch>,
    _lock: Lock,
}

/// What an install is made from.
#[derive(Debug, Clone)]
pub struct InstallRequest {
    /// Feed link, path or URL.
    pub feed: String,
    /// The channel to follow; `None` for the one followed so far, or `stable`.
    pub channel: Option<Name>,
    /// The platform; `None` for the one this program runs on.
    pub platform: Option<Name>,
    /// Use what is right in a folder that is not empty.
    pub adopt: bool,
}

/// How to update.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpdateRequest {
    /// See [`InstallRequest::adopt`].
    pub adopt: bool,
    /// Tell of every file how it comes to be.
    pub explain: bool,
}

/// A patch that was fetched.
#[derive(Debug)]
struct KeptPatch {
    handle: TorrentHandle,
    /// Its torrent, by path in the repository.
    document: String,
}

/// What the channel offers and is not there yet.
#[derive(Debug)]
struct Offer {
    release: Release,
    swarm: SwarmSources,
    /// Its documents, by path.
    documents: Vec<String>,
}

/// How to bring a release in.
#[derive(Debug, Clone, Copy, Default)]
struct Manner {
    /// Tell how every file comes to be.
    explain: bool,
    /// Only plan.
    dry_run: bool,
    /// Hash every file.
    thorough: bool,
    /// Keep the good pieces of damaged files.
    salvage: bool,
    /// Look everywhere in the folder for usable content.
    adopt: bool,
}

impl DocumentStore for Documents {
    fn get(&self, path: &str) -> Option<Bytes> {
        self.read(path)
    }
}

impl Launcher {
    /// Opens the install at `dir`.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Busy`], [`Error::State`], and from the file system.
    pub fn open(dir: &Path, network: Network, events: Sink, stop: Stop) -> Result<Self, Error> {
        let store = Store::open(dir)?;
        let lock = Lock::take(store.tree())?;
        let state = store.state()?.ok_or_else(|| Error::NotInstalled(dir.to_path_buf()))?;
        Self::start(Store::create(dir)?, lock, state, network, events, stop)
    }

    /// Opens the install at `dir`, or makes it: an empty folder, or one that is adopted.
    ///
    /// # Errors
    /// [`Error::NotOurs`] for a folder with other things in it, [`Error::OtherProduct`], those of
    /// [`feed::read`] and [`Launcher::open`].
    pub async fn create(
        dir: &Path,
        request: &InstallRequest,
        network: Network,
        events: Sink,
        stop: Stop,
    ) -> Result<Self, Error> {
        let http = Http::new().map_err(Error::Failed)?;
        let feed = feed::read(&request.feed, &http).await?;
        std::fs::create_dir_all(dir).map_err(Error::disk("make the folder", dir))?;
        let known = Store::open(dir).is_ok();
        if !known && !request.adopt && !is_empty(dir)? {
            return Err(Error::NotOurs(dir.to_path_buf()));
        }
        let store = Store::create(dir)?;
        let lock = Lock::take(store.tree())?;
        if request.adopt {
            store.reset_damaged()?;
        }
        let old = store.state()?;
        if let Some(old) = &old
            && (old.feed.product != feed.product || old.feed.root != feed.root)
            // A feed that never led to anything may be corrected.
            && (store.installed()?.is_some() || store.trust(&old.feed)?.root().is_some())
        {
            let found = old.feed.product.to_string();
            return Err(Error::OtherProduct { dir: dir.to_path_buf(), found });
        }
        let stable = || Name::parse("stable").expect("it is a name");
        // So may a channel that does not exist.
        let trust = store.trust(&feed)?;
        let followed = |old: &&State| {
            [&old.platform, &Name::any_platform()]
                .iter()
                .any(|platform| trust.manifest_floor(platform, &old.channel).is_some())
        };
        let kept = old.as_ref().filter(followed);
        let state = State {
            channel: request
                .channel
                .clone()
                .or_else(|| kept.map(|old| old.channel.clone()))
                .unwrap_or_else(stable),
            platform: request
                .platform
                .clone()
                .or_else(|| kept.map(|old| old.platform.clone()))
                .unwrap_or_else(own_platform),
            upload: old.as_ref().and_then(|old| old.upload),
            feed,
        };
        if old.as_ref() != Some(&state) {
            store.set_state(&state)?;
        }
        Self::start(store, lock, state, network, events, stop)
    }

    fn start(
        store: Store,
        lock: Lock,
        state: State,
        mut network: Network,
        events: Sink,
        stop: Stop,
    ) -> Result<Self, Error> {
        let dir = store.tree().path().to_path_buf();
        let documents =
            Documents::open(&dir).map_err(Error::disk("open the documents in", &dir))?;
        let (switch, recovery) = Switch::recover(&store)?;
        if let Some((target, report)) = recovery.finished {
            events(Event::Recovered { version: target.version });
            tell_report(&events, &report);
        }
        network.upload |= state.upload == Some(true);
        Ok(Self {
            store,
            documents: Arc::new(documents),
            http: Http::new().map_err(Error::Failed)?,
            network,
            events,
            stop,
            state,
            switch,
            session: None,
            meeting: None,
            handle: None,
            patch: None,
            _lock: lock,
        })
    }

    /// Whether the player agreed to upload to the internet; `None` if that was never decided.
    pub fn upload(&self) -> Option<bool> {
        self.state.upload
    }

    /// Records whether the player agreed to upload to the internet; acts at once.
    ///
    /// # Errors
    /// From the file system.
    pub async fn set_upload(&mut self, upload: bool) -> Result<(), Error> {
        self.network.upload = upload;
        if self.state.upload != Some(upload) {
            self.state.upload = Some(upload);
            self.store.set_state(&self.state)?;
        }
        if let Some(session) = &self.session {
            use updraft_protocol::io::UploadPolicy::{Everyone, LanOnly};
            session.set_upload(if upload { Everyone } else { LanOnly }).await;
        }
        Ok(())
    }

    /// Asks the sources for news. True if there is an update.
    ///
    /// # Errors
    /// Those of [`news::ask`] and [`news::manifest`].
    pub async fn check(&mut self) -> Result<bool, Error> {
        let mut news = self.news().await?;
        let sources = self.sources();
        match news::manifest(&self.store, &self.documents, &sources, &mut news).await {
            Ok(_) => {}
            Err(error @ Error::Trust(TrustError::HeadExpired(_))) => {
                (self.events)(Event::Warning { message: error.to_string() });
            }
            Err(error) => return Err(error),
        }
        let installed = self.store.installed()?;
        Ok(self.tell_checked(&news, installed.as_ref()))
    }

    /// Brings in what the channel offers, unless it is there already. True if something was done.
    ///
    /// # Errors
    /// Everything in [`Error`].
    pub async fn update(&mut self, how: UpdateRequest) -> Result<bool, Error> {
        let since = Instant::now();
        let UpdateRequest { adopt, explain } = how;
        let Some(offer) = self.offer(adopt).await? else { return Ok(false) };
        let manner = Manner { adopt, explain, ..Manner::default() };
        let split = self.bring(&offer.release, manner, &offer.swarm, since).await?;
        let mut documents = offer.documents;
        documents.extend(self.patch.iter().map(|patch| patch.document.clone()));
        self.documents
            .keep_only(&documents)
            .map_err(Error::disk("tidy the documents in", self.store.tree().path()))?;
        Ok(split.is_some())
    }

    /// Tells what [`Launcher::update`] would do and what that would cost. Changes nothing that is
    /// installed. False if there is nothing to do.
    ///
    /// # Errors
    /// As [`Launcher::update`].
    pub async fn plan(&mut self, how: UpdateRequest) -> Result<bool, Error> {
        let UpdateRequest { adopt, explain } = how;
        let Some(offer) = self.offer(adopt).await? else { return Ok(false) };
        let manner = Manner { adopt, explain, dry_run: true, ..Manner::default() };
        let planned = self.bring(&offer.release, manner, &offer.swarm, Instant::now()).await?;
        Ok(planned.is_some())
    }

    /// What the channel offers, if that is not installed and whole.
    async fn offer(&mut self, adopt: bool) -> Result<Option<Offer>, Error> {
        let mut news = self.news().await?;
        let sources = self.sources();
        let manifest = news::manifest(&self.store, &self.documents, &sources, &mut news).await?;
        let installed = self.store.installed()?;
        self.tell_checked(&news, installed.as_ref());
        let identity = identity(&manifest);
        let path = torrent_path(&identity.torrent);
        let patches = news.entry.patches;
        let parse = |bytes: &Bytes| {
            let release = Release::parse(identity.clone(), bytes)?;
            release.check(&manifest)?;
            let (leaf_index, patches) = (manifest.leaf_index, patches);
            Ok(Release { leaf_index, patches, ..release })
        };
        let release = news::checked(&self.documents, &sources, &path, parse).await?;
        drop(sources);
        if let Some(installed) = &installed
            && installed.release == release.identity
            && !adopt
            && self.nothing_missing(installed)?
        {
            return Ok(None);
        }
        let swarm = SwarmSources::of(&news, &self.state);
        let index = release.leaf_index.map(|index| index_path(&index.sha256));
        let list = release.patches.map(|list| list.path());
        let documents = [news.entry.manifest_path(), path];
        let documents = documents.into_iter().chain(index).chain(list).collect();
        Ok(Some(Offer { release, swarm, documents }))
    }

    /// Hashes every file of the installed release. Tells each that is not right.
    ///
    /// # Errors
    /// [`Error::Damaged`] if any is not, [`Error::NotInstalled`] if there is nothing to verify.
    pub fn verify(&mut self) -> Result<(), Error> {
        let mut installed = self.installed()?;
        let found =
            self.look(Some(&installed), &[], Manner { thorough: true, ..Manner::default() })?;
        for file in &mut installed.files {
            // What is right now need not be hashed again until it changes.
            file.mtime_ns = found.times.get(&file.path).copied().unwrap_or(0);
        }
        let damaged: u64 = found.damaged.len() as u64;
        for damage in &found.damaged {
            for file in installed.files.iter_mut().filter(|file| file.path == damage.path) {
                file.mtime_ns = 0;
            }
        }
        self.store.set_installed(&installed)?;
        self.tell_damaged(&found);
        (self.events)(Event::Verified {
            version: installed.release.version.to_string(),
            files: installed.files.len() as u64,
            bytes: installed.files.iter().map(|file| file.length).sum(),
            damaged,
        });
        if damaged > 0 {
            let bytes = found.damaged.iter().map(|damage| damage.length).sum();
            return Err(Error::Damaged { files: damaged, bytes });
        }
        Ok(())
    }

    /// Makes every file of the installed release right again, fetching only the pieces that are not.
    /// True if something was done.
    ///
    /// # Errors
    /// Everything in [`Error`].
    pub async fn repair(&mut self) -> Result<bool, Error> {
        let since = Instant::now();
        let installed = self.installed()?;
        let release = self.installed_release(&installed).await?;
        let swarm = self.swarm_sources().await;
        let manner = Manner { thorough: true, salvage: true, ..Manner::default() };
        Ok(self.bring(&release, manner, &swarm, since).await?.is_some())
    }

    /// Seeds the installed release until stopped.
    ///
    /// # Errors
    /// Everything in [`Error`].
    pub async fn seed(&mut self) -> Result<(), Error> {
        if self.handle.is_none() {
            let installed = self.installed()?;
            let release = self.installed_release(&installed).await?;
            let swarm = self.swarm_sources().await;
            let found = self.look(Some(&installed), &release.files, Manner::default())?;
            let stage = Stage::new(self.store.tree(), &release, Some(&installed), found, false)
                .map_err(|error| unusable(&release, &error))?;
            let whole: Vec<bool> = stage
                .plan()
                .actions
                .iter()
                .zip(stage.wanted())
                .map(|(action, wanted)| {
                    wanted && matches!(action, Action::Keep | Action::SetExecutable(_))
                })
                .collect();
            let changed = stage.wanted().iter().zip(&whole).filter(|(w, h)| **w && !**h).count();
            if changed > 0 {
                (self.events)(Event::Warning {
                    message: format!("{changed} files are not as released and are not shared"),
                });
            }
            let mut add = AddTorrent::new(
                Arc::clone(&release.info),
                installed_paths(self.store.tree(), &release),
            );
            add.priorities = whole.iter().copied().map(Priority::from).collect();
            add.have = Have::Files(whole);
            add.seed_only = true;
            self.add(add, &swarm).await?;
        }
        let handle = self.handle.clone().expect("it was just added");
        let done = transfer::seed(&handle, &self.stop, &self.events).await;
        self.remember_peers().await;
        done
    }

    /// Says goodbye to the swarm; takes at most a few seconds.
    pub async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            self.remember_peers().await;
            session.stop().await;
        }
    }

    /// What is in the folder; works beside a launcher that is at work there.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::State`].
    pub fn status(dir: &Path) -> Result<Event, Error> {
        let store = Store::open(dir)?;
        let state = store.state()?.ok_or_else(|| Error::NotInstalled(dir.to_path_buf()))?;
        let installed = store.installed()?;
        let files = installed.as_ref().map(|i| i.files.as_slice()).unwrap_or_default();
        let changed = files.iter().filter(|file| {
            let node = store.tree().node(file.path.as_str());
            !match (node, &file.symlink) {
                (Ok(Node::File(stat)), None) => {
                    stat.len == file.length && (stat.mtime_ns == file.mtime_ns || stat.len == 0)
                }
                (Ok(Node::Symlink(_)), Some(_)) => true,
                _ => false,
            }
        });
        Ok(Event::Status {
            dir: store.tree().path().to_path_buf(),
            product: state.feed.product.to_string(),
            channel: state.channel.to_string(),
            version: installed.as_ref().map(|i| i.release.version.to_string()),
            sequence: installed.as_ref().map(|i| i.release.sequence),
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.length).sum(),
            changed: changed.count() as u64,
            pending: peek(&store).map(|target| target.version),
            upload: match state.upload {
                Some(true) => "everyone",
                Some(false) => "lan",
                None => "ask",
            }
            .to_owned(),
            busy: Lock::is_taken(store.tree()),
        })
    }

    /// Brings `release` into the folder, or only says how. `None` if it is there already.
    async fn bring(
        &mut self,
        release: &Release,
        manner: Manner,
        swarm: &SwarmSources,
        since: Instant,
    ) -> Result<Option<Split>, Error> {
        let mut manner = manner;
        let mut done = None;
        for _ in 0..ATTEMPTS_MAX {
            let installed = self.store.installed()?;
            let found = self.look(installed.as_ref(), &release.files, manner)?;
            if manner.salvage {
                self.tell_damaged(&found);
            }
            let salvage = manner.salvage;
            // The stage borrows the folder while the rest of us goes on: a handle of its own.
            let tree = Tree::open(self.store.tree().path())
                .map_err(Error::disk("open the folder", self.store.tree().path()))?;
            let stage = Stage::new(&tree, release, installed.as_ref(), found, salvage)
                .map_err(|error| unusable(release, &error))?;
            if stage.is_done() {
                return Ok(done);
            }
            let (gathered, patch_file, earlier) =
                self.gather(release, installed.as_ref(), &stage, swarm, manner.dry_run).await?;
            let extra = self.tell_planned(release, &stage, &gathered, manner.explain);
            if manner.dry_run {
                return Ok(Some(Split::default()));
            }
            self.switch.begin(&self.store, &release.target(), salvage)?;
            self.check_space(release, extra)?;
            tokio::task::block_in_place(|| stage.prepare())?;
            let supply = (!gathered.is_empty()).then_some((gathered, patch_file));
            let split = self.fetch(release, &stage, swarm, supply).await?.after(earlier);
            match stage.transaction() {
                Ok((work, next)) => {
                    let report = self.commit(&stage, &work, &next).await?;
                    done = Some(split);
                    if report.missing.is_empty() {
                        (self.events)(split.complete(release.identity.version.to_string(), since));
                        return Ok(done);
                    }
                }
                Err(Unready::Changed(paths)) => tracing::info!(?paths, "changed meanwhile"),
                Err(Unready::Error(error)) => return Err(error),
            }
            // Files changed under our hands: look again.
            if let Some(handle) = self.handle.take() {
                handle.remove().await;
            }
            manner.adopt = false;
        }
        let why = "its files keep changing while it is installed: close the game and try again";
        Err(Error::Failed(why.into()))
    }

    /// Finds the cheapest way to each file that the stage lacks: a patch, then leaves of old files. Of
    /// a patch only the head is fetched if this is a `dry_run`.
    async fn gather(
        &mut self,
        release: &Release,
        installed: Option<&Installed>,
        stage: &Stage<'_>,
        swarm: &SwarmSources,
        dry_run: bool,
    ) -> Result<(Gathered, Option<File>, Split), Error> {
        let (mut gathered, mut file, mut split) = (Gathered::default(), None, Split::default());
        if stage.is_salvage() {
            return Ok((gathered, file, split));
        }
        if let Some(offer) = self.patch_offer(release, installed, stage).await {
            let patch = if dry_run {
                self.look_at_patch(&offer).await
            } else {
                self.fetch_patch(&offer, swarm).await?.map(|fetched| {
                    (file, split) = (fetched.file, fetched.split);
                    fetched.patch
                })
            };
            gathered.patch =
                patch.and_then(|patch| Self::patch_job(patch, release, installed, stage));
            if gathered.patch.is_some() {
                gathered.patch_bytes = offer.size;
            }
        }
        let made = gathered.patch.iter().flat_map(PatchJob::makes).collect();
        let (progress, stop) = (self.tell_checking(), &self.stop);
        let sources = self.sources();
        let found = reuse::find(&self.documents, &sources, release, stage, &made, stop, &progress);
        gathered.reuse = found.await?;
        Ok((gathered, file, split))
    }

    /// Fetches what the stage lacks: first what was gathered, then the rest.
    async fn fetch(
        &mut self,
        release: &Release,
        stage: &Stage<'_>,
        swarm: &SwarmSources,
        supply: Option<(Gathered, Option<File>)>,
    ) -> Result<Split, Error> {
        let fetched = stage.fetched();
        let total = release.total();
        if !fetched.contains(&true) {
            return Ok(Split { reused: total, ..Split::default() });
        }
        let mut add = AddTorrent::new(Arc::clone(&release.info), stage.paths_staged());
        add.priorities = stage.wanted().into_iter().map(Priority::from).collect();
        add.have = if stage.is_salvage() {
            Have::Mixed { right: stage.whole(), check: fetched }
        } else {
            Have::Files(stage.whole())
        };
        add.resume = Some(self.resume_path(release));
        add.web_seeds = swarm
            .http
            .iter()
            .map(|base| WebSeed::PerFile {
                name: base.to_string(),
                urls: release.object_urls(base),
            })
            .collect();
        if let Some((gathered, patch_file)) = supply {
            add.supply = Some(self.supply(release, gathered, patch_file)?);
        }
        self.add(add, swarm).await?;
        let handle = self.handle.clone().expect("it was just added");
        let pieces = release.info.geometry.piece_count();
        let split = transfer::fetch(
            &handle,
            pieces,
            total,
            transfer::SILENCE_MAX,
            &self.stop,
            &self.events,
        )
        .await;
        self.remember_peers().await;
        let split = split?;
        let failed = Error::disk("flush", self.store.path(&release.target().staging()));
        handle.sync().await.map_err(failed)?;
        Ok(split)
    }

    /// What was gathered on its way to the engine, as fast as it takes it.
    fn supply(
        &self,
        release: &Release,
        gathered: Gathered,
        patch_file: Option<File>,
    ) -> Result<Supply, Error> {
        let dir = self.store.tree().path();
        let tree = Tree::open(dir).map_err(Error::disk("open the folder", dir))?;
        let (info, done) = (Arc::clone(&release.info), self.resumed(release));
        let (sender, supply) = tokio::sync::mpsc::channel(SUPPLY_BATCHES_MAX);
        tokio::task::spawn_blocking(move || {
            gathered.supply(patch_file, &tree, &info, &done, &sender);
        });
        Ok(supply)
    }

    /// The switch. Not stopped by anything but the end of the process.
    async fn commit(
        &mut self,
        stage: &Stage<'_>,
        work: &crate::apply::Transaction,
        next: &Installed,
    ) -> Result<Report, Error> {
        (self.events)(Event::Committing { version: work.target.version.clone() });
        self.switch.staged(&self.store, work, next)?;
        // The engine keeps serving: it looks for a file at its new path, then at the one before, and
        // whatever may lie at the new path has been cleared away by then.
        if let Some(handle) = &self.handle {
            // The folder is the player's from here on: a file they change is not fetched again.
            handle.seed_only().await;
            handle.remap(stage.paths_cleared()).await;
        }
        tokio::task::block_in_place(|| self.switch.clear(&self.store, work))?;
        if let Some(handle) = &self.handle {
            handle.remap(stage.paths_installed()).await;
        }
        let report = tokio::task::block_in_place(|| {
            let report = self.switch.place(&self.store, work)?;
            self.switch.finish(&self.store, work)?;
            Ok::<_, Error>(report)
        })?;
        tell_report(&self.events, &report);
        Ok(report)
    }

    /// Adds the torrent, with everything that all our torrents have.
    async fn add(&mut self, mut add: AddTorrent, swarm: &SwarmSources) -> Result<(), Error> {
        add.trackers.clone_from(&swarm.trackers);
        add.peers = self.known_peers();
        add.documents = Some(self.documents.clone());
        let session = self.session().await?;
        let handle = session.add(add).await.map_err(|error| session_error(&error))?;
        self.handle = Some(handle);
        self.meet().await
    }

    /// Opens the meeting place of the product, so that others can ask us for documents.
    async fn meet(&mut self) -> Result<(), Error> {
        if self.meeting.is_none() {
            let hash = InfoHash(self.state.feed.rendezvous());
            let peers = self.known_peers();
            let documents = self.documents.clone();
            let session = self.session().await?;
            let meeting = session.add_rendezvous(hash, documents, Vec::new(), peers).await;
            self.meeting = Some(meeting.map_err(|error| session_error(&error))?);
        }
        Ok(())
    }

    async fn session(&mut self) -> Result<Session, Error> {
        if self.session.is_none() {
            self.session = Some(self.network.start(&self.events).await?);
        }
        Ok(self.session.clone().expect("it was just started"))
    }

    fn known_peers(&self) -> Vec<SocketAddr> {
        let mut peers = self.network.peers.clone();
        peers.extend(self.store.peers());
        peers.dedup();
        peers
    }

    async fn remember_peers(&self) {
        if let Some(handle) = &self.handle {
            let peers: Vec<SocketAddr> =
                handle.peers().await.iter().map(|peer| peer.addr).collect();
            self.store.set_peers(&peers);
        }
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            http: &self.http,
            repositories: self.state.feed.urls.clone(),
            peers: self.meeting.as_ref(),
        }
    }

    /// News from the repositories; if none answers, from other launchers that are known.
    async fn news(&mut self) -> Result<News, Error> {
        let stop = self.stop.clone();
        let work = async {
            let first = news::ask(&self.store, &self.documents, &self.sources(), &self.state).await;
            let unheard = match &first {
                Ok(news) => news.origin == Origin::Kept,
                Err(Error::Network { .. }) => true,
                Err(_) => false,
            };
            if !unheard || self.known_peers().is_empty() {
                return first;
            }
            self.meet().await?;
            let second =
                news::ask(&self.store, &self.documents, &self.sources(), &self.state).await;
            // What the repositories said is more telling than that no peer had it.
            match (first, second) {
                (_, Ok(news)) => Ok(news),
                (first, Err(_)) => first,
            }
        };
        tokio::select! {
            news = Box::pin(work) => news,
            () = stop.raised() => Err(Error::Interrupted),
        }
    }

    /// Trackers and web servers for a release that is installed already; old news will do.
    async fn swarm_sources(&self) -> SwarmSources {
        let sources = Sources { peers: None, ..self.sources() };
        let ask = Box::pin(news::ask(&self.store, &self.documents, &sources, &self.state));
        let failed = match tokio::time::timeout(NEWS_WAIT_MAX, ask).await {
            Ok(Ok(news)) => return SwarmSources::of(&news, &self.state),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no repository answers".to_owned(),
        };
        (self.events)(Event::Warning { message: failed });
        match news::kept(&self.store, &self.documents, &self.state) {
            Some(news) => SwarmSources::of(&news, &self.state),
            None => SwarmSources { trackers: Vec::new(), http: self.state.feed.urls.clone() },
        }
    }

    fn installed(&self) -> Result<Installed, Error> {
        self.store.installed()?.ok_or_else(|| match peek(&self.store) {
            Some(target) => Error::Failed(format!(
                "the first install, of {}, is not finished: run `updraft-launcher update` to go on",
                target.version
            )),
            None => Error::NotInstalled(self.store.tree().path().to_path_buf()),
        })
    }

    /// The torrent of what is installed: from the store, or the sources, by its hash.
    async fn installed_release(&self, installed: &Installed) -> Result<Release, Error> {
        let path = torrent_path(&installed.release.torrent);
        let parse = |bytes: &Bytes| Release::parse(installed.release.clone(), bytes);
        news::checked(&self.documents, &self.sources(), &path, parse).await
    }

    fn look(
        &self,
        installed: Option<&Installed>,
        wanted: &[updraft_manifests::plan::NewFile],
        manner: Manner,
    ) -> Result<Survey, Error> {
        let Manner { thorough, adopt, .. } = manner;
        let question = Question { installed, wanted, thorough, adopt };
        let progress = self.tell_checking();
        let look = || survey(self.store.tree(), &question, &self.stop, &progress);
        tokio::task::block_in_place(look)
    }

    /// Tells of bytes read now and then.
    fn tell_checking(&self) -> impl Fn(u64, u64) + Sync + use<> {
        let (told, events) = (std::sync::Mutex::new(Instant::now()), Arc::clone(&self.events));
        move |done, total| {
            let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if told.elapsed() > CHECKING_EVERY {
                *told = Instant::now();
                events(Event::Checking { done, total });
            }
        }
    }

    fn nothing_missing(&self, installed: &Installed) -> Result<bool, Error> {
        for file in &installed.files {
            let full = || file.path.under(self.store.tree().path());
            let there = self.store.tree().exists(file.path.as_str());
            if !there.map_err(|error| Error::disk("look at", full())(error))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `extra` bytes have to find room, but for what an earlier run has put there.
    fn check_space(&self, release: &Release, extra: u64) -> Result<(), Error> {
        let geometry = &release.info.geometry;
        let done = self.resumed(release);
        let done: u64 = done.iter().map(|piece| u64::from(geometry.data_len(piece))).sum();
        let need = extra.saturating_sub(done);
        let dir = self.store.tree().path();
        match space::free(dir) {
            Some(free) if free < need => Err(Error::Space { dir: dir.to_path_buf(), need, free }),
            Some(_) | None => Ok(()),
        }
    }

    /// Pieces that an earlier run fetched and wrote down.
    fn resumed(&self, release: &Release) -> Bitfield {
        let info = &release.info;
        resume::load(&self.resume_path(release), &info.hashes, info.geometry.piece_count())
    }

    fn resume_path(&self, release: &Release) -> PathBuf {
        self.store.path(&format!("{RESUME_FOLDER}/{}", release.identity.torrent))
    }

    fn tell_checked(&self, news: &News, installed: Option<&Installed>) -> bool {
        let entry = &news.entry;
        let update = installed.is_none_or(|installed| installed.release.manifest != entry.manifest);
        (self.events)(Event::Checked {
            product: self.state.feed.product.to_string(),
            channel: entry.channel.to_string(),
            installed: installed.map(|installed| installed.release.version.to_string()),
            available: entry.version.to_string(),
            sequence: entry.sequence,
            update,
            fresh: news.is_fresh(),
        });
        update
    }

    /// Tells what will be done; returns the bytes of disk that it takes meanwhile.
    fn tell_planned(
        &self,
        release: &Release,
        stage: &Stage<'_>,
        gathered: &Gathered,
        explain: bool,
    ) -> u64 {
        let (built, sides) = gathered.costs();
        let (files, sum) = costs(&release.files, stage.plan(), &built, &sides);
        if explain {
            for (new, cost) in release.files.iter().zip(files) {
                (self.events)(Event::PlannedFile {
                    path: new.path.to_string(),
                    way: cost.way.as_str(),
                    bytes: cost.length,
                    fetch_bytes: cost.download,
                });
            }
        }
        (self.events)(Event::Planned {
            version: release.identity.version.to_string(),
            files: release.files.len() as u64,
            kept_bytes: sum.kept,
            reused_bytes: sum.moved + sum.copied,
            found_bytes: sum.found,
            fetch_bytes: sum.content,
            index_bytes: sides.index,
            patch_bytes: sides.patch,
            patched_bytes: sum.patched,
            disk_read_bytes: sum.disk_read,
            disk_write_bytes: sum.disk_write,
            extra_space_bytes: sum.extra_space,
            free_space_bytes: space::free(self.store.tree().path()),
            removed_files: stage.plan().totals.removed_files,
        });
        sum.extra_space
    }

    fn tell_damaged(&self, found: &Survey) {
        for damage in &found.damaged {
            (self.events)(Event::Damaged {
                path: damage.path.to_string(),
                missing: damage.missing,
                bytes: damage.length,
            });
        }
    }
}

/// Where the swarm of a release meets, and which web servers have its files.
#[derive(Debug)]
struct SwarmSources {
    trackers: Vec<Vec<String>>,
    http: Vec<Url>,
}

impl SwarmSources {
    fn of(news: &News, state: &State) -> Self {
        let resolved = news.head.head.sources.resolve(&news.base(state));
        let trackers = resolved.trackers.iter().filter(|url| url.scheme() != "udp");
        Self { trackers: trackers.map(|url| vec![url.to_string()]).collect(), http: resolved.http }
    }
}

fn tell_report(events: &Sink, report: &Report) {
    for (path, to) in &report.aside {
        events(Event::Aside { path: path.clone(), to: to.clone() });
    }
}

fn unusable(release: &Release, why: &dyn std::fmt::Display) -> Error {
    Error::Release { version: release.identity.version.to_string(), why: why.to_string() }
}

fn session_error(error: &SessionError) -> Error {
    Error::Failed(error.to_string())
}

/// True if there is nothing in the folder but perhaps our own state folder.
fn is_empty(dir: &Path) -> Result<bool, Error> {
    for entry in std::fs::read_dir(dir).map_err(Error::disk("look into", dir))? {
        let entry = entry.map_err(Error::disk("look into", dir))?;
        if entry.file_name() != crate::apply::STATE_FOLDER {
            return Ok(false);
        }
    }
    Ok(true)
}
