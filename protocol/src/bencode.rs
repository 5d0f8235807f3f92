//! Bencode (BEP 3), read strictly and written canonically.
//!
//! The reader borrows from its input, allocates only for items it has really seen, and is bounded in
//! depth, in items and by the input itself: a length is checked against the bytes that are left
//! before it is believed. Refused are: integers with leading zeros, `i-0e`, numbers beyond 64 bits,
//! lengths with leading zeros, duplicate keys, anything truncated and anything left over. Keys out
//! of order are read, because foreign files and messages have them; [`Value::is_canonical`] tells
//! them apart, and every place where the bytes themselves are the name (BEP 52) asks it.
//!
//! The writer cannot produce anything the reader would call not canonical.

use std::fmt;

/// How deep lists and dictionaries may nest.
pub const DEPTH_MAX: usize = 100;

/// Items (values at any depth) in one message of a peer or a tracker; real ones have hundreds.
pub const ITEMS_MAX: usize = 1 << 16;

/// Items in a torrent file: a hybrid has about 17 for each file, so more than 120 000 files.
pub const TORRENT_ITEMS_MAX: usize = 2 << 20;

/// A value, borrowed from the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i…e`
    Int(i64),
    /// `length:…`
    Bytes(&'a [u8]),
    /// `l…e`
    List(Box<[Self]>),
    /// `d…e`
    Dict(Dict<'a>),
}

/// A dictionary in the order it was read, keys unique.
#[derive(Clone, PartialEq, Eq)]
pub struct Dict<'a> {
    raw: &'a [u8],
    entries: Box<[(&'a [u8], Value<'a>)]>,
}

/// Reads exactly one value of at most [`ITEMS_MAX`] items that fills `input`.
pub fn parse(input: &[u8]) -> Result<Value<'_>, Error> {
    let (value, len) = parse_prefix(input)?;
    if len < input.len() { Err(Error::Trailing { at: len }) } else { Ok(value) }
}

/// Reads one value from the start of `input` and says how many bytes it took. BEP 9 messages carry
/// data after their dictionary.
pub fn parse_prefix(input: &[u8]) -> Result<(Value<'_>, usize), Error> {
    parse_prefix_bounded(input, ITEMS_MAX)
}

/// [`parse_prefix`] with another bound on the number of items.
pub fn parse_prefix_bounded(input: &[u8], items_max: usize) -> Result<(Value<'_>, usize), Error> {
    let mut reader = Reader { input, at: 0, items_left: items_max };
    let value = reader.value(0)?;
    Ok((value, reader.at))
}

/// Why bytes are not bencode. Every offset is from the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ends inside a value.
    #[error("invalid bencoding: the data ends at byte {at}, inside a value (truncated file?)")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// No value starts with this byte.
    #[error("invalid bencoding: unexpected byte 0x{byte:02x} at byte {at}")]
    Unexpected {
        /// Where.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// `i-0e`, a leading zero, no digits, or more than 64 bits.
    #[error("invalid bencoding: the integer at byte {at} is empty, overlong or out of range")]
    Integer {
        /// Where.
        at: usize,
    },
    /// A string's length with a leading zero, or longer than what is left.
    #[error("invalid bencoding: the string at byte {at} has an impossible length")]
    Length {
        /// Where.
        at: usize,
    },
    /// A key occurs twice in one dictionary.
    #[error("invalid bencoding: the dictionary at byte {at} has a duplicate key")]
    DuplicateKey {
        /// Where the dictionary starts.
        at: usize,
    },
    /// Deeper than [`DEPTH_MAX`].
    #[error("invalid bencoding: nested deeper than {DEPTH_MAX} levels at byte {at}")]
    TooDeep {
        /// Where.
        at: usize,
    },
    /// More items than allowed.
    #[error("invalid bencoding: too many items, the limit is reached at byte {at}")]
    TooMany {
        /// Where.
        at: usize,
    },
    /// Something follows the value.
    #[error("invalid bencoding: data follows the end of the value at byte {at}")]
    Trailing {
        /// Where.
        at: usize,
    },
}

impl<'a> Value<'a> {
    /// The number, if this is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bytes(_) | Self::List(_) | Self::Dict(_) => None,
        }
    }

    /// The string, if this is one.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Int(_) | Self::List(_) | Self::Dict(_) => None,
        }
    }

    /// The string, if this is one and is UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// The list, if this is one.
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            Self::Int(_) | Self::Bytes(_) | Self::Dict(_) => None,
        }
    }

    /// The dictionary, if this is one.
    pub fn dict(&self) -> Option<&Dict<'a>> {
        match self {
            Self::Dict(dict) => Some(dict),
            Self::Int(_) | Self::Bytes(_) | Self::List(_) => None,
        }
    }

    /// True if every dictionary in this value has its keys in order: then writing the value again
    /// gives the same bytes.
    pub fn is_canonical(&self) -> bool {
        match self {
            Self::Int(_) | Self::Bytes(_) => true,
            Self::List(items) => items.iter().all(Self::is_canonical),
            Self::Dict(dict) => dict.is_canonical(),
        }
    }
}

impl<'a> Dict<'a> {
    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Value<'a>> {
        self.entries.iter().find(|(own, _)| *own == key).map(|(_, value)| value)
    }

    /// Keys and values in the order they were read.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &Value<'a>)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The exact bytes this was read from, `d` and `e` included: what an info-hash is over.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// [`Value::is_canonical`] for this dictionary.
    pub fn is_canonical(&self) -> bool {
        self.entries.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.entries.iter().all(|(_, value)| value.is_canonical())
    }
}

impl fmt::Debug for Dict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries =
            self.entries.iter().map(|(key, value)| (key.escape_ascii().to_string(), value));
        f.debug_map().entries(entries).finish()
    }
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    items_left: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Result<u8, Error> {
        self.input.get(self.at).copied().ok_or(Error::Truncated { at: self.input.len() })
    }

    /// `depth` is bounded, and so is the recursion.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        let at = self.at;
        self.items_left = self.items_left.checked_sub(1).ok_or(Error::TooMany { at })?;
        match self.peek()? {
            b'i' => self.int().map(Value::Int),
            b'0'..=b'9' => self.bytes().map(Value::Bytes),
            b'l' | b'd' if depth >= DEPTH_MAX => Err(Error::TooDeep { at }),
            b'l' => self.list(depth),
            b'd' => self.dict(depth).map(Value::Dict),
            byte => Err(Error::Unexpected { at, byte }),
        }
    }

    fn int(&mut self) -> Result<i64, Error> {
        let start = self.at;
        let wrong = Error::Integer { at: start };
        self.at += 1;
        let negative = self.peek()? == b'-';
        self.at += usize::from(negative);
        let digits = self.digits();
        match (self.peek()?, digits) {
            (b'e', [b'0']) if !negative => {}
            (b'e', [b'1'..=b'9', ..]) => {}
            _ => return Err(wrong),
        }
        self.at += 1;
        let mut number = 0i64;
        for digit in digits {
            let digit = i64::from(digit - b'0');
            let next = number.checked_mul(10).and_then(|number| {
                if negative { number.checked_sub(digit) } else { number.checked_add(digit) }
            });
            number = next.ok_or(wrong)?;
        }
        Ok(number)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let start = self.at;
        let wrong = Error::Length { at: start };
        let digits = self.digits();
        match self.peek()? {
            b':' => self.at += 1,
            byte => return Err(Error::Unexpected { at: self.at, byte }),
        }
        // Ten digits are beyond any input that fits in our memory; a leading zero is not canonical.
        if digits.is_empty() || digits.len() > 10 || (digits[0] == b'0' && digits.len() > 1) {
            return Err(wrong);
        }
        let len = digits.iter().fold(0u64, |len, digit| len * 10 + u64::from(digit - b'0'));
        let rest = &self.input[self.at..];
        let bytes = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or(wrong)?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn digits(&mut self) -> &'a [u8] {
        let rest = &self.input[self.at..];
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += len;
        &rest[..len]
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        self.at += 1;
        let mut items = Vec::new();
        while self.peek()? != b'e' {
            items.push(self.value(depth + 1)?);
        }
        self.at += 1;
        Ok(Value::List(items.into()))
    }

    fn dict(&mut self, depth: usize) -> Result<Dict<'a>, Error> {
        let start = self.at;
        self.at += 1;
        let mut entries: Vec<(&[u8], Value<'_>)> = Vec::new();
        let mut sorted = true;
        while self.peek()? != b'e' {
            let at = self.at;
            match self.peek()? {
                b'0'..=b'9' => {}
                byte => return Err(Error::Unexpected { at, byte }),
            }
            let key = self.bytes()?;
            if let Some((last, _)) = entries.last() {
                if *last == key {
                    return Err(Error::DuplicateKey { at: start });
                }
                sorted &= *last < key;
            }
            entries.push((key, self.value(depth + 1)?));
        }
        self.at += 1;
        if !sorted {
            let mut keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Error::DuplicateKey { at: start });
            }
        }
        Ok(Dict { raw: &self.input[start..self.at], entries: entries.into() })
    }
}

/// Writes bencode.
///
/// ```
/// use updraft_protocol::bencode;
/// let message = bencode::encode_dict(|dict| {
///     dict.key(b"msg_type").int(0);
///     dict.key(b"piece").int(3);
/// });
/// assert_eq!(message, b"d8:msg_typei0e5:piecei3ee");
/// ```
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    items: usize,
}

/// The dictionary being written by [`Encoder::dict`].
#[derive(Debug)]
pub struct DictEncoder<'a> {
    encoder: &'a mut Encoder,
    last_key: Option<std::ops::Range<usize>>,
}

/// One dictionary as bytes.
pub fn encode_dict(fill: impl FnOnce(&mut DictEncoder<'_>)) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.dict(fill);
    encoder.finish()
}

impl Encoder {
    /// An encoder with room for so many bytes: what is large is then not moved while it grows.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), items: 0 }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Number of bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True if nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Values written so far, as [`parse_prefix_bounded`] counts them; those within
    /// [`raw`](Self::raw) are left out.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Writes a number.
    pub fn int(&mut self, number: i64) {
        self.items += 1;
        self.out.push(b'i');
        self.decimal(number);
        self.out.push(b'e');
    }

    /// Writes a length. Panics beyond 2^63, which no file has.
    pub fn uint(&mut self, number: u64) {
        self.int(i64::try_from(number).expect("lengths are below 2^63"));
    }

    /// Writes a string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.items += 1;
        self.string(bytes);
    }

    /// Writes one string of pieces that are equally long: hashes.
    pub fn hashes<const LEN: usize>(&mut self, hashes: impl ExactSizeIterator<Item = [u8; LEN]>) {
        self.items += 1;
        self.decimal(hashes.len() * LEN);
        self.out.push(b':');
        self.out.reserve(hashes.len() * LEN);
        hashes.for_each(|hash| self.out.extend_from_slice(&hash));
    }

    fn string(&mut self, bytes: &[u8]) {
        self.decimal(bytes.len());
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
    }

    fn decimal(&mut self, number: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Writes a list of whatever `fill` writes.
    pub fn list(&mut self, fill: impl FnOnce(&mut Self)) {
        self.items += 1;
        self.out.push(b'l');
        fill(self);
        self.out.push(b'e');
    }

    /// Writes a dictionary of whatever `fill` writes, which must come in the order of the keys.
    pub fn dict(&mut self, fill: impl FnOnce(&mut DictEncoder<'_>)) {
        self.items += 1;
        self.out.push(b'd');
        fill(&mut DictEncoder { encoder: self, last_key: None });
        self.out.push(b'e');
    }

    /// Writes what is bencode already: an info dictionary.
    pub fn raw(&mut self, bencoded: &[u8]) {
        self.out.extend_from_slice(bencoded);
    }

    /// Writes a value as it was read, dictionaries in the order of their keys.
    pub fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Int(number) => self.int(*number),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::List(items) => self.list(|list| items.iter().for_each(|item| list.value(item))),
            Value::Dict(dict) => {
                let mut entries: Vec<_> = dict.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                self.dict(|out| entries.iter().for_each(|(key, value)| out.key(key).value(value)));
            }
        }
    }
}

impl DictEncoder<'_> {
    /// Writes the next key; exactly one value must follow.
    ///
    /// Panics if the key is not above the last one: the order is part of the format.
    pub fn key(&mut self, key: &[u8]) -> &mut Encoder {
        let last = self.last_key.take().map(|range| &self.encoder.out[range]);
        assert!(last.is_none_or(|last| last < key), "keys are written in order");
        self.encoder.string(key);
        let end = self.encoder.out.len();
        self.last_key = Some(end - key.len()..end);
        self.encoder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(input: &[u8], expected: Result<&str, Error>) {
        let shown = parse(input).map(|value| format!("{value:?}"));
        assert_eq!(shown.as_deref().map_err(|error| *error), expected, "{}", input.escape_ascii());
    }

    #[test]
    fn reads_what_is_right() {
        check(b"i0e", Ok("Int(0)"));
        check(b"i-9223372036854775808e", Ok("Int(-9223372036854775808)"));
        check(b"i9223372036854775807e", Ok("Int(9223372036854775807)"));
        check(b"0:", Ok("Bytes([])"));
        check(b"le", Ok("List([])"));
        check(b"d1:ai1e1:bl1:xee", Ok(r#"Dict({"a": Int(1), "b": List([Bytes([120])])})"#));
        check(b"d1:bi1e1:ai2ee", Ok(r#"Dict({"b": Int(1), "a": Int(2)})"#));
        assert!(!parse(b"ld1:bi1e1:ai2eee").unwrap().is_canonical());
        assert_eq!(parse_prefix(b"d1:ai1eerest").unwrap().1, 8);
    }

    #[test]
    fn refuses_what_is_not() {
        check(b"", Err(Error::Truncated { at: 0 }));
        check(b"i-0e", Err(Error::Integer { at: 0 }));
        check(b"i00e", Err(Error::Integer { at: 0 }));
        check(b"i07e", Err(Error::Integer { at: 0 }));
        check(b"i+1e", Err(Error::Integer { at: 0 }));
        check(b"i 1e", Err(Error::Integer { at: 0 }));
        check(b"ie", Err(Error::Integer { at: 0 }));
        check(b"i-e", Err(Error::Integer { at: 0 }));
        check(b"i1", Err(Error::Truncated { at: 2 }));
        check(b"i9223372036854775808e", Err(Error::Integer { at: 0 }));
        check(b"i-9223372036854775809e", Err(Error::Integer { at: 0 }));
        check(b"01:a", Err(Error::Length { at: 0 }));
        check(b"00:", Err(Error::Length { at: 0 }));
        check(b"2:a", Err(Error::Length { at: 0 }));
        check(b"9999999999999999999999:a", Err(Error::Length { at: 0 }));
        check(b"4294967295:a", Err(Error::Length { at: 0 }));
        check(b"1a", Err(Error::Unexpected { at: 1, byte: b'a' }));
        check(b"-1:a", Err(Error::Unexpected { at: 0, byte: b'-' }));
        check(b"l", Err(Error::Truncated { at: 1 }));
        check(b"d1:a", Err(Error::Truncated { at: 4 }));
        check(b"d1:ae", Err(Error::Unexpected { at: 4, byte: b'e' }));
        check(b"di1ei1ee", Err(Error::Unexpected { at: 1, byte: b'i' }));
        check(b"d1:ai1e1:ai2ee", Err(Error::DuplicateKey { at: 0 }));
        check(b"d1:bi1e1:ai2e1:bi3ee", Err(Error::DuplicateKey { at: 0 }));
        check(b"i1ei2e", Err(Error::Trailing { at: 3 }));
        let deep = |depth: usize| [b"l".repeat(depth), b"e".repeat(depth)].concat();
        assert!(parse(&deep(DEPTH_MAX)).is_ok());
        check(&deep(DEPTH_MAX + 1), Err(Error::TooDeep { at: DEPTH_MAX }));
        check(&b"l".repeat(1 << 20), Err(Error::TooDeep { at: DEPTH_MAX }));
        let many = [b"l".as_slice(), &b"0:".repeat(ITEMS_MAX), b"e"].concat();
        check(&many, Err(Error::TooMany { at: 1 + 2 * (ITEMS_MAX - 1) }));
    }

    #[test]
    #[should_panic(expected = "keys are written in order")]
    fn the_writer_refuses_disorder() {
        encode_dict(|dict| {
            dict.key(b"b").int(1);
            dict.key(b"a").int(1);
        });
    }

    /// Canonical bencode from plain recursion: the oracle.
    fn canonical() -> impl Strategy<Value = Vec<u8>> {
        let string = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes].concat();
        let leaf = prop_oneof![
            any::<i64>().prop_map(|number| format!("i{number}e").into_bytes()),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(move |bytes| string(&bytes)),
        ];
        leaf.prop_recursive(6, 60, 6, move |inner| {
            let key = prop::collection::vec(any::<u8>(), 0..6);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(|items| [
                    b"l",
                    items.concat().as_slice(),
                    b"e"
                ]
                .concat()),
                prop::collection::btree_map(key, inner, 0..6).prop_map(move |entries| {
                    let body: Vec<_> = entries
                        .into_iter()
                        .flat_map(|(key, value)| [string(&key), value])
                        .collect();
                    [b"d", body.concat().as_slice(), b"e"].concat()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn round_trip(bytes in canonical()) {
            let value = parse(&bytes).unwrap();
            prop_assert!(value.is_canonical());
            let mut encoder = Encoder::default();
            encoder.value(&value);
            // Reader and writer count alike: with one item less it is refused.
            let items = encoder.items();
            prop_assert!(parse_prefix_bounded(&bytes, items).is_ok());
            prop_assert!(parse_prefix_bounded(&bytes, items - 1).is_err());
            prop_assert_eq!(encoder.finish(), bytes);
        }

        #[test]
        fn damage_is_read_or_refused_without_panic(
            bytes in canonical(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>()
        ) {
            let mut bytes = bytes;
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Ok(value) = parse(&bytes) && value.is_canonical() {
                let mut encoder = Encoder::default();
                encoder.value(&value);
                prop_assert_eq!(encoder.finish(), bytes);
            }
        }
    }
}
