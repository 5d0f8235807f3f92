//! The command line over [`crate::launcher`].

pub mod args;
mod ask;
mod show;

use crate::choice::Choice;
use crate::error::Error;
use crate::events::{Event, Sink};
use crate::exit::Exit;
use crate::fetch::fetch;
use crate::home::report_healthy;
use crate::launcher::{InstallRequest, Launcher, Renewed, UpdateRequest, Updated};
use crate::stop::Stop;
use crate::store::Store;
use crate::transfer::Network;
use args::{
    Args, Command, ComponentArgs, Components, ConfigArgs, ExportArgs, FetchArgs, HostArgs,
    ImportArgs, InstallArgs, LanArgs, LanCommand, RunArgs, SelfUpdateArgs, SwarmArgs, UpdateArgs,
};
use show::Face;
use std::path::Path;
use std::sync::Arc;
use updraft_manifests::names::Name;
use updraft_manifests::rules::Selection;
use updraft_protocol::io::Preference;

/// Runs one command to its end.
pub async fn run(args: Args) -> Exit {
    let face = Arc::new(Face::new(args.json));
    let sink: Sink = {
        let face = Arc::clone(&face);
        Arc::new(move |event| face.tell(&event))
    };
    let stop = Stop::new();
    listen_for_signals(stop.clone(), Arc::clone(&face));
    let done = Box::pin(command(args, &sink, &stop)).await;
    // Records it cannot read are the one thing that the launcher before may be better at.
    if !matches!(done, Err(Error::State { .. } | Error::Failed(_))) {
        report_healthy();
    }
    match done {
        Ok(exit) => {
            face.finish();
            exit
        }
        Err(Error::Interrupted) => {
            let message = Error::Interrupted.hint().unwrap_or_default();
            sink(Event::Stopped { message });
            Exit::Interrupted
        }
        Err(error) => {
            let exit = error.exit();
            let event =
                Event::Error { code: exit as u8, message: error.to_string(), hint: error.hint() };
            sink(event);
            exit
        }
    }
}

async fn command(args: Args, sink: &Sink, stop: &Stop) -> Result<Exit, Error> {
    let (sink, stop) = (Arc::clone(sink), stop.clone());
    let asks = !args.json;
    match args.command {
        Command::Install(install) => {
            let InstallArgs { feed, channel, platform, adopt, from, component, without, swarm } =
                install;
            let components = selection(component, without)?;
            let request = InstallRequest { feed, channel, platform, adopt, components };
            let importing = from.is_some();
            let network = Network { bundle: from, ..swarm.network() };
            let dir = swarm.dir();
            let launcher = Launcher::create(dir, &request, network, sink.clone(), stop.clone());
            let launcher = Box::pin(launcher).await?;
            // Who brings a bundle does not wait for a turn.
            let how = UpdateRequest { adopt, now: importing, ..UpdateRequest::default() };
            if importing {
                return import(launcher, how, &sink).await;
            }
            bring(launcher, &swarm, asks, how, &sink).await
        }
        Command::Update(UpdateArgs { dry_run, explain, now, force, bounded_space, swarm }) => {
            let mut launcher = Launcher::open(swarm.dir(), swarm.network(), sink.clone(), stop)?;
            let how = UpdateRequest { adopt: false, explain, now, force, bounded: bounded_space };
            if dry_run {
                let planned = launcher.plan(how).await;
                launcher.close().await;
                tell_outcome(planned?, &sink);
                return Ok(Exit::Done);
            }
            bring(launcher, &swarm, asks, how, &sink).await
        }
        Command::Check(meet) => {
            let mut launcher = Launcher::open(&meet.dir.dir, meet.network(), sink.clone(), stop)?;
            // The answer to what was asked for comes last.
            tell_failure(launcher.renew(true).await, &sink)?;
            let update = launcher.check().await;
            launcher.close().await;
            Ok(if update? { Exit::UpdateAvailable } else { Exit::Done })
        }
        Command::SelfUpdate(SelfUpdateArgs { check, dir }) => {
            let mut launcher = Launcher::open(&dir.dir, Default::default(), sink.clone(), stop)?;
            let renewed = launcher.renew(check).await;
            launcher.close().await;
            match renewed? {
                Renewed::Available if check => return Ok(Exit::UpdateAvailable),
                Renewed::Available | Renewed::Installed => {}
                Renewed::Newest => {
                    sink(Event::UpToDate { message: "the newest launcher is here".to_owned() });
                }
                Renewed::Unmanaged => {
                    return Err(Error::Usage(
                        "this launcher was not started by updraft-stub, so there is nothing beside \
                         which a newer one could be put: update it the way it was installed"
                            .to_owned(),
                    ));
                }
            }
            Ok(Exit::Done)
        }
        Command::Status(dir) => {
            sink(Launcher::status(&dir.dir)?);
            Ok(Exit::Done)
        }
        Command::Verify(dir) => {
            let mut launcher = Launcher::open(&dir.dir, Default::default(), sink, stop)?;
            launcher.verify()?;
            Ok(Exit::Done)
        }
        Command::Repair(swarm) => {
            let network = swarm.network();
            let mut launcher = Launcher::open(swarm.dir(), network, sink.clone(), stop)?;
            consent(&mut launcher, &swarm, asks)?;
            let mut done = launcher.repair().await.map(|done| {
                if !done {
                    sink(Event::UpToDate { message: "every file is right".into() });
                }
            });
            if done.is_ok() && swarm.stay {
                done = launcher.seed().await;
            }
            launcher.close().await;
            done.map(|()| Exit::Done)
        }
        Command::Components(Components::List(dir)) => {
            let components = Launcher::components(&dir.dir)?;
            if components.is_empty() {
                let message = "this release has no components: all of it is installed".to_owned();
                sink(Event::UpToDate { message });
            }
            components.into_iter().for_each(|component| sink(component));
            Ok(Exit::Done)
        }
        Command::Components(Components::Add(ComponentArgs { names, swarm })) => {
            choose(&selection(names, Vec::new())?, &swarm, asks, &sink, stop).await
        }
        Command::Components(Components::Remove(ComponentArgs { names, swarm })) => {
            choose(&selection(Vec::new(), names)?, &swarm, asks, &sink, stop).await
        }
        Command::Run(RunArgs { dir, arguments }) => {
            Launcher::run(&dir.dir, &arguments, sink, stop).await?;
            Ok(Exit::Done)
        }
        Command::Config(ConfigArgs { setting, value, dir }) => {
            let store = Store::open(&dir.dir)?;
            let mut settings = store.settings()?;
            if let (Some(setting), Some(value)) = (setting, value) {
                setting.set(&mut settings, &value).map_err(Error::Usage)?;
                store.set_settings(&settings)?;
            }
            sink(Event::Config { settings });
            Ok(Exit::Done)
        }
        Command::Rollback(swarm) => {
            let network = swarm.network();
            let mut launcher = Launcher::open(swarm.dir(), network, sink, stop)?;
            let mut done = launcher.rollback().await;
            if done.is_ok() && swarm.stay {
                done = launcher.seed().await;
            }
            launcher.close().await;
            done.map(|()| Exit::Done)
        }
        Command::Seed(mut swarm) => {
            swarm.stay = true;
            swarm.transport = swarm.transport.or(Some(Preference::Background));
            let network = swarm.network();
            let mut launcher = Launcher::open(swarm.dir(), network, sink, stop)?;
            consent(&mut launcher, &swarm, asks)?;
            let done = launcher.seed().await;
            launcher.close().await;
            done.map(|()| Exit::Done)
        }
        Command::Lan(LanArgs { what: Some(LanCommand::Host(host)), .. }) => {
            let HostArgs { http, mut swarm } = host;
            swarm.stay = true;
            swarm.transport = swarm.transport.or(Some(Preference::Background));
            let network = swarm.network();
            let mut launcher = Launcher::open(swarm.dir(), network, sink, stop)?;
            consent(&mut launcher, &swarm, asks)?;
            let done = Box::pin(launcher.host(http)).await;
            launcher.close().await;
            done.map(|()| Exit::Done)
        }
        Command::Lan(LanArgs { what: None, meet }) => {
            if meet.no_lan && meet.peer.is_empty() {
                return Err(Error::Usage("`lan` without the network has nobody to ask".into()));
            }
            Launcher::lan(&meet.dir.dir, &meet.network(), &sink, &stop).await?;
            Ok(Exit::Done)
        }
        Command::Export(ExportArgs { bundle, dir }) => {
            let mut launcher = Launcher::open(&dir.dir, Default::default(), sink, stop)?;
            let done = launcher.export(&bundle).await;
            launcher.close().await;
            done.map(|()| Exit::Done)
        }
        Command::Import(import_args) => {
            let ImportArgs { dir, bounded_space, .. } = &import_args;
            let network = import_args.network();
            let launcher = Launcher::open(&dir.dir, network, sink.clone(), stop)?;
            let how = UpdateRequest { now: true, bounded: *bounded_space, ..Default::default() };
            import(launcher, how, &sink).await
        }
        Command::Fetch(FetchArgs { torrent, only, first, swarm }) => {
            report_healthy();
            let (dir, choice) = (swarm.dir(), Choice::parse(&only, &first)?);
            fetch(&torrent, dir, &choice, swarm.stay, &swarm.network(), &sink, &stop).await?;
            Ok(Exit::Done)
        }
    }
}

/// Components that are wanted and that are not.
fn selection(with: Vec<Name>, without: Vec<Name>) -> Result<Selection, Error> {
    let (with, without) = (with.into_iter().collect(), without.into_iter().collect());
    let asked = Selection { with, without };
    match asked.with.intersection(&asked.without).next() {
        Some(both) => Err(Error::Usage(format!("`{both}` is both wanted and not: name it once"))),
        None => Ok(asked),
    }
}

/// `components add` and `remove`.
async fn choose(
    asked: &Selection,
    swarm: &SwarmArgs,
    asks: bool,
    sink: &Sink,
    stop: Stop,
) -> Result<Exit, Error> {
    let mut launcher = Launcher::open(swarm.dir(), swarm.network(), sink.clone(), stop)?;
    consent(&mut launcher, swarm, asks)?;
    let mut done = launcher.choose(asked).await.map(|done| {
        if !done {
            sink(Event::UpToDate { message: "the components are as you want them".into() });
        }
    });
    if done.is_ok() && swarm.stay {
        done = launcher.seed().await;
    }
    launcher.close().await;
    done.map(|()| Exit::Done)
}

/// `install` and `update` from the point where the install is open.
async fn bring(
    mut launcher: Launcher,
    swarm: &SwarmArgs,
    asks: bool,
    how: UpdateRequest,
    sink: &Sink,
) -> Result<Exit, Error> {
    let done = async {
        consent(&mut launcher, swarm, asks)?;
        // First the launcher: the release may need the newest one.
        tell_failure(launcher.renew(false).await, sink)?;
        let mut updated = launcher.update(how).await;
        if let Err(error @ Error::Space { bounded: true, .. }) = &updated
            && !how.bounded
            && asks
            && ask::is_possible()
            && ask::bounded(error)
        {
            updated = launcher.update(UpdateRequest { bounded: true, ..how }).await;
        }
        let updated = updated?;
        if updated == Updated::Paused && !launcher.has_release()? {
            let why = "the publisher has stopped the newest release, so nothing can be installed now: try \
                       again later";
            return Err(Error::Failed(why.to_owned()));
        }
        tell_outcome(updated, sink);
        if swarm.stay {
            return launcher.seed().await;
        }
        match launcher.preload().await {
            Err(error) if !matches!(error, Error::Interrupted) => {
                let message = format!("the announced release is not fetched ahead: {error}");
                sink(Event::Warning { message });
                Ok(())
            }
            done => done,
        }
    };
    let done = Box::pin(done).await;
    launcher.close().await;
    done.map(|()| Exit::Done)
}

/// Brings in what a bundle has.
async fn import(mut launcher: Launcher, how: UpdateRequest, sink: &Sink) -> Result<Exit, Error> {
    let updated = launcher.import(how).await;
    launcher.close().await;
    tell_outcome(updated?, sink);
    Ok(Exit::Done)
}

/// A launcher that cannot be renewed can still do its work.
fn tell_failure(renewed: Result<Renewed, Error>, sink: &Sink) -> Result<(), Error> {
    match renewed {
        Ok(_) => Ok(()),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => {
            sink(Event::Warning { message: format!("the launcher is not updated: {error}") });
            Ok(())
        }
    }
}

fn tell_outcome(outcome: Updated, sink: &Sink) {
    let message = match outcome {
        Updated::Done => return,
        Updated::UpToDate => "the newest release is installed",
        Updated::Later => {
            "a newer release goes to others first; it comes here by itself in the next days, or now with \
             `update --now`"
        }
        Updated::Paused => "the publisher has stopped the newest release; another one will come",
        Updated::Held => {
            "you went back from the newest release; `update --force` brings it in again, a newer \
             one comes as usual"
        }
    };
    sink(Event::UpToDate { message: message.into() });
}

/// Takes the player's answer from the flag or the records, or asks once on a terminal.
fn consent(launcher: &mut Launcher, swarm: &SwarmArgs, asks: bool) -> Result<(), Error> {
    let answer = match (swarm.upload, launcher.upload()?) {
        (Some(answer), _) => Some(answer.is_yes()),
        (None, Some(_)) => None,
        (None, None) if asks && ask::is_possible() => ask::upload(),
        (None, None) => None,
    };
    match answer {
        Some(answer) => launcher.set_upload(answer),
        None => Ok(()),
    }
}

/// The first Ctrl-C (or SIGTERM, or the end of the console on Windows) stops in order, the second at once.
fn listen_for_signals(stop: Stop, face: Arc<Face>) {
    tokio::spawn(async move {
        loop {
            if !signal().await {
                return;
            }
            if stop.raise() {
                face.finish();
                std::process::exit(Exit::Interrupted as i32);
            }
            face.note("stopping… (once more to stop at once)");
        }
    });
}

/// Waits for a signal to stop; false if none can be waited for.
async fn signal() -> bool {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return false };
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt.is_ok(),
            _ = terminate.recv() => true,
        }
    }
    #[cfg(windows)]
    {
        // Closing the console leaves five seconds, which is enough to stop in order.
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_logoff, ctrl_shutdown};
        let listening = (ctrl_c(), ctrl_break(), ctrl_close(), ctrl_logoff(), ctrl_shutdown());
        let (Ok(mut c), Ok(mut brk), Ok(mut close), Ok(mut logoff), Ok(mut shutdown)) = listening
        else {
            return false;
        };
        tokio::select! {
            got = c.recv() => got.is_some(),
            got = brk.recv() => got.is_some(),
            got = close.recv() => got.is_some(),
            got = logoff.recv() => got.is_some(),
            got = shutdown.recv() => got.is_some(),
        }
    }
}

/// The folder a command works on when none is named.
pub(crate) fn here() -> &'static Path {
    Path::new(".")
}
