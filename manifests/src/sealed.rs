//! Text with a BLAKE3 checksum as its last line, so that a torn or zeroed state file is noticed.
//!
//! A checksum, not a signature: it guards against disks and power cuts, not against people.

/// Why a sealed text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Cut off, zeroed or changed.
    #[error("the file is damaged: its checksum does not fit")]
    Damaged,
    /// The checksum fits, the content does not.
    #[error("the file cannot be read: {0}")]
    Content(String),
    /// Written by a newer program.
    #[error("the file was written by a newer version of this program")]
    Newer,
}

const MARK: &str = "blake3 ";
/// `blake3 `, 64 digits, a newline.
const LINE_LEN: usize = MARK.len() + 64 + 1;

/// `text` and its checksum line. A missing last newline is added.
pub fn seal(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let digest = blake3::hash(text.as_bytes()).to_hex();
    text.push_str(MARK);
    text.push_str(&digest);
    text.push('\n');
    text
}

/// The text of a sealed file.
///
/// # Errors
/// [`SealError::Damaged`].
pub fn open(bytes: &[u8]) -> Result<&str, SealError> {
    let body_len = bytes.len().checked_sub(LINE_LEN).ok_or(SealError::Damaged)?;
    let (body, line) = bytes.split_at(body_len);
    let expected = format!("{MARK}{}\n", blake3::hash(body).to_hex());
    if line != expected.as_bytes() {
        return Err(SealError::Damaged);
    }
    std::str::from_utf8(body).map_err(|_| SealError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn damage_is_noticed(text in ".{0,100}", at: prop::sample::Index, bit in 0u8..8) {
            let sealed = seal(text.clone());
            prop_assert_eq!(open(sealed.as_bytes()).unwrap().trim_end_matches('\n'), text.trim_end_matches('\n'));
            let mut bytes = sealed.into_bytes();
            let at = at.index(bytes.len());
            prop_assert_eq!(open(&bytes[..at]), Err(SealError::Damaged));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(open(&bytes), Err(SealError::Damaged));
            bytes.fill(0);
            prop_assert_eq!(open(&bytes), Err(SealError::Damaged));
        }
    }
}
