//! What our programs write for themselves, and disks may lose: keys, records of an install, the journal.

use super::{corpus, fuzz};
use updraft_launcher::apply::{Clear, Ending, Place, Record, Slot, Target, Transaction};
use updraft_launcher::journal;
use updraft_launcher::status::Status;
use updraft_launcher::store::State;
use updraft_manifests::current::Current;
use updraft_manifests::installed::Installed;
use updraft_manifests::keys::SecretKey;
use updraft_manifests::sealed::{open, seal};
use updraft_manifests::trust::TrustState;
use updraft_publisher::key_file;

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[test]
fn sealed_texts() {
    let good = corpus("installed")
        .into_iter()
        .map(|it| seal(text(&it).expect("text").into()).into_bytes());
    fuzz("sealed", good.collect(), |bytes| open(bytes).is_ok());
}

/// The checksum is made anew, so that the changes meet what is inside.
#[test]
fn installed_records() {
    fuzz("installed", corpus("installed"), |bytes| {
        let Some(text) = text(bytes) else { return false };
        let Ok(installed) = Installed::parse(seal(text.to_owned()).as_bytes()) else {
            return false;
        };
        assert_eq!(Installed::parse(installed.to_text().as_bytes()), Ok(installed));
        true
    });
}

#[test]
fn trust_records() {
    fuzz("trust", corpus("trust"), |bytes| {
        let Some(text) = text(bytes) else { return false };
        let Ok(trust) = TrustState::parse(seal(text.to_owned()).as_bytes()) else { return false };
        let _ = (trust.next_root(), trust.root());
        assert_eq!(TrustState::parse(trust.to_text().as_bytes()), Ok(trust));
        true
    });
}

#[test]
fn states() {
    fuzz("state", corpus("state"), |bytes| {
        let Some(Ok(state)) = text(bytes).map(State::parse) else { return false };
        assert_eq!(State::parse(&state.to_text()), Ok(state));
        true
    });
}

#[test]
fn current_launchers() {
    fuzz("current", corpus("current"), |bytes| {
        let Some(Ok(current)) = text(bytes).map(Current::parse) else { return false };
        assert_eq!(Current::parse(&current.to_text()), Ok(current));
        true
    });
}

#[test]
fn what_other_players_say_they_have() {
    fuzz("status", corpus("status"), |bytes| {
        let Some(status) = Status::parse(bytes) else { return false };
        assert_eq!(Status::parse(&status.to_bytes()), Some(status));
        true
    });
}

#[test]
fn journals() {
    fuzz("journal", corpus("journal"), |bytes| !journal::parse::<Record>(bytes).is_empty());
}

#[test]
fn journal_records() {
    let target = Target {
        manifest: "ab".repeat(32),
        torrent: "cd".repeat(32),
        version: "2.0".into(),
        sequence: 2,
    };
    let put = |to: &str| Place::Put { slot: 1, to: to.into(), replace: true, executable: false };
    let work = Transaction {
        target: target.clone(),
        clear: vec![Clear { from: "a/b".into(), slot: Slot::Old(0), mtime_ns: Some(-5) }],
        place: vec![put("a/b"), put("c")],
        ending: Ending::Keep,
    };
    let records = [
        Record::Staging { release: target, ahead: true },
        Record::Staged { transaction: work },
        Record::Cleared,
        Record::Committed,
    ];
    let good = records.iter().map(|record| serde_json::to_vec(record).expect("it can be written"));
    fuzz("journal-record", good.collect(), |bytes| {
        let Ok(record) = serde_json::from_slice::<Record>(bytes) else { return false };
        let again = serde_json::to_vec(&record).expect("it can be written");
        assert_eq!(serde_json::from_slice::<Record>(&again).expect("it reads its own"), record);
        true
    });
}

#[test]
fn key_files() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let path = dir.path().join("key");
    fuzz("key", corpus("key"), |bytes| {
        std::fs::write(&path, bytes).expect("it can be written");
        let Ok(Some(seen)) = key_file::look(&path) else { return false };
        if let Some(Ok(key)) = text(bytes).map(SecretKey::parse) {
            assert_eq!((key.role(), key.public()), (seen.role, seen.public));
            assert!(
                SecretKey::parse(&key.to_text()).is_ok_and(|again| again.public() == key.public())
            );
        }
        true
    });
}
