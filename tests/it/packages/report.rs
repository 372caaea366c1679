//! `docs/COMPATIBILITY.md`.

use std::fmt::Write;
use std::fs;

use super::table::Case;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/COMPATIBILITY.md");

const HEAD: &str = "\
# Compatibility

npm packages that are deployed from the registry and called through the gateway by
`tests/it/packages.rs`, with an assertion on what they answer (`tests/functions/packages`). Any
other package may work as well; these are held to.

The load is that of a cold start from the code cache, in milliseconds on 2 shared cores: a coarse
figure. This file is written by the test when `CLOUDSERVE_WRITE_COMPATIBILITY` is set; without, the
test compares everything but the load. `tests/it/websocket.rs` holds `ws` and socket.io to their
WebSockets, through the gateway.

Descriptors by their numbers: `node:fs` takes those that it has opened; `net.Socket({ fd })` and
`listen({ fd })` take the standard streams, 0 to 2, and `dgram` takes none. Any other is refused,
`EBADF`, also if the function has opened it.

What packages run into that is not as in Node:
- There are no threads: piscina, tesseract.js and the transports of pino are told so by an error. There
  are no programs (`ENOENT`), and a server of `node:net` cannot listen (`EACCES`).
- Of ciphers `node:crypto` has AES in GCM, CBC, CTR, ECB and key wrap, ChaCha20 and triple DES; neither
  CCM, OCB, XTS, CFB or OFB, nor Blowfish, RC4 or Camellia. There is no `crypto.argon2` (`crypto.subtle`
  has Argon2), no `module.register`, no `inspector` and no `Temporal`.
- `process.versions.deno` and `Deno` are, by which some packages choose a way of their own: discord.js
  and @whatwg-node/server take the global `fetch` and `Response`.
- `process` lacks `execve` and `finalization`, and named imports of `node:url` the global `URLPattern`.
- No script of a package runs when it is installed: what `prisma generate` makes belongs among the
  project's files.
- A package that is imported both by `import()` and, by way of another that has no side effects, by
  `export *` may be used before it is evaluated: better-auth with its adapter for memory. List it in
  `external`.

| package | version | exercised | result | load |
|---|---|---|---|---|
";

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) package: String,
    version: String,
    exercised: String,
    result: String,
    /// Measured when it works.
    pub(super) load_ms: Option<f64>,
    /// To call it again.
    pub(super) case: Option<Case>,
}

impl Row {
    /// It did what it should.
    pub(super) fn works(case: &Case) -> Self {
        let result = "works".to_owned();
        Self { case: Some(case.clone()), ..Self::new(case, result) }
    }

    /// It cannot work, and its owner is told so.
    pub(super) fn refused(case: &Case, message: &str) -> Self {
        // The advice that ends it is for those who deploy.
        let reason = message.split(". ").next().unwrap_or(message);
        Self::new(case, format!("refused at deploy: {reason}"))
    }

    fn new(case: &Case, result: String) -> Self {
        Self {
            package: case.package.clone(),
            version: case.version.clone(),
            exercised: case.exercises.clone(),
            result,
            load_ms: None,
            case: None,
        }
    }

    /// Its line but for the load.
    fn line(&self) -> String {
        let Self { package, version, exercised, result, .. } = self;
        format!("| {package} | {version} | {exercised} | {result} |").replace('\n', " ")
    }
}

/// Writes the table.
pub(super) fn write(rows: &[Row]) {
    let mut text = HEAD.to_owned();
    for row in rows {
        let load = row.load_ms.map_or_else(String::new, |ms| format!("{ms:.0}"));
        let _ = writeln!(text, "{} {load} |", row.line());
    }
    fs::write(FILE, text).unwrap();
}

/// Compares the table with what came of this run; packages that were left out may be anything.
pub(super) fn compare(rows: &[Row], skipped: &[&str]) {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let written = text.lines().filter(|line| line.starts_with("| ")).skip(1).filter_map(|line| {
        let (line, _load) = line.strip_suffix(" |")?.rsplit_once("| ")?;
        let package = line.split('|').nth(1)?.trim();
        (!skipped.contains(&package)).then(|| format!("{line}|"))
    });
    let written: Vec<String> = written.collect();
    let now: Vec<String> =
        rows.iter().filter(|row| !skipped.contains(&&row.package[..])).map(Row::line).collect();
    assert!(
        written == now,
        "docs/COMPATIBILITY.md is not what came of this run; write it anew:\n{}",
        now.iter().filter(|line| !written.contains(line)).cloned().collect::<Vec<_>>().join("\n")
    );
}
