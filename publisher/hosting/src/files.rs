//! The repository over HTTP, and the BEP 19 view of its releases for stock clients.
//!
//! Only paths of the repository's layout are served, each recognised by its whole form, so there is
//! nothing to traverse. `/releases/<v2 info-hash>/<torrent name>/<path>` is a view of the objects.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use std::collections::HashMap;
use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use updraft_manifests::hash::{ContentHash, from_hex};
use updraft_protocol::metainfo::Info;

/// Bytes read from the disk at a time, per connection.
const CHUNK_BYTES: usize = 64 << 10;
/// The longest path of a request in bytes.
const PATH_LEN_MAX: usize = 8 << 10;

const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// The head is news: a cache may keep it for less than a minute.
const HEAD: &str = "public, max-age=30";
const REWRITTEN: &str = "public, max-age=3600";
const NEVER: &str = "no-store";

/// The releases that the BEP 19 view shows.
pub type Views = HashMap<ContentHash, Arc<View>>;

/// One release as a tree of files.
#[derive(Debug)]
pub struct View {
    name: String,
    files: HashMap<String, (Option<ContentHash>, u64)>,
    pad_max: u64,
}

impl View {
    /// The files of a torrent.
    pub fn of(info: &Info) -> Self {
        let files = info.files.iter().filter(|file| file.symlink.is_none());
        let files = files.map(|file| {
            (file.path.join("/"), (file.root.map(|root| ContentHash(root.0)), file.length))
        });
        Self {
            name: info.name.clone(),
            files: files.collect(),
            pad_max: u64::from(info.geometry.piece_length()),
        }
    }
}

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// A file of the repository.
    File { path: String, cache: &'static str, kind: &'static str, counts: bool },
    /// So many zero bytes.
    Zeros(u64),
}

/// What went out over HTTP.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of content.
    pub object_bytes: AtomicU64,
    /// Requests for files.
    pub requests: AtomicU64,
}

/// Where the files of a repository lie.
#[derive(Debug)]
pub enum Places {
    /// All in one folder, as they are published.
    Tree(PathBuf),
    /// In an installed game.
    Install {
        /// The folder of its documents.
        documents: PathBuf,
        /// Where each content lies, by its path in a repository.
        objects: HashMap<String, PathBuf>,
    },
}

impl Places {
    /// Where the file at a repository path would lie.
    fn find(&self, path: &str) -> Option<PathBuf> {
        match self {
            Self::Tree(dir) => Some(dir.join(path)),
            Self::Install { objects, .. } if path.starts_with("objects/") => {
                objects.get(path).cloned()
            }
            Self::Install { documents, .. } => Some(documents.join(path)),
        }
    }
}

/// Answers a request for `path` (as it stands in the request line) in the repository at `places`.
pub async fn answer(
    places: &Places,
    views: &Views,
    counters: &Arc<Counters>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        let mut response =
            plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let Some(target) = target(path, views) else {
        return plain(StatusCode::NOT_FOUND, "there is nothing here\n");
    };
    let wants_body = method == Method::GET;
    match target {
        Target::Zeros(len) => zeros(len, headers, wants_body),
        Target::File { path, cache, kind, counts } => {
            let counters = counts.then(|| Arc::clone(counters));
            let Some(place) = places.find(&path) else {
                return plain(StatusCode::NOT_FOUND, "there is nothing here\n");
            };
            match file(&place, cache, kind, headers, wants_body, counters).await {
                Ok(response) => response,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    plain(StatusCode::NOT_FOUND, "there is nothing here\n")
                }
                Err(error) => {
                    tracing::warn!(%error, path, "cannot serve a file");
                    plain(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n")
                }
            }
        }
    }
}

fn target(raw: &str, views: &Views) -> Option<Target> {
    if raw.len() > PATH_LEN_MAX {
        return None;
    }
    let decoded = percent_decode_str(raw).decode_utf8().ok()?;
    let path = decoded.strip_prefix('/')?;
    let toml = |path: String, cache| {
        Some(Target::File { path, cache, kind: "application/toml", counts: false })
    };
    if path == "head.toml" {
        return toml(path.to_owned(), HEAD);
    }
    let (folder, rest) = path.split_once('/')?;
    match folder {
        "root" => {
            let number: u64 = rest.strip_suffix(".toml")?.parse().ok()?;
            // Formatted again: `+1` and `01` are other spellings of 1.
            toml(format!("root/{number}.toml"), IMMUTABLE)
        }
        "manifests" => {
            toml(format!("manifests/{}.toml", hash(rest.strip_suffix(".toml")?)?), REWRITTEN)
        }
        "patchlists" => {
            toml(updraft_manifests::patchlist::path(&hash(rest.strip_suffix(".toml")?)?), IMMUTABLE)
        }
        "torrents" => Some(Target::File {
            path: format!("torrents/{}.torrent", hash(rest.strip_suffix(".torrent")?)?),
            cache: REWRITTEN,
            kind: "application/x-bittorrent",
            counts: false,
        }),
        "indexes" => Some(aside(updraft_manifests::manifest::index_path(&hash(rest)?))),
        "deltas" => Some(aside(updraft_manifests::patchlist::delta_path(&hash(rest)?))),
        "packlists" => Some(aside(updraft_manifests::packs::list_path(&hash(rest)?))),
        "launchers" => {
            let sha256 = hash(rest.strip_suffix(".zip")?)?;
            Some(aside(updraft_manifests::launcher::Archive { sha256, length: 0 }.path()))
        }
        "packs" => Some(content(updraft_manifests::packs::path(&hash(rest)?))),
        "objects" => {
            let (root, length) = rest.split_once('-')?;
            Some(object(hash(root)?, length.parse().ok()?))
        }
        "releases" => {
            let (v2, rest) = rest.split_once('/')?;
            let view = views.get(&hash(v2)?)?;
            let path = rest.strip_prefix(view.name.as_str())?.strip_prefix('/')?;
            if let Some((root, length)) = view.files.get(path) {
                return Some(root.map_or(Target::Zeros(0), |root| object(root, *length)));
            }
            // BEP 47 pad files, which stock clients ask for like any other file.
            let len = path.strip_prefix(".pad/")?.parse().ok()?;
            (len <= view.pad_max).then_some(Target::Zeros(len))
        }
        _ => None,
    }
}

/// A side file: named by its content, and nothing that players install.
fn aside(path: String) -> Target {
    Target::File { path, cache: IMMUTABLE, kind: "application/octet-stream", counts: false }
}

fn object(root: ContentHash, length: u64) -> Target {
    content(updraft_manifests::manifest::object_path(&root, length))
}

fn content(path: String) -> Target {
    Target::File { path, cache: IMMUTABLE, kind: "application/octet-stream", counts: true }
}

fn hash(text: &str) -> Option<ContentHash> {
    from_hex(text).map(ContentHash)
}

/// A short text that no cache keeps.
pub fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(NEVER));
    response
}

async fn file(
    path: &PathBuf,
    cache: &'static str,
    kind: &'static str,
    headers: &HeaderMap,
    wants_body: bool,
    counters: Option<Arc<Counters>>,
) -> io::Result<Response<Body>> {
    let mut file = File::open(path).await?;
    let metadata = file.metadata().await?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let len = metadata.len();
    // Names of immutable files are their content; others are told apart by size and time.
    let etag = if cache == IMMUTABLE {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("\"{name}\"")
    } else {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        format!("\"{len:x}-{:x}\"", since.map_or(0, |since| since.as_nanos()))
    };
    let mut response = respond(len, Some(&etag), headers);
    let (status, range) = (response.status(), range_of(&response));
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    let Some((start, end)) = range.filter(|_| status.is_success()) else {
        return Ok(response);
    };
    if wants_body && end > start {
        if start > 0 {
            file.seek(SeekFrom::Start(start)).await?;
        }
        *response.body_mut() = stream(file, end - start, counters);
    }
    Ok(response)
}

/// `len` bytes of `file` from where it stands, read as the client takes them.
fn stream(file: File, len: u64, counters: Option<Arc<Counters>>) -> Body {
    let state = (file, len, counters);
    Body::from_stream(futures_util::stream::try_unfold(
        state,
        async |(mut file, left, counters)| {
            if left == 0 {
                return Ok::<_, io::Error>(None);
            }
            let take = usize::try_from(left.min(CHUNK_BYTES as u64)).expect("at most a chunk");
            let mut chunk = Vec::with_capacity(take);
            (&mut file).take(take as u64).read_to_end(&mut chunk).await?;
            if chunk.is_empty() {
                // Shorter than it said: the client must notice, so the connection breaks.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(counters) = &counters {
                counters.object_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            let left = left - chunk.len() as u64;
            Ok(Some((Bytes::from(chunk), (file, left, counters))))
        },
    ))
}

fn zeros(len: u64, headers: &HeaderMap, wants_body: bool) -> Response<Body> {
    let mut response = respond(len, None, headers);
    if let Some((start, end)) =
        range_of(&response).filter(|_| wants_body && response.status().is_success())
    {
        let len = usize::try_from(end - start).unwrap_or(0);
        *response.body_mut() = Body::from(vec![0; len]);
    }
    response
}

/// First byte and the one after the last, kept beside the response it was decided for.
#[derive(Clone, Copy)]
struct Span(u64, u64);

fn range_of(response: &Response<Body>) -> Option<(u64, u64)> {
    response.extensions().get::<Span>().map(|span| (span.0, span.1))
}

/// Status and headers for a file of `len` bytes: 200, 206, 304 or 416 (RFC 9110).
fn respond(len: u64, etag: Option<&str>, headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let out = response.headers_mut();
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(value) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        out.insert(header::ETAG, value);
    }
    if let (Some(etag), Some(known)) = (etag, text(header::IF_NONE_MATCH))
        && known
            .split(',')
            .any(|tag| tag.trim().trim_start_matches("W/") == etag || tag.trim() == "*")
    {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    // A range of another version of the file is of no use: the whole is sent.
    let same_version = match text(header::IF_RANGE) {
        None => true,
        Some(tag) => etag == Some(tag.trim()),
    };
    let asked = text(header::RANGE).filter(|_| same_version);
    let (status, span) = match asked.map_or(Asked::All, |range| parse_range(range, len)) {
        Asked::All => (StatusCode::OK, Span(0, len)),
        Asked::Part(start, end) => {
            let value = format!("bytes {start}-{}/{len}", end - 1);
            let value = HeaderValue::from_str(&value).expect("digits are header text");
            out.insert(header::CONTENT_RANGE, value);
            (StatusCode::PARTIAL_CONTENT, Span(start, end))
        }
        Asked::Outside => {
            let value =
                HeaderValue::from_str(&format!("bytes */{len}")).expect("digits are header text");
            out.insert(header::CONTENT_RANGE, value);
            (StatusCode::RANGE_NOT_SATISFIABLE, Span(0, 0))
        }
    };
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(span.1 - span.0));
    *response.status_mut() = status;
    response.extensions_mut().insert(span);
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    /// First byte, and the one after the last.
    Part(u64, u64),
    Outside,
}

/// One range of bytes. What is no such thing, or several, is ignored, as RFC 9110 allows.
fn parse_range(text: &str, len: u64) -> Asked {
    let Some(spec) = text.trim().strip_prefix("bytes=") else {
        return Asked::All;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Asked::All;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Asked::All,
        (Some(first), _) if first >= len && (last.is_empty() || number(last).is_some()) => {
            Asked::Outside
        }
        (Some(first), Some(last)) => Asked::Part(first, last.saturating_add(1).min(len)),
        (Some(first), None) if last.is_empty() => Asked::Part(first, len),
        (None, Some(0)) if first.is_empty() => Asked::Outside,
        (None, Some(_)) if first.is_empty() && len == 0 => Asked::Outside,
        (None, Some(suffix)) if first.is_empty() => Asked::Part(len.saturating_sub(suffix), len),
        _ => Asked::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn ranges() {
        for (text, len, expected) in [
            ("bytes=0-0", 10, Asked::Part(0, 1)),
            ("bytes=2-", 10, Asked::Part(2, 10)),
            ("bytes=2-99", 10, Asked::Part(2, 10)),
            ("bytes=-3", 10, Asked::Part(7, 10)),
            ("bytes=-30", 10, Asked::Part(0, 10)),
            ("bytes=9-99999999999999999999999", 10, Asked::Part(9, 10)),
            ("bytes=10-", 10, Asked::Outside),
            ("bytes=10-12", 10, Asked::Outside),
            ("bytes=-0", 10, Asked::Outside),
            ("bytes=-1", 0, Asked::Outside),
            ("bytes=0-", 0, Asked::Outside),
            ("bytes=5-4", 10, Asked::All),
            ("bytes=0-1,3-4", 10, Asked::All),
            ("bytes=a-b", 10, Asked::All),
            ("bytes=-", 10, Asked::All),
            ("bytes=+1-2", 10, Asked::All),
            ("lines=1-2", 10, Asked::All),
        ] {
            assert_eq!(parse_range(text, len), expected, "{text}");
        }
    }

    #[test]
    fn only_the_layout() {
        let hash = "ab".repeat(32);
        let view = View {
            name: "game".into(),
            files: [("a b/ü".to_owned(), (Some(ContentHash([0xab; 32])), 5))].into(),
            pad_max: 16_384,
        };
        let views = Views::from([(ContentHash([0xab; 32]), Arc::new(view))]);
        let path_of = |path: &str| match target(path, &views)? {
            Target::File { path, .. } => Some(path),
            Target::Zeros(len) => Some(len.to_string()),
        };
        assert_eq!(path_of("/head.toml").unwrap(), "head.toml");
        assert_eq!(path_of("/root/01.toml").unwrap(), "root/1.toml");
        let object = format!("objects/{hash}-5");
        assert_eq!(path_of(&format!("/{object}")).unwrap(), object);
        assert_eq!(path_of(&format!("/releases/{hash}/game/a%20b/%C3%BC")).unwrap(), object);
        assert_eq!(path_of(&format!("/releases/{hash}/game/.pad/100")).unwrap(), "100");
        for bad in [
            "/",
            "",
            "/updraft.toml",
            "/../keys/root.key",
            "/objects/../../keys/root.key",
            "/root/../head.toml",
            "/root/1.toml/",
            "/%2e%2e/head.toml",
            "/manifests/x.toml",
            "//head.toml",
            "/objects/.new-x",
            "/%ff",
            &format!("/releases/{hash}/game/../../x"),
            &format!("/releases/{hash}/game/.pad/16385"),
            &format!("/releases/{hash}/other/a"),
            &format!("/objects/{}-5", hash.to_uppercase()),
        ] {
            assert_eq!(path_of(bad), None, "{bad}");
        }
    }

    async fn get(
        dir: &Path,
        method: Method,
        headers: &[(header::HeaderName, &str)],
    ) -> (u16, HeaderMap, Vec<u8>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let counters = Arc::default();
        let path = format!("/objects/{}-10", "ab".repeat(32));
        let response =
            answer(&Places::Tree(dir.into()), &Views::new(), &counters, &method, &path, &map).await;
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1000).await.unwrap().to_vec();
        (parts.status.as_u16(), parts.headers, body)
    }

    #[tokio::test]
    async fn answers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("objects")).unwrap();
        let name = format!("{}-10", "ab".repeat(32));
        std::fs::write(dir.path().join("objects").join(&name), "0123456789").unwrap();
        let (status, headers, body) = get(dir.path(), Method::GET, &[]).await;
        assert_eq!((status, body.as_slice()), (200, b"0123456789".as_slice()));
        let etag = headers[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(headers[header::CACHE_CONTROL], IMMUTABLE);
        let (status, headers, body) =
            get(dir.path(), Method::GET, &[(header::RANGE, "bytes=2-4")]).await;
        assert_eq!((status, body.as_slice()), (206, b"234".as_slice()));
        assert_eq!(headers[header::CONTENT_RANGE], "bytes 2-4/10");
        assert_eq!(headers[header::CONTENT_LENGTH], "3");
        let (status, headers, body) =
            get(dir.path(), Method::GET, &[(header::RANGE, "bytes=10-")]).await;
        assert_eq!((status, body.len()), (416, 0));
        assert_eq!(headers[header::CONTENT_RANGE], "bytes */10");
        let (status, headers, body) = get(dir.path(), Method::HEAD, &[]).await;
        assert_eq!((status, body.len()), (200, 0));
        assert_eq!(headers[header::CONTENT_LENGTH], "10");
        assert_eq!(get(dir.path(), Method::GET, &[(header::IF_NONE_MATCH, &etag)]).await.0, 304);
        let other = [(header::RANGE, "bytes=2-4"), (header::IF_RANGE, "\"x\"")];
        assert_eq!(get(dir.path(), Method::GET, &other).await.0, 200);
        let same = [(header::RANGE, "bytes=2-4"), (header::IF_RANGE, etag.as_str())];
        assert_eq!(get(dir.path(), Method::GET, &same).await.0, 206);
        assert_eq!(get(dir.path(), Method::POST, &[]).await.0, 405);
        std::fs::remove_dir_all(dir.path().join("objects")).unwrap();
        assert_eq!(get(dir.path(), Method::GET, &[]).await.0, 404);
    }

    #[tokio::test]
    async fn an_installed_game_has_its_contents_by_name_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (game, documents) = (dir.path().join("game.bin"), dir.path().join("documents"));
        std::fs::write(&game, "content").unwrap();
        std::fs::create_dir_all(documents.join("objects")).unwrap();
        std::fs::write(documents.join("head.toml"), "head").unwrap();
        let object = format!("objects/{}-7", "ab".repeat(32));
        std::fs::write(documents.join(format!("objects/{}-8", "ab".repeat(32))), "x").unwrap();
        let places = Places::Install { documents, objects: [(object.clone(), game)].into() };
        let get = async |path: &str| {
            let counters = Arc::default();
            let (views, none) = (Views::new(), HeaderMap::new());
            let response = answer(&places, &views, &counters, &Method::GET, path, &none).await;
            let status = response.status().as_u16();
            (status, axum::body::to_bytes(response.into_body(), 100).await.unwrap())
        };
        assert_eq!(get(&format!("/{object}")).await, (200, "content".into()));
        assert_eq!(get("/head.toml").await, (200, "head".into()));
        assert_eq!(get(&format!("/objects/{}-8", "ab".repeat(32))).await.0, 404);
    }
}
