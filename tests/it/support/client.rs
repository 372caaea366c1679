//! Somebody who uses `cloudserve` from a shell, a script or a terminal.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};
use serde_json::Value;
use tempfile::TempDir;

use super::process::cloudserve;
use super::server::TestServer;
use super::wait_for;

/// A home directory, a working directory and an environment.
pub(crate) struct Client {
    home: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Client {
    /// Somebody who knows where the server is, and nothing else.
    pub(crate) fn of(server: &TestServer) -> Self {
        Self::knowing(&[("CLOUDSERVE_URL", &server.api)])
    }

    /// Somebody with this environment.
    pub(crate) fn knowing(variables: &[(&'static str, &str)]) -> Self {
        let home = tempfile::Builder::new().prefix("client-").tempdir().unwrap();
        fs::create_dir(home.path().join("work")).unwrap();
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Self { home, variables: variables.collect() }
    }

    /// The same person with one more variable.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// The working directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// The settings of this person.
    pub(crate) fn config_dir(&self) -> PathBuf {
        self.home.path().join("config/cloudserve")
    }

    /// Writes a file below the working directory.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A command in a folder below the working directory.
    pub(crate) fn command(&self, folder: &str, args: &[&str]) -> Command {
        let mut command = cloudserve();
        command
            .args(args)
            .current_dir(self.dir().join(folder))
            .env_remove("NO_COLOR")
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .envs(self.variables.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// Runs a command to its end; `input` is its standard input.
    pub(crate) fn run_in(&self, folder: &str, args: &[&str], input: &[u8]) -> Run {
        let mut child = self
            .command(folder, args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing has closed it by now.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap().into()
    }

    /// Runs a command without any input.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.run_in("", args, b"")
    }

    /// Runs a command with `--json`; gives what it printed. It must succeed.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.json_in("", args, b"")
    }

    /// The same in a folder and with an input.
    #[track_caller]
    pub(crate) fn json_in(&self, folder: &str, args: &[&str], input: &[u8]) -> Value {
        let run = self.run_in(folder, &[args, &["--json"]].concat(), input);
        assert_eq!(run.code, 0, "{args:?}: {run:#?}");
        run.json()
    }

    /// Runs a command on a terminal.
    pub(crate) fn on_terminal(&self, folder: &str, args: &[&str]) -> Terminal {
        Terminal::start(&self.command(folder, args))
    }

    /// Runs a line of shell on a terminal; `$0` is the program.
    pub(crate) fn shell_on_terminal(&self, line: &str) -> Terminal {
        let program = self.command("", &[]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line).arg(program.get_program()).current_dir(self.dir());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        Terminal::start(&shell)
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Run {
    /// Standard output, which must be one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// The same run if it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

/// A command on a pseudo-terminal.
pub(crate) struct Terminal {
    child: Box<dyn portable_pty::Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    master: Box<dyn MasterPty + Send>,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
    /// Up to here it was looked at.
    seen: usize,
}

impl Terminal {
    fn start(command: &Command) -> Self {
        let size = PtySize { rows: 40, cols: 120, ..PtySize::default() };
        let pty = native_pty_system().openpty(size).unwrap();
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.cwd(command.get_current_dir().unwrap_or(Path::new(".")));
        builder.env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => builder.env(name, value),
                None => builder.env_remove(name),
            }
        }
        let child = pty.slave.spawn_command(builder).unwrap();
        drop(pty.slave);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let mut output = pty.master.try_clone_reader().unwrap();
        let keyboard = pty.master.take_writer().unwrap();
        let reader = {
            let screen = screen.clone();
            thread::spawn(move || {
                let mut piece = [0; 4096];
                // The end is an error: nobody has the other side open any more.
                while let Ok(n @ 1..) = output.read(&mut piece) {
                    screen.lock().unwrap().extend_from_slice(&piece[..n]);
                }
            })
        };
        Self { child, keyboard, master: pty.master, screen, reader, seen: 0 }
    }

    /// Everything it has shown.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until it shows this, after what was waited for before.
    pub(crate) async fn expect(&mut self, text: &str) {
        let seen = self.seen;
        self.seen = wait_for(&format!("{text:?} on the terminal"), || {
            let screen = self.screen();
            let found = screen.get(seen..).and_then(|new| new.find(text));
            async move { found.map(|at| seen + at + text.len()) }
        })
        .await;
    }

    /// Waits until it does not show what is typed. What was typed before is thrown away then.
    pub(crate) async fn hides(&self) {
        let fd = self.master.as_raw_fd().unwrap();
        wait_for("the terminal to hide what is typed", || {
            // SAFETY: all its fields are numbers, and zero is one.
            let mut settings: libc::termios = unsafe { std::mem::zeroed() };
            // SAFETY: the descriptor is open, and the pointer is valid for the call.
            let done = unsafe { libc::tcgetattr(fd, &raw mut settings) };
            assert_eq!(done, 0);
            let is_hidden = settings.c_lflag & libc::ECHO == 0;
            async move { is_hidden.then_some(()) }
        })
        .await;
    }

    /// Types something.
    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits until it ends; gives its code and all it has shown.
    pub(crate) async fn end(mut self) -> (u32, String) {
        let child = &mut self.child;
        let status = wait_for("the command on the terminal to end", || {
            let status = child.try_wait().unwrap();
            async move { status }
        })
        .await;
        drop(self.keyboard);
        self.reader.join().unwrap();
        let screen = String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned();
        (status.exit_code(), screen)
    }
}
