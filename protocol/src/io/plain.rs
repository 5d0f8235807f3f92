//! The streams that every client has: TCP, and uTP where TCP does not get through. Message stream encryption
//! runs over either.

use crate::policy::transport::Transport;
use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use librqbit_utp::{UtpStream, UtpStreamReadHalf, UtpStreamWriteHalf};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What uTP gives at once while nobody has a buffer ready for it, in bytes.
const AHEAD_MAX: usize = 16 * 1024;

/// Both directions.
pub(super) enum Plain {
    Tcp(TcpStream),
    Utp(Box<UtpStream>),
}

impl Plain {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Utp(_) => Transport::Utp,
        }
    }

    pub(super) fn split(self) -> (PlainRead, PlainWrite) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (PlainRead::Tcp(read), PlainWrite::Tcp(write))
            }
            Self::Utp(stream) => {
                let (receive, write) = stream.split();
                let read = UtpRead { receive, ahead: BytesMut::new(), ended: false };
                (PlainRead::Utp(read), PlainWrite::Utp(write))
            }
        }
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Utp(stream) => Pin::new(stream).poll_read(cx, buffer).map_err(ended),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Utp(stream) => Pin::new(stream).poll_write(cx, bytes).map_err(ended),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Utp(stream) => Pin::new(stream).poll_flush(cx).map_err(ended),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Utp(stream) => Pin::new(stream).poll_shutdown(cx).map_err(ended),
        }
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => stream.fmt(f),
            Self::Utp(stream) => write!(f, "uTP with {}", stream.remote_addr()),
        }
    }
}

/// Whatever uTP reports of a stream, it has ended without a farewell.
fn ended(error: io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

/// What comes in.
#[derive(Debug)]
pub(super) enum PlainRead {
    Tcp(OwnedReadHalf),
    Utp(UtpRead),
}

impl PlainRead {
    /// As [`super::stream::ReadHalf::readable`].
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Utp(stream) => stream.readable().await,
        }
    }

    /// As [`super::stream::ReadHalf::try_read`].
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Utp(stream) => stream.try_read(buffer),
        }
    }
}

pub(super) struct UtpRead {
    receive: UtpStreamReadHalf,
    /// What waiting has brought.
    ahead: BytesMut,
    ended: bool,
}

impl UtpRead {
    async fn readable(&mut self) -> io::Result<()> {
        if self.ahead.is_empty() && !self.ended {
            self.ahead.reserve(AHEAD_MAX);
            let read = self.receive.read_buf(&mut self.ahead).await.map_err(ended)?;
            self.ended = read == 0;
        }
        Ok(())
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ahead = self.ahead.len().min(buffer.len());
        self.ahead.copy_to_slice(&mut buffer[..ahead]);
        if ahead == buffer.len() || self.ended {
            return Ok(ahead);
        }
        match self.receive.read(&mut buffer[ahead..]).now_or_never() {
            Some(Ok(read)) => {
                self.ended = read == 0;
                Ok(ahead + read)
            }
            // What came before the failure is whole.
            Some(Err(_)) | None if ahead > 0 => Ok(ahead),
            Some(Err(error)) => Err(ended(error)),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl fmt::Debug for UtpRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UtpRead").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

/// What goes out.
pub(super) enum PlainWrite {
    Tcp(OwnedWriteHalf),
    Utp(UtpStreamWriteHalf),
}

impl PlainWrite {
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Utp(stream) => stream.write_all(bytes).await.map_err(ended),
        }
    }

    /// As [`super::stream::WriteHalf::deliver`].
    pub(super) async fn deliver(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Utp(stream) => stream.flush().await.map_err(ended),
        }
    }

    /// As [`super::stream::WriteHalf::write_vectored`].
    pub(super) async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = match self {
            Self::Tcp(stream) => return stream.write_vectored(slices).await,
            Self::Utp(stream) => stream,
        };
        let Some((first, rest)) = slices.split_first() else { return Ok(0) };
        let mut written = stream.write(first).await.map_err(ended)?;
        let mut full = written < first.len();
        for slice in rest {
            if full {
                break;
            }
            match stream.write(slice).now_or_never() {
                Some(taken) => {
                    let taken = taken.map_err(ended)?;
                    written += taken;
                    full = taken < slice.len();
                }
                None => full = true,
            }
        }
        Ok(written)
    }

    /// As [`super::stream::WriteHalf::set_unsent_max`]. What uTP holds is bounded where it is opened.
    pub(super) fn set_unsent_max(&self, bytes: u32) -> io::Result<()> {
        match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Tcp(stream) => {
                socket2::SockRef::from(stream.as_ref()).set_tcp_notsent_lowat(bytes)
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            Self::Tcp(_) => {
                let _ = bytes;
                Ok(())
            }
            Self::Utp(_) => Ok(()),
        }
    }
}

impl fmt::Debug for PlainWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => stream.fmt(f),
            Self::Utp(_) => f.write_str("uTP"),
        }
    }
}
