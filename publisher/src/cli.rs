//! The command line.

mod channels;
mod keys;
mod sign;
mod status;

use crate::home::Home;
use crate::launcher::{PublishLauncher, publish_launcher};
use crate::output::{Output, bytes};
use crate::passphrase::Passphrases;
use crate::patches::Made;
use crate::publish::{Publish, Published, Step, publish};
use crate::repository::Repository;
use crate::seed::Seed;
use crate::serve::{Serve, sign_head};
use crate::torrent::create::parse_bytes;
use crate::{Error, base, disk, init, patch, patches, seed, serve, torrent, verify};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use updraft_manifests::feed::Feed;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::keys::Role;
use updraft_manifests::manifest::{Launch, NOTES_LEN_MAX};
use updraft_manifests::names::{Name, Version};
use updraft_manifests::path::RelPath;
use updraft_manifests::time::Time;
use updraft_protocol::io::{Encryption, Preference};
use updraft_protocol::metainfo::create::Format;
use url::Url;

/// Publishes builds: signs them, serves them, introduces players to each other.
///
/// Exit codes: 0 done, 2 wrong arguments or configuration, 3 build refused, 4 damaged content, 5 key
/// trouble, 6 disk trouble, 7 network trouble, 8 repository busy, 9 waits for signatures, 130 stopped.
#[derive(Debug, Parser)]
#[command(name = "updraft-publisher", version, max_term_width = 100)]
pub struct Cli {
    /// The publisher's folder, or the updraft.toml in it.
    #[arg(long, short, global = true, env = "UPDRAFT_CONFIG", default_value = ".")]
    config: PathBuf,
    /// One JSON object per line on stdout, each with an `event`.
    #[arg(long, global = true)]
    json: bool,
    /// Holds the passphrase of sealed keys, or for new ones, in its first line. Without it: the variable
    /// UPDRAFT_PASSPHRASE, else it is asked for when a key is needed.
    #[arg(long, global = true, env = "UPDRAFT_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make keys, configuration and the first root of a product.
    Init(InitArgs),
    /// Publish a build folder as a release.
    Publish(PublishArgs),
    /// Publish the launcher's own programs: launchers update themselves to them.
    PublishLauncher(PublishLauncherArgs),
    /// Serve the repository: HTTP, tracker and seed in one process.
    Serve(ServeArgs),
    /// Sign the head anew, so that it stays news.
    Head(HeadArgs),
    /// Let a channel offer what `publish --preload` has announced: launchers that have fetched it switch at once.
    Release(channels::ReleaseArgs),
    /// Offer on one channel what another offers already.
    Promote(channels::PromoteArgs),
    /// Say how many players get a release when.
    Rollout(channels::RolloutArgs),
    /// Show what is live: versions, rollouts, announcements, launchers, and how old the head is.
    Status,
    /// Stop a release: nobody installs it until `rollout --resume`.
    Halt(channels::HaltArgs),
    /// Take a version back for good.
    Revoke(channels::RevokeArgs),
    /// Who may sign: show, replace, add and revoke keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Add a signature to a document that waits for it, on this machine or on one without a network.
    Sign(sign::SignArgs),
    /// Check everything that a repository offers, down to the last byte.
    Verify(VerifyArgs),
    /// Share the content of any torrent.
    Seed(SeedArgs),
    /// Make, show, verify and link single torrents.
    #[command(subcommand)]
    Torrent(torrent::TorrentCommand),
    /// Make, show and apply single patches.
    #[command(subcommand)]
    Patch(patch::PatchCommand),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The folder to make.
    dir: PathBuf,
    /// The product: a-z, 0-9, `.`, `_`, `-`.
    #[arg(long)]
    product: Name,
    /// Where players will reach the repository; may be given again for mirrors.
    #[arg(long)]
    url: Vec<Url>,
    #[command(flatten)]
    at_rest: keys::AtRest,
}

#[derive(Debug, Args)]
struct PublishArgs {
    /// The build folder, as players shall have it.
    build: PathBuf,
    /// The version, for people.
    #[arg(long = "version", id = "release-version", value_name = "VERSION")]
    version: Version,
    /// The channel.
    #[arg(long)]
    channel: Name,
    /// The platform, or `any`.
    #[arg(long, default_value = "any")]
    platform: Name,
    /// A text file that says what is new.
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// The program to start, as a path in the build.
    #[arg(long, value_name = "PATH")]
    launch: Option<String>,
    /// The oldest launcher that can install it.
    #[arg(long, value_name = "VERSION")]
    minimum_launcher: Option<Version>,
    /// At first, only to so many percent of those who have an older release: see `rollout`.
    #[arg(long, value_name = "PERCENT", value_parser = channels::parse_share)]
    first: Option<u16>,
    /// Only announce it: launchers fetch it ahead, and install it when `release` says so.
    #[arg(long)]
    preload: bool,
    /// Bring back a version that was revoked, as a release of its own.
    #[arg(long)]
    unrevoke: bool,
    /// A path in the build that only looks like a secret; may be given again.
    #[arg(long, value_name = "PATH")]
    allow: Vec<String>,
    /// The kind of torrent; hybrid, or v2-only when padding would be too much.
    #[arg(long)]
    format: Option<TorrentFormat>,
    /// Bytes per piece; chosen by the sizes if not given.
    #[arg(long, value_name = "BYTES")]
    piece_length: Option<u32>,
    /// Memory for making patches, such as 500MiB; half of the machine's if not given.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
}

#[derive(Debug, Args)]
struct PublishLauncherArgs {
    /// The folder with `updraft-launcher`, all that it needs, and `updraft-stub`.
    dir: PathBuf,
    /// The version: major.minor.patch, higher than the one before.
    #[arg(long = "version", id = "launcher-version", value_name = "VERSION")]
    version: Version,
    /// The platform it runs on, such as linux-x86_64 or windows-x86_64.
    #[arg(long)]
    platform: Name,
    /// The program that the stub starts, as a path in the folder.
    #[arg(long, value_name = "PATH")]
    program: Option<String>,
    /// Also write the folder that players get first: the stub, and this version beside it.
    #[arg(long, value_name = "FOLDER")]
    ship: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TorrentFormat {
    Hybrid,
    V2,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// A bundle that `updraft-launcher export` made, to be served to a room instead of the configured repository:
    /// launchers on the network find it, and /room shows in a browser who has how much.
    bundle: Option<PathBuf>,
    /// HTTP and tracker; port 0 takes a free one.
    #[arg(long, env = "UPDRAFT_LISTEN", value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// BitTorrent; port 0 takes a free one.
    #[arg(long, env = "UPDRAFT_LISTEN_BITTORRENT", value_name = "IP:PORT")]
    listen_bittorrent: Option<SocketAddr>,
    /// Where players reach it, for the feed; may be given again.
    #[arg(long)]
    url: Vec<Url>,
    /// Upload at most so many bytes per second to the internet, such as 500KiB or 2MiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    up_limit: Option<u64>,
    /// What connections run over: `now` is TCP; `background` is QUIC with everybody on the internet who
    /// has it, and makes way for whatever else uses the line; `utp` and `quic` are always that, where the
    /// other end has it; `tcp` opens no UDP port. Who is not reached by TCP is tried by uTP, but with `tcp`.
    #[arg(long, value_name = "now|background|tcp|utp|quic", default_value = "now")]
    transport: Preference,
    /// Message stream encryption of TCP and uTP connections: `allow` answers it and asks for it where a peer
    /// hangs up without it, `prefer` asks for it first, `require` speaks with nobody otherwise, `off` never
    /// speaks it.
    #[arg(long, value_name = "off|allow|prefer|require", default_value = "allow")]
    encryption: Encryption,
    /// HTTP and tracker only.
    #[arg(long)]
    no_seed: bool,
}

#[derive(Debug, Args)]
struct HeadArgs {
    /// Days until it expires; as configured if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=366))]
    days: Option<u16>,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The repository; the configured one if not given.
    repository: Option<PathBuf>,
    /// The feed (link or file) that its first root must fit.
    #[arg(long)]
    feed: Option<String>,
}

#[derive(Debug, Args)]
struct SeedArgs {
    /// The .torrent files.
    #[arg(required = true)]
    torrents: Vec<PathBuf>,
    /// The folder that holds the content of all of them.
    #[arg(long)]
    dir: PathBuf,
    /// Where to listen; any free port if not given.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Upload at most so many bytes per second to the internet, such as 500KiB or 2MiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    up_limit: Option<u64>,
    /// What connections run over; see `serve`.
    #[arg(long, value_name = "now|background|tcp|utp|quic", default_value = "now")]
    transport: Preference,
    /// Message stream encryption; see `serve`.
    #[arg(long, value_name = "off|allow|prefer|require", default_value = "allow")]
    encryption: Encryption,
    /// Do not be found in the distributed hash table (DHT). Private torrents never are.
    #[arg(long, conflicts_with = "dht_bootstrap")]
    no_dht: bool,
    /// Enter the DHT by this node instead of the well-known ones; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    dht_bootstrap: Vec<String>,
    /// Seed what is there, even if it is not all.
    #[arg(long)]
    partial: bool,
}

impl Cli {
    /// Where results go.
    pub fn output(&self) -> Output {
        Output::new(self.json)
    }

    /// Does what was asked.
    ///
    /// # Errors
    /// What to tell the user, with the exit code.
    pub fn run(self) -> Result<(), Error> {
        let out = self.output();
        let config = self.config;
        let passphrases = Arc::new(Passphrases::new(self.passphrase_file));
        let home =
            || Ok::<_, Error>(Home { passphrases: passphrases.clone(), ..Home::open(&config)? });
        match self.command {
            Command::Init(args) => run_init(&args, &passphrases, out),
            Command::Publish(args) => run_publish(&home()?, args, out),
            Command::PublishLauncher(args) => run_launcher(&home()?, args, out),
            Command::Serve(args) => match &args.bundle {
                Some(bundle) => run_serve(&Home::of_bundle(bundle)?, args, out),
                None => run_serve(&home()?, args, out),
            },
            Command::Head(args) => run_head(&home()?, &args, out),
            Command::Release(args) => channels::release(&home()?, &args, out),
            Command::Promote(args) => channels::promote(&home()?, &args, out),
            Command::Rollout(args) => channels::rollout(&home()?, args, out),
            Command::Status => status::run(&home()?, out),
            Command::Halt(args) => channels::halt(&home()?, &args, out),
            Command::Revoke(args) => channels::revoke(&home()?, &args, out),
            Command::Keys(command) => keys::run(command, home, &passphrases, out),
            Command::Sign(args) => sign::run(&args, home, &passphrases, out),
            Command::Verify(args) => run_verify(&config, &args, out),
            Command::Seed(args) => run_seed(args, out),
            Command::Torrent(command) => torrent::run(&command, out),
            Command::Patch(command) => patch::run(&command, out),
        }
    }
}

fn run_init(args: &InitArgs, passphrases: &Passphrases, out: Output) -> Result<(), Error> {
    let passphrases = Some(passphrases).filter(|_| !args.at_rest.no_passphrase);
    let home = init::init(&args.dir, &args.product, &args.url, passphrases)?;
    let sealed = if passphrases.is_some() {
        "sealed with your passphrase, but for the head key, with which `serve` signs when nobody is there"
    } else {
        "not sealed: whoever can read the files can sign (`keys passphrase root release launcher`)"
    };
    let feed =
        std::fs::read_to_string(home.feed_path()).ok().and_then(|text| Feed::parse(&text).ok());
    let link = feed.as_ref().map(Feed::to_link);
    out.tell(
        "initialised",
        format!(
            "made {} for `{}`\nkeys are in {}: back them up; nobody can make them again\n\
             they are {sealed}\n{}",
            home.dir.display(),
            args.product,
            home.dir.join("keys").display(),
            link.as_ref().map_or_else(
                || "the feed is told by `serve`, or by init with --url".to_owned(),
                |link| format!("feed: {link}")
            )
        ),
        json!({
            "dir": home.dir,
            "product": args.product,
            "feed": link,
            "sealed": passphrases.is_some(),
        }),
    );
    Ok(())
}

fn run_publish(home: &Home, args: PublishArgs, out: Output) -> Result<(), Error> {
    let path = |option: &str, text: &String| {
        RelPath::parse(text).map_err(|error| Error::Usage(format!("--{option}: {error}")))
    };
    let launch = args.launch.as_ref().map(|text| path("launch", text)).transpose()?;
    let allow: Result<Vec<_>, _> = args.allow.iter().map(|text| path("allow", text)).collect();
    let what = Publish {
        build: args.build,
        version: args.version,
        channel: args.channel,
        platform: args.platform,
        notes: args.notes.as_deref().map(read_notes).transpose()?,
        launch: launch.map(|program| Launch { program, arguments: vec![] }),
        minimum_launcher: args.minimum_launcher,
        first: args.first,
        preload: args.preload,
        unrevoke: args.unrevoke,
        allow: allow?,
        format: args.format.map(|format| match format {
            TorrentFormat::Hybrid => Format::Hybrid,
            TorrentFormat::V2 => Format::V2,
        }),
        piece_length: args.piece_length,
        created: source_date()?,
    };
    let started = std::time::Instant::now();
    let mut step = |step| {
        if let Step::Hash { files, bytes: size } = step {
            let text = format!("hashing {files} files, {}", bytes(size));
            out.tell("hashing", text, json!({ "files": files, "bytes": size }));
        }
        Ok(())
    };
    // One line for each tenth is enough on a terminal and not too much in a log.
    let told = AtomicU64::new(0);
    let hashed = |done: u64, total: u64| {
        let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(10);
        if tenth > told.fetch_max(tenth, Ordering::Relaxed) && total > (1 << 30) {
            out.tell(
                "hashed",
                format!("hashed {}0 %", tenth),
                json!({ "done": done, "total": total }),
            );
        }
    };
    let published = publish(home, &what, &mut step, &hashed)?;
    tell_published(&what, &published, started.elapsed().as_secs_f64(), out);
    offer_patches(home, &published.manifest, args.memory, out)
}

fn run_launcher(home: &Home, args: PublishLauncherArgs, out: Output) -> Result<(), Error> {
    let program = args.program.as_deref().map(RelPath::parse).transpose();
    let what = PublishLauncher {
        dir: args.dir,
        version: args.version,
        platform: args.platform,
        program: program.map_err(|error| Error::Usage(format!("--program: {error}")))?,
        created: source_date()?,
        ship: args.ship,
    };
    let published = publish_launcher(home, &what)?;
    let name = format!("launcher {} for {}", what.version, what.platform);
    let text = if published.already {
        format!("{name} is published already, as number {}", published.sequence)
    } else {
        format!(
            "published {name} as number {}: {} files, {} to fetch",
            published.sequence,
            published.files,
            bytes(published.archive.length)
        )
    };
    out.tell(
        "launcher-published",
        text,
        json!({
            "already": published.already,
            "version": what.version,
            "platform": what.platform,
            "sequence": published.sequence,
            "files": published.files,
            "archive": published.archive.sha256.to_string(),
            "bytes": published.archive.length,
            "ship": what.ship,
        }),
    );
    Ok(())
}

fn offer_patches(
    home: &Home,
    manifest: &ContentHash,
    memory: Option<u64>,
    out: Output,
) -> Result<(), Error> {
    let mut started = std::time::Instant::now();
    let mut told = |made: &Made| {
        let Made { from, to, size, makes, v2 } = made;
        let seconds = started.elapsed().as_secs_f64();
        started = std::time::Instant::now();
        let (small, large) = (bytes(*size), bytes(*makes));
        let text = match v2 {
            Some(_) => format!("patch from {from} to {to}: {small} for {large}, in {seconds:.1} s"),
            None => format!(
                "no patch from {from} to {to}: with {small} for {large} it would save next to nothing"
            ),
        };
        out.tell(
            "patch",
            text,
            json!({
                "from": from,
                "to": to,
                "size": size,
                "makes": makes,
                "v2": v2.map(|v2| v2.to_string()),
                "seconds": seconds,
            }),
        );
    };
    patches::offer(home, manifest, memory, &mut |_| Ok(()), &mut told)
}

fn tell_published(what: &Publish, published: &Published, seconds: f64, out: Output) {
    for warning in &published.warnings {
        out.warn(warning);
    }
    let Published { version, sequence, files, bytes: size, added_bytes, .. } = published;
    let name = format!("{version} on `{}` ({})", what.channel, what.platform);
    let text = if published.already {
        let parts = published.repaired.join(", ");
        let how = if parts.is_empty() {
            "nothing was changed"
        } else {
            "lost or damaged files were written again: "
        };
        format!("{name} is published already, as release {sequence}: {how}{parts}")
    } else if what.preload {
        format!(
            "announced {name} as release {sequence}: {files} files, {}, {} of it new, in {seconds:.1} s\n\
             info-hash {}\nlaunchers fetch it from now on and install it after `updraft-publisher release \
             {version} --channel {}`",
            bytes(*size),
            bytes(*added_bytes),
            published.v2,
            what.channel
        )
    } else {
        format!(
            "published {name} as release {sequence}: {files} files, {}, {} of it new, in {seconds:.1} s\n\
             info-hash {}\nhead {}, valid until {}",
            bytes(*size),
            bytes(*added_bytes),
            published.v2,
            published.head_sequence,
            published.head_expires
        )
    };
    let text = match published.new_place.as_ref().filter(|_| !published.already) {
        Some(new) => format!("{text}\n{new}"),
        None => text,
    };
    out.tell(
        "published",
        text,
        json!({
            "already": published.already,
            "repaired": published.repaired,
            "new_place": published.new_place,
            "preload": what.preload,
            "version": version,
            "channel": what.channel,
            "platform": what.platform,
            "sequence": sequence,
            "manifest": published.manifest.to_string(),
            "v2": published.v2.to_string(),
            "v1": published.v1.map(|hash| hash.to_string()),
            "files": files,
            "bytes": size,
            "added_bytes": added_bytes,
            "head": published.head_sequence,
            "head_expires": published.head_expires.to_string(),
            "seconds": seconds,
        }),
    );
}

fn read_notes(path: &Path) -> Result<String, Error> {
    let bytes = disk::read_capped(path, NOTES_LEN_MAX)?;
    String::from_utf8(bytes).map_err(|_| Error::content(path, "is not UTF-8 text"))
}

/// The time that reproducible builds set: same input, same bytes.
fn source_date() -> Result<Option<Time>, Error> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let refused = || Error::Usage("SOURCE_DATE_EPOCH is not a number of seconds".to_owned());
    seconds.map(|seconds| Some(Time::from_unix(seconds))).ok_or_else(refused)
}

fn run_serve(home: &Home, args: ServeArgs, out: Output) -> Result<(), Error> {
    warn_of_open_keys(home, out);
    if home.seen_key(Role::Head).is_some_and(|seen| seen.sealed) {
        // Asked for now, while somebody is there: the next head is due in days.
        home.key(Role::Head)?;
    }
    let configured = &home.config.serve;
    let options = Serve {
        listen: args.listen.unwrap_or(configured.listen),
        listen_bittorrent: args.listen_bittorrent.unwrap_or(configured.listen_bittorrent),
        urls: args.url,
        up_limit: args.up_limit.or(configured.up_limit),
        transport: args.transport,
        encryption: args.encryption,
        no_seed: args.no_seed,
        room: args.bundle.is_some(),
    };
    block_on(async { serve::serve(home, &options, out, interrupted()).await })
}

/// Only the head key should be usable where the world comes in.
fn warn_of_open_keys(home: &Home, out: Output) {
    for role in [Role::Root, Role::Release, Role::Launcher] {
        if home.seen_key(role).is_some_and(|seen| !seen.sealed) {
            out.warn(format!(
                "the {role} key lies here without a passphrase ({}): whoever breaks into this host can sign \
                 with it. Move it to another machine, or run `updraft-publisher keys passphrase {role}`",
                home.key_path(role).display()
            ));
        }
    }
}

fn run_head(home: &Home, args: &HeadArgs, out: Output) -> Result<(), Error> {
    let (head, was_expired) = sign_head(home, args.days)?;
    if was_expired {
        out.warn("the head before had expired: players could not update until now");
    }
    out.tell(
        "signed",
        format!("signed head {}, valid until {}", head.sequence, head.expires),
        json!({ "head": head.sequence, "expires": head.expires.to_string() }),
    );
    Ok(())
}

fn run_verify(config: &Path, args: &VerifyArgs, out: Output) -> Result<(), Error> {
    let (dir, home) = match &args.repository {
        Some(dir) => (dir.clone(), None),
        None => {
            let home = Home::open(config)?;
            (home.repository(), Some(home))
        }
    };
    let fingerprint = args.feed.as_deref().map(read_feed).transpose()?;
    let tell = |fault: String| {
        out.tell("fault", format!("fault: {fault}"), json!({ "message": fault }));
    };
    let verified = verify::verify(&dir, fingerprint, &mut |fault| tell(fault))?;
    if let Some(home) = &home
        && let Some(why) = base::behind(home, &Repository::open(&dir, None)?)?
    {
        tell(why);
        return Err(Error::Faults { path: dir, count: 1 });
    }
    if let Some(since) = verified.expired {
        out.warn(format!(
            "the head expired at {since}: players get no updates; run `updraft-publisher head`"
        ));
    }
    out.tell(
        "verified",
        format!(
            "{} releases, {} launchers, {} objects, {}: all as signed (root {})",
            verified.releases,
            verified.launchers,
            verified.objects,
            bytes(verified.bytes),
            verified.fingerprint
        ),
        json!({
            "releases": verified.releases,
            "launchers": verified.launchers,
            "objects": verified.objects,
            "bytes": verified.bytes,
            "root": verified.fingerprint.to_string(),
            "head": verified.head,
            "expired": verified.expired.map(|since| since.to_string()),
        }),
    );
    Ok(())
}

fn read_feed(text: &str) -> Result<ContentHash, Error> {
    let text = if text.starts_with("updraft:") {
        text.to_owned()
    } else {
        let path = Path::new(text);
        let bytes = disk::read_capped(path, updraft_manifests::feed::FEED_BYTES_MAX)?;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Feed::parse(&text).map(|feed| feed.root).map_err(|error| Error::Usage(error.to_string()))
}

fn run_seed(args: SeedArgs, out: Output) -> Result<(), Error> {
    let options = Seed {
        torrents: args.torrents,
        dir: args.dir,
        listen: args.listen,
        up_limit: args.up_limit,
        transport: args.transport,
        encryption: args.encryption,
        dht: (!args.no_dht).then_some(args.dht_bootstrap),
        partial: args.partial,
    };
    block_on(async { seed::seed(&options, out, interrupted()).await })
}

fn block_on(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Internal(format!("cannot start: {error}")))?;
    let result = runtime.block_on(work);
    // What is left are reads of a disk that does not answer.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// Ends with Ctrl-C, or when a service manager asks for the end.
async fn interrupted() {
    let ctrl_c = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! {
                () = ctrl_c => {}
                _ = term.recv() => {}
            }
            return;
        }
    }
    #[cfg(windows)]
    {
        use tokio::signal::windows::{ctrl_break, ctrl_close, ctrl_shutdown};
        if let (Ok(mut brk), Ok(mut close), Ok(mut down)) =
            (ctrl_break(), ctrl_close(), ctrl_shutdown())
        {
            tokio::select! {
                () = ctrl_c => {}
                _ = brk.recv() => {}
                _ = close.recv() => {}
                _ = down.recv() => {}
            }
            return;
        }
    }
    ctrl_c.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
