//! Documents over HTTP: bounded in size and time, guarded by [`updraft_protocol::io::outgoing`]. Those of a bundle have
//! `file:` URLs and are read where they lie.

use crate::bundle;
use bytes::{Bytes, BytesMut};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use updraft_protocol::io::outgoing::guard;
use url::Url;

/// The longest wait for a connection.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// The same where others could be asked at once.
const CONNECT_WAIT_SHORT: Duration = Duration::from_secs(1);
/// The longest wait for the next bytes.
const READ_WAIT_MAX: Duration = Duration::from_secs(20);
/// The longest time for one small document (heads, roots, manifests); torrents have no such limit,
/// only that bytes keep coming.
pub const DOCUMENT_WAIT_MAX: Duration = Duration::from_secs(30);

/// A host that no connection could be made with is not asked again for this long: one that is cut off
/// would hold up every document by [`CONNECT_WAIT_MAX`].
const SILENT_TIME: Duration = Duration::from_secs(30);
/// Hosts remembered for that.
const SILENT_MAX: usize = 64;

/// The encoding that is none.
const PLAIN: &str = "identity";

/// An HTTP client for documents.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    /// One that gives up connecting after [`CONNECT_WAIT_SHORT`].
    hasty: Client,
    /// Hosts with which no connection could be made, when, and why.
    silent: Arc<Mutex<HashMap<String, (Instant, String)>>>,
}

/// What a server answered.
#[derive(Debug)]
pub enum Answer {
    /// The bytes.
    Found(Bytes),
    /// 403, 404 or 410: static hosts say any of them for what is not there.
    Missing,
}

impl Http {
    /// A client.
    ///
    /// # Errors
    /// When the system's TLS set-up cannot be read, in words.
    pub fn new() -> Result<Self, String> {
        let [client, hasty] = [CONNECT_WAIT_MAX, CONNECT_WAIT_SHORT].map(client);
        Ok(Self { client: client?, hasty: hasty?, silent: Arc::default() })
    }

    /// Returns when it turns out that no connection with the host of `url` comes about soon, with the
    /// reason; never, if one does.
    pub async fn cannot_connect(&self, url: &Url) -> String {
        match self.hasty.head(url.clone()).send().await {
            Err(error) if error.is_connect() => self.silence(url, &error),
            Ok(_) | Err(_) => std::future::pending().await,
        }
    }

    /// Gets at most `bytes_max` bytes from `url`. With `past_caches`, caches on the way are told not
    /// to answer.
    ///
    /// # Errors
    /// In words: what the server or the network did.
    pub async fn get(
        &self,
        url: &Url,
        bytes_max: usize,
        past_caches: bool,
    ) -> Result<Answer, String> {
        if let Some(path) = bundle::path_of(url) {
            return bundle::read(&path, bytes_max).await;
        }
        let mut request = self.client.get(url.clone());
        if past_caches {
            request = request.header(header::CACHE_CONTROL, "no-cache");
        }
        let mut response = self.send(url, request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => {
                return Ok(Answer::Missing);
            }
            status => return Err(format!("the server answered {status}")),
        }
        let too_large = || format!("the answer is larger than the {bytes_max} bytes allowed");
        let announced = response.content_length().unwrap_or(0);
        if announced > bytes_max as u64 {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
            if body.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer::Found(body.freeze()))
    }

    /// Bytes `range` of the file of `length` bytes at `url`. A server that knows no ranges is read up to
    /// the range's end.
    ///
    /// # Errors
    /// In words: what the server or the network did.
    pub async fn get_range(
        &self,
        url: &Url,
        range: Range<u64>,
        length: u64,
    ) -> Result<Bytes, String> {
        assert!(range.start < range.end && range.end <= length, "a range of the file");
        if let Some(path) = bundle::path_of(url) {
            return bundle::read_range(&path, range).await;
        }
        let value = format!("bytes={}-{}", range.start, range.end - 1);
        let request = self.client.get(url.clone()).header(header::RANGE, value);
        // Compression would be undone by nobody here, and ranges are over the plain bytes.
        let mut response = self.send(url, request.header(header::ACCEPT_ENCODING, PLAIN)).await?;
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != PLAIN) {
            return Err("the server compressed what was asked for as it is".to_owned());
        }
        let expected = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let told = response.headers().get(header::CONTENT_RANGE);
                if told.is_none_or(|told| told.as_bytes() != expected.as_bytes()) {
                    return Err(format!("the server sent another range than {expected}"));
                }
                0
            }
            StatusCode::OK => range.start,
            status => return Err(format!("the server answered {status}")),
        };
        let mut body = BytesMut::new();
        let mut left = range.end - range.start;
        while left > 0 {
            let Some(mut chunk) = response.chunk().await.map_err(|error| chain(&error))? else {
                return Err("the answer is too short".to_owned());
            };
            let gone = skip.min(chunk.len() as u64);
            skip -= gone;
            chunk = chunk.split_off(usize::try_from(gone).expect("at most the chunk"));
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
            left -= chunk.len() as u64;
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// A client that waits so long for a connection.
fn client(connect_wait: Duration) -> Result<Client, String> {
    guard(Client::builder())
        .user_agent(concat!("updraft-launcher/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_wait)
        .read_timeout(READ_WAIT_MAX)
        .build()
        .map_err(|error| chain(&error))
}

impl Http {
    /// The host is not asked for a while; why.
    fn silence(&self, url: &Url, error: &reqwest::Error) -> String {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, (at, _)| at.elapsed() < SILENT_TIME);
        let why = chain(error);
        if silent.len() < SILENT_MAX {
            silent.insert(url.authority().to_owned(), (Instant::now(), why.clone()));
        }
        why
    }

    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Response, String> {
        let host = url.authority();
        let silent = || self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, why)) = silent().get(host).filter(|(at, _)| at.elapsed() < SILENT_TIME) {
            return Err(why.clone());
        }
        let answer = request.send().await;
        match answer {
            Err(error) if error.is_connect() => Err(self.silence(url, &error)),
            answer => {
                silent().remove(host);
                answer.map_err(|error| chain(&error))
            }
        }
    }
}

/// What lies at the bottom: `error sending request for url (…)` alone helps nobody.
fn chain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_redirect() {
        "the redirect was not followed"
    } else {
        "the answer broke off"
    };
    format!("{what}: {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Gets a range of a file of ten bytes from a server that answers once: what came, and what was asked.
    async fn ask(answer: &'static str) -> (Result<Bytes, String>, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/side", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap().to_ascii_lowercase()
        });
        let got = Http::new().unwrap().get_range(&Url::parse(&url).unwrap(), 2..5, 10).await;
        (got, server.await.unwrap())
    }

    #[tokio::test]
    async fn ranges_come_as_they_are() {
        let good = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\n\r\nabc";
        let (got, asked) = ask(good).await;
        assert_eq!(got.unwrap(), "abc");
        assert!(asked.contains("accept-encoding: identity\r\n"), "{asked}");
        assert!(asked.contains("range: bytes=2-4\r\n"), "{asked}");
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01abc56789";
        assert_eq!(ask(whole).await.0.unwrap(), "abc");
        for bad in [
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/10\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/11\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc",
        ] {
            assert!(ask(bad).await.0.is_err(), "{bad}");
        }
    }
}
