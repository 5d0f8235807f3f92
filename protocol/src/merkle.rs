//! The SHA-256 trees of BEP 52: leaves of 16 KiB, missing leaves all zero.
