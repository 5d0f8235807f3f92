//! A web server of a few lines on 127.0.0.1 that answers whatever a test wants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

/// What the server does with a request.
pub(in crate::io) enum Answer {
    /// Sends this and waits for the next request.
    Keep(Vec<u8>),
    /// Sends this and closes the connection.
    Close(Vec<u8>),
    /// Sends the head, then zeros for ever.
    Endless(Vec<u8>),
    /// Sends this and nothing more.
    Hang(Vec<u8>),
}

pub(in crate::io) struct Server {
    pub(in crate::io) url: Url,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl Server {
    pub(in crate::io) async fn start(
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::new(Seen::default());
        let (counted, answer) = (Arc::clone(&seen), Arc::new(answer));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counted.connections.fetch_add(1, Ordering::Relaxed);
                let (seen, answer) = (Arc::clone(&counted), Arc::clone(&answer));
                connections.spawn(async move {
                    // A client may hang up at any time.
                    let _ = serve(socket, &seen, &*answer).await;
                });
            }
        });
        Self { url, seen, _tasks: tasks }
    }

    pub(in crate::io) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Request lines and headers so far.
    pub(in crate::io) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut socket: TcpStream,
    seen: &Seen,
    answer: &(impl Fn(&str) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await?);
        }
        let request = String::from_utf8(std::mem::take(&mut head)).unwrap();
        seen.requests.lock().unwrap().push(request.clone());
        match answer(&request) {
            Answer::Keep(bytes) => socket.write_all(&bytes).await?,
            Answer::Close(bytes) => return socket.write_all(&bytes).await,
            Answer::Hang(bytes) => {
                socket.write_all(&bytes).await?;
                std::future::pending::<()>().await;
            }
            Answer::Endless(bytes) => {
                socket.write_all(&bytes).await?;
                loop {
                    socket.write_all(&[0; 4096]).await?;
                }
            }
        }
    }
}

/// A complete answer with a Content-Length.
pub(in crate::io) fn response(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// The path and query of a request.
pub(in crate::io) fn target(request: &str) -> &str {
    request.split(' ').nth(1).unwrap()
}

/// The byte range asked for.
pub(in crate::io) fn range(request: &str) -> Option<std::ops::Range<usize>> {
    let header = request.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned)
    })?;
    let (start, last) = header.split_once('-')?;
    Some(start.parse().ok()?..last.trim().parse::<usize>().ok()? + 1)
}
