//! What clients and HTTP trackers say to each other: BEP 3, with compact peers (BEP 23), IPv6
//! (BEP 7) and scrape (BEP 48). Both sides are here: our client asks, our publisher answers.
//!
//! Pure: URLs and bodies in, values out. Nothing here opens a connection or decides when to ask.

use crate::bencode::{self, Dict, Value};
use crate::ids::{InfoHash, PeerId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use url::Url;

/// The most bytes of an answer that are read.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// The most peers taken from one answer.
pub const PEERS_MAX: usize = 2000;

/// The most info-hashes taken from one scrape.
pub const SCRAPE_HASHES_MAX: usize = 100;

/// The interval assumed when a tracker names none: 30 minutes.
pub const INTERVAL_DEFAULT_S: u32 = 1800;

/// The most bytes of a query string we look at.
const QUERY_BYTES_MAX: usize = 16 * 1024;

/// The most bytes of a `key` or `trackerid`, and characters of a tracker's text.
const TEXT_LEN_MAX: usize = 256;

/// Everything but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a client announces now, other than that its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The first announce.
    Started,
    /// The download has just ended; never sent by who began with everything.
    Completed,
    /// The last announce.
    Stopped,
}

impl Event {
    /// Its name in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }
}

/// An announce, as the client asks and the tracker understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The swarm.
    pub info_hash: InfoHash,
    /// Who asks.
    pub peer_id: PeerId,
    /// Where it listens, 0 if it does not.
    pub port: u16,
    /// Payload bytes sent since `started`.
    pub uploaded: u64,
    /// Payload bytes received since `started`.
    pub downloaded: u64,
    /// Bytes still to get; 0 makes it a seed.
    pub left: u64,
    /// The occasion.
    pub event: Option<Event>,
    /// How many peers are welcome.
    pub numwant: Option<u32>,
    /// Tells a client with a new address from a new client. At most 256 bytes.
    pub key: Option<String>,
    /// Peers as packed bytes (BEP 23); false only when a client asks for dictionaries.
    pub compact: bool,
    /// What the tracker asked to be told again.
    pub tracker_id: Option<Vec<u8>>,
}

impl Announce {
    /// The URL to get. What `announce` has as its query (a passkey, say) stays in front.
    pub fn url(&self, announce: &Url) -> Url {
        let mut query = announce
            .query()
            .filter(|own| !own.is_empty())
            .map_or_else(String::new, |own| format!("{own}&"));
        query.push_str("info_hash=");
        query.extend(percent_encode(&self.info_hash.0, ESCAPED));
        query.push_str("&peer_id=");
        query.extend(percent_encode(&self.peer_id.0, ESCAPED));
        query.push_str(&format!(
            "&port={}&uploaded={}&downloaded={}&left={}&compact={}",
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
            u8::from(self.compact)
        ));
        if let Some(event) = self.event {
            query.push_str("&event=");
            query.push_str(event.as_str());
        }
        if let Some(numwant) = self.numwant {
            query.push_str(&format!("&numwant={numwant}"));
        }
        for (name, value) in [
            ("key", self.key.as_ref().map(String::as_bytes)),
            ("trackerid", self.tracker_id.as_deref()),
        ] {
            if let Some(value) = value {
                query.push_str(&format!("&{name}="));
                query.extend(percent_encode(value, ESCAPED));
            }
        }
        let mut url = announce.clone();
        url.set_query(Some(&query));
        url
    }

    /// Reads the query of an announce. Parameters we do not know are ignored, `ip` among them: an
    /// address is where a request comes from, not what it says.
    ///
    /// # Errors
    /// What is missing or malformed, in words fit for the answer.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let pairs = pairs(query)?;
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        let hash = |name: &'static str| {
            let value = find(name).ok_or(QueryError::Missing { name })?;
            <[u8; 20]>::try_from(value.as_slice()).map_err(|_| QueryError::Malformed { name })
        };
        fn number<T: std::str::FromStr>(
            value: Option<&Vec<u8>>,
            name: &'static str,
        ) -> Result<Option<T>, QueryError> {
            let Some(value) = value else { return Ok(None) };
            let text = std::str::from_utf8(value)
                .ok()
                .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            let number = text.and_then(|text| text.parse().ok());
            number.map(Some).ok_or(QueryError::Malformed { name })
        }
        let event = match find("event").map(Vec::as_slice) {
            Some(b"started") => Some(Event::Started),
            Some(b"completed") => Some(Event::Completed),
            Some(b"stopped") => Some(Event::Stopped),
            // BEP 3: `empty` or nothing at regular intervals; BEP 21 adds `paused`.
            Some(_) | None => None,
        };
        let key = match find("key") {
            Some(key) if key.len() <= TEXT_LEN_MAX => Some(
                String::from_utf8(key.clone())
                    .map_err(|_| QueryError::Malformed { name: "key" })?,
            ),
            Some(_) => return Err(QueryError::Malformed { name: "key" }),
            None => None,
        };
        Ok(Self {
            info_hash: InfoHash(hash("info_hash")?),
            peer_id: PeerId(hash("peer_id")?),
            port: number(find("port"), "port")?.ok_or(QueryError::Missing { name: "port" })?,
            uploaded: number(find("uploaded"), "uploaded")?.unwrap_or(0),
            downloaded: number(find("downloaded"), "downloaded")?.unwrap_or(0),
            // Who does not say is taken for a leech (transmission's magnet links do not know).
            left: number(find("left"), "left")?.unwrap_or(u64::MAX),
            event,
            // Some clients say -1 for "any".
            numwant: number(find("numwant").filter(|value| **value != b"-1"), "numwant")?,
            key,
            compact: find("compact").is_none_or(|value| value != b"0"),
            tracker_id: find("trackerid").filter(|id| id.len() <= TEXT_LEN_MAX).cloned(),
        })
    }
}

/// The info-hashes in the query of a scrape (BEP 48), at most [`SCRAPE_HASHES_MAX`]. Empty if it
/// asks for everything.
///
/// # Errors
/// A hash that has not 20 bytes, or too many.
pub fn parse_scrape_query(query: &str) -> Result<Vec<InfoHash>, QueryError> {
    let name = "info_hash";
    let pairs = pairs(query)?;
    let values = pairs.iter().filter(|(key, _)| *key == name);
    let hashes: Vec<_> = values
        .map(|(_, value)| {
            let hash = <[u8; 20]>::try_from(value.as_slice());
            hash.map(InfoHash).map_err(|_| QueryError::Malformed { name })
        })
        .collect::<Result<_, _>>()?;
    if hashes.len() > SCRAPE_HASHES_MAX { Err(QueryError::TooLong) } else { Ok(hashes) }
}

/// What is wrong with a request. The text may be sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A parameter is not there.
    #[error("the parameter {name} is missing")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A parameter is not what it should be.
    #[error("the parameter {name} is malformed")]
    Malformed {
        /// Its name.
        name: &'static str,
    },
    /// More than any client needs to say.
    #[error("the request is too long")]
    TooLong,
}

/// Splits a query and undoes the escapes of its values. A `+` stays one: info-hashes are bytes, not
/// form fields.
fn pairs(query: &str) -> Result<Vec<(&str, Vec<u8>)>, QueryError> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(QueryError::TooLong);
    }
    let parts = query.split('&').filter(|part| !part.is_empty());
    Ok(parts
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (key, percent_decode_str(value).collect())
        })
        .collect())
}

/// The URL to scrape, if the tracker's announce URL says that there is one (BEP 48).
pub fn scrape_url(announce: &Url, hashes: &[InfoHash]) -> Option<Url> {
    let (folder, last) = announce.path().rsplit_once('/')?;
    let path = format!("{folder}/scrape{}", last.strip_prefix("announce")?);
    let mut query: Vec<String> = announce.query().map(str::to_owned).into_iter().collect();
    query.extend(
        hashes.iter().map(|hash| format!("info_hash={}", percent_encode(&hash.0, ESCAPED))),
    );
    let mut url = announce.clone();
    url.set_path(&path);
    url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    Some(url)
}

/// A tracker's answer to an announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceReply {
    /// Seconds until the next regular announce.
    pub interval_s: u32,
    /// Seconds that must pass before any announce.
    pub min_interval_s: Option<u32>,
    /// Peers that have everything.
    pub seeders: Option<u32>,
    /// Peers that do not.
    pub leechers: Option<u32>,
    /// Where peers listen, each once, no port 0, at most [`PEERS_MAX`].
    pub peers: Vec<SocketAddr>,
    /// Something the user should know.
    pub warning: Option<String>,
    /// To be told again with the next announce.
    pub tracker_id: Option<Vec<u8>>,
}

impl AnnounceReply {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// [`ReplyError::Failure`] when the tracker refuses; the others when it talks nonsense.
    pub fn parse(body: &[u8]) -> Result<Self, ReplyError> {
        let value = parse_body(body)?;
        let dict = value.dict().ok_or(ReplyError::Shape { what: "not a dictionary" })?;
        refusal(dict)?;
        let mut peers = Vec::new();
        match dict.get(b"peers") {
            Some(Value::Bytes(packed)) => unpack::<6>(packed, &mut peers)?,
            Some(Value::List(list)) => peers.extend(list.iter().filter_map(listed_peer)),
            Some(Value::Int(_) | Value::Dict(_)) => {
                return Err(ReplyError::Shape { what: "peers are neither bytes nor a list" });
            }
            None => {}
        }
        if let Some(packed) = dict.get(b"peers6").and_then(Value::bytes) {
            unpack::<18>(packed, &mut peers)?;
        }
        let mut seen = std::collections::BTreeSet::new();
        peers.retain(|peer| peer.port() != 0 && seen.insert(*peer));
        peers.truncate(PEERS_MAX);
        Ok(Self {
            interval_s: count(dict, b"interval").unwrap_or(INTERVAL_DEFAULT_S),
            min_interval_s: count(dict, b"min interval"),
            seeders: count(dict, b"complete"),
            leechers: count(dict, b"incomplete"),
            peers,
            warning: dict.get(b"warning message").and_then(Value::bytes).map(shown),
            tracker_id: dict
                .get(b"tracker id")
                .and_then(Value::bytes)
                .filter(|id| id.len() <= TEXT_LEN_MAX)
                .map(<[u8]>::to_vec),
        })
    }

    /// The body of an answer with packed peers (BEP 23 and BEP 7).
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(None)
    }

    /// The body of an answer to a client that wants a dictionary per peer. `ids` are those of
    /// `peers`, in step.
    ///
    /// Panics if there is not one id per peer.
    pub fn encode_listed(&self, ids: &[PeerId]) -> Vec<u8> {
        assert_eq!(ids.len(), self.peers.len(), "one id per peer");
        self.encode_with(Some(ids))
    }

    fn encode_with(&self, ids: Option<&[PeerId]>) -> Vec<u8> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for peer in &self.peers {
            match peer.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    v4.extend(ip.octets());
                    v4.extend(peer.port().to_be_bytes());
                }
                IpAddr::V6(ip) => {
                    v6.extend(ip.octets());
                    v6.extend(peer.port().to_be_bytes());
                }
            }
        }
        bencode::encode_dict(|dict| {
            if let Some(seeders) = self.seeders {
                dict.key(b"complete").uint(seeders.into());
            }
            if let Some(leechers) = self.leechers {
                dict.key(b"incomplete").uint(leechers.into());
            }
            dict.key(b"interval").uint(self.interval_s.into());
            if let Some(min) = self.min_interval_s {
                dict.key(b"min interval").uint(min.into());
            }
            match ids {
                None => {
                    dict.key(b"peers").bytes(&v4);
                    if !v6.is_empty() {
                        dict.key(b"peers6").bytes(&v6);
                    }
                }
                Some(ids) => dict.key(b"peers").list(|list| {
                    for (peer, id) in self.peers.iter().zip(ids) {
                        list.dict(|dict| {
                            let ip = peer.ip().to_canonical().to_string();
                            dict.key(b"ip").bytes(ip.as_bytes());
                            dict.key(b"peer id").bytes(&id.0);
                            dict.key(b"port").uint(peer.port().into());
                        });
                    }
                }),
            }
            if let Some(id) = &self.tracker_id {
                dict.key(b"tracker id").bytes(id);
            }
            if let Some(warning) = &self.warning {
                dict.key(b"warning message").bytes(warning.as_bytes());
            }
        })
    }
}

/// The body that refuses a request.
pub fn encode_failure(reason: &str) -> Vec<u8> {
    bencode::encode_dict(|dict| dict.key(b"failure reason").bytes(reason.as_bytes()))
}

/// What a scrape says of one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeEntry {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Peers that have everything.
    pub seeders: u32,
    /// Peers that do not.
    pub leechers: u32,
    /// Downloads ever completed.
    pub completed: u32,
}

/// Reads the body of an answer to a scrape.
///
/// # Errors
/// [`ReplyError::Failure`] when the tracker refuses; the others when it talks nonsense.
pub fn parse_scrape(body: &[u8]) -> Result<Vec<ScrapeEntry>, ReplyError> {
    let value = parse_body(body)?;
    let dict = value.dict().ok_or(ReplyError::Shape { what: "not a dictionary" })?;
    refusal(dict)?;
    let files = dict.get(b"files").and_then(Value::dict);
    let files = files.ok_or(ReplyError::Shape { what: "no dictionary `files`" })?;
    let entry = |(key, value): (&[u8], &Value<'_>)| {
        let dict = value.dict()?;
        Some(ScrapeEntry {
            info_hash: InfoHash(key.try_into().ok()?),
            seeders: count(dict, b"complete").unwrap_or(0),
            leechers: count(dict, b"incomplete").unwrap_or(0),
            completed: count(dict, b"downloaded").unwrap_or(0),
        })
    };
    Ok(files.iter().filter_map(entry).take(SCRAPE_HASHES_MAX).collect())
}

/// The body of an answer to a scrape. An info-hash that occurs twice is told once.
pub fn encode_scrape(entries: &[ScrapeEntry]) -> Vec<u8> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|entry| entry.info_hash);
    entries.dedup_by_key(|entry| entry.info_hash);
    bencode::encode_dict(|dict| {
        dict.key(b"files").dict(|files| {
            for entry in entries {
                files.key(&entry.info_hash.0).dict(|file| {
                    file.key(b"complete").uint(entry.seeders.into());
                    file.key(b"downloaded").uint(entry.completed.into());
                    file.key(b"incomplete").uint(entry.leechers.into());
                });
            }
        });
    })
}

/// Why an answer is no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The tracker says why it refuses.
    #[error("the tracker refuses: {0}")]
    Failure(String),
    /// The body is not bencode.
    #[error("the tracker's answer is not bencode: {0}")]
    Bencode(#[from] bencode::Error),
    /// It is, but not an answer.
    #[error("the tracker's answer makes no sense: {what}")]
    Shape {
        /// In what respect.
        what: &'static str,
    },
    /// Larger than [`BODY_BYTES_MAX`].
    #[error("the tracker's answer is larger than 1 MiB")]
    TooLarge,
}

fn parse_body(body: &[u8]) -> Result<Value<'_>, ReplyError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(ReplyError::TooLarge);
    }
    // What follows the value is ignored: some trackers end with a line feed.
    Ok(bencode::parse_prefix(body)?.0)
}

fn refusal(dict: &Dict<'_>) -> Result<(), ReplyError> {
    match dict.get(b"failure reason").and_then(Value::bytes) {
        Some(reason) => Err(ReplyError::Failure(shown(reason))),
        None => Ok(()),
    }
}

/// A number in the range of u32; out of it, or no number, is as good as not there.
fn count(dict: &Dict<'_>, key: &[u8]) -> Option<u32> {
    dict.get(key)?.int()?.try_into().ok()
}

/// A foreign text made fit for a terminal.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().filter(|c| !c.is_control()).take(TEXT_LEN_MAX).collect()
}

/// Peers of `N` bytes each: an address, and two bytes of port.
pub(super) fn unpack<const N: usize>(
    packed: &[u8],
    peers: &mut Vec<SocketAddr>,
) -> Result<(), ReplyError> {
    let (chunks, rest) = packed.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(ReplyError::Shape { what: "the packed peers end within an address" });
    }
    let room = PEERS_MAX.saturating_sub(peers.len());
    peers.extend(chunks.iter().take(room).map(|chunk| {
        let (ip, port) = chunk.split_at(N - 2);
        let ip = match <[u8; 4]>::try_from(ip) {
            Ok(ip) => IpAddr::V4(Ipv4Addr::from(ip)),
            Err(_) => {
                let ip = <[u8; 16]>::try_from(ip).expect("packed peers have 6 or 18 bytes");
                IpAddr::V6(Ipv6Addr::from(ip)).to_canonical()
            }
        };
        SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
    }));
    Ok(())
}

/// A peer as a dictionary. One with a name for an address is left out: we look up no names that a
/// stranger chose.
fn listed_peer(value: &Value<'_>) -> Option<SocketAddr> {
    let dict = value.dict()?;
    let ip: IpAddr = dict.get(b"ip")?.text()?.parse().ok()?;
    let port = dict.get(b"port")?.int()?.try_into().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::wire) fn announce() -> Announce {
        Announce {
            info_hash: InfoHash(*b"\x00 +&=%azAZ09-._~\xff\x7f\x80\n"),
            peer_id: PeerId::ours([0xfe; 12]),
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: Some(Event::Started),
            numwant: Some(50),
            key: Some("0a1b2c3d".into()),
            compact: true,
            tracker_id: None,
        }
    }

    #[test]
    fn the_query_of_the_url_stays_in_front() {
        let base = Url::parse("https://tracker.example:8443/x/announce?passkey=a%2Fb").unwrap();
        let url = announce().url(&base);
        assert_eq!(
            url.as_str(),
            "https://tracker.example:8443/x/announce?passkey=a%2Fb\
             &info_hash=%00%20%2B%26%3D%25azAZ09-._~%FF%7F%80%0A\
             &peer_id=-UD0100-%FE%FE%FE%FE%FE%FE%FE%FE%FE%FE%FE%FE\
             &port=6881&uploaded=1&downloaded=2&left=3&compact=1&event=started&numwant=50&key=0a1b2c3d"
        );
        assert_eq!(Announce::parse(url.query().unwrap()), Ok(announce()));
        let scrape = scrape_url(&base, &[InfoHash([b'a'; 20])]).unwrap();
        assert_eq!(
            scrape.as_str(),
            "https://tracker.example:8443/x/scrape?passkey=a%2Fb&info_hash=aaaaaaaaaaaaaaaaaaaa"
        );
        assert_eq!(parse_scrape_query(scrape.query().unwrap()), Ok(vec![InfoHash([b'a'; 20])]));
        assert!(scrape_url(&Url::parse("http://t.example/a").unwrap(), &[]).is_none());
    }

    fn refused(query: &str, error: QueryError) {
        assert_eq!(Announce::parse(query), Err(error), "{query}");
    }

    #[test]
    fn bad_queries_are_refused_in_words() {
        let id = "peer_id=aaaaaaaaaaaaaaaaaaaa";
        let hash = "info_hash=aaaaaaaaaaaaaaaaaaaa";
        refused("", QueryError::Missing { name: "info_hash" });
        refused("info_hash=abc", QueryError::Malformed { name: "info_hash" });
        refused(hash, QueryError::Missing { name: "peer_id" });
        refused(&format!("{hash}&{id}"), QueryError::Missing { name: "port" });
        for port in ["", "x", "-1", "+1", "65536", "99999999999999999999999"] {
            refused(&format!("{hash}&{id}&port={port}"), QueryError::Malformed { name: "port" });
        }
        refused(&"x".repeat(QUERY_BYTES_MAX + 1), QueryError::TooLong);
        let long_key = format!("{hash}&{id}&port=1&key={}", "k".repeat(300));
        refused(&long_key, QueryError::Malformed { name: "key" });
        let lenient = format!("{hash}&{id}&port=1&numwant=-1&event=paused&ip=9.9.9.9&&x");
        let parsed = Announce::parse(&lenient).unwrap();
        assert_eq!((parsed.left, parsed.numwant, parsed.event), (u64::MAX, None, None));
        let many = format!("{hash}&").repeat(SCRAPE_HASHES_MAX + 1);
        assert_eq!(parse_scrape_query(&many), Err(QueryError::TooLong));
    }

    #[test]
    fn answers_of_all_kinds() {
        let parse = |body: &[u8]| AnnounceReply::parse(body);
        let listed = parse(
            b"d8:intervali60e12:min intervali30e5:peersld2:ip7:1.2.3.44:porti80eed2:ip3:::1\
              4:porti81eed2:ip9:evil.name4:porti1eed2:ip7:1.2.3.44:porti0eei7eee\n",
        )
        .unwrap();
        assert_eq!(listed.peers, ["1.2.3.4:80".parse().unwrap(), "[::1]:81".parse().unwrap()]);
        assert_eq!((listed.interval_s, listed.min_interval_s), (60, Some(30)));

        let odd = parse(b"d8:completei-1e8:intervali99999999999e5:peers0:e").unwrap();
        assert_eq!((odd.seeders, odd.interval_s, odd.peers.len()), (None, INTERVAL_DEFAULT_S, 0));

        let twice = parse(b"d5:peers12:\x01\x02\x03\x04\x00\x50\x01\x02\x03\x04\x00\x50e").unwrap();
        assert_eq!(twice.peers.len(), 1);

        assert_eq!(
            parse(&encode_failure("not\x1b[31m registered")),
            Err(ReplyError::Failure("not[31m registered".into()))
        );
        for bad in [&b""[..], b"<html>", b"i1e", b"d5:peers5:abcdee", b"d5:peersi1ee", b"d"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse(&vec![b' '; BODY_BYTES_MAX + 1]), Err(ReplyError::TooLarge));
        let mut flood = b"d5:peers60000:".to_vec();
        flood.extend(
            (0u16..10_000).flat_map(|n| [1, 2, n.to_be_bytes()[0], n.to_be_bytes()[1], 0, 9]),
        );
        flood.push(b'e');
        assert_eq!(parse(&flood).unwrap().peers.len(), PEERS_MAX);
    }

    prop_compose! {
        fn any_peer()(v6: bool, v4: u32, ip: u128, port in 1u16..) -> SocketAddr {
            let v4 = Ipv4Addr::from_bits(v4);
            let ip = if v6 { IpAddr::V6(Ipv6Addr::from(ip)) } else { IpAddr::V4(v4) };
            SocketAddr::new(ip.to_canonical(), port)
        }
    }

    proptest! {
        #[test]
        fn requests_come_over_unchanged(
            hash: [u8; 20], id: [u8; 20], port: u16, numbers: [u64; 3], event in 0usize..4,
            numwant: Option<u32>, key in prop::option::of("[ -~é]{0,40}"), compact: bool,
            tracker_id: Option<[u8; 5]>, own in "([a-z]{1,3}=[a-z0-9]{0,3})?",
        ) {
            let event = [None, Some(Event::Started), Some(Event::Completed), Some(Event::Stopped)][event];
            prop_assume!(!["key", "ip"].iter().any(|name| own.starts_with(name)));
            let asked = Announce {
                info_hash: InfoHash(hash), peer_id: PeerId(id), port,
                uploaded: numbers[0], downloaded: numbers[1], left: numbers[2],
                event, numwant, key, compact, tracker_id: tracker_id.map(|id| id.to_vec()),
            };
            let url = asked.url(&Url::parse(&format!("http://t/announce?{own}")).unwrap());
            let again = Url::parse(url.as_str()).unwrap();
            prop_assert_eq!(Announce::parse(again.query().unwrap()), Ok(asked));
        }

        #[test]
        fn answers_come_over_unchanged(
            interval_s: u32, min_interval_s: Option<u32>, seeders: Option<u32>, leechers: Option<u32>,
            peers in prop::collection::btree_set(any_peer(), 0..50),
            warning in prop::option::of("[ -~é]{0,40}"), tracker_id: Option<[u8; 5]>,
        ) {
            let said = AnnounceReply {
                interval_s, min_interval_s, seeders, leechers, peers: peers.into_iter().collect(),
                warning, tracker_id: tracker_id.map(|id| id.to_vec()),
            };
            let mut heard = AnnounceReply::parse(&said.encode()).unwrap();
            heard.peers.sort();
            prop_assert_eq!(&heard, &said);
            let ids = vec![PeerId([7; 20]); said.peers.len()];
            prop_assert_eq!(AnnounceReply::parse(&said.encode_listed(&ids)).unwrap(), said);
        }

        #[test]
        fn scrapes_come_over_unchanged(entries in prop::collection::btree_map(any::<[u8; 20]>(), any::<[u32; 3]>(), 0..20)) {
            let said: Vec<_> = entries.into_iter().map(|(hash, [seeders, leechers, completed])| {
                ScrapeEntry { info_hash: InfoHash(hash), seeders, leechers, completed }
            }).collect();
            prop_assert_eq!(parse_scrape(&encode_scrape(&said)), Ok(said));
        }

        #[test]
        fn no_body_breaks_the_reader(body: Vec<u8>, query in "\\PC{0,200}") {
            let _ = (AnnounceReply::parse(&body), parse_scrape(&body));
            let _ = (Announce::parse(&query), parse_scrape_query(&query));
        }
    }
}
