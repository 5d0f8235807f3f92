//! The cases of The Update Framework's conformance suite that do not concern delegations, one by one, each
//! against this client. What that suite says of `timestamp` and `snapshot` concerns the head here, what it says
//! of `targets` concerns manifests.
//!
//! Not here, because there is nothing to test: roots do not expire (the head alone says what is news, and
//! `expired root` shows that an old root changes nothing about that); hashes of roots and heads by other
//! documents (nothing names them but the feed's fingerprint). Endless answers are cut off while they are read:
//! `launcher: http`, and `tests/trust/thieves.rs`.

mod heads;
mod manifests;
mod roots;
mod signatures;

use super::*;
use crate::keys::SecretKey;
use crate::testing::{NOW, World, name};

/// A client in the state that the steps before left it in, and who signs for it.
struct Client {
    world: World,
    state: TrustState,
    root: Root,
    head: Option<AcceptedHead>,
}

type Outcome = Result<(), TrustError>;

impl Client {
    /// One that was told a feed and walked to root 1.
    fn new() -> Self {
        let world = World::new();
        let state = TrustState::new(&world.feed());
        let mut client = Self { root: world.root(), world, state, head: None };
        let first = client.signed(Role::Root, &client.root, &[&client.world.root_key]);
        client.take_root(&first).unwrap();
        client
    }

    fn signed<T: crate::document::Payload>(
        &self,
        role: Role,
        payload: &T,
        keys: &[&SecretKey],
    ) -> Vec<u8> {
        Signed::create(role, payload, keys).unwrap().to_bytes()
    }

    fn take_root(&mut self, bytes: &[u8]) -> Outcome {
        self.state = self.state.accept_root(bytes)?.0;
        Ok(())
    }

    fn take_head(&mut self, bytes: &[u8]) -> Outcome {
        self.take_head_at(bytes, NOW + 60)
    }

    fn take_head_at(&mut self, bytes: &[u8], unix: u64) -> Outcome {
        let (state, head) = self.state.accept_head(bytes, Time::from_unix(unix))?;
        (self.state, self.head) = (state, Some(head));
        Ok(())
    }

    /// The manifest that the newest head names.
    fn take_manifest(&mut self, bytes: &[u8]) -> Outcome {
        let head = self.head.as_ref().expect("a head was taken");
        self.state = self.state.accept_manifest(head, &head.head.releases[0], bytes)?.0;
        Ok(())
    }

    /// The next root, changed, signed by `keys`.
    fn next_root(&mut self, keys: &[&SecretKey], change: impl FnOnce(&mut Root)) -> Outcome {
        let mut root = self.root.clone();
        root.version += 1;
        change(&mut root);
        let bytes = self.signed(Role::Root, &root, keys);
        self.take_root(&bytes)?;
        self.root = root;
        Ok(())
    }

    /// A root that both keys sign and that names the new one alone.
    fn replace_root_key(&mut self) -> Result<SecretKey, TrustError> {
        let new = key(Role::Root, 66);
        self.next_root(&[&key(Role::Root, 11), &new], |root| {
            root.roles.root.keys = [new.public()].into();
        })?;
        Ok(new)
    }

    /// From now on the first root key and the one that is given have to sign.
    fn need_two_root_keys(&mut self) -> Result<SecretKey, TrustError> {
        let second = key(Role::Root, 66);
        self.next_root(&[&key(Role::Root, 11), &second], |root| {
            root.roles.root.keys.insert(second.public());
            root.roles.root.threshold = 2;
        })?;
        Ok(second)
    }

    fn head_bytes(&self, change: impl FnOnce(&mut Head)) -> Vec<u8> {
        let mut head = self.world.head();
        change(&mut head);
        self.signed(Role::Head, &head, &[&self.world.head_key])
    }

    /// Root 2 asks for so many of these head keys.
    fn with_head_keys(threshold: u32, keys: &[&SecretKey]) -> Self {
        let mut client = Self::new();
        let signer = key(Role::Root, 11);
        client
            .next_root(&[&signer], |root| {
                root.roles.head =
                    KeySet { threshold, keys: keys.iter().map(|k| k.public()).collect() };
            })
            .unwrap();
        client
    }

    /// One that installed release 2 of head 2.
    fn on_release_2() -> Self {
        let mut client = Self::new();
        client.offer(2, |_| {}).unwrap();
        client
    }

    /// A head of that sequence, and the manifest of the same, which it names.
    fn offer(&mut self, sequence: u64, change: impl FnOnce(&mut Manifest)) -> Outcome {
        let mut manifest = self.world.manifest();
        manifest.sequence = sequence;
        change(&mut manifest);
        let mut head = self.world.head_of(&manifest);
        head.sequence = sequence;
        let head = self.signed(Role::Head, &head, &[&self.world.head_key]);
        self.take_head(&head)?;
        let manifest = self.signed(Role::Release, &manifest, &[&self.world.release_key]);
        self.take_manifest(&manifest)
    }
}

fn key(role: Role, seed: u8) -> SecretKey {
    SecretKey::from_random(role, [seed; 32])
}

/// The signed text with its header changed.
fn with_header(bytes: &[u8], change: impl FnOnce(&str) -> String) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    let (header, payload) = text.split_once("+++\n").unwrap();
    format!("{}+++\n{payload}", change(header)).into_bytes()
}

/// The signed text with its payload changed, so that no signature fits.
fn with_payload(bytes: &[u8], change: impl FnOnce(&str) -> String) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    let (header, payload) = text.split_once("+++\n").unwrap();
    format!("{header}+++\n{}", change(payload)).into_bytes()
}

fn signature_block(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap();
    let header = text.split_once("+++\n").unwrap().0;
    format!("[[signatures]]{}", header.split_once("[[signatures]]").unwrap().1)
}

/// Name, what happens, and how the refusal begins in debug form; nothing where it has to be accepted.
type Case = (&'static str, fn() -> (Client, Outcome), &'static str);

/// A case in which the last step decides.
fn then(mut client: Client, step: impl FnOnce(&mut Client) -> Outcome) -> (Client, Outcome) {
    let outcome = step(&mut client);
    (client, outcome)
}

#[test]
fn every_case_holds() {
    for (what, case, refusal) in signatures::SIGNATURES
        .iter()
        .chain(roots::ROOTS)
        .chain(heads::HEADS)
        .chain(manifests::MANIFESTS)
    {
        let (mut client, outcome) = case();
        match &outcome {
            Ok(()) => assert_eq!(*refusal, "", "{what}: it was accepted"),
            Err(error) => {
                let found = format!("{error:?}");
                assert!(!refusal.is_empty(), "{what}: refused with {error}");
                assert!(found.starts_with(refusal), "{what}: {found}");
            }
        }
        // What was refused, and what was accepted, keeps nobody from the studio's next release, also after
        // the state was stored and read again.
        client.state = TrustState::parse(client.state.to_text().as_bytes()).unwrap();
        let honest = honest_next(&mut client);
        assert!(honest.is_ok(), "{what}: then the next release: {honest:?}");
    }
}

/// The studio goes on from whatever the client believes: a root with its own keys, a head and a manifest above
/// what was seen.
fn honest_next(client: &mut Client) -> Outcome {
    client.world.release_key = key(Role::Release, 12);
    if client.state.root().is_none() {
        let first = client.signed(Role::Root, &client.world.root(), &[&client.world.root_key]);
        client.take_root(&first)?;
    }
    let known = client.state.root().unwrap().clone();
    let root_keys: Vec<_> = [11, 66].map(|seed| key(Role::Root, seed)).into();
    let mut root = Root { version: known.version + 1, ..client.world.root() };
    root.created = Time::from_unix(NOW);
    let bytes = client.signed(Role::Root, &root, &root_keys.iter().collect::<Vec<_>>());
    client.take_root(&bytes)?;
    let floor = |floor: Option<Floor>| floor.map_or(0, |floor| floor.sequence);
    let seen = floor(client.state.manifest_floor(&name("any"), &name("stable")));
    let mut manifest = client.world.manifest();
    manifest.sequence = seen + 1;
    let mut head = client.world.head_of(&manifest);
    head.sequence = floor(client.state.head_floor()) + 1;
    // The last case may have moved the client's clock on.
    head.created = client.state.fix_time(Time::from_unix(NOW + 60));
    head.expires = head.created.after(1000);
    let bytes = client.signed(Role::Head, &head, &[&client.world.head_key]);
    client.take_head(&bytes)?;
    let bytes = client.signed(Role::Release, &manifest, &[&client.world.release_key]);
    client.take_manifest(&bytes)
}
