//! Compressing and unpacking [`Parcel`]s: the one on a thread of its own within a share of one core, the
//! other where messages are read.

use super::engine::Note;
use super::storage::TorrentKey;
use crate::ids::PeerKey;
use crate::policy::packing::{Effort, Share, is_worth};
use crate::wire::extension::ours;
use crate::wire::message::Message;
use crate::wire::parcel::{self, CONTENT_MAX, Malformed, Parcel};
use bytes::Bytes;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Parcels that wait to be compressed; more go out plainly.
const JOBS_MAX: usize = 8;
/// Bytes that are tried before a whole parcel is.
const SAMPLE_LEN: usize = 16 * 1024;

/// Blocks for a peer that takes them compressed.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) torrent: TorrentKey,
    pub(super) peer: PeerKey,
    /// The peer's number for parcels.
    pub(super) id: u8,
    pub(super) parcel: Parcel,
}

/// What became of an [`Order`].
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) torrent: TorrentKey,
    pub(super) peer: PeerKey,
    pub(super) messages: Vec<Message>,
    /// Bytes less than the blocks have.
    pub(super) saved: usize,
    /// What became of so many bytes that were tried, if any were.
    pub(super) tried: Option<(usize, usize)>,
    /// Processor time it took.
    pub(super) took: Duration,
}

/// The thread that compresses. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Packer {
    orders: SyncSender<Order>,
}

impl Packer {
    pub(super) fn start(notes: mpsc::Sender<Note>) -> io::Result<Self> {
        let (orders, queue) = sync_channel(JOBS_MAX);
        let [well, fast] =
            [Effort::Well, Effort::Fast].map(|effort| zstd::bulk::Compressor::new(effort.level()));
        let worker =
            Worker { share: Share::default(), well: well?, fast: fast?, epoch: Instant::now() };
        let thread = thread::Builder::new().name("compression".to_owned());
        thread.spawn(move || worker.run(&queue, &notes))?;
        Ok(Self { orders })
    }

    /// Takes an order; gives it back if there is too much to do.
    pub(super) fn take(&self, order: Order) -> Result<(), Order> {
        self.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(order) | TrySendError::Disconnected(order) => order,
        })
    }
}

/// Blocks as messages of their own.
pub(super) fn plainly(parcel: Parcel) -> Vec<Message> {
    let blocks = parcel.into_blocks().into_iter();
    let messages = blocks.map(|(block, data)| Message::Piece {
        piece: block.piece,
        offset: block.offset,
        data,
    });
    messages.collect()
}

struct Worker {
    share: Share,
    well: zstd::bulk::Compressor<'static>,
    fast: zstd::bulk::Compressor<'static>,
    epoch: Instant,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>, notes: &mpsc::Sender<Note>) {
        for order in orders {
            let packed = self.pack(order);
            if notes.blocking_send(Note::Packed(packed)).is_err() {
                return;
            }
        }
    }

    fn pack(&mut self, order: Order) -> Packed {
        let Order { torrent, peer, id, parcel } = order;
        let began = Instant::now();
        let mut tried = None;
        let frame = self.frame(&parcel, &mut tried);
        let took = began.elapsed();
        self.share.spent(took);
        let plain = parcel.len();
        tracing::trace!(%peer, plain, packed = frame.as_ref().map(Vec::len), ?took, "a parcel");
        let (messages, saved) = match frame {
            Some(frame) => {
                let saved = plain.saturating_sub(frame.len());
                let plain = u32::try_from(plain).expect("a parcel is small");
                (vec![Message::Parcel { id, frame: frame.into(), plain }], saved)
            }
            None => (plainly(parcel), 0),
        };
        Packed { torrent, peer, messages, saved, tried, took }
    }

    /// The parcel compressed, if there is time for that and it pays.
    fn frame(&mut self, parcel: &Parcel, seen: &mut Option<(usize, usize)>) -> Option<Vec<u8>> {
        let effort = self.share.effort(self.epoch.elapsed())?;
        let sample = parcel.sample(SAMPLE_LEN);
        // With the memory for a parcel no compression fails.
        let tried = self.fast.compress(sample).ok()?.len();
        *seen = Some((sample.len(), tried));
        if !is_worth(sample.len(), tried) {
            return None;
        }
        let compressor = match effort {
            Effort::Well => &mut self.well,
            Effort::Fast => &mut self.fast,
        };
        let frame = compressor.compress(&parcel.content()).ok()?;
        *seen = Some((parcel.len(), frame.len()));
        is_worth(parcel.len(), frame.len()).then_some(frame)
    }
}

/// Puts the blocks of parcels in their place, and says how many bytes of these did not travel. A parcel that
/// is malformed stays as it is: nobody but a liar sends one.
pub(super) fn unpack_all(messages: Vec<Message>) -> (Vec<Message>, usize) {
    let is_parcel =
        |message: &Message| matches!(message, Message::Extended { id: ours::PARCELS, .. });
    if !messages.iter().any(is_parcel) {
        return (messages, 0);
    }
    let (mut unpacked, mut spared) = (Vec::with_capacity(messages.len()), 0);
    for message in messages {
        match &message {
            Message::Extended { id: ours::PARCELS, payload } => match unpack(payload) {
                Ok(blocks) => {
                    let plain: usize = blocks.iter().map(|(_, data)| data.len()).sum();
                    spared += plain.saturating_sub(payload.len());
                    unpacked.extend(blocks.into_iter().map(|(block, data)| Message::Piece {
                        piece: block.piece,
                        offset: block.offset,
                        data,
                    }));
                }
                Err(Malformed) => unpacked.push(message),
            },
            _ => unpacked.push(message),
        }
    }
    (unpacked, spared)
}

/// Memory is taken for what the frame says that it holds, and only if that is what a parcel may.
fn unpack(frame: &[u8]) -> Result<Vec<(crate::geometry::Block, Bytes)>, Malformed> {
    let said = zstd::zstd_safe::get_frame_content_size(frame);
    let length = said.ok().flatten().and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|&length| length <= CONTENT_MAX).ok_or(Malformed)?;
    let content = zstd::bulk::decompress(frame, length).map_err(|_| Malformed)?;
    parcel::parse(&content.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Block;
    use crate::ids::PieceIndex;
    use proptest::prelude::*;

    fn parcel_of(bytes: &[u8]) -> Parcel {
        let mut parcel = Parcel::default();
        for (piece, chunk) in (0..).zip(bytes.chunks(16_384)) {
            let len = u32::try_from(chunk.len()).unwrap();
            assert!(parcel.push(Block { piece: PieceIndex(piece), offset: 0, len }, chunk));
        }
        parcel
    }

    async fn packed(parcel: Parcel) -> Packed {
        let (notes, mut received) = mpsc::channel(1);
        let packer = Packer::start(notes).unwrap();
        let order = Order { torrent: TorrentKey(1), peer: PeerKey(1), id: 9, parcel };
        assert!(packer.take(order).is_ok());
        match received.recv().await {
            Some(Note::Packed(packed)) => packed,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_shrinks_goes_in_one_message_and_the_rest_block_by_block() {
        let text = b"the same words again and again, ".repeat(9000);
        let Packed { messages, saved, tried, .. } = packed(parcel_of(&text)).await;
        let [Message::Parcel { id: 9, frame, plain }] = &messages[..] else {
            panic!("{messages:?}")
        };
        assert_eq!((*plain as usize, saved), (text.len(), text.len() - frame.len()));
        assert_eq!(tried, Some((text.len(), frame.len())));
        assert!(saved > text.len() * 9 / 10);
        let arrives =
            vec![Message::Unchoke, Message::Extended { id: ours::PARCELS, payload: frame.clone() }];
        let (came, spared) = unpack_all(arrives);
        assert_eq!((&came[0], spared), (&Message::Unchoke, saved));
        assert_eq!(came[1..], plainly(parcel_of(&text)));

        let mut noise = vec![0; 300_000];
        fastrand::Rng::with_seed(4).fill(&mut noise);
        let Packed { messages, saved, tried, .. } = packed(parcel_of(&noise)).await;
        assert_eq!((messages, saved), (plainly(parcel_of(&noise)), 0));
        assert!(tried.unwrap().1 >= SAMPLE_LEN, "a sample was enough");
    }

    #[test]
    fn bombs_and_nonsense_stay_what_they_are() {
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 3).unwrap();
        // Says that it is short and is not: the frame's header is patched.
        let honest = zstd::bulk::compress(&parcel_of(&[1; 40_000]).content(), 3).unwrap();
        let mut liar = honest.clone();
        liar[5] ^= 0x10;
        for payload in [bomb, liar, honest[..honest.len() - 1].to_vec(), Vec::new(), vec![7; 90]] {
            let message = Message::Extended { id: ours::PARCELS, payload: payload.into() };
            assert_eq!(unpack_all(vec![message.clone()]), (vec![message], 0));
        }
    }

    proptest! {
        #[test]
        fn no_frame_breaks_the_reader(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let mut frame = zstd::bulk::compress(&parcel_of(&[1; 40_000]).content(), 3).unwrap();
            for (at, byte) in damage {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            let _ = unpack(&frame);
        }
    }
}
