//! `keys`: who may sign.

use crate::home::Home;
use crate::keys::{self, Changed, NewKey};
use crate::output::Output;
use crate::passphrase::Passphrases;
use crate::{Error, key_file};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use updraft_manifests::keys::{PublicKey, Role, SecretKey};
use updraft_manifests::names::Name;

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
    /// Change how many keys of a role have to sign.
    Threshold(ThresholdArgs),
    /// Make a key on this machine, for a product that is published elsewhere.
    Generate(GenerateArgs),
    /// Seal keys with a passphrase, change it, or take it away.
    Passphrase(PassphraseArgs),
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The roles.
    #[arg(required = true)]
    roles: Vec<RoleName>,
    #[command(flatten)]
    root: RootKeys,
    #[command(flatten)]
    at_rest: AtRest,
}

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The role.
    role: RoleName,
    /// Where to put the key.
    #[arg(required_unless_present = "public")]
    file: Option<PathBuf>,
    /// The public half of a key that was made elsewhere, as `keys generate` tells it, instead.
    #[arg(long, value_name = "KEY", conflicts_with = "file", value_parser = parse_key)]
    public: Option<PublicKey>,
    #[command(flatten)]
    root: RootKeys,
    #[command(flatten)]
    at_rest: AtRest,
}

/// How new keys lie on the disk.
#[derive(Debug, Args)]
pub(super) struct AtRest {
    /// Leave the new keys as they are: whoever can read the files, or a backup of them, can sign.
    #[arg(long)]
    pub(super) no_passphrase: bool,
}

#[derive(Debug, Args)]
pub(super) struct PassphraseArgs {
    /// The roles whose configured keys are meant.
    #[arg(required_unless_present = "file")]
    roles: Vec<RoleName>,
    /// A key file; may be given again.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Holds the new passphrase in its first line; asked for if not given.
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Take the passphrase away: whoever can read the files, or a backup of them, can sign.
    #[arg(long, conflicts_with = "new_passphrase_file")]
    no_passphrase: bool,
}

#[derive(Debug, Args)]
pub(super) struct ThresholdArgs {
    /// The role.
    role: RoleName,
    /// How many keys have to sign.
    count: u32,
    /// Only for releases of this channel.
    #[arg(long)]
    channel: Option<Name>,
    #[command(flatten)]
    root: RootKeys,
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// The role.
    role: RoleName,
    /// Where to put the key.
    file: PathBuf,
    #[command(flatten)]
    at_rest: AtRest,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The key, as `keys list` shows it.
    #[arg(value_parser = parse_key)]
    key: PublicKey,
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
    fn read(&self, home: &Home) -> Result<Vec<SecretKey>, Error> {
        let read = |path: &PathBuf| key_file::read(Some(Role::Root), path, &home.passphrases);
        self.root_key.iter().map(read).collect()
    }
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|error| error.to_string())
}

pub(super) fn run(
    command: KeysCommand,
    home: impl Fn() -> Result<Home, Error>,
    passphrases: &Passphrases,
    out: Output,
) -> Result<(), Error> {
    match command {
        KeysCommand::Generate(args) => generate(&args, passphrases, out),
        KeysCommand::List => list(&home()?, out),
        KeysCommand::Passphrase(args) => change_passphrase(&home()?, &args, out),
        KeysCommand::Rotate(RotateArgs { roles, root, at_rest }) => {
            let home = &home()?;
            let roles: Vec<Role> = roles.into_iter().map(Role::from).collect();
            let seal = !at_rest.no_passphrase;
            tell(&keys::rotate(home, &roles, &root.read(home)?, seal)?, out);
            Ok(())
        }
        KeysCommand::New(NewArgs { role, file, public, root, at_rest }) => {
            let home = &home()?;
            let new = match (&file, public) {
                (_, Some(public)) => NewKey::Elsewhere(public),
                (Some(file), None) => NewKey::Made { file, seal: !at_rest.no_passphrase },
                (None, None) => return Err(Error::Usage("name a FILE, or --public".to_owned())),
            };
            tell(&keys::add(home, role.into(), new, &root.read(home)?)?, out);
            Ok(())
        }
        KeysCommand::Threshold(ThresholdArgs { role, count, channel, root }) => {
            let home = &home()?;
            let extra = root.read(home)?;
            let changed = keys::threshold(home, role.into(), count, channel.as_ref(), &extra)?;
            tell(&changed, out);
            Ok(())
        }
        KeysCommand::Revoke(RevokeArgs { key, root }) => {
            let home = &home()?;
            tell(&keys::revoke(home, &key, &root.read(home)?)?, out);
            Ok(())
        }
    }
}
fn generate(args: &GenerateArgs, passphrases: &Passphrases, out: Output) -> Result<(), Error> {
    let GenerateArgs { role, file, at_rest } = args;
    let role = Role::from(*role);
    let key = key_file::make(role, file, passphrases, !at_rest.no_passphrase)?.public();
    out.tell(
        "key-generated",
        format!(
            "the {role} key {key} is in {}: back it up\n\
             it counts when the publisher says: updraft-publisher keys new {role} --public {key}",
            file.display()
        ),
        json!({ "role": role.as_str(), "key": key.to_string(), "file": file }),
    );
    Ok(())
}

fn change_passphrase(home: &Home, args: &PassphraseArgs, out: Output) -> Result<(), Error> {
    let PassphraseArgs { roles, file, new_passphrase_file, no_passphrase } = args;
    let configured = roles.iter().map(|role| home.key_path((*role).into()));
    let paths: Vec<PathBuf> = configured.chain(file.iter().cloned()).collect();
    // The old ones first, so that a wrong one is told before a new one is thought up.
    for path in &paths {
        key_file::read(None, path, &home.passphrases)?;
    }
    let next = if *no_passphrase {
        None
    } else {
        Some(Passphrases::choose_next(new_passphrase_file.as_deref())?)
    };
    for path in &paths {
        let seen = key_file::change(path, &home.passphrases, next.as_ref())?;
        let how = if seen.sealed {
            "is sealed; copies and backups from before are as they were"
        } else {
            "has no passphrase any more: whoever can read the file can sign"
        };
        out.tell(
            "passphrase-changed",
            format!("the {} key {} {how}", seen.role, path.display()),
            json!({ "role": seen.role.as_str(), "file": path, "sealed": seen.sealed }),
        );
    }
    Ok(())
}

fn list(home: &Home, out: Output) -> Result<(), Error> {
    for key in keys::list(home)? {
        let role = key.role;
        let sealed = home.seen_key(role).is_some_and(|seen| seen.sealed);
        let hand = match (key.at_hand, sealed) {
            (true, true) => format!("{}, sealed", home.key_path(role).display()),
            (true, false) => format!("{}, no passphrase", home.key_path(role).display()),
            (false, _) => "-".to_owned(),
        };
        out.tell(
            "key",
            format!("{role:<8} {} ({} must sign) {hand}", key.public, key.threshold),
            json!({
                "role": role.as_str(),
                "key": key.public.to_string(),
                "threshold": key.threshold,
                "at_hand": key.at_hand,
                "sealed": key.at_hand && sealed,
            }),
        );
    }
    Ok(())
}

fn tell(changed: &Changed, out: Output) {
    let mut text = format!("root {} is written", changed.root);
    for (role, key, path) in &changed.new {
        text += &match path {
            Some(path) => format!("\nnew {role} key {key} in {}: back it up", path.display()),
            None => format!("\n{role} key {key} counts now"),
        };
    }
    for (role, key) in &changed.gone {
        text += &format!("\nthe {role} key {key} does not count any more");
    }
    for path in &changed.retired {
        text += &format!("\n{} is of no use to you any more", path.display());
    }
    text += if changed.new.iter().any(|(role, ..)| *role == Role::Head) {
        "\na `serve` on another machine needs its new head key, and every mirror the new files"
    } else {
        "\nevery mirror needs the new files"
    };
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
