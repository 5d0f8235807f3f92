//! From a list of files to a layout, and from the digests of its pieces to a torrent.

use super::layout::{Layout, info_bytes, layout};
use super::{CreateError, Format, Options, Source, SourceFile, encode, rules};
use crate::bencode::{self, Encoder, TORRENT_ITEMS_MAX};
use crate::geometry::Geometry;
use crate::ids::{FileIndex, InfoHashes};
use crate::merkle;
use crate::metainfo::hash::{Digests, PieceDigests};
use crate::metainfo::{FileEntry, INFO_BYTES_MAX, Info, Metainfo, MetainfoError};
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
    /// [`CreateError::PieceLength`], [`CreateError::Empty`], and [`CreateError::Invalid`] if the list
    /// breaks a rule: a hostile name, a path twice.
    pub fn new(source: &'a Source, options: &'a Options) -> Result<Self, CreateError> {
        let layout = layout(source, options.format, options.piece_length)?;
        rules::check(source, &layout.files)?;
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

    /// The torrent with these digests, one for each piece in order. It is what
    /// [`Info::parse`] makes of its bytes, without the work of reading them again.
    ///
    /// # Errors
    /// [`CreateError::Invalid`] if it is larger than a reader takes.
    pub fn finish(self, found: Vec<PieceDigests>) -> Result<Metainfo, CreateError> {
        let (source, options, format) = (self.source, self.options, self.options.format);
        let pieces = self.layout.geometry.piece_count() as usize;
        assert_eq!(found.len(), pieces, "all pieces are hashed");
        let files = self.entries(&found);
        let sha1_of = |digests: &PieceDigests| digests.sha1.expect("SHA-1 was asked for");
        let v1_pieces = format.has_v1().then(|| found.iter().map(sha1_of).collect());
        drop(found);
        let bytes = info_bytes(source, format, self.layout.geometry.piece_length());
        let info = Info {
            raw: Bytes::new(),
            hashes: InfoHashes { v1: None, v2: None },
            name: source.name.clone(),
            private: options.private,
            single_file: source.single_file || (!format.has_v1() && rules::is_file_alone(source)),
            files,
            geometry: self.layout.geometry,
            v1_pieces,
        };
        let mut encoder = Encoder::with_capacity(usize::try_from(bytes).unwrap_or(0));
        encode::info(&mut encoder, &info, format.has_v2());
        Ok(Metainfo {
            info: seal(info, encoder, format)?,
            trackers: options.trackers.clone(),
            web_seeds: options.web_seeds.clone(),
            comment: options.comment.clone(),
            created_by: options.created_by.clone(),
            creation_date: options.creation_date,
        })
    }

    /// The files, with the roots of their pieces and their own.
    fn entries(&self, found: &[PieceDigests]) -> Vec<FileEntry> {
        let geometry = &self.layout.geometry;
        let entry = |(file, source): (FileIndex, &&SourceFile)| {
            let pieces = geometry.pieces_of(file);
            let found = &found[pieces.start as usize..pieces.end as usize];
            let layer: Vec<_> = if self.options.format.has_v2() {
                found.iter().map(|digests| digests.sha256.expect("SHA-256 was asked for")).collect()
            } else {
                Vec::new()
            };
            FileEntry {
                path: source.path.clone(),
                length: source.length,
                executable: source.executable && source.symlink.is_none(),
                hidden: false,
                symlink: source.symlink.clone(),
                root: match layer.as_slice() {
                    [] => None,
                    [one] => Some(*one),
                    many => Some(merkle::root_of_layer(many, geometry.piece_length())),
                },
                layer,
            }
        };
        (0..).map(FileIndex).zip(&self.layout.files).map(entry).collect()
    }
}

/// Takes in the encoded info dictionary and names the torrent by it.
fn seal(mut info: Info, encoded: Encoder, format: Format) -> Result<Info, MetainfoError> {
    let bytes = encoded.len();
    if encoded.items() > TORRENT_ITEMS_MAX {
        return Err(bencode::Error::TooMany { at: bytes }.into());
    }
    if bytes > INFO_BYTES_MAX {
        let (what, max) = ("info dictionary", INFO_BYTES_MAX);
        return Err(MetainfoError::TooLarge { what, bytes, max });
    }
    info.raw = Bytes::from(encoded.finish());
    info.hashes = InfoHashes::of(&info.raw, format.has_v1(), format.has_v2());
    Ok(info)
}
