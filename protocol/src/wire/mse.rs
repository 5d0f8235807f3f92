//! Message stream encryption, as the Azureus wiki describes it and all clients speak it: the sums of its
//! handshake. A Diffie-Hellman exchange makes a secret; whoever knows an info-hash beside it can read on.
//! It hides that this is BitTorrent, and no more.

use crate::ids::InfoHash;
use num_bigint::BigUint;
use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};
use std::sync::LazyLock;

/// Bytes of a public key, and of the secret.
pub const KEY_LEN: usize = 96;
/// Bytes of a private key.
pub const PRIVATE_LEN: usize = 20;
/// The longest padding.
pub const PAD_MAX: usize = 512;
/// The verification constant: so many zeros.
pub const ZEROS_LEN: usize = 8;
/// Bytes of the key stream that are thrown away at first.
const DISCARDED: usize = 1024;

const PRIME: &[u8] = b"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563";

static MODULUS: LazyLock<BigUint> =
    LazyLock::new(|| BigUint::parse_bytes(PRIME, 16).expect("the prime is hexadecimal"));

/// What both ends know after their keys were exchanged.
#[derive(Debug)]
pub struct Secret([u8; KEY_LEN]);

/// The public key that goes with a private one, which is random.
pub fn public_key(private: &[u8; PRIVATE_LEN]) -> [u8; KEY_LEN] {
    power(&BigUint::from(2_u8), private)
}

fn power(base: &BigUint, exponent: &[u8; PRIVATE_LEN]) -> [u8; KEY_LEN] {
    let digits = base.modpow(&BigUint::from_bytes_be(exponent), &MODULUS).to_bytes_be();
    let mut key = [0; KEY_LEN];
    key[KEY_LEN - digits.len()..].copy_from_slice(&digits);
    key
}

impl Secret {
    /// From our private key and their public one.
    pub fn new(private: &[u8; PRIVATE_LEN], theirs: &[u8; KEY_LEN]) -> Self {
        Self(power(&BigUint::from_bytes_be(theirs), private))
    }

    /// Where the padding of whoever dialled ends.
    pub fn start(&self) -> [u8; 20] {
        hash(&[b"req1", &self.0])
    }

    /// How whoever dialled names the torrent.
    pub fn names(&self, torrent: InfoHash) -> [u8; 20] {
        let mut name = hash(&[b"req2", &torrent.0]);
        let mask = hash(&[b"req3", &self.0]);
        name.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        name
    }

    /// What whoever dialled (`A`) and whoever was dialled (`B`) encrypt with, in this order.
    pub fn ciphers(&self, torrent: InfoHash) -> (Cipher, Cipher) {
        let cipher = |label: &[u8]| Cipher::new(hash(&[label, &self.0, &torrent.0]));
        (cipher(b"keyA"), cipher(b"keyB"))
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 20] {
    let mut sha = Sha1::new();
    parts.iter().for_each(|part| sha.update(part));
    sha.finalize().into()
}

/// One direction's key stream.
pub struct Cipher(Rc4);

impl Cipher {
    fn new(key: [u8; 20]) -> Self {
        let mut rc4 = Rc4::new_from_slice(&key).expect("RC4 takes keys of up to 256 bytes");
        rc4.apply_keystream(&mut [0; DISCARDED]);
        Self(rc4)
    }

    /// Encrypts, or decrypts, what comes next in this direction.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_come_to_one_secret() {
        for (a, b) in [([1; 20], [2; 20]), ([0; 20], [255; 20]), ([7; 20], [7; 20])] {
            let (one, two) = (Secret::new(&a, &public_key(&b)), Secret::new(&b, &public_key(&a)));
            assert_eq!(one.0, two.0);
            let torrent = InfoHash([9; 20]);
            assert_eq!(one.names(torrent), two.names(torrent));
            assert_ne!(one.names(torrent), one.names(InfoHash([8; 20])));
            let (mut encrypts, _) = one.ciphers(torrent);
            let (mut decrypts, mut other) = two.ciphers(torrent);
            let mut bytes = *b"what is said";
            encrypts.apply(&mut bytes);
            assert_ne!(&bytes, b"what is said");
            decrypts.apply(&mut bytes);
            assert_eq!(&bytes, b"what is said");
            other.apply(&mut bytes);
            assert_ne!(&bytes, b"what is said");
        }
    }

    #[test]
    fn any_key_of_the_other_end_gives_a_secret() {
        for theirs in [[0; KEY_LEN], [255; KEY_LEN], [1; KEY_LEN]] {
            Secret::new(&[3; 20], &theirs).start();
        }
        // 2^1, in 96 bytes.
        let mut one = [0; PRIVATE_LEN];
        one[19] = 1;
        assert_eq!(public_key(&one)[KEY_LEN - 1], 2);
    }
}
