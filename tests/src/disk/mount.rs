//! The kernel's side: requests of the file system, answered from the [`Model`].

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::State;
use super::faults::Verdict;
use super::model::{BLOCK_LEN, Body, Ino, Model, Node};

/// Nothing is cached: every look at the disk is a request.
const TTL: Duration = Duration::ZERO;
/// What the disk says it has free when no size was given.
const PLENTY: u64 = 1 << 40;

/// The mounted file system.
pub(super) struct Mount(pub(super) Arc<Mutex<State>>);

type Answer<T> = Result<T, Errno>;

impl Mount {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no request panics")
    }

    /// Makes a change of names, unless a fault is due.
    fn add(&self, parent: INodeNo, name: &OsStr, node: Node) -> Answer<FileAttr> {
        let mut state = self.lock();
        state.step(0)?;
        if state.model.names(parent.0).is_none() {
            return Err(Errno::ENOENT);
        }
        if state.model.lookup(parent.0, name).is_some() {
            return Err(Errno::EEXIST);
        }
        state.next_ino += 1;
        let ino = state.next_ino;
        state.model.add(parent.0, name, ino, node);
        attr(&state.model, ino)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr) -> Answer<()> {
        let mut state = self.lock();
        state.step(0)?;
        let ino = state.model.lookup(parent.0, name).ok_or(Errno::ENOENT)?;
        if state.model.names(ino).is_some_and(|names| !names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        state.model.unlink(parent.0, name);
        Ok(())
    }

    fn rename(
        &self,
        (parent, name): (INodeNo, &OsStr),
        (new_parent, new_name): (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Answer<()> {
        let mut state = self.lock();
        state.step(0)?;
        let model = &mut state.model;
        let ino = model.lookup(parent.0, name).ok_or(Errno::ENOENT)?;
        if let Some(there) = model.lookup(new_parent.0, new_name) {
            if flags.contains(RenameFlags::RENAME_NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            match (model.names(ino).is_some(), model.names(there)) {
                (false, Some(_)) => return Err(Errno::EISDIR),
                (true, None) => return Err(Errno::ENOTDIR),
                (true, Some(names)) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
                (true, Some(_)) | (false, None) => {}
            }
        }
        model.rename(parent.0, name, new_parent.0, new_name);
        Ok(())
    }

    fn open_node(&self, ino: INodeNo, sign: i32) -> Answer<()> {
        let mut state = self.lock();
        let node = state.model.node_mut(ino.0).ok_or(Errno::ENOENT)?;
        node.open = node.open.saturating_add_signed(sign);
        Ok(())
    }

    fn sync(&self, ino: INodeNo, work: fn(&mut Model, Ino)) -> Answer<()> {
        let mut state = self.lock();
        state.step(0)?;
        work(&mut state.model, ino.0);
        Ok(())
    }
}

impl State {
    /// Counts a change and says how much of `len` bytes it may do.
    fn step(&mut self, len: usize) -> Answer<usize> {
        match self.faults.step() {
            Verdict::Go => Ok(len),
            Verdict::Half => Ok(len.div_ceil(2)),
            Verdict::Fail(code) => Err(Errno::from_i32(code)),
        }
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(PLENTY, |capacity| capacity.saturating_sub(self.model.used()))
    }
}

fn attr(model: &Model, ino: Ino) -> Answer<FileAttr> {
    let node = model.node(ino).ok_or(Errno::ENOENT)?;
    let (kind, size, used) = match &node.body {
        Body::File(content) => {
            (FileType::RegularFile, content.bytes.len() as u64, content.allocated())
        }
        Body::Folder { .. } => (FileType::Directory, 0, 0),
        Body::Link(text) => (FileType::Symlink, text.len() as u64, 0),
    };
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: used / 512,
        atime: node.mtime,
        mtime: node.mtime,
        ctime: node.ctime,
        crtime: node.ctime,
        kind,
        perm: node.mode,
        nlink: node.links,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("twelve bits")
}

fn done(reply: ReplyEmpty, answer: Answer<()>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, answer: Answer<FileAttr>) {
    match answer {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mount {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.lock();
        let found = state.model.lookup(parent.0, name).ok_or(Errno::ENOENT);
        entry(reply, found.and_then(|ino| attr(&state.model, ino)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attr(&self.lock().model, ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.lock();
        let change = state.step(0).and_then(|_| {
            if let Some(size) = size {
                state.model.resize(ino.0, usize::try_from(size).map_err(|_| Errno::EFBIG)?);
            }
            let node = state.model.node_mut(ino.0).ok_or(Errno::ENOENT)?;
            node.ctime = SystemTime::now();
            if let Some(mode) = mode {
                node.mode = bits(mode);
            }
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => node.mtime = time,
                Some(TimeOrNow::Now) => node.mtime = SystemTime::now(),
                None => {}
            }
            attr(&state.model, ino.0)
        });
        match change {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.lock().model.node(ino.0).map(|node| &node.body) {
            Some(Body::Link(text)) => reply.data(text.as_encoded_bytes()),
            Some(Body::File(_) | Body::Folder { .. }) => reply.error(Errno::EINVAL),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.add(parent, name, Node::folder(bits(mode & !umask))));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.remove(parent, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.remove(parent, name));
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        entry(reply, self.add(parent, name, Node::link(target.as_os_str())));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(reply, Self::rename(self, (parent, name), (new_parent, new_name), flags));
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let mut state = self.lock();
        let linked = state.step(0).and_then(|_| {
            if state.model.lookup(new_parent.0, new_name).is_some() {
                return Err(Errno::EEXIST);
            }
            state.model.link(ino.0, new_parent.0, new_name);
            attr(&state.model, ino.0)
        });
        entry(reply, linked);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_node(ino, 1) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.add(parent, name, Node::file(bits(mode & !umask))) {
            Ok(attr) => {
                let _ = self.open_node(attr.ino, 1);
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.lock().model.node(ino.0).map(|node| &node.body) {
            Some(Body::File(content)) => {
                let len = content.bytes.len();
                let from = usize::try_from(offset).unwrap_or(len).min(len);
                reply.data(&content.bytes[from..(from + size as usize).min(len)]);
            }
            Some(Body::Folder { .. } | Body::Link(_)) | None => reply.error(Errno::EINVAL),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.lock();
        let written = state.step(data.len()).and_then(|len| {
            if len.next_multiple_of(BLOCK_LEN) as u64 > state.free() {
                return Err(Errno::ENOSPC);
            }
            let offset = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
            state.model.write(ino.0, offset, &data[..len]);
            u32::try_from(len).map_err(|_| Errno::EINVAL)
        });
        match written {
            Ok(len) => reply.written(len),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _ = self.open_node(ino, -1);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.sync(ino, Model::sync_file));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.sync(ino, Model::sync_folder));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.lock();
        let Some(names) = state.model.names(ino.0) else { return reply.error(Errno::ENOTDIR) };
        let dots = [(OsStr::new("."), ino.0), (OsStr::new(".."), ino.0)];
        let names = names.iter().map(|(name, ino)| (name.as_os_str(), *ino));
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, ino)) in dots.into_iter().chain(names).enumerate().skip(from) {
            let Ok(attr) = attr(&state.model, ino) else { continue };
            if reply.add(attr.ino, at as u64 + 1, attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.lock();
        let blocks = |bytes: u64| bytes / BLOCK_LEN as u64;
        let all = blocks(state.capacity.unwrap_or(2 * PLENTY));
        let free = blocks(state.free());
        reply.statfs(all, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
