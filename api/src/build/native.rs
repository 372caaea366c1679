//! Packages with compiled code of their own, which cannot run in an isolate that shares nothing
//! with the host: they are refused at deploy, by name, with what to use instead where that is
//! known.

use std::collections::BTreeSet;

/// What does the same without native code.
const ALTERNATIVES: [(&str, &str); 38] = [
    ("@img/sharp-linux-x64", "wasm-vips or the @jsquash packages (WebAssembly)"),
    ("@libsql/linux-x64-gnu", "@libsql/client/web (over HTTP) or the built-in node:sqlite"),
    ("@napi-rs/canvas", "canvaskit-wasm (WebAssembly)"),
    ("@node-rs/argon2", "hash-wasm (WebAssembly)"),
    ("@node-rs/bcrypt", "bcryptjs (JavaScript)"),
    ("@parcel/watcher", "@parcel/watcher-wasm (WebAssembly)"),
    ("@swc/core", "@swc/wasm (WebAssembly)"),
    ("@tensorflow/tfjs-node", "@tensorflow/tfjs with @tensorflow/tfjs-backend-wasm (WebAssembly)"),
    ("argon2", "hash-wasm (WebAssembly)"),
    ("bcrypt", "bcryptjs (JavaScript)"),
    ("better-sqlite3", "sql.js (WebAssembly) or the built-in node:sqlite"),
    ("bson-ext", "bson (JavaScript)"),
    ("canvas", "canvaskit-wasm (WebAssembly)"),
    ("couchbase", "the service's HTTP interface"),
    ("deasync", "await"),
    ("duckdb", "@duckdb/duckdb-wasm (WebAssembly)"),
    ("esbuild", "esbuild-wasm (WebAssembly)"),
    ("farmhash", "hash-wasm (WebAssembly)"),
    ("grpc", "@grpc/grpc-js (JavaScript)"),
    ("iconv", "iconv-lite (JavaScript)"),
    ("isolated-vm", "quickjs-emscripten (WebAssembly)"),
    ("leveldown", "memory-level (JavaScript)"),
    ("libxmljs", "libxml2-wasm (WebAssembly)"),
    ("libxmljs2", "libxml2-wasm (WebAssembly)"),
    ("lightningcss", "lightningcss-wasm (WebAssembly)"),
    ("lz4", "lz4js (JavaScript)"),
    ("node-sass", "sass (JavaScript)"),
    ("onnxruntime-node", "onnxruntime-web (WebAssembly)"),
    ("re2", "re2-wasm (WebAssembly)"),
    ("rollup", "@rollup/wasm-node (WebAssembly)"),
    ("sharp", "wasm-vips or the @jsquash packages (WebAssembly)"),
    ("snappy", "snappyjs (JavaScript)"),
    ("sodium-native", "libsodium-wrappers (WebAssembly)"),
    ("sqlite3", "sql.js (WebAssembly) or the built-in node:sqlite"),
    ("tree-sitter", "web-tree-sitter (WebAssembly)"),
    ("usb", "nothing: there are no devices"),
    ("xxhash", "hash-wasm (WebAssembly)"),
    ("zeromq", "a message queue that is spoken to over HTTP or TCP"),
];

/// Packages that start a program of their own instead of loading an addon.
const PROGRAMS: [&str; 1] = ["esbuild"];

/// Packages that use native code only where it is there.
const WORK_WITHOUT: [&str; 7] = [
    "@mongodb-js/zstd",
    "bufferutil",
    "cpu-features",
    "msgpackr-extract",
    "oracledb",
    "ssh2",
    "utf-8-validate",
];

/// How a package's compiled part for one platform is called after the package's own name.
const PLATFORM: &str = "-linux-";

/// What the loader says of an addon; its package stands before it, quoted.
const LOADER_SAYS: &str = "\" is a native addon";

/// Packages of a tree that cannot work: those with compiled code, and those whose compiled code is
/// in a package of its own for each platform.
pub(super) fn unusable(native: &[String]) -> BTreeSet<&str> {
    let owners = native.iter().filter_map(|name| {
        let (owner, _) = name.split_once(PLATFORM)?;
        Some([owner, owner.rsplit_once('/').map_or(owner, |(_, bare)| bare)])
    });
    native
        .iter()
        .map(String::as_str)
        .chain(owners.flatten())
        .chain(PROGRAMS)
        .filter(|name| !WORK_WITHOUT.contains(name))
        .collect()
}

/// What the owner of a function is told that imports this package.
pub(super) fn refusal(package: &str) -> String {
    let instead = ALTERNATIVES
        .iter()
        .find(|(name, _)| *name == package)
        .map_or_else(String::new, |(_, instead)| format!("; use {instead} instead"));
    format!(
        "the package {package:?} has native code, which cannot be loaded{instead}. If it works \
         without its native part, list it in external"
    )
}

/// What the owner is told when loading ended in an addon.
pub(super) fn refusal_of_load(message: &str) -> Option<String> {
    let (before, _) = message.split_once(LOADER_SAYS)?;
    let (_, package) = before.rsplit_once('"')?;
    Some(refusal(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_with_parts_for_platforms_are_known() {
        let native =
            ["bcrypt", "bufferutil", "@img/sharp-linux-x64", "@node-rs/argon2-linux-x64-gnu"]
                .map(str::to_owned);
        let unusable = unusable(&native);
        for name in ["bcrypt", "sharp", "@node-rs/argon2", "esbuild"] {
            assert!(unusable.contains(name), "{name}: {unusable:?}");
        }
        assert!(!unusable.contains("bufferutil"));
    }

    #[test]
    fn what_the_loader_says_becomes_a_refusal() {
        let said =
            "Error: the package \"bcrypt\" is a native addon, which cannot be loaded: x.node";
        assert!(refusal_of_load(said).unwrap().contains("bcryptjs"));
        assert_eq!(refusal_of_load("Error: other"), None);
        assert!(!refusal("unheard-of").contains("instead"));
    }

    #[test]
    fn alternatives_are_sorted() {
        assert!(ALTERNATIVES.is_sorted_by_key(|(name, _)| *name));
    }
}
