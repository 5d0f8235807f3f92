//! What goes wrong on a disk, and when: at the n-th change that is asked of it.

use rustix::process::{Pid, Signal, kill_process};

/// What happens at the chosen change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it; nothing it asked for is done any more.
    Kill,
    /// It is refused with this error code.
    Refuse(i32),
    /// It and all after it are refused with this error code.
    RefuseAll(i32),
    /// Half of what is to be written is.
    Short,
}

/// What to do with one change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Go,
    Half,
    Fail(i32),
}

/// Counts changes, and lets go wrong what was ordered.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Changes so far.
    pub(super) count: u64,
    /// From which one on something happens.
    due: Option<(u64, Fault)>,
    /// Whom to kill.
    pid: Option<Pid>,
    killed: bool,
}

impl Faults {
    pub(super) fn arm(&mut self, due: Option<(u64, Fault)>) {
        *self = Self { due, ..Self::default() };
    }

    /// Names the process that works on the disk.
    pub(super) fn watch(&mut self, pid: Pid) {
        self.pid = Some(pid);
        self.kill();
    }

    /// True if the fault has happened.
    pub(super) fn happened(&self) -> bool {
        self.due.is_some_and(|(at, _)| self.count > at)
    }

    /// One more change is asked for.
    pub(super) fn step(&mut self) -> Verdict {
        let now = self.count;
        self.count += 1;
        match self.due {
            Some((at, Fault::Kill)) if now >= at => {
                self.killed = true;
                self.kill();
                Verdict::Fail(rustix::io::Errno::IO.raw_os_error())
            }
            Some((at, Fault::RefuseAll(code))) if now >= at => Verdict::Fail(code),
            Some((at, Fault::Refuse(code))) if now == at => Verdict::Fail(code),
            Some((at, Fault::Short)) if now == at => Verdict::Half,
            Some(_) | None => Verdict::Go,
        }
    }

    fn kill(&self) {
        if let (true, Some(pid)) = (self.killed, self.pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
