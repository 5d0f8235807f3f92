//! The packs of a release: compressed runs of its content, for what comes over HTTP.

use crate::documents::Documents;
use crate::news::{self, Sources};
use crate::release::{Release, length};
use bytes::Bytes;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::packs::{self, list_path};
use updraft_protocol::bitfield::Bitfield;
use updraft_protocol::ids::{FileIndex, PieceIndex, Sha256Hash};
use updraft_protocol::io::Pack;
use url::Url;

/// The list is fetched where so many times its length is missing: an update of a few files does without.
const MISSING_FACTOR: u64 = 32;

/// Packs that may be used, in the torrent's order.
#[derive(Debug, Clone, Default)]
pub struct Packs {
    /// For the engine.
    pub packs: Vec<Pack>,
    /// Where they lie in a repository.
    paths: Vec<String>,
}

impl Packs {
    /// Gets the list of a release of which the files in `fetched` are missing. Nothing if the release has
    /// none, the list cannot be had, or it is not worth it.
    pub async fn find(
        documents: &Documents,
        sources: &Sources<'_>,
        release: &Release,
        fetched: &[bool],
    ) -> Self {
        let Some(named) = release.packs else { return Self::default() };
        let files = release.files.iter().zip(fetched).filter(|(_, fetched)| **fetched);
        let missing: u64 = files.map(|(file, _)| length(&file.content)).sum();
        if missing < named.length.saturating_mul(MISSING_FACTOR) {
            return Self::default();
        }
        let parse = |bytes: &Bytes| {
            if ContentHash::of(bytes) != named.sha256 || bytes.len() as u64 != named.length {
                return Err("it is not what was signed".to_owned());
            }
            packs::parse(bytes)
        };
        match news::checked(documents, sources, &list_path(&named.sha256), parse).await {
            Ok(list) => Self::of(release, &list),
            Err(error) => {
                tracing::warn!(%error, "without the list of packs, files are fetched as they are");
                Self::default()
            }
        }
    }

    fn of(release: &Release, list: &[packs::Pack]) -> Self {
        let contents: Vec<_> = list.iter().map(packs::Pack::content).collect();
        let mut found = Self::default();
        let places = release.info.geometry.pieces_of_contents(&contents);
        // A pack that is not of whole pieces is of no use; the others are.
        for (pack, pieces) in list.iter().zip(places) {
            let Some(pieces) = pieces else { continue };
            let (length, packed) = (pack.length, pack.packed);
            let sha256 = Sha256Hash(pack.sha256.0);
            found.packs.push(Pack { pieces, length, packed, sha256 });
            found.paths.push(pack.path());
        }
        found
    }

    /// Where they are in the repository at `base`; nothing if that cannot be said of all.
    pub fn urls(&self, base: &Url) -> Vec<Url> {
        let urls = self.paths.iter().map(|path| base.join(path).ok());
        urls.collect::<Option<_>>().unwrap_or_default()
    }

    /// Bytes that HTTP saves when all of the files in `fetched` come over it.
    pub fn saved(&self, release: &Release, fetched: &[bool]) -> u64 {
        let geometry = &release.info.geometry;
        let mut wanted = Bitfield::empty(geometry.piece_count());
        for (file, _) in (0..).zip(fetched).filter(|(_, fetched)| **fetched) {
            geometry.pieces_of(FileIndex(file)).for_each(|piece| {
                wanted.insert(PieceIndex(piece));
            });
        }
        let saved = self.packs.iter().map(|pack| {
            let pieces = pack.pieces.clone().map(PieceIndex).filter(|piece| wanted.has(*piece));
            let missing: u64 = pieces.map(|piece| u64::from(geometry.data_len(piece))).sum();
            missing.saturating_sub(pack.packed.into())
        });
        saved.sum()
    }
}
