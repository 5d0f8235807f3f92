//! What somebody types at the terminal and nobody sees.

use std::io;
use zeroize::Zeroizing;

/// The longest line in bytes: what a terminal passes on at most.
#[cfg(unix)]
const LINE_BYTES_MAX: usize = 4096;

/// Asks `question` at the terminal of this process, whatever its input and output are, and reads a line that is not
/// shown. The terminal is as before in any case, also after Ctrl-C.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] for Ctrl-C; [`io::ErrorKind::UnexpectedEof`] for Ctrl-D; if there is no terminal.
#[cfg(unix)]
pub(crate) fn ask_unseen(question: &str) -> io::Result<Zeroizing<String>> {
    use io::{Read as _, Write as _};
    let mut hidden = Hidden::new()?;
    hidden.terminal.write_all(question.as_bytes())?;
    let mut line = Zeroizing::new([0; LINE_BYTES_MAX]);
    let len = hidden.terminal.read(&mut line[..])?;
    match line[..len].split_last() {
        None => Err(io::ErrorKind::UnexpectedEof.into()),
        Some((&CTRL_C, _)) => {
            hidden.terminal.write_all(b"\n")?;
            Err(io::ErrorKind::Interrupted.into())
        }
        Some((last, rest)) => {
            let text = if *last == b'\n' { rest } else { &line[..len] };
            let text = std::str::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData)?;
            Ok(Zeroizing::new(text.to_owned()))
        }
    }
}

/// The same by the console.
///
/// # Errors
/// If there is none.
#[cfg(windows)]
pub(crate) fn ask_unseen(question: &str) -> io::Result<Zeroizing<String>> {
    rpassword::prompt_password(question).map(Zeroizing::new)
}

/// As a terminal sends it.
#[cfg(unix)]
const CTRL_C: u8 = 3;

/// A terminal that shows nothing, until it is dropped.
#[cfg(unix)]
struct Hidden {
    terminal: std::fs::File,
    before: rustix::termios::Termios,
}

#[cfg(unix)]
impl Hidden {
    fn new() -> io::Result<Self> {
        use rustix::termios::{
            LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr,
        };
        let terminal = std::fs::File::options().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut unseen = before.clone();
        // Ctrl-C as a signal would end us with the terminal as it is now. It ends the line instead.
        unseen.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        unseen.local_modes.insert(LocalModes::ICANON | LocalModes::ECHONL);
        unseen.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(&terminal, OptionalActions::Flush, &unseen)?;
        Ok(Self { terminal, before })
    }
}

#[cfg(unix)]
impl Drop for Hidden {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        // There is nothing else that could be done.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}
