//! Bytes to [`Metainfo`]: every rule a torrent must keep, each with its own refusal.

use super::{FileEntry, Info, Metainfo, TORRENT_BYTES_MAX, name};
use crate::bencode::{self, Dict, Value};
use crate::geometry::{BLOCK_LEN, FileSpan, Geometry, PIECES_MAX};
use crate::ids::{InfoHashes, Sha1Hash, Sha256Hash};
use crate::merkle;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// The most bytes an info dictionary may have: what libtorrent and others take over BEP 9.
pub const INFO_BYTES_MAX: usize = 31 << 20;

/// The longest v1 piece: libtorrent's limit, 32767 blocks.
pub const PIECE_LENGTH_MAX: u32 = 32_767 * BLOCK_LEN;

/// The most trackers and the most web seeds that are read; the rest is left out.
pub const SOURCES_MAX: usize = 200;

/// The longest texts that are read: comments, the creator.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Why a torrent was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetainfoError {
    /// Not bencode.
    #[error(transparent)]
    Bencode(#[from] bencode::Error),
    /// Larger than we take.
    #[error("the {what} is {bytes} bytes long; at most {max} are accepted")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A key is not there.
    #[error("`{key}` is missing from the {place}")]
    Missing {
        /// The key.
        key: &'static str,
        /// Where it belongs.
        place: &'static str,
    },
    /// A key has a value of the wrong type or out of range.
    #[error("invalid `{key}` in the {place}: {why}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// Where it stands.
        place: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A name that could lead outside the folder, or that no file system takes.
    #[error("unsafe or invalid name `{name}`: {why}")]
    Name {
        /// The component or path, escaped.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Two entries of one path, or a file that is also a folder.
    #[error("`{path}` is listed more than once, or as a file and as a folder")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// Sizes that do not go together.
    #[error("{0}")]
    Size(String),
    /// v2 hashes are over canonical bytes.
    #[error("the info dictionary is not canonical bencoding: keys out of order")]
    NotCanonical,
    /// The two halves of a hybrid torrent disagree.
    #[error("the v1 and the v2 file list do not match: {0}")]
    Hybrid(String),
    /// A piece layer that is not that of its file.
    #[error("invalid piece layer: {0}")]
    Layer(String),
}

use MetainfoError as Error;

const INFO: &str = "info dictionary";
const FILE: &str = "file entry";

fn invalid(key: &'static str, place: &'static str, why: impl Into<String>) -> Error {
    Error::Invalid { key, place, why: why.into() }
}

impl Metainfo {
    /// Reads a torrent file and checks all of it. White space after the end is tolerated.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        within("torrent file", bytes.len(), TORRENT_BYTES_MAX)?;
        let (value, len) = bencode::parse_prefix_bounded(bytes, bencode::TORRENT_ITEMS_MAX)?;
        if !bytes[len..].iter().all(u8::is_ascii_whitespace) {
            return Err(bencode::Error::Trailing { at: len }.into());
        }
        let Some(top) = value.dict() else {
            return Err(invalid("info", "torrent file", "the file is not a dictionary"));
        };
        let place = "torrent file";
        let info = top.get(b"info").ok_or(Error::Missing { key: "info", place })?;
        let info = info.dict().ok_or_else(|| invalid("info", place, "it is not a dictionary"))?;
        let layers = match top.get(b"piece layers") {
            None => Vec::new(),
            Some(layers) => read_layers(layers)?,
        };
        Ok(Self {
            info: read_info(info, Bytes::copy_from_slice(info.raw()), &layers)?,
            trackers: trackers(top),
            web_seeds: top.get(b"url-list").map(web_seeds).unwrap_or_default(),
            comment: text(top, b"comment"),
            created_by: text(top, b"created by"),
            creation_date: top.get(b"creation date").and_then(Value::int),
        })
    }

    /// The torrent file without anything beside its info dictionary and piece layers: the same bytes
    /// whoever made it.
    pub fn bare(&self) -> Vec<u8> {
        let (trackers, web_seeds) = (Vec::new(), Vec::new());
        let info = self.info.clone();
        Self { info, trackers, web_seeds, comment: None, created_by: None, creation_date: None }
            .encode()
    }

    /// The torrent file: canonical, the same bytes for the same content.
    pub fn encode(&self) -> Vec<u8> {
        let layers = self.info.piece_layers();
        let layer_bytes = layers.values().map(|layer| (layer.len() + 2) * size_of::<Sha256Hash>());
        // Everything else is a few lines of text.
        let capacity = self.info.raw.len() + layer_bytes.sum::<usize>() + 4096;
        let mut encoder = bencode::Encoder::with_capacity(capacity);
        encoder.dict(|top| {
            let first = self.trackers.iter().flatten().next();
            if let Some(first) = first {
                top.key(b"announce").bytes(first.as_bytes());
            }
            if self.trackers.iter().map(Vec::len).sum::<usize>() > 1 {
                top.key(b"announce-list").list(|tiers| {
                    for tier in &self.trackers {
                        tiers.list(|urls| tier.iter().for_each(|url| urls.bytes(url.as_bytes())));
                    }
                });
            }
            if let Some(comment) = &self.comment {
                top.key(b"comment").bytes(comment.as_bytes());
            }
            if let Some(created_by) = &self.created_by {
                top.key(b"created by").bytes(created_by.as_bytes());
            }
            if let Some(date) = self.creation_date {
                top.key(b"creation date").int(date);
            }
            top.key(b"info").raw(&self.info.raw);
            if self.info.is_v2() {
                top.key(b"piece layers").dict(|out| {
                    for (root, layer) in &layers {
                        out.key(&root.0).hashes(layer.iter().map(|hash| hash.0));
                    }
                });
            }
            match self.web_seeds.as_slice() {
                [] => {}
                [one] => top.key(b"url-list").bytes(one.as_bytes()),
                many => top
                    .key(b"url-list")
                    .list(|list| many.iter().for_each(|url| list.bytes(url.as_bytes()))),
            }
        });
        encoder.finish()
    }
}

impl Info {
    /// Reads an info dictionary (as BEP 9 brings it) and checks it. `piece_layers` are pairs of a
    /// file's root and its layer, 32 bytes for each piece; a layer that is not there leaves
    /// [`FileEntry::layer`] empty, one that does not fit is an error.
    pub fn parse(raw: Bytes, piece_layers: &[(Sha256Hash, &[u8])]) -> Result<Self, Error> {
        within(INFO, raw.len(), INFO_BYTES_MAX)?;
        let (value, len) = bencode::parse_prefix_bounded(&raw, bencode::TORRENT_ITEMS_MAX)?;
        if len < raw.len() {
            return Err(bencode::Error::Trailing { at: len }.into());
        }
        let Some(dict) = value.dict() else {
            return Err(invalid("info", "torrent", "it is not a dictionary"));
        };
        read_info(dict, raw.clone(), piece_layers)
    }

    /// The piece layers to write into a torrent file: for each file of more than one piece its root
    /// and its layer, in the order of the roots, each root once.
    pub fn piece_layers(&self) -> std::collections::BTreeMap<Sha256Hash, &[Sha256Hash]> {
        let long = u64::from(self.geometry.piece_length());
        let files = self.files.iter().filter(|file| file.length > long && !file.layer.is_empty());
        files.filter_map(|file| Some((file.root?, file.layer.as_slice()))).collect()
    }
}

fn within(what: &'static str, bytes: usize, max: usize) -> Result<(), Error> {
    if bytes > max { Err(Error::TooLarge { what, bytes, max }) } else { Ok(()) }
}

fn text(dict: &Dict<'_>, key: &[u8]) -> Option<String> {
    let bytes = dict.get(key)?.bytes()?;
    (bytes.len() <= TEXT_BYTES_MAX).then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// URLs as people write them: white space around them, empty ones, the same one twice.
fn urls<'a>(
    values: impl Iterator<Item = &'a Value<'a>>,
    seen: &mut HashSet<String>,
) -> Vec<String> {
    let trimmed = values.filter_map(|value| value.text()).map(str::trim);
    let mut urls = Vec::new();
    for url in trimmed.filter(|url| !url.is_empty()) {
        if seen.len() < SOURCES_MAX && seen.insert(url.to_owned()) {
            urls.push(url.to_owned());
        }
    }
    urls
}

/// BEP 12: the tiers count when there are any, else `announce`.
fn trackers(top: &Dict<'_>) -> Vec<Vec<String>> {
    let mut seen = HashSet::new();
    let tiers = top.get(b"announce-list").and_then(Value::list).unwrap_or_default();
    let mut tiers: Vec<_> =
        tiers.iter().filter_map(Value::list).map(|tier| urls(tier.iter(), &mut seen)).collect();
    tiers.retain(|tier| !tier.is_empty());
    if tiers.is_empty() {
        let one = urls(top.get(b"announce").into_iter(), &mut seen);
        tiers.extend((!one.is_empty()).then_some(one));
    }
    tiers
}

/// BEP 19: one URL or a list of them.
fn web_seeds(value: &Value<'_>) -> Vec<String> {
    let mut seen = HashSet::new();
    match value {
        Value::List(list) => urls(list.iter(), &mut seen),
        Value::Bytes(_) => urls(std::iter::once(value), &mut seen),
        Value::Int(_) | Value::Dict(_) => Vec::new(),
    }
}

type Layers<'a> = Vec<(Sha256Hash, &'a [u8])>;

fn read_layers<'a>(value: &Value<'a>) -> Result<Layers<'a>, Error> {
    let layers =
        value.dict().ok_or_else(|| Error::Layer("`piece layers` is no dictionary".into()))?;
    let entry = |(key, value): (&'a [u8], &Value<'a>)| {
        let root = <[u8; 32]>::try_from(key)
            .map_err(|_| Error::Layer(format!("a key has {} bytes instead of 32", key.len())))?;
        let layer = value.bytes().ok_or_else(|| Error::Layer("a layer is not a string".into()))?;
        Ok((Sha256Hash(root), layer))
    };
    layers.iter().map(entry).collect()
}

/// One entry of either file list, before they are put together.
#[derive(Debug)]
struct Listed {
    entry: FileEntry,
    /// Place in the v1 piece space.
    offset: u64,
}

fn read_info(dict: &Dict<'_>, raw: Bytes, layers: &[(Sha256Hash, &[u8])]) -> Result<Info, Error> {
    within(INFO, raw.len(), INFO_BYTES_MAX)?;
    let v2 = match dict.get(b"meta version") {
        None => false,
        Some(Value::Int(1)) => false,
        Some(Value::Int(2)) => true,
        Some(Value::Int(other)) => {
            return Err(invalid("meta version", INFO, format!("version {other} is not known")));
        }
        Some(_) => return Err(invalid("meta version", INFO, "it is not a number")),
    };
    let v1 = dict.get(b"pieces").is_some();
    if !v1 && !v2 {
        return Err(Error::Missing { key: "pieces", place: INFO });
    }
    // The tree's order is part of BEP 52; v1 files with other orders exist and do no harm.
    if v2 && !dict.is_canonical() {
        return Err(Error::NotCanonical);
    }
    let piece_length = piece_length(dict, v2)?;
    let name = match (v2, dict.get(b"name.utf-8")) {
        (false, Some(name)) => name,
        (true, _) | (false, None) => {
            dict.get(b"name").ok_or(Error::Missing { key: "name", place: INFO })?
        }
    };
    let name = name.bytes().ok_or_else(|| invalid("name", INFO, "it is not a string"))?;
    let name = name::component(name)?;

    let v1_list = v1.then(|| v1_files(dict, &name)).transpose()?;
    let v2_list = v2.then(|| v2_files(dict, piece_length)).transpose()?;
    let (single_file, mut files, total) = match (v1_list, v2_list) {
        (Some(v1), None) => (v1.single_file, v1.files, v1.total),
        (None, Some((files, total))) => {
            let single = matches!(files.as_slice(), [file] if file.entry.path == [name.as_str()]);
            (single, files, total)
        }
        (Some(v1), Some((files, total))) => {
            compare(&v1, &files, total, piece_length)?;
            (v1.single_file, files, v1.total)
        }
        (None, None) => unreachable!("one of them was asked for above"),
    };
    unique_paths(&files)?;
    if total == 0 {
        return Err(Error::Size("the torrent holds no bytes: its total length is 0".into()));
    }
    if total.div_ceil(u64::from(piece_length)) > u64::from(PIECES_MAX) {
        let why = format!("too many pieces: {total} bytes in pieces of {piece_length}");
        return Err(Error::Size(format!("{why}; at most {PIECES_MAX} pieces are accepted")));
    }
    let v1_pieces =
        v1.then(|| v1_pieces(dict, total.div_ceil(u64::from(piece_length)))).transpose()?;
    if v2 {
        attach_layers(&mut files, layers, piece_length)?;
    }

    let spans =
        files.iter().map(|file| FileSpan { offset: file.offset, length: file.entry.length });
    let geometry = Geometry::new(piece_length, total, spans.collect())
        .ok_or_else(|| Error::Size("the files' sizes do not fit together".into()))?;
    Ok(Info {
        hashes: InfoHashes::of(&raw, v1, v2),
        raw,
        name,
        private: dict.get(b"private").and_then(Value::int) == Some(1),
        single_file,
        files: files.into_iter().map(|file| file.entry).collect(),
        geometry,
        v1_pieces,
    })
}

fn piece_length(dict: &Dict<'_>, v2: bool) -> Result<u32, Error> {
    let key = "piece length";
    let value = dict.get(b"piece length").ok_or(Error::Missing { key, place: INFO })?;
    let length = value.int().ok_or_else(|| invalid(key, INFO, "it is not a number"))?;
    let length =
        u32::try_from(length).ok().filter(|length| (1..=PIECE_LENGTH_MAX).contains(length));
    let Some(length) = length else {
        return Err(invalid(key, INFO, format!("it must be from 1 to {PIECE_LENGTH_MAX} bytes")));
    };
    if v2 && !(length.is_power_of_two() && length >= BLOCK_LEN) {
        let why = format!("{length} is not a power of two of at least {BLOCK_LEN} (BEP 52)");
        return Err(invalid(key, INFO, why));
    }
    Ok(length)
}

fn v1_pieces(dict: &Dict<'_>, expected: u64) -> Result<Vec<Sha1Hash>, Error> {
    let key = "pieces";
    let value = dict.get(b"pieces").ok_or(Error::Missing { key, place: INFO })?;
    let bytes = value.bytes().ok_or_else(|| invalid(key, INFO, "it is not a string"))?;
    let (hashes, rest) = bytes.as_chunks::<20>();
    if !rest.is_empty() || hashes.len() as u64 != expected {
        let why = format!("{} bytes are not {expected} hashes of 20 bytes", bytes.len());
        return Err(invalid(key, INFO, why));
    }
    Ok(hashes.iter().map(|hash| Sha1Hash(*hash)).collect())
}

struct V1List {
    single_file: bool,
    files: Vec<Listed>,
    total: u64,
}

fn v1_files(dict: &Dict<'_>, name: &str) -> Result<V1List, Error> {
    let (single, list) = (dict.get(b"length"), dict.get(b"files"));
    let list = match (single, list) {
        (Some(_), Some(_)) => {
            return Err(invalid("files", INFO, "there is a `length` as well"));
        }
        (None, None) => return Err(Error::Missing { key: "files", place: INFO }),
        (Some(_), None) => {
            let path = vec![name.to_owned()];
            let entry = file_entry(dict, path, true)?;
            if entry.symlink.is_some() {
                return Err(invalid("attr", INFO, "a torrent of one symlink holds nothing"));
            }
            let total = entry.length;
            return Ok(V1List {
                single_file: true,
                files: vec![Listed { entry, offset: 0 }],
                total,
            });
        }
        (None, Some(list)) => list,
    };
    let list = list.list().ok_or_else(|| invalid("files", INFO, "it is not a list"))?;
    let (mut files, mut total) = (Vec::with_capacity(list.len()), 0u64);
    for item in list {
        let item =
            item.dict().ok_or_else(|| invalid("files", INFO, "an entry is no dictionary"))?;
        let offset = total;
        let (length, pad) = (length(item)?, has_attr(item, b'p')?);
        if !pad {
            let path = match item.get(b"path.utf-8") {
                Some(path) => path,
                None => item.get(b"path").ok_or(Error::Missing { key: "path", place: FILE })?,
            };
            files.push(Listed { entry: file_entry(item, name::path(path)?, false)?, offset });
        }
        total = total
            .checked_add(length.unwrap_or(0))
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or_else(|| Error::Size("the files' lengths add up to more than 2^63".into()))?;
    }
    Ok(V1List { single_file: false, files, total })
}

fn length(dict: &Dict<'_>) -> Result<Option<u64>, Error> {
    let Some(value) = dict.get(b"length") else { return Ok(None) };
    let length = value.int().ok_or_else(|| invalid("length", FILE, "it is not a number"))?;
    u64::try_from(length)
        .map(Some)
        .map_err(|_| invalid("length", FILE, format!("{length} is negative")))
}

fn attrs<'a>(dict: &Dict<'a>) -> Result<&'a [u8], Error> {
    let Some(value) = dict.get(b"attr") else { return Ok(b"") };
    value.bytes().ok_or_else(|| invalid("attr", FILE, "it is not a string"))
}

fn has_attr(dict: &Dict<'_>, attr: u8) -> Result<bool, Error> {
    Ok(attrs(dict)?.contains(&attr))
}

/// What v1 and v2 entries have in common. `single` is the info dictionary of a one-file torrent.
fn file_entry(dict: &Dict<'_>, path: Vec<String>, single: bool) -> Result<FileEntry, Error> {
    let symlink = has_attr(dict, b'l')?;
    let length = match length(dict)? {
        Some(length) => length,
        None if symlink => 0,
        None => {
            let place = if single { INFO } else { FILE };
            return Err(Error::Missing { key: "length", place });
        }
    };
    let symlink = match (symlink, dict.get(b"symlink path")) {
        (false, _) => None,
        (true, None) => return Err(Error::Missing { key: "symlink path", place: FILE }),
        (true, Some(target)) => Some(name::path(target)?),
    };
    if symlink.is_some() && length > 0 {
        return Err(invalid("length", FILE, "a symlink has no content"));
    }
    Ok(FileEntry {
        executable: has_attr(dict, b'x')? && symlink.is_none(),
        hidden: has_attr(dict, b'h')?,
        path,
        length,
        symlink,
        root: None,
        layer: Vec::new(),
    })
}

/// BEP 52: the tree in its own order, each file from the start of a piece. Also gives the end of the
/// last file.
fn v2_files(dict: &Dict<'_>, piece_length: u32) -> Result<(Vec<Listed>, u64), Error> {
    let key = "file tree";
    let tree = dict.get(b"file tree").ok_or(Error::Missing { key, place: INFO })?;
    let tree = tree.dict().ok_or_else(|| invalid(key, INFO, "it is not a dictionary"))?;
    let mut walk = TreeWalk { piece_length, files: Vec::new(), end: 0, path: Vec::new() };
    walk.folder(tree)?;
    Ok((walk.files, walk.end))
}

struct TreeWalk {
    piece_length: u32,
    files: Vec<Listed>,
    end: u64,
    path: Vec<String>,
}

impl TreeWalk {
    /// The depth is bounded by that of the bencoding.
    fn folder(&mut self, folder: &Dict<'_>) -> Result<(), Error> {
        for (key, value) in folder.iter() {
            self.path.push(name::component(key)?);
            let wrong =
                |why: &str| invalid("file tree", INFO, format!("`{}` {why}", key.escape_ascii()));
            let value = value.dict().ok_or_else(|| wrong("is not a dictionary"))?;
            match value.get(b"") {
                None => self.folder(value)?,
                Some(_) if value.len() > 1 => return Err(wrong("is a file and a folder")),
                Some(file) => {
                    let file = file.dict().ok_or_else(|| wrong("has no properties"))?;
                    self.file(file)?;
                }
            }
            self.path.pop();
        }
        Ok(())
    }

    fn file(&mut self, file: &Dict<'_>) -> Result<(), Error> {
        if has_attr(file, b'p')? {
            return Err(invalid("attr", "v2 file tree", "pad files exist only in v1 lists"));
        }
        let mut entry = file_entry(file, self.path.clone(), false)?;
        let mut offset = self.end;
        if entry.length > 0 {
            entry.root = Some(pieces_root(file)?);
            let place = offset.checked_next_multiple_of(u64::from(self.piece_length));
            let end = place.and_then(|place| place.checked_add(entry.length));
            (offset, self.end) = place
                .zip(end)
                .filter(|(_, end)| i64::try_from(*end).is_ok())
                .ok_or_else(|| Error::Size("the files' lengths add up to more than 2^63".into()))?;
        }
        self.files.push(Listed { entry, offset });
        Ok(())
    }
}

fn pieces_root(file: &Dict<'_>) -> Result<Sha256Hash, Error> {
    let key = "pieces root";
    let root = file.get(b"pieces root").ok_or(Error::Missing { key, place: FILE })?;
    let root = root.bytes().and_then(|root| <[u8; 32]>::try_from(root).ok());
    match root {
        None => Err(invalid(key, FILE, "it is not 32 bytes")),
        Some([0, rest @ ..]) if rest.iter().all(|byte| *byte == 0) => {
            Err(invalid(key, FILE, "a root of zeros is no hash"))
        }
        Some(root) => Ok(Sha256Hash(root)),
    }
}

/// BEP 52: in a hybrid both lists name the same files in the same order, and pad files put every v1
/// file where the v2 alignment has it. Padding after the last file is optional.
fn compare(v1: &V1List, v2: &[Listed], v2_end: u64, piece_length: u32) -> Result<(), Error> {
    if v1.files.len() != v2.len() {
        let why = format!("{} files in v1, {} in v2", v1.files.len(), v2.len());
        return Err(Error::Hybrid(why));
    }
    for (one, two) in v1.files.iter().zip(v2) {
        let (a, b) = (&one.entry, &two.entry);
        if a.path != b.path {
            let why =
                format!("`{}` and `{}` stand in one place", a.path.join("/"), b.path.join("/"));
            return Err(Error::Hybrid(why));
        }
        let same = a.length == b.length && a.symlink == b.symlink && a.executable == b.executable;
        if !same {
            return Err(Error::Hybrid(format!("`{}` differs", a.path.join("/"))));
        }
        if a.length > 0 && one.offset != two.offset {
            let why =
                format!("`{}` does not start at its piece: padding is wrong", a.path.join("/"));
            return Err(Error::Hybrid(why));
        }
    }
    let padded = v2_end.checked_next_multiple_of(u64::from(piece_length));
    if v1.total != v2_end && Some(v1.total) != padded {
        return Err(Error::Hybrid("the padding after the last file is wrong".into()));
    }
    Ok(())
}

fn unique_paths(files: &[Listed]) -> Result<(), Error> {
    let mut paths: Vec<_> = files.iter().map(|file| file.entry.path.as_slice()).collect();
    paths.sort_unstable();
    name::unique(&paths)
}

fn attach_layers(
    files: &mut [Listed],
    layers: &[(Sha256Hash, &[u8])],
    piece_length: u32,
) -> Result<(), Error> {
    let mut unused: HashSet<_> = layers.iter().map(|(root, _)| *root).collect();
    let layers: HashMap<_, _> = layers.iter().copied().collect();
    for Listed { entry, .. } in files {
        let Some(root) = entry.root else { continue };
        if entry.length <= u64::from(piece_length) {
            entry.layer = vec![root];
            continue;
        }
        let Some(layer) = layers.get(&root) else { continue };
        unused.remove(&root);
        let expected = entry.length.div_ceil(u64::from(piece_length));
        let (hashes, rest) = layer.as_chunks::<32>();
        let shown = entry.path.join("/");
        if !rest.is_empty() || hashes.len() as u64 != expected {
            let why = format!("`{shown}` needs {expected} hashes, {} bytes are given", layer.len());
            return Err(Error::Layer(why));
        }
        let hashes: Vec<_> = hashes.iter().map(|hash| Sha256Hash(*hash)).collect();
        if merkle::root_of_layer(&hashes, piece_length) != root {
            return Err(Error::Layer(format!("that of `{shown}` does not have the file's root")));
        }
        entry.layer = hashes;
    }
    match unused.into_iter().next() {
        Some(root) => Err(Error::Layer(format!("no file of several pieces has the root {root}"))),
        None => Ok(()),
    }
}
