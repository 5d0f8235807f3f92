//! The bytes of a connection, whatever it runs over: TCP or uTP, perhaps encrypted, or one bidirectional
//! stream of a QUIC connection of its own.

use super::plain::{Plain, PlainRead, PlainWrite};
use super::sealed::{Sealed, SealedRead, SealedWrite};
use crate::policy::transport::Transport;
use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a QUIC stream gives at once while nobody has a buffer ready for it, in bytes.
const AHEAD_MAX: usize = 64 * 1024;

/// Both directions.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Plain),
    Sealed(Box<Sealed>),
    Quic(quinn::Connection, quinn::SendStream, quinn::RecvStream),
}

impl Stream {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Plain(stream) => stream.transport(),
            Self::Sealed(stream) => stream.transport(),
            Self::Quic(..) => Transport::Quic,
        }
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Sealed(stream) => stream.write_all(bytes).await,
            Self::Quic(_, send, _) => Ok(send.write_all(bytes).await?),
        }
    }

    pub(super) async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.read_exact(bytes).await.map(|_| ()),
            Self::Sealed(stream) => stream.read_exact(bytes).await,
            Self::Quic(_, _, receive) => {
                receive.read_exact(bytes).await.map_err(|error| match error {
                    quinn::ReadExactError::FinishedEarly(_) => io::ErrorKind::UnexpectedEof.into(),
                    quinn::ReadExactError::ReadError(error) => error.into(),
                })
            }
        }
    }

    pub(super) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Sealed(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Sealed(Box::new(read)), WriteHalf::Sealed(Box::new(write)))
            }
            Self::Quic(connection, send, receive) => {
                let read = QuicRead { receive, ahead: Bytes::new(), ended: false };
                (ReadHalf::Quic(read), WriteHalf::Quic(connection, send))
            }
        }
    }
}

/// What comes in. Waiting and reading are two calls, so that nobody holds a buffer while nothing comes.
#[derive(Debug)]
pub(super) enum ReadHalf {
    Plain(PlainRead),
    Sealed(Box<SealedRead>),
    Quic(QuicRead),
}

impl ReadHalf {
    /// Waits until there is something to read, the end being something.
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Sealed(stream) => stream.readable().await,
            Self::Quic(stream) => stream.readable().await,
        }
    }

    /// What is there, up to the length of `buffer`; 0 at the end. [`io::ErrorKind::WouldBlock`] if there is
    /// nothing after all.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_read(buffer),
            Self::Sealed(stream) => stream.try_read(buffer),
            Self::Quic(stream) => stream.try_read(buffer),
        }
    }
}

#[derive(Debug)]
pub(super) struct QuicRead {
    receive: quinn::RecvStream,
    /// What waiting has brought.
    ahead: Bytes,
    ended: bool,
}

impl QuicRead {
    async fn readable(&mut self) -> io::Result<()> {
        if self.ahead.is_empty() && !self.ended {
            match self.receive.read_chunk(AHEAD_MAX, true).await? {
                Some(chunk) => self.ahead = chunk.bytes,
                None => self.ended = true,
            }
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
            Some(Ok(Some(read))) => Ok(ahead + read),
            Some(Ok(None)) => {
                self.ended = true;
                Ok(ahead)
            }
            // What came before the failure is whole.
            Some(Err(_)) if ahead > 0 => Ok(ahead),
            Some(Err(error)) => Err(error.into()),
            None if ahead > 0 => Ok(ahead),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// What goes out.
#[derive(Debug)]
pub(super) enum WriteHalf {
    Plain(PlainWrite),
    Sealed(Box<SealedWrite>),
    Quic(quinn::Connection, quinn::SendStream),
}

impl WriteHalf {
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Sealed(stream) => stream.write_all(bytes).await,
            Self::Quic(_, stream) => Ok(stream.write_all(bytes).await?),
        }
    }

    /// Over uTP, waits until the peer has all that was written: what comes after it goes in another packet.
    pub(super) async fn deliver(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.deliver().await,
            Self::Sealed(stream) => stream.deliver().await,
            Self::Quic(..) => Ok(()),
        }
    }

    /// Takes as much of `slices`, none of which is empty, as there is room for; waits for some.
    pub(super) async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write_vectored(slices).await,
            Self::Sealed(stream) => stream.write_vectored(slices).await,
            Self::Quic(_, stream) => {
                let Some((first, rest)) = slices.split_first() else { return Ok(0) };
                let mut written = stream.write(first).await?;
                let mut full = written < first.len();
                for slice in rest {
                    if full {
                        break;
                    }
                    match stream.write(slice).now_or_never() {
                        Some(taken) => {
                            let taken = taken?;
                            written += taken;
                            full = taken < slice.len();
                        }
                        None => full = true,
                    }
                }
                Ok(written)
            }
        }
    }

    /// Bounds what may lie unsent in the queue below us, as far as there is such a bound.
    pub(super) fn set_unsent_max(&self, bytes: u32) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.set_unsent_max(bytes),
            Self::Sealed(stream) => stream.set_unsent_max(bytes),
            Self::Quic(connection, _) => {
                // What is on its way counts as well, and must have room to become twice as much.
                let window = connection.stats().path.cwnd;
                connection.set_send_window(window.saturating_mul(2).saturating_add(bytes.into()));
                Ok(())
            }
        }
    }

    /// Whether the bound has to follow the congestion window.
    pub(super) fn bound_follows_window(&self) -> bool {
        matches!(self, Self::Quic(..))
    }
}

/// An address as everybody writes it: IPv4 is IPv4, whatever socket it came to.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        // With its scope, if it has one.
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => addr,
        _ => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
    }
}
