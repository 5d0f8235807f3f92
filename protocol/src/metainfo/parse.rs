//! Placeholder.
/// Why a torrent was refused.
#[derive(Debug)]
pub struct MetainfoError;
