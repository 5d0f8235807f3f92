//! Looking at the install without changing a file: news, status, verification.

use super::Launcher;
use super::bring::Manner;
use crate::error::Error;
use crate::events::Event;
use crate::kept;
use crate::links::{COPIED, Links};
use crate::lock::Lock;
use crate::news::{self, News, Origin};
use crate::release::Release;
use crate::store::Store;
use crate::survey::{Question, Survey, place_of, survey};
use crate::switch::peek;
use crate::tree::Node;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use updraft_manifests::installed::{Installed, InstalledFile};
use updraft_manifests::path::RelPath;
use updraft_manifests::places::Place;
use updraft_manifests::rollout::Turn;
use updraft_manifests::rules::{Class, Rules};
use updraft_manifests::trust::TrustError;

/// How often hashing progress is told.
const CHECKING_EVERY: Duration = Duration::from_millis(250);

impl Launcher {
    /// Asks the sources for news. True if there is an update.
    ///
    /// # Errors
    /// Those of [`news::ask`] and [`news::manifest`].
    pub async fn check(&mut self) -> Result<bool, Error> {
        let mut news = self.news().await?;
        let sources = self.sources();
        match news::manifest(&self.store, &self.documents, &sources, &mut news).await {
            Ok(_) => {}
            Err(error @ Error::Trust(TrustError::HeadExpired(_) | TrustError::Revoked { .. })) => {
                (self.events)(Event::Warning { message: error.to_string() });
            }
            Err(error) => return Err(error),
        }
        let installed = self.store.installed()?;
        Ok(self.tell_checked(&news, installed.as_ref()))
    }

    /// Hashes every file of the installed release. Tells each that is not right.
    ///
    /// # Errors
    /// [`Error::Damaged`] if any is not, [`Error::NotInstalled`] if there is nothing to verify.
    pub fn verify(&mut self) -> Result<(), Error> {
        let mut installed = self.installed()?;
        let found =
            self.look(Some(&installed), None, Manner { thorough: true, ..Manner::default() })?;
        let damaged: u64 = found.damaged.len() as u64;
        let wrong = found.damaged.iter().map(|damage| &damage.path).chain(&found.changed);
        let wrong: HashSet<&RelPath> = wrong.collect();
        for file in &mut installed.files {
            // What is right now need not be hashed again until it changes.
            let place = place_of(file).filter(|place| !wrong.contains(place));
            let time = place.and_then(|place| found.times.get(&place).copied());
            file.mtime_ns = time.unwrap_or(0);
        }
        self.store.set_installed(&installed)?;
        let is_changed = |file: &InstalledFile| {
            matches!(file.place, Place::Beside { .. })
                || place_of(file).is_some_and(|place| found.changed.contains(&place))
        };
        self.tell_damaged(&found);
        (self.events)(Event::Verified {
            version: installed.release.version.to_string(),
            files: here(&installed).count() as u64,
            bytes: here(&installed).map(|file| file.length).sum(),
            damaged,
            changed: here(&installed).filter(|file| is_changed(file)).count() as u64,
        });
        if damaged > 0 {
            let bytes = found.damaged.iter().map(|damage| damage.length).sum();
            return Err(Error::Damaged { files: damaged, bytes });
        }
        Ok(())
    }

    pub(super) fn look(
        &self,
        installed: Option<&Installed>,
        wanted: Option<&Release>,
        manner: Manner,
    ) -> Result<Survey, Error> {
        let Manner { thorough, adopt, .. } = manner;
        let kept = self.kept()?;
        let kept = kept.as_ref();
        let none = Rules::default();
        let release = wanted.map(|wanted| &wanted.identity);
        let release = release.or_else(|| installed.map(|installed| &installed.release));
        let rules = release.map_or(&none, |release| &release.rules);
        let wanted = wanted.map_or(&[][..], |wanted| &wanted.files);
        let question = Question { installed, wanted, rules, thorough, adopt, kept };
        let progress = self.tell_checking();
        let look = || survey(self.store.tree(), &question, &self.stop, &progress);
        tokio::task::block_in_place(look)
    }

    /// Tells of bytes read now and then.
    pub(super) fn tell_checking(&self) -> impl Fn(u64, u64) + Sync + use<> {
        let (told, events) = (std::sync::Mutex::new(Instant::now()), Arc::clone(&self.events));
        move |done, total| {
            let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if told.elapsed() > CHECKING_EVERY {
                *told = Instant::now();
                events(Event::Checking { done, total });
            }
        }
    }

    pub(super) fn nothing_missing(&self, installed: &Installed) -> Result<bool, Error> {
        let rules = &installed.release.rules;
        for file in &installed.files {
            if rules.wants(&file.path, &self.state.choice) == (file.place == Place::Absent) {
                return Ok(false); // The choice is not carried out yet.
            }
            if file.place != Place::Own || rules.class(&file.path) == Class::SeedOnce {
                continue;
            }
            let full = || file.path.under(self.store.tree().path());
            let there = self.store.tree().exists(file.path.as_str());
            if !there.map_err(|error| Error::disk("look at", full())(error))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn tell_checked(&self, news: &News, installed: Option<&Installed>) -> bool {
        let entry = &news.entry;
        let held = self.state.held >= Some(entry.sequence);
        let turn = news.turn(&self.state);
        let due = turn == Turn::Now || (turn == Turn::Later && installed.is_none());
        let revoked = &news.head.head.revoked;
        let update = !held
            && due
            && !revoked.contains(&entry.manifest)
            && installed.is_none_or(|installed| installed.release.manifest != entry.manifest);
        if let Some(installed) = installed
            && revoked.contains(&installed.release.manifest)
        {
            let kept = self.kept().ok().flatten();
            let kept = kept.filter(|kept| !revoked.contains(&kept.release.manifest));
            (self.events)(Event::Revoked {
                version: installed.release.version.to_string(),
                kept: kept.map(|kept| kept.release.version.to_string()),
            });
        }
        (self.events)(Event::Checked {
            product: self.state.feed.product.to_string(),
            channel: entry.channel.to_string(),
            installed: installed.map(|installed| installed.release.version.to_string()),
            available: entry.version.to_string(),
            sequence: entry.sequence,
            update,
            held,
            turn: match turn {
                Turn::Now => "now",
                Turn::Later => "later",
                Turn::Paused => "paused",
            },
            fresh: news.is_fresh(),
            heard_from: match news.origin {
                Origin::Repository(_) if news.is_from_bundle() => "bundle",
                Origin::Repository(_) => "repository",
                Origin::Peer => "players",
                Origin::Kept => "kept",
            },
        });
        update
    }

    pub(super) fn tell_damaged(&self, found: &Survey) {
        for damage in &found.damaged {
            (self.events)(Event::Damaged {
                path: damage.path.to_string(),
                missing: damage.missing,
                bytes: damage.length,
            });
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
        let uploaded = store.uploaded();
        let files: Vec<_> = installed.iter().flat_map(here).collect();
        let links = Links::of(installed.as_ref().map_or(&[], |installed| &installed.files));
        let changed = files.iter().filter(|file| {
            let place = place_of(file);
            let Some(place) = place else { return false };
            let node = store.tree().node(place.as_str());
            !match (node, &file.symlink) {
                (Ok(Node::File(stat)), None) => {
                    stat.len == file.length && (stat.mtime_ns == file.mtime_ns || stat.len == 0)
                }
                (Ok(Node::Symlink(_)), Some(_)) => true,
                (Ok(Node::File(_)), Some(target)) if COPIED => {
                    links.is_right(store.tree(), &place, target).unwrap_or(false)
                }
                _ => false,
            }
        });
        let work = peek(&store);
        let begun = |ahead| {
            let work = work.as_ref().filter(|work| work.ahead == ahead);
            work.map(|work| work.target.version.clone())
        };
        Ok(Event::Status {
            dir: store.tree().path().to_path_buf(),
            product: state.feed.product.to_string(),
            channel: state.channel.to_string(),
            version: installed.as_ref().map(|i| i.release.version.to_string()),
            sequence: installed.as_ref().map(|i| i.release.sequence),
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.length).sum(),
            changed: changed.count() as u64,
            pending: begun(false),
            ahead: begun(true),
            kept: kept::record(store.tree())
                .ok()
                .flatten()
                .map(|kept| kept.release.version.to_string()),
            held: state.held,
            uploaded_lan_bytes: uploaded.lan,
            uploaded_internet_bytes: uploaded.internet,
            upload: match store.settings()?.upload {
                Some(true) => "everyone",
                Some(false) => "lan",
                None => "ask",
            }
            .to_owned(),
            busy: Lock::is_taken(store.tree()),
        })
    }
}

/// The files of a record but those of components that are not installed.
fn here(installed: &Installed) -> impl Iterator<Item = &InstalledFile> {
    installed.files.iter().filter(|file| file.place != Place::Absent)
}
