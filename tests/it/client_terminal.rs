//! The commands, as people use them: on a terminal, with prompts, progress and colours.

use std::fs;

use crate::support::{Client, server};

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";

#[tokio::test]
async fn a_person_registers_deploys_and_deletes_at_a_terminal() {
    let person = Client::of(server().await);
    let name = format!("terminal-{}", std::process::id());
    let mut terminal = person.on_terminal("", &["register"]);
    for (question, answer, is_secret) in [
        ("Full name", "Grace Hopper".to_owned(), false),
        ("User name", name.clone(), false),
        ("E-mail", format!("{name}@example.org"), false),
        ("Password", "correct horse battery".to_owned(), true),
        ("Again", "correct horse battery".to_owned(), true),
    ] {
        terminal.expect(question).await;
        if is_secret {
            terminal.hides().await;
        }
        terminal.type_in(&format!("{answer}\r"));
    }
    let (code, screen) = terminal.end().await;
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains(&format!("as {name}")), "{screen}");
    assert!(!screen.contains("correct horse"), "the password was shown: {screen}");

    let mut terminal = person.on_terminal("", &["init", "hello"]);
    terminal.expect("worker").await;
    // One down: TypeScript.
    terminal.type_in("\x1b[B\r");
    let (code, screen) = terminal.end().await;
    assert_eq!(code, 0, "{screen}");
    assert!(person.dir().join("hello/tsconfig.json").exists(), "{screen}");
    person.write("hello/index.ts", "export default (): string => 'hello'");
    fs::remove_file(person.dir().join("hello/package.json")).unwrap();

    let (code, screen) = person.on_terminal("hello", &["deploy"]).end().await;
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("Sending hello") && screen.contains("✓"), "{screen}");
    assert!(screen.contains("hello v1 is live") && screen.contains(GREEN), "{screen}");
    let (code, screen) = person.on_terminal("hello", &["invoke", "."]).end().await;
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("200") && screen.contains("hello"), "{screen}");

    let mut terminal = person.on_terminal("", &["delete", "hello"]);
    terminal.expect("Delete hello").await;
    terminal.type_in("n");
    let (code, screen) = terminal.end().await;
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains("nothing was changed"), "{screen}");
    // Ctrl-C is a no, and leaves the terminal as it was.
    let mut terminal = person.on_terminal("", &["delete", "hello"]);
    terminal.expect("Delete hello").await;
    terminal.hides().await;
    terminal.type_in("\x03");
    let (code, screen) = terminal.end().await;
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains("nothing was changed"), "{screen}");
    assert!(screen.rfind("\x1b[?25h") > screen.rfind("\x1b[?25l"), "{screen}");
    let mut terminal = person.on_terminal("", &["delete", "hello"]);
    terminal.expect("Delete hello").await;
    terminal.type_in("y");
    let (code, screen) = terminal.end().await;
    assert_eq!(code, 0, "{screen}");
}

#[tokio::test]
async fn a_failure_is_red_on_a_terminal_unless_colours_are_unwanted() {
    let person = Client::of(server().await);
    let (code, screen) = person.on_terminal("", &["whoami"]).end().await;
    assert_eq!(code, 3, "{screen}");
    assert!(screen.contains(RED) && screen.contains("cloudserve login"), "{screen}");
    let person = person.with("NO_COLOR", "1");
    let (_, screen) = person.on_terminal("", &["whoami"]).end().await;
    assert!(!screen.contains('\x1b') && screen.contains("cloudserve login"), "{screen}");
}

#[tokio::test]
async fn a_password_can_be_given_up() {
    let person = Client::of(server().await);
    let mut terminal = person.on_terminal("", &["login", "--user", "ada"]);
    terminal.expect("Password").await;
    terminal.hides().await;
    terminal.type_in("\x03");
    let (code, screen) = terminal.end().await;
    assert_ne!(code, 0, "{screen}");
    assert!(!person.config_dir().exists());
}

#[tokio::test]
async fn no_secret_is_read_where_it_would_be_seen() {
    let person = Client::of(server().await);
    for args in ["login --user ada", "login --key", "env set TOKEN --function f"] {
        let line = format!("\"$0\" {args} 2>log; echo code $?");
        let (_, screen) = person.shell_on_terminal(&line).end().await;
        assert!(screen.contains("code 2"), "{args}: {screen}");
        let told = fs::read_to_string(person.dir().join("log")).unwrap();
        assert!(told.contains("standard error"), "{args}: {told}");
    }
}

#[tokio::test]
async fn a_question_that_is_given_up_leaves_a_terminal_that_shows_what_is_typed() {
    let person = Client::of(server().await);
    // The trap keeps the shell, and is none of the program's.
    let line = "trap : INT; \"$0\" login --user ada; echo code $?; stty -a";
    let mut terminal = person.shell_on_terminal(line);
    terminal.expect("Password").await;
    terminal.hides().await;
    terminal.type_in("\x03");
    terminal.expect("code 130").await;
    terminal.expect(" echo ").await;
    terminal.end().await;
}
