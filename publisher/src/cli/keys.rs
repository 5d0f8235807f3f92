//! `keys`: who may sign.

use crate::home::Home;
use crate::keys::{self, Changed};
use crate::output::Output;
use crate::{Error, keys::read_key};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use updraft_manifests::keys::{PublicKey, Role, SecretKey};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Show the keys that count, and which of them are at hand.
    List,
    /// Replace keys by new ones: the yearly routine, and the first thing to do when one is lost or stolen.
    Rotate(RotateArgs),
    /// Make one more key that counts beside the others, such as a spare one for the safe.
    New(NewArgs),
    /// Let a key not count any more.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The roles.
    #[arg(required = true)]
    roles: Vec<RoleName>,
    #[command(flatten)]
    root: RootKeys,
}

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The role.
    role: RoleName,
    /// Where to put the key.
    file: PathBuf,
    #[command(flatten)]
    root: RootKeys,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The key, as `keys list` shows it.
    key: String,
    #[command(flatten)]
    root: RootKeys,
}

/// Every change of keys is a new root, which the root keys sign.
#[derive(Debug, Args)]
struct RootKeys {
    /// A further root key, where more than one has to sign; may be given again.
    #[arg(long, value_name = "FILE")]
    root_key: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Root,
    Release,
    Launcher,
    Head,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Root => Self::Root,
            RoleName::Release => Self::Release,
            RoleName::Launcher => Self::Launcher,
            RoleName::Head => Self::Head,
        }
    }
}

impl RootKeys {
    fn read(&self) -> Result<Vec<SecretKey>, Error> {
        self.root_key.iter().map(|path| read_key(Role::Root, path)).collect()
    }
}

pub(super) fn run(command: KeysCommand, home: &Home, out: Output) -> Result<(), Error> {
    match command {
        KeysCommand::List => list(home, out),
        KeysCommand::Rotate(RotateArgs { roles, root }) => {
            let roles: Vec<Role> = roles.into_iter().map(Role::from).collect();
            tell(&keys::rotate(home, &roles, &root.read()?)?, out);
            Ok(())
        }
        KeysCommand::New(NewArgs { role, file, root }) => {
            tell(&keys::add(home, role.into(), &file, &root.read()?)?, out);
            Ok(())
        }
        KeysCommand::Revoke(RevokeArgs { key, root }) => {
            let key = PublicKey::parse(&key).map_err(|error| Error::Usage(error.to_string()))?;
            tell(&keys::revoke(home, &key, &root.read()?)?, out);
            Ok(())
        }
    }
}

fn list(home: &Home, out: Output) -> Result<(), Error> {
    for key in keys::list(home)? {
        let role = key.role;
        let hand = if key.at_hand { home.key_path(role).display().to_string() } else { "-".into() };
        out.tell(
            "key",
            format!("{role:<8} {} ({} must sign) {hand}", key.public, key.threshold),
            json!({
                "role": role.as_str(),
                "key": key.public.to_string(),
                "threshold": key.threshold,
                "at_hand": key.at_hand,
            }),
        );
    }
    Ok(())
}

fn tell(changed: &Changed, out: Output) {
    let mut text = format!("root {} is written", changed.root);
    for (role, key, path) in &changed.new {
        text += &format!("\nnew {role} key {key} in {}: back it up", path.display());
    }
    for (role, key) in &changed.gone {
        text += &format!("\nthe {role} key {key} does not count any more");
    }
    for path in &changed.retired {
        text += &format!("\n{} is of no use to you any more", path.display());
    }
    text += "\na `serve` on another machine needs its new head key, and every mirror the new files";
    out.tell(
        "keys-changed",
        text,
        json!({
            "root": changed.root,
            "new": changed.new.iter().map(|(role, key, path)| {
                json!({ "role": role.as_str(), "key": key.to_string(), "file": path })
            }).collect::<Vec<_>>(),
            "gone": changed.gone.iter().map(|(role, key)| {
                json!({ "role": role.as_str(), "key": key.to_string() })
            }).collect::<Vec<_>>(),
        }),
    );
}
