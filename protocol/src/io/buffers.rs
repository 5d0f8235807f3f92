//! A fixed set of reusable buffers for payload.
//!
//! A buffer is allocated and zeroed once, filled by a socket or a file, frozen into [`Bytes`] that
//! travel without a copy, and comes back when the last slice of it is dropped. When all are out,
//! [`BufferPool::take`] waits: that is the back-pressure which keeps a process inside its memory.

use bytes::Bytes;
use std::ops::{Deref, DerefMut, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Payload of 16 blocks of 16 KiB.
pub const BUFFER_PAYLOAD_LEN: usize = 256 * 1024;

/// Bytes of one buffer: its payload, and a page for the message headers around 16 blocks.
pub const BUFFER_LEN: usize = BUFFER_PAYLOAD_LEN + 4096;

/// Buffers for what sockets and web seeds deliver: 12.2 MiB, enough for 8 MiB on the way to the
/// disk and one buffer being filled by each of the busiest connections.
pub const RECEIVE_BUFFERS_MAX: usize = 48;

/// Buffers for what is read from files to be served: 8.1 MiB.
pub const READ_BUFFERS_MAX: usize = 32;

/// A bounded pool; clones share it.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Buffers that are back. Last in, first out: the one used last is still in the cache.
    free: Mutex<Vec<Vec<u8>>>,
    /// One permit for each buffer that may still be taken.
    permits: Semaphore,
}

impl BufferPool {
    /// A pool of at most `capacity` buffers of [`BUFFER_LEN`] bytes, each allocated at its first use.
    pub fn new(capacity: usize) -> Self {
        let shared = Shared {
            free: Mutex::new(Vec::with_capacity(capacity)),
            permits: Semaphore::new(capacity),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A buffer, if one is left.
    pub fn try_take(&self) -> Option<Buffer> {
        let permit = self.shared.permits.try_acquire().ok()?;
        permit.forget();
        Some(self.granted())
    }

    /// A buffer, as soon as one is left.
    pub async fn take(&self) -> Buffer {
        let permit = self.shared.permits.acquire().await.expect("the semaphore is never closed");
        permit.forget();
        self.granted()
    }

    /// Buffers that can be taken without waiting.
    pub fn available(&self) -> usize {
        self.shared.permits.available_permits()
    }

    fn granted(&self) -> Buffer {
        let back = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let data = back.unwrap_or_else(|| vec![0; BUFFER_LEN]);
        Buffer { data, home: Arc::clone(&self.shared) }
    }
}

/// [`BUFFER_LEN`] bytes for one owner. Holds what its last user left there.
#[derive(Debug)]
pub struct Buffer {
    data: Vec<u8>,
    home: Arc<Shared>,
}

impl Buffer {
    /// Gives up writing: the bytes of `range`, to be sliced and shared. The buffer goes back to its
    /// pool when the last of them is dropped.
    ///
    /// The range must lie inside the buffer.
    pub fn freeze(self, range: impl RangeBounds<usize>) -> Bytes {
        Bytes::from_owner(self).slice(range)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        self.home.free.lock().unwrap_or_else(PoisonError::into_inner).push(data);
        self.home.permits.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn buffers_come_back_with_their_last_slice() {
        let pool = BufferPool::new(2);
        let mut first = pool.try_take().unwrap();
        first[..5].copy_from_slice(b"hello");
        let address = first.as_ptr();
        let all = first.freeze(..5);
        let part = all.slice(1..3);
        let _second = pool.take().await;
        assert!(pool.try_take().is_none());
        drop(all);
        assert!(pool.try_take().is_none(), "a slice is still out");
        assert_eq!(&part[..], b"el");

        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.take().await.as_ptr() as usize }
        });
        tokio::task::yield_now().await;
        drop(part);
        assert_eq!(waiting.await.unwrap(), address as usize, "the same memory again");
        assert_eq!(pool.available(), 1);
    }
}
