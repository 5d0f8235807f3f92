//! The hashes of a leaf index for the files that have to be built, and no more of it than that.

use crate::documents::Documents;
use crate::error::Error;
use crate::leaves::Build;
use crate::news::{self, Sources};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use std::ops::Range;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::leaf_index::{Layout, WHOLE_BYTES_MAX, parse_hashes};
use updraft_manifests::manifest::{SideFile, index_path};

/// Hashes nearer to each other than this are fetched with one request: another one costs as much.
const GAP_MAX: u64 = 16 << 10;
/// The most requests for one index; with more gaps than that, larger ones are fetched too.
const REQUESTS_MAX: usize = 64;
/// Requests under way at once.
const REQUESTS_AT_ONCE: usize = 4;

/// The hashes of all windows of `builds`, one file after the other, and how many bytes were fetched.
///
/// # Errors
/// When no source has the index, or it is not laid out as `layout` says.
pub async fn hashes(
    documents: &Documents,
    sources: &Sources<'_>,
    index: &SideFile,
    layout: &Layout,
    builds: &[Build],
) -> Result<(Vec<u64>, u64), Error> {
    let path = index_path(&index.sha256);
    if index.length != layout.index_len() {
        let why = format!("it has {} bytes where {} are due", index.length, layout.index_len());
        return Err(Error::Network { what: path, why });
    }
    let wanted = builds.iter().map(|build| layout.hashes_of(build.file as usize));
    let (parts, fetched) = if index.length <= WHOLE_BYTES_MAX {
        let kept = documents.read(&path).is_some();
        let whole = |bytes: &Bytes| {
            if ContentHash::of(bytes) != index.sha256 {
                return Err("it is not what was signed".to_owned());
            }
            Ok(bytes.clone())
        };
        let whole = news::checked(documents, sources, &path, whole).await?;
        let len = whole.len() as u64;
        (vec![(0..len, whole)], if kept { 0 } else { len })
    } else {
        let ranges = merge(wanted.clone().filter(|range| !range.is_empty()).collect());
        let fetched = ranges.iter().map(|range| range.end - range.start).sum();
        let get = ranges.into_iter().map(|range| async {
            sources.range(&path, range.clone(), index.length).await.map(|bytes| (range, bytes))
        });
        (stream::iter(get).buffered(REQUESTS_AT_ONCE).try_collect().await?, fetched)
    };
    let mut hashes = Vec::new();
    for range in wanted.filter(|range| !range.is_empty()) {
        let part = parts.partition_point(|(part, _): &(Range<u64>, Bytes)| part.end < range.end);
        let (part, bytes) = &parts[part];
        let at = |position: u64| usize::try_from(position - part.start).expect("it is in memory");
        let words = parse_hashes(&bytes[at(range.start)..at(range.end)]);
        hashes.extend(words.expect("a layout counts in hashes"));
    }
    Ok((hashes, fetched))
}

/// Ascending ranges, those near each other made one.
fn merge(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut gap_max = GAP_MAX;
    loop {
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in &ranges {
            match merged.last_mut() {
                Some(last) if range.start.saturating_sub(last.end) <= gap_max => {
                    last.end = range.end;
                }
                Some(_) | None => merged.push(range.clone()),
            }
        }
        if merged.len() <= REQUESTS_MAX {
            return merged;
        }
        gap_max *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_one_and_there_are_never_many() {
        let merged = merge(vec![8..16, 16..24, 100..200, 100_000..100_008]);
        assert_eq!(merged, [8..200, 100_000..100_008]);
        assert_eq!(merge(vec![]), []);
        let far: Vec<_> = (0..1000u64).map(|at| at * 40_000..at * 40_000 + 8).collect();
        let merged = merge(far.clone());
        assert!(merged.len() <= REQUESTS_MAX, "{}", merged.len());
        let inside = |range: &Range<u64>| {
            merged.iter().any(|all| all.start <= range.start && range.end <= all.end)
        };
        assert!(far.iter().all(inside));
    }
}
