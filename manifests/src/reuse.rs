//! Which old files are worth searching for leaves of new ones, and in which order.
//!
//! An old version of a changed file comes first, then what the new release no longer has, then what
//! stays where it is: content is seldom copied out of a file that stays, so those are read only while
//! so much is missing that it pays.

use crate::hash::ContentHash;
use crate::path::RelPath;
use crate::plan::{Action, Content, NewFile, Plan};
use crate::rolling::WINDOW;
use std::collections::{HashMap, HashSet};

/// Files that stay are read up to so many times the bytes still missing. Read at 400 MiB/s, what a
/// missing byte costs then is what downloading it costs at 25 Mbit/s.
pub const STAYING_FACTOR: u64 = 128;

/// An old file, known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldContent<'a> {
    /// Where it lies.
    pub path: &'a RelPath,
    /// Bytes.
    pub length: u64,
    /// Its `pieces root`, if its content is known.
    pub root: Option<ContentHash>,
}

/// Numbers of old files, in the order to search them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchOrder {
    /// To be read in any case.
    pub first: Vec<usize>,
    /// To be read after them within [`STAYING_FACTOR`].
    pub staying: Vec<usize>,
}

/// Orders `old` for what `plan` has to fetch of `new`.
pub fn search_order(old: &[OldContent<'_>], new: &[NewFile], plan: &Plan) -> SearchOrder {
    let fetched: HashMap<&RelPath, usize> = (0..)
        .zip(new.iter().zip(&plan.actions))
        .filter(|(_, (_, action))| **action == Action::Fetch)
        .map(|(number, (file, _))| (&file.path, number))
        .collect();
    let contents: HashSet<(u64, ContentHash)> = new
        .iter()
        .filter_map(|file| match file.content {
            Content::File { length, root: Some(root), .. } => Some((length, root)),
            Content::File { root: None, .. } | Content::Symlink { .. } => None,
        })
        .collect();
    let mut order = SearchOrder::default();
    let mut seen = HashSet::new();
    for (number, file) in old.iter().enumerate() {
        // Content that is there twice is read once, and what is shorter than a window holds none.
        let twice = file.root.is_some_and(|root| !seen.insert((file.length, root)));
        if twice || file.length < WINDOW as u64 {
            continue;
        }
        let stays = file.root.is_some_and(|root| contents.contains(&(file.length, root)));
        if fetched.contains_key(file.path) || (file.root.is_some() && !stays) {
            order.first.push(number);
        } else {
            order.staying.push(number);
        }
    }
    let rank = |number: &usize| fetched.get(old[*number].path).copied().unwrap_or(usize::MAX);
    order.first.sort_by_key(rank);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::Place;
    use crate::plan::{OldFile, plan};

    /// `name=letter`: content of 100 000 bytes told apart by the letter; `name?`: unknown content.
    fn check(old: &str, new: &str, first: &str, staying: &str) {
        let path = |name: &str| RelPath::parse(name).unwrap();
        let content = |letter: &str| Content::File {
            length: 100_000,
            root: Some(ContentHash([letter.as_bytes()[0]; 32])),
            executable: false,
        };
        let parse = |text: &str| -> Vec<(RelPath, Option<Content>)> {
            text.split_whitespace()
                .map(|word| match word.split_once('=') {
                    Some((name, letter)) => (path(name), Some(content(letter))),
                    None => (path(word.strip_suffix('?').unwrap()), None),
                })
                .collect()
        };
        let (old, new) = (parse(old), parse(new));
        let known: Vec<OldFile> = old
            .iter()
            .filter_map(|(path, content)| {
                Some(OldFile { path: path.clone(), content: content.clone()?, listed: true })
            })
            .collect();
        let new: Vec<NewFile> = new
            .into_iter()
            .map(|(path, content)| NewFile { path, content: content.unwrap() })
            .collect();
        let plan = plan(&known, &new, &vec![Place::Own; new.len()]).unwrap();
        let contents: Vec<OldContent<'_>> = old
            .iter()
            .map(|(path, content)| OldContent {
                path,
                length: 100_000,
                root: content.as_ref().and_then(|content| match content {
                    Content::File { root, .. } => *root,
                    Content::Symlink { .. } => None,
                }),
            })
            .collect();
        let order = search_order(&contents, &new, &plan);
        let names = |numbers: &[usize]| -> String {
            numbers.iter().map(|at| old[*at].0.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((names(&order.first), names(&order.staying)), (first.into(), staying.into()));
    }

    #[test]
    fn what_is_likely_comes_first() {
        check("same=s gone=g b=1 a=2", "a=3 b=4 same=s", "a b gone", "same");
        // Moved content stays, wherever it goes; a copy of it is not read again.
        check("old=m copy=m a=1", "new=m a=2", "a", "old");
        // A file at the place of a changed one is its old version, known or not; others may be.
        check("mod? a?", "a=2", "a", "mod");
        check("same=s", "same=s", "", "same");
    }
}
