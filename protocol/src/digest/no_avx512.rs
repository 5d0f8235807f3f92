//! For other processors: there is no AVX-512.

use super::lanes::States;
use super::{Block, LANES};

#[derive(Clone, Copy, Debug)]
pub(super) enum Avx512 {}

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn sha1(self, _: &mut States<5>, _: &[&[Block]; LANES], _: usize) {
        match self {}
    }

    pub(super) fn sha256(self, _: &mut States<8>, _: &[&[Block]; LANES], _: usize) {
        match self {}
    }
}
