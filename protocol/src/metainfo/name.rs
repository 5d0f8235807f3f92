//! Names from strangers: what may become a path component, and nothing else.

use super::MetainfoError;
use crate::bencode::Value;

/// The most components of a path.
pub(crate) const PATH_COMPONENTS_MAX: usize = 96;

/// The longest component, in bytes. File systems stop at 255; loading is not writing.
pub(crate) const COMPONENT_BYTES_MAX: usize = 1024;

/// Checks one component of a path.
pub(crate) fn component(bytes: &[u8]) -> Result<String, MetainfoError> {
    let refuse = |why| {
        let shown = &bytes[..bytes.len().min(120)];
        MetainfoError::Name { name: shown.escape_ascii().to_string(), why }
    };
    let name = std::str::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8"))?;
    match problem(name) {
        Some(why) => Err(refuse(why)),
        None => Ok(name.to_owned()),
    }
}

/// What keeps `name` from being a component of a path on some system we run on.
pub(crate) fn problem(name: &str) -> Option<&'static str> {
    let bytes = name.as_bytes();
    match bytes {
        [] => Some("a path component is empty"),
        b"." | b".." => Some("it leads to another folder"),
        _ if bytes.len() > COMPONENT_BYTES_MAX => Some("it is too long"),
        _ if bytes.contains(&0) => Some("it contains a NUL byte"),
        _ if bytes.iter().any(|byte| matches!(byte, b'/' | b'\\')) => {
            Some("it contains a path separator")
        }
        [drive, b':', ..] if drive.is_ascii_alphabetic() => Some("it starts like a drive letter"),
        _ => None,
    }
}

/// Checks a list of components.
pub(crate) fn path(value: &Value<'_>) -> Result<Vec<String>, MetainfoError> {
    let refuse = |why| MetainfoError::Name { name: "path".into(), why };
    let list = value.list().ok_or_else(|| refuse("a path is not a list"))?;
    if list.is_empty() {
        return Err(refuse("a path is empty"));
    }
    if list.len() > PATH_COMPONENTS_MAX {
        return Err(refuse("a path is too deep"));
    }
    list.iter()
        .map(|item| component(item.bytes().ok_or_else(|| refuse("a component is not a string"))?))
        .collect()
}
