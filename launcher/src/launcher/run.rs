//! Starting the game. While it runs, no launcher uploads and no update is put in place.

use super::Launcher;
use crate::documents::Documents;
use crate::error::Error;
use crate::events::{Event, Sink};
use crate::lock::Playing;
use crate::stop::Stop;
use crate::store::Store;
use crate::switch;
use crate::transfer::Network;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;
use updraft_manifests::document::Signed;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::installed::InstalledRelease;
use updraft_manifests::keys::Role;
use updraft_manifests::manifest::{self, Launch, Manifest};

/// How often is looked whether the game has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a launcher at work may take to see that nothing is in the way of playing.
const LOCK_TRIES: u32 = 40;
const LOCK_EVERY: Duration = Duration::from_millis(50);

impl Launcher {
    /// Starts the installed game, with `arguments` after its own, and waits for its end. Works beside a launcher that
    /// is at work here; what one left half done is finished first.
    ///
    /// # Errors
    /// [`Error::NotInstalled`]; [`Error::Busy`] while an update is put in place; [`Error::Halfway`]; [`Error::Failed`]
    /// if the release does not say how it is started, or the game ends with a failure; [`Error::Disk`] if it cannot
    /// be started.
    pub async fn run(
        dir: &Path,
        arguments: &[String],
        events: Sink,
        stop: Stop,
    ) -> Result<(), Error> {
        // Whoever takes the lock finishes what a crash left.
        match Self::open(dir, Network::default(), events.clone(), stop) {
            Ok(mut launcher) => launcher.close().await,
            Err(Error::Busy(_)) => {}
            Err(error) => return Err(error),
        }
        let store = Store::open(dir)?;
        let _playing = play(&store).await?;
        let installed = store.installed()?;
        let installed = installed.ok_or_else(|| Error::NotInstalled(dir.to_path_buf()))?;
        if installed.toward.is_some() {
            let version = switch::peek(&store).map_or_else(String::new, |work| work.target.version);
            return Err(Error::Halfway { version });
        }
        let documents = Documents::open(dir).map_err(Error::disk("open the documents in", dir))?;
        let launch = launch(&documents, &installed.release)?;
        let program = launch.program.under(store.tree().path());
        let mut command = tokio::process::Command::new(&program);
        command.args(&launch.arguments).args(arguments).current_dir(store.tree().path());
        let mut game = command.spawn().map_err(Error::disk("start", &program))?;
        events(Event::Running {
            version: installed.release.version.to_string(),
            program: launch.program.to_string(),
        });
        let ended = game.wait().await.map_err(Error::disk("wait for", &program))?;
        told(ended, launch.program.as_str())
    }

    /// Waits until the game is not running; keeps it from being started as long as what is returned lives.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) async fn nobody_plays(&self) -> Result<Option<Playing>, Error> {
        let tree = self.store.tree();
        let mut said = false;
        loop {
            if let Some(free) = Playing::prevent(tree)? {
                return Ok(free);
            }
            if !std::mem::replace(&mut said, true) {
                let message = "the game runs: the update is put in place when it has ended".into();
                (self.events)(Event::Warning { message });
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.stop.raised() => return Err(Error::Interrupted),
            }
        }
    }
}

/// Says that the game runs, as long as what is returned lives.
async fn play(store: &Store) -> Result<Playing, Error> {
    for _ in 0..LOCK_TRIES {
        if let Some(playing) = Playing::begin(store.tree())? {
            return Ok(playing);
        }
        tokio::time::sleep(LOCK_EVERY).await;
    }
    Err(Error::Busy(store.tree().path().to_path_buf()))
}

/// How the release is started: as the manifest says that was verified when it was installed.
fn launch(documents: &Documents, release: &InstalledRelease) -> Result<Launch, Error> {
    let path = manifest::path(&release.manifest);
    let missing = |why: String| {
        let hint = "`update` or `repair` with a connection brings it";
        Error::Failed(format!("how {} is started cannot be read ({why}): {hint}", release.version))
    };
    let bytes = documents.read(&path).ok_or_else(|| missing(format!("{path} is missing")))?;
    let signed =
        Signed::parse(Role::Release, &bytes).map_err(|error| missing(error.to_string()))?;
    if ContentHash::of(signed.payload()) != release.manifest {
        return Err(missing(format!("{path} is not what was installed")));
    }
    let text = std::str::from_utf8(signed.payload()).map_err(|error| missing(error.to_string()))?;
    let manifest: Manifest =
        toml::from_str(text).map_err(|error| missing(error.message().to_owned()))?;
    manifest.launch.ok_or_else(|| {
        Error::Failed(format!(
            "the publisher of {} did not say how it is started: start it by hand",
            release.version
        ))
    })
}

fn told(ended: ExitStatus, program: &str) -> Result<(), Error> {
    if ended.success() {
        return Ok(());
    }
    Err(Error::Failed(format!("{program} has ended with a failure: {ended}")))
}
