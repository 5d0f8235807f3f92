//! Who signs at this machine: a key file, or a program that asks a hardware token, a vault or another
//! machine.
//!
//! Such a program gets what is to be signed on its standard input (the domain, the role and the payload,
//! as `updraft_manifests::keys` describes) and writes an Ed25519 signature: 64 bytes, or 128 hexadecimal
//! digits. What it answers counts only if it is the signature of a key that the root lists.

use crate::Error;
use crate::home::Home;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use updraft_manifests::document::{KeySet, Signed};
use updraft_manifests::hash::from_hex;
use updraft_manifests::keys::{Role, SecretKey};

/// The longest answer of a program in bytes: 128 digits and some white space.
const ANSWER_BYTES_MAX: usize = 256;

/// What can sign documents of one role here.
#[derive(Debug)]
pub struct Signers {
    role: Role,
    key: Option<SecretKey>,
    key_path: PathBuf,
    program: Vec<String>,
    dir: PathBuf,
}

impl Signers {
    /// The key in the configured file, if there is one, and the configured program.
    ///
    /// # Errors
    /// [`Error::Key`] for a file that cannot be used.
    pub fn at_hand(home: &Home, role: Role) -> Result<Self, Error> {
        let key_path = home.key_path(role);
        let key = key_path.exists().then(|| home.key(role)).transpose()?;
        let program = home.config.signers.of(role).to_vec();
        Ok(Self { role, key, key_path, program, dir: home.dir.clone() })
    }

    /// What they sign.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Signs with the key that is here, with the keys of this role in `also`, and asks the program while
    /// `sets` need more.
    ///
    /// # Errors
    /// [`Error::Key`] for a key that none of `sets` has; [`Error::Signer`].
    pub fn sign(
        &self,
        document: &mut Signed,
        sets: &[&KeySet],
        also: &[&SecretKey],
    ) -> Result<(), Error> {
        let also = also.iter().copied().filter(|key| key.role() == self.role);
        for key in self.key.iter().chain(also) {
            if !sets.iter().any(|set| set.keys.contains(&key.public())) {
                return Err(Error::Key {
                    role: self.role.as_str(),
                    path: self.key_path.clone(),
                    why: format!(
                        "the root does not list {}: is it the key that `init` made for this repository? \
                         See `keys list`",
                        key.public()
                    ),
                });
            }
            document.sign(key);
        }
        if self.program.is_empty() || missing(document, sets) == 0 {
            return Ok(());
        }
        let signature = self.ask(&document.message())?;
        let mut keys = sets.iter().flat_map(|set| &set.keys);
        if keys.any(|key| document.add(key, &signature)) {
            return Ok(());
        }
        let why =
            "what it answered is not a signature of a key that the root lists: see `keys list`";
        Err(self.failed(why.to_owned()))
    }

    fn ask(&self, message: &[u8]) -> Result<[u8; 64], Error> {
        let failed = |error: std::io::Error| self.failed(error.to_string());
        let mut child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .current_dir(&self.dir)
            .env("UPDRAFT_ROLE", self.role.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        let mut answer = Vec::new();
        std::thread::scope(|scope| {
            // One that answers without reading to the end closes its input: its answer counts.
            scope.spawn(move || drop(stdin.write_all(message)));
            stdout.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut answer)
        })
        .map_err(failed)?;
        let status = child.wait().map_err(failed)?;
        if !status.success() {
            return Err(self.failed(format!("it failed ({status})")));
        }
        let text = std::str::from_utf8(&answer).unwrap_or_default().trim().to_ascii_lowercase();
        let signature = answer.as_slice().try_into().ok().or_else(|| from_hex(&text));
        signature.ok_or_else(|| {
            let expected = "64 bytes or 128 hexadecimal digits are expected on its output";
            self.failed(format!("it answered {} bytes; {expected}", answer.len()))
        })
    }

    fn failed(&self, why: String) -> Error {
        Error::Signer { role: self.role.as_str(), program: self.program.join(" "), why }
    }
}

/// How many signatures `document` lacks, in the set that lacks most.
pub fn missing(document: &Signed, sets: &[&KeySet]) -> usize {
    let lacks = |set: &&KeySet| (set.threshold as usize).saturating_sub(document.signed_by(set));
    sets.iter().map(lacks).max().unwrap_or(0)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use updraft_manifests::keys::PublicKey;

    fn ask(script: &str) -> Result<[u8; 64], Error> {
        let program = ["sh", "-c", script].map(str::to_owned).to_vec();
        let (role, dir) = (Role::Release, std::env::temp_dir());
        let signers = Signers { role, key: None, key_path: PathBuf::new(), program, dir };
        signers.ask(&vec![b'x'; 1 << 20])
    }

    #[test]
    fn answers_are_read_whatever_the_program_does_with_its_input() {
        assert_eq!(ask("head -c 64").unwrap(), [b'x'; 64]);
        assert_eq!(ask("cat >/dev/null; printf '%0128d\\n' 0").unwrap(), [0; 64]);
        let check = |script: &str, why: &str| {
            let error = ask(script).unwrap_err();
            assert_eq!(error.exit_code(), crate::exit::KEY);
            assert!(error.to_string().contains(why), "{error}");
        };
        check("echo no", "3 bytes");
        check("cat >/dev/null", "0 bytes");
        check("yes | head -c 100000; exit 3", "release");
        check("cat >/dev/null; exit 3", "failed");
    }

    #[test]
    fn what_is_no_signature_of_a_listed_key_does_not_count() {
        let key = SecretKey::from_random(Role::Head, [3; 32]);
        let set = KeySet { threshold: 1, keys: [key.public()].into() };
        let bytes = b"updraft-document = 1\nrole = \"head\"\n+++\npayload";
        let mut document = Signed::parse(Role::Head, bytes).unwrap();
        let program = ["sh", "-c", "head -c 64 /dev/zero"].map(str::to_owned).to_vec();
        let (role, dir) = (Role::Head, std::env::temp_dir());
        let signers = Signers { role, key: None, key_path: PathBuf::new(), program, dir };
        let error = signers.sign(&mut document, &[&set], &[]).unwrap_err();
        assert!(error.to_string().contains("not a signature of a key"), "{error}");
        assert_eq!(missing(&document, &[&set]), 1);
        document.sign(&key);
        signers.sign(&mut document, &[&set], &[]).unwrap();
        let stranger = SecretKey::from_random(Role::Head, [4; 32]);
        let error = signers.sign(&mut document, &[&set], &[&stranger]).unwrap_err();
        assert!(error.to_string().contains("does not list"), "{error}");
        assert_eq!(document.signers().collect::<Vec<&PublicKey>>(), [&key.public()]);
    }
}
