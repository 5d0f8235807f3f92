//! A plain BitTorrent download of a .torrent file or a magnet link: no feed, no signatures, for any client's torrents.
//! All of its files or some, and some of them first. What was chosen is not remembered: each run fetches
//! what it is asked for and keeps what is there.

use crate::choice::Choice;
use crate::error::Error;
use crate::events::{Event, Sink};
use crate::lock::Lock;
use crate::magnet;
use crate::space;
use crate::stop::Stop;
use crate::transfer::{self, Network, torrent_error};
use crate::tree::{Node, Tree};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use updraft_manifests::path::{RelPath, is_launcher_folder};
use updraft_protocol::ids::{FileIndex, PieceIndex};
use updraft_protocol::io::{AddTorrent, Have, Priority, Session, TorrentHandle, WebSeed};
use updraft_protocol::metainfo::magnet::Magnet;
use updraft_protocol::metainfo::{Info, Metainfo, TORRENT_BYTES_MAX};
use url::Url;

/// Where resume data is kept, below the download folder: one folder for each torrent.
pub(crate) const STATE_FOLDER: &str = ".updraft-fetch";

/// Fetches what is chosen of the torrent, which is a file or a magnet link, into `dir/<name>`; with `stay`, seeds it until stopped.
///
/// # Errors
/// Everything in [`Error`].
pub async fn fetch(
    torrent: &str,
    dir: &Path,
    choice: &Choice,
    stay: bool,
    network: &Network,
    events: &Sink,
    stop: &Stop,
) -> Result<(), Error> {
    let since = Instant::now();
    let source = if magnet::is_link(torrent) {
        Source::Link(magnet::parse(torrent)?)
    } else {
        Source::File(Box::new(read(Path::new(torrent))?))
    };
    let mut choice = choice.clone();
    if let Source::Link(link) = &source {
        choice.select(&link.select);
    }
    let session = network.start(events).await?;
    let fetched = async {
        let tree = magnet::folder(dir)?;
        let run_with = magnet::Run { dir: &tree, session: &session, network, events, stop };
        let (meta, peers) = source.resolve(run_with).await?;
        let download = Download::new(meta, peers, tree, &choice)?;
        let _lock = Lock::take_at(&download.tree, &format!("{}/lock", download.state))?;
        run(&download, &session, stay, since, events, stop).await
    };
    let done = Box::pin(fetched).await;
    session.stop().await;
    done
}

/// Where a torrent comes from.
enum Source {
    File(Box<Metainfo>),
    Link(Magnet),
}

impl Source {
    /// The torrent, and peers to dial.
    async fn resolve(self, run: magnet::Run<'_>) -> Result<(Metainfo, Vec<SocketAddr>), Error> {
        match self {
            Self::File(meta) => Ok((*meta, run.network.peers.clone())),
            Self::Link(link) => match magnet::kept(&link, run.dir) {
                Some(meta) => Ok((meta, magnet::peers(&link, run.network).await)),
                None => magnet::find(&link, run).await,
            },
        }
    }
}

async fn run(
    download: &Download,
    session: &Session,
    stay: bool,
    since: Instant,
    events: &Sink,
    stop: &Stop,
) -> Result<(), Error> {
    let add = download.add()?;
    let handle = session.add(add).await.map_err(|error| Error::Failed(error.to_string()))?;
    get(download, &handle, since, events, stop).await?;
    if stay { transfer::seed(&handle, stop, events).await } else { Ok(()) }
}

async fn get(
    download: &Download,
    handle: &TorrentHandle,
    since: Instant,
    events: &Sink,
    stop: &Stop,
) -> Result<(), Error> {
    let (info, total) = (&download.meta.info, download.total());
    let pieces = info.geometry.piece_count();
    let split = transfer::fetch(handle, pieces, total, transfer::SILENCE_MAX, stop, events).await?;
    handle.sync().await.map_err(Error::disk("flush", &download.root))?;
    download.make_the_rest(events)?;
    events(split.complete(info.name.clone(), since));
    Ok(())
}

struct Download {
    meta: Metainfo,
    /// Peers to dial from the start.
    peers: Vec<SocketAddr>,
    /// How much each file is wanted.
    priorities: Vec<Priority>,
    tree: Tree,
    /// `dir/<name>`.
    root: PathBuf,
    /// Where this torrent's resume data is, below `dir`.
    state: String,
}

impl Download {
    fn new(
        meta: Metainfo,
        peers: Vec<SocketAddr>,
        tree: Tree,
        choice: &Choice,
    ) -> Result<Self, Error> {
        check_names(&meta.info)?;
        let priorities = choice.priorities(&meta.info)?;
        let state = format!("{STATE_FOLDER}/{}", meta.info.hashes.best());
        let folder = tree.path().join(&state);
        tree.make_folders(&state).map_err(Error::disk("make the folder", folder))?;
        let root = tree.path().join(&meta.info.name);
        Ok(Self { meta, peers, priorities, tree, root, state })
    }

    /// Bytes of the chosen files, and of others where they share a piece with them.
    fn total(&self) -> u64 {
        let geometry = &self.meta.info.geometry;
        let files = (0..).zip(&self.priorities).filter(|(_, priority)| priority.is_wanted());
        let pieces: BTreeSet<u32> =
            files.flat_map(|(file, _)| geometry.pieces_of(FileIndex(file))).collect();
        pieces.into_iter().map(|piece| u64::from(geometry.data_len(PieceIndex(piece)))).sum()
    }

    fn add(&self) -> Result<AddTorrent, Error> {
        let info = Arc::new(self.meta.info.clone());
        let files: Vec<PathBuf> = (0..info.files.len()).map(|at| self.path(at)).collect();
        let resume = self.tree.path().join(&self.state).join("resume");
        let have = if resume.exists() {
            Have::Resume
        } else if files.iter().any(|path| path.exists()) {
            Have::Check
        } else {
            self.check_space()?;
            Have::Nothing
        };
        let mut add = AddTorrent::new(Arc::clone(&info), files);
        let priorities = info.files.iter().zip(&self.priorities);
        add.priorities = priorities
            .map(|(file, &chosen)| match &file.symlink {
                None => chosen,
                Some(_) => Priority::UNWANTED,
            })
            .collect();
        add.have = have;
        add.executable_bits = true;
        add.resume = Some(resume);
        add.trackers.clone_from(&self.meta.trackers);
        add.web_seeds = web_sources(&self.meta.web_seeds).map(WebSeed::Bep19).collect();
        add.peers.clone_from(&self.peers);
        add.dht = true;
        Ok(add)
    }

    fn check_space(&self) -> Result<(), Error> {
        let (dir, need) = (self.tree.path(), self.total());
        match space::free(dir) {
            Some(free) if free < need => {
                Err(Error::Space { dir: dir.to_path_buf(), need, free, bounded: false })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn below(&self, file: usize) -> String {
        let info = &self.meta.info;
        if info.single_file {
            info.name.clone()
        } else {
            format!("{}/{}", info.name, info.files[file].path.join("/"))
        }
    }

    fn path(&self, file: usize) -> PathBuf {
        self.below(file).split('/').fold(self.tree.path().to_path_buf(), |at, part| at.join(part))
    }

    /// What holds no bytes and was chosen: empty files and links.
    fn make_the_rest(&self, events: &Sink) -> Result<(), Error> {
        for (at, file) in self.meta.info.files.iter().enumerate() {
            let has_bytes = file.length > 0 && file.symlink.is_none();
            if has_bytes || !self.priorities[at].is_wanted() {
                continue;
            }
            let below = self.below(at);
            let make = || {
                if self.tree.node(&below)? != Node::Missing {
                    return Ok(());
                }
                let folder = crate::tree::parent(&below);
                if !folder.is_empty() {
                    self.tree.make_folders(folder)?;
                }
                match &file.symlink {
                    Some(target) => {
                        let text = "../".repeat(file.path.len() - 1) + &target.join("/");
                        self.tree.make_symlink(&text, &below)
                    }
                    None => self.tree.create_file(&below).map(drop),
                }
            };
            match make() {
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                    events(Event::Warning { message: error.to_string() });
                }
                made => made.map_err(Error::disk("make", self.path(at)))?,
            }
        }
        Ok(())
    }
}

fn read(torrent: &Path) -> Result<Metainfo, Error> {
    let refused = |why: &dyn std::fmt::Display| {
        Error::Usage(format!("{} is no torrent that can be used: {why}", torrent.display()))
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(torrent)
        .map_err(|error| Error::Usage(format!("cannot read {}: {error}", torrent.display())))?;
    file.take(TORRENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Usage(format!("cannot read {}: {error}", torrent.display())))?;
    if bytes.len() > TORRENT_BYTES_MAX {
        return Err(refused(&format!("it has more than {TORRENT_BYTES_MAX} bytes")));
    }
    Metainfo::parse(&bytes).map_err(|error| refused(&error))
}

/// The parser refuses what leaves the folder; here goes what this system cannot name, and our own
/// folder.
fn check_names(info: &Info) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Usage(format!("the torrent cannot be saved: {why}")));
    if info.name.eq_ignore_ascii_case(STATE_FOLDER) || is_launcher_folder(&info.name) {
        return refuse(format!("its name is `{}`, which is the launcher's own", info.name));
    }
    if cfg!(windows) {
        let name = [info.name.clone()];
        let paths = info.files.iter().map(|file| file.path.as_slice());
        for path in std::iter::once(name.as_slice()).chain(paths) {
            if let Err(error) = RelPath::from_components(path) {
                return refuse(error.to_string());
            }
        }
    }
    Ok(())
}

impl From<updraft_protocol::io::TorrentError> for Error {
    fn from(error: updraft_protocol::io::TorrentError) -> Self {
        torrent_error(error)
    }
}

/// The web seeds of a torrent that are asked: a stranger's torrent names nothing else than web servers.
fn web_sources(urls: &[String]) -> impl Iterator<Item = Url> + '_ {
    let urls = urls.iter().filter_map(|url| Url::parse(url).ok());
    urls.filter(|url| matches!(url.scheme(), "http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_seeds_are_web_servers() {
        let urls =
            ["http://a.example/x", "file:///etc/passwd", "https://b.example/", "ftp://c/x", "d"];
        let asked: Vec<String> =
            web_sources(&urls.map(str::to_owned)).map(|url| url.to_string()).collect();
        assert_eq!(asked, ["http://a.example/x", "https://b.example/"]);
    }
}
