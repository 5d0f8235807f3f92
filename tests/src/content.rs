//! Files made from seeds, and trees compared byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes are made and compared in pieces of this size.
const BUFFER_BYTES: usize = 1 << 18;

/// A small generator of numbers (splitmix64): the same seed gives the same bytes on every machine.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555_5555_5555_5555)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end` (which is not 0).
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// Fills a buffer.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.number().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Bytes of noise.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Noise::new(seed).fill(&mut bytes);
    bytes
}

/// Writes a file of `len` bytes of noise, making its parent folders.
///
/// # Panics
/// When it cannot be written.
pub fn write_file(path: &Path, seed: u64, len: u64) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("the parent folder can be made");
    }
    let mut file = File::create(path).expect("the file can be made");
    let mut noise = Noise::new(seed);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = len;
    while left > 0 {
        let count = usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        noise.fill(&mut buffer[..count]);
        file.write_all(&buffer[..count]).expect("the file can be written");
        left -= count as u64;
    }
}

/// Writes a file of words, which shrinks to a fifth or so when it is compressed.
///
/// # Panics
/// When it cannot be written.
pub fn write_text(path: &Path, seed: u64, len: usize) {
    const WORDS: [&str; 32] = [
        "function", "local", "player", "position", "return", "health", "if", "then", "else", "end",
        "world", "enemy", "update", "draw", "self", "nil", "require", "math", "random", "table",
        "insert", "for", "pairs", "in", "do", "while", "velocity", "score", "level", "sound",
        "volume", "print",
    ];
    let mut random = Noise::new(seed);
    let mut pick =
        |end: usize| usize::try_from(random.below(end as u64)).expect("it is below `end`");
    let mut text = String::with_capacity(len + 32);
    while text.len() < len {
        text.push_str(WORDS[pick(WORDS.len())]);
        text.push(if pick(9) == 0 { '\n' } else { ' ' });
        if pick(12) == 0 {
            text.push_str(&pick(100_000).to_string());
        }
    }
    text.truncate(len);
    fs::create_dir_all(parent(path)).expect("the folder can be made");
    fs::write(path, text).expect("the file can be written");
}

/// Overwrites `len` bytes at `offset` with noise.
///
/// # Panics
/// When it cannot be written.
pub fn damage(path: &Path, offset: u64, len: usize, seed: u64) {
    use std::io::{Seek, SeekFrom};
    let bytes = noise(seed, len);
    let mut file = File::options().write(true).open(path).expect("the file can be opened");
    file.seek(SeekFrom::Start(offset)).expect("the offset exists");
    file.write_all(&bytes).expect("the file can be written");
}

/// A game to share at `dir`. Plain torrents know no empty folders, so it has none.
pub fn shared_game(dir: PathBuf, seed: u64, bytes: u64) -> PathBuf {
    game(&dir, seed, bytes);
    fs::remove_dir_all(dir.join("logs")).expect("the game has a folder of logs");
    dir
}

/// The folder that `dir` lies in.
pub fn parent(dir: &Path) -> &Path {
    dir.parent().expect("it lies in a folder")
}

/// A small game: one big file, middling ones, many small ones, an empty one, a twin, a program, an
/// empty folder, and names with spaces and letters beyond ASCII. `bytes` is roughly its size.
pub fn game(dir: &Path, seed: u64, bytes: u64) {
    let big = bytes / 2;
    write_file(&dir.join("data/world.pak"), seed, big);
    for index in 0..6 {
        let path = dir.join(format!("data/levels/level {index}.bin"));
        write_file(&path, seed + 10 + index, bytes / 16 + index * 777);
    }
    for index in 0..40 {
        let path = dir.join(format!("scripts/{}/script_{index:03}.lua", index % 5));
        write_file(&path, seed + 100 + index, (index * 613) % 9_000 + 1);
    }
    write_file(&dir.join("data/empty.dat"), 0, 0);
    write_file(&dir.join("music/thème – été.ogg"), seed + 200, bytes / 20);
    fs::copy(dir.join("data/levels/level 1.bin"), dir.join("data/twin of level 1.bin"))
        .expect("the twin can be copied");
    write_file(&dir.join("bin/game"), seed + 300, 70_001);
    fs::create_dir_all(dir.join("logs/empty folder")).expect("the folder can be made");
    set_executable(&dir.join("bin/game"));
}

/// Turns the tree made by [`game`] into its next release: an edit inside the big file, bytes
/// inserted, files added, deleted, moved and replaced.
///
/// # Panics
/// When a file of the tree is missing.
pub fn next_release(dir: &Path, seed: u64) {
    let world = dir.join("data/world.pak");
    let len = fs::metadata(&world).expect("the big file exists").len();
    damage(&world, len / 3, 50_000, seed + 1);
    let level = dir.join("data/levels/level 2.bin");
    let old = fs::read(&level).expect("the level exists");
    let mut new = old[..old.len() / 2].to_vec();
    new.extend_from_slice(b"some inserted bytes");
    new.extend_from_slice(&old[old.len() / 2..]);
    fs::write(&level, new).expect("the level can be written");
    fs::remove_file(dir.join("scripts/0/script_000.lua")).expect("the script exists");
    fs::rename(dir.join("data/levels/level 3.bin"), dir.join("data/moved level.bin"))
        .expect("the level can be moved");
    write_file(&dir.join("data/levels/level 9.bin"), seed + 2, 300_000);
    write_file(&dir.join("bin/game"), seed + 3, 70_321);
    set_executable(&dir.join("bin/game"));
}

/// Marks a file as a program, where files have such a mark.
pub fn set_executable(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the mode can be set");
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// What lies under a folder: relative path (with `/`) to what it is.
pub type Tree = BTreeMap<String, Entry>;

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder with nothing in it.
    EmptyFolder,
    /// A file: its length and whether it is a program.
    File {
        /// Bytes.
        len: u64,
        /// Whether the owner may execute it.
        executable: bool,
    },
    /// A symbolic link and where it points.
    Link(PathBuf),
}

/// Lists a folder. Entries at the top whose name is in `ignored` are left out.
///
/// # Panics
/// When something cannot be read.
pub fn list(dir: &Path, ignored: &[&str]) -> Tree {
    let mut tree = Tree::new();
    list_into(dir, "", ignored, &mut tree);
    tree
}

fn list_into(dir: &Path, prefix: &str, ignored: &[&str], tree: &mut Tree) -> bool {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut any = false;
    for entry in entries {
        let entry = entry.expect("the folder can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        if prefix.is_empty() && ignored.contains(&name.as_str()) {
            continue;
        }
        any = true;
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("the entry has a type");
        if kind.is_dir() {
            if !list_into(&entry.path(), &format!("{path}/"), ignored, tree) {
                tree.insert(path, Entry::EmptyFolder);
            }
        } else if kind.is_symlink() {
            tree.insert(
                path,
                Entry::Link(fs::read_link(entry.path()).expect("a link has a target")),
            );
        } else {
            let metadata = entry.metadata().expect("the file has metadata");
            #[cfg(unix)]
            let executable = {
                use std::os::unix::fs::PermissionsExt;
                metadata.permissions().mode() & 0o100 != 0
            };
            #[cfg(not(unix))]
            let executable = false;
            tree.insert(path, Entry::File { len: metadata.len(), executable });
        }
    }
    any
}

/// Compares two folders byte for byte: names, kinds, lengths, contents and program marks.
/// Entries at the top named in `ignored` do not count. `Err` names the first differences.
pub fn compare(expected: &Path, found: &Path, ignored: &[&str]) -> Result<(), String> {
    compare_trees(expected, found, list(expected, ignored), list(found, ignored))
}

fn compare_trees(expected: &Path, found: &Path, left: Tree, right: Tree) -> Result<(), String> {
    let mut differences = Vec::new();
    for (path, entry) in &left {
        match right.get(path) {
            None => differences.push(format!("missing: {path}")),
            Some(other) if other != entry => {
                differences.push(format!("{path}: expected {entry:?}, found {other:?}"));
            }
            Some(_) => {
                if let Entry::File { .. } = entry
                    && let Some(offset) = first_difference(&expected.join(path), &found.join(path))
                {
                    differences.push(format!("{path}: differs at byte {offset}"));
                }
            }
        }
    }
    differences.extend(
        right.keys().filter(|path| !left.contains_key(*path)).map(|path| format!("extra: {path}")),
    );
    if differences.is_empty() {
        return Ok(());
    }
    let count = differences.len();
    differences.truncate(12);
    Err(format!(
        "{} is not {} ({count} differences): {}",
        found.display(),
        expected.display(),
        differences.join("; ")
    ))
}

/// [`compare`] for tests.
///
/// # Panics
/// When the folders differ.
pub fn assert_same(expected: &Path, found: &Path, ignored: &[&str]) {
    if let Err(difference) = compare(expected, found, ignored) {
        panic!("{difference}");
    }
}

/// Compares what every BitTorrent client writes: contents and names, but neither program marks nor
/// empty folders nor (Transmission leaves them out) empty files.
///
/// # Panics
/// When the folders differ.
pub fn assert_same_contents(expected: &Path, found: &Path, ignored: &[&str]) {
    let plain = |dir: &Path| -> Tree {
        let mut tree = list(dir, ignored);
        tree.retain(|_, entry| !matches!(entry, Entry::EmptyFolder | Entry::File { len: 0, .. }));
        for entry in tree.values_mut() {
            if let Entry::File { executable, .. } = entry {
                *executable = false;
            }
        }
        tree
    };
    if let Err(difference) = compare_trees(expected, found, plain(expected), plain(found)) {
        panic!("{difference}");
    }
}

/// The offset of the first byte that differs between two files of one length.
fn first_difference(left: &Path, right: &Path) -> Option<u64> {
    let open = |path: &Path| {
        BufReader::with_capacity(BUFFER_BYTES, File::open(path).expect("the file opens"))
    };
    let (mut left, mut right) = (open(left), open(right));
    let (mut a, mut b) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut offset = 0;
    loop {
        let count = read_full(&mut left, &mut a);
        let other = read_full(&mut right, &mut b);
        if a[..count] != b[..other] {
            let at = a[..count].iter().zip(&b[..other]).position(|(x, y)| x != y);
            return Some(offset + at.unwrap_or(count.min(other)) as u64);
        }
        if count == 0 {
            return None;
        }
        offset += count as u64;
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]).expect("the file can be read") {
            0 => break,
            count => filled += count,
        }
    }
    filled
}

/// Copies a tree: files, program marks, links and empty folders.
///
/// # Panics
/// When something cannot be copied.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be made");
    for (path, entry) in list(from, &[]) {
        let target = to.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).expect("the folder can be made");
        }
        match entry {
            Entry::EmptyFolder => fs::create_dir_all(&target).expect("the folder can be made"),
            Entry::File { .. } => {
                fs::copy(from.join(&path), &target).expect("the file can be copied");
            }
            Entry::Link(points) => link(&points, &target),
        }
    }
}

#[cfg(unix)]
fn link(points: &Path, target: &Path) {
    std::os::unix::fs::symlink(points, target).expect("the link can be made");
}

#[cfg(not(unix))]
fn link(points: &Path, target: &Path) {
    let from = target.parent().map_or_else(|| points.to_owned(), |parent| parent.join(points));
    fs::copy(from, target).expect("the linked file can be copied");
}

/// The bytes of all files under a folder.
pub fn total_bytes(dir: &Path, ignored: &[&str]) -> u64 {
    let tree = list(dir, ignored);
    tree.values().map(|entry| if let Entry::File { len, .. } = entry { *len } else { 0 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_tree_and_a_release_differs() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        game(&a, 1, 1_000_000);
        game(&b, 1, 1_000_000);
        assert_same(&a, &b, &[]);
        next_release(&b, 1);
        let difference = compare(&a, &b, &[]).unwrap_err();
        assert!(difference.contains("world.pak: differs at byte"), "{difference}");
        assert!(difference.contains("missing: scripts/0/script_000.lua"), "{difference}");
    }

    #[test]
    fn ignored_names_count_at_the_top_only() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write_file(&a.join("x/.state"), 1, 10);
        copy_tree(&a, &b);
        write_file(&b.join(".state/journal"), 2, 10);
        assert!(compare(&a, &b, &[]).is_err());
        assert_same(&a, &b, &[".state"]);
        fs::remove_file(b.join("x/.state")).unwrap();
        assert!(compare(&a, &b, &[".state"]).is_err());
    }
}
