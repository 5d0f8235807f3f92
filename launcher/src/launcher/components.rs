//! Parts of a build that the player may choose: which there are, and which are wanted.

use super::Launcher;
use super::bring::Manner;
use crate::error::Error;
use crate::events::Event;
use crate::store::Store;
use std::path::Path;
use std::time::Instant;
use updraft_manifests::installed::Installed;
use updraft_manifests::places::Place;
use updraft_manifests::rules::{Rules, Selection};

impl Launcher {
    /// Fetches components, or removes them, and remembers that over updates. True if something was done.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that the installed release does not have, and everything else in [`Error`].
    pub async fn choose(&mut self, asked: &Selection) -> Result<bool, Error> {
        let since = Instant::now();
        let installed = self.installed()?;
        self.decide(asked, &installed.release.rules)?;
        let release = self.installed_release(&installed).await?;
        let swarm = self.swarm_sources().await;
        Ok(self.bring(&release, Manner::default(), &swarm, since).await?.is_some())
    }

    /// Records what is asked of a release with these rules.
    pub(super) fn decide(&mut self, asked: &Selection, rules: &Rules) -> Result<(), Error> {
        if let Some(unknown) = asked.names().find(|name| !rules.components.contains_key(*name)) {
            let known: Vec<&str> = rules.components.keys().map(|name| name.as_str()).collect();
            let known = match known.as_slice() {
                [] => "it has none".to_owned(),
                known => format!("it has `{}`", known.join("`, `")),
            };
            return Err(Error::Usage(format!("the release has no component `{unknown}`: {known}")));
        }
        let choice = self.state.choice.clone().and(asked);
        if choice != self.state.choice {
            self.state.choice = choice;
            self.store.set_state(&self.state)?;
        }
        Ok(())
    }

    /// The components of the installed release; works beside a launcher that is at work there.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::State`].
    pub fn components(dir: &Path) -> Result<Vec<Event>, Error> {
        let store = Store::open(dir)?;
        let installed = store.installed()?.ok_or_else(|| Error::NotInstalled(dir.to_path_buf()))?;
        Ok(told(&installed))
    }
}

fn told(installed: &Installed) -> Vec<Event> {
    let event = |(name, component): (_, &updraft_manifests::rules::Component)| {
        let files = || installed.files.iter().filter(|file| component.holds(&file.path));
        Event::Component {
            name: ToString::to_string(name),
            installed: files().all(|file| file.place != Place::Absent),
            default: component.default,
            files: files().count() as u64,
            bytes: files().map(|file| file.length).sum(),
        }
    };
    installed.release.rules.components.iter().map(event).collect()
}
