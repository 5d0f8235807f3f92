//! Keys that do not lie open: sealed with a passphrase, or on another machine.

use super::World;
use std::fs;
use std::path::Path;
use std::process::Command;
use updraft_tests::content;
use updraft_tests::ours::{Place, TRANSFER_WAIT};
use updraft_tests::process::Proc;

const PASSPHRASE: &str = "correct horse battery";

impl World {
    /// A command of the publisher with variables in its environment.
    fn publisher_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Proc {
        let mut command = self.product.command(arguments[0]);
        command.args(&arguments[1..]).envs(variables.iter().copied());
        Proc::start("publisher", command)
    }

    /// The next build, and the arguments that publish it.
    fn next<'a>(&'a self, version: &'a str, seed: u64) -> [&'a str; 6] {
        content::write_file(&self.build.join("game.bin"), seed, 40_000);
        let build = self.build.to_str().expect("it is text");
        ["publish", build, "--version", version, "--channel", "stable"]
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("it can be written");
        text_of(&path)
    }
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("it is text").to_owned()
}

#[test]
fn sealed_keys_sign_for_who_has_the_passphrase() {
    let world = World::new();
    let right = world.file("passphrase", &format!("{PASSPHRASE}\n"));
    let seal =
        ["keys", "passphrase", "root", "release", "launcher", "--new-passphrase-file", &right];
    world.publisher(&seal).finish(TRANSFER_WAIT);
    let mut listed = world.publisher(&["--json", "keys", "list"]);
    listed.finish(TRANSFER_WAIT);
    let sealed = listed.json().iter().filter(|key| key["sealed"] == true).count();
    assert_eq!(sealed, 3, "seen without the passphrase");

    let publish = world.next("2.0", 2);
    let text = world.publisher(&publish).fails(TRANSFER_WAIT);
    assert!(text.contains("it is sealed: give its passphrase"), "{text}");
    let wrong = [("UPDRAFT_PASSPHRASE", "incorrect horse battery")];
    let text = world.publisher_with(&wrong, &publish).fails(TRANSFER_WAIT);
    assert!(text.contains("does not open it"), "{text}");
    world.publisher_with(&[("UPDRAFT_PASSPHRASE", PASSPHRASE)], &publish).finish(TRANSFER_WAIT);
    world.assert_newest(&world.install("anna"));

    let mut command = world.product.command("keys");
    command.args(["rotate", "root", "release", "launcher", "--passphrase-file", &right]);
    Proc::start("publisher", command).finish(TRANSFER_WAIT);
    let file = [("UPDRAFT_PASSPHRASE_FILE", right.as_str())];
    world.publisher_with(&file, &world.next("3.0", 3)).finish(TRANSFER_WAIT);
    world.assert_newest(&world.install("ben"));
    // Stolen files hold no secret.
    let keys = world.product.dir.join("keys");
    for name in ["root.key", "release.key", "launcher.key"] {
        let text = fs::read_to_string(keys.join(name)).expect("it is there");
        assert!(text.contains("sealed = ") && !text.contains("\nsecret = "), "{text}");
    }
}

#[test]
fn new_products_have_sealed_keys_or_are_told_what_it_means() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let init = |name: &str, passphrase: &str| {
        let mut command = Place::Here.publisher();
        command.arg("init").arg(dir.path().join(name)).args(["--product", "game"]);
        command.env("UPDRAFT_PASSPHRASE", passphrase);
        Proc::start("init", command)
    };
    let text = init("none", "").fails(TRANSFER_WAIT);
    assert!(text.contains("--no-passphrase"), "{text}");
    let text = init("short", "short").fails(TRANSFER_WAIT);
    assert!(text.contains("at least 12 characters"), "{text}");
    assert!(!dir.path().join("none").exists() && !dir.path().join("short").exists());
    init("good", PASSPHRASE).finish(TRANSFER_WAIT);
    let sealed = |name: &str| {
        let path = dir.path().join("good/keys").join(name);
        fs::read_to_string(path).expect("it is there").contains("sealed = ")
    };
    assert!(sealed("root.key") && sealed("release.key") && !sealed("head.key"));
}

/// Runs a program of the system to its end: what it printed.
pub(crate) fn system(program: &str, arguments: &[&str], dir: &Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.expect("it is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl World {
    /// Lets what the head names be signed by all that have to, then asks for two signatures from now on.
    fn ask_for_two(&self, sign_named: impl FnOnce(&str)) {
        let text = self.publisher(&["keys", "threshold", "release", "2"]).fails(TRANSFER_WAIT);
        assert!(text.contains("1 of the release keys that would count signed it"), "{text}");
        let manifests = self.product.repository().join("manifests");
        let named = fs::read_dir(manifests).expect("it is there").flatten().next();
        sign_named(&text_of(&named.expect("one was published").path()));
        self.publisher(&["keys", "threshold", "release", "2"]).finish(TRANSFER_WAIT);
    }

    fn waiting(&self) -> String {
        text_of(&self.product.dir.join("waiting/release-stable-any.toml"))
    }

    /// Publishes what has not all signatures: nothing goes live.
    fn publish_waits(&self, publish: &[&str]) {
        let mut proc = self.publisher(publish);
        assert_eq!(proc.wait_exit(TRANSFER_WAIT).code, Some(9), "{}", proc.text());
        assert!(proc.text().contains("waits for 1 more of the release keys"), "{}", proc.text());
    }
}

/// Makes a key that is no file of ours, `token.pem` in `dir`: its public half.
pub(crate) fn token(dir: &Path) -> String {
    system("openssl", &["genpkey", "-algorithm", "ed25519", "-out", "token.pem"], dir);
    let public = ["pkey", "-in", "token.pem", "-pubout", "-outform", "DER"];
    let public = system("openssl", &public, dir);
    public[public.len() - 32..].iter().map(|b| format!("{b:02x}")).collect()
}

/// OpenSSL is another implementation of Ed25519, and what somebody would begin with.
#[test]
fn a_program_signs_where_the_key_is_no_file_of_ours() {
    let world = World::new();
    let dir = world.dir.path();
    let public = token(dir);
    let key = ["keys", "new", "release", "--public", &public];
    world.publisher(&key).finish(TRANSFER_WAIT);

    let script = format!(
        "cat > {0}/message && openssl pkeyutl -sign -rawin -inkey {0}/token.pem -in {0}/message",
        dir.display()
    );
    let config = fs::read_to_string(world.product.config()).expect("it is there");
    let with = |script: &str| {
        let signers = format!("\n[signers]\nrelease = [\"sh\", \"-c\", \"{script}\"]\n");
        fs::write(world.product.config(), format!("{config}{signers}")).expect("it is written");
    };
    with(&script);
    world.ask_for_two(|named| world.publisher(&["sign", named]).finish(TRANSFER_WAIT));
    world.publish("2.0", 2);
    world.assert_newest(&world.install("anna"));

    with("echo 00");
    let text = world.publisher(&world.next("3.0", 3)).fails(TRANSFER_WAIT);
    assert!(text.contains("128 hexadecimal digits are expected"), "{text}");
    with("exit 3");
    let text = world.publisher(&world.next("3.0", 3)).fails(TRANSFER_WAIT);
    assert!(text.contains("which signs for the release role: it failed"), "{text}");
    // The key of the folder is taken to another machine: the program alone is not enough.
    with(&script);
    let away = dir.join("away.key");
    fs::rename(world.product.dir.join("keys/release.key"), &away).expect("it can be moved");
    world.publish_waits(&world.next("3.0", 3));
    let sign = ["sign", &world.waiting(), "--key", &text_of(&away)];
    world.publisher(&sign).finish(TRANSFER_WAIT);
    world.publisher(&world.next("3.0", 3)).finish(TRANSFER_WAIT);
    world.assert_newest(&world.install("ben"));
    world.publisher(&["verify"]).finish(TRANSFER_WAIT);
}

/// The second key lies on a machine that is on no network: documents go there and back by hand.
#[test]
fn two_people_sign_each_at_home() {
    let world = World::new();
    let laptop = world.dir.path().join("laptop");
    fs::create_dir(&laptop).expect("it can be made");
    let on_laptop = |arguments: &[&str]| {
        let mut command = Place::Here.publisher();
        command.args(arguments).current_dir(&laptop).env("UPDRAFT_PASSPHRASE", PASSPHRASE);
        let mut proc = Proc::start("on the laptop", command);
        proc.finish(TRANSFER_WAIT);
        proc.json()
    };
    let made = on_laptop(&["--json", "keys", "generate", "release", "mine.key"]);
    let public = made[0]["key"].as_str().expect("it is told").to_owned();
    world.publisher(&["keys", "new", "release", "--public", &public]).finish(TRANSFER_WAIT);
    world.ask_for_two(|named| drop(on_laptop(&["sign", named, "--key", "mine.key"])));

    world.publish_waits(&world.next("2.0", 2));
    world.publish_waits(&world.next("2.0", 2));
    let there = laptop.join("to-sign.toml");
    fs::copy(world.waiting(), &there).expect("it can be copied");
    on_laptop(&["sign", "to-sign.toml", "--key", "mine.key"]);
    // Another document does not get its signature.
    let back = text_of(&there);
    world.publish_waits(&world.next("2.1", 3));
    let merge = ["sign", &world.waiting(), "--from", &back];
    let text = world.publisher(&merge).fails(TRANSFER_WAIT);
    assert!(text.contains("its content differs"), "{text}");
    world.publish_waits(&world.next("2.0", 2));
    // It was made anew, with another time in it.
    fs::copy(world.waiting(), &there).expect("it can be copied");
    on_laptop(&["sign", "to-sign.toml", "--key", "mine.key"]);
    world.publisher(&merge).finish(TRANSFER_WAIT);
    world.publisher(&world.next("2.0", 2)).finish(TRANSFER_WAIT);
    world.assert_newest(&world.install("anna"));
    assert!(!Path::new(&world.waiting()).exists(), "it waits no more");
}
