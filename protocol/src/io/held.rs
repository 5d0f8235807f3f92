//! Files that another program holds open.
//!
//! Windows refuses to replace, move or remove them: virus scanners, search indexes and backups look at
//! whatever was just written, and let go within a second or two. Elsewhere nobody is held up by a reader.

use std::io;
use std::time::Duration;

/// How long is waited between tries, in milliseconds: two seconds and a half in all.
const WAITS_MS: [u64; 8] = [5, 15, 40, 90, 200, 400, 700, 1050];

/// Windows' `ERROR_ACCESS_DENIED`: also what a program that runs, a file that is mapped, and one that is
/// on its way out are answered with.
const ACCESS_DENIED: i32 = 5;
/// Windows' `ERROR_SHARING_VIOLATION`, `ERROR_LOCK_VIOLATION` and `ERROR_USER_MAPPED_FILE`.
const IN_USE: [i32; 3] = [32, 33, 1224];

/// Does `work`, and again for two seconds and a half while it fails because somebody holds a file. May block
/// for so long; on other systems than Windows it is done once.
///
/// # Errors
/// The last one of `work`. What is surely somebody else's hold says so, as [`io::ErrorKind::ResourceBusy`].
pub fn patiently<T>(work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    patiently_within(if cfg!(windows) { &WAITS_MS } else { &[] }, work)
}

fn patiently_within<T>(waits_ms: &[u64], mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for wait in waits_ms {
        match work() {
            Err(error) if may_be_held(&error) => {
                tracing::debug!(%error, wait, "a file may be held by another program");
                std::thread::sleep(Duration::from_millis(*wait));
            }
            done => return done,
        }
    }
    work().map_err(in_words)
}

/// True if somebody may be holding the file: of a lack of rights Windows says the same.
pub fn may_be_held(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    error.kind() == io::ErrorKind::ResourceBusy
        || cfg!(windows) && code.is_some_and(|code| code == ACCESS_DENIED || IN_USE.contains(&code))
}

fn in_words(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) if cfg!(windows) && IN_USE.contains(&code) => io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("another program has it open (error {code})"),
        ),
        Some(_) | None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails `times` times, then succeeds; how often it was done comes out.
    fn check(times: u32, kind: io::ErrorKind) -> (u32, io::Result<()>) {
        let mut done = 0;
        let result = patiently_within(&[0, 0], || {
            done += 1;
            if done > times { Ok(()) } else { Err(kind.into()) }
        });
        (done, result)
    }

    #[test]
    fn what_is_held_is_tried_again_and_nothing_else() {
        assert!(matches!(check(0, io::ErrorKind::ResourceBusy), (1, Ok(()))));
        assert!(matches!(check(2, io::ErrorKind::ResourceBusy), (3, Ok(()))));
        assert!(matches!(check(9, io::ErrorKind::ResourceBusy), (3, Err(_))));
        assert!(matches!(check(9, io::ErrorKind::NotFound), (1, Err(_))));
    }

    #[cfg(windows)]
    #[test]
    fn a_file_that_is_open_elsewhere_is_waited_for() {
        use std::os::windows::fs::OpenOptionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let held = std::fs::File::options().read(true).share_mode(0).open(&path).unwrap();
        let mut held = Some(held);
        // The holder lets go while we try.
        let mut tries = 0;
        patiently(|| {
            tries += 1;
            if tries == 3 {
                held = None;
            }
            std::fs::remove_file(&path)
        })
        .unwrap();
        assert_eq!(tries, 3);
        let error = io::Error::from_raw_os_error(32);
        assert!(may_be_held(&error));
        assert_eq!(in_words(error).kind(), io::ErrorKind::ResourceBusy);
    }
}
