//! Makes the V8 snapshot every worker boots from: the runtime, the hot `node:` modules already
//! evaluated, and `bootstrap-js`. What the snapshot did not take in is embedded as source.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use deno_core::{Extension, ExtensionFileSource, ModuleCodeString, ModuleName};
use deno_runtime::ops::bootstrap::SnapshotOptions;
use deno_runtime::snapshot::{LazyExtensionFile, LazyExtensionFileKind, create_runtime_snapshot};

/// Evaluated into the snapshot. `node:crypto` makes a native object that cannot be in one.
const HOT_NODE_MODULES: [&str; 17] = [
    "async_hooks",
    "buffer",
    "events",
    "fs",
    "http",
    "https",
    "module",
    "net",
    "os",
    "path",
    "querystring",
    "stream",
    "string_decoder",
    "tls",
    "url",
    "util",
    "zlib",
];

/// Modules that hot ones load lazily while they are evaluated. `deno_core` takes those into the
/// snapshot without counting them as consumed and drops their source, so that their functions
/// compile from whatever lies there instead. An import counts.
const IMPORTED_FIRST: [&str; 14] = [
    "ext:deno_node/internal/streams/fast-utf8-stream.js",
    "node:_http_common",
    "node:_http_incoming",
    "node:_http_outgoing",
    "node:_http_agent",
    "node:_http_proxy",
    "node:_http_client",
    "node:_http_server",
    "ext:deno_node/internal/fs/stat_utils.ts",
    "ext:deno_node/_fs/_fs_dir.ts",
    "ext:deno_node/_fs/_fs_exists.ts",
    "ext:deno_node/_fs/_fs_read.ts",
    "ext:deno_node/internal/fs/streams.mjs",
    "ext:deno_node/internal/fs/promises.ts",
];

const BOOTSTRAP_FILES: [&str; 27] = [
    "answer_reader.js",
    "call.js",
    "capture.js",
    "connection.js",
    "decoded.js",
    "deferred.js",
    "descriptors.js",
    "errors.js",
    "event.js",
    "fetch.js",
    "fetch_errors.js",
    "fetch_event.js",
    "gateway_event.js",
    "google.js",
    "handlers.js",
    "leftovers.js",
    "listener.js",
    "main.js",
    "node.js",
    "process.js",
    "request.js",
    "response.js",
    "server.js",
    "source.js",
    "stream.js",
    "web_socket.js",
    "web_socket_pair.js",
];

/// Where upstream's sources are not as Node: the file, what it says, and what it is to say.
const MENDED: [(&str, &str, &str); 4] = [
    (
        "ext:deno_node/internal/crypto/cipher.ts",
        "this._blockSize = getBlockSize(cipher);",
        // OpenSSL knows ciphers in upper case, too, and some by a second name.
        "cipher = StringPrototypeToLowerCase(cipher);
    cipher = ({
      __proto__: null,
      'aes128': 'aes-128-cbc',
      'aes192': 'aes-192-cbc',
      'des3': 'des-ede3-cbc',
      'id-aes128-gcm': 'aes-128-gcm',
      'id-aes192-gcm': 'aes-192-gcm',
      'id-aes256-gcm': 'aes-256-gcm',
      'id-aes128-wrap': 'aes128-wrap',
      'id-aes192-wrap': 'aes192-wrap',
      'id-aes256-wrap': 'aes256-wrap',
    })[cipher] ?? cipher;
    this._blockSize = getBlockSize(cipher);",
    ),
    (
        "ext:deno_node/internal/crypto/cipher.ts",
        "this._authTag = undefined;",
        // See `ciphers.rs`.
        "this._authTag = undefined;
    this._needsBlockCache &&= cipher !== 'aes-192-gcm';",
    ),
    (
        "ext:deno_node/internal/crypto/util.ts",
        "ArrayPrototypeSlice(supportedCiphers)",
        "[...supportedCiphers, 'aes-192-cbc', 'aes-192-gcm', 'aes192'].sort()",
    ),
    (
        "ext:deno_node/internal/crypto/util.ts",
        "MapPrototypeGet(cipherInfoByName, nameOrNid)",
        "MapPrototypeGet(cipherInfoByName, nameOrNid.toLowerCase())",
    ),
];

/// What `placing.rs` says in place of V8.
const RANDOM_ADDRESS: &str = "_ZN2v84base2OS17GetRandomMmapAddrEv";

fn main() {
    println!("cargo:rustc-link-arg-bins=-Wl,--wrap={RANDOM_ADDRESS}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let options = SnapshotOptions {
        ts_version: String::new(),
        v8_version: deno_core::v8::VERSION_STRING,
        target: env::var("TARGET").expect("cargo sets TARGET"),
    };
    // Every function of the platform is compiled into the snapshot, once for all workers.
    deno_core::v8::V8::set_flags_from_string("--no-lazy --no-lazy-eval --no-lazy-streaming");
    let made = create_runtime_snapshot(out.join("snapshot.bin"), options, vec![bootstrap()]);

    let consumed: HashSet<&str> =
        made.consumed_lazy_specifiers.iter().map(String::as_str).collect();
    let residual = |kind| {
        made.lazy_extension_files
            .iter()
            .filter(move |file| file.kind == kind)
            .filter(|file| !consumed.contains(file.specifier.as_str()))
            .collect::<Vec<_>>()
    };
    let [js, esm] = [LazyExtensionFileKind::Js, LazyExtensionFileKind::Esm].map(residual);
    assert_all_are_mended(&js.iter().chain(&esm).map(|file| file.specifier.as_str()).collect());
    let mut tables = String::new();
    write_table(&out, &mut tables, "RESIDUAL_LAZY_JS", &js);
    write_table(&out, &mut tables, "RESIDUAL_LAZY_ESM", &esm);
    fs::write(out.join("residual.rs"), tables).expect("the build directory is writable");
}

fn bootstrap() -> Extension {
    // As this run has it: the program may have been built for another checkout.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&manifest).join("../../bootstrap-js");
    let mut hot = String::new();
    for specifier in IMPORTED_FIRST {
        let _ = writeln!(hot, "import '{specifier}';");
    }
    for name in HOT_NODE_MODULES {
        let _ = writeln!(hot, "import 'node:{name}';");
    }
    let mut files = vec![ExtensionFileSource::new_computed("ext:cloudserve/hot.js", hot.into())];
    for name in BOOTSTRAP_FILES {
        let path = folder.join(name);
        println!("cargo:rerun-if-changed={}", path.display());
        let source = fs::read_to_string(&path).expect("bootstrap-js is part of the checkout");
        let specifier: &'static str = format!("ext:cloudserve/{name}").leak();
        files.push(ExtensionFileSource::new_computed(specifier, source.into()));
    }
    files.push(ExtensionFileSource::new_computed(
        "ext:cloudserve/entry.js",
        "import 'ext:cloudserve/hot.js';\nimport 'ext:cloudserve/main.js';\n".to_owned().into(),
    ));
    Extension {
        name: "cloudserve",
        esm_files: Cow::Owned(files),
        esm_entry_point: Some("ext:cloudserve/entry.js"),
        ..Default::default()
    }
}

/// Writes the sources as they are loaded at run time, which transpiles and wraps nothing.
fn write_table(out: &Path, tables: &mut String, name: &str, files: &[&LazyExtensionFile]) {
    let _ = writeln!(tables, "pub(crate) static {name}: &[(&str, &str)] = &[");
    for file in files {
        println!("cargo:rerun-if-changed={}", file.path.display());
        let source = fs::read_to_string(&file.path).expect("extension sources are in the registry");
        let (source, _) = deno_runtime::transpile::maybe_transpile_source(
            ModuleName::from(file.specifier.clone()),
            ModuleCodeString::from(source),
        )
        .expect("extension sources transpile");
        let source = match file.kind {
            LazyExtensionFileKind::Js => deno_core::wrap_lazy_ext_script(source.as_str()),
            LazyExtensionFileKind::Esm => source.as_str().to_owned(),
        };
        let source = mended(&file.specifier, source);
        let flat = file.specifier.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let path = out.join(format!("{flat}.js"));
        fs::write(&path, source).expect("the build directory is writable");
        let _ =
            writeln!(tables, "    ({:?}, include_str!(\"{}\")),", file.specifier, path.display());
    }
    tables.push_str("];\n");
}

/// Only what is embedded as source is mended: not what has another name now, nor what the snapshot took in.
fn assert_all_are_mended(embedded: &HashSet<&str>) {
    for (file, said, _) in MENDED {
        assert!(
            embedded.contains(file),
            "MENDED is not met: no source is embedded as {file}, which is to be mended where it \
             says {said:?}"
        );
    }
}

fn mended(specifier: &str, mut source: String) -> String {
    for (_, said, says) in MENDED.into_iter().filter(|(file, ..)| *file == specifier) {
        assert!(
            source.contains(said),
            "MENDED is not met: {specifier} no longer says {said:?}; is it as in Node now?"
        );
        source = source.replace(said, says);
    }
    source
}
