//! The launcher's own update: found in the same head, verified by the role launcher, put beside this
//! version ([`crate::home`]).

use super::Launcher;
use crate::error::Error;
use crate::events::Event;
use crate::home::install::{admit, archive_path, hash, install, manifest_of, tidy, withdraw};
use crate::home::{Home, STARTS_MAX};
use crate::lock::Lock;
use crate::news::{self, Sources};
use crate::store::own_platform;
use crate::tree::Tree;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use updraft_manifests::current::Current;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::launcher::Archive;

/// Bytes of an archive fetched at a time.
const PART_BYTES: u64 = 4 << 20;
/// Held in a home by whoever changes it.
const LOCK_NAME: &str = "lock";

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// This is the newest, or the newest waits for the next start.
    Newest,
    /// There is a newer one.
    Available,
    /// A newer one was installed; the next start is its.
    Installed,
    /// This program does not lie in a home, or in that of another product: it updates nothing.
    Unmanaged,
}

impl Launcher {
    /// Looks for a newer launcher for this platform and installs it beside this one, unless only
    /// `check` is wanted.
    ///
    /// # Errors
    /// [`Error::Launcher`] and [`Error::Trust`] for one that is refused, those of [`news::ask`], and from
    /// the file system. The home then starts what it started before.
    pub async fn renew(&mut self, check: bool) -> Result<Renewed, Error> {
        let Some((home, own)) = Home::of_this_program() else { return Ok(Renewed::Unmanaged) };
        let current = home.current().map_err(Error::disk("read", home.dir()))?;
        if current.root != self.state.feed.root {
            tracing::info!("this launcher is of another product, which has to update it");
            return Ok(Renewed::Unmanaged);
        }
        let open = Tree::open(home.dir()).map_err(Error::disk("open the folder", home.dir()))?;
        let _lock = match Lock::take_at(&open, LOCK_NAME) {
            // Installed for all users: whoever did that updates it.
            Err(Error::Disk { source, .. }) if is_refusal(&source) => {
                return Ok(Renewed::Unmanaged);
            }
            lock => lock?,
        };
        tidy(&home, own);
        let mut news = self.news().await?;
        self.drop_revoked(&home, own, &current, &news.head.head.revoked)?;
        let Some(entry) = news.head.head.launcher(&own_platform()).cloned() else {
            return Ok(Renewed::Newest);
        };
        let own_version = manifest_of(&home, own)
            .map_or_else(|| "unknown".to_owned(), |(_, manifest)| manifest.version.to_string());
        let state = if entry.sequence <= own {
            "newest"
        } else if home.has_failed(entry.sequence) {
            "failed"
        } else if entry.sequence <= current.start.sequence {
            "waiting"
        } else {
            "available"
        };
        (self.events)(Event::Launcher {
            own: own_version,
            own_sequence: own,
            available: entry.version.to_string(),
            sequence: entry.sequence,
            state,
        });
        match state {
            // An archive is not had from other players.
            "available" if check || self.is_local_only() => return Ok(Renewed::Available),
            "available" => {}
            "failed" => {
                let message = format!(
                    "the launcher {} was started {STARTS_MAX} times and did not come up here; this \
                     one goes on until there is a newer one",
                    entry.version
                );
                (self.events)(Event::Warning { message });
                return Ok(Renewed::Newest);
            }
            _ => return Ok(Renewed::Newest),
        }
        let sources = self.sources();
        let manifest =
            news::launcher(&self.store, &self.documents, &sources, &mut news, &entry).await?;
        let version = manifest.version.to_string();
        admit(&home, own, &manifest)
            .map_err(|why| Error::Launcher { version: version.clone(), why })?;

        let archive = archive_path(&home)?;
        let base = news.base(&self.state);
        let mut repositories = news.head.head.sources.resolve(&base).http;
        repositories.extend(sources.repositories.iter().cloned());
        let sources = Sources { repositories, ..sources };
        fetch_archive(&sources, &manifest.archive, &archive, &version).await?;
        let mut go_on = |_| if self.stop.is_raised() { Err(Error::Interrupted) } else { Ok(()) };
        let put = || install(&home, own, &archive, &manifest, &mut go_on);
        tokio::task::block_in_place(put)?;
        (self.events)(Event::LauncherUpdated { version, sequence: manifest.sequence });
        Ok(Renewed::Installed)
    }

    /// A revoked version is not started, also not when the newest fails.
    fn drop_revoked(
        &self,
        home: &Home,
        own: u64,
        current: &Current,
        revoked: &[ContentHash],
    ) -> Result<(), Error> {
        let is_revoked = |sequence: u64| {
            manifest_of(home, sequence).is_some_and(|(hash, _)| revoked.contains(&hash))
        };
        if is_revoked(own) {
            let message = "this launcher was revoked by its publisher: a newer one is needed";
            (self.events)(Event::Warning { message: message.to_owned() });
        }
        let named = [Some(&current.start), current.previous.as_ref()];
        if named.into_iter().flatten().any(|slot| slot.sequence != own && is_revoked(slot.sequence))
        {
            withdraw(home, own, &is_revoked)?;
        }
        Ok(())
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Fetches the archive to `path`, unless it is there already.
async fn fetch_archive(
    sources: &Sources<'_>,
    archive: &Archive,
    path: &Path,
    version: &str,
) -> Result<(), Error> {
    let right = || hash(path).is_ok_and(|found| found == (archive.length, archive.sha256));
    if right() {
        return Ok(());
    }
    let mut file = File::create(path).map_err(Error::disk("write", path))?;
    let mut at = 0;
    while at < archive.length {
        let end = archive.length.min(at + PART_BYTES);
        let bytes = sources.range(&archive.path(), at..end, archive.length).await?;
        file.write_all(&bytes).map_err(Error::disk("write", path))?;
        at = end;
    }
    file.sync_all().map_err(Error::disk("flush", path))?;
    if right() {
        return Ok(());
    }
    let why = "what the sources serve is not the archive that was signed".to_owned();
    Err(Error::Launcher { version: version.to_owned(), why })
}
