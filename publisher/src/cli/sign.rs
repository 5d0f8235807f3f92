//! `sign`: one more signature under a document, on any machine.

use crate::home::Home;
use crate::output::Output;
use crate::passphrase::Passphrases;
use crate::repository::Repository;
use crate::signers::Signers;
use crate::{Error, disk, key_file};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use updraft_manifests::document::{KeySet, Signed};
use updraft_manifests::head::Head;
use updraft_manifests::keys::Role;
use updraft_manifests::launcher::LauncherManifest;
use updraft_manifests::manifest::Manifest;
use updraft_manifests::root::Root;

/// As much of a document as is shown to who signs it, in bytes: all of it but long notes and lists.
const SHOWN_BYTES_MAX: usize = 4096;

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
        let signers: Vec<_> = document.signers().map(ToString::to_string).collect();
        out.tell(
            "document-signed",
            format!("{} is signed by {}", path.display(), signers.join(", ")),
            json!({ "document": path, "role": document.role().as_str(), "signers": signers }),
        );
    }
    Ok(())
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

/// What is about to be signed. It is TOML that was read, so no control characters are in it.
fn show(path: &Path, document: &Signed, out: Output) {
    let text = String::from_utf8_lossy(document.payload());
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX.min(text.len()));
    let rest = if end < text.len() { "\n…" } else { "" };
    let (role, hash) = (document.role(), document.hash());
    out.tell(
        "document",
        format!("{}: {role} document {hash}\n{}{rest}", path.display(), text[..end].trim_end()),
        json!({ "document": path, "role": role.as_str(), "sha256": hash.to_string() }),
    );
}
