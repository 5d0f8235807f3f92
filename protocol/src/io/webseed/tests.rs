//! Against a server on 127.0.0.1, honest and not.

use super::test_server::{Answer, Server, range, response, target};
use super::*;
use crate::geometry::{FileSpan, Geometry};
use crate::ids::{InfoHash, InfoHashes};
use crate::metainfo::FileEntry;
use std::collections::BTreeMap;

const PIECE_LEN: u32 = 32_768;

pub(super) fn info(name: &str, paths: &[&str], lengths: &[u64], aligned: bool) -> Info {
    let mut at = 0u64;
    let spans: Vec<_> = lengths
        .iter()
        .map(|&length| {
            if aligned && length > 0 {
                at = at.next_multiple_of(PIECE_LEN.into());
            }
            at += length;
            FileSpan { offset: at - length, length }
        })
        .collect();
    let file = |(path, &length): (&&str, &u64)| FileEntry {
        path: path.split('/').map(str::to_owned).collect(),
        length,
        executable: false,
        hidden: false,
        symlink: None,
        root: None,
        layer: Vec::new(),
    };
    Info {
        raw: Bytes::new(),
        hashes: InfoHashes { v1: Some(InfoHash([1; 20])), v2: None },
        name: name.into(),
        private: false,
        single_file: paths == [name],
        files: paths.iter().zip(lengths).map(file).collect(),
        geometry: Geometry::new(PIECE_LEN, at, spans).unwrap(),
        v1_pieces: None,
    }
}

pub(super) fn content(file: usize, len: u64) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(len).unwrap()];
    fastrand::Rng::with_seed(file as u64).fill(&mut content);
    content
}

/// What the piece space must hold.
fn space(info: &Info) -> Vec<u8> {
    let mut space = vec![0; usize::try_from(info.geometry.total()).unwrap()];
    for (file, span) in info.geometry.files().iter().enumerate() {
        let start = usize::try_from(span.offset).unwrap();
        let bytes = content(file, span.length);
        space[start..start + bytes.len()].copy_from_slice(&bytes);
    }
    space
}

/// An honest server of these files, by path.
pub(super) fn honest(files: BTreeMap<String, Vec<u8>>) -> impl Fn(&str) -> Answer + Send + Sync {
    move |request| {
        let Some(file) = files.get(target(request)) else {
            return Answer::Keep(response(404, "", b"no"));
        };
        Answer::Keep(match range(request) {
            None => response(200, "", file),
            Some(range) => {
                let total = file.len();
                let said =
                    format!("Content-Range: bytes {}-{}/{total}\r\n", range.start, range.end - 1);
                response(206, &said, &file[range])
            }
        })
    }
}

pub(super) type Blocks = Vec<(Block, Bytes)>;

async fn run(seed: &WebSeed, info: &Info, span: Span) -> (Blocks, Result<(), WebSeedError>) {
    let client = http_client(None).unwrap();
    let pool = BufferPool::new(2);
    let (sink, mut batches) = mpsc::channel::<Blocks>(1);
    let collect = async {
        let mut blocks = Vec::new();
        while let Some(batch) = batches.recv().await {
            assert!(batch.len() <= BATCH_BLOCKS_MAX);
            // Copied so that the buffers go back to the pool.
            blocks
                .extend(batch.iter().map(|(block, bytes)| (*block, Bytes::copy_from_slice(bytes))));
        }
        blocks
    };
    let fetching = async move {
        let result = fetch(&client, &pool, seed, info, span, &sink).await;
        assert_eq!(pool.available(), 2 - usize::from(sink.capacity() == 0), "no buffer is kept");
        drop(sink);
        result.map_err(|failure| failure.error)
    };
    tokio::join!(collect, fetching)
}

pub(super) fn assert_blocks(info: &Info, span: Span, blocks: &[(Block, Bytes)]) {
    let space = space(info);
    let expected: Vec<Block> = info.geometry.blocks_of(span).collect();
    assert_eq!(blocks.iter().map(|(block, _)| *block).collect::<Vec<_>>(), expected);
    for (block, bytes) in blocks {
        let start = usize::try_from(info.geometry.piece_start(block.piece)).unwrap();
        let start = start + block.offset as usize;
        assert!(bytes == &space[start..start + block.len as usize], "{block:?}");
    }
}

#[tokio::test]
async fn any_span_of_any_layout() {
    let paths = ["a", "ä +&/x y#?%41", "empty", "b/c"];
    let lengths = [100_000, 5, 0, 700_001];
    let served = |file: usize| content(file, lengths[file]);
    let files = BTreeMap::from([
        ("/top/My%20Game/a".to_owned(), served(0)),
        ("/top/My%20Game/%C3%A4%20%2B%26/x%20y%23%3F%2541".to_owned(), served(1)),
        ("/top/My%20Game/b/c".to_owned(), served(3)),
    ]);
    let server = Server::start(honest(files)).await;
    for aligned in [false, true] {
        let info = info("My Game", &paths, &lengths, aligned);
        let all = 0..info.geometry.piece_count();
        for base in ["top", "top/"] {
            let seed = WebSeed::Bep19(server.url.join(base).unwrap());
            let whole = [all.clone(), 0..1, 2..5, 3..4, 4..all.end, all.end - 1..all.end, 2..2];
            let parts = [((0, 1), (1, 1)), ((1, 1), (2, 0)), ((0, 0), (0, 1)), ((3, 1), (5, 1))]
                .map(|((from, at), (to, end))| Span {
                    start: (PieceIndex(from), at),
                    end: (PieceIndex(to), end),
                });
            for span in whole.map(Span::of_pieces).into_iter().chain(parts) {
                let (blocks, result) = run(&seed, &info, span).await;
                result.unwrap();
                assert_blocks(&info, span, &blocks);
            }
        }
    }
    let whole = server.requests().iter().filter(|request| range(request).is_none()).count();
    assert!(whole > 0 && whole < server.requests().len(), "no Range header for whole files");
    // Ranges are of what is stored, and nothing may be packed on the way.
    let plain = |request: &String| request.to_lowercase().contains("accept-encoding: identity\r\n");
    assert!(server.requests().iter().all(plain));
    assert_eq!(server.connections(), 40, "one connection per fetch that needs any");
}

#[tokio::test]
async fn single_files_and_one_url_per_file() {
    let info = info("one.bin", &["one.bin"], &[50_000], false);
    let paths = ["/at/this/url", "/dir/one.bin", "/objects/xyz-50000"];
    let files = paths.map(|path| (path.to_owned(), content(0, 50_000)));
    let server = Server::start(honest(files.into())).await;
    let url = |path: &str| server.url.join(path).unwrap();
    let per_file = |url| WebSeed::PerFile { name: "origin".into(), urls: vec![url], packs: vec![] };
    for seed in [
        WebSeed::Bep19(url("at/this/url")),
        WebSeed::Bep19(url("dir/")),
        per_file(Some(url("objects/xyz-50000"))),
    ] {
        let (blocks, result) = run(&seed, &info, Span::of_pieces(0..2)).await;
        result.unwrap();
        assert_blocks(&info, Span::of_pieces(0..2), &blocks);
    }
    let absent = per_file(None);
    let (_, result) = run(&absent, &info, Span::of_pieces(0..2)).await;
    assert!(matches!(result, Err(WebSeedError::NotOffered { .. })));
}

/// The error for pieces 1..3 of a file of 100 000 bytes when the server answers like this, and how
/// many blocks came before it.
async fn hostile(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (usize, WebSeedError) {
    let info = info("f", &["f"], &[100_000], false);
    let server = Server::start(answer).await;
    let seed = WebSeed::Bep19(server.url.join("f").unwrap());
    let (blocks, result) = run(&seed, &info, Span::of_pieces(1..3)).await;
    assert_blocks_prefix(&info, &blocks);
    (blocks.len(), result.unwrap_err())
}

fn assert_blocks_prefix(info: &Info, blocks: &[(Block, Bytes)]) {
    for (number, (block, _)) in blocks.iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        assert_eq!(*block, info.geometry.block(PieceIndex(1 + number / 2), number % 2));
    }
}

const RANGE: &str = "Content-Range: bytes 32768-98303/100000\r\n";

#[tokio::test]
async fn wrong_answers_are_refused_before_their_first_byte() {
    let refused = |headers: &'static str, len: usize, expected: &'static str| async move {
        let (blocks, error) =
            hostile(move |_| Answer::Keep(response(206, headers, &vec![0; len]))).await;
        assert_eq!(blocks, 0);
        let text = error.to_string();
        assert!(matches!(error, WebSeedError::Reply { .. }) && text.contains(expected), "{text}");
        assert!(text.contains("http://127.0.0.1:"), "{text}");
    };
    refused("", 65_536, "Content-Range says nothing").await;
    refused("Content-Range: bytes 0-65535/100000\r\n", 65_536, "bytes 0-65535").await;
    refused("Content-Range: bytes 32768-98303/100001\r\n", 65_536, "/100001").await;
    refused("Content-Range: bytes 32768-98302/100000\r\n", 65_535, "98302").await;
    refused(RANGE, 65_535, "65535 bytes instead of 65536").await;
    refused("Content-Range: bytes 32768-98303/*\r\nContent-Encoding: gzip\r\n", 65_536, "gzip")
        .await;
}

#[tokio::test]
async fn statuses_have_types() {
    let get = |status: u16, headers: &'static str| async move {
        hostile(move |_| Answer::Keep(response(status, headers, b"sorry"))).await.1
    };
    let error = get(404, "").await;
    assert!(matches!(error, WebSeedError::NotFound { status: 404, .. }));
    assert!(matches!(get(403, "").await, WebSeedError::Forbidden { .. }));
    assert!(matches!(get(416, "").await, WebSeedError::NoRange { .. }));
    assert!(matches!(get(200, "").await, WebSeedError::NoRange { .. }));
    assert!(matches!(get(418, "").await, WebSeedError::Status { status: 418, .. }));
    assert!(matches!(get(500, "").await, WebSeedError::Busy { retry_after: None, .. }));
    let end = |error| FetchError { file: Some(FileIndex(3)), error }.end();
    let failed = |retry_after| FetchEnd::Failed { retry_after };
    let busy = get(429, "Retry-After: 7\r\n").await;
    assert_eq!(end(busy), failed(Some(Duration::from_secs(7))));
    let later = get(503, "Retry-After: 99999999\r\n").await;
    assert_eq!(end(later), failed(Some(RETRY_AFTER_MAX)));
    assert_eq!(end(get(418, "").await), failed(None));
    assert_eq!(end(get(404, "").await), FetchEnd::Absent(FileIndex(3)));
}

#[tokio::test]
async fn bodies_of_the_wrong_length() {
    let head = format!("HTTP/1.1 206 X\r\n{RANGE}");
    let short = format!("{head}Content-Length: 65536\r\n\r\n");
    let (blocks, error) =
        hostile(move |_| Answer::Close([short.as_bytes(), &[7; 40_000]].concat())).await;
    assert_eq!(blocks, 2, "what was whole is delivered");
    assert!(matches!(error, WebSeedError::Transport { .. }), "{error}");

    let cut = format!("{head}Connection: close\r\n\r\n");
    let (blocks, error) = hostile({
        let cut = cut.clone();
        move |_| Answer::Close([cut.as_bytes(), &[7; 40_000]].concat())
    })
    .await;
    assert_eq!(blocks, 2);
    assert!(error.to_string().contains("25536 bytes early"), "{error}");

    let (blocks, error) = hostile(move |_| Answer::Endless(cut.clone().into_bytes())).await;
    assert!(blocks <= 4);
    assert!(error.to_string().contains("goes on after the last byte"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let (blocks, error) = hostile(|request| {
        let number: u32 = target(request).trim_start_matches("/f").parse().unwrap_or(0);
        Answer::Keep(response(302, &format!("Location: /f{}\r\n", number + 1), b""))
    })
    .await;
    assert_eq!(blocks, 0);
    assert!(error.to_string().contains("sent on too many times"), "{error}");

    let file = content(0, 100_000);
    let files = BTreeMap::from([("/real".to_owned(), file)]);
    let serve = honest(files);
    let server = Server::start(move |request| {
        if target(request) == "/f" {
            Answer::Keep(response(307, "Location: /real\r\n", b""))
        } else {
            serve(request)
        }
    })
    .await;
    let info = info("f", &["f"], &[100_000], false);
    let seed = WebSeed::Bep19(server.url.join("f").unwrap());
    let (blocks, result) = run(&seed, &info, Span::of_pieces(1..3)).await;
    result.unwrap();
    assert_blocks(&info, Span::of_pieces(1..3), &blocks);
}

#[tokio::test]
async fn garbage_and_nobody_there() {
    let (_, error) = hostile(|_| Answer::Close(b"SSH-2.0-OpenSSH\r\n".to_vec())).await;
    assert!(matches!(error, WebSeedError::Transport { .. }), "{error}");
    let info = info("f", &["f"], &[100], false);
    let gone = { Server::start(|_| Answer::Close(Vec::new())).await.url.clone() };
    let (_, result) =
        run(&WebSeed::Bep19(gone.join("f").unwrap()), &info, Span::of_pieces(0..1)).await;
    let text = result.unwrap_err().to_string();
    assert!(
        text.contains("refused") || text.contains("reset") || text.contains("closed"),
        "{text}"
    );
}

#[tokio::test]
async fn a_silent_server_is_given_up_and_a_closed_sink_ends_the_fetch() {
    let info = info("f", &["f"], &[1_000_000], false);
    let half = format!("HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(40_000));
    let server = Server::start(move |_| Answer::Hang(half.clone().into_bytes())).await;
    let seed = WebSeed::Bep19(server.url.join("f").unwrap());
    let (blocks, result) = run(&seed, &info, Span::of_pieces(0..31)).await;
    assert!(matches!(result, Err(WebSeedError::Stalled { .. })), "{result:?}");
    assert!(blocks.len() <= 2);

    let files = BTreeMap::from([("/f".to_owned(), content(0, 1_000_000))]);
    let server = Server::start(honest(files)).await;
    let seed = WebSeed::Bep19(server.url.join("f").unwrap());
    let (sink, batches) = mpsc::channel(1);
    drop(batches);
    let (client, pool) = (http_client(None).unwrap(), BufferPool::new(2));
    let result = fetch(&client, &pool, &seed, &info, Span::of_pieces(0..31), &sink).await;
    let error = result.unwrap_err().error;
    assert!(matches!(error, WebSeedError::CalledOff), "{error}");
}

#[tokio::test]
async fn files_of_a_folder_are_read_like_a_servers() {
    let lengths = [100_000, 0, 700_001];
    let info = info("build", &["a b", "empty", "c"], &lengths, true);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (file, name) in ["a b", "c"].iter().enumerate() {
        std::fs::write(path(name), content(file * 2, lengths[file * 2])).unwrap();
    }
    let url = |name: &str| Some(Url::from_file_path(path(name)).unwrap());
    let urls = vec![url("a b"), None, url("c")];
    let seed = WebSeed::PerFile { name: "stick".into(), urls, packs: Vec::new() };
    let all = Span::of_pieces(0..info.geometry.piece_count());
    let (blocks, result) = run(&seed, &info, all).await;
    result.unwrap();
    assert_blocks(&info, all, &blocks);

    std::fs::write(path("c"), content(2, 5000)).unwrap();
    let (blocks, result) = run(&seed, &info, all).await;
    assert!(matches!(result, Err(WebSeedError::File { .. })), "{result:?}");
    assert_blocks(&info, Span::of_pieces(0..4), &blocks);
    std::fs::remove_file(path("c")).unwrap();
    let (_, result) = run(&seed, &info, Span::of_pieces(4..5)).await;
    let told = result.unwrap_err().to_string();
    assert!(told.contains(path("c").to_str().unwrap()), "{told}");
}
