//! One ES module out of many files: a run of the native esbuild program.
//!
//! Each build is a process of its own, without environment, in a private directory, spoken to over
//! its service protocol: errors come back with their place, results without files. Invariants: no
//! file outside the project and its dependency tree gets into a bundle or a message (esbuild is asked
//! for none, and the kernel gives it none), and equal input gives equal bytes wherever it is built.

mod answer;
mod aws_adapters;
mod confine;
mod google;
mod jail;
mod messages;
mod mime_types;
mod packet;
mod place;
mod source_map;
mod wasm;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use cloudserve_protocol::artifact::{Needs, WEB_SOCKET_PAIR};
use cloudserve_protocol::build::is_package_name;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::OnceCell;

use self::answer::answer;
use self::messages::Message;
use self::packet::{Packet, Value, map};
use super::source::SourceFiles;

const BUNDLE: &str = "bundle.js";

/// Put in front of a bundle that needs it: modules with `require` know these from Node. Assigned,
/// not declared, so that a module may declare its own; it may have a `globalThis` of its own as well,
/// which holds nothing yet. One line; the source map is moved by it.
const NODE_GLOBALS: &str = concat!(
    "import{createRequire as __cloudserve_createRequire}from\"node:module\";",
    "(globalThis=>{",
    "globalThis.require=__cloudserve_createRequire(import.meta.url);",
    "globalThis.__filename=import.meta.filename;",
    "globalThis.__dirname=globalThis.__cloudserve_root=import.meta.dirname;",
    "globalThis.__cloudserve_at=path=>new globalThis.URL(path,import.meta.url).href;",
    "})(__cloudserve_createRequire.constructor(\"return this\")());\n",
);
const NODE_GLOBAL_NAMES: [&str; 4] = ["require", "__filename", "__dirname", "__cloudserve_"];

/// Messages that tell of imports only the running program knows.
const DYNAMIC_IMPORTS: [&str; 3] =
    ["unsupported-require-call", "unsupported-dynamic-import", "indirect-require"];

/// Files that are imported as text.
const TEXT_EXTENSIONS: [&str; 6] = ["html", "md", "sql", "graphql", "gql", "pem"];

/// What esbuild asks about before it loads it: what is outside the project, and modules.
const OUTSIDE: u32 = 0;
const MODULES: u32 = 1;
/// What it asks about before it looks for it: what may be outside. There a directory that is there is an
/// error, since esbuild cannot list it, even where a module can do without what it looks for. Imports
/// with one `..` are too many to ask about each: they get from a project's own files to the directory of
/// builds and no further.
const LEADING_OUT: u32 = 2;
const LEADING_OUT_FILTER: &str = r"^(?:/|(?:\./+)*(?:\.\./+){2})";
const MODULE_FILTER: &str = r"\.(?:[cm]?[jt]s|[jt]sx|wasm)$";

/// What sources have that are written for React's classic transformation of JSX: its pragma, or
/// the name that it uses.
const CLASSIC_JSX: [&str; 4] = ["@jsx ", "import React", "as React ", "React ="];

/// A bundle that is too large may have this part of its bound inlined at most, so that what is
/// left loads fast.
const INLINED_PART: u64 = 2;

/// esbuild's answer holds bundle, source map and metafile.
const MAX_ANSWER_FACTOR: u64 = 8;
const MAX_ANSWER_BESIDE_BYTES: u64 = 32 * 1024 * 1024;
const MAX_VERSION_BYTES: usize = 64;
const MAX_STDERR_BYTES: u64 = 4 * 1024;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub(super) enum BundleError {
    /// The source is the cause; the message is fit for its owner.
    #[error("{0}")]
    Rejected(String),
    /// The build took too long.
    #[error("the bundle was not built within {limit_ms} ms")]
    TimedOut { limit_ms: u32 },
    /// The build took too much memory.
    #[error("the bundle cannot be built with {limit_mb} MB of memory")]
    OutOfMemory { limit_mb: u32 },
    /// The result is too large.
    #[error("the bundle is larger than {max_bytes} bytes")]
    TooLarge { max_bytes: u64 },
    /// The program could not be run.
    #[error("esbuild cannot be run")]
    Run(#[source] io::Error),
    /// The program ended early.
    #[error("esbuild ended without an answer: {stderr}")]
    Ended { stderr: String },
    /// The program said what it should not.
    #[error("esbuild's {0} is not understood")]
    Protocol(&'static str),
}

/// What to bundle.
pub(super) struct Project<'a> {
    /// Holds the files and, if there are dependencies, `node_modules`. Its real path.
    pub(super) directory: &'a Path,
    pub(super) files: &'a SourceFiles,
    pub(super) entry: &'a str,
    /// Whether a file is written for React's classic transformation: see [`uses_classic_jsx`].
    pub(super) is_classic_jsx: bool,
    /// Packages to leave out.
    pub(super) external: BTreeSet<String>,
}

/// What esbuild made of it.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) code: Bytes,
    pub(super) source_map: Bytes,
    /// What the code still imports, Node's own modules among it.
    pub(super) imports: BTreeSet<String>,
    /// Whether it also imports what is known only when it runs.
    pub(super) imports_dynamically: bool,
    /// Packages that the owner's own files import and that were left out.
    pub(super) own_imports: BTreeSet<String>,
    /// Whether a module looks for files or packages of the tree when it runs.
    pub(super) looks_around: bool,
}

/// What one run of esbuild led to.
enum Made {
    Bundle(Bundle),
    Errors(Vec<Message>),
    /// Bytes in all and those of each package.
    TooLarge(u64, Vec<(String, u64)>),
}

/// The esbuild program.
pub(super) struct Esbuild {
    program: PathBuf,
    bounds: BuildBounds,
    version: OnceCell<String>,
}

/// Bounds on one build.
#[derive(Debug, Clone, Copy)]
pub(super) struct BuildBounds {
    pub(super) bundle_bytes: u64,
    pub(super) time_ms: u32,
    /// Address space of the process: 20 MB of source can take 9 GB to build.
    pub(super) memory_mb: u32,
}

impl Esbuild {
    pub(super) fn new(program: PathBuf, bounds: BuildBounds) -> Self {
        Self { program, bounds, version: OnceCell::new() }
    }

    /// Builds. What a package imports but does not bring (optional dependencies, native parts) is
    /// left out and found, or not, when it is asked for at run time.
    pub(super) async fn bundle(&self, mut project: Project<'_>) -> Result<Bundle, BundleError> {
        let deadline = Duration::from_millis(self.bounds.time_ms.into());
        let runs = async {
            // Once to learn what is left out, once because that was not enough, once to build.
            for _ in 0..2 {
                match self.run(&project).await? {
                    Made::Bundle(bundle) => return Ok(bundle),
                    Made::Errors(errors) => {
                        let optional =
                            errors.iter().map(left_out_for).collect::<Option<BTreeSet<_>>>();
                        let Some(optional) = optional else {
                            // What packages lack would be left out.
                            let own = errors.into_iter().filter(|e| left_out_for(e).is_none());
                            return Err(rejected(&own.collect::<Vec<_>>(), &project));
                        };
                        project.external.extend(optional);
                    }
                    Made::TooLarge(bytes, packages) => {
                        project.external.extend(self.left_out_of(bytes, packages)?);
                    }
                }
            }
            match self.run(&project).await? {
                Made::Bundle(bundle) => Ok(bundle),
                Made::Errors(errors) => Err(rejected(&errors, &project)),
                Made::TooLarge(..) => Err(self.too_large()),
            }
        };
        tokio::time::timeout(deadline, runs)
            .await
            .unwrap_or(Err(BundleError::TimedOut { limit_ms: self.bounds.time_ms }))
    }

    fn too_large(&self) -> BundleError {
        BundleError::TooLarge { max_bytes: self.bounds.bundle_bytes }
    }

    /// The packages to load from the tree so that the rest is a bundle: the largest ones.
    fn left_out_of(
        &self,
        bytes: u64,
        mut packages: Vec<(String, u64)>,
    ) -> Result<Vec<String>, BundleError> {
        packages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut left = bytes;
        let most = self.bounds.bundle_bytes / INLINED_PART;
        let left_out: Vec<_> = packages
            .into_iter()
            .take_while(|(_, bytes)| {
                let is_needed = left > most;
                left = left.saturating_sub(*bytes);
                is_needed
            })
            .map(|(name, _)| name)
            .collect();
        // It is the owner's own code.
        if left_out.is_empty() || left > self.bounds.bundle_bytes {
            return Err(self.too_large());
        }
        Ok(left_out)
    }

    /// One run.
    async fn run(&self, project: &Project<'_>) -> Result<Made, BundleError> {
        let version = self.version.get_or_try_init(|| self.ask_version()).await?;
        let mut command = self.command();
        command
            .arg(format!("--service={version}"))
            .current_dir(project.directory)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        jail::confine(&mut command, &self.program, project.directory).map_err(BundleError::Run)?;
        let mut child = command.spawn().map_err(BundleError::Run)?;
        bound_memory(&child, self.bounds.memory_mb).map_err(BundleError::Run)?;
        let answer = match self.converse(&mut child, project).await {
            Err(BundleError::Run(error)) if has_ended(&error) => {
                let stderr = stderr_of(&mut child).await;
                // What Go says when it gets no more memory, for heap, stack or thread.
                Err(if stderr.contains("fatal error: ") {
                    BundleError::OutOfMemory { limit_mb: self.bounds.memory_mb }
                } else {
                    BundleError::Ended { stderr }
                })
            }
            answer => answer,
        };
        // It waits for more work otherwise. An error says that it has ended already.
        let _ = child.kill().await;
        let (answer, looks_around) = answer?;
        let (directory, max_bytes) = (project.directory.to_owned(), self.bounds.bundle_bytes);
        let made = tokio::task::spawn_blocking(move || {
            read_answer(&answer, looks_around, &directory, max_bytes)
        });
        made.await.map_err(|error| BundleError::Run(io::Error::other(error)))?
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn ask_version(&self) -> Result<String, BundleError> {
        let output = self.command().arg("--version").output().await.map_err(BundleError::Run)?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let is_version = !version.is_empty() && version.len() <= MAX_VERSION_BYTES;
        if is_version { Ok(version) } else { Err(BundleError::Protocol("version")) }
    }

    /// Sends the build request and answers what esbuild asks until the result is there. Also says
    /// whether a module looks around.
    async fn converse(
        &self,
        child: &mut Child,
        project: &Project<'_>,
    ) -> Result<(Value, bool), BundleError> {
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (mut to, mut from) = pipes.expect("both were asked for and are taken once");
        let request =
            Packet { id: 0, is_request: true, value: request(project).map_err(BundleError::Run)? };
        to.write_all(&request.encode()).await.map_err(BundleError::Run)?;
        let max_bytes = self.bounds.bundle_bytes * MAX_ANSWER_FACTOR + MAX_ANSWER_BESIDE_BYTES;
        // The first packet is its version, which it has compared with ours already.
        self.read_packet(&mut from, max_bytes).await?;
        let mut looks_around = false;
        loop {
            let packet = Packet::decode(self.read_packet(&mut from, max_bytes).await?)
                .ok_or(BundleError::Protocol("packet"))?;
            if !packet.is_request {
                return Ok((packet.value, looks_around));
            }
            looks_around |= answer(&packet, project.directory, project.entry, &mut to)
                .await
                .map_err(BundleError::Run)?;
        }
    }

    async fn read_packet(
        &self,
        from: &mut ChildStdout,
        max_bytes: u64,
    ) -> Result<Bytes, BundleError> {
        let length = from.read_u32_le().await.map_err(BundleError::Run)?;
        if u64::from(length) > max_bytes {
            return Err(self.too_large());
        }
        let mut bytes = vec![0; length as usize];
        from.read_exact(&mut bytes).await.map_err(BundleError::Run)?;
        Ok(bytes.into())
    }
}

/// What a run has made. Blocks: a source map may have megabytes.
fn read_answer(
    answer: &Value,
    looks_around: bool,
    directory: &Path,
    max_bytes: u64,
) -> Result<Made, BundleError> {
    if !answer.get("error").text().is_empty() {
        tracing::error!(error = answer.get("error").text(), "esbuild refused a request");
        return Err(BundleError::Protocol("request"));
    }
    let warnings = Message::all(answer.get("warnings"));
    let mut errors = Message::all(answer.get("errors"));
    errors.extend(warnings.iter().filter_map(Message::refusal_of_pattern));
    // Of directories outside that are there esbuild says that it cannot list them; that a module
    // does not find what it wants there, it says anyhow.
    if errors.iter().any(|error| error.location.is_some()) {
        errors.retain(|error| error.location.is_some() || !error.is_closed());
    }
    if !errors.is_empty() {
        errors.sort_by(|a, b| a.place().cmp(&b.place()));
        return Ok(Made::Errors(errors));
    }
    let metafile: Metafile = serde_json::from_slice(&answer.get("metafile").bytes())
        .map_err(|_| BundleError::Protocol("metafile"))?;
    // Files from elsewhere were refused when they were asked for; this would say it again.
    if metafile.inputs.keys().any(|path| path.starts_with(['/', '.'])) {
        return Err(BundleError::Protocol("list of inputs"));
    }
    let file = |name: &str| {
        let files = answer.get("outputFiles").list();
        let found =
            files.iter().find(|file| Path::new(file.get("path").text()) == directory.join(name));
        found.map(|file| file.get("contents").bytes()).ok_or(BundleError::Protocol("result"))
    };
    let made = file(BUNDLE)?;
    let text = String::from_utf8_lossy(&made);
    let front = node_globals_for(&text);
    let needs = Needs {
        aws_events: aws_adapters::are_among(metafile.files()),
        web_socket_pair: text.contains(WEB_SOCKET_PAIR),
    };
    let code = Bytes::from([front.as_bytes(), &made, needs.lines().as_bytes()].concat());
    if code.len() as u64 > max_bytes {
        return Ok(Made::TooLarge(code.len() as u64, metafile.packages()));
    }
    let lines_in_front = front.matches('\n').count();
    let source_map = source_map::thinned(&file(&format!("{BUNDLE}.map"))?, lines_in_front)
        .map_err(|_| BundleError::Protocol("source map"))?;
    let imports = metafile
        .outputs
        .get(BUNDLE)
        .map(|output| output.imports.iter().filter(|import| import.external))
        .into_iter()
        .flatten()
        .map(|import| import.path.clone());
    Ok(Made::Bundle(Bundle {
        code,
        source_map,
        imports: imports.collect(),
        imports_dynamically: warnings.iter().any(|w| DYNAMIC_IMPORTS.contains(&&w.id[..])),
        own_imports: metafile.own_imports(),
        looks_around,
    }))
}

#[derive(Deserialize)]
struct Metafile {
    inputs: BTreeMap<String, Input>,
    outputs: BTreeMap<String, Output>,
}

#[derive(Deserialize)]
struct Input {
    imports: Vec<Import>,
}

#[derive(Deserialize)]
struct Output {
    imports: Vec<Import>,
    inputs: BTreeMap<String, Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    bytes_in_output: u64,
}

impl Metafile {
    /// How much of the bundle is of which file.
    fn parts(&self) -> impl Iterator<Item = (&str, u64)> {
        let inputs = self.outputs.get(BUNDLE).into_iter().flat_map(|output| &output.inputs);
        inputs.map(|(path, part)| (&path[..], part.bytes_in_output))
    }

    /// The files of which there is something in the bundle.
    fn files(&self) -> impl Iterator<Item = &str> {
        self.parts().filter(|(_, bytes)| *bytes > 0).map(|(path, _)| path)
    }

    /// How much of the bundle is of which package, with those inside of it.
    fn packages(&self) -> Vec<(String, u64)> {
        let mut sizes = BTreeMap::<_, u64>::new();
        for (path, bytes) in self.parts() {
            let package = path.strip_prefix("node_modules/").and_then(package_of);
            if let Some(package) = package {
                *sizes.entry(package.to_owned()).or_default() += bytes;
            }
        }
        sizes.into_iter().collect()
    }

    /// Packages left out that files outside of packages import.
    fn own_imports(&self) -> BTreeSet<String> {
        self.inputs
            .iter()
            .filter(|(path, _)| !path.starts_with("node_modules/"))
            .flat_map(|(_, input)| &input.imports)
            .filter(|import| import.external)
            .filter_map(|import| package_of(&import.path).map(str::to_owned))
            .collect()
    }
}

#[derive(Deserialize)]
struct Import {
    path: String,
    #[serde(default)]
    external: bool,
}

fn rejected(errors: &[Message], project: &Project<'_>) -> BundleError {
    BundleError::Rejected(messages::tell(errors, project.directory, project.files))
}

/// What to leave out so that this error goes away; `None` if it is in the owner's own files.
fn left_out_for(error: &Message) -> Option<String> {
    let inside = error.package_file()?;
    let imported = error.specifier().filter(|_| error.is_unresolved());
    // What is no package is a part of this one that is not there, or not JavaScript.
    let package =
        imported.and_then(package_of).or_else(|| package_of(&inside["node_modules/".len()..]));
    package.map(str::to_owned)
}

/// The package a bare import path begins with.
pub(super) fn package_of(path: &str) -> Option<&str> {
    let parts = if path.starts_with('@') { 2 } else { 1 };
    let end = path.match_indices('/').nth(parts - 1).map_or(path.len(), |(at, _)| at);
    let name = &path[..end];
    is_package_name(name).then_some(name)
}

fn request(project: &Project<'_>) -> io::Result<Value> {
    let outside = confine::outside(project.directory)
        .ok_or_else(|| io::Error::other("the work directory's name is not Unicode"))?;
    let mut flags: Vec<Value> = [
        "--bundle",
        "--format=esm",
        "--platform=node",
        "--target=node24",
        "--keep-names",
        // One byte per character: V8 reads the source where it lies, and in half the time. That
        // takes a source without comments, too: they stay as they are.
        "--charset=ascii",
        "--minify-whitespace",
        "--legal-comments=none",
        "--sourcemap=external",
        // A stack needs names and lines. A worker reads the map for the first error, with a call
        // waiting; the sources would be most of it.
        "--sources-content=false",
        "--metafile",
        // Paths stay those of the link `node_modules`, so they are the same in every directory.
        "--preserve-symlinks",
        // Nothing is written; a source file may have the name of the bundle.
        "--allow-overwrite",
        "--outfile=bundle.js",
        "--log-level=silent",
        "--log-limit=0",
        "--color=false",
        "--loader:.js=jsx",
    ]
    .map(Value::from)
    .into();
    flags.extend(DYNAMIC_IMPORTS.map(|id| format!("--log-override:{id}=warning").into()));
    flags.extend(TEXT_EXTENSIONS.map(|extension| format!("--loader:.{extension}=text").into()));
    flags.extend(project.external.iter().map(|name| format!("--external:{name}").into()));
    if !project.is_classic_jsx {
        // What a tsconfig.json says wins.
        flags.push("--jsx=automatic".into());
    }
    let directory = project.directory.to_string_lossy().into_owned();
    let on = |id, filter: Value| {
        map([("id", Value::Int(id)), ("filter", filter), ("namespace", "file".into())])
    };
    let guard = map([
        ("name", "confine".into()),
        ("onStart", false.into()),
        ("onEnd", false.into()),
        ("onResolve", Value::List(vec![on(LEADING_OUT, LEADING_OUT_FILTER.into())])),
        (
            "onLoad",
            Value::List(vec![on(OUTSIDE, outside.into()), on(MODULES, MODULE_FILTER.into())]),
        ),
    ]);
    let entry = vec!["".into(), format!("./{}", project.entry).into()];
    Ok(map([
        ("command", "build".into()),
        ("key", Value::Int(0)),
        ("entries", Value::List(vec![Value::List(entry)])),
        ("flags", Value::List(flags)),
        ("write", false.into()),
        ("stdinContents", Value::Null),
        ("stdinResolveDir", Value::Null),
        ("absWorkingDir", directory.into()),
        ("nodePaths", Value::List(Vec::new())),
        ("context", false.into()),
        ("plugins", Value::List(vec![guard])),
    ]))
}

/// Whether one of these files is written for React's classic transformation of JSX. Blocks: all of them
/// are looked through.
pub(super) fn uses_classic_jsx(files: &SourceFiles) -> bool {
    files.iter().any(|(_, bytes)| {
        let text = String::from_utf8_lossy(bytes);
        CLASSIC_JSX.iter().any(|classic| text.contains(classic))
    })
}

fn has_ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe)
}

/// Bounds the address space of a child that was not given any work yet.
fn bound_memory(child: &Child, limit_mb: u32) -> io::Result<()> {
    let Some(pid) = child.id() else { return Ok(()) };
    let bytes = libc::rlim_t::from(limit_mb) * 1024 * 1024;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: `limit` is a valid rlimit for the time of the call and no old limit is asked for.
    // The child was not waited for, so its id is still its own.
    let done =
        unsafe { libc::prlimit(pid, libc::RLIMIT_AS, &raw const limit, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

async fn stderr_of(child: &mut Child) -> String {
    let Some(stderr) = child.stderr.take() else { return String::new() };
    let mut text = Vec::new();
    // Whatever can be read is better than nothing.
    let _ = read_bounded(stderr, &mut text).await;
    String::from_utf8_lossy(&text).trim().to_owned()
}

async fn read_bounded(from: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> io::Result<usize> {
    from.take(MAX_STDERR_BYTES).read_to_end(into).await
}

/// What comes before the bundle: the names Node gives to modules with `require`, if it uses any.
fn node_globals_for(text: &str) -> &'static str {
    let is_used = NODE_GLOBAL_NAMES.iter().any(|name| text.contains(name));
    if is_used { NODE_GLOBALS } else { "" }
}
