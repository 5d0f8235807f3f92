//! Where the files go: order, padding, and the choice of the piece length.

use super::{CreateError, Format, Source, SourceFile};
use crate::geometry::{BLOCK_LEN, FileSpan, Geometry, PIECES_MAX};
use crate::metainfo::PIECE_LENGTH_MAX;

/// The info dictionary stays below this when a piece length can see to it.
pub const INFO_BYTES_AIM: u64 = 8 << 20;

/// A hybrid's padding, as a share of its bytes, above which a shorter piece length is chosen.
pub const PADDING_PERCENT_MAX: u64 = 5;

/// Pieces to aim for: enough for peers to trade, few enough to talk about.
const PIECES_AIM: u64 = 2048;

/// The longest piece that is chosen; longer ones only on request.
const CHOSEN_LENGTH_MAX: u32 = 16 << 20;

/// The piece length for files of these sizes: a power of two of 16 KiB to 16 MiB for about 2000
/// pieces; shorter where a hybrid's pad files would be more than [`PADDING_PERCENT_MAX`], longer
/// where the info dictionary would be more than [`INFO_BYTES_AIM`].
pub fn choose_piece_length(source: &Source, format: Format) -> u32 {
    let total: u64 = source.files.iter().map(|file| file.length).sum();
    let aim = (total / PIECES_AIM).clamp(u64::from(BLOCK_LEN), u64::from(CHOSEN_LENGTH_MAX));
    let mut length = u32::try_from(aim).map_or(CHOSEN_LENGTH_MAX, u32::next_power_of_two);
    let padded = |length| padding(source, length).saturating_mul(100) > total * PADDING_PERCENT_MAX;
    while format == Format::Hybrid && length > BLOCK_LEN && padded(length) {
        length /= 2;
    }
    while length < CHOSEN_LENGTH_MAX && info_bytes(source, format, length) > INFO_BYTES_AIM {
        length *= 2;
    }
    length
}

/// Bytes of pad files that a hybrid of this piece length has.
pub fn padding(source: &Source, piece_length: u32) -> u64 {
    let gap = |length: u64| length.next_multiple_of(u64::from(piece_length)) - length;
    if source.single_file { 0 } else { source.files.iter().map(|file| gap(file.length)).sum() }
}

/// About how long the info dictionary gets, a few percent too high.
pub(super) fn info_bytes(source: &Source, format: Format, piece_length: u32) -> u64 {
    let mut bytes = 300;
    let aligned = format.has_v2();
    let (mut pieces, mut total) = (0, 0);
    for file in &source.files {
        let path: usize = file.path.iter().map(|component| component.len() + 5).sum();
        let path = path as u64;
        pieces += file.length.div_ceil(u64::from(piece_length));
        total += file.length;
        bytes += if format.has_v1() { path + 34 } else { 0 };
        bytes += if aligned { path + 78 } else { 0 };
        bytes += if format == Format::Hybrid && file.length > 0 { 58 } else { 0 };
    }
    if !aligned {
        pieces = total.div_ceil(u64::from(piece_length));
    }
    bytes + if format.has_v1() { pieces * 20 } else { 0 }
}

/// The files in torrent order and their place in the piece space.
pub(super) struct Layout<'a> {
    pub(super) files: Vec<&'a SourceFile>,
    pub(super) geometry: Geometry,
}

/// Orders and places the files, and checks what was asked for.
pub(super) fn layout(
    source: &Source,
    format: Format,
    piece_length: Option<u32>,
) -> Result<Layout<'_>, CreateError> {
    let length = piece_length.unwrap_or_else(|| choose_piece_length(source, format));
    let refuse = |why| Err(CreateError::PieceLength { length, why });
    if !length.is_power_of_two() || length < BLOCK_LEN {
        return refuse("it must be a power of two of at least 16 KiB");
    }
    if length > PIECE_LENGTH_MAX {
        return refuse("at most 256 MiB are accepted by other clients");
    }
    let mut files: Vec<_> = source.files.iter().collect();
    // The order of the BEP 52 tree: component by component, as bytes.
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let align = if format.has_v2() { u64::from(length) } else { 1 };
    let (mut end, mut spans) = (0u64, Vec::with_capacity(files.len()));
    for file in &files {
        let offset = if file.length > 0 { end.next_multiple_of(align) } else { end };
        spans.push(FileSpan { offset, length: file.length });
        end = offset + file.length;
    }
    if end == 0 {
        return Err(CreateError::Empty { name: source.name.clone() });
    }
    // As libtorrent does: a hybrid of several files is padded to the end of its last piece.
    let tail = format == Format::Hybrid && !source.single_file;
    let total = if tail { end.next_multiple_of(align) } else { end };
    match Geometry::new(length, total, spans) {
        Some(geometry) => Ok(Layout { files, geometry }),
        None if total.div_ceil(u64::from(length)) > u64::from(PIECES_MAX) => {
            refuse("there would be more than 8 million pieces; choose a longer one")
        }
        None => refuse("the files are too large"),
    }
}
