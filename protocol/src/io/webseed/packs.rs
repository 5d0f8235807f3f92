//! Packs: runs of pieces compressed as one zstd frame, got with one request.
//!
//! A frame counts only if it is the one whose SHA-256 was promised, so none of it is decoded before all of
//! it is here; and no more is decoded than was promised. What comes out are blocks like any others.

use super::{Assembler, Body, FetchError, WebSeedError};
use crate::geometry::{Block, Span};
use crate::ids::Sha256Hash;
use crate::io::buffers::BufferPool;
use crate::metainfo::Info;
use crate::policy::http::Packed;
use bytes::Bytes;
use reqwest::Client;
use sha2::{Digest as _, Sha256};
use std::ops::Range;
use tokio::sync::mpsc;
use url::Url;

/// A run of pieces that HTTP sources may have compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// The pieces.
    pub pieces: Range<u32>,
    /// Bytes of files in them. Together with `packed` this is the memory that getting it takes.
    pub length: u32,
    /// Bytes of the frame.
    pub packed: u32,
    /// SHA-256 of the frame.
    pub sha256: Sha256Hash,
}

impl Pack {
    /// What the engine needs to know of it.
    pub(crate) fn packed(&self) -> Packed {
        Packed { pieces: self.pieces.clone(), bytes: self.packed.into() }
    }
}

/// Gets `pack` from `url`, if the source has packs, and sends its blocks, as [`super::fetch`] does.
///
/// # Errors
/// [`WebSeedError::Pack`] if it is not there or not what was promised; what is wrong with the source
/// otherwise. No block has been sent then, unless nobody takes them.
pub async fn fetch_pack(
    client: &Client,
    pool: &BufferPool,
    url: Option<&Url>,
    info: &Info,
    pack: &Pack,
    sink: &mpsc::Sender<Vec<(Block, Bytes)>>,
) -> Result<(), FetchError> {
    let get = async {
        let content = get(client, url, pack).await?;
        let mut assembler = Assembler::new(info, pool, sink, Span::of_pieces(pack.pieces.clone()));
        let mut rest = content.as_slice();
        while let Some((_, range)) = assembler.next_range().await? {
            let bytes = usize::try_from(range.end - range.start).ok();
            let part = bytes.and_then(|bytes| rest.split_at_checked(bytes));
            let Some((part, after)) = part else {
                let (url, what) = ("".into(), "its pieces hold more than it does".to_owned());
                return Err(WebSeedError::Pack { url, what });
            };
            rest = after;
            assembler.push(part).await?;
        }
        assembler.flush().await
    };
    get.await.map_err(|error| FetchError { file: None, error })
}

/// The content of a pack, as long as promised.
async fn get(client: &Client, url: Option<&Url>, pack: &Pack) -> Result<Vec<u8>, WebSeedError> {
    let useless = |url: &str, what: String| WebSeedError::Pack { url: url.into(), what };
    let url = url.ok_or_else(|| useless("", "this web seed has no packs".to_owned()))?;
    let frame = frame(client, url, pack).await.map_err(|error| match error {
        WebSeedError::NotFound { status, .. } | WebSeedError::Forbidden { status, .. } => {
            useless(url.as_str(), format!("HTTP {status}"))
        }
        WebSeedError::Reply { what, .. }
        | WebSeedError::NoRange { what, .. }
        | WebSeedError::File { what, .. } => useless(url.as_str(), what),
        other => other,
    })?;
    let (length, expected) = (pack.length as usize, pack.sha256);
    // Milliseconds of work, which connections should not wait for.
    let unpack = tokio::task::spawn_blocking(move || {
        if Sha256::digest(&frame)[..] != expected.0 {
            return Err("it has another SHA-256 than its name".to_owned());
        }
        let content = zstd::bulk::decompress(&frame, length).map_err(|error| error.to_string())?;
        let found = content.len();
        let right = found == length;
        right.then_some(content).ok_or_else(|| format!("{found} bytes came out of it"))
    });
    let unpacked = unpack.await.map_err(|error| useless(url.as_str(), error.to_string()))?;
    unpacked.map_err(|what| useless(url.as_str(), what))
}

async fn frame(client: &Client, url: &Url, pack: &Pack) -> Result<Vec<u8>, WebSeedError> {
    let length = u64::from(pack.packed);
    let mut body = Body::request(client, url, 0..length, length).await?;
    let mut frame = Vec::with_capacity(pack.packed as usize);
    while let Some(chunk) = body.chunk().await? {
        frame.extend_from_slice(&chunk);
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{Answer, Server, response};
    use super::super::tests::{Blocks, assert_blocks, content, honest, info};
    use super::*;
    use crate::swarm::FetchEnd;

    /// Three files from border to border of pieces, and a pack of the first two.
    fn world() -> (Info, Vec<u8>, Pack) {
        let lengths = [40_000, 10, 70_000];
        let info = info("build", &["a", "b", "c"], &lengths, true);
        let content = [content(0, 40_000), content(1, 10)].concat();
        let frame = zstd::bulk::compress(&content, 3).unwrap();
        let pack = pack_of(&frame, 40_010);
        (info, frame, pack)
    }

    fn pack_of(frame: &[u8], length: u32) -> Pack {
        let sha256 = Sha256Hash(Sha256::digest(frame).into());
        Pack { pieces: 0..3, length, packed: u32::try_from(frame.len()).unwrap(), sha256 }
    }

    async fn run(url: Option<&Url>, info: &Info, pack: &Pack) -> (Blocks, Result<(), FetchError>) {
        let client = super::super::http_client(None).unwrap();
        let pool = BufferPool::new(1);
        let (sink, mut batches) = mpsc::channel::<Blocks>(1);
        let collect = async {
            let mut blocks = Blocks::new();
            while let Some(batch) = batches.recv().await {
                let copy =
                    |(block, bytes): &(Block, Bytes)| (*block, Bytes::copy_from_slice(bytes));
                blocks.extend(batch.iter().map(copy));
            }
            blocks
        };
        let fetching = async move {
            let result = fetch_pack(&client, &pool, url, info, pack, &sink).await;
            drop(sink);
            result
        };
        tokio::join!(collect, fetching)
    }

    #[tokio::test]
    async fn a_pack_becomes_blocks() {
        let (info, frame, pack) = world();
        let server = Server::start(honest([("/packs/x".to_owned(), frame)].into())).await;
        let (blocks, result) = run(server.url.join("packs/x").ok().as_ref(), &info, &pack).await;
        result.unwrap();
        assert_blocks(&info, Span::of_pieces(0..3), &blocks);
        assert_eq!(server.requests().len(), 1);
    }

    /// Served `frame` where `pack` was promised, no block comes and the pack alone is given up.
    async fn useless(frame: Vec<u8>, pack: &Pack, expected: &str) {
        let (info, ..) = world();
        let server = Server::start(move |_| Answer::Keep(response(200, "", &frame))).await;
        let (blocks, result) = run(Some(&server.url), &info, pack).await;
        let error = result.unwrap_err();
        assert!(blocks.is_empty() && error.to_string().contains(expected), "{error}");
        assert_eq!(error.end(), FetchEnd::Unpackable, "{error}");
    }

    #[tokio::test]
    async fn another_pack_than_promised_costs_itself_only() {
        let (info, frame, pack) = world();
        let mut damaged = frame.clone();
        damaged[20] ^= 1;
        useless(damaged, &pack, "SHA-256").await;
        useless(frame[1..].to_vec(), &pack, "bytes instead of").await;
        // Signed so, and no better: a frame that gives too much, too little, or nothing.
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 3).unwrap();
        useless(bomb.clone(), &pack_of(&bomb, 40_010), "").await;
        useless(frame.clone(), &pack_of(&frame, 40_011), "40010 bytes came out").await;
        useless(frame.clone(), &pack_of(&frame, 40_009), "").await;
        useless(b"no frame".to_vec(), &pack_of(b"no frame", 40_010), "").await;
        let (_, result) = run(None, &info, &pack).await;
        assert_eq!(result.unwrap_err().end(), FetchEnd::Unpackable);
    }

    #[tokio::test]
    async fn a_server_without_it_and_a_busy_one() {
        let (info, _, pack) = world();
        for (status, expected) in [
            (404, FetchEnd::Unpackable),
            (403, FetchEnd::Unpackable),
            (503, FetchEnd::Failed { retry_after: None }),
        ] {
            let server = Server::start(move |_| Answer::Keep(response(status, "", b"no"))).await;
            let (_, result) = run(Some(&server.url), &info, &pack).await;
            assert_eq!(result.unwrap_err().end(), expected, "{status}");
        }
    }
}
