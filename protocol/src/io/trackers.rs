//! Announcing one torrent to its trackers, over HTTP ([`http`]) or UDP ([`udp`]): when, to whom, and
//! what they answered.
//!
//! Every tier has a task that keeps one of its trackers informed (BEP 12: shuffled once, the one
//! that answers moves to the front). What goes in: the torrent's counters through a watch. What
//! comes out: a [`TrackerReport`] per tracker asked. A tracker is never asked more often than it
//! allows, and less and less often while it fails.

mod http;
mod udp;

use crate::ids::{InfoHash, InfoHashes, PeerId};
use crate::wire::tracker::{Announce, AnnounceReply, Event};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use udp::{Patience, UdpTracker};
use url::Url;

/// Tiers announced to; a torrent with more is not announced to the rest.
pub const TIERS_MAX: usize = 16;

/// Trackers kept of one tier.
pub const TIER_URLS_MAX: usize = 32;

/// The longest [`Announcer::stop`] takes.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// However short an interval a tracker wants, we do not ask more often than this.
const INTERVAL_MIN_S: u32 = 5;
/// …nor less often than this.
const INTERVAL_MAX_S: u32 = 3600;
/// The same for announces on demand.
const DEMAND_MIN_S: u32 = 2;
/// What must pass before an announce on demand if the tracker does not say.
const DEMAND_DEFAULT_S: u32 = 300;

/// The first wait after a tier failed; it doubles from there…
const BACK_OFF_MIN: Duration = Duration::from_secs(2);
/// …to this.
const BACK_OFF_MAX: Duration = Duration::from_secs(30 * 60);

/// Peers asked for while we want some, and otherwise.
const PEERS_WANTED: u32 = 200;
const PEERS_WELCOME: u32 = 30;

/// What trackers are told, and what we want of them. Update it only when it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnounceState {
    /// Payload bytes sent in this session.
    pub uploaded: u64,
    /// Payload bytes received in this session.
    pub downloaded: u64,
    /// Bytes still to get. From more than 0 to 0 means that the download was completed.
    pub left: u64,
    /// True while there are too few peers: then trackers are asked as soon as they allow it.
    pub want_peers: bool,
}

/// Who announces what to whom.
#[derive(Clone, Debug)]
pub struct AnnouncerConfig {
    /// Announce URLs in tiers (BEP 12).
    pub tiers: Vec<Vec<String>>,
    /// The torrent; a hybrid is announced by both of its hashes.
    pub hashes: InfoHashes,
    /// Ourselves.
    pub peer_id: PeerId,
    /// Where we listen.
    pub port: u16,
    /// What UDP leaves from, if not from any address (HTTP has it in its client).
    pub bind: Option<IpAddr>,
    /// A random number that stays the same while the address may change.
    pub key: u32,
    /// For shuffling tiers and spreading announces.
    pub seed: u64,
}

/// One tracker was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerReport {
    /// Its announce URL.
    pub url: String,
    /// Peers it knows; no port is 0.
    pub peers: Vec<SocketAddr>,
    /// How large it says the swarm is, or why it did not answer.
    pub result: Result<SwarmSize, String>,
}

/// Peers in a swarm by a tracker's count, as far as it tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmSize {
    /// Peers that have everything.
    pub seeders: Option<u32>,
    /// Peers that do not.
    pub leechers: Option<u32>,
}

/// The tasks that announce one torrent. Dropped without [`Announcer::stop`] they end in silence.
#[derive(Debug)]
pub struct Announcer {
    stop: watch::Sender<bool>,
    tiers: JoinSet<()>,
}

impl Announcer {
    /// Starts announcing. Must be called in a tokio runtime. When `reports` is closed the tasks end.
    pub fn start(
        client: reqwest::Client,
        config: AnnouncerConfig,
        state: watch::Receiver<AnnounceState>,
        reports: mpsc::Sender<TrackerReport>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut rng = fastrand::Rng::with_seed(config.seed);
        let mut tiers = JoinSet::new();
        for urls in config.tiers.iter().take(TIERS_MAX) {
            let mut urls: Vec<_> = urls.iter().take(TIER_URLS_MAX).cloned().collect();
            rng.shuffle(&mut urls);
            let tier = Tier {
                client: client.clone(),
                hashes: config.hashes.swarm_hashes().collect(),
                peer_id: config.peer_id,
                port: config.port,
                bind: config.bind,
                key: format!("{:08x}", config.key),
                rng: rng.fork(),
                state: state.clone(),
                reports: reports.clone(),
                trackers: Vec::new(),
                failures: 0,
                left: state.borrow().left,
                completed_due: false,
            };
            let stopped = stopped.clone();
            tiers.spawn(tier.run(urls, stopped));
        }
        Self { stop, tiers }
    }

    /// Says good-bye to the trackers that know us, for at most [`STOP_TIMEOUT`].
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tiers.join_next().await.is_some() {} };
        if timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::debug!("a tracker was too slow to be told that we stop");
        }
    }
}

struct Tier {
    client: reqwest::Client,
    hashes: Vec<InfoHash>,
    peer_id: PeerId,
    port: u16,
    bind: Option<IpAddr>,
    key: String,
    rng: fastrand::Rng,
    state: watch::Receiver<AnnounceState>,
    reports: mpsc::Sender<TrackerReport>,
    /// In the order they are tried.
    trackers: Vec<Tracker>,
    /// Rounds in a row in which no tracker answered.
    failures: u32,
    left: u64,
    completed_due: bool,
}

struct Tracker {
    url: Url,
    /// How it is asked, if not over HTTP.
    udp: Option<UdpTracker>,
    /// It was told `started`, or may have been.
    knows_us: bool,
    tracker_id: Option<Vec<u8>>,
}

/// When the next announce is due.
#[derive(Clone, Copy)]
struct Schedule {
    /// In the regular course.
    regular: Instant,
    /// At the earliest, if we want peers.
    on_demand: Instant,
}

impl Tier {
    async fn run(mut self, urls: Vec<String>, mut stopped: watch::Receiver<bool>) {
        for url in urls {
            match supported(&url) {
                Ok(url) => {
                    let udp = (url.scheme() == "udp").then(|| UdpTracker::new(&url, self.bind));
                    self.trackers.push(Tracker { url, udp, knows_us: false, tracker_id: None });
                }
                Err(why) => {
                    let result = Err(why.to_owned());
                    self.report(TrackerReport { url, peers: Vec::new(), result }).await;
                }
            }
        }
        if self.trackers.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            // Also when the announcer was dropped; then this task is aborted anyway.
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.keep_announcing() => {}
        }
        self.say_stopped().await;
    }

    /// Ends only when nobody listens any more.
    async fn keep_announcing(&mut self) {
        let mut schedule = Schedule { regular: Instant::now(), on_demand: Instant::now() };
        loop {
            let due = self.due(schedule);
            tokio::select! {
                changed = self.state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.note_completion();
                }
                () = sleep_until(due) => {
                    schedule = self.round().await;
                    if self.reports.is_closed() {
                        return;
                    }
                }
            }
        }
    }

    fn due(&self, schedule: Schedule) -> Instant {
        if self.completed_due && self.failures == 0 {
            Instant::now()
        } else if self.state.borrow().want_peers {
            schedule.on_demand.min(schedule.regular)
        } else {
            schedule.regular
        }
    }

    fn note_completion(&mut self) {
        let left = self.state.borrow_and_update().left;
        if self.left > 0 && left == 0 {
            self.completed_due = true;
        }
        self.left = left;
    }

    /// Tries the trackers in order until one answers.
    async fn round(&mut self) -> Schedule {
        for at in 0..self.trackers.len() {
            let event = if !self.trackers[at].knows_us {
                Some(Event::Started)
            } else if self.completed_due {
                Some(Event::Completed)
            } else {
                None
            };
            // Until we know better: an announce that was cut short may have arrived.
            self.trackers[at].knows_us = true;
            match self.announce(at, event).await {
                Ok(answer) => {
                    if event == Some(Event::Completed) {
                        self.completed_due = false;
                    }
                    self.failures = 0;
                    let schedule = self.schedule(&answer);
                    self.trackers[..=at].rotate_right(1);
                    let url = self.trackers[0].url.to_string();
                    if let Some(warning) = &answer.warning {
                        tracing::info!(tracker = %url, %warning, "tracker warns");
                    }
                    let size = SwarmSize { seeders: answer.seeders, leechers: answer.leechers };
                    self.report(TrackerReport { url, peers: answer.peers, result: Ok(size) }).await;
                    return schedule;
                }
                Err(why) => {
                    if event == Some(Event::Started) {
                        self.trackers[at].knows_us = false;
                    }
                    let url = self.trackers[at].url.to_string();
                    self.report(TrackerReport { url, peers: Vec::new(), result: Err(why) }).await;
                }
            }
        }
        let wait = BACK_OFF_MIN * (1 << self.failures.min(16));
        self.failures += 1;
        let wait = wait.min(BACK_OFF_MAX).mul_f64(0.75 + self.rng.f64() / 2.0);
        let again = Instant::now() + wait;
        Schedule { regular: again, on_demand: again }
    }

    fn schedule(&mut self, answer: &AnnounceReply) -> Schedule {
        let interval_s = answer.interval_s.clamp(INTERVAL_MIN_S, INTERVAL_MAX_S);
        let demand_s = answer.min_interval_s.unwrap_or(DEMAND_DEFAULT_S.min(interval_s));
        let demand_s = demand_s.clamp(DEMAND_MIN_S, INTERVAL_MAX_S);
        let seconds = |count: u32| Duration::from_secs(count.into());
        let now = Instant::now();
        // A crowd that started together should not come back together.
        let spread = seconds(interval_s).mul_f64(self.rng.f64() / 10.0);
        Schedule {
            regular: now + seconds(interval_s.max(demand_s)) + spread,
            on_demand: now + seconds(demand_s),
        }
    }

    /// Announces every hash of the torrent to one tracker. One good answer is enough.
    async fn announce(&mut self, at: usize, event: Option<Event>) -> Result<AnnounceReply, String> {
        let announces = self.announces(&self.trackers[at], event);
        // A datagram may never have come; where there is somebody else to ask nobody waits long for it.
        let others = at + 1 < self.trackers.len();
        let patience = if others { Patience::Short } else { Patience::Full };
        let answer = self.trackers[at].ask(&self.client, &announces, patience).await?;
        if answer.tracker_id.is_some() {
            self.trackers[at].tracker_id.clone_from(&answer.tracker_id);
        }
        Ok(answer)
    }

    fn announces(&self, tracker: &Tracker, event: Option<Event>) -> Vec<Announce> {
        let state = *self.state.borrow();
        let numwant = match event {
            Some(Event::Stopped) => 0,
            Some(Event::Started | Event::Completed) | None if state.want_peers => PEERS_WANTED,
            Some(Event::Started | Event::Completed) | None => PEERS_WELCOME,
        };
        let announce = |&info_hash| Announce {
            info_hash,
            peer_id: self.peer_id,
            port: self.port,
            uploaded: state.uploaded,
            downloaded: state.downloaded,
            left: state.left,
            event,
            numwant: Some(numwant),
            key: Some(self.key.clone()),
            compact: true,
            tracker_id: tracker.tracker_id.clone(),
        };
        self.hashes.iter().map(announce).collect()
    }

    async fn say_stopped(&mut self) {
        let goodbyes: Vec<Vec<Announce>> = self
            .trackers
            .iter()
            .map(|tracker| self.announces(tracker, Some(Event::Stopped)))
            .collect();
        let client = &self.client;
        let known = self.trackers.iter_mut().zip(&goodbyes).filter(|(tracker, _)| tracker.knows_us);
        let told = known.map(|(tracker, bye)| tracker.ask(client, bye, Patience::Short));
        for answer in join_all(told).await {
            if let Err(why) = answer {
                tracing::debug!(%why, "a tracker was not told that we stop");
            }
        }
    }

    async fn report(&self, report: TrackerReport) {
        if self.reports.send(report).await.is_err() {
            tracing::trace!("nobody waits for tracker reports any more");
        }
    }
}

impl Tracker {
    /// Sends announces that differ in their hash alone; the answer is the sum of theirs.
    async fn ask(
        &mut self,
        client: &reqwest::Client,
        announces: &[Announce],
        patience: Patience,
    ) -> Result<AnnounceReply, String> {
        let answers = match &mut self.udp {
            Some(udp) => udp.ask(announces, patience).await,
            None => {
                let urls = announces.iter().map(|announce| announce.url(&self.url));
                join_all(urls.map(|url| http::ask(client, url))).await
            }
        };
        sum(answers)
    }
}

/// The URL, if we can announce to it.
fn supported(url: &str) -> Result<Url, &'static str> {
    let url = Url::parse(url).map_err(|_| "this is not a URL: correct it in the torrent")?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        "udp" if url.port().is_some() => Ok(url),
        "udp" => Err("the URL of a UDP tracker must name its port: correct it in the torrent"),
        _ => Err("only http, https and udp trackers are supported; the other trackers are used"),
    }
}

/// What the good answers come to; without one, why the last failed.
fn sum(answers: Vec<Result<AnnounceReply, String>>) -> Result<AnnounceReply, String> {
    let mut sum: Option<AnnounceReply> = None;
    let mut failure = String::new();
    for answer in answers {
        match (answer, &mut sum) {
            (Ok(answer), None) => sum = Some(answer),
            (Ok(answer), Some(sum)) => merge(sum, answer),
            (Err(why), _) => failure = why,
        }
    }
    sum.ok_or(failure)
}

/// Adds what a tracker answered for another name of the same torrent, or at another address.
fn merge(sum: &mut AnnounceReply, other: AnnounceReply) {
    let known: BTreeSet<_> = sum.peers.iter().copied().collect();
    sum.peers.extend(other.peers.into_iter().filter(|peer| !known.contains(peer)));
    sum.interval_s = sum.interval_s.max(other.interval_s);
    sum.min_interval_s = sum.min_interval_s.max(other.min_interval_s);
    // The same peers may be in both: their larger number is the one that is surely there.
    sum.seeders = sum.seeders.max(other.seeders);
    sum.leechers = sum.leechers.max(other.leechers);
    sum.warning = sum.warning.take().or(other.warning);
}

#[cfg(test)]
mod tests;
