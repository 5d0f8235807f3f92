//! `sign`: one more signature under a document, on any machine.

use crate::home::Home;
use crate::output::Output;
use crate::passphrase::Passphrases;
use crate::repository::Repository;
use crate::signers::Signers;
use crate::{Error, disk, key_file};
use clap::Args;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use updraft_manifests::document::{KeySet, Signed};
use updraft_manifests::head::Head;
use updraft_manifests::keys::{PublicKey, Role};
use updraft_manifests::launcher::LauncherManifest;
use updraft_manifests::manifest::Manifest;
use updraft_manifests::root::Root;

/// As many characters of the notes as are shown to who signs a document. All else is shown whole.
const NOTES_SHOWN_MAX: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The documents, as they wait in the publisher's folder `waiting`.
    #[arg(required = true)]
    documents: Vec<PathBuf>,
    /// A key to sign with; may be given again. Without one, and without --from, what is configured signs.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// A copy of the document that others have signed: their signatures are taken over; may be given again.
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
}

pub(super) fn run(
    args: &SignArgs,
    home: impl Fn() -> Result<Home, Error>,
    passphrases: &Passphrases,
    out: Output,
) -> Result<(), Error> {
    for path in &args.documents {
        let mut document = read(path)?;
        check(path, &document)?;
        show(path, &document, out);
        for copy in &args.from {
            if !document.merge(&read(copy)?) {
                let why = format!("is not a copy of {}: its content differs", path.display());
                return Err(Error::content(copy, why));
            }
        }
        for key in &args.key {
            document.sign(&key_file::read(Some(document.role()), key, passphrases)?);
        }
        if args.key.is_empty() && args.from.is_empty() {
            sign_as_configured(&home()?, &mut document)?;
        }
        disk::write_atomic(path, &document.to_bytes())?;
        tell_signers(path, &document, listed(&home, &document).as_ref(), out);
    }
    Ok(())
}

/// The keys of the document's role that a root lists: those of the newest root of the repository, and where the
/// document is a root itself, its own. `None` on a machine without the repository.
fn listed(
    home: &impl Fn() -> Result<Home, Error>,
    document: &Signed,
) -> Option<BTreeSet<PublicKey>> {
    let home = home().ok()?;
    let repository = Repository::open(&home.repository(), Some(&home.config.product)).ok()?;
    let role = document.role();
    let mut keys = repository.trust.root()?.roles.of(role)?.keys.clone();
    if role == Role::Root {
        keys.extend(document.unverified::<Root>().ok()?.roles.root.keys);
    }
    Some(keys)
}

fn tell_signers(path: &Path, document: &Signed, listed: Option<&BTreeSet<PublicKey>>, out: Output) {
    let role = document.role();
    let is_strange = |key: &&PublicKey| listed.is_some_and(|listed| !listed.contains(*key));
    let texts = |keys: Vec<&PublicKey>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (strange, good): (Vec<_>, Vec<_>) = document.signers().partition(is_strange);
    let (strange, good) = (texts(strange), texts(good));
    for key in &strange {
        out.warn(format!(
            "the signature of {key} does not count: the root lists no such {role} key; `keys list` shows \
             those that it lists"
        ));
    }
    let path_text = path.display();
    let text = match (good.as_slice(), listed) {
        ([], _) => format!("{path_text} has no signature that counts"),
        (_, Some(_)) => format!("{path_text} is signed by {}", good.join(", ")),
        (_, None) => format!(
            "{path_text} is signed by {}\nwhether that counts is seen where the repository is: no root is here",
            good.join(", ")
        ),
    };
    out.tell(
        "document-signed",
        text,
        json!({ "document": path, "role": role.as_str(), "signers": good, "not_counting": strange }),
    );
}

fn sign_as_configured(home: &Home, document: &mut Signed) -> Result<(), Error> {
    let role = document.role();
    let repository = Repository::open(&home.repository(), Some(&home.config.product))?;
    let roles = &repository.trust.root().expect("an open repository has a root").roles;
    let before = document.signers().count();
    if let Some(keys) = roles.of(role) {
        // Whoever can sign here shall, whether or not that many are needed.
        let all = KeySet { threshold: u32::try_from(keys.keys.len()).unwrap_or(1), ..keys.clone() };
        Signers::at_hand(home, role)?.sign(document, &[&all], &[])?;
    }
    if document.signers().count() == before {
        let text = format!("no {role} key is at hand that has not signed yet: name one with --key");
        return Err(Error::Usage(text));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Signed, Error> {
    let bytes = disk::read_capped(path, Role::Release.document_bytes_max())?;
    let role = Signed::role_of(&bytes)
        .ok_or_else(|| Error::content(path, "is no document that can be signed"))?;
    Signed::parse(role, &bytes).map_err(|error| Error::content(path, error))
}

/// Nobody signs what nobody could read.
fn check(path: &Path, document: &Signed) -> Result<(), Error> {
    let checked = match document.role() {
        Role::Root => document.unverified::<Root>().map(drop),
        Role::Release => document.unverified::<Manifest>().map(drop),
        Role::Launcher => document.unverified::<LauncherManifest>().map(drop),
        Role::Head => document.unverified::<Head>().map(drop),
    };
    checked.map_err(|error| Error::content(path, error))
}

/// Shows what is about to be signed.
fn show(path: &Path, document: &Signed, out: Output) {
    let text = shown(&String::from_utf8_lossy(document.payload()));
    let (role, hash) = (document.role(), document.hash());
    out.tell(
        "document",
        format!("{}: {role} document {hash}\n{}", path.display(), text.trim_end()),
        json!({ "document": path, "role": role.as_str(), "sha256": hash.to_string() }),
    );
}

/// A payload as its signer sees it: whole but for the end of long notes, and nothing in it that a terminal
/// would hide, move or take for a command.
fn shown(payload: &str) -> String {
    let mut table = payload.parse::<toml::Table>().unwrap_or_default();
    if let Some(toml::Value::String(notes)) = table.get_mut("notes")
        && let Some((end, _)) = notes.char_indices().nth(NOTES_SHOWN_MAX)
    {
        let more = notes[end..].chars().count();
        notes.truncate(end);
        notes.push_str(&format!(" … and {more} characters more"));
    }
    let text = toml::to_string_pretty(&table).unwrap_or_else(|_| payload.to_owned());
    let escape = |c: char| match c {
        '\n' => c.to_string(),
        _ if c.is_control() || is_invisible(c) => c.escape_unicode().to_string(),
        _ => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Marks that turn the direction of what follows, break lines or have no width.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::init;
    use updraft_manifests::keys::SecretKey;
    use updraft_manifests::names::Name;

    #[test]
    fn all_but_long_notes_is_shown_and_nothing_hides() {
        let notes = "n".repeat(NOTES_SHOWN_MAX + 7);
        let rules: Vec<_> = (0..2000).map(|number| format!("\"settings/{number}.ini\"")).collect();
        let payload = format!(
            "notes = \"{notes}\"\nmany = [{}]\n[launch]\nprogram = \"a\u{202e}b\u{9b}31m\u{2066}\"\n",
            rules.join(", ")
        );
        let text = shown(&payload);
        assert!(text.contains(" … and 7 characters more"), "{text}");
        assert!(text.contains("settings/1999.ini") && text.contains("program"), "{text}");
        assert!(text.contains(r"a\u{202e}b\u{9b}31m\u{2066}"), "{text}");
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || is_invisible(c))));
        assert!(shown("notes = \"one\\ntwo\"").contains("two"));
    }

    #[test]
    fn strangers_are_known_where_the_repository_is() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &Name::parse("game").unwrap(), &[], None).unwrap();
        let bytes = std::fs::read(dir.path().join("repository/root/1.toml")).unwrap();
        let document = Signed::parse(Role::Root, &bytes).unwrap();
        let keys = listed(&|| Home::open(dir.path()), &document).unwrap();
        assert_eq!(document.signers().collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
        let stranger = SecretKey::from_random(Role::Root, [7; 32]);
        assert!(!keys.contains(&stranger.public()));
        assert!(listed(&|| Home::open(&dir.path().join("no")), &document).is_none());
    }
}
