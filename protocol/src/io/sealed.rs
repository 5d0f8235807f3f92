//! A TCP or uTP connection that began with message stream encryption: the handshake of both ends, and the bytes
//! after it, encrypted or not.
//!
//! Whatever a stranger sends, little is read before it has shown that it knows a torrent that is here: its
//! key, at most 512 bytes of padding, two hashes.

use super::plain::{Plain, PlainRead, PlainWrite};
use crate::ids::InfoHash;
use crate::policy::encryption::{Encryption, PLAIN, RC4};
use crate::policy::transport::Transport;
use crate::wire::mse::{Cipher, KEY_LEN, PAD_MAX, PRIVATE_LEN, Secret, ZEROS_LEN, public_key};
use bytes::{Buf, Bytes};
use std::io::{self, IoSlice};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What whoever dials may send along with its handshake; all clients send one BitTorrent handshake.
const AHEAD_MAX: usize = 4096;
/// What is encrypted for one write: a slow peer must be able to take it within the time for one.
const WRITE_LEN: usize = 16 * 1024;

/// How a handshake ended.
#[derive(Debug)]
pub(super) struct Agreed {
    /// What comes in and what goes out is encrypted with; `None` if it is not any more.
    ciphers: Option<(Cipher, Cipher)>,
    /// What came along with the handshake.
    ahead: Bytes,
}

/// Dials: `hello` goes along with the handshake, encrypted.
pub(super) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    torrent: InfoHash,
    encryption: Encryption,
    hello: &[u8],
) -> io::Result<Agreed> {
    let private = random::<PRIVATE_LEN>()?;
    let mut opening = public_key(&private).to_vec();
    opening.extend(padding()?);
    stream.write_all(&opening).await?;
    let mut theirs = [0; KEY_LEN];
    stream.read_exact(&mut theirs).await?;
    let secret = Secret::new(&private, &theirs);
    let (mut out, mut into) = secret.ciphers(torrent);
    let provided = encryption.provides();
    let mut offer = vec![0; ZEROS_LEN];
    offer.extend(provided.to_be_bytes());
    let pad = padding()?.len();
    offer.extend(len_of(pad));
    offer.resize(offer.len() + pad, 0);
    offer.extend(len_of(hello.len()));
    offer.extend(hello);
    out.apply(&mut offer);
    stream.write_all(&[&secret.start()[..], &secret.names(torrent), &offer].concat()).await?;

    let mut zeros = [0; ZEROS_LEN];
    into.apply(&mut zeros);
    skip_to(stream, &zeros).await?;
    let choice = u32::from_be_bytes(decrypted(stream, &mut into).await?);
    let pad = u16::from_be_bytes(decrypted(stream, &mut into).await?);
    skip_padding(stream, &mut into, pad).await?;
    match choice {
        PLAIN if provided & PLAIN != 0 => Ok(Agreed { ciphers: None, ahead: Bytes::new() }),
        RC4 => Ok(Agreed { ciphers: Some((into, out)), ahead: Bytes::new() }),
        _ => Err(wrong("it chose an encryption that it was not offered")),
    }
}

/// Answers somebody whose first bytes, of its key, are `first`. `torrents` are the names it may know.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    first: [u8; 20],
    torrents: &[InfoHash],
    encryption: Encryption,
) -> io::Result<Agreed> {
    let mut theirs = [0; KEY_LEN];
    theirs[..first.len()].copy_from_slice(&first);
    stream.read_exact(&mut theirs[first.len()..]).await?;
    let private = random::<PRIVATE_LEN>()?;
    let mut opening = public_key(&private).to_vec();
    opening.extend(padding()?);
    stream.write_all(&opening).await?;
    let secret = Secret::new(&private, &theirs);
    skip_to(stream, &secret.start()).await?;
    let mut name = [0; 20];
    stream.read_exact(&mut name).await?;
    let torrent = torrents.iter().find(|&&torrent| secret.names(torrent) == name);
    let torrent = *torrent.ok_or_else(|| wrong("it asked for a torrent that is not here"))?;
    let (mut into, mut out) = secret.ciphers(torrent);
    if decrypted::<ZEROS_LEN, _>(stream, &mut into).await? != [0; ZEROS_LEN] {
        return Err(wrong("it does not know the torrent that it names"));
    }
    let provided = u32::from_be_bytes(decrypted(stream, &mut into).await?);
    let pad = u16::from_be_bytes(decrypted(stream, &mut into).await?);
    skip_padding(stream, &mut into, pad).await?;
    let len = usize::from(u16::from_be_bytes(decrypted(stream, &mut into).await?));
    if len > AHEAD_MAX {
        return Err(wrong("it sent too much along with its handshake"));
    }
    let mut ahead = vec![0; len];
    stream.read_exact(&mut ahead).await?;
    into.apply(&mut ahead);
    let choice = encryption.selects(provided);
    let choice = choice.ok_or_else(|| wrong("it offers no encryption that is taken here"))?;
    let mut reply = vec![0; ZEROS_LEN];
    reply.extend(choice.to_be_bytes());
    let pad = padding()?.len();
    reply.extend(len_of(pad));
    reply.resize(reply.len() + pad, 0);
    out.apply(&mut reply);
    stream.write_all(&reply).await?;
    Ok(Agreed { ciphers: (choice == RC4).then_some((into, out)), ahead: ahead.into() })
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// Random bytes of random length.
fn padding() -> io::Result<Vec<u8>> {
    let len = usize::from(u16::from_be_bytes(random()?)) % (PAD_MAX + 1);
    Ok(random::<PAD_MAX>()?[..len].to_vec())
}

fn len_of(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("paddings and handshakes are short").to_be_bytes()
}

async fn decrypted<const N: usize, S: AsyncRead + Unpin>(
    stream: &mut S,
    cipher: &mut Cipher,
) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    cipher.apply(&mut bytes);
    Ok(bytes)
}

async fn skip_padding<S: AsyncRead + Unpin>(
    stream: &mut S,
    cipher: &mut Cipher,
    len: u16,
) -> io::Result<()> {
    let len = usize::from(len);
    if len > PAD_MAX {
        return Err(wrong("its padding is too long"));
    }
    let mut bytes = [0; PAD_MAX];
    stream.read_exact(&mut bytes[..len]).await?;
    cipher.apply(&mut bytes[..len]);
    Ok(())
}

/// Reads over padding up to the end of `mark`, and nothing beyond it.
async fn skip_to<S: AsyncRead + Unpin>(stream: &mut S, mark: &[u8]) -> io::Result<()> {
    let mut seen = vec![0; mark.len()];
    stream.read_exact(&mut seen).await?;
    while !seen.ends_with(mark) {
        if seen.len() >= PAD_MAX + mark.len() {
            return Err(wrong("what it sent is no handshake that is known"));
        }
        seen.push(stream.read_u8().await?);
    }
    Ok(())
}

/// Both directions after the handshake.
#[derive(Debug)]
pub(super) struct Sealed {
    stream: Plain,
    agreed: Agreed,
}

impl Sealed {
    pub(super) fn new(stream: Plain, agreed: Agreed) -> Self {
        Self { stream, agreed }
    }

    pub(super) fn transport(&self) -> Transport {
        self.stream.transport()
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = bytes.to_vec();
        if let Some((_, out)) = &mut self.agreed.ciphers {
            out.apply(&mut bytes);
        }
        self.stream.write_all(&bytes).await
    }

    pub(super) async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let ahead = self.agreed.ahead.len().min(bytes.len());
        self.agreed.ahead.copy_to_slice(&mut bytes[..ahead]);
        let rest = &mut bytes[ahead..];
        self.stream.read_exact(rest).await?;
        if let Some((into, _)) = &mut self.agreed.ciphers {
            into.apply(rest);
        }
        Ok(())
    }

    pub(super) fn split(self) -> (SealedRead, SealedWrite) {
        let (read, write) = self.stream.split();
        let (into, out) = self.agreed.ciphers.unzip();
        let read = SealedRead { stream: read, cipher: into, ahead: self.agreed.ahead };
        (read, SealedWrite { stream: write, cipher: out })
    }
}

/// What comes in.
#[derive(Debug)]
pub(super) struct SealedRead {
    stream: PlainRead,
    cipher: Option<Cipher>,
    ahead: Bytes,
}

impl SealedRead {
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        if self.ahead.is_empty() { self.stream.readable().await } else { Ok(()) }
    }

    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.ahead.is_empty() {
            let ahead = self.ahead.len().min(buffer.len());
            self.ahead.copy_to_slice(&mut buffer[..ahead]);
            return Ok(ahead);
        }
        let read = self.stream.try_read(buffer)?;
        if let Some(cipher) = &mut self.cipher {
            cipher.apply(&mut buffer[..read]);
        }
        Ok(read)
    }
}

/// What goes out.
#[derive(Debug)]
pub(super) struct SealedWrite {
    stream: PlainWrite,
    cipher: Option<Cipher>,
}

impl SealedWrite {
    pub(super) async fn deliver(&mut self) -> io::Result<()> {
        self.stream.deliver().await
    }

    pub(super) fn set_unsent_max(&self, bytes: u32) -> io::Result<()> {
        self.stream.set_unsent_max(bytes)
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = self.write_vectored(&[IoSlice::new(rest)]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
        }
        Ok(())
    }

    /// What was encrypted goes out whole, or the connection is of no more use.
    pub(super) async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(cipher) = &mut self.cipher else {
            return self.stream.write_vectored(slices).await;
        };
        let mut bytes = Vec::with_capacity(WRITE_LEN);
        for slice in slices {
            let room = WRITE_LEN - bytes.len();
            bytes.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        cipher.apply(&mut bytes);
        self.stream.write_all(&bytes).await?;
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::duplex;

    const OURS: InfoHash = InfoHash([1; 20]);
    const ALSO_OURS: InfoHash = InfoHash([2; 20]);
    const STRANGE: InfoHash = InfoHash([3; 20]);

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    /// Both ends as far as they get, when each has its own manner.
    fn meet(
        torrent: InfoHash,
        dials: Encryption,
        takes: Encryption,
    ) -> (io::Result<Agreed>, io::Result<Agreed>) {
        run(async {
            let (mut a, mut b) = duplex(4096);
            let dialling = async move { begin(&mut a, torrent, dials, b"hello").await };
            let taking = async move {
                let mut first = [0; 20];
                b.read_exact(&mut first).await?;
                answer(&mut b, first, &[OURS, ALSO_OURS], takes).await
            };
            tokio::join!(dialling, taking)
        })
    }

    #[test]
    fn ends_that_agree_read_each_other() {
        use Encryption::*;
        for torrent in [OURS, ALSO_OURS] {
            for (dials, takes, sealed) in [
                (Allow, Allow, false),
                (Allow, Prefer, true),
                (Prefer, Allow, false),
                (Allow, Require, true),
                (Require, Allow, true),
                (Require, Require, true),
            ] {
                let (one, two) = meet(torrent, dials, takes);
                let (one, two) = (one.unwrap(), two.unwrap());
                assert_eq!(&two.ahead[..], b"hello");
                assert_eq!(one.ciphers.is_some(), sealed, "{dials:?} {takes:?}");
                assert_eq!(two.ciphers.is_some(), sealed);
                let Some(((mut a_in, mut a_out), (mut b_in, mut b_out))) =
                    one.ciphers.zip(two.ciphers)
                else {
                    continue;
                };
                for (out, into) in [(&mut a_out, &mut b_in), (&mut b_out, &mut a_in)] {
                    let mut said = *b"and so on";
                    out.apply(&mut said);
                    assert_ne!(&said, b"and so on");
                    into.apply(&mut said);
                    assert_eq!(&said, b"and so on");
                }
            }
        }
    }

    #[test]
    fn a_torrent_that_is_not_here_and_an_offer_that_is_not_taken() {
        let (one, two) = meet(STRANGE, Encryption::Allow, Encryption::Allow);
        assert!(one.is_err() && two.unwrap_err().to_string().contains("not here"));
        let (one, two) = meet(OURS, Encryption::Allow, Encryption::Off);
        assert!(one.is_err() && two.unwrap_err().to_string().contains("no encryption"));
    }

    /// What an end that follows the rules up to here sends, and then `rest`.
    async fn play(rest: &[u8], torrent: InfoHash) -> io::Result<Agreed> {
        let (mut a, mut b) = duplex(1 << 17);
        let private = [5; PRIVATE_LEN];
        a.write_all(&public_key(&private)).await?;
        let script = async {
            let mut theirs = [0; KEY_LEN];
            a.read_exact(&mut theirs).await?;
            let secret = Secret::new(&private, &theirs);
            let mut rest = rest.to_vec();
            secret.ciphers(torrent).0.apply(&mut rest);
            a.write_all(&[&secret.start()[..], &secret.names(torrent), &rest].concat()).await?;
            a.shutdown().await?;
            let mut answer = Vec::new();
            a.read_to_end(&mut answer).await
        };
        let answering = async move {
            let mut first = [0; 20];
            b.read_exact(&mut first).await?;
            answer(&mut b, first, &[OURS], Encryption::Allow).await
        };
        let (_, agreed) = tokio::join!(script, answering);
        agreed
    }

    #[test]
    fn lengths_are_bounded() {
        let offer = |pad: u16, ahead: u16| {
            let mut offer = [&[0; 8][..], &3_u32.to_be_bytes(), &pad.to_be_bytes()].concat();
            offer.resize(offer.len() + usize::from(pad), 0);
            offer.extend(ahead.to_be_bytes());
            offer.resize(offer.len() + usize::from(ahead), 9);
            offer
        };
        run(async {
            assert_eq!(play(&offer(512, 4096), OURS).await.unwrap().ahead.len(), 4096);
            let error = play(&offer(513, 0), OURS).await.unwrap_err();
            assert!(error.to_string().contains("padding"), "{error}");
            let error = play(&offer(0, 4097), OURS).await.unwrap_err();
            assert!(error.to_string().contains("too much"), "{error}");
            // Cut at every byte.
            let whole = offer(3, 5);
            for len in 0..whole.len() {
                let error = play(&whole[..len], OURS).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len}");
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any bytes at all end the handshake in peace, at either end.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000), offer in any::<bool>()) {
            run(async {
                if offer {
                    // Behind the right hashes.
                    let _ = play(&bytes, OURS).await;
                    return;
                }
                for dials in [true, false] {
                    let (mut a, mut b) = duplex(1 << 14);
                    a.write_all(&bytes).await.unwrap();
                    a.shutdown().await.unwrap();
                    let ended = if dials {
                        begin(&mut b, OURS, Encryption::Allow, b"hello").await
                    } else {
                        answer(&mut b, [0; 20], &[OURS], Encryption::Allow).await
                    };
                    assert!(ended.is_err());
                }
            });
        }
    }
}
