//! The info dictionary, in the form libtorrent gives it: its hashes are the golden ones.

use super::layout::Layout;
use super::{Format, Options, Source, SourceFile};
use crate::bencode::{DictEncoder, Encoder, encode_dict};
use crate::geometry::FileSpan;
use crate::ids::{Sha1Hash, Sha256Hash};

/// What hashing found: by piece, and by file.
pub(super) struct Hashes {
    /// SHA-1 of every piece, if there is v1 metadata.
    pub(super) pieces: Vec<Sha1Hash>,
    /// `pieces root` of every file, if there is v2 metadata; `None` for empty files.
    pub(super) roots: Vec<Option<Sha256Hash>>,
}

/// The bytes of the info dictionary.
pub(super) fn info(
    source: &Source,
    options: &Options,
    layout: &Layout<'_>,
    hashes: &Hashes,
) -> Vec<u8> {
    let (v1, v2) = (options.format.has_v1(), options.format.has_v2());
    let only = layout.files.first().filter(|_| source.single_file);
    encode_dict(|info| {
        if let Some(file) = only.filter(|_| v1) {
            attributes(info, file);
        }
        if v2 {
            let entries: Vec<_> = layout.files.iter().copied().zip(&hashes.roots).collect();
            file_tree(info.key(b"file tree"), &entries, 0);
        }
        match only {
            None if v1 => info.key(b"files").list(|list| files(list, options.format, layout)),
            Some(file) if v1 => info.key(b"length").uint(file.length),
            None | Some(_) => {}
        }
        if v2 {
            info.key(b"meta version").int(2);
        }
        info.key(b"name").bytes(source.name.as_bytes());
        info.key(b"piece length").int(layout.geometry.piece_length().into());
        if v1 {
            let pieces: Vec<u8> = hashes.pieces.iter().flat_map(|hash| hash.0).collect();
            info.key(b"pieces").bytes(&pieces);
        }
        if options.private {
            info.key(b"private").int(1);
        }
    })
}

/// BEP 47. libtorrent gives symlinks the mode bits they have on disk, which are all.
fn attributes(out: &mut DictEncoder<'_>, file: &SourceFile) {
    match (&file.symlink, file.executable) {
        (Some(_), _) => out.key(b"attr").bytes(b"xl"),
        (None, true) => out.key(b"attr").bytes(b"x"),
        (None, false) => {}
    }
}

fn path(out: &mut Encoder, components: &[String]) {
    out.list(|list| components.iter().for_each(|component| list.bytes(component.as_bytes())));
}

/// The v1 list, with pad files wherever the v2 layout leaves a gap.
fn files(list: &mut Encoder, format: Format, layout: &Layout<'_>) {
    let spans = layout.geometry.files();
    for (file, &FileSpan { offset, length }) in layout.files.iter().zip(spans) {
        list.dict(|entry| {
            attributes(entry, file);
            entry.key(b"length").uint(length);
            path(entry.key(b"path"), &file.path);
            if let Some(target) = &file.symlink {
                path(entry.key(b"symlink path"), target);
            }
        });
        let end = offset + length;
        let pad = end.next_multiple_of(layout.geometry.piece_length().into()) - end;
        if format == Format::Hybrid && length > 0 && pad > 0 {
            list.dict(|entry| {
                entry.key(b"attr").bytes(b"p");
                entry.key(b"length").uint(pad);
                path(entry.key(b"path"), &[".pad".to_owned(), pad.to_string()]);
            });
        }
    }
}

/// The subtree of `entries`, which are sorted and share their first `depth` components.
fn file_tree(out: &mut Encoder, entries: &[(&SourceFile, &Option<Sha256Hash>)], depth: usize) {
    out.dict(|tree| {
        for group in entries.chunk_by(|(a, _), (b, _)| a.path[depth] == b.path[depth]) {
            let (file, root) = group[0];
            let value = tree.key(file.path[depth].as_bytes());
            if file.path.len() > depth + 1 {
                file_tree(value, group, depth + 1);
            } else {
                value.dict(|node| node.key(b"").dict(|node| properties(node, file, root.as_ref())));
            }
        }
    });
}

fn properties(out: &mut DictEncoder<'_>, file: &SourceFile, root: Option<&Sha256Hash>) {
    attributes(out, file);
    if let Some(target) = &file.symlink {
        path(out.key(b"symlink path"), target);
        return;
    }
    out.key(b"length").uint(file.length);
    if let Some(root) = root {
        out.key(b"pieces root").bytes(&root.0);
    }
}
