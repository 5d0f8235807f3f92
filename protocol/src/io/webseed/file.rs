//! Files of a folder in the place of a web server's: what lies on a stick is had by the same ways, without a
//! socket.

use super::WebSeedError;
use bytes::{Bytes, BytesMut};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use url::Url;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Where a `file:` URL leads; `None` for all others.
pub(super) fn path_of(url: &Url) -> Option<PathBuf> {
    if url.scheme() == "file" { url.to_file_path().ok() } else { None }
}

/// Opens the file of `length` bytes at `path`, to be read from the start of `range`.
pub(super) async fn open(
    path: PathBuf,
    range: &Range<u64>,
    length: u64,
) -> Result<File, WebSeedError> {
    let open = async {
        let mut file = File::open(&path).await?;
        let found = file.metadata().await?.len();
        if found != length {
            let what = format!("it has {found} bytes instead of {length}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        file.seek(SeekFrom::Start(range.start)).await?;
        Ok(file)
    };
    open.await.map_err(|error| failed(path.display().to_string(), &error))
}

/// The next bytes, at most `wanted`; `None` at the end.
pub(super) async fn chunk(file: &mut File, wanted: u64) -> io::Result<Option<Bytes>> {
    let len = usize::try_from(wanted).unwrap_or(usize::MAX).min(CHUNK_BYTES);
    let mut chunk = BytesMut::with_capacity(len);
    if len == 0 || file.take(len as u64).read_buf(&mut chunk).await? == 0 {
        return Ok(None);
    }
    Ok(Some(chunk.freeze()))
}

pub(super) fn failed(path: String, error: &io::Error) -> WebSeedError {
    WebSeedError::File { path: path.into(), what: error.to_string() }
}
