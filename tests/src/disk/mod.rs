//! A disk that fails on demand: a file system in memory, mounted for real (FUSE), that counts every
//! change asked of it, refuses, shortens or kills at the n-th one, can be full, and can lose what was
//! not synced as in a power cut. Programs under test need no hook for it.

mod faults;
mod model;
mod mount;

pub use faults::Fault;
pub use model::Model;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::process::Pid;

use crate::process::Proc;
use faults::Faults;

struct State {
    model: Model,
    faults: Faults,
    next_ino: u64,
    capacity: Option<u64>,
}

/// A mounted disk; unmounted when dropped.
pub struct Disk {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    _session: fuser::BackgroundSession,
}

impl Disk {
    /// Mounts an empty disk at a folder.
    ///
    /// # Panics
    /// When it cannot be mounted: these suites need root and /dev/fuse.
    pub fn mount(path: &Path) -> Self {
        let state = Arc::new(Mutex::new(State {
            model: Model::default(),
            faults: Faults::default(),
            next_ino: model::ROOT,
            capacity: None,
        }));
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("updraft-test-disk".to_owned())];
        let session = fuser::spawn_mount(mount::Mount(Arc::clone(&state)), path, &config)
            .expect("a disk can be mounted: that needs root and /dev/fuse");
        Self { path: path.to_owned(), state, _session: session }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no request panics")
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that is on it, as after a clean end.
    pub fn image(&self) -> Model {
        let mut image = self.lock().model.clone();
        image.settle_all();
        image
    }

    /// Puts back what was on it. No file may be open.
    pub fn restore(&self, image: &Model) {
        self.lock().model = image.clone();
    }

    /// Orders a fault at the change of this number, counted from 0 and from now, or none.
    pub fn arm(&self, due: Option<(u64, Fault)>) {
        self.lock().faults.arm(due);
    }

    /// Names the process that works on the disk, for [`Fault::Kill`].
    pub fn watch(&self, proc: &Proc) {
        let pid = i32::try_from(proc.pid()).ok().and_then(Pid::from_raw);
        self.lock().faults.watch(pid.expect("it has a process id"));
    }

    /// True if the fault has happened.
    pub fn happened(&self) -> bool {
        self.lock().faults.happened()
    }

    /// Changes asked for since [`Disk::arm`].
    pub fn changes(&self) -> u64 {
        self.lock().faults.count
    }

    /// The power fails: what was not synced is kept, lost or torn as `seed` decides; below 4 all of
    /// it in one of four ways.
    pub fn cut(&self, seed: u64) {
        self.lock().model.cut(seed);
    }

    /// Gives the disk a size in bytes, or none.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.lock().model.used()
    }
}
