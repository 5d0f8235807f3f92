//! Changes to an input, as disks, networks and people would make them.

/// Inputs do not grow beyond this.
const INPUT_BYTES_MAX: usize = 1 << 17;
/// Bytes that mean something in many formats.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\n\r\"'[]{}=.,:#+-%&/\\ idle09e";
/// Numbers at the edges of what fits.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1e9",
    "00",
    "0x10",
    "99999999999999999999999999999999",
];

/// Draws changes from a seed.
pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    /// The seed is made of the parser's name.
    pub(crate) fn new(name: &str) -> Self {
        let fold = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self { state: name.bytes().fold(0xcbf2_9ce4_8422_2325, fold) }
    }

    /// A number below `bound`, or 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).expect("31 bits") % bound.max(1)
    }

    /// One of `pool`, changed one to four times.
    pub(crate) fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input, pool);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(11) {
            0 => self.at(input, |mutator, byte| *byte ^= 1 << mutator.below(8)),
            1 => self.at(input, |mutator, byte| *byte = mutator.byte()),
            2 => input.truncate(at),
            3 => drop(input.drain(self.span(input.len(), 64))),
            4 => {
                let byte = self.byte();
                let count = [1, 2, 100, 5000][self.below(4)];
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
            5 => {
                let copy = input[self.span(input.len(), 4096)].to_vec();
                let copies = [1, 1, 2, 300][self.below(4)];
                input.splice(at..at, copy.repeat(copies).into_iter().take(INPUT_BYTES_MAX));
            }
            6 => {
                let other = &pool[self.below(pool.len())];
                let piece = other[self.span(other.len(), 256)].to_vec();
                let replaced = at..(at + self.below(256)).min(input.len());
                input.splice(replaced, piece);
            }
            7 => self.number(input, at),
            8 => {
                let edge =
                    [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fffe][self.below(6)];
                let edge: [u8; 4] = if self.below(2) == 0 {
                    u32::to_be_bytes(edge)
                } else {
                    u32::to_le_bytes(edge)
                };
                let end = (at + 4).min(input.len());
                input[at..end].copy_from_slice(&edge[..end - at]);
            }
            9 => self.swap_lines(input),
            _ => self
                .at(input, |mutator, byte| *byte = byte.wrapping_add([1, 255][mutator.below(2)])),
        }
    }

    fn at(&mut self, input: &mut [u8], change: impl Fn(&mut Self, &mut u8)) {
        let at = self.below(input.len());
        if let Some(byte) = input.get_mut(at) {
            change(self, byte);
        }
    }

    fn byte(&mut self) -> u8 {
        BYTES[self.below(BYTES.len())]
    }

    fn span(&mut self, len: usize, max: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        start..(start + self.below(max + 1)).min(len)
    }

    /// A number written in digits becomes another.
    fn number(&mut self, input: &mut Vec<u8>, from: usize) {
        let digit = |at: &usize| input.get(*at).is_some_and(u8::is_ascii_digit);
        let Some(start) = (from..input.len()).find(digit) else { return };
        let end = (start..input.len()).find(|at| !digit(at)).unwrap_or(input.len());
        let other = NUMBERS[self.below(NUMBERS.len())];
        input.splice(start..end, other.bytes());
    }

    fn swap_lines(&mut self, input: &mut Vec<u8>) {
        let mut lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
        let (one, other) = (self.below(lines.len()), self.below(lines.len()));
        if !lines.is_empty() {
            lines.swap(one, other);
        }
        *input = lines.concat();
    }
}
