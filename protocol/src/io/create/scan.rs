//! A file or a folder to a [`Source`]. Reads names and sizes, no content.

use crate::metainfo::create::{CreateError, Source, SourceFile};
use crate::metainfo::name;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};

/// Lists `path`: itself if it is a file, all below it if it is a folder.
///
/// Symlinks below the folder are kept as symlinks and must point into it; `path` itself is followed.
/// Empty folders are left out: torrents know none. Sockets, devices and names that are not portable
/// text are errors.
pub fn scan(path: &Path) -> Result<Source, CreateError> {
    let root = path.canonicalize().map_err(|error| io("find", path, error))?;
    let meta = std::fs::metadata(&root).map_err(|error| io("read", &root, error))?;
    let name = match root.file_name() {
        Some(name) => component(&root, name)?,
        None => {
            let why = "it has no name of its own; give a folder below it".to_owned();
            return Err(CreateError::Unsupported { path: root, why });
        }
    };
    let single_file = !meta.is_dir();
    let mut files = Vec::new();
    if single_file {
        files.push(file(vec![name.clone()], root, &meta)?);
    } else {
        folder(&root, &root, &mut Vec::new(), &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(Source { name, single_file, files })
}

fn io(action: &'static str, path: &Path, error: std::io::Error) -> CreateError {
    CreateError::Io { action, path: path.to_owned(), error }
}

fn unsupported(path: &Path, why: impl Into<String>) -> CreateError {
    CreateError::Unsupported { path: path.to_owned(), why: why.into() }
}

fn component(path: &Path, name: &OsStr) -> Result<String, CreateError> {
    let text =
        name.to_str().ok_or_else(|| unsupported(path, "its name is not UTF-8; rename it"))?;
    match name::problem(text) {
        Some(why) => Err(unsupported(path, format!("{why}; rename it"))),
        None => Ok(text.to_owned()),
    }
}

fn folder(
    root: &Path,
    folder_path: &Path,
    components: &mut Vec<String>,
    files: &mut Vec<SourceFile>,
) -> Result<(), CreateError> {
    if components.len() >= name::PATH_COMPONENTS_MAX {
        return Err(unsupported(folder_path, "it is nested too deep"));
    }
    let entries = std::fs::read_dir(folder_path).map_err(|error| io("list", folder_path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| io("list", folder_path, error))?;
        let path = entry.path();
        components.push(component(&path, &entry.file_name())?);
        let kind = entry.file_type().map_err(|error| io("read", &path, error))?;
        if kind.is_dir() {
            folder(root, &path, components, files)?;
        } else if kind.is_symlink() {
            let target = target(root, &path, &components[..components.len() - 1])?;
            files.push(SourceFile {
                path: components.clone(),
                source: path,
                length: 0,
                executable: false,
                symlink: Some(target),
            });
        } else {
            let meta = entry.metadata().map_err(|error| io("read", &path, error))?;
            files.push(file(components.clone(), path, &meta)?);
        }
        components.pop();
    }
    Ok(())
}

fn file(path: Vec<String>, source: PathBuf, meta: &Metadata) -> Result<SourceFile, CreateError> {
    if !meta.is_file() {
        return Err(unsupported(
            &source,
            "it is neither a file nor a folder (a socket, pipe or device)",
        ));
    }
    Ok(SourceFile { path, source, length: meta.len(), executable: executable(meta), symlink: None })
}

#[cfg(unix)]
fn executable(meta: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    // The owner's bit, as libtorrent has it.
    meta.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn executable(_: &Metadata) -> bool {
    false
}

/// Where the symlink at `path` leads, from the torrent's folder.
fn target(root: &Path, path: &Path, folder: &[String]) -> Result<Vec<String>, CreateError> {
    let target = std::fs::read_link(path).map_err(|error| io("read the symlink", path, error))?;
    let outside = || {
        let why = format!(
            "it is a symlink to `{}`, outside the folder; replace it by the file or remove it",
            target.display()
        );
        unsupported(path, why)
    };
    let mut components = folder.to_vec();
    let relative = match target.strip_prefix(root) {
        Ok(inside) => {
            components.clear();
            inside
        }
        Err(_) => target.as_path(),
    };
    for step in relative.components() {
        match step {
            Component::CurDir => {}
            Component::ParentDir => {
                components.pop().ok_or_else(outside)?;
            }
            Component::Normal(name) => components.push(component(path, name)?),
            Component::RootDir | Component::Prefix(_) => return Err(outside()),
        }
    }
    if components.is_empty() {
        return Err(unsupported(path, "it is a symlink to the torrent's own folder; remove it"));
    }
    Ok(components)
}
