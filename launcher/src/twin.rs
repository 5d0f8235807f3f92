//! A small file kept twice: whatever a crash or a bad sector does to one copy, the other is whole.
//!
//! Each copy is one line, `updraft-twin 1 <generation> <blake3 hex>`, and the payload. The checksum
//! covers the generation and the payload. A write replaces the copies one after the other, each by
//! an atomic rename; reading takes the whole copy with the highest generation.

use crate::tree::Tree;
use std::io::{self, Read, Write};
use updraft_manifests::installed::INSTALLED_BYTES_MAX;

/// The most bytes such a file may have: the largest record and the line before it.
const TWIN_BYTES_MAX: u64 = INSTALLED_BYTES_MAX as u64 + 256;

/// The names of the two copies of `path`.
fn copies(path: &str) -> [String; 2] {
    [path.to_owned(), format!("{path}.copy")]
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Neither copy exists.
    Nothing,
    /// Something is there, but no copy is whole.
    Damaged,
    /// The newest whole payload.
    Payload(Vec<u8>),
}

/// Reads the newest whole copy of `path`.
///
/// # Errors
/// From the file system.
pub fn read(tree: &Tree, path: &str) -> io::Result<Found> {
    let mut any = false;
    let mut best: Option<(u64, Vec<u8>)> = None;
    for copy in copies(path) {
        let Some(text) = read_copy(tree, &copy)? else { continue };
        any = true;
        if let Some((generation, payload)) = parse(&text)
            && best.as_ref().is_none_or(|(old, _)| *old < generation)
        {
            best = Some((generation, payload.to_vec()));
        }
    }
    Ok(match best {
        Some((_, payload)) => Found::Payload(payload),
        None if any => Found::Damaged,
        None => Found::Nothing,
    })
}

/// Replaces both copies of `path`. When this returns, the payload is durable; when it is cut short,
/// a read gives the old payload or the new one.
///
/// # Errors
/// From the file system; [`io::ErrorKind::FileTooLarge`] for what could not be read again.
pub fn write(tree: &Tree, path: &str, payload: &[u8]) -> io::Result<()> {
    if payload.len() > INSTALLED_BYTES_MAX {
        let why = "a release of so many files is too large for a record";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    let mut generations = Vec::new();
    for copy in copies(path) {
        let text = read_copy(tree, &copy)?;
        generations.push(text.as_deref().and_then(parse).map(|(generation, _)| generation));
    }
    let generation = generations.iter().flatten().max().map_or(1, |old| old + 1);
    // The copy that is damaged or older goes first: one whole copy exists at every instant.
    let mut order = [0, 1];
    order.sort_by_key(|&at| generations[at]);
    let names = copies(path);
    for at in order {
        let fresh = format!("{}.new", names[at]);
        let mut file = tree.create_file(&fresh)?;
        writeln!(file, "{HEADER} {generation} {}", checksum(generation, payload).to_hex())?;
        file.write_all(payload)?;
        file.sync_all()?;
        tree.rename(&fresh, &names[at])?;
        tree.sync_folder(crate::tree::parent(path))?;
    }
    Ok(())
}

const HEADER: &str = "updraft-twin 1";

fn read_copy(tree: &Tree, path: &str) -> io::Result<Option<Vec<u8>>> {
    if !tree.exists(path)? {
        return Ok(None);
    }
    let mut text = Vec::new();
    tree.open_file(path)?.take(TWIN_BYTES_MAX).read_to_end(&mut text)?;
    Ok(Some(text))
}

fn parse(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&text[..end]).ok()?.strip_prefix(HEADER)?.trim_start();
    let (generation, sum) = line.split_once(' ')?;
    let generation = generation.parse().ok()?;
    let payload = &text[end + 1..];
    (checksum(generation, payload).to_hex().as_str() == sum).then_some((generation, payload))
}

fn checksum(generation: u64, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_damaged_copy_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        assert_eq!(read(&tree, "state").unwrap(), Found::Nothing);
        let mut last = Vec::new();
        for round in 0..6u8 {
            let payload = vec![round; 100];
            write(&tree, "state", &payload).unwrap();
            let path = dir.path().join(if round % 2 == 0 { "state" } else { "state.copy" });
            let whole = std::fs::read(&path).unwrap();
            for damaged in [&[][..], &[0; 200], &whole[..whole.len() / 2]] {
                std::fs::write(&path, damaged).unwrap();
                assert_eq!(read(&tree, "state").unwrap(), Found::Payload(payload.clone()));
            }
            last = payload;
        }
        assert_eq!(read(&tree, "state").unwrap(), Found::Payload(last));
        for copy in ["state", "state.copy"] {
            std::fs::write(dir.path().join(copy), [0; 50]).unwrap();
        }
        assert_eq!(read(&tree, "state").unwrap(), Found::Damaged);
        write(&tree, "state", b"again").unwrap();
        assert_eq!(read(&tree, "state").unwrap(), Found::Payload(b"again".to_vec()));
    }

    #[test]
    fn an_older_whole_copy_loses() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        write(&tree, "state", b"old").unwrap();
        let old = std::fs::read(dir.path().join("state")).unwrap();
        write(&tree, "state", b"new").unwrap();
        std::fs::write(dir.path().join("state"), old).unwrap();
        assert_eq!(read(&tree, "state").unwrap(), Found::Payload(b"new".to_vec()));
    }
}
