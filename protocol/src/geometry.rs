//! Every sum between pieces, blocks, files and bytes stands here and nowhere else.
//!
//! A torrent is a *piece space*: the bytes of its files in order, with gaps where BEP 47 pad files
//! (hybrid) or the alignment rule of BEP 52 (v2) put zeros. A gap belongs to no file: it is never
//! requested, stored or sent as anything but zeros.

use crate::ids::{FileIndex, PieceIndex};
use std::ops::Range;

/// The unit of requests, and the leaf of BEP 52 trees: 16 KiB.
pub const BLOCK_LEN: u32 = 16 * 1024;

/// The most pieces a torrent may have here: a bitfield of 1 MiB, the largest message we take.
pub const PIECES_MAX: u32 = 8 << 20;

/// Where a file lies in the piece space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpan {
    /// First byte in the piece space.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// A request: `len` bytes of `piece` from `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The piece.
    pub piece: PieceIndex,
    /// First byte within the piece.
    pub offset: u32,
    /// Number of bytes, at most [`BLOCK_LEN`] for our own requests.
    pub len: u32,
}

/// A run of blocks, over the borders of pieces: what one HTTP source is asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first block: its piece, and its number there.
    pub start: (PieceIndex, u32),
    /// The block after the last one; number 0 when the piece before it belongs to the span whole.
    pub end: (PieceIndex, u32),
}

impl Span {
    /// Whole pieces.
    pub fn of_pieces(pieces: Range<u32>) -> Self {
        Self { start: (PieceIndex(pieces.start), 0), end: (PieceIndex(pieces.end), 0) }
    }

    /// The pieces it has blocks of.
    pub fn pieces(&self) -> Range<u32> {
        self.start.0.0..self.end.0.0 + u32::from(self.end.1 > 0)
    }

    /// True if block number `index` of `piece` belongs to it.
    pub fn contains(&self, piece: PieceIndex, index: u32) -> bool {
        (self.start..self.end).contains(&(piece, index))
    }
}

/// A run of bytes in a file, or of zeros that no file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// `len` bytes of `file` from `offset`.
    File {
        /// The file.
        file: FileIndex,
        /// First byte within the file.
        offset: u64,
        /// Number of bytes.
        len: u32,
    },
    /// `len` zero bytes.
    Pad {
        /// Number of bytes.
        len: u32,
    },
}

impl Segment {
    /// Number of bytes of this run.
    pub fn len(&self) -> u32 {
        match *self {
            Self::File { len, .. } | Self::Pad { len } => len,
        }
    }

    /// True for a run of no bytes (never returned by [`Geometry::segments`]).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The shape of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    piece_length: u32,
    total: u64,
    files: Box<[FileSpan]>,
}

impl Geometry {
    /// Lays out `files` (ascending, not overlapping, pad files left out) in a space of `total` bytes.
    /// `None` when the numbers do not fit together or exceed [`PIECES_MAX`].
    pub fn new(piece_length: u32, total: u64, files: Vec<FileSpan>) -> Option<Self> {
        let mut end = 0u64;
        for file in &files {
            if file.offset < end {
                return None;
            }
            end = file.offset.checked_add(file.length)?;
        }
        if piece_length == 0 || end > total {
            return None;
        }
        (total.div_ceil(u64::from(piece_length)) <= u64::from(PIECES_MAX)).then(|| Self {
            piece_length,
            total,
            files: files.into(),
        })
    }

    /// Nominal bytes per piece.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Bytes of the piece space, gaps included.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of all files, gaps left out: what a download has to fetch.
    pub fn content_len(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }

    /// The files' places, by [`FileIndex`].
    pub fn files(&self) -> &[FileSpan] {
        &self.files
    }

    /// Number of pieces.
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.total.div_ceil(u64::from(self.piece_length))).expect("checked in new")
    }

    /// All pieces.
    pub fn pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.piece_count()).map(PieceIndex)
    }

    /// The piece of that number, if there is one.
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count()).then_some(PieceIndex(index))
    }

    /// First byte of `piece` in the piece space.
    pub fn piece_start(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_length)
    }

    /// Bytes of `piece` as v1 clients see it, trailing gap included.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        let rest = self.total.saturating_sub(self.piece_start(piece));
        u32::try_from(rest.min(u64::from(self.piece_length))).expect("at most piece_length")
    }

    /// Bytes of `piece` up to the last one that a file holds: what is requested. 0 for a piece of
    /// nothing but gap, which everybody has from the start.
    pub fn data_len(&self, piece: PieceIndex) -> u32 {
        let (start, len) = (self.piece_start(piece), self.piece_len(piece));
        let end = start + u64::from(len);
        // The last file that starts before the piece's end and holds at least one byte.
        let after = self.files.partition_point(|file| file.offset < end);
        let last = self.files[..after].iter().rev().find(|file| file.length > 0);
        let data_end = last.map_or(start, |file| (file.offset + file.length).clamp(start, end));
        u32::try_from(data_end - start).expect("at most piece_length")
    }

    /// Number of blocks we request of `piece`.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.data_len(piece).div_ceil(BLOCK_LEN)
    }

    /// Block number `index` of `piece`; the last one may be short.
    pub fn block(&self, piece: PieceIndex, index: u32) -> Block {
        let offset = index * BLOCK_LEN;
        Block { piece, offset, len: BLOCK_LEN.min(self.data_len(piece) - offset) }
    }

    /// The number of the block that starts where `block` does and has its length, if it is one of ours.
    pub fn block_index(&self, block: Block) -> Option<u32> {
        self.piece(block.piece.0)?;
        let index = block.offset / BLOCK_LEN;
        (index < self.block_count(block.piece) && self.block(block.piece, index) == block)
            .then_some(index)
    }

    /// The blocks of a span, in order.
    pub fn blocks_of(&self, span: Span) -> impl Iterator<Item = Block> + '_ {
        span.pieces().map(PieceIndex).flat_map(move |piece| {
            let indices = (0..self.block_count(piece)).filter(move |&at| span.contains(piece, at));
            indices.map(move |index| self.block(piece, index))
        })
    }

    /// Bytes of a span.
    pub fn bytes_of(&self, span: Span) -> u64 {
        self.blocks_of(span).map(|block| u64::from(block.len)).sum()
    }

    /// True if a peer may ask for `block`: inside the piece (its gap included), not empty, at most
    /// `len_max` bytes.
    pub fn may_request(&self, block: Block, len_max: u32) -> bool {
        let end = u64::from(block.offset) + u64::from(block.len);
        self.piece(block.piece.0).is_some_and(|piece| end <= u64::from(self.piece_len(piece)))
            && block.len > 0
            && block.len <= len_max
    }

    /// The pieces that hold bytes of `file`; empty for an empty file.
    pub fn pieces_of(&self, file: FileIndex) -> Range<u32> {
        let FileSpan { offset, length } = self.files[file.get()];
        let piece_length = u64::from(self.piece_length);
        let (first, end) = (offset / piece_length, (offset + length).div_ceil(piece_length));
        let index = |at: u64| u32::try_from(at).expect("within piece_count");
        if length == 0 { index(first)..index(first) } else { index(first)..index(end) }
    }

    /// For each of `contents`, bytes of the files laid end to end without gaps: the pieces that hold them, if
    /// they hold nothing else.
    pub fn pieces_of_contents(&self, contents: &[Range<u64>]) -> Vec<Option<Range<u32>>> {
        let mut end = 0;
        let held = self.files.iter().filter(|file| file.length > 0).map(|file| {
            let start = end;
            end += file.length;
            (start, *file)
        });
        let held: Vec<(u64, FileSpan)> = held.collect();
        let place = |at: u64| {
            let file = held.partition_point(|(start, _)| *start <= at).checked_sub(1)?;
            let (start, file) = held[file];
            (at - start < file.length).then(|| file.offset + at - start)
        };
        let piece_length = u64::from(self.piece_length);
        let pieces = |content: &Range<u64>| {
            let (first, last) = (place(content.start)?, place(content.end.checked_sub(1)?)?);
            let index = |at: u64| u32::try_from(at / piece_length).expect("within piece_count");
            let pieces = index(first)..index(last) + 1;
            // Whatever else lies in these pieces shows in their length.
            let bytes: u64 = pieces.clone().map(|piece| self.file_bytes(PieceIndex(piece))).sum();
            let whole = first % piece_length == 0 && !content.is_empty();
            (whole && bytes == content.end - content.start).then_some(pieces)
        };
        contents.iter().map(pieces).collect()
    }

    /// Bytes of files in `piece`.
    fn file_bytes(&self, piece: PieceIndex) -> u64 {
        let segments = self.segments(piece, 0, self.piece_len(piece));
        let bytes = segments.map(|segment| match segment {
            Segment::File { len, .. } => u64::from(len),
            Segment::Pad { .. } => 0,
        });
        bytes.sum()
    }

    /// The files that hold bytes of `piece`, in order.
    pub fn files_of(&self, piece: PieceIndex) -> impl Iterator<Item = FileIndex> + '_ {
        self.segments(piece, 0, self.piece_len(piece)).filter_map(|segment| match segment {
            Segment::File { file, .. } => Some(file),
            Segment::Pad { .. } => None,
        })
    }

    /// Where `len` bytes of `piece` from `offset` are kept, in order.
    ///
    /// The range must lie inside the piece.
    pub fn segments(
        &self,
        piece: PieceIndex,
        offset: u32,
        len: u32,
    ) -> impl Iterator<Item = Segment> + '_ {
        let mut at = self.piece_start(piece) + u64::from(offset);
        let end = at + u64::from(len);
        assert!(end <= self.total, "range outside the torrent");
        let mut next = self.files.partition_point(|file| file.offset + file.length <= at);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            while self.files.get(next).is_some_and(|file| file.offset + file.length <= at) {
                next += 1;
            }
            let run = |until: u64| u32::try_from(until.min(end) - at).expect("within a piece");
            let segment = match self.files.get(next) {
                Some(file) if file.offset <= at => Segment::File {
                    file: FileIndex(u32::try_from(next).expect("files are counted in u32")),
                    offset: at - file.offset,
                    len: run(file.offset + file.length),
                },
                Some(file) => Segment::Pad { len: run(file.offset) },
                None => Segment::Pad { len: run(end) },
            };
            at += u64::from(segment.len());
            Some(segment)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_of_content_between_borders() {
        let (files, total) = spans(&[10, 0, 40_000, 5, 16_384], Some(16_384));
        let geometry = Geometry::new(16_384, total, files).unwrap();
        let found = |content| geometry.pieces_of_contents(&[content]).remove(0);
        assert_eq!(found(0..10), Some(0..1));
        assert_eq!(found(10..40_010), Some(1..4));
        assert_eq!(found(0..40_015), Some(0..5));
        assert_eq!(found(10 + 16_384..40_015), Some(2..5));
        assert_eq!(found(10..10 + 32_768), Some(1..3));
        for other in [0..9, 1..10, 0..0, 10..40_009, 11..40_010, 0..56_400, 60_000..60_001] {
            assert_eq!(found(other.clone()), None, "{other:?}");
        }
        // Without gaps a piece may hold files that are not meant.
        let (files, total) = spans(&[10, 16_374], None);
        let geometry = Geometry::new(16_384, total, files).unwrap();
        assert_eq!(geometry.pieces_of_contents(&[0..10, 0..16_384]), [None, Some(0..1)]);
    }

    fn spans(lengths: &[u64], align: Option<u64>) -> (Vec<FileSpan>, u64) {
        let (mut at, mut total) = (0u64, 0);
        let files = lengths
            .iter()
            .map(|&length| {
                if let Some(align) = align.filter(|_| length > 0) {
                    at = at.next_multiple_of(align);
                }
                let span = FileSpan { offset: at, length };
                at += length;
                total = at;
                span
            })
            .collect();
        (files, total)
    }

    #[test]
    fn aligned_pieces_end_with_their_file() {
        let (files, total) = spans(&[40_000, 0, 70_000], Some(32_768));
        let shape = Geometry::new(32_768, total, files).unwrap();
        assert_eq!(shape.piece_count(), 5);
        let lens: Vec<_> =
            shape.pieces().map(|p| (shape.piece_len(p), shape.data_len(p))).collect();
        assert_eq!(
            lens,
            [(32768, 32768), (32768, 7232), (32768, 32768), (32768, 32768), (4464, 4464)]
        );
        assert_eq!(shape.pieces_of(FileIndex(0)), 0..2);
        assert_eq!(shape.pieces_of(FileIndex(1)), 1..1);
        assert_eq!(shape.pieces_of(FileIndex(2)), 2..5);
        assert_eq!(
            shape.segments(PieceIndex(1), 0, 32_768).collect::<Vec<_>>(),
            [
                Segment::File { file: FileIndex(0), offset: 32_768, len: 7232 },
                Segment::Pad { len: 25_536 }
            ]
        );
        assert!(
            shape.may_request(
                Block { piece: PieceIndex(1), offset: 16_384, len: 16_384 },
                BLOCK_LEN
            )
        );
        assert!(
            !shape.may_request(Block { piece: PieceIndex(4), offset: 0, len: 16_384 }, BLOCK_LEN)
        );
    }

    #[test]
    fn a_span_begins_and_ends_within_pieces() {
        let (files, total) = spans(&[40_000, 70_000], Some(32_768));
        let shape = Geometry::new(32_768, total, files).unwrap();
        let check = |start, end, expected: &[(u32, u32)]| {
            let span = Span { start, end };
            let got: Vec<_> =
                shape.blocks_of(span).map(|block| (block.piece.0, block.offset)).collect();
            assert_eq!(got, expected);
        };
        let piece = PieceIndex;
        check((piece(0), 1), (piece(2), 1), &[(0, 16_384), (1, 0), (2, 0)]);
        check((piece(2), 0), (piece(2), 1), &[(2, 0)]);
        check((piece(4), 0), (piece(5), 0), &[(4, 0)]);
        assert_eq!(Span::of_pieces(1..3).pieces(), 1..3);
        assert_eq!(shape.bytes_of(Span::of_pieces(0..2)), 40_000);
    }

    #[test]
    fn hostile_numbers_are_refused() {
        let span = |offset, length| FileSpan { offset, length };
        assert!(Geometry::new(0, 1, vec![]).is_none());
        assert!(Geometry::new(1, u64::MAX, vec![]).is_none());
        assert!(Geometry::new(16_384, 10, vec![span(0, 11)]).is_none());
        assert!(Geometry::new(16_384, 10, vec![span(0, 5), span(4, 1)]).is_none());
        assert!(Geometry::new(16_384, 10, vec![span(1, u64::MAX)]).is_none());
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_block_and_one_segment(
            lengths in prop::collection::vec(prop_oneof![Just(0u64), 1u64..200_000], 1..12),
            exponent in 14u32..18,
            aligned: bool,
        ) {
            let piece_length = 1u32 << exponent;
            let (files, total) = spans(&lengths, aligned.then_some(u64::from(piece_length)));
            let shape = Geometry::new(piece_length, total, files.clone()).unwrap();
            let mut seen = vec![0u64; files.len()];
            for piece in shape.pieces() {
                let mut at = 0;
                for index in 0..shape.block_count(piece) {
                    let block = shape.block(piece, index);
                    prop_assert_eq!(block.offset, at);
                    prop_assert_eq!(shape.block_index(block), Some(index));
                    at += block.len;
                    let mut sum = 0;
                    for segment in shape.segments(piece, block.offset, block.len) {
                        prop_assert!(!segment.is_empty());
                        sum += segment.len();
                        if let Segment::File { file, offset, len } = segment {
                            prop_assert_eq!(offset, seen[file.get()]);
                            seen[file.get()] += u64::from(len);
                            prop_assert!(shape.pieces_of(file).contains(&piece.0));
                        }
                    }
                    prop_assert_eq!(sum, block.len);
                }
                prop_assert_eq!(at, shape.data_len(piece));
            }
            prop_assert_eq!(seen, lengths);
        }
    }
}
