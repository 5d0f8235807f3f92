//! Compressing and unpacking [`Parcel`]s: the one on a thread of its own within a share of one core, the
//! other where messages are read.

use super::engine::Note;
use super::storage::TorrentKey;
use crate::ids::PeerKey;
use crate::policy::packing::{Effort, Share, is_worth};
use crate::wire::extension::ours;
use crate::wire::message::Message;
use crate::wire::parcel::{self, CONTENT_MAX, Parcel};
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

/// Bytes that unpacking a message takes; `None` if it is no parcel, or one that says nothing honest.
pub(super) fn content_len(message: &Message) -> Option<usize> {
    let Message::Extended { id: ours::PARCELS, payload } = message else { return None };
    let said = zstd::zstd_safe::get_frame_content_size(payload).ok().flatten()?;
    usize::try_from(said).ok().filter(|&length| length <= CONTENT_MAX)
}

/// The blocks of a parcel, and how many bytes of these did not travel. One that is malformed stays as it
/// is: nobody but a liar sends it.
pub(super) fn unpack(message: Message) -> (Vec<Message>, usize) {
    let blocks = content_len(&message).and_then(|length| match &message {
        Message::Extended { payload, .. } => {
            let content = zstd::bulk::decompress(payload, length).ok()?;
            let blocks = parcel::parse(&content.into()).ok()?;
            let plain: usize = blocks.iter().map(|(_, data)| data.len()).sum();
            Some((blocks, plain.saturating_sub(payload.len())))
        }
        _ => None,
    });
    let Some((blocks, spared)) = blocks else { return (vec![message], 0) };
    let messages = blocks.into_iter().map(|(block, data)| Message::Piece {
        piece: block.piece,
        offset: block.offset,
        data,
    });
    (messages.collect(), spared)
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
        let arrives = Message::Extended { id: ours::PARCELS, payload: frame.clone() };
        assert!(content_len(&arrives).is_some_and(|length| length >= text.len()));
        assert_eq!(unpack(arrives), (plainly(parcel_of(&text)), saved));

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
            assert_eq!(unpack(message.clone()), (vec![message], 0));
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
            let _ = unpack(Message::Extended { id: ours::PARCELS, payload: frame.into() });
        }
    }
}
