//! Passphrases that are asked for at a terminal.

use super::World;
use std::process::Command;
use updraft_tests::content;
use updraft_tests::ours::{Place, READY_WAIT, TRANSFER_WAIT};
use updraft_tests::terminal::Terminal;

const PASSPHRASE: &str = "correct horse battery";

impl World {
    fn at_terminal(&self, arguments: &[&str]) -> Terminal {
        let mut command = self.product.command(arguments[0]);
        command.args(&arguments[1..]);
        Terminal::start(&command)
    }

    /// Seals the release key, at a terminal.
    fn seal(&self) {
        let mut seal = self.at_terminal(&["keys", "passphrase", "release"]);
        answer(&mut seal, "new passphrase: ", PASSPHRASE);
        answer(&mut seal, "once more: ", PASSPHRASE);
        assert_eq!(end(seal).0, 0);
    }
}

fn answer(terminal: &mut Terminal, question: &str, answer: &str) {
    terminal.wait(question, READY_WAIT);
    assert!(!terminal.is_as_usual(), "what is typed would be shown");
    terminal.type_in(&format!("{answer}\n"));
}

/// The exit code and what was shown: no passphrase.
fn end(terminal: Terminal) -> (i32, String) {
    let (code, shown) = terminal.finish();
    assert!(!shown.contains(PASSPHRASE) && !shown.contains("tr0ub4dor"), "{shown}");
    (code, shown)
}

fn init(dir: &std::path::Path) -> Terminal {
    let mut command: Command = Place::Here.publisher();
    command.arg("init").arg(dir).args(["--product", "game"]);
    command.env_remove("UPDRAFT_PASSPHRASE");
    Terminal::start(&command)
}

#[test]
fn new_keys_are_sealed_with_what_was_said_twice() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let studio = dir.path().join("studio");
    // Too short, then not the same twice, then right.
    let mut terminal = init(&studio);
    answer(&mut terminal, "new passphrase: ", "tr0ub4dor");
    answer(&mut terminal, "at least 12 characters: five words do\r\nnew passphrase: ", PASSPHRASE);
    answer(&mut terminal, "once more: ", "tr0ub4dor & more");
    answer(&mut terminal, "the two differ\r\nnew passphrase: ", PASSPHRASE);
    answer(&mut terminal, "once more: ", PASSPHRASE);
    let (code, shown) = end(terminal);
    assert_eq!(code, 0, "{shown}");
    let key = std::fs::read_to_string(studio.join("keys/root.key")).expect("it is there");
    assert!(key.contains("sealed = "), "{key}");

    // Three times wrong is enough; nothing is left that would be in the way.
    let other = dir.path().join("other");
    let mut terminal = init(&other);
    for question in ["new passphrase: ", "new passphrase: ", "new passphrase: "] {
        answer(&mut terminal, question, "tr0ub4dor");
    }
    let (code, shown) = end(terminal);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("nothing was changed"), "{shown}");
    let mut terminal = init(&other);
    answer(&mut terminal, "new passphrase: ", PASSPHRASE);
    answer(&mut terminal, "once more: ", PASSPHRASE);
    assert_eq!(end(terminal).0, 0);
}

#[test]
fn a_sealed_key_signs_for_who_types_its_passphrase() {
    let world = World::new();
    let anna = world.install("anna");
    world.seal();
    content::write_file(&world.build.join("game.bin"), 2, 40_000);
    let build = world.build.to_str().expect("it is text");
    let publish = ["publish", build, "--version", "2.0", "--channel", "stable"];

    let mut terminal = world.at_terminal(&publish);
    for question in
        ["passphrase of the release key", "that does not open it", "that does not open it"]
    {
        answer(&mut terminal, question, "tr0ub4dor");
    }
    let (code, shown) = end(terminal);
    assert_eq!(code, 5, "{shown}");
    assert!(shown.contains("none of 3 passphrases opens it"), "{shown}");
    anna.update(false).finish(TRANSFER_WAIT);

    let mut terminal = world.at_terminal(&publish);
    answer(&mut terminal, "passphrase of the release key", "tr0ub4dor");
    answer(&mut terminal, "that does not open it\r\npassphrase of", PASSPHRASE);
    let (code, shown) = end(terminal);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(
        shown.matches("passphrase of").count(),
        2,
        "asked for once more than wrong: {shown}"
    );
    anna.update(false).finish(TRANSFER_WAIT);
    world.assert_newest(&anna);

    // One more key beside it, sealed as it is made.
    let spare = world.dir.path().join("spare.key");
    let mut terminal =
        world.at_terminal(&["keys", "new", "release", spare.to_str().expect("it is text")]);
    answer(&mut terminal, "new passphrase: ", PASSPHRASE);
    answer(&mut terminal, "once more: ", PASSPHRASE);
    let (code, shown) = end(terminal);
    assert_eq!(code, 0, "{shown}");
}

#[test]
fn ctrl_c_leaves_the_terminal_as_it_was() {
    let world = World::new();
    world.seal();
    let build = world.build.to_str().expect("it is text");
    let publish = ["publish", build, "--version", "2.0", "--channel", "stable"];
    let spare = world.dir.path().join("spare.key");
    let spare = spare.to_str().expect("it is text");
    for (arguments, question) in [
        (&publish[..], "passphrase of the release key"),
        (&["keys", "new", "release", spare], "new passphrase"),
    ] {
        let mut terminal = world.at_terminal(arguments);
        terminal.wait(question, READY_WAIT);
        assert!(!terminal.is_as_usual());
        terminal.type_in("half a passphr\x03");
        terminal.wait("stopped", READY_WAIT);
        assert!(terminal.is_as_usual(), "it shows what is typed again");
        assert_eq!(end(terminal).0, 130);
    }
    // Ctrl-D is no answer, either.
    let mut terminal = world.at_terminal(&publish);
    terminal.wait("passphrase of the release key", READY_WAIT);
    terminal.type_in("\x04");
    let (code, shown) = end(terminal);
    assert_eq!(code, 5, "{shown}");
    assert!(shown.contains("no passphrase"), "{shown}");
    world.assert_newest(&world.install("anna"));
    world.publisher(&["verify"]).finish(TRANSFER_WAIT);
}
