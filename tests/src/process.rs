//! Processes under test: what they print is kept and waited on line by line, what they cost is read
//! from the system, and none outlives the value that stands for it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Lines kept per process; older ones are dropped.
const LINES_MAX: usize = 200_000;
/// Lines shown when a wait fails.
const LINES_SHOWN_MAX: usize = 60;

/// One line of a process's output.
#[derive(Debug, Clone)]
pub struct Line {
    /// Whether it came from standard error.
    pub error: bool,
    /// The text, without its line end.
    pub text: String,
    /// When it was read.
    pub at: Instant,
}

#[derive(Default)]
struct Seen {
    lines: Vec<Line>,
    streams_open: u8,
}

#[derive(Default)]
struct Output {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no reader panics while it holds the lock")
    }

    fn follow(self: &Arc<Self>, error: bool, stream: impl Read + Send + 'static) {
        self.lock().streams_open += 1;
        let output = Arc::clone(self);
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                bytes.clear();
                let mut seen = output.lock();
                if seen.lines.len() < LINES_MAX {
                    seen.lines.push(Line { error, text, at: Instant::now() });
                }
                output.changed.notify_all();
            }
            output.lock().streams_open -= 1;
            output.changed.notify_all();
        });
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
}

impl Exit {
    /// Whether the process ended by itself with code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

/// What a process cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Wall time.
    pub seconds: f64,
    /// User and system time.
    pub cpu_seconds: f64,
    /// The largest resident size in bytes.
    pub resident_peak: u64,
}

/// A running (or ended) process. Dropping it kills it.
pub struct Proc {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Output>,
    started: Instant,
    ended: Option<Exit>,
}

impl Proc {
    /// Starts `command` with its output captured; `name` stands in messages.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{name} did not start: {error}: {command:?}"),
        };
        let output = Arc::<Output>::default();
        output.follow(false, child.stdout.take().expect("stdout is piped"));
        output.follow(true, child.stderr.take().expect("stderr is piped"));
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdin, output, started: Instant::now(), ended: None }
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Writes one line to its standard input; a process that has gone is noticed by the next wait.
    pub fn send_line(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        }
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Everything printed so far.
    pub fn lines(&self) -> Vec<Line> {
        self.output.lock().lines.clone()
    }

    /// Everything printed so far, as one text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.output.lock().lines {
            text.push_str(&line.text);
            text.push('\n');
        }
        text
    }

    /// Waits until some printed line makes `find` answer, looking at each line once.
    /// `Err` says that the time was over or the process ended without such a line.
    pub fn try_wait_for<T>(
        &self,
        within: Duration,
        mut find: impl FnMut(&Line) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + within;
        let mut next = 0;
        let mut seen = self.output.lock();
        loop {
            while next < seen.lines.len() {
                if let Some(found) = find(&seen.lines[next]) {
                    return Ok(found);
                }
                next += 1;
            }
            if seen.streams_open == 0 {
                return Err("it ended first".to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("not within {} s", within.as_secs_f32()));
            }
            seen = self.output.changed.wait_timeout(seen, left).expect("no reader panics").0;
        }
    }

    /// Like [`Proc::try_wait_for`].
    ///
    /// # Panics
    /// When the time is over or the process ended, with what it printed.
    pub fn wait_for<T>(
        &self,
        what: &str,
        within: Duration,
        find: impl FnMut(&Line) -> Option<T>,
    ) -> T {
        match self.try_wait_for(within, find) {
            Ok(found) => found,
            Err(why) => panic!("{}: waited for {what}: {why}{}", self.name, self.tail()),
        }
    }

    /// Waits for a line that contains `needle` and returns it.
    pub fn wait_line(&self, needle: &str, within: Duration) -> String {
        self.wait_for(&format!("`{needle}`"), within, |line| {
            line.text.contains(needle).then(|| line.text.clone())
        })
    }

    /// Waits for a line of JSON that makes `find` answer.
    pub fn wait_json<T>(
        &self,
        what: &str,
        within: Duration,
        mut find: impl FnMut(&serde_json::Value) -> Option<T>,
    ) -> T {
        self.wait_for(what, within, |line| {
            if !line.text.starts_with('{') {
                return None;
            }
            serde_json::from_str(&line.text).ok().and_then(|value| find(&value))
        })
    }

    /// All lines of JSON printed to standard output so far.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let seen = self.output.lock();
        let lines = seen.lines.iter().filter(|line| line.text.starts_with('{'));
        lines.filter_map(|line| serde_json::from_str(&line.text).ok()).collect()
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it does not end in time, with what it printed.
    pub fn wait_exit(&mut self, within: Duration) -> Exit {
        match self.try_wait_exit(within) {
            Some(exit) => exit,
            None => panic!(
                "{}: did not end within {} s{}",
                self.name,
                within.as_secs_f32(),
                self.tail()
            ),
        }
    }

    /// Waits for the end of the process; `None` when it still runs after `within`.
    pub fn try_wait_exit(&mut self, within: Duration) -> Option<Exit> {
        if let Some(exit) = self.ended {
            return Some(exit);
        }
        let deadline = Instant::now() + within;
        let mut seen = self.output.lock();
        while seen.streams_open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            seen = self.output.changed.wait_timeout(seen, left).expect("no reader panics").0;
        }
        drop(seen);
        Some(self.reap())
    }

    /// Waits for the end and insists on exit code 0.
    ///
    /// # Panics
    /// When it fails or takes too long, with what it printed.
    pub fn finish(&mut self, within: Duration) {
        let exit = self.wait_exit(within);
        assert!(exit.success(), "{}: ended with {:?}{}", self.name, exit.code, self.tail());
    }

    /// Waits for the end, insists on a non-zero exit code, and returns all that it printed.
    ///
    /// # Panics
    /// When it succeeds, is ended by a signal (a crash), or takes too long.
    pub fn fails(&mut self, within: Duration) -> String {
        let exit = self.wait_exit(within);
        let code = exit.code.unwrap_or(0);
        assert!(code != 0, "{}: should have failed, got {:?}{}", self.name, exit.code, self.tail());
        assert!(code != 101, "{}: panicked{}", self.name, self.tail());
        self.text()
    }

    /// Waits for the end and tells what the process cost, from its start on.
    ///
    /// # Panics
    /// When it fails or takes too long, with what it printed.
    pub fn cost(&mut self, within: Duration) -> Cost {
        const LOOK_INTERVAL: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + within;
        let mut cost = Cost::default();
        // The kernel forgets the peak when the process ends, so it is read all along.
        loop {
            cost.resident_peak = cost.resident_peak.max(self.resident_peak());
            cost.cpu_seconds = cost.cpu_seconds.max(self.cpu_seconds());
            let seen = self.output.lock();
            let ended = seen.streams_open == 0;
            if !ended {
                drop(
                    self.output
                        .changed
                        .wait_timeout(seen, LOOK_INTERVAL)
                        .expect("no reader panics"),
                );
            }
            if ended || Instant::now() > deadline {
                break;
            }
        }
        cost.seconds = self.started.elapsed().as_secs_f64();
        self.wait_gone(deadline);
        cost.cpu_seconds = cost.cpu_seconds.max(self.cpu_seconds());
        self.finish(Duration::from_secs(1));
        cost
    }

    /// Waits until the process is a zombie: ended, its counters still there.
    fn wait_gone(&self, deadline: Instant) {
        #[cfg(unix)]
        {
            use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
            if let (Some(pid), true) = (pid, Instant::now() < deadline) {
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            }
        }
        #[cfg(not(unix))]
        let _ = deadline;
    }

    /// kill -9 (`TerminateProcess` on Windows), and waits until it is gone.
    pub fn kill(&mut self) -> Exit {
        if self.ended.is_none() {
            let _ = self.child.kill();
        }
        self.reap()
    }

    /// What Ctrl-C does.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// A polite request to end.
    #[cfg(unix)]
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        if let (Some(pid), None) = (pid, self.ended) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.ended = Some(Exit { code: status.code() });
        }
        self.ended.is_none()
    }

    /// Processor seconds, user and system, so far (Linux; 0 elsewhere or once it was reaped).
    pub fn cpu_seconds(&self) -> f64 {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())) else {
            return 0.0;
        };
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        // Clock ticks are 1/100 s on every Linux that Rust supports.
        let ticks: u32 = fields.take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        f64::from(ticks) / 100.0
    }

    /// The largest resident size so far in bytes (Linux; 0 elsewhere or once it has ended).
    pub fn resident_peak(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    /// The resident size now in bytes (Linux; 0 elsewhere or once it has ended).
    pub fn resident(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// Number of files the process has open now (Linux; 0 elsewhere).
    pub fn open_files(&self) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        entries
            .map(|entries| {
                let targets =
                    entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
                targets.filter(|target| target.is_absolute() && !target.starts_with("/dev")).count()
            })
            .unwrap_or(0)
    }

    /// The end of what it printed, for messages.
    pub fn tail(&self) -> String {
        let seen = self.output.lock();
        let first = seen.lines.len().saturating_sub(LINES_SHOWN_MAX);
        let mut text = format!("\n--- {} printed {} lines:\n", self.name, seen.lines.len());
        for line in &seen.lines[first..] {
            let _ = writeln!(text, "{} {}", if line.error { "!" } else { "|" }, line.text);
        }
        text
    }

    fn reap(&mut self) -> Exit {
        if let Some(exit) = self.ended {
            return exit;
        }
        let code = self.child.wait().ok().and_then(|status| status.code());
        let exit = Exit { code };
        self.ended = Some(exit);
        exit
    }
}

/// Bytes that the host of a process has sent over `eth0`, headers included (Linux; 0 elsewhere).
pub fn host_bytes_sent(pid: u32) -> u64 {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev"));
    sent_by("eth0", &table.unwrap_or_default()).map_or(0, |(bytes, _)| bytes)
}

/// The sent bytes and packets of one interface in a table as `/proc/net/dev` has it.
pub(crate) fn sent_by(interface: &str, table: &str) -> Option<(u64, u64)> {
    let fields = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let mut sent = numbers.split_whitespace().skip(8);
        let mut next = || sent.next()?.parse().ok();
        (name.trim() == interface).then(|| Some((next()?, next()?)))?
    };
    table.lines().find_map(fields)
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            // The one place where a failing test's other processes are heard.
            let _ = write!(std::io::stderr(), "{}", self.tail());
        }
    }
}
