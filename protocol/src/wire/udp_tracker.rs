//! What clients and UDP trackers say to each other: BEP 15, with the tracker's path and query as an
//! option (BEP 41). Both sides are here: our client asks, our publisher answers.
//!
//! Pure: datagrams in, values out. A datagram that is not what it should be is `None`: nobody who
//! sends such a thing is owed an answer.

use super::tracker::{Announce, AnnounceReply, Event, PEERS_MAX, unpack};
use crate::ids::{InfoHash, PeerId};
use std::collections::BTreeSet;
use std::net::IpAddr;
use url::Url;

/// The most info-hashes of one scrape: what BEP 15 has room for in one packet.
pub const SCRAPE_HASHES_MAX: usize = 74;
/// The most bytes of an answer's text that are read.
const TEXT_BYTES_MAX: usize = 256;
/// The most bytes of a URL's path and query that are told.
const URL_BYTES_MAX: usize = 512;
/// Bytes of an announce without options.
const ANNOUNCE_BYTES: usize = 98;

/// The first eight bytes of a connect.
const MAGIC: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;
/// BEP 41: a piece of the URL, with its length before it.
const URL_DATA: u8 = 2;

/// The family of the addresses that a datagram travels between. It decides how peers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Peers of 6 bytes.
    V4,
    /// Peers of 18 bytes.
    V6,
}

impl Family {
    /// The family of an address; a mapped one counts as what it is.
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpRequest {
    /// For a connection id, which proves that the sender gets what is sent to its address.
    Connect {
        /// Comes back with the answer.
        transaction: u32,
    },
    /// For peers.
    Announce {
        /// From the answer to a connect.
        connection: u64,
        /// Comes back with the answer.
        transaction: u32,
        /// As over HTTP. Of the key eight hexadecimal digits are kept; `compact` and `tracker_id` have
        /// no place here.
        announce: Announce,
    },
    /// For the sizes of swarms.
    Scrape {
        /// From the answer to a connect.
        connection: u64,
        /// Comes back with the answer.
        transaction: u32,
        /// The swarms, at most [`SCRAPE_HASHES_MAX`].
        hashes: Vec<InfoHash>,
    },
}

impl UdpRequest {
    /// The datagram. `url` is the tracker's: its path and query go with an announce.
    pub fn encode(&self, url: Option<&Url>) -> Vec<u8> {
        match self {
            Self::Connect { transaction } => head(MAGIC, CONNECT, *transaction),
            Self::Announce { connection, transaction, announce } => {
                let mut out = head(*connection, ANNOUNCE, *transaction);
                out.extend(announce.info_hash.0);
                out.extend(announce.peer_id.0);
                out.extend(announce.downloaded.to_be_bytes());
                out.extend(announce.left.to_be_bytes());
                out.extend(announce.uploaded.to_be_bytes());
                out.extend(event_number(announce.event).to_be_bytes());
                out.extend([0; 4]); // Our address is where this comes from.
                let key = announce.key.as_deref().and_then(|key| u32::from_str_radix(key, 16).ok());
                out.extend(key.unwrap_or(0).to_be_bytes());
                let wanted = announce.numwant.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
                out.extend(wanted.to_be_bytes());
                out.extend(announce.port.to_be_bytes());
                if let Some(url) = url {
                    encode_url(url, &mut out);
                }
                out
            }
            Self::Scrape { connection, transaction, hashes } => {
                let mut out = head(*connection, SCRAPE, *transaction);
                out.extend(hashes.iter().take(SCRAPE_HASHES_MAX).flat_map(|hash| hash.0));
                out
            }
        }
    }

    /// Reads a request. An announce may be longer than its fields: options are passed over.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let mut from = Reader(datagram);
        let (first, action, transaction) = (from.u64()?, from.u32()?, from.u32()?);
        match action {
            CONNECT if first == MAGIC => Some(Self::Connect { transaction }),
            ANNOUNCE if datagram.len() >= ANNOUNCE_BYTES => {
                let (info_hash, peer_id) = (InfoHash(from.take()?), PeerId(from.take()?));
                let (downloaded, left, uploaded) = (from.u64()?, from.u64()?, from.u64()?);
                let (event, _ip) = (from.u32()?, from.u32()?);
                let key = Some(format!("{:08x}", from.u32()?));
                // Less than nothing means any number.
                let numwant = u32::try_from(i32::from_be_bytes(from.take()?)).ok();
                let port = u16::from_be_bytes(from.take()?);
                let event = match event {
                    1 => Some(Event::Completed),
                    2 => Some(Event::Started),
                    3 => Some(Event::Stopped),
                    _ => None,
                };
                let announce = Announce {
                    info_hash,
                    peer_id,
                    port,
                    uploaded,
                    downloaded,
                    left,
                    event,
                    numwant,
                    key,
                    compact: true,
                    tracker_id: None,
                };
                Some(Self::Announce { connection: first, transaction, announce })
            }
            SCRAPE => {
                let (hashes, rest) = from.0.as_chunks::<20>();
                let fits = rest.is_empty() && (1..=SCRAPE_HASHES_MAX).contains(&hashes.len());
                let hashes = hashes.iter().map(|hash| InfoHash(*hash)).collect();
                fits.then_some(Self::Scrape { connection: first, transaction, hashes })
            }
            _ => None,
        }
    }
}

/// What a scrape says of one swarm, in the order that was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpScrape {
    /// Peers that have everything.
    pub seeders: u32,
    /// Downloads ever completed.
    pub completed: u32,
    /// Peers that do not have everything.
    pub leechers: u32,
}

/// What a tracker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpReply {
    /// To a connect.
    Connect {
        /// The client's to use for a minute.
        connection: u64,
    },
    /// To an announce.
    Announce(AnnounceReply),
    /// To a scrape.
    Scrape(Vec<UdpScrape>),
    /// To anything: the tracker refuses, and says why.
    Error(String),
}

impl UdpReply {
    /// The datagram, of at most `bytes_max` bytes, with peers of `family`: the others, and those that
    /// do not fit, are left out.
    pub fn encode(&self, transaction: u32, family: Family, bytes_max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut begin = |action: u32| {
            out.extend(action.to_be_bytes());
            out.extend(transaction.to_be_bytes());
        };
        match self {
            Self::Connect { connection } => {
                begin(CONNECT);
                out.extend(connection.to_be_bytes());
            }
            Self::Announce(reply) => {
                begin(ANNOUNCE);
                let counts = [Some(reply.interval_s), reply.leechers, reply.seeders];
                out.extend(counts.iter().flat_map(|count| count.unwrap_or(0).to_be_bytes()));
                for peer in &reply.peers {
                    match (family, peer.ip().to_canonical()) {
                        (Family::V4, IpAddr::V4(ip)) if out.len() + 6 <= bytes_max => {
                            out.extend(ip.octets());
                        }
                        (Family::V6, IpAddr::V6(ip)) if out.len() + 18 <= bytes_max => {
                            out.extend(ip.octets());
                        }
                        (Family::V4 | Family::V6, IpAddr::V4(_) | IpAddr::V6(_)) => continue,
                    }
                    out.extend(peer.port().to_be_bytes());
                }
            }
            Self::Scrape(entries) => {
                begin(SCRAPE);
                let room = bytes_max.saturating_sub(8) / 12;
                out.extend(
                    entries
                        .iter()
                        .take(room)
                        .flat_map(|entry| {
                            [entry.seeders, entry.completed, entry.leechers].map(u32::to_be_bytes)
                        })
                        .flatten(),
                );
            }
            Self::Error(text) => {
                begin(ERROR);
                out.extend(text.bytes().take(TEXT_BYTES_MAX.min(bytes_max.saturating_sub(8))));
            }
        }
        out
    }

    /// Reads an answer and the transaction it belongs to. The lengths must be exact: what has bytes
    /// too many or too few is no answer.
    pub fn parse(datagram: &[u8], family: Family) -> Option<(u32, Self)> {
        let mut from = Reader(datagram);
        let (action, transaction) = (from.u32()?, from.u32()?);
        let reply = match action {
            CONNECT => {
                let connection = from.u64()?;
                from.0.is_empty().then_some(Self::Connect { connection })?
            }
            ANNOUNCE => {
                let (interval_s, leechers, seeders) = (from.u32()?, from.u32()?, from.u32()?);
                let mut peers = Vec::new();
                match family {
                    Family::V4 => unpack::<6>(from.0, &mut peers).ok()?,
                    Family::V6 => unpack::<18>(from.0, &mut peers).ok()?,
                }
                let mut seen = BTreeSet::new();
                peers.retain(|peer| peer.port() != 0 && seen.insert(*peer));
                peers.truncate(PEERS_MAX);
                Self::Announce(AnnounceReply {
                    interval_s,
                    leechers: Some(leechers),
                    seeders: Some(seeders),
                    peers,
                    ..AnnounceReply::default()
                })
            }
            SCRAPE => {
                let (entries, rest) = from.0.as_chunks::<12>();
                if !rest.is_empty() || entries.len() > SCRAPE_HASHES_MAX {
                    return None;
                }
                let entry = |entry: &[u8; 12]| {
                    let mut from = Reader(entry);
                    let (seeders, completed, leechers) = (from.u32()?, from.u32()?, from.u32()?);
                    Some(UdpScrape { seeders, completed, leechers })
                };
                Self::Scrape(entries.iter().filter_map(entry).collect())
            }
            ERROR => {
                let text = String::from_utf8_lossy(&from.0[..from.0.len().min(TEXT_BYTES_MAX)]);
                Self::Error(text.chars().filter(|c| !c.is_control()).collect())
            }
            _ => return None,
        };
        Some((transaction, reply))
    }
}

fn head(first: u64, action: u32, transaction: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(ANNOUNCE_BYTES);
    out.extend(first.to_be_bytes());
    out.extend(action.to_be_bytes());
    out.extend(transaction.to_be_bytes());
    out
}

fn event_number(event: Option<Event>) -> u32 {
    match event {
        None => 0,
        Some(Event::Completed) => 1,
        Some(Event::Started) => 2,
        Some(Event::Stopped) => 3,
    }
}

/// BEP 41: path and query, where there is more than the host, in pieces of at most 255 bytes.
fn encode_url(url: &Url, out: &mut Vec<u8>) {
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    let text = format!("{}{query}", url.path());
    if text.is_empty() || text == "/" || text.len() > URL_BYTES_MAX {
        return;
    }
    for piece in text.as_bytes().chunks(255) {
        out.push(URL_DATA);
        out.push(u8::try_from(piece.len()).expect("chunks of at most 255"));
        out.extend(piece);
    }
}

/// What is left to read of a datagram.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests;
