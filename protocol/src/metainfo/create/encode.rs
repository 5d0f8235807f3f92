//! The info dictionary, in the form libtorrent gives it: its hashes are the golden ones.

use crate::bencode::{DictEncoder, Encoder};
use crate::geometry::FileSpan;
use crate::metainfo::{FileEntry, Info};

/// Writes the info dictionary of `info`, all of it but `raw` and `hashes`: with v1 metadata if there
/// are `v1_pieces`, with v2 metadata if `v2`.
pub(super) fn info(out: &mut Encoder, info: &Info, v2: bool) {
    let v1 = info.v1_pieces.is_some();
    let only = info.files.first().filter(|_| info.single_file);
    out.dict(|dict| {
        if let Some(file) = only.filter(|_| v1) {
            attributes(dict, file);
        }
        if v2 {
            file_tree(dict.key(b"file tree"), &info.files, 0);
        }
        match only {
            None if v1 => dict.key(b"files").list(|list| files(list, info, v2)),
            Some(file) if v1 => dict.key(b"length").uint(file.length),
            None | Some(_) => {}
        }
        if v2 {
            dict.key(b"meta version").int(2);
        }
        dict.key(b"name").bytes(info.name.as_bytes());
        dict.key(b"piece length").int(info.geometry.piece_length().into());
        if let Some(pieces) = &info.v1_pieces {
            dict.key(b"pieces").hashes(pieces.iter().map(|hash| hash.0));
        }
        if info.private {
            dict.key(b"private").int(1);
        }
    });
}

/// BEP 47. libtorrent gives symlinks the mode bits they have on disk, which are all.
fn attributes(out: &mut DictEncoder<'_>, file: &FileEntry) {
    match (&file.symlink, file.executable) {
        (Some(_), _) => out.key(b"attr").bytes(b"xl"),
        (None, true) => out.key(b"attr").bytes(b"x"),
        (None, false) => {}
    }
}

fn path(out: &mut Encoder, components: &[String]) {
    out.list(|list| components.iter().for_each(|component| list.bytes(component.as_bytes())));
}

/// The v1 list; in a hybrid with pad files wherever the v2 layout leaves a gap.
fn files(list: &mut Encoder, info: &Info, hybrid: bool) {
    let mut digits = itoa::Buffer::new();
    for (file, &FileSpan { offset, length }) in info.files.iter().zip(info.geometry.files()) {
        list.dict(|entry| {
            attributes(entry, file);
            entry.key(b"length").uint(length);
            path(entry.key(b"path"), &file.path);
            if let Some(target) = &file.symlink {
                path(entry.key(b"symlink path"), target);
            }
        });
        let end = offset + length;
        let pad = end.next_multiple_of(info.geometry.piece_length().into()) - end;
        if hybrid && length > 0 && pad > 0 {
            list.dict(|entry| {
                entry.key(b"attr").bytes(b"p");
                entry.key(b"length").uint(pad);
                entry.key(b"path").list(|path| {
                    path.bytes(b".pad");
                    path.bytes(digits.format(pad).as_bytes());
                });
            });
        }
    }
}

/// The subtree of `files`, which are sorted and share their first `depth` components.
fn file_tree(out: &mut Encoder, files: &[FileEntry], depth: usize) {
    out.dict(|tree| {
        for group in files.chunk_by(|a, b| a.path[depth] == b.path[depth]) {
            let file = &group[0];
            let value = tree.key(file.path[depth].as_bytes());
            if file.path.len() > depth + 1 {
                file_tree(value, group, depth + 1);
            } else {
                value.dict(|node| node.key(b"").dict(|node| properties(node, file)));
            }
        }
    });
}

fn properties(out: &mut DictEncoder<'_>, file: &FileEntry) {
    attributes(out, file);
    if let Some(target) = &file.symlink {
        path(out.key(b"symlink path"), target);
        return;
    }
    out.key(b"length").uint(file.length);
    if let Some(root) = &file.root {
        out.key(b"pieces root").bytes(&root.0);
    }
}
