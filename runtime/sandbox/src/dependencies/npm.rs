//! One run of npm: a child in a directory of its own, with an environment of its own, for a
//! bounded time, in a bounded space, without children. What it downloads goes into a directory that builds
//! share; how much one may add to it is bounded as well.
//!
//! Anybody may publish a package that depends on a repository, an address or a directory. npm would
//! fetch it from wherever that is, as this host, and run git for it with what the repository says of
//! git; so it is told to ask the registry and nobody else.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cloudserve_protocol::build::DependencyError;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use semver::Version;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tracing::{error, warn};
use walkdir::WalkDir;

use super::alone::keep_alone;
use super::lost::lost;
use super::turns::DOWNLOADS;

/// What of npm's output is kept.
const MAX_OUTPUT_BYTES: u64 = 256 * 1024;

/// How often the directory is measured while npm writes to it.
const MEASURE_EVERY: Duration = Duration::from_millis(500);

/// And how often at most what npm keeps of its downloads: a run that is over sooner is not worth it.
const DOWNLOADS_EVERY: Duration = Duration::from_secs(5);

/// They may be a hundred thousand files: it is for so many times as long that they are not looked at again.
const DOWNLOADS_SHARE: u32 = 20;

/// npm's own place in the directory of a build.
const HOME: &str = ".home";

/// Variables of the service that npm needs to reach a registry.
const PASSED_ON: [&str; 10] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PATH",
];

/// The first npm that takes all of [`ARGUMENTS`]: an older one passes over those it does not know.
const OLDEST: Version = Version::new(11, 15, 0);

/// With every run. No script of a package runs, and nothing is fetched but from the registry. What an
/// argument says, no file can change.
const ARGUMENTS: [&str; 12] = [
    "--ignore-scripts",
    "--allow-git=none",
    "--allow-remote=none",
    "--allow-file=none",
    "--allow-directory=none",
    "--no-bin-links",
    "--no-audit",
    "--no-fund",
    "--no-progress",
    "--omit=dev",
    "--loglevel=error",
    "--update-notifier=false",
];

/// How the directory of a run's log begins: lines that name it are not told.
const LOGS: &str = "_logs";

/// Logs in the directory of one run, which has one. Said so that no configuration says none.
const LOGS_KEPT: &str = "10";

/// What npm would run for git. Nothing can be there.
const NO_GIT: &str = "/dev/null/git";

/// Where npm is and what it may use.
#[derive(Debug, Clone)]
pub(super) struct Npm {
    pub(super) program: PathBuf,
    pub(super) user_config: Option<PathBuf>,
    pub(super) cache_dir: PathBuf,
    /// For all the runs that resolve a specification, and again for those that install it.
    pub(super) timeout: Duration,
    pub(super) tree_bytes: u64,
    pub(super) tree_files: u32,
    /// What it may have beside the tree.
    pub(super) home_bytes: u64,
    /// What may be added to its downloads during one run. 0: no bound.
    pub(super) download_bytes: u64,
}

/// Ends the whole process group with the child, also when the build is cancelled.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by now; there is nobody to tell.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Npm {
    /// When runs that belong together, and of which the first begins now, have to be over.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Refuses an npm that would fetch from elsewhere than the registry.
    pub(super) async fn check_version(
        &self,
        dir: &Path,
        until: Instant,
    ) -> Result<(), DependencyError> {
        is_fit(&self.output(dir, until, &["--version"]).await?)
    }

    /// Runs npm in this directory.
    pub(super) async fn run(
        &self,
        dir: &Path,
        until: Instant,
        args: &[&str],
    ) -> Result<(), DependencyError> {
        self.output(dir, until, args).await.map(drop)
    }

    /// What a run says that ends well.
    async fn output(
        &self,
        dir: &Path,
        until: Instant,
        args: &[&str],
    ) -> Result<String, DependencyError> {
        let home = dir.join(HOME);
        let unavailable = |what: &'static str| {
            move |error: io::Error| {
                error!(%error, "{what}");
                DependencyError::Unavailable
            }
        };
        std::fs::create_dir_all(&home).map_err(unavailable("no home for npm"))?;
        let logs = tempfile::Builder::new()
            .prefix(LOGS)
            .tempdir_in(&home)
            .map_err(unavailable("no place for npm's log"))?;
        let mut command = self.command(dir, &home, args);
        command.env("npm_config_logs_dir", logs.path()).env("npm_config_logs_max", LOGS_KEPT);
        let child = command.spawn().map_err(unavailable("npm does not start"))?;
        let mut group = Group(child);
        let stdout = collect(group.0.stdout.take());
        let stderr = collect(group.0.stderr.take());
        let ended = async {
            let (stdout, stderr, status) = tokio::join!(stdout, stderr, group.0.wait());
            (format!("{stderr}\n{stdout}"), status)
        };
        let (output, status) = tokio::select! {
            ended = tokio::time::timeout_at(until.into(), ended) => ended.map_err(|_elapsed| {
                DependencyError::Rejected(format!(
                    "npm did not finish within {} ms (limits.dependency_build_ms)",
                    self.timeout.as_millis()
                ))
            })?,
            too_large = self.watch(dir) => return Err(too_large),
        };
        match status {
            Ok(status) if status.success() => {
                match lost(logs.path()).map_err(unavailable("npm's log cannot be read"))? {
                    None => Ok(output),
                    Some(what) => {
                        warn!(what, "npm left out what it could not fetch; the build fails");
                        Err(DependencyError::Unavailable)
                    }
                }
            }
            Ok(_) => Err(explain(&output, dir)),
            Err(error) => Err(unavailable("npm was lost")(error)),
        }
    }

    fn command(&self, dir: &Path, home: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .args(ARGUMENTS)
            .current_dir(dir)
            .env_clear()
            .envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("npm_config_cache", &self.cache_dir)
            .env("npm_config_git", NO_GIT)
            .env(
                "npm_config_userconfig",
                self.user_config.as_deref().unwrap_or(&home.join("npmrc")),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        keep_alone(&mut command);
        command
    }

    /// Ends when npm has written more than it may.
    async fn watch(&self, dir: &Path) -> DependencyError {
        tokio::select! {
            too_large = self.watch_directory(dir) => too_large,
            too_large = self.watch_downloads() => too_large,
        }
    }

    async fn watch_directory(&self, dir: &Path) -> DependencyError {
        loop {
            tokio::time::sleep(MEASURE_EVERY).await;
            let (tree, home) = (dir.join("node_modules"), dir.join(HOME));
            let measuring = tokio::task::spawn_blocking(move || (measure(&tree), measure(&home).0));
            let Ok((size, home_bytes)) = measuring.await else { continue };
            if let Err(error) = self.check(size) {
                return error;
            }
            if home_bytes > self.home_bytes {
                return DependencyError::Rejected(format!(
                    "npm writes more than {} bytes beside the dependency tree",
                    self.home_bytes
                ));
            }
        }
    }

    async fn watch_downloads(&self) -> DependencyError {
        if self.download_bytes == 0 {
            return std::future::pending().await;
        }
        let (mut pause, mut at_first) = (DOWNLOADS_EVERY, None);
        loop {
            tokio::time::sleep(pause).await;
            let (path, begun) = (self.cache_dir.join(DOWNLOADS), Instant::now());
            let measuring = tokio::task::spawn_blocking(move || measure(&path).0);
            let measured = measuring.await;
            pause = pause_after(begun.elapsed());
            let Ok(bytes) = measured else { continue };
            if bytes.saturating_sub(*at_first.get_or_insert(bytes)) > self.download_bytes {
                return DependencyError::Rejected(format!(
                    "npm downloads more than {} bytes for the dependency tree",
                    self.download_bytes
                ));
            }
        }
    }

    /// Whether a tree of this size is within bounds.
    pub(super) fn check(&self, (bytes, files): (u64, u32)) -> Result<(), DependencyError> {
        if bytes > self.tree_bytes {
            return Err(DependencyError::Rejected(format!(
                "the dependency tree is larger than {} bytes (limits.dependency_tree_bytes)",
                self.tree_bytes
            )));
        }
        if files > self.tree_files {
            return Err(DependencyError::Rejected(format!(
                "the dependency tree has more than {} files (limits.dependency_tree_files)",
                self.tree_files
            )));
        }
        Ok(())
    }
}

/// How long downloads are not measured that it took so long to measure.
fn pause_after(took: Duration) -> Duration {
    DOWNLOADS_EVERY.max(took * DOWNLOADS_SHARE)
}

/// Whether npm is new enough, by what it says of its version.
fn is_fit(output: &str) -> Result<(), DependencyError> {
    match output.lines().find_map(|line| Version::parse(line.trim()).ok()) {
        Some(version) if version >= OLDEST => Ok(()),
        Some(version) => {
            error!(%version, oldest = %OLDEST, "npm cannot be kept to the registry; install a newer one");
            Err(DependencyError::Rejected(format!(
                "this server's npm is {version}, which cannot be kept to the registry; its operator \
                 has to install {OLDEST} or later"
            )))
        }
        None => {
            error!(output = %output.trim(), "npm does not say its version");
            Err(DependencyError::Unavailable)
        }
    }
}

/// Bytes and files below a directory.
pub(super) fn measure(tree: &Path) -> (u64, u32) {
    WalkDir::new(tree)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|metadata| !metadata.is_dir())
        .fold((0, 0), |(bytes, files), metadata| (bytes + metadata.len(), files + 1))
}

/// The beginning of a stream as text; reads to its end.
async fn collect(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    // A child that cannot be read is as good as one that says nothing: its status counts.
    let _ = (&mut stream).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// Codes under which the user's input is the cause.
const USER_CODES: [&str; 18] = [
    "E404",
    "ETARGET",
    "ENOVERSIONS",
    "EINVALIDPACKAGENAME",
    "EINVALIDTAGNAME",
    "ERESOLVE",
    "EINTEGRITY",
    "EBADPLATFORM",
    "EBADENGINE",
    "EUSAGE",
    "EUNSUPPORTEDPROTOCOL",
    "EJSONPARSE",
    "E403",
    "EOVERRIDE",
    "EALLOWGIT",
    "EALLOWREMOTE",
    "EALLOWFILE",
    "EALLOWDIRECTORY",
];

/// npm's code for packages that do not fit together, and what is told instead of its advice. A lock file
/// that was made with these options does not help: npm finds the same in it.
const CONFLICT: &str = "ERESOLVE";
const CONFLICT_ADVICE: &str = "Options like --legacy-peer-deps are not heeded, in a .npmrc or in a lock file made \
                               with them. Ask for versions that fit together, or say in package.json what a \
                               package gets: \"overrides\": {\"PACKAGE\": {\"PEER\": \"VERSION\"}}";

/// How npm's codes begin for what [`ARGUMENTS`] do not allow.
const NOT_ALLOWED: &str = "EALLOW";

const MAX_LINES: usize = 12;

/// npm's own words, without its prefixes and without this host's paths.
fn explain(output: &str, dir: &Path) -> DependencyError {
    let lines: Vec<&str> = output
        .lines()
        .filter_map(|line| line.strip_prefix("npm error").or_else(|| line.strip_prefix("npm ERR!")))
        .map(str::trim)
        .collect();
    let code = lines.iter().find_map(|line| line.strip_prefix("code ")).unwrap_or("none");
    if !USER_CODES.contains(&code) {
        warn!(code, output = %output.trim(), "npm failed");
        return DependencyError::Unavailable;
    }
    if code.starts_with(NOT_ALLOWED) {
        return DependencyError::Rejected(not_allowed(code, &lines));
    }
    let dir = dir.to_string_lossy();
    let mut told: Vec<String> = lines
        .iter()
        .filter(|line| !line.is_empty() && !line.starts_with("code "))
        .filter(|line| !line.starts_with("A complete log of this run") && !line.contains(LOGS))
        .filter(|line| {
            !line.starts_with("For a full report") && !line.contains("--legacy-peer-deps")
        })
        .filter(|line| !line.contains("://"))
        .take(MAX_LINES)
        .map(|line| line.replace(dir.as_ref(), "."))
        .collect();
    if code == CONFLICT {
        told.push(CONFLICT_ADVICE.to_owned());
    }
    DependencyError::Rejected(format!("npm: {code}: {}", told.join("\n")))
}

/// What is told of a package that asks for something outside the registry, which npm names.
fn not_allowed(code: &str, lines: &[&str]) -> String {
    let asked = lines.iter().find_map(|line| line.strip_prefix("Refusing to fetch \""));
    let name = asked.and_then(|spec| {
        let scope = usize::from(spec.starts_with('@'));
        spec.get(..scope + spec.get(scope..)?.find('@')?)
    });
    let name = name.unwrap_or("a package among the dependencies of the dependencies");
    format!(
        "npm: {code}: {name} is asked for from git, an address or a directory; only packages of the \
         registry are installed. Use a version of the package that needs it which does not"
    )
}

/// The `.npmrc` of the account the service runs under, if it has one.
pub(super) fn own_user_config() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| home.as_os_str() != OsStr::new(""))?;
    Some(Path::new(&home).join(".npmrc")).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An npm that is a shell, and its directory: of its arguments the second is the script that it
    /// runs, which finds those after it as `$0` and `$@`.
    fn shell() -> (Npm, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let npm = Npm {
            program: PathBuf::from("/bin/sh"),
            user_config: None,
            cache_dir: dir.path().join("cache"),
            timeout: Duration::from_secs(60),
            tree_bytes: 1_000,
            tree_files: 10,
            home_bytes: 1_000,
            download_bytes: 1_000,
        };
        (npm, dir)
    }

    #[tokio::test]
    async fn npm_gets_what_keeps_it_to_the_registry_and_nothing_of_this_process() {
        let (npm, dir) = shell();
        let script =
            "printf '%s\\n' \"$@\" > arguments; echo \"$npm_config_git\" > git; export -p > own";
        npm.run(dir.path(), npm.until(), &["-c", script, "ci"]).await.unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let arguments = read("arguments");
        let arguments: Vec<&str> = arguments.lines().collect();
        for kind in ["git", "remote", "file", "directory"] {
            let none = format!("--allow-{kind}=none");
            assert!(arguments.contains(&none.as_str()), "{arguments:?}");
        }
        assert!(arguments.contains(&"--ignore-scripts"), "{arguments:?}");
        assert_eq!(read("git"), "/dev/null/git\n");
        let own = read("own");
        assert!(own.contains(" PATH="), "{own}");
        // The shell makes the last ones itself.
        let theirs = ["HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"];
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let is_given = theirs.contains(&&*name) || PASSED_ON.contains(&&*name);
            if !is_given && !name.starts_with("npm_config_") {
                assert!(!own.contains(&format!(" {name}=")), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn npm_starts_no_program() {
        let (npm, dir) = shell();
        let ended = npm.run(dir.path(), npm.until(), &["-c", "touch ran"]).await;
        assert!(matches!(ended, Err(DependencyError::Unavailable)), "{ended:?}");
        assert!(!dir.path().join("ran").exists());
    }

    #[tokio::test]
    async fn a_run_that_outgrows_its_bounds_is_ended() {
        let (mut npm, dir) = shell();
        let names = "1 2 3 4 5 6 7 8 9 10 11";
        let files = format!("for name in {names}; do : > node_modules/$name; done");
        std::fs::create_dir_all(dir.path().join("cache").join(DOWNLOADS)).unwrap();
        // Little by little: what was there at first counts for nothing.
        let download = format!(
            "while :; do n=0; while [ $n -lt 50000 ]; do n=$((n+1)); done; \
             printf '%0500d' 0 >> cache/{DOWNLOADS}/1; done"
        );
        for (writes, timeout, bound) in [
            (":", Duration::from_secs(2), "dependency_build_ms"),
            (&*files, npm.timeout, "dependency_tree_files"),
            ("printf '%01001d' 0 > node_modules/1", npm.timeout, "dependency_tree_bytes"),
            ("printf '%01001d' 0 > .home/1", npm.timeout, "beside the dependency tree"),
            (&*download, npm.timeout, "downloads more than"),
        ] {
            let _ = std::fs::remove_dir_all(dir.path().join("node_modules"));
            let _ = std::fs::remove_dir_all(dir.path().join(HOME));
            std::fs::create_dir(dir.path().join("node_modules")).unwrap();
            npm.timeout = timeout;
            let script = format!("echo $$ > pid; {writes}; while :; do :; done");
            let ended = npm.run(dir.path(), npm.until(), &["-c", &script, "ci"]).await;
            let Err(DependencyError::Rejected(told)) = ended else { panic!("{bound} is none") };
            assert!(told.contains(bound), "{told}");
            let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
            let process = format!("/proc/{}/cmdline", pid.trim());
            // What has ended and was not waited for yet has no command line any more.
            let gone = async {
                while std::fs::read(&process).is_ok_and(|line| !line.is_empty()) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it runs on");
        }
    }

    #[test]
    fn many_downloads_are_measured_less_often() {
        for (took_ms, pause_s) in [(10, 5), (250, 5), (1_000, 20)] {
            let pause = pause_after(Duration::from_millis(took_ms));
            assert_eq!(pause, Duration::from_secs(pause_s), "{took_ms}");
        }
    }

    #[test]
    fn an_npm_that_cannot_be_kept_to_the_registry_is_not_used() {
        for version in ["11.15.0", "11.19.1", "12.0.1"] {
            assert!(is_fit(&format!("\n{version}\n")).is_ok(), "{version}");
        }
        for version in ["11.14.1", "10.9.4"] {
            let Err(DependencyError::Rejected(told)) = is_fit(&format!("\n{version}\n")) else {
                panic!("{version} is too old")
            };
            assert!(told.contains(version) && told.contains("11.15.0"), "{told}");
        }
        assert!(matches!(is_fit("hello"), Err(DependencyError::Unavailable)));
    }

    #[test]
    fn what_is_not_of_the_registry_is_told_by_name() {
        for (spec, name) in [
            ("x@github:u/r#0123", "x is asked for"),
            ("@s/x@http://10.0.0.1/x.tgz", "@s/x is asked for"),
            ("", "a package among the dependencies of the dependencies is asked for"),
        ] {
            let output = format!(
                "npm error code EALLOWGIT\nnpm error Fetching packages of type \"git\" have been \
                 disabled\nnpm error Refusing to fetch \"{spec}\"\n"
            );
            let DependencyError::Rejected(told) = explain(&output, Path::new("/d")) else {
                panic!("it is the user's to mend")
            };
            assert!(told.starts_with(&format!("npm: EALLOWGIT: {name}")), "{told}");
        }
    }

    #[test]
    fn npms_words_are_told_without_paths_and_addresses() {
        let output = "npm error code E404\nnpm error 404 Not Found - GET https://r.example/nope\n\
                      npm error 404  'nope@^1' is not in this registry.\n\
                      npm error A complete log of this run can be found in: /d/x/.home/_logs/1\n";
        let DependencyError::Rejected(message) = explain(output, Path::new("/d/x")) else {
            panic!("it is the user's fault")
        };
        assert_eq!(message, "npm: E404: 404  'nope@^1' is not in this registry.");
        let output = "npm error code ERESOLVE\nnpm error ERESOLVE unable to resolve dependency tree\n\
                      npm error peer o@\"^2\" from a@1.0.0\nnpm error\n\
                      npm error Fix the upstream dependency conflict, or retry this command with --force \
                      or --legacy-peer-deps to accept an incorrect dependency resolution.\n\
                      npm error For a full report see:\n\
                      npm error /d/x/.home/_logsAbC/1-eresolve-report.txt\n";
        let DependencyError::Rejected(message) = explain(output, Path::new("/d/x")) else {
            panic!("it is the user's fault")
        };
        let expected = "npm: ERESOLVE: ERESOLVE unable to resolve dependency tree\npeer o@\"^2\" from \
                        a@1.0.0\n";
        assert_eq!(message, format!("{expected}{CONFLICT_ADVICE}"));
        let network = explain("npm error code ECONNREFUSED\nnpm error x", Path::new("/d"));
        assert!(matches!(network, DependencyError::Unavailable));
    }
}
