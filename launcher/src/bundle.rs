//! A bundle: what a publisher's repository holds of a release, in a folder or on a stick, laid out the same way. So
//! any web server can serve it, and launchers read it like a mirror, by `file:` URLs and without a socket.
//!
//! Nothing in it is believed: documents and content go the way of all others.

use crate::error::Error;
use crate::http::Answer;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use updraft_manifests::root;
use url::Url;

/// The feed of the product, beside the documents: for who has nothing but the bundle.
pub const FEED_NAME: &str = "feed.toml";

/// The address of the bundle at `dir`.
///
/// # Errors
/// [`Error::Usage`] if there is none.
pub fn url(dir: &Path) -> Result<Url, Error> {
    let usage = |why: String| Error::Usage(format!("{}: {why}", dir.display()));
    let full = dunce::canonicalize(dir).map_err(|error| usage(error.to_string()))?;
    if !full.join(root::path(1)).is_file() {
        return Err(usage(
            "this is no bundle: it has no root/1.toml; `updraft-launcher export` makes one".into(),
        ));
    }
    Url::from_directory_path(&full).map_err(|()| usage("no address leads there".into()))
}

/// Where a `file:` URL leads; `None` for all others.
pub fn path_of(url: &Url) -> Option<PathBuf> {
    if url.scheme() == "file" { url.to_file_path().ok() } else { None }
}

/// The file at `path`, of at most `bytes_max` bytes.
///
/// # Errors
/// In words.
pub async fn read(path: &Path, bytes_max: usize) -> Result<Answer, String> {
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answer::Missing),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| error.to_string())?;
    if bytes.len() > bytes_max {
        return Err(format!("it is larger than the {bytes_max} bytes allowed"));
    }
    Ok(Answer::Found(bytes.into()))
}

/// Bytes `range` of the file at `path`.
///
/// # Errors
/// In words.
pub async fn read_range(path: &Path, range: Range<u64>) -> Result<Bytes, String> {
    let read = async {
        let mut file = tokio::fs::File::open(path).await?;
        file.seek(SeekFrom::Start(range.start)).await?;
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes).await?;
        Ok::<_, io::Error>(bytes)
    };
    read.await.map(Bytes::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_read_in_bounds() {
        let dir = tempfile::tempdir().unwrap();
        assert!(url(dir.path()).is_err());
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("root/1.toml"), "0123456789").unwrap();
        let base = url(dir.path()).unwrap();
        let path = path_of(&base.join("root/1.toml").unwrap()).unwrap();
        assert!(matches!(read(&path, 10).await, Ok(Answer::Found(all)) if all == "0123456789"));
        read(&path, 9).await.unwrap_err();
        assert!(matches!(
            read(&path_of(&base.join("root/2.toml").unwrap()).unwrap(), 9).await,
            Ok(Answer::Missing)
        ));
        assert_eq!(read_range(&path, 2..5).await.unwrap(), "234");
        read_range(&path, 8..11).await.unwrap_err();
        assert_eq!(path_of(&Url::parse("http://host/x").unwrap()), None);
    }
}
