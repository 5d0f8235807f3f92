//! Payload over HTTP: web seeds (BEP 19), one URL per file, and packs of many files. A `file:` URL is read where it
//! lies.
//!
//! [`fetch`] turns a span of pieces into ranges of files, gets each with one request on a connection
//! that is kept, and hands on whole blocks in batches. Which span, from whom, and how many at once is
//! the engine's business, and so is hashing: a web server is trusted no more than a peer. An answer
//! that is not exactly the range asked for is refused before its first byte is used.

use crate::geometry::{BLOCK_LEN, Block, Segment, Span};
use crate::ids::{FileIndex, PieceIndex};
use crate::io::buffers::{BUFFER_PAYLOAD_LEN, Buffer, BufferPool};
use crate::io::outgoing::guard;
use crate::metainfo::Info;
use crate::swarm::FetchEnd;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;
use tokio::sync::mpsc;
use url::Url;

/// Blocks per batch: what one pooled buffer holds.
pub const BATCH_BLOCKS_MAX: usize = BUFFER_PAYLOAD_LEN / BLOCK_LEN as usize;

/// A server that sends nothing for so long is given up: 15 s, less in tests.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

/// …and so is one that sends fewer bytes per second than this, for twice as long.
const TRICKLE_BYTES: u64 = 1024;

/// A connection that is not there after so long never will be.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections kept to one server, and for how long.
const IDLE_CONNECTIONS_MAX: usize = 4;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// We never wait longer than this because a server asked for it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Everything but the unreserved characters of RFC 3986: some servers read `+` as a space.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A place on the web that has a torrent's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebSeed {
    /// The files lie below (or, for a single file, at) this URL by the rules of BEP 19.
    Bep19(Url),
    /// Each file has a URL of its own, or is not there.
    PerFile {
        /// What to call it in messages.
        name: String,
        /// By [`FileIndex`]. Those with the scheme `file` are read from the disk.
        urls: Vec<Option<Url>>,
        /// Where the torrent's packs are, by number; empty if this source has none.
        packs: Vec<Url>,
    },
}

impl WebSeed {
    /// What to call it in messages.
    pub fn name(&self) -> &str {
        match self {
            Self::Bep19(url) => url.as_str(),
            Self::PerFile { name, .. } => name,
        }
    }

    /// Where the packs are, by number.
    pub fn packs(&self) -> &[Url] {
        match self {
            Self::Bep19(_) => &[],
            Self::PerFile { packs, .. } => packs,
        }
    }

    /// Where `file` is, if this seed has it.
    pub fn url_of(&self, info: &Info, file: FileIndex) -> Option<Url> {
        match self {
            Self::PerFile { urls, .. } => urls.get(file.get())?.clone(),
            Self::Bep19(base) if info.single_file && !base.path().ends_with('/') => {
                Some(base.clone())
            }
            Self::Bep19(base) => {
                let mut path = base.path().to_owned();
                if !path.ends_with('/') {
                    path.push('/');
                }
                path.extend(utf8_percent_encode(&info.name, ESCAPED));
                if !info.single_file {
                    for part in &info.files.get(file.get())?.path {
                        path.push('/');
                        path.extend(utf8_percent_encode(part, ESCAPED));
                    }
                }
                let mut url = base.clone();
                url.set_path(&path);
                Some(url)
            }
        }
    }
}

/// Why a web seed did not deliver. What came before the error was delivered.
#[derive(Debug, thiserror::Error)]
pub enum WebSeedError {
    /// 404 or 410: this file is not there.
    #[error("{url} is not there (HTTP {status})")]
    NotFound {
        /// The URL asked for.
        url: Box<str>,
        /// The answer's status.
        status: u16,
    },
    /// 401, 403 or 407: it is not for us.
    #[error("{url} is refused to us (HTTP {status})")]
    Forbidden {
        /// The URL asked for.
        url: Box<str>,
        /// The answer's status.
        status: u16,
    },
    /// 416, or the whole file instead of a part of it.
    #[error("{url} cannot be had in the ranges needed: {what}")]
    NoRange {
        /// The URL asked for.
        url: Box<str>,
        /// What the server did.
        what: String,
    },
    /// 429, 503 or another 5xx: later, perhaps.
    #[error("the server of {url} cannot deliver now (HTTP {status})")]
    Busy {
        /// The URL asked for.
        url: Box<str>,
        /// The answer's status.
        status: u16,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Any other status.
    #[error("unexpected answer HTTP {status} from {url}")]
    Status {
        /// The URL asked for.
        url: Box<str>,
        /// The answer's status.
        status: u16,
    },
    /// The answer is not what was asked for.
    #[error("wrong answer from {url}: {what}")]
    Reply {
        /// The URL asked for.
        url: Box<str>,
        /// In what respect.
        what: String,
    },
    /// No byte for [`STALL_TIMEOUT`].
    #[error("{url} sent nothing for {} s", STALL_TIMEOUT.as_secs())]
    Stalled {
        /// The URL asked for.
        url: Box<str>,
    },
    /// No connection, a broken one, a bad certificate, too many redirects.
    #[error("{url}: {what}")]
    Transport {
        /// The URL asked for.
        url: Box<str>,
        /// The whole chain of causes.
        what: String,
    },
    /// A file on the disk that is not there, or cannot be read.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: Box<str>,
        /// The system's reason.
        what: String,
    },
    /// The seed has no URL for a file of the span.
    #[error("this web seed does not have file number {file}")]
    NotOffered {
        /// The file.
        file: FileIndex,
    },
    /// A pack that is not there, or not what it should be.
    #[error("the pack {url} is of no use and is done without: {what}")]
    Pack {
        /// Its URL.
        url: Box<str>,
        /// What is wrong.
        what: String,
    },
    /// Nobody takes the blocks any more.
    #[error("the download was called off")]
    CalledOff,
}

/// A fetch that broke off.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct FetchError {
    /// At which file, if at one.
    pub file: Option<FileIndex>,
    /// Why.
    #[source]
    pub error: WebSeedError,
}

impl FetchError {
    /// What it means for the engine: whether the source is to be left alone for a while, or only this
    /// file of it.
    pub fn end(&self) -> FetchEnd {
        match (&self.error, self.file) {
            (
                WebSeedError::NotFound { .. }
                | WebSeedError::Forbidden { .. }
                | WebSeedError::NoRange { .. }
                | WebSeedError::File { .. }
                | WebSeedError::NotOffered { .. },
                Some(file),
            ) => FetchEnd::Absent(file),
            (WebSeedError::Pack { .. }, _) => FetchEnd::Unpackable,
            (WebSeedError::Busy { retry_after, .. }, _) => {
                FetchEnd::Failed { retry_after: *retry_after }
            }
            _ => FetchEnd::Failed { retry_after: None },
        }
    }
}

/// The client for web seeds and trackers. With `bind`, connections leave from that address.
///
/// On a system without certificates of its own (a bare container) http works and https fails with a
/// certificate error.
///
/// # Errors
/// When the system's TLS or resolver set-up cannot be used.
pub fn http_client(bind: Option<IpAddr>) -> Result<Client, reqwest::Error> {
    let builder = || {
        guard(Client::builder())
            .user_agent(concat!("updraft/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .local_address(bind.filter(|ip| !ip.is_unspecified()))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
    };
    builder().build().or_else(|error| {
        tracing::warn!(error = causes(&error), "no TLS certificates: https will not work");
        builder().tls_certs_only([]).build()
    })
}

/// Gets the blocks of `span` (inside the torrent) and sends them, in order and in batches of at most [`BATCH_BLOCKS_MAX`], to `sink`. A batch may hold blocks of several pieces. Waits for buffers
/// of `pool` and for room in `sink`: that is the caller's brake.
///
/// # Errors
/// The first thing that went wrong; complete blocks before it have been sent.
pub async fn fetch(
    client: &Client,
    pool: &BufferPool,
    seed: &WebSeed,
    info: &Info,
    span: Span,
    sink: &mpsc::Sender<Vec<(Block, Bytes)>>,
) -> Result<(), FetchError> {
    let mut assembler = Assembler::new(info, pool, sink, span);
    let mut file = None;
    let result = fetch_files(client, seed, info, &mut assembler, &mut file).await;
    let flushed = assembler.flush().await;
    result.and(flushed).map_err(|error| FetchError { file, error })
}

async fn fetch_files(
    client: &Client,
    seed: &WebSeed,
    info: &Info,
    assembler: &mut Assembler<'_>,
    at: &mut Option<FileIndex>,
) -> Result<(), WebSeedError> {
    while let Some((file, range)) = assembler.next_range().await? {
        *at = Some(file);
        let url = seed.url_of(info, file).ok_or(WebSeedError::NotOffered { file })?;
        let length = info.geometry.files()[file.get()].length;
        let mut body = Body::request(client, &url, range, length).await?;
        while let Some(chunk) = body.chunk().await? {
            assembler.push(&chunk).await?;
        }
    }
    Ok(())
}

/// An answer on its way: as many bytes as were asked for, or an error.
struct Body<'a> {
    url: &'a Url,
    from: Origin,
    /// Bytes to come.
    wanted: u64,
    got: u64,
    waited: Duration,
}

/// Where an answer comes from.
enum Origin {
    Server(Response),
    Disk(tokio::fs::File),
}

impl Origin {
    async fn chunk(&mut self, url: &Url, wanted: u64) -> Result<Option<Bytes>, WebSeedError> {
        match self {
            Self::Server(response) => {
                response.chunk().await.map_err(|error| transport(url, &error))
            }
            Self::Disk(file) => {
                let chunk = file::chunk(file, wanted).await;
                chunk.map_err(|error| file::failed(url.path().to_owned(), &error))
            }
        }
    }
}

impl<'a> Body<'a> {
    async fn request(
        client: &Client,
        url: &'a Url,
        range: Range<u64>,
        length: u64,
    ) -> Result<Self, WebSeedError> {
        let wanted = range.end - range.start;
        let from = match file::path_of(url) {
            Some(path) => Origin::Disk(file::open(path, &range, length).await?),
            None => Origin::Server(request(client, url, range, length).await?),
        };
        Ok(Self { url, from, wanted, got: 0, waited: Duration::ZERO })
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, WebSeedError> {
        let stalled = || WebSeedError::Stalled { url: self.url.as_str().into() };
        let asked = tokio::time::Instant::now();
        let chunk =
            tokio::time::timeout(STALL_TIMEOUT, self.from.chunk(self.url, self.wanted)).await;
        self.waited += asked.elapsed();
        let seconds = self.waited.as_secs();
        if self.waited > STALL_TIMEOUT * 2 && self.got < seconds * TRICKLE_BYTES {
            return Err(stalled());
        }
        let chunk = chunk.map_err(|_| stalled())??;
        let Some(chunk) = chunk else {
            let wanted = self.wanted;
            let early = || Err(reply(self.url, format!("it ends {wanted} bytes early")));
            return if wanted > 0 { early() } else { Ok(None) };
        };
        let Some(rest) = self.wanted.checked_sub(chunk.len() as u64) else {
            return Err(reply(self.url, "it goes on after the last byte asked for"));
        };
        self.wanted = rest;
        self.got += chunk.len() as u64;
        Ok(Some(chunk))
    }
}

/// Asks for a range of a file of `length` bytes; the answer's head has been checked.
async fn request(
    client: &Client,
    url: &Url,
    range: Range<u64>,
    length: u64,
) -> Result<Response, WebSeedError> {
    let whole = range == (0..length);
    // Compression would be undone by nobody here, and ranges are over the plain bytes.
    let mut request = client
        .get(url.clone())
        .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if !whole {
        request = request.header(header::RANGE, format!("bytes={}-{}", range.start, range.end - 1));
    }
    let response = tokio::time::timeout(STALL_TIMEOUT, request.send()).await;
    let response = response
        .map_err(|_| WebSeedError::Stalled { url: url.as_str().into() })?
        .map_err(|error| transport(url, &error))?;
    check_status(url, &response, whole)?;
    check_headers(url, response.headers(), &range, length, whole)?;
    Ok(response)
}

fn check_status(url: &Url, response: &Response, whole: bool) -> Result<(), WebSeedError> {
    let at: Box<str> = url.as_str().into();
    let code = response.status();
    let status = code.as_u16();
    Err(match code {
        StatusCode::OK if whole => return Ok(()),
        StatusCode::PARTIAL_CONTENT if !whole => return Ok(()),
        StatusCode::OK => {
            WebSeedError::NoRange { url: at, what: "the server ignores ranges".into() }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let what = "the server says it is shorter than the torrent says (HTTP 416)".into();
            WebSeedError::NoRange { url: at, what }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => WebSeedError::NotFound { url: at, status },
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED => WebSeedError::Forbidden { url: at, status },
        code if code == StatusCode::TOO_MANY_REQUESTS || code.is_server_error() => {
            // The form with a date is not worth a parser: the caller backs off by itself.
            let seconds = response.headers().get(header::RETRY_AFTER);
            let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let retry_after =
                seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
            WebSeedError::Busy { url: at, status, retry_after }
        }
        _ => WebSeedError::Status { url: at, status },
    })
}

fn check_headers(
    url: &Url,
    headers: &HeaderMap,
    range: &Range<u64>,
    length: u64,
    whole: bool,
) -> Result<(), WebSeedError> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|name| *name != "identity") {
        return Err(reply(url, format!("it is encoded as {encoding}")));
    }
    if !whole {
        let expected = format!("bytes {}-{}/", range.start, range.end - 1);
        let said = text(header::CONTENT_RANGE).unwrap_or("nothing");
        let total = said.strip_prefix(&expected);
        if !total.is_some_and(|total| total == "*" || total.parse() == Ok(length)) {
            let what = format!("asked for {expected}{length}, its Content-Range says {said}");
            return Err(reply(url, what));
        }
    }
    let expected = range.end - range.start;
    if let Some(said) = text(header::CONTENT_LENGTH).filter(|said| said.parse() != Ok(expected)) {
        return Err(reply(url, format!("it has {said} bytes instead of {expected}")));
    }
    Ok(())
}

fn reply(url: &Url, what: impl Into<String>) -> WebSeedError {
    WebSeedError::Reply { url: url.as_str().into(), what: what.into() }
}

fn transport(url: &Url, error: &reqwest::Error) -> WebSeedError {
    WebSeedError::Transport { url: url.as_str().into(), what: causes(error) }
}

/// The innermost causes say most: "connection refused", "certificate expired".
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut text = if source.is_none() { error.to_string() } else { String::new() };
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Puts a stream of files' bytes together to blocks: the one copy on payload's way.
struct Assembler<'a> {
    info: &'a Info,
    pool: &'a BufferPool,
    sink: &'a mpsc::Sender<Vec<(Block, Bytes)>>,
    /// What is still to come, front first.
    span: Span,
    /// Bytes of the current block that are in the buffer.
    filled: u32,
    buffer: Option<Buffer>,
    /// Where the next byte goes in the buffer.
    end: usize,
    /// Complete blocks in the buffer, one after the other.
    complete: Vec<Block>,
}

impl<'a> Assembler<'a> {
    fn new(
        info: &'a Info,
        pool: &'a BufferPool,
        sink: &'a mpsc::Sender<Vec<(Block, Bytes)>>,
        span: Span,
    ) -> Self {
        let complete = Vec::with_capacity(BATCH_BLOCKS_MAX);
        let (filled, end) = (0, 0);
        Self { info, pool, sink, span, filled, buffer: None, end, complete }
    }

    /// The block being filled; `None` after the last one.
    fn block(&mut self) -> Option<Block> {
        while self.span.start < self.span.end {
            let (piece, index) = self.span.start;
            if index < self.info.geometry.block_count(piece) {
                return Some(self.info.geometry.block(piece, index));
            }
            self.span.start = (PieceIndex(piece.0 + 1), 0);
        }
        None
    }

    /// What the current block needs next.
    fn segment(&mut self) -> Option<Segment> {
        let block = self.block()?;
        let (offset, len) = (block.offset + self.filled, block.len - self.filled);
        self.info.geometry.segments(block.piece, offset, len).next()
    }

    /// The file bytes to ask for next, as far as they go in one file and in the span. Fills gaps on
    /// the way to them with zeros.
    async fn next_range(&mut self) -> Result<Option<(FileIndex, Range<u64>)>, WebSeedError> {
        loop {
            match self.segment() {
                None => return Ok(None),
                Some(Segment::Pad { len }) => self.put(None, len as usize).await?,
                Some(Segment::File { file, offset, .. }) => {
                    let place = self.info.geometry.files()[file.get()];
                    let (last, blocks) = self.span.end;
                    let end = self.info.geometry.piece_start(last)
                        + u64::from(blocks) * u64::from(BLOCK_LEN);
                    let until = end.min(place.offset + place.length) - place.offset;
                    return Ok(Some((file, offset..until)));
                }
            }
        }
    }

    /// Takes bytes of the file that [`Self::next_range`] named, never more than its range.
    async fn push(&mut self, mut bytes: &[u8]) -> Result<(), WebSeedError> {
        while !bytes.is_empty() {
            // Gaps lie between files, so the rest of the chunk belongs to this segment's file.
            let len = self.segment().map_or(0, |segment| segment.len() as usize);
            assert!(len > 0, "the caller counts the bytes of its range");
            let (part, rest) = bytes.split_at(len.min(bytes.len()));
            bytes = rest;
            self.put(Some(part), part.len()).await?;
        }
        Ok(())
    }

    /// Adds `len` bytes, zeros if there are none, that end no later than the current block.
    async fn put(&mut self, bytes: Option<&[u8]>, len: usize) -> Result<(), WebSeedError> {
        let buffer = match &mut self.buffer {
            Some(buffer) => buffer,
            None => self.buffer.insert(self.pool.take().await),
        };
        let place = &mut buffer[self.end..self.end + len];
        match bytes {
            Some(bytes) => place.copy_from_slice(bytes),
            None => place.fill(0),
        }
        self.end += len;
        self.filled += u32::try_from(len).expect("at most a block");
        let block = self.block().expect("bytes were put into a block");
        if self.filled == block.len {
            self.complete.push(block);
            self.filled = 0;
            self.span.start.1 += 1;
            if self.complete.len() == BATCH_BLOCKS_MAX {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Sends the complete blocks. An incomplete one is dropped: called between blocks or at the end.
    async fn flush(&mut self) -> Result<(), WebSeedError> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        self.end = 0;
        if self.complete.is_empty() {
            return Ok(());
        }
        let bytes = buffer.freeze(..);
        let mut at = 0;
        let batch = self
            .complete
            .drain(..)
            .map(|block| {
                let start = at;
                at += block.len as usize;
                (block, bytes.slice(start..at))
            })
            .collect();
        drop(bytes);
        self.sink.send(batch).await.map_err(|_| WebSeedError::CalledOff)
    }
}

mod file;
mod packs;
pub use packs::{Pack, fetch_pack};

#[cfg(test)]
pub(super) mod test_server;
#[cfg(test)]
mod tests;
