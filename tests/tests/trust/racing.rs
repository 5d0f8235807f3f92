//! Two publisher's folders write to one repository: those of two machines that mount it, say.

use super::World;
use super::signing::system;
use std::fs;
use std::path::PathBuf;
use updraft_tests::content;
use updraft_tests::ours::{Place, Product, TRANSFER_WAIT};
use updraft_tests::process::Proc;

impl World {
    /// Another publisher's folder for the same repository, with the same keys.
    fn other_folder(&self) -> Product {
        let dir = self.dir.path().join("other");
        fs::create_dir_all(dir.join("keys")).expect("a folder can be made");
        for key in ["keys/release.key", "keys/head.key"] {
            fs::copy(self.product.dir.join(key), dir.join(key)).expect("it can be copied");
        }
        let text = format!("product = \"game\"\nrepository = {:?}\n", self.product.repository());
        let other = Product::at(&Place::Here, &dir);
        fs::write(other.config(), text).expect("it can be written");
        other
    }

    /// From now on a program signs releases, and says `asked to sign`. While the pipe that is returned
    /// exists, it waits for a line in it first.
    fn sign_slowly(&self) -> PathBuf {
        let dir = self.dir.path();
        let public = super::signing::token(dir);
        self.publisher(&["keys", "new", "release", "--public", &public]).finish(TRANSFER_WAIT);
        fs::remove_file(self.product.dir.join("keys/release.key")).expect("it was there");
        system("mkfifo", &["hold"], dir);
        let script = format!(
            "cd {} && cat > message && echo asked to sign >&2 && {{ test ! -p hold || read go < hold; }} && \
             openssl pkeyutl -sign -rawin -inkey token.pem -in message",
            dir.display()
        );
        let config = fs::read_to_string(self.product.config()).expect("it is there");
        let signers = format!("\n[signers]\nrelease = [\"sh\", \"-c\", \"{script}\"]\n");
        fs::write(self.product.config(), config + &signers).expect("it can be written");
        dir.join("hold")
    }
}

/// `publish` of another build from another folder.
fn publish(product: &Product, build: &str, version: &str) -> Proc {
    product.start_publish(build.as_ref(), version)
}

/// Ends the run, which has to say that another one was first, and what to do.
fn comes_second(mut proc: Proc, why: &str) {
    assert_eq!(proc.wait_exit(TRANSFER_WAIT).code, Some(8), "{}", proc.text());
    let text = proc.text();
    assert!(text.contains(why) && text.contains("run the same command again"), "{text}");
}

#[test]
fn of_two_publishers_one_comes_second_and_is_told() {
    let world = World::new();
    let (anna, other) = (world.install("anna"), world.other_folder());
    let hold = world.sign_slowly();
    let build = world.dir.path().join("other-build");
    content::write_file(&build.join("game.bin"), 3, 40_000);
    let build = build.to_str().expect("it is text");
    let is_other = || content::assert_same(build.as_ref(), &anna.dir, &[super::STATE_FOLDER]);

    content::write_file(&world.build.join("game.bin"), 2, 40_000);
    let first = world.product.start_publish(&world.build, "2.0");
    first.wait_line("asked to sign", TRANSFER_WAIT);
    comes_second(publish(&other, build, "2.1"), "is working on");
    // The file system's locks may not reach the other machine, or somebody tidies up.
    fs::remove_file(world.product.repository().join(".lock")).expect("it was there");
    publish(&other, build, "2.1").finish(TRANSFER_WAIT);
    anna.update(false).finish(TRANSFER_WAIT);
    is_other();

    // What both have signed as the second release would be believed by nobody who saw the other.
    fs::write(&hold, "go\n").expect("it can be written");
    comes_second(first, "has changed");
    anna.update(false).finish(TRANSFER_WAIT);
    is_other();
    fs::remove_file(&hold).expect("it is there");
    world.product.publish(&world.build, "2.0");
    anna.update(false).finish(TRANSFER_WAIT);
    world.assert_newest(&anna);
    world.publisher(&["verify"]).finish(TRANSFER_WAIT);
    // The other folder knows of it.
    publish(&other, build, "2.2").finish(TRANSFER_WAIT);
    anna.update(false).finish(TRANSFER_WAIT);
    is_other();
}
