//! The numbers by which links select files (BEP 53): places in the torrent's own list of files, where pad files have
//! places, too. A v2 torrent has no such list; there libtorrent, by which most clients count, puts a pad file behind
//! every file that ends within a piece, as hybrids have it.

use super::Info;
use crate::bencode::{self, Value};

impl Info {
    /// The number of each file, in the order of [`Info::files`].
    pub fn file_numbers(&self) -> Vec<u32> {
        match self.listed_numbers() {
            Some(numbers) if numbers.len() == self.files.len() => numbers,
            Some(_) | None => self.padded_numbers(),
        }
    }

    /// By the list of v1 and hybrid torrents.
    fn listed_numbers(&self) -> Option<Vec<u32>> {
        let info = bencode::parse(&self.raw).ok()?;
        let list = info.dict()?.get(b"files")?.list()?;
        let is_pad = |file: &Value<'_>| {
            let attributes = file.dict().and_then(|file| file.get(b"attr")?.bytes());
            attributes.is_some_and(|attributes| attributes.contains(&b'p'))
        };
        Some((0..).zip(list).filter(|(_, file)| !is_pad(file)).map(|(number, _)| number).collect())
    }

    fn padded_numbers(&self) -> Vec<u32> {
        let piece = u64::from(self.geometry.piece_length());
        let mut next = 0;
        let number = |file: &super::FileEntry| {
            let own = next;
            next += 1 + u32::from(!file.length.is_multiple_of(piece));
            own
        };
        self.files.iter().map(number).collect()
    }
}
