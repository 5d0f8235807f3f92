//! Sockets, files, tasks and the clock around the core.

pub mod buffers;
pub mod storage;
