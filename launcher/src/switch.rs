//! The journal's side of an update: what was begun is finished, whatever stopped it.

use crate::apply::{OLD_FOLDER, Record, Report, Target, Transaction, clear, place};
use crate::error::Error;
use crate::journal::Journal;
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
        let mut recovery = Recovery { pending: pending(&records), ..Recovery::default() };
        if let Some((work, cleared)) = unfinished(&records) {
            if !cleared {
                switch.clear(store, &work)?;
            }
            let report = switch.place(store, &work)?;
            switch.finish(store, &work)?;
            recovery = Recovery { finished: Some((work.target, report)), pending: None };
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
        let record = Record::Staging { release: target.clone() };
        self.journal = Journal::write(tree, JOURNAL_PATH, &[record])
            .map_err(Error::disk("write", store.path(JOURNAL_PATH)))?;
        Ok(())
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
        let torrent = &work.target.torrent;
        for path in [
            OLD_FOLDER.to_owned(),
            work.target.staging(),
            format!("{RESUME_FOLDER}/{torrent}"),
            format!("{RESUME_FOLDER}/{torrent}.parts"),
        ] {
            tree.remove_all(&path).map_err(Error::disk("remove", store.path(&path)))?;
        }
        self.journal = Journal::write::<Record>(tree, JOURNAL_PATH, &[])
            .map_err(Error::disk("write", store.path(JOURNAL_PATH)))?;
        Ok(())
    }

    fn append(&mut self, store: &Store, record: &Record) -> Result<(), Error> {
        self.journal.append(record).map_err(Error::disk("write", store.path(JOURNAL_PATH)))
    }
}

/// The release that is being gathered or switched to, read without changing anything.
pub fn peek(store: &Store) -> Option<Target> {
    use std::io::Read;
    let mut text = Vec::new();
    let file = store.tree().open_file(JOURNAL_PATH).ok()?;
    file.take(crate::journal::JOURNAL_BYTES_MAX).read_to_end(&mut text).ok()?;
    let records = crate::journal::parse(&text);
    unfinished(&records).map(|(work, _)| work.target).or_else(|| pending(&records))
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

fn pending(records: &[Record]) -> Option<Target> {
    match records.last() {
        Some(Record::Staging { release }) => Some(release.clone()),
        Some(Record::Staged { .. } | Record::Cleared | Record::Committed) | None => None,
    }
}
