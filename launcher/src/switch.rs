//! The journal's side of an update: what was begun is finished, whatever stopped it.

use crate::apply::{Ending, OLD_FOLDER, Record, Report, Target, Transaction, clear, place};
use crate::error::Error;
use crate::journal::Journal;
use crate::kept;
use crate::links;
use crate::store::{JOURNAL_PATH, RESUME_FOLDER, Store};
use updraft_manifests::installed::Installed;

/// What the journal said when the install was opened.
#[derive(Debug, Default)]
pub struct Recovery {
    /// A switch that was under way and is finished now.
    pub finished: Option<(Target, Report)>,
    /// A release whose bytes were being gathered.
    pub pending: Option<Target>,
}

/// What the journal says of a release that is not installed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The release.
    pub target: Target,
    /// True if it is only fetched, since it is announced for later.
    pub ahead: bool,
}

/// An open journal and where it stands.
#[derive(Debug)]
pub struct Switch {
    journal: Journal,
}

impl Switch {
    /// Opens the journal and finishes a switch that was under way.
    ///
    /// # Errors
    /// From the file system; to be called again when the cause is gone.
    pub fn recover(store: &Store) -> Result<(Self, Recovery), Error> {
        let path = store.path(JOURNAL_PATH);
        let (journal, records) = Journal::open::<Record>(store.tree(), JOURNAL_PATH)
            .map_err(Error::disk("open", path))?;
        let mut switch = Self { journal };
        let pending = pending(&records).map(|work| work.target);
        let mut recovery = Recovery { pending, ..Recovery::default() };
        if let Some((work, cleared)) = unfinished(&records) {
            if !cleared {
                switch.clear(store, &work)?;
            }
            let report = switch.place(store, &work)?;
            switch.finish(store, &work)?;
            recovery = match work.ending {
                Ending::Part => Recovery { finished: None, pending: Some(work.target) },
                Ending::Keep | Ending::Discard => {
                    Recovery { finished: Some((work.target, report)), pending: None }
                }
            };
        } else if records.last() == Some(&Record::Committed)
            && let Some(work) = last_work(&records)
        {
            switch.finish(store, work)?;
        }
        Ok((switch, recovery))
    }

    /// Notes that bytes of `target` are being gathered. Staging folders of other releases go, unless
    /// `keep_others`.
    ///
    /// # Errors
    /// From the file system.
    pub fn begin(
        &mut self,
        store: &Store,
        target: &Target,
        keep_others: bool,
    ) -> Result<(), Error> {
        if keep_others {
            return Ok(());
        }
        self.begin_alone(store, target, false)
    }

    /// Notes that bytes of `target` are being gathered, and will be installed when it is offered. Staging
    /// folders of other releases go.
    ///
    /// # Errors
    /// From the file system.
    pub fn begin_ahead(&mut self, store: &Store, target: &Target) -> Result<(), Error> {
        self.begin_alone(store, target, true)
    }

    fn begin_alone(&mut self, store: &Store, target: &Target, ahead: bool) -> Result<(), Error> {
        let tree = store.tree();
        let drop_others = || {
            for name in tree.list(".updraft/staging")? {
                if name != target.torrent {
                    tree.remove_all(&format!(".updraft/staging/{name}"))?;
                }
            }
            for name in tree.list(RESUME_FOLDER)? {
                if !name.starts_with(&target.torrent) {
                    tree.remove_all(&format!("{RESUME_FOLDER}/{name}"))?;
                }
            }
            Ok(())
        };
        drop_others().map_err(Error::disk("clean up", store.path(".updraft")))?;
        let record = Record::Staging { release: target.clone(), ahead };
        self.replace(store, &[record])
    }

    /// Everything is verified and synced: from here on there is only forward.
    ///
    /// # Errors
    /// From the file system.
    pub fn staged(
        &mut self,
        store: &Store,
        work: &Transaction,
        next: &Installed,
    ) -> Result<(), Error> {
        store.set_next(next)?;
        self.append(store, &Record::Staged { transaction: work.clone() })
    }

    /// The first phase.
    ///
    /// # Errors
    /// From the file system.
    pub fn clear(&mut self, store: &Store, work: &Transaction) -> Result<(), Error> {
        clear(store.tree(), work, &mut || Ok(())).map_err(Error::apply(store.tree().path()))?;
        self.append(store, &Record::Cleared)
    }

    /// The second phase, and the record of what is installed then.
    ///
    /// # Errors
    /// From the file system.
    pub fn place(&mut self, store: &Store, work: &Transaction) -> Result<Report, Error> {
        let report =
            place(store.tree(), work, &mut || Ok(())).map_err(Error::apply(store.tree().path()))?;
        store.promote_next(work, &report.missing)?;
        self.append(store, &Record::Committed)?;
        Ok(report)
    }

    /// Removes what the switch left over, and begins a new journal.
    ///
    /// # Errors
    /// From the file system.
    pub fn finish(&mut self, store: &Store, work: &Transaction) -> Result<(), Error> {
        let tree = store.tree();
        if links::COPIED
            && let Some(installed) = store.installed()?
        {
            links::renew(tree, &installed).map_err(Error::disk("copy links in", tree.path()))?;
        }
        kept::keep(tree).map_err(Error::disk("keep", store.path(OLD_FOLDER)))?;
        if work.ending == Ending::Part {
            let record = Record::Staging { release: work.target.clone(), ahead: false };
            return self.replace(store, &[record]);
        }
        Self::drop_staged(store, &work.target)?;
        self.replace(store, &[])
    }

    /// Removes all that was gathered for `target`.
    ///
    /// # Errors
    /// From the file system.
    pub fn drop_staged(store: &Store, target: &Target) -> Result<(), Error> {
        let torrent = &target.torrent;
        for path in [
            target.staging(),
            format!("{RESUME_FOLDER}/{torrent}"),
            format!("{RESUME_FOLDER}/{torrent}.parts"),
        ] {
            store.tree().remove_all(&path).map_err(Error::disk("remove", store.path(&path)))?;
        }
        Ok(())
    }

    fn replace(&mut self, store: &Store, records: &[Record]) -> Result<(), Error> {
        let replaced = self.journal.replace(store.tree(), JOURNAL_PATH, records);
        replaced.map_err(Error::disk("write", store.path(JOURNAL_PATH)))
    }

    fn append(&mut self, store: &Store, record: &Record) -> Result<(), Error> {
        self.journal.append(record).map_err(Error::disk("write", store.path(JOURNAL_PATH)))
    }
}

/// The release that is being gathered or switched to, read without changing anything.
pub fn peek(store: &Store) -> Option<Work> {
    use std::io::Read;
    let mut text = Vec::new();
    let file = store.tree().open_file(JOURNAL_PATH).ok()?;
    file.take(crate::journal::JOURNAL_BYTES_MAX).read_to_end(&mut text).ok()?;
    let records = crate::journal::parse(&text);
    let switching =
        unfinished(&records).map(|(work, _)| Work { target: work.target, ahead: false });
    switching.or_else(|| pending(&records))
}

/// The transaction that was begun and not committed, and whether its first phase is through.
fn unfinished(records: &[Record]) -> Option<(Transaction, bool)> {
    let mut found = None;
    for record in records {
        match record {
            Record::Staged { transaction } => found = Some((transaction.clone(), false)),
            Record::Cleared => {
                if let Some((_, cleared)) = &mut found {
                    *cleared = true;
                }
            }
            Record::Committed => found = None,
            Record::Staging { .. } => {}
        }
    }
    found
}

fn last_work(records: &[Record]) -> Option<&Transaction> {
    records.iter().rev().find_map(|record| match record {
        Record::Staged { transaction } => Some(transaction),
        Record::Staging { .. } | Record::Cleared | Record::Committed => None,
    })
}

fn pending(records: &[Record]) -> Option<Work> {
    match records.last() {
        Some(Record::Staging { release, ahead }) => {
            Some(Work { target: release.clone(), ahead: *ahead })
        }
        Some(Record::Staged { .. } | Record::Cleared | Record::Committed) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Clear, Place, Slot};
    use std::io;
    use updraft_manifests::hash::ContentHash;
    use updraft_manifests::installed::InstalledFile;
    use updraft_manifests::path::RelPath;

    fn work() -> (Transaction, Installed) {
        let manifest = ContentHash([7; 32]);
        let target = Target {
            manifest: manifest.to_string(),
            torrent: "t".into(),
            version: "2".into(),
            sequence: 2,
        };
        let clear = [("a", Slot::Old(0)), ("b", Slot::New(1)), ("gone", Slot::Old(1))];
        let put = |slot, to: &str| Place::Put {
            slot,
            to: to.into(),
            replace: slot == 0,
            executable: false,
        };
        let file = |path: &str| InstalledFile {
            place: Default::default(),
            path: RelPath::parse(path).unwrap(),
            length: 1,
            root: Some(manifest),
            mtime_ns: 5,
            executable: false,
            symlink: None,
        };
        let next = Installed {
            release: crate::release::sample(2, manifest),
            toward: None,
            files: vec![file("a"), file("c/b")],
        };
        let clear =
            clear.map(|(from, slot)| Clear { from: from.into(), slot, mtime_ns: None }).to_vec();
        let place = vec![put(0, "a"), put(1, "c/b")];
        (Transaction { target, clear, place, ending: Ending::Discard }, next)
    }

    /// Stops the switch at each step, and at each point between the records; the next start finishes
    /// it, with the record of what is installed.
    #[test]
    fn the_next_start_finishes_what_was_staged() {
        for stop in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::create(dir.path()).unwrap();
            let (work, next) = work();
            for (path, text) in [("a", "old"), ("b", "b"), ("gone", "x"), ("mine", "m")] {
                std::fs::write(dir.path().join(path), text).unwrap();
            }
            store.tree().make_folders(&work.target.staging()).unwrap();
            std::fs::write(store.path(&Slot::New(0).path(&work.target)), "new").unwrap();

            let (mut switch, recovery) = Switch::recover(&store).unwrap();
            assert!(recovery.finished.is_none() && recovery.pending.is_none());
            switch.begin(&store, &work.target, false).unwrap();
            let peeked = |ahead| Some(Work { target: work.target.clone(), ahead });
            assert_eq!(peek(&store), peeked(false));
            switch.begin_ahead(&store, &work.target).unwrap();
            assert_eq!(peek(&store), peeked(true));
            switch.begin(&store, &work.target, false).unwrap();
            let mut left = stop;
            let mut step = || {
                left -= 1;
                if left < 0 { Err(io::Error::other("stopped here")) } else { Ok(()) }
            };
            let mut run = || -> Result<(), ()> {
                let failed = |_| ();
                step().map_err(failed)?;
                switch.staged(&store, &work, &next).map_err(|_| ())?;
                clear(store.tree(), &work, &mut step).map_err(|_| ())?;
                step().map_err(failed)?;
                switch.append(&store, &Record::Cleared).map_err(|_| ())?;
                let report = place(store.tree(), &work, &mut step).map_err(|_| ())?;
                step().map_err(failed)?;
                store.promote_next(&work, &report.missing).map_err(|_| ())?;
                step().map_err(failed)?;
                switch.append(&store, &Record::Committed).map_err(|_| ())?;
                step().map_err(failed)?;
                switch.finish(&store, &work).map_err(|_| ())
            };
            let stopped = run().is_err();
            drop(switch);
            let (_, recovery) = Switch::recover(&store).unwrap();
            let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).ok();
            assert_eq!(read("mine").as_deref(), Some("m"));
            if stop == 0 {
                // Before `staged` nothing was touched, and the bytes gathered are kept.
                assert_eq!(recovery.pending, Some(work.target.clone()));
                assert_eq!(read("a").as_deref(), Some("old"));
                assert!(store.tree().exists(&Slot::New(0).path(&work.target)).unwrap());
                continue;
            }
            assert_eq!(read("a").as_deref(), Some("new"), "stopped after {stop}");
            assert_eq!(read("c/b").as_deref(), Some("b"));
            assert_eq!((read("b"), read("gone")), (None, None));
            assert_eq!(store.installed().unwrap(), Some(next));
            assert_eq!(peek(&store), None);
            assert!(store.tree().list(".updraft/staging").unwrap().is_empty());
            assert!(!store.tree().exists(OLD_FOLDER).unwrap());
            if !stopped {
                return;
            }
        }
        panic!("the switch has more steps than were tried");
    }
}
