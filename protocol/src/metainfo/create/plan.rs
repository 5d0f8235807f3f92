//! From a list of files to a layout, and from the digests of its pieces to a torrent.

use super::encode::{self, Hashes};
use super::layout::{Layout, layout};
use super::{CreateError, Options, Source, SourceFile};
use crate::geometry::Geometry;
use crate::ids::{FileIndex, Sha256Hash};
use crate::merkle;
use crate::metainfo::hash::{Digests, PieceDigests};
use crate::metainfo::{Info, Metainfo};
use bytes::Bytes;

/// A torrent whose pieces have yet to be hashed.
pub struct Plan<'a> {
    source: &'a Source,
    options: &'a Options,
    layout: Layout<'a>,
}

impl<'a> Plan<'a> {
    /// Orders and places the files. The piece length is chosen here if the options leave it open.
    ///
    /// # Errors
    /// [`CreateError::PieceLength`] and [`CreateError::Empty`].
    pub fn new(source: &'a Source, options: &'a Options) -> Result<Self, CreateError> {
        let layout = layout(source, options.format, options.piece_length)?;
        Ok(Self { source, options, layout })
    }

    /// The shape the torrent will have.
    pub fn geometry(&self) -> &Geometry {
        &self.layout.geometry
    }

    /// The files in torrent order, by [`FileIndex`].
    pub fn files(&self) -> &[&'a SourceFile] {
        &self.layout.files
    }

    /// What has to be known of every piece.
    pub fn digests(&self) -> Digests {
        Digests { sha1: self.options.format.has_v1(), sha256: self.options.format.has_v2() }
    }

    /// The torrent with these digests, one for each piece in order.
    ///
    /// # Errors
    /// [`CreateError::Invalid`] if the list broke a rule: a hostile name, a path twice.
    pub fn finish(self, found: Vec<PieceDigests>) -> Result<Metainfo, CreateError> {
        assert_eq!(
            found.len(),
            self.layout.geometry.piece_count() as usize,
            "all pieces are hashed"
        );
        let piece_length = self.layout.geometry.piece_length();
        let layers = if self.digests().sha256 { self.layers(&found) } else { Vec::new() };
        let root = |layer: &Vec<Sha256Hash>| match layer.as_slice() {
            [] => None,
            [one] => Some(*one),
            many => Some(merkle::root_of_layer(many, piece_length)),
        };
        let pieces = found.iter().filter_map(|digests| digests.sha1).collect();
        let hashes = Hashes { pieces, roots: layers.iter().map(root).collect() };
        drop(found);
        let raw = Bytes::from(encode::info(self.source, self.options, &self.layout, &hashes));
        drop(self.layout);

        let long = |(root, layer): (&Option<Sha256Hash>, &Vec<Sha256Hash>)| {
            let layer = Some(layer).filter(|layer| layer.len() > 1)?;
            Some(((*root)?, layer.iter().flat_map(|hash| hash.0).collect()))
        };
        let long: Vec<(Sha256Hash, Vec<u8>)> =
            hashes.roots.iter().zip(&layers).filter_map(long).collect();
        drop((hashes, layers));
        let long: Vec<_> = long.iter().map(|(root, layer)| (*root, layer.as_slice())).collect();
        let options = self.options;
        Ok(Metainfo {
            info: Info::parse(raw, &long)?,
            trackers: options.trackers.clone(),
            web_seeds: options.web_seeds.clone(),
            comment: options.comment.clone(),
            created_by: options.created_by.clone(),
            creation_date: options.creation_date,
        })
    }

    /// Each file's piece roots.
    fn layers(&self, found: &[PieceDigests]) -> Vec<Vec<Sha256Hash>> {
        let geometry = &self.layout.geometry;
        let files = (0..).map(FileIndex).take(geometry.files().len());
        let layer = |file| {
            let pieces = geometry.pieces_of(file);
            let found = &found[pieces.start as usize..pieces.end as usize];
            found.iter().filter_map(|digests| digests.sha256).collect()
        };
        files.map(layer).collect()
    }
}
