//! What a reader of the torrent would refuse, found out before anything is hashed.

use super::{Source, SourceFile};
use crate::metainfo::{MetainfoError, name};

/// Checks names, paths and links. `files` are those of `source` in the order of their paths.
pub(super) fn check(source: &Source, files: &[&SourceFile]) -> Result<(), MetainfoError> {
    let refuse = |name: String, why| Err(MetainfoError::Name { name, why });
    name::check(std::slice::from_ref(&source.name))?;
    for file in files {
        name::check(&file.path)?;
        if let Some(target) = &file.symlink {
            name::check(target)?;
            if file.length > 0 {
                return refuse(file.path.join("/"), "a symlink has no content");
            }
        }
    }
    let paths: Vec<_> = files.iter().map(|file| file.path.as_slice()).collect();
    name::unique(&paths)?;
    if source.single_file && !is_file_alone(source) {
        return refuse(source.name.clone(), "a torrent of one file is named as that file is");
    }
    Ok(())
}

/// True if there is nothing but one file of the torrent's name. In a v2 torrent that is what makes it
/// one of a single file.
pub(super) fn is_file_alone(source: &Source) -> bool {
    matches!(source.files.as_slice(), [file] if file.path == [source.name.as_str()])
}
