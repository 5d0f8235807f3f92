//! Starting a version: a proven one takes the stub's place, one on trial is watched.

use super::{Choice, HEALTHY_WAIT, Home};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;
use updraft_manifests::current::Slot;

/// How often a version on trial is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts the launcher of `home` with these arguments; the exit code is the launcher's.
///
/// # Errors
/// In words: why nothing could be started.
pub fn start(home: &Home, arguments: &[OsString]) -> Result<ExitCode, String> {
    loop {
        let program = |slot: &Slot| home.dir().join(slot.path());
        let slot = match home.choose()? {
            Choice::Proven(slot) => return run(&program(&slot), arguments),
            Choice::OnTrial(slot) => slot,
        };
        // Where nothing can be recorded nothing is replaced, either.
        if home.note_start(slot.sequence).is_err() {
            return run(&program(&slot), arguments);
        }
        let on_trial = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let on_trial = on_trial.map_err(|error| error.to_string())?;
        match on_trial.block_on(watch(home, &slot, arguments, HEALTHY_WAIT)) {
            Ok(Some(status)) => return Ok(code(status)),
            Ok(None) => {}
            Err(error) => eprintln(&format!("cannot start {}: {error}", program(&slot).display())),
        }
    }
}

/// Becomes that program, or, where the system has no such thing, waits for it: what stops the launcher is the
/// launcher's to answer, and whoever started the stub waits for both.
fn run(program: &Path, arguments: &[OsString]) -> Result<ExitCode, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let failed = |error: io::Error| {
        format!("cannot start {}: {error}; install the launcher again", program.display())
    };
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        Err(failed(command.exec()))
    }
    #[cfg(not(unix))]
    {
        let waiting = async {
            let mut stops = Stops::listen()?;
            let mut child = tokio::process::Command::from(command).spawn()?;
            let id = child.id();
            loop {
                tokio::select! {
                    status = child.wait() => return status,
                    () = stops.next(id) => {}
                }
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.and_then(|runtime| runtime.block_on(waiting)).map(code).map_err(failed)
    }
}

/// Runs a version on trial to its end. `None` if it failed: it ended, or `wait` passed, without a
/// healthy report. What the player stops has not failed.
///
/// # Errors
/// From the system, when it cannot be started.
pub async fn watch(
    home: &Home,
    slot: &Slot,
    arguments: &[OsString],
    wait: Duration,
) -> io::Result<Option<ExitStatus>> {
    let mut child =
        tokio::process::Command::new(home.dir().join(slot.path())).args(arguments).spawn()?;
    let deadline = tokio::time::Instant::now() + wait;
    let (mut stops, id) = (Stops::listen()?, child.id());
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut stopped = false;
    loop {
        let healthy = home.is_healthy(slot.sequence);
        tokio::select! {
            status = child.wait() => {
                let status = status?;
                let counts = healthy || stopped || home.is_healthy(slot.sequence);
                return Ok(counts.then_some(status));
            }
            () = stops.next(id) => stopped = true,
            _ = look.tick(), if !healthy => {}
            () = tokio::time::sleep_until(deadline), if !healthy => {
                child.kill().await?;
                // It had its chance: the next start is the version before.
                home.note_start(slot.sequence)?;
                return Ok(None);
            }
        }
    }
}

/// Signals to stop, which are meant for the launcher.
struct Stops {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
    #[cfg(windows)]
    stop: tokio::signal::windows::CtrlBreak,
    #[cfg(windows)]
    close: tokio::signal::windows::CtrlClose,
}

impl Stops {
    fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let terminate = signal(SignalKind::terminate())?;
            Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
        }
        #[cfg(windows)]
        {
            use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
            Ok(Self { interrupt: ctrl_c()?, stop: ctrl_break()?, close: ctrl_close()? })
        }
    }

    /// Waits for one and passes it on. A terminal sends Ctrl-C to both by itself.
    async fn next(&mut self, child: Option<u32>) {
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process};
            let terminated = tokio::select! {
                _ = self.terminate.recv() => true,
                _ = self.interrupt.recv() => false,
            };
            let pid = child.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid
                && terminated
            {
                // One that is gone already needs no signal.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        #[cfg(windows)]
        {
            // All programs of a console are told by the system.
            let _ = child;
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.stop.recv() => {}
                _ = self.close.recv() => {}
            }
        }
    }
}

fn code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    let code = status.code().unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Tells the player on standard error; there is no other face yet.
pub fn eprintln(text: &str) {
    use std::io::Write as _;
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "updraft-stub: {text}");
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use updraft_manifests::path::RelPath;

    /// A home with one version that is this shell script, and what watching it came to.
    fn check(script: &str, wait: Duration) -> (Option<i32>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slot { sequence: 3, program: RelPath::parse("run").unwrap() };
        let path = dir.path().join(slot.path());
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let home = Home::at(dir.path());
        home.note_start(3).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(watch(&home, &slot, &["7".into()], wait)).unwrap();
        (status.map(|status| status.code().unwrap()), home.has_failed(3))
    }

    #[test]
    fn trials() {
        let long = Duration::from_secs(60);
        assert_eq!(check(": > launcher-3.healthy; exit $1", long), (Some(7), false));
        assert_eq!(check("exit 0", long), (None, false), "one more start is left");
        // One that hangs has no second chance: a minute is enough.
        assert_eq!(check("exec sleep 600", Duration::from_millis(200)), (None, true));
    }
}
