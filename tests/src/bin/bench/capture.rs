//! What a host really sent: its link is captured with `tcpdump` and the BitTorrent messages on it are
//! read, the same way for every engine and without asking it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use updraft_tests::lab::Node;
use updraft_tests::process::Proc;

/// How long `tcpdump` may take to begin and to end.
const TCPDUMP_WAIT: Duration = Duration::from_secs(20);
/// The first bytes of a peer connection.
const GREETING: &[u8] = b"\x13BitTorrent protocol";
/// Bytes of a handshake.
const HANDSHAKE_LEN: usize = 68;
/// Bytes of a `piece` message before its payload.
const PIECE_HEAD_LEN: usize = 13;

/// A capture under way.
pub(crate) struct Capture {
    tcpdump: Proc,
    file: PathBuf,
}

/// One block of payload, as its first byte left the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SentBlock {
    /// When.
    pub(crate) at: SystemTime,
    /// The piece.
    pub(crate) piece: u32,
    /// Where in the piece.
    pub(crate) begin: u32,
    /// Bytes.
    pub(crate) len: u32,
}

impl Capture {
    /// Begins to capture what `node` sends; `file` is made.
    pub(crate) fn start(node: &Node, file: &Path) -> Self {
        let mut command = node.command("tcpdump");
        command.args(["-i", "eth0", "-Q", "out", "-B", "32768", "-Z", "root", "-w"]).arg(file);
        command.arg("tcp and ip");
        let tcpdump = Proc::start("tcpdump", command);
        tcpdump.wait_line("listening on", TCPDUMP_WAIT);
        Self { tcpdump, file: file.to_owned() }
    }

    /// Ends it and returns the blocks that were sent, in order.
    pub(crate) fn finish(mut self) -> Vec<SentBlock> {
        self.tcpdump.interrupt();
        self.tcpdump.finish(TCPDUMP_WAIT);
        let bytes = std::fs::read(&self.file).expect("the capture can be read");
        let _ = std::fs::remove_file(&self.file);
        blocks(&bytes)
    }
}

/// When the last piece was out for the first time, and the payload sent until then, that piece's own
/// included; `None` when it never was.
pub(crate) fn first_copy(sent: &[SentBlock], total: u64) -> Option<(SystemTime, u64)> {
    let mut seen = std::collections::HashSet::new();
    let (mut distinct, mut payload) = (0, 0);
    for block in sent {
        payload += u64::from(block.len);
        if seen.insert((block.piece, block.begin)) {
            distinct += u64::from(block.len);
            if distinct == total {
                return Some((block.at, payload));
            }
        }
    }
    None
}

/// The moment of an [`Instant`] on the clock that captures are stamped with.
pub(crate) fn wall(at: Instant) -> SystemTime {
    SystemTime::now() - at.elapsed()
}

/// Reads a capture file of an Ethernet link.
fn blocks(file: &[u8]) -> Vec<SentBlock> {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    };
    assert_eq!(word(file, 0), Some(0xa1b2_c3d4), "tcpdump writes little-endian microseconds here");
    let mut streams: HashMap<(u32, u16, u16), Stream> = HashMap::new();
    let mut sent = Vec::new();
    let mut at = 24;
    while let (Some(seconds), Some(micros), Some(len)) =
        (word(file, at), word(file, at + 4), word(file, at + 8))
    {
        let Some(frame) = file.get(at + 16..at + 16 + len as usize) else { break };
        at += 16 + len as usize;
        let time = Duration::from_secs(seconds.into()) + Duration::from_micros(micros.into());
        if let Some((key, segment)) = segment(frame) {
            let stream = streams.entry(key).or_default();
            stream.take(segment, SystemTime::UNIX_EPOCH + time, &mut sent);
        }
    }
    sent
}

/// One TCP segment of a frame.
struct Segment<'a> {
    sequence: u32,
    begins: bool,
    payload: &'a [u8],
}

/// The connection (address and ports) and the segment that a frame holds.
fn segment(frame: &[u8]) -> Option<((u32, u16, u16), Segment<'_>)> {
    let ip = frame.get(14..)?;
    let head = usize::from(ip.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    // A packet handed down in one part may be larger than the field; then the frame tells.
    let ip = if total == 0 { ip } else { ip.get(..total)? };
    let to = u32::from_be_bytes(ip.get(16..20)?.try_into().ok()?);
    let tcp = ip.get(head..)?;
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let begins = tcp.get(13)? & 2 != 0;
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    Some(((to, port(0)?, port(2)?), Segment { sequence, begins, payload }))
}

/// One direction of one connection.
#[derive(Default)]
struct Stream {
    /// The next byte's sequence number, once the connection's begin was seen.
    next: Option<u32>,
    /// Segments that came before their turn, by their distance from the first.
    early: BTreeMap<u32, Vec<u8>>,
    first: u32,
    greeted: bool,
    /// Bytes of the message under way, as far as they matter.
    pending: Vec<u8>,
    /// Bytes of a block that are still to come.
    skip: usize,
}

impl Stream {
    fn take(&mut self, segment: Segment<'_>, at: SystemTime, sent: &mut Vec<SentBlock>) {
        if segment.begins {
            self.first = segment.sequence.wrapping_add(1);
            self.next = Some(self.first);
            return;
        }
        let Some(next) = self.next else { return };
        if segment.payload.is_empty() {
            return;
        }
        let offset = segment.sequence.wrapping_sub(self.first);
        self.early.entry(offset).or_insert_with(|| segment.payload.to_vec());
        let mut reached = next.wrapping_sub(self.first);
        while let Some((&offset, _)) = self.early.range(..=reached).next() {
            let bytes = self.early.remove(&offset).unwrap_or_default();
            let known = (reached - offset) as usize;
            if let Some(fresh) = bytes.get(known..) {
                reached += u32::try_from(fresh.len()).expect("segments are short");
                self.read(fresh, at, sent);
            }
        }
        self.next = Some(self.first.wrapping_add(reached));
    }

    fn read(&mut self, mut bytes: &[u8], at: SystemTime, sent: &mut Vec<SentBlock>) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let Some((byte, rest)) = bytes.split_first() else { return };
            self.pending.push(*byte);
            bytes = rest;
            if !self.greeted {
                // HTTP and others that share the link are no peers.
                self.greeted = self.pending.len() == HANDSHAKE_LEN;
                if self.pending.len() == GREETING.len() && self.pending != GREETING {
                    self.skip = usize::MAX;
                }
                if self.greeted {
                    self.pending.clear();
                }
                continue;
            }
            self.message(at, sent);
        }
    }

    /// Looks whether the bytes so far tell what the message is.
    fn message(&mut self, at: SystemTime, sent: &mut Vec<SentBlock>) {
        let head = &self.pending;
        if head.len() < 4 {
            return;
        }
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let len = word(0) as usize;
        if len == 0 {
            self.pending.clear();
        } else if head.len() == 5 && head[4] != 7 {
            self.skip = len - 1;
            self.pending.clear();
        } else if head.len() == PIECE_HEAD_LEN {
            let payload = len + 4 - PIECE_HEAD_LEN;
            let len = u32::try_from(payload).expect("a message's length has four bytes");
            sent.push(SentBlock { at, piece: word(5), begin: word(9), len });
            self.skip = payload;
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(index: u32, begin: u32, len: u32) -> Vec<u8> {
        let mut bytes = (len + 9).to_be_bytes().to_vec();
        bytes.push(7);
        bytes.extend(index.to_be_bytes());
        bytes.extend(begin.to_be_bytes());
        bytes.extend(std::iter::repeat_n(0xaa, len as usize));
        bytes
    }

    #[test]
    fn blocks_are_read_from_segments_in_any_order_once() {
        let mut bytes = GREETING.to_vec();
        bytes.resize(HANDSHAKE_LEN, 0);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 5, 4, 0, 0, 0, 9]);
        bytes.extend(piece(3, 0, 100));
        bytes.extend(piece(3, 100, 50));
        let start = u32::MAX - 40;
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut stream = Stream::default();
        let mut sent = Vec::new();
        let syn = Segment { sequence: start.wrapping_sub(1), begins: true, payload: &[] };
        stream.take(syn, at(0), &mut sent);
        for (time, range) in [(1, 0..30), (2, 120..200), (3, 20..130), (4, 0..30), (5, 200..264)] {
            let sequence = start.wrapping_add(u32::try_from(range.start).unwrap());
            let end = bytes.len().min(range.end);
            let payload = &bytes[range.start..end];
            stream.take(Segment { sequence, begins: false, payload }, at(time), &mut sent);
        }
        let block = |time, begin, len| SentBlock { at: at(time), piece: 3, begin, len };
        assert_eq!(sent, [block(3, 0, 100), block(5, 100, 50)]);
        assert_eq!(first_copy(&sent, 150), Some((at(5), 150)));
        assert_eq!(first_copy(&sent, 151), None);
    }
}
