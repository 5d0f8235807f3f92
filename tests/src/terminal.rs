//! A program at a terminal, as somebody sits before it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// What is on the screen, and whether more may come.
#[derive(Debug, Default)]
struct Screen {
    shown: Mutex<(String, bool)>,
    changed: Condvar,
}

/// A pseudo-terminal with a program on it. Dropping it kills the program.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Open, so that it can be asked how it is set.
    device: Option<File>,
    screen: Arc<Screen>,
    /// Bytes of the screen that were waited for.
    seen: usize,
}

impl Terminal {
    /// Starts `command` on a terminal of its own.
    ///
    /// # Panics
    /// When there can be no terminal, or the program does not start.
    pub fn start(command: &Command) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let keyboard = keyboard.expect("there are pseudo-terminals");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("it is ours");
        let name = ptsname(&keyboard, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let device = File::from(rustix::fs::open(name, flags, Mode::empty()).expect("it is there"));
        let end = || Stdio::from(device.try_clone().expect("it is open"));
        // Of util-linux: what makes it the terminal of the program.
        let mut on_it = Command::new("setsid");
        on_it.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => on_it.env(key, value),
                None => on_it.env_remove(key),
            };
        }
        let child = on_it.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        let screen = Arc::<Screen>::default();
        let (keyboard, shown) = (File::from(keyboard), Arc::clone(&screen));
        let mut output = keyboard.try_clone().expect("it is open");
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            loop {
                let read = output.read(&mut bytes).unwrap_or(0);
                let mut screen = shown.shown.lock().expect("nobody panics with it");
                screen.0.push_str(&String::from_utf8_lossy(&bytes[..read]));
                screen.1 |= read == 0;
                shown.changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        Self { child, keyboard, device: Some(device), screen, seen: 0 }
    }

    /// Waits until `text` is shown, after what was waited for before.
    ///
    /// # Panics
    /// When it is not, with what is.
    pub fn wait(&mut self, text: &str, within: Duration) {
        let deadline = Instant::now() + within;
        let mut screen = self.screen.shown.lock().expect("nobody panics with it");
        loop {
            if let Some(at) = screen.0[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !screen.1, "{text:?} is not shown, but: {}", screen.0);
            screen = self.screen.changed.wait_timeout(screen, left).expect("nobody panics").0;
        }
    }

    /// Types something: `\n` is Enter, `\x03` is Ctrl-C.
    ///
    /// # Panics
    /// When nobody can.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// True if what is typed is shown, and Ctrl-C is a signal.
    ///
    /// # Panics
    /// When the terminal does not say.
    pub fn is_as_usual(&self) -> bool {
        let device = self.device.as_ref().expect("it is open until the end");
        let modes = tcgetattr(device).expect("it is a terminal").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON)
    }

    /// Waits for the program's end: its exit code, and all that was shown.
    ///
    /// # Panics
    /// When a signal ended it.
    pub fn finish(mut self) -> (i32, String) {
        let status = self.child.wait().expect("it was started");
        assert_eq!(status.signal(), None, "nothing killed it");
        // Nobody has it open any more, so what is on its way to the screen comes, and then the end.
        self.device = None;
        let mut screen = self.screen.shown.lock().expect("nobody panics with it");
        while !screen.1 {
            screen = self.screen.changed.wait(screen).expect("nobody panics with it");
        }
        (status.code().expect("it ended by itself"), screen.0.clone())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
