//! Names from strangers: what may become a path component, and nothing else.

use super::MetainfoError;
use crate::bencode::Value;

/// The most components of a path.
pub(crate) const PATH_COMPONENTS_MAX: usize = 96;

/// The longest component, in bytes. File systems stop at 255; loading is not writing.
pub(crate) const COMPONENT_BYTES_MAX: usize = 1024;

/// Checks one component of a path.
pub(crate) fn component(bytes: &[u8]) -> Result<String, MetainfoError> {
    let name = std::str::from_utf8(bytes).map_err(|_| refusal(bytes, "it is not UTF-8"))?;
    match problem(name) {
        Some(why) => Err(refusal(bytes, why)),
        None => Ok(name.to_owned()),
    }
}

fn refusal(name: &[u8], why: &'static str) -> MetainfoError {
    let shown = &name[..name.len().min(120)];
    MetainfoError::Name { name: shown.escape_ascii().to_string(), why }
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

/// Checks a path of our own.
pub(crate) fn check(path: &[String]) -> Result<(), MetainfoError> {
    depth(path.len())?;
    path.iter().try_for_each(|name| match problem(name) {
        Some(why) => Err(refusal(name.as_bytes(), why)),
        None => Ok(()),
    })
}

/// Refuses a path listed twice, or one behind a file. `sorted` are in the order of their components.
pub(crate) fn unique(sorted: &[&[String]]) -> Result<(), MetainfoError> {
    // A path's extensions follow it directly, so neighbours tell it all. A symlink counts as a file:
    // nothing may lie behind it.
    match sorted.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
        Some(pair) => Err(MetainfoError::Duplicate { path: pair[0].join("/") }),
        None => Ok(()),
    }
}

fn depth(components: usize) -> Result<(), MetainfoError> {
    match components {
        0 => Err(refusal(b"path", "a path is empty")),
        1..=PATH_COMPONENTS_MAX => Ok(()),
        _ => Err(refusal(b"path", "a path is too deep")),
    }
}

/// Checks a list of components.
pub(crate) fn path(value: &Value<'_>) -> Result<Vec<String>, MetainfoError> {
    let refuse = |why| refusal(b"path", why);
    let list = value.list().ok_or_else(|| refuse("a path is not a list"))?;
    depth(list.len())?;
    list.iter()
        .map(|item| component(item.bytes().ok_or_else(|| refuse("a component is not a string"))?))
        .collect()
}
