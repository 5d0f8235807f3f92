//! What the launcher tells while it works; with `--json`, one of these a line.
//!
//! Every line is one JSON object with the key `event`, whose value is the variant's name in
//! kebab-case; the other keys are the variant's fields as named here. Fields are only ever added.
//! Bytes are plain numbers of bytes, rates are bytes per second, times are seconds. The last line is
//! `complete`, `exported`, `up-to-date`, `stopped`, `error`, or what the command was asked for (`checked`, `status`,
//! `verified`, `planned`, `neighbours`, `config`).

use crate::settings::Settings;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// An interrupted switch was finished before the command began.
    Recovered {
        /// The release that is installed now.
        version: String,
    },
    /// The sources were asked for news.
    Checked {
        /// The product.
        product: String,
        /// The channel that is followed.
        channel: String,
        /// The version that is installed, if any.
        installed: Option<String>,
        /// The version that the channel offers.
        available: String,
        /// Its sequence number.
        sequence: u64,
        /// True if the offer is newer than what is installed, and not held back.
        update: bool,
        /// True if the player went back from it: it comes only when asked for.
        held: bool,
        /// Whether it may come to this install: `now`, `later` (it goes to others first, `update --now` does not
        /// wait) or `paused` by its publisher.
        turn: &'static str,
        /// False if nobody confirms it now: no repository could be asked, or the head has expired.
        fresh: bool,
        /// Who said so: `repository`, `players` (other launchers, known or near), `bundle` (`--from`, `import`),
        /// or `kept` (heard before; nobody could be asked).
        heard_from: &'static str,
    },
    /// `lan`: a launcher of the product was found.
    Neighbour {
        /// Its IP address, with the interface where that belongs to it.
        address: String,
        /// What its player calls it, if others shall know.
        name: Option<String>,
        /// The version that it says it has; `None` if it has none yet, or does not say.
        installed: Option<String>,
        /// Its sequence number.
        sequence: Option<u64>,
        /// The version that its newest head, verified, offers on our channel.
        newest: Option<String>,
        /// Its sequence number.
        newest_sequence: Option<u64>,
        /// When that head was signed, in UTC.
        signed: Option<String>,
        /// What its head is worth: `valid`, `expired`, `older than ours`, `refused`, `unknown` (nothing
        /// can be verified here before the first install), or `none`.
        news: &'static str,
    },
    /// `lan`: everybody was told of.
    Neighbours {
        /// The product.
        product: String,
        /// How many there are.
        count: u64,
    },
    /// What is installed was revoked by its publisher.
    Revoked {
        /// The release.
        version: String,
        /// The release that `rollback` goes back to at once.
        #[serde(skip_serializing_if = "Option::is_none")]
        kept: Option<String>,
    },
    /// The launcher itself: what the publisher offers for this platform.
    Launcher {
        /// The version that runs.
        own: String,
        /// Its number.
        own_sequence: u64,
        /// The newest version.
        available: String,
        /// Its number.
        sequence: u64,
        /// `newest` runs here; `available` to be installed; `waiting` for the next start; `failed` to come up
        /// here.
        state: &'static str,
    },
    /// A newer launcher lies beside this one and is started the next time.
    LauncherUpdated {
        /// Its version.
        version: String,
        /// Its number.
        sequence: u64,
    },
    /// What will be done.
    Planned {
        /// The release.
        version: String,
        /// Files of the release.
        files: u64,
        /// Bytes that stay where they are.
        kept_bytes: u64,
        /// Bytes moved or copied from other files.
        reused_bytes: u64,
        /// Bytes of changed files that were found in old ones.
        found_bytes: u64,
        /// Bytes to fetch as they are.
        fetch_bytes: u64,
        /// What these come to if all of them come over HTTP, compressed where the release has it so.
        packed_bytes: u64,
        /// Bytes of the leaf index that were fetched for that.
        index_bytes: u64,
        /// Bytes of the documents that were fetched for it: head, manifest, torrent, lists.
        metadata_bytes: u64,
        /// Bytes of the patch.
        patch_bytes: u64,
        /// Bytes of the files that it makes.
        patched_bytes: u64,
        /// Bytes read from the disk.
        disk_read_bytes: u64,
        /// Bytes written to it.
        disk_write_bytes: u64,
        /// The most that the disk has to hold beyond what it holds now.
        extra_space_bytes: u64,
        /// What is free there, if the system says so.
        free_space_bytes: Option<u64>,
        /// Files to remove.
        removed_files: u64,
    },
    /// There is no room for the old and the new of all files: they are replaced batch by batch. From
    /// the first one on the folder is neither release until the last is in place.
    Bounded {
        /// The release.
        version: String,
        /// How many batches.
        batches: u64,
        /// The most that the disk has to hold beyond what it holds now.
        extra_space_bytes: u64,
    },
    /// `--explain`: how one file comes to be. Before `planned`.
    PlannedFile {
        /// The file.
        path: String,
        /// `keep`, `move`, `copy`, `make`, `patch`, `leaves` (parts of old files, the rest is fetched), `whole`
        /// (all of it is fetched) or `leave` (it is the player's, or of a component that is not wanted).
        way: &'static str,
        /// Its bytes.
        bytes: u64,
        /// Of these, how many are fetched.
        fetch_bytes: u64,
    },
    /// Files on the disk are being hashed.
    Checking {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// `fetch`: what the magnet link leads to is known and verified; now it is fetched.
    Found {
        /// The torrent's name.
        name: String,
        /// Its files.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// `lan host`: the room is open.
    Hosting {
        /// The page that shows who is there.
        page: String,
        /// The release over HTTP, laid out like a repository.
        url: String,
        /// A feed link that leads there.
        feed: String,
    },
    /// The swarm can reach us here.
    Listening {
        /// The addresses.
        addresses: Vec<String>,
    },
    /// Bytes are coming in; about four times a second.
    Progress(Progress),
    /// `export`: content is being written to the bundle, or found there and hashed.
    Exporting {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// `export`: the bundle is whole and on the disk.
    Exported {
        /// The release.
        version: String,
        /// The bundle.
        dir: PathBuf,
        /// Contents of the release, and of the patch that leads to it.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Of these, how many were not there before.
        written_bytes: u64,
    },
    /// Everything is fetched; the switch to the new release begins. From here on there is only
    /// forward.
    Committing {
        /// The release.
        version: String,
    },
    /// A file of the player's was in the way and has a new name.
    Aside {
        /// The old path, below the install.
        path: String,
        /// The new path.
        to: String,
    },
    /// After a rollback: this release, and any before it, comes back only when asked for.
    Held {
        /// The release.
        version: String,
    },
    /// Something that the player should know and that did not stop the work.
    Warning {
        /// In words.
        message: String,
    },
    /// While seeding: parts of a newer release that are here already are shared with those who fetch it.
    ServingAhead {
        /// The newer release.
        version: String,
        /// Bytes of it that are here.
        bytes: u64,
    },
    /// A release that is announced for later is fetched ahead.
    Preloading {
        /// The release.
        version: String,
    },
    /// It is here and verified; the update that brings it in takes moments.
    Preloaded {
        /// The release.
        version: String,
    },
    /// The files of `fetch --first` are there and verified; the rest is still to come, and with it
    /// executable bits.
    FirstReady,
    /// The release is installed (or the torrent fetched): every byte verified.
    Complete {
        /// The release, or the torrent's name.
        version: String,
        /// Time it took.
        seconds: f64,
        /// Bytes from peers, those on the LAN included.
        peers_bytes: u64,
        /// Bytes from peers on the LAN or this machine.
        lan_bytes: u64,
        /// Of the bytes from peers, what did not travel, as it came compressed.
        spared_bytes: u64,
        /// Bytes from web servers, or out of the bundle.
        http_bytes: u64,
        /// Bytes that were there before: kept, moved, copied, or fetched in an earlier run.
        reused_bytes: u64,
        /// Bytes received and thrown away.
        wasted_bytes: u64,
        /// Bytes sent to others.
        uploaded: u64,
    },
    /// There was nothing to do.
    UpToDate {
        /// Why.
        message: String,
    },
    /// The install is being seeded; at every change, at most once a second.
    Seeding {
        /// Peers connected.
        peers: usize,
        /// Of these, how many over QUIC.
        quic_peers: usize,
        /// Of these, how many over uTP.
        utp_peers: usize,
        /// Upload rate.
        up_rate: u64,
        /// Bytes sent since the start.
        uploaded: u64,
        /// Of these, what did not travel, as it went compressed.
        saved_bytes: u64,
        /// Seconds of processor time that compressing it took.
        packing_seconds: f64,
    },
    /// `verify`, `repair`: a file is not as released.
    Damaged {
        /// The file.
        path: String,
        /// True if it is not there at all.
        missing: bool,
        /// Its bytes in the release.
        bytes: u64,
    },
    /// `verify`: every file was read.
    Verified {
        /// The release.
        version: String,
        /// Files of the release.
        files: u64,
        /// Bytes read.
        bytes: u64,
        /// How many are damaged or missing.
        damaged: u64,
        /// How many are not as released because the player changed them, as the release allows.
        changed: u64,
    },
    /// `status`.
    Status {
        /// The folder.
        dir: PathBuf,
        /// The product.
        product: String,
        /// The channel that is followed.
        channel: String,
        /// The version that is installed, if any.
        version: Option<String>,
        /// Its sequence number.
        sequence: Option<u64>,
        /// Files.
        files: u64,
        /// Bytes.
        bytes: u64,
        /// Files whose size or time changed since they were installed, or that are gone.
        changed: u64,
        /// The release whose download or switch was interrupted, if any.
        pending: Option<String>,
        /// The release that is fetched ahead, as far as it is here, since it is announced for later.
        ahead: Option<String>,
        /// The release that `rollback` would go back to, if its files are kept.
        kept: Option<String>,
        /// The sequence number up to which updates are held back since a rollback.
        held: Option<u64>,
        /// `everyone`, `lan`, or `ask` when it was never decided.
        upload: String,
        /// Bytes sent to the local network since the install was made.
        uploaded_lan_bytes: u64,
        /// Bytes sent beyond it.
        uploaded_internet_bytes: u64,
        /// True if another launcher works on this install now.
        busy: bool,
    },
    /// `config`: what the player wants of every launcher here.
    Config {
        /// The settings by name.
        #[serde(flatten)]
        settings: Settings,
    },
    /// While the swarm can reach us: who is uploaded to from now on, by what the player wants and by what else runs.
    Uploading {
        /// `everyone`, `lan` or `nobody`.
        to: &'static str,
    },
    /// `run`: the game was started.
    Running {
        /// The release.
        version: String,
        /// The program, below the install.
        program: String,
    },
    /// `components list`: a part of the installed release that can be left out.
    Component {
        /// What `components add` and `remove` call it.
        name: String,
        /// True if all of it is there.
        installed: bool,
        /// True if who chose nothing gets it.
        default: bool,
        /// Its files.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The player stopped it.
    Stopped {
        /// How to go on.
        message: String,
    },
    /// It failed.
    Error {
        /// The exit code.
        code: u8,
        /// What happened.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// How far a download is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Bytes verified, of `total`.
    pub done: u64,
    /// Bytes of the release.
    pub total: u64,
    /// Download rate.
    pub down_rate: u64,
    /// Upload rate.
    pub up_rate: u64,
    /// Seconds to go, if that can be said.
    pub eta: Option<f64>,
    /// Peers connected.
    pub peers: usize,
    /// Of these, how many have everything.
    pub seeds: usize,
    /// Of the peers, how many are connected over QUIC.
    pub quic_peers: usize,
    /// Of the peers, how many are connected over uTP.
    pub utp_peers: usize,
    /// Bytes from peers, those on the LAN included.
    pub peers_bytes: u64,
    /// Bytes from peers on the LAN or this machine.
    pub lan_bytes: u64,
    /// Of the bytes from peers, what did not travel, as it came compressed.
    pub spared_bytes: u64,
    /// Bytes from web servers.
    pub http_bytes: u64,
    /// Bytes that were there before.
    pub reused_bytes: u64,
    /// Bytes sent to others.
    pub uploaded: u64,
}

/// Who is told. Called from the task that works: it must not block for long.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;
