//! The command line's grammar and its help.

mod settings;

pub use settings::{ConfigArgs, Setting};

use crate::status::MachineName;
use crate::transfer::Network;
use crate::units::parse_rate;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use updraft_manifests::names::Name;
use updraft_protocol::io::{Encryption, LocalNetwork, Preference};

/// Installs and updates a product from its swarm, and seeds it from the installed files.
#[derive(Debug, Parser)]
#[command(
    name = "updraft-launcher",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done · 1 failed · 2 wrong usage or feed · 3 update available (check) · \
                  4 damaged files (verify) · 5 another launcher is at work · 6 no source, or port \
                  taken · 7 refused: signatures or hashes · 8 disk · 9 wrong folder · 130 stopped"
)]
pub struct Args {
    /// Print one JSON object per line instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more on stderr: -v what happens, -vv everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install a product into a folder; again on the same folder: go on, or update.
    Install(InstallArgs),
    /// Bring the newest release in.
    Update(UpdateArgs),
    /// Ask whether there is an update (exit code 3 if there is).
    Check(MeetArgs),
    /// Bring the newest version of this launcher itself in; it is started the next time.
    SelfUpdate(SelfUpdateArgs),
    /// Show what is installed.
    Status(DirArgs),
    /// Read every file and say which are not as released (exit code 4 if any).
    Verify(DirArgs),
    /// Make every file right again, fetching only the damaged pieces.
    Repair(SwarmArgs),
    /// Start the game; while it runs nothing is uploaded and no update is put in place.
    Run(RunArgs),
    /// Show what you have set for this game, or set something: a launcher that runs follows at once.
    Config(ConfigArgs),
    /// Go back to the release before, whose files are kept for a while; downloads nothing.
    Rollback(SwarmArgs),
    /// Show the parts of the game that can be left out, fetch some of them or remove some.
    #[command(subcommand)]
    Components(Components),
    /// Share the installed release until stopped.
    Seed(SwarmArgs),
    /// Show who else of the product is on this network, which release they have, and how new their news is.
    Lan(LanArgs),
    /// Write what is installed to a folder or a stick, for `import` and any web server. Again: what is missing.
    Export(ExportArgs),
    /// Update from a bundle that `export` made, with no network at all.
    Import(ImportArgs),
    /// Download a .torrent file's content into DIR/<name>: plain BitTorrent, no feed.
    Fetch(FetchArgs),
}

/// What to do with components.
#[derive(Debug, Subcommand)]
pub enum Components {
    /// Show which there are and which are installed.
    List(DirArgs),
    /// Fetch some, and keep them over updates.
    Add(ComponentArgs),
    /// Remove some, and do without them over updates.
    Remove(ComponentArgs),
}

/// Which components.
#[derive(Debug, ClapArgs)]
pub struct ComponentArgs {
    /// Their names, as `components list` shows them.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<Name>,
    /// How to take part in the swarm.
    #[command(flatten)]
    pub swarm: SwarmArgs,
}

/// The folder.
#[derive(Debug, Clone, ClapArgs)]
pub struct DirArgs {
    /// The folder.
    #[arg(long, value_name = "DIR", default_value_os = crate::cli::here().as_os_str())]
    pub dir: PathBuf,
}

/// How to update the launcher.
#[derive(Debug, ClapArgs)]
pub struct SelfUpdateArgs {
    /// Only ask whether there is a newer one (exit code 3 if there is).
    #[arg(long)]
    pub check: bool,
    /// The install whose publisher is asked.
    #[command(flatten)]
    pub dir: DirArgs,
}

/// The folder, and whom to meet.
#[derive(Debug, Clone, ClapArgs)]
pub struct MeetArgs {
    /// The folder.
    #[command(flatten)]
    pub dir: DirArgs,
    /// Listen here; may be given several times. The default is any free port.
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Dial this peer; may be given several times.
    #[arg(long, value_name = "IP:PORT")]
    pub peer: Vec<SocketAddr>,
    /// What others in the room shall call this machine, in `lan` and on the host's screen. Without it they see
    /// its address.
    #[arg(long, value_name = "NAME", env = "UPDRAFT_NAME")]
    pub name: Option<MachineName>,
    /// Look for nobody on your own network, and do not be found there.
    #[arg(long, env = "UPDRAFT_NO_LAN", conflicts_with = "lan_only")]
    pub no_lan: bool,
    /// Send nothing beyond your own network: no web server, tracker or player there is asked. News comes
    /// from other players then, and nobody confirms that it is the newest.
    #[arg(long, env = "UPDRAFT_LAN_ONLY")]
    pub lan_only: bool,
}

/// Who is there, or for whom to be there.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct LanArgs {
    /// What to do; without it, tell who is there.
    #[command(subcommand)]
    pub what: Option<LanCommand>,
    /// Whom to meet.
    #[command(flatten)]
    pub meet: MeetArgs,
}

/// What to do in the local network.
#[derive(Debug, Subcommand)]
pub enum LanCommand {
    /// Be the host of a room: share the installed release over BitTorrent and HTTP until stopped, and show in
    /// a browser who has how much of it.
    Host(HostArgs),
}

/// How to be the host.
#[derive(Debug, ClapArgs)]
pub struct HostArgs {
    /// Where the web server listens, which has the release and the page; port 0 is any free one.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7600")]
    pub http: SocketAddr,
    /// How to take part in the swarm.
    #[command(flatten)]
    pub swarm: SwarmArgs,
}

/// How to take part in the swarm.
#[derive(Debug, Clone, ClapArgs)]
pub struct SwarmArgs {
    /// Whom to meet.
    #[command(flatten)]
    pub meet: MeetArgs,
    /// Go on seeding when done, until stopped.
    #[arg(long)]
    pub stay: bool,
    /// Bytes per second to send to the internet at most, like 500K or 2M. The LAN is not limited.
    #[arg(long, value_name = "RATE", value_parser = Rate::parse, env = "UPDRAFT_UP_LIMIT")]
    pub up_limit: Option<Rate>,
    /// Bytes per second to take from the internet at most, like 500K or 2M.
    #[arg(long, value_name = "RATE", value_parser = Rate::parse, env = "UPDRAFT_DOWN_LIMIT")]
    pub down_limit: Option<Rate>,
    /// What connections run over: `now` is TCP, as somebody waits; `background` is QUIC with everybody
    /// on the internet who has it, and makes way for whatever else uses the line; `utp` and `quic` are
    /// always that, where the other end has it; `tcp` opens no UDP port. Who is not reached by TCP is
    /// tried by uTP, but with `tcp`. The default is `background` for `seed`, else `now`.
    #[arg(long, value_name = "now|background|tcp|utp|quic", env = "UPDRAFT_TRANSPORT")]
    pub transport: Option<Preference>,
    /// Message stream encryption of TCP and uTP connections, for peers that take nothing else and networks that
    /// slow BitTorrent down: `allow` asks for it where a peer hangs up without it, `prefer` asks for it
    /// first, `require` speaks with nobody otherwise, `off` never speaks it.
    #[arg(
        long,
        value_name = "off|allow|prefer|require",
        default_value = "allow",
        env = "UPDRAFT_ENCRYPTION"
    )]
    pub encryption: Encryption,
    /// Do not ask the router (by UPnP) to let other players in. It is asked only where uploading to the
    /// internet was agreed to.
    #[arg(long, env = "UPDRAFT_NO_PORT_MAPPING")]
    pub no_port_mapping: bool,
    /// Do not look for peers in the distributed hash table (DHT), and do not be found there. Only `fetch` of
    /// public torrents uses it.
    #[arg(long, env = "UPDRAFT_NO_DHT", conflicts_with = "dht_bootstrap")]
    pub no_dht: bool,
    /// Enter the DHT by this node instead of the well-known ones; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    pub dht_bootstrap: Vec<String>,
    /// Whether to upload to others on the internet, who then see your address. Asked once on a
    /// terminal; until it is answered, only your own network is served.
    #[arg(long, value_name = "yes|no", env = "UPDRAFT_UPLOAD")]
    pub upload: Option<Answer>,
}

/// How to update.
#[derive(Debug, ClapArgs)]
pub struct UpdateArgs {
    /// Say what would be done and what it would cost, to the byte, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Say of every file how it comes to be.
    #[arg(long)]
    pub explain: bool,
    /// Do not wait while a new release goes to others first.
    #[arg(long)]
    pub now: bool,
    /// Bring in the release that you went back from with `rollback`.
    #[arg(long)]
    pub force: bool,
    /// Where the disk has no room for the old and the new files, replace them one after the other. Until
    /// the last one is, the game cannot be played and there is no way back.
    #[arg(long)]
    pub bounded_space: bool,
    /// How to take part in the swarm.
    #[command(flatten)]
    pub swarm: SwarmArgs,
}

/// How to start the game.
#[derive(Debug, ClapArgs)]
pub struct RunArgs {
    /// The folder of the game.
    #[command(flatten)]
    pub dir: DirArgs,
    /// Arguments for the game, after `--`.
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// What to write where.
#[derive(Debug, ClapArgs)]
pub struct ExportArgs {
    /// The bundle: an empty folder, or one that `export` has written to.
    pub bundle: PathBuf,
    /// The folder of the game.
    #[command(flatten)]
    pub dir: DirArgs,
}

/// What to take from where.
#[derive(Debug, ClapArgs)]
pub struct ImportArgs {
    /// The bundle.
    pub bundle: PathBuf,
    /// Where the disk has no room for the old and the new files, replace them one after the other.
    #[arg(long)]
    pub bounded_space: bool,
    /// The folder of the game.
    #[command(flatten)]
    pub dir: DirArgs,
}

/// What to install.
#[derive(Debug, ClapArgs)]
pub struct InstallArgs {
    /// The feed: a link (updraft:…), a feed file, or its URL.
    pub feed: String,
    /// The channel to follow; the default is `stable`.
    #[arg(long)]
    pub channel: Option<Name>,
    /// The platform; the default is the one this program runs on.
    #[arg(long)]
    pub platform: Option<Name>,
    /// Use what is right in a folder that is not empty; nothing in it is deleted.
    #[arg(long)]
    pub adopt: bool,
    /// Take everything from this bundle, and nothing from any network. Its feed is BUNDLE/feed.toml.
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["stay", "lan_only", "peer"])]
    pub from: Option<PathBuf>,
    /// Install this component, too; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub component: Vec<Name>,
    /// Leave this component out; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub without: Vec<Name>,
    /// How to take part in the swarm.
    #[command(flatten)]
    pub swarm: SwarmArgs,
}

/// What to fetch.
#[derive(Debug, ClapArgs)]
pub struct FetchArgs {
    /// The .torrent file, or a magnet link.
    pub torrent: String,
    /// Fetch only the files whose path in the torrent fits, like `bin/*` or `data/**`; may be given
    /// several times.
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Fetch these files before others; may be given several times, the most urgent first.
    #[arg(long, value_name = "GLOB")]
    pub first: Vec<String>,
    /// How to take part in the swarm.
    #[command(flatten)]
    pub swarm: SwarmArgs,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Answer {
    /// Yes.
    Yes,
    /// No.
    No,
}

impl Answer {
    /// As a truth value.
    pub fn is_yes(self) -> bool {
        self == Self::Yes
    }
}

/// Bytes per second, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

impl Rate {
    fn parse(text: &str) -> Result<Self, String> {
        parse_rate(text).map(Self)
    }
}

impl MeetArgs {
    /// As the engine wants it; nobody on the internet is uploaded to.
    pub fn network(&self) -> Network {
        Network {
            listen: self.listen.clone(),
            peers: self.peer.clone(),
            name: self.name.clone(),
            local: match (self.no_lan, self.lan_only) {
                (true, _) => LocalNetwork::Off,
                (false, false) => LocalNetwork::On,
                (false, true) => LocalNetwork::Only,
            },
            ..Network::default()
        }
    }
}

impl ImportArgs {
    /// As the engine wants it.
    pub fn network(&self) -> Network {
        Network { bundle: Some(self.bundle.clone()), ..Network::default() }
    }
}

impl SwarmArgs {
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.meet.dir.dir
    }

    /// As the engine wants it.
    pub fn network(&self) -> Network {
        Network {
            up_limit: self.up_limit.and_then(|rate| rate.0),
            down_limit: self.down_limit.and_then(|rate| rate.0),
            transport: self.transport.unwrap_or_default(),
            encryption: self.encryption,
            upload: self.upload.is_some_and(Answer::is_yes),
            port_mapping: !self.no_port_mapping,
            dht: (!self.no_dht).then(|| self.dht_bootstrap.clone()),
            ..self.meet.network()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        let args = Args::try_parse_from([
            "updraft-launcher",
            "install",
            "updraft:x",
            "--dir",
            "d",
            "--up-limit",
            "2M",
            "--upload",
            "no",
            "--json",
        ])
        .unwrap();
        let Command::Install(install) = args.command else { panic!("not install") };
        assert_eq!(install.swarm.network().up_limit, Some(2 << 20));
        assert!(args.json && !install.swarm.network().upload);
        assert_eq!(install.swarm.network().local, LocalNetwork::On);
        for (flags, expected) in [
            (&["--no-lan"][..], Some(LocalNetwork::Off)),
            (&["--lan-only"][..], Some(LocalNetwork::Only)),
            (&["--no-lan", "--lan-only"][..], None),
        ] {
            let args = Args::try_parse_from([&["updraft-launcher", "check"], flags].concat());
            let local = args.ok().map(|args| match args.command {
                Command::Check(check) => check.network().local,
                other => panic!("{other:?}"),
            });
            assert_eq!(local, expected);
        }
    }
}
