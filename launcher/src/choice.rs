//! Which files of a torrent are wanted, and which first.

use crate::error::Error;
use globset::{GlobBuilder, GlobMatcher};
use std::ops::RangeInclusive;
use updraft_protocol::io::Priority;
use updraft_protocol::metainfo::Info;

/// Patterns of one kind on a command line; each of `--first` is a priority of its own.
const PATTERNS_MAX: usize = 100;

/// What somebody wants of a torrent: patterns over the paths of files, `*` not across folders, `**`
/// across them. Without patterns everything is wanted alike.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    only: Vec<GlobMatcher>,
    /// Numbers of files ([`Info::file_numbers`]) that a link selects.
    numbers: Vec<RangeInclusive<u32>>,
    first: Vec<GlobMatcher>,
}

impl Choice {
    /// Reads patterns: files to fetch and no others, and files to fetch before others, in this order.
    ///
    /// # Errors
    /// [`Error::Usage`] for a pattern that is none, or too many of them.
    pub fn parse(only: &[String], first: &[String]) -> Result<Self, Error> {
        if only.len().max(first.len()) > PATTERNS_MAX {
            return Err(Error::Usage(format!("give at most {PATTERNS_MAX} patterns of a kind")));
        }
        let all = |patterns: &[String]| {
            patterns.iter().map(|text| matcher(text)).collect::<Result<Vec<_>, Error>>()
        };
        Ok(Self { only: all(only)?, numbers: Vec::new(), first: all(first)? })
    }

    /// What a link selects (BEP 53), where no pattern says what to fetch.
    pub fn select(&mut self, numbers: &[RangeInclusive<u32>]) {
        if self.only.is_empty() {
            self.numbers = numbers.to_vec();
        }
    }

    /// How much each file of a torrent is wanted.
    ///
    /// # Errors
    /// [`Error::Usage`] if a pattern fits no file that could be meant.
    pub fn priorities(&self, info: &Info) -> Result<Vec<Priority>, Error> {
        let paths: Vec<String> = match info.single_file {
            true => vec![info.name.clone()],
            false => info.files.iter().map(|file| file.path.join("/")).collect(),
        };
        let chosen = |path: &String| {
            self.only.is_empty() || self.only.iter().any(|pattern| pattern.is_match(path))
        };
        for pattern in &self.only {
            if !paths.iter().any(|path| pattern.is_match(path)) {
                return Err(fits_nothing("--only", pattern, "the torrent"));
            }
        }
        let selected = |number: u32| {
            self.numbers.is_empty() || self.numbers.iter().any(|run| run.contains(&number))
        };
        let numbers = info.file_numbers();
        if !numbers.iter().any(|&number| selected(number)) {
            let why = "the link selects files (`so=`) that the torrent does not have; `--only` selects by path";
            return Err(Error::Usage(why.into()));
        }
        let mut priorities: Vec<Priority> = paths
            .iter()
            .zip(numbers)
            .map(|(path, number)| Priority::from(chosen(path) && selected(number)))
            .collect();
        let highest =
            u8::try_from(self.first.len()).expect("bounded when read") + Priority::NORMAL.0;
        for (pattern, level) in self.first.iter().zip((0..=highest).rev()) {
            let mut fits = false;
            for (path, priority) in paths.iter().zip(&mut priorities) {
                if priority.is_wanted() && pattern.is_match(path) {
                    *priority = Priority(level).max(*priority);
                    fits = true;
                }
            }
            if !fits {
                return Err(fits_nothing("--first", pattern, "the files to fetch"));
            }
        }
        Ok(priorities)
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, Error> {
    // Torrents name files with `/` everywhere.
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| Error::Usage(format!("`{pattern}` is no pattern: {}", error.kind())))
}

fn fits_nothing(flag: &str, pattern: &GlobMatcher, among: &str) -> Error {
    Error::Usage(format!(
        "{flag} `{}` fits no file of {among}: paths are as in `updraft-publisher torrent show`, `*` stops \
         at folders and `**` does not",
        pattern.glob()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_protocol::geometry::{FileSpan, Geometry};
    use updraft_protocol::ids::InfoHashes;
    use updraft_protocol::metainfo::FileEntry;

    fn info(paths: &[&str]) -> Info {
        let spans = (0..).zip(paths).map(|(at, _)| FileSpan { offset: at, length: 1 }).collect();
        let entry = |path: &&str| FileEntry {
            path: path.split('/').map(str::to_owned).collect(),
            length: 1,
            executable: false,
            hidden: false,
            symlink: None,
            root: None,
            layer: Vec::new(),
        };
        Info {
            raw: bytes::Bytes::new(),
            hashes: InfoHashes { v1: None, v2: None },
            name: "game".into(),
            private: false,
            single_file: false,
            files: paths.iter().map(entry).collect(),
            geometry: Geometry::new(16384, paths.len() as u64, spans).unwrap(),
            v1_pieces: None,
        }
    }

    fn check(only: &[&str], first: &[&str], expected: Result<&[u8], &str>) {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let info = info(&["a.exe", "data/b.pak", "data/maps/c.pak", "readme"]);
        let got = Choice::parse(&owned(only), &owned(first))
            .and_then(|choice| choice.priorities(&info))
            .map(|all| all.iter().map(|priority| priority.0).collect::<Vec<_>>());
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{only:?} {first:?}"),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (got, _) => panic!("{only:?} {first:?}: {got:?}"),
        }
    }

    #[test]
    fn patterns_choose_and_order() {
        check(&[], &[], Ok(&[1, 1, 1, 1]));
        check(&["*.exe"], &[], Ok(&[1, 0, 0, 0]));
        check(&["data/*"], &[], Ok(&[0, 1, 0, 0]));
        check(&["data/**", "readme"], &[], Ok(&[0, 1, 1, 1]));
        check(&[], &["*.exe", "data/**"], Ok(&[3, 2, 2, 1]));
        check(&[], &["**", "readme"], Ok(&[3, 3, 3, 3]));
        check(&["data/**"], &["**/c.pak"], Ok(&[0, 1, 2, 0]));
    }

    #[test]
    fn a_pattern_that_means_nothing_is_refused() {
        check(&["*.pak"], &[], Err("`*.pak` fits no file of the torrent"));
        check(&["*.exe"], &["readme"], Err("`readme` fits no file of the files to fetch"));
        check(&["[a"], &[], Err("`[a` is no pattern"));
    }
}
