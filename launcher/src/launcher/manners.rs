//! Manners while the engine runs: uploading follows the player's settings, the game and the battery within a second,
//! and what was uploaded is counted.

use crate::events::{Event, Sink};
use crate::lock::is_playing;
use crate::power;
use crate::settings::{Circumstances, Settings};
use crate::store::{Store, Uploaded};
use crate::transfer::Network;
use crate::tree::Tree;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use updraft_protocol::io::{LocalNetwork, Session, Status, TorrentHandle, UploadPolicy};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The battery is looked at, and the count written, every so many looks.
const SELDOM: u32 = 10;

/// What is being followed for one session; ends with it.
#[derive(Debug)]
pub(super) struct Manners {
    counter: Arc<Mutex<Counter>>,
    task: AbortHandle,
}

/// Adds up what all torrents of the session sent.
#[derive(Debug)]
struct Counter {
    store: Store,
    torrents: Vec<Counted>,
    sum: Uploaded,
    written: Uploaded,
}

#[derive(Debug)]
struct Counted {
    status: watch::Receiver<Status>,
    /// What is in the sum.
    lan: u64,
    all: u64,
}

/// What the session was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    upload: UploadPolicy,
    limits: (Option<u64>, Option<u64>),
    found: bool,
}

impl Manners {
    /// Begins to follow what the player wants of `session`, which was started as `network` says. What is said on the
    /// command line goes before what is set.
    pub(super) fn start(store: Store, session: &Session, network: &Network, events: &Sink) -> Self {
        let sum = store.uploaded();
        let settings_of = store.tree().path().to_path_buf();
        let counter = Counter { store, torrents: Vec::new(), sum, written: sum };
        let counter = Arc::new(Mutex::new(counter));
        let (session, network) = (session.clone(), network.clone());
        let (events, counting) = (Arc::clone(events), Arc::clone(&counter));
        let follow = async move {
            let Ok(tree) = Tree::open(&settings_of) else { return };
            follow(&tree, &session, &network, &events, &counting).await;
        };
        Self { counter, task: tokio::spawn(follow).abort_handle() }
    }

    /// From now on what this torrent sends is counted.
    pub(super) fn count(&self, handle: &TorrentHandle) {
        let status = handle.status();
        lock(&self.counter).torrents.push(Counted { status, lan: 0, all: 0 });
    }
}

impl Drop for Manners {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.counter).write();
    }
}

async fn follow(
    tree: &Tree,
    session: &Session,
    network: &Network,
    events: &Sink,
    counter: &Mutex<Counter>,
) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut told, mut why_told, mut on_battery) = (None, None, false);
    for look in (0..SELDOM).cycle() {
        tick.tick().await;
        if look == 0 {
            on_battery = tokio::task::block_in_place(power::is_on_battery);
            lock(counter).write();
        } else {
            lock(counter).add_up();
        }
        // Damaged settings are an error of commands; meanwhile nobody is uploaded to without consent.
        let settings = Store::settings_in(tree).unwrap_or_default();
        let now = Circumstances { playing: is_playing(tree), on_battery };
        let (upload, why) = settings.upload_now(now);
        let limits = limits(&settings, network);
        let found = settings.lan && network.may_be_found;
        let next = Told { upload, limits, found };
        if told != Some(next) {
            session.set_upload(next.upload).await;
            session.set_limits(next.limits.0, next.limits.1).await;
            if network.local != LocalNetwork::Only {
                session.set_found_locally(next.found).await;
            }
            if told.map(|told: Told| told.upload) != Some(next.upload) {
                let to = match next.upload {
                    UploadPolicy::Everyone => "everyone",
                    UploadPolicy::LanOnly => "lan",
                    UploadPolicy::Nobody => "nobody",
                };
                events(Event::Uploading { to });
            }
            told = Some(next);
        }
        if why != why_told {
            let message = match why {
                Some(why) => format!("nothing is uploaded while {why}"),
                None => "uploading goes on".to_owned(),
            };
            events(Event::Warning { message });
            why_told = why;
        }
    }
}

/// Limits up and down: those of the command line, or those that are set.
pub(super) fn limits(settings: &Settings, network: &Network) -> (Option<u64>, Option<u64>) {
    (network.up_limit.or(settings.up_limit), network.down_limit.or(settings.down_limit))
}

impl Counter {
    fn add_up(&mut self) {
        let Self { torrents, sum, .. } = self;
        torrents.retain_mut(|counted| {
            let Counted { status, lan, all } = counted;
            let (now_lan, now_all) = {
                let status = status.borrow();
                (status.up_lan, status.up_total)
            };
            sum.lan += now_lan - *lan;
            sum.internet += (now_all - now_lan) - (*all - *lan);
            (*lan, *all) = (now_lan, now_all);
            // A torrent that has ended says no more.
            status.has_changed().is_ok()
        });
    }

    fn write(&mut self) {
        self.add_up();
        if self.sum != self.written {
            self.store.set_uploaded(self.sum);
            self.written = self.sum;
        }
    }
}

fn lock(counter: &Mutex<Counter>) -> std::sync::MutexGuard<'_, Counter> {
    counter.lock().unwrap_or_else(PoisonError::into_inner)
}
