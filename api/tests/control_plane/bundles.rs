//! What esbuild makes of a source, and what it must not.

use cloudserve_protocol::artifact::Needs;
use serde_json::{Value, json};

use crate::support::Plane;

fn one(name: &str, filename: &str, code: &str) -> Value {
    json!({ "name": name, "filename": filename, "code": code })
}

fn many(name: &str, files: &Value) -> Value {
    json!({ "name": name, "files": files })
}

async fn error(plane: &Plane, token: &str, body: &Value) -> Value {
    let view = plane.deploy(token, body).await;
    assert_eq!(view["status"], "failed", "{view:#}");
    view["deployError"].clone()
}

#[tokio::test]
async fn typescript_jsx_and_several_files_become_one_module() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let view =
        plane.deploy(&token, &one("a", "f.ts", "export default (n: number): number => n")).await;
    assert_eq!(view["status"], "active", "{view:#}");
    let bundle = plane.bundle(&view).await;
    assert!(bundle.contains("export{") && !bundle.contains("number"), "{bundle}");
    assert!(!bundle.contains("createRequire"), "{bundle}");

    let files = json!({
        "src/index.ts": "import { x } from '@/lib/x'; import text from './a.md'; import d from './d.json';\n\
                         export default () => [x, text, d];",
        "src/lib/x.ts": "import { y } from '../y.mjs'; export const x: string = y;",
        "src/y.mjs": "export const y = 'from y';",
        "src/a.md": "# Title",
        "src/d.json": "{\"d\": 1}",
        "tsconfig.json": "{ \"compilerOptions\": { \"paths\": { \"@/*\": [\"./src/*\"] } } }",
    });
    let view = plane.deploy(&token, &many("b", &files)).await;
    assert_eq!(view["status"], "active", "{view:#}");
    let bundle = plane.bundle(&view).await;
    assert!(bundle.contains("from y") && bundle.contains("# Title"), "{bundle}");

    // Code without a name, with types and `module.exports`.
    let code = "const n: number = 1; module.exports = () => require('node:os').cpus().length + n;";
    let view = plane.deploy(&token, &json!({ "name": "c", "code": code })).await;
    assert_eq!(view["status"], "active", "{view:#}");
    let bundle = plane.bundle(&view).await;
    assert!(bundle.starts_with("import{createRequire"), "{bundle}");
    assert!(bundle.contains("export default require_index()"), "{bundle}");
}

#[tokio::test]
async fn a_bundle_says_what_it_needs_of_the_platform() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let pair = "export default { fetch: () => new WebSocketPair() }";
    for (name, code, web_socket_pair) in [("a", "export default 1", false), ("b", pair, true)] {
        let view = plane.deploy(&token, &one(name, "f.js", code)).await;
        let needs = Needs { aws_events: false, web_socket_pair };
        let bundle = plane.bundle(&view).await;
        assert!(bundle.ends_with(&needs.lines()), "{bundle}");
    }
}

#[tokio::test]
async fn equal_source_gives_equal_bytes_and_maps_point_to_it() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let code = "const os = require('os');\nmodule.exports = () => { throw new Error(os.EOL) };\n";
    let first = plane.deploy(&token, &one("a", "f.cjs", code)).await;
    let second = plane.deploy(&token, &one("b", "f.cjs", code)).await;
    assert_eq!(first["bundleHash"], second["bundleHash"]);
    assert_eq!(first["sourceHash"], second["sourceHash"]);
    assert_ne!(first["id"], second["id"]);

    let path = first["bundlePath"].as_str().unwrap();
    let file = plane.data.path().join("data/objects").join(format!("{path}.map"));
    let map: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(map["sources"], json!(["f.cjs"]), "{map:#}");
    // One line was put in front of the bundle.
    assert!(map["mappings"].as_str().unwrap().starts_with(';'), "{map:#}");
}

#[tokio::test]
async fn errors_have_file_line_and_column() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let told = error(
        &plane,
        &token,
        &one("a", "broken.ts", "export default () => {\n  const a = ;\n};\n"),
    )
    .await;
    assert_eq!(told["code"], "bundle_error");
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("broken.ts:2:12: "), "{message}");
    assert!(message.contains("\n    const a = ;"), "{message}");

    let code = "\nimport x from 'left-pad-that-is-not-there';\nexport default x;\n";
    let told = error(&plane, &token, &one("b", "f.ts", code)).await;
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("f.ts:2:14: Could not resolve \"left-pad-that"), "{message}");
    assert!(message.contains("dependencies"), "{message}");
    let code = "import { z } from 'npm:zod@3';\nexport default z;\n";
    let deno = error(&plane, &token, &one("c", "f.ts", code)).await["message"].clone();
    assert!(deno.as_str().unwrap().contains("by its name alone"), "{deno}");
    assert!(!message.contains(plane.data.path().to_str().unwrap()), "{message}");
}

#[tokio::test]
async fn nothing_outside_the_project_gets_in() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let secret = "the-secret-of-the-host-31415926";
    let outside = plane.data.path().join("host");
    std::fs::create_dir(&outside).unwrap();
    for (name, text) in [
        ("secret.txt", secret.to_owned()),
        ("secret.json", format!("{{\"a\": \"{secret}\"}}")),
        ("broken.json", format!("{{\"a\": {secret}")),
        ("secret.mjs", format!("export default '{secret}';")),
        ("broken.mjs", format!("export default {secret} {secret};")),
        ("tsconfig.json", format!("{{ {secret}")),
        ("package.json", format!("{{ \"name\": \"host\", \"main\": \"secret.mjs\", {secret}")),
    ] {
        std::fs::write(outside.join(name), text).unwrap();
    }
    let absolute = outside.to_str().unwrap();
    let up = format!("{}{}", "../".repeat(12), &absolute[1..]);
    let mut deploys = Vec::new();
    for base in [absolute, &up] {
        for file in ["secret.txt", "secret.json", "broken.json", "secret.mjs", "broken.mjs", "gone"]
        {
            let import = format!("import x from '{base}/{file}'; export default x;");
            deploys.push(one("f", "f.mjs", &import));
            let require = format!("module.exports = require('{base}/{file}');");
            deploys.push(one("f", "f.cjs", &require));
        }
        deploys.push(one("f", "f.mjs", &format!("import x from '{base}'; export default x;")));
    }
    deploys.push(many("f", &json!({
        "index.ts": "import x from 'host'; export default x;",
        "tsconfig.json": json!({ "compilerOptions": { "paths": { "host": [format!("{absolute}/secret.mjs")] } } }).to_string(),
    })));
    deploys.push(many("f", &json!({
        "index.ts": "import x from '#host'; export default x;",
        "package.json": json!({ "imports": { "#host": format!("{absolute}/secret.mjs") } }).to_string(),
    })));
    deploys.push(many(
        "f",
        &json!({
            "index.ts": "import x from './lib'; export default x;",
            "lib/package.json": json!({ "main": format!("../{up}/secret.mjs") }).to_string(),
        }),
    ));
    deploys.push(many(
        "f",
        &json!({
            "index.ts": "import x from './x.css'; export default x;",
            "x.css": format!("@import '{absolute}/secret.txt';"),
        }),
    ));
    for body in deploys {
        let told = error(&plane, &token, &body).await;
        assert_eq!(told["code"], "bundle_error", "{body}: {told}");
        assert!(!told.to_string().contains(secret), "{body}: {told}");
    }

    // Whether a file exists on the host is not told either.
    let mut told = Vec::new();
    for name in ["secret.mjs", "gone.mjs"] {
        let code = format!("import x from '{absolute}/{name}'; export default x;");
        let error = error(&plane, &token, &one("f", "f.mjs", &code)).await;
        told.push(error.to_string().replace(name, "NAME"));
    }
    assert_eq!(told[0], told[1]);
    let mut told = Vec::new();
    for name in ["secr", "gone"] {
        let code = format!("export default (x) => import('{up}/{name}' + x + '.mjs');");
        let error = error(&plane, &token, &one("f", "f.mjs", &code)).await;
        assert_eq!(error["code"], "bundle_error", "{error}");
        told.push(error.to_string().replace(name, "NAME"));
    }
    assert_eq!(told[0], told[1]);
    // Nor to a module that could do without it.
    for file in ["secret.mjs", "gone.mjs", "gone/gone.mjs"] {
        let code = format!("let x; try {{ x = require('{absolute}/{file}'); }} catch {{}}");
        let error = error(&plane, &token, &one("f", "f.cjs", &code)).await;
        assert_eq!(error["code"], "bundle_error", "{file}: {error}");
    }

    // A configuration that leads outside is not followed.
    let files = json!({
        "index.ts": "export default 1;",
        "tsconfig.json": json!({ "extends": format!("{absolute}/tsconfig.json") }).to_string(),
    });
    let view = plane.deploy(&token, &many("g", &files)).await;
    assert!(!view.to_string().contains(secret), "{view}");
}

fn packages() -> Vec<(&'static str, &'static str)> {
    vec![
        ("plain/package.json", r#"{"name":"plain","main":"index.js"}"#),
        ("plain/index.js", "exports.text = 'inlined text'; exports.os = require('os');"),
        ("native/package.json", r#"{"name":"native","main":"index.js"}"#),
        ("native/index.js", "module.exports = require('./build/addon.node');"),
        ("optional/package.json", r#"{"name":"optional","main":"index.js"}"#),
        (
            "optional/index.js",
            "let x; x = require('not-installed'); require('./gone.js'); module.exports = x;",
        ),
        ("seeking/package.json", r#"{"name":"seeking","main":"index.js"}"#),
        (
            "seeking/index.js",
            "let x; try { x = require('../../../package.json'); } catch {} module.exports = x;",
        ),
        ("nickname/package.json", r#"{"name":"real-name","main":"index.js"}"#),
        ("nickname/index.js", "exports.text = 'by another name';"),
        ("dynamic/package.json", r#"{"name":"dynamic","main":"index.js"}"#),
        ("dynamic/index.js", "module.exports = (name) => require(name);"),
    ]
}

#[tokio::test]
async fn packages_are_inlined_where_that_is_safe_and_external_where_not() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    plane.provide_tree(&["native"], &packages()).await;
    let using = |name: &str, package: &str| {
        let code = format!("import x from '{package}'; export default () => x;");
        let mut body = one(name, "f.mjs", &code);
        body["dependencies"] = json!({ package: "^1" });
        body
    };
    for (package, needs_tree, has, has_not) in [
        ("plain", false, "inlined text", "from\"plain\""),
        ("optional", true, "from\"optional\"", "gone.js"),
        ("seeking", false, "__require(\"../../../package.json\")", "from\"seeking\""),
        ("dynamic", true, "__require(name)", "from\"dynamic\""),
    ] {
        let view = plane.deploy(&token, &using(package, package)).await;
        assert_eq!(view["status"], "active", "{package}: {view:#}");
        assert_eq!(view["depHash"].as_str().map(str::len), Some(64));
        assert_eq!(view["dependencyCache"], "miss");
        let bundle = plane.bundle(&view).await;
        assert!(bundle.contains(has) && !bundle.contains(has_not), "{package}: {bundle}");
        let loaded = plane.sandbox.loaded.lock().last().unwrap().clone();
        assert_eq!(loaded.runtime_deps.is_some(), needs_tree, "{package}");
    }
    let mut external = using("external", "plain");
    external["external"] = json!(["plain"]);
    let view = plane.deploy(&token, &external).await;
    let bundle = plane.bundle(&view).await;
    assert!(bundle.contains("from\"plain\"") && !bundle.contains("inlined"), "{bundle}");
    assert!(plane.sandbox.loaded.lock().last().unwrap().runtime_deps.is_some());

    let mut aliased = using("aliased", "nickname");
    aliased["dependencies"] = json!({ "nickname": "npm:real-name@^1" });
    let view = plane.deploy(&token, &aliased).await;
    assert!(plane.bundle(&view).await.contains("by another name"), "{view:#}");
    aliased["external"] = json!(["nickname"]);
    let view = plane.deploy(&token, &aliased).await;
    assert!(plane.bundle(&view).await.contains("from\"nickname\""), "{view:#}");
    assert!(plane.sandbox.loaded.lock().last().unwrap().runtime_deps.is_some());

    // Native code is refused, unless its user says that the package works without.
    let mut native = using("native", "native");
    let told = error(&plane, &token, &native).await;
    assert_eq!(told["code"], "native_addon");
    assert!(told["message"].as_str().unwrap().contains("\"native\""), "{told}");
    native["external"] = json!(["native"]);
    let view = plane.deploy(&token, &native).await;
    assert_eq!(view["status"], "active", "{view:#}");
    assert!(plane.bundle(&view).await.contains("from\"native\""));

    // Where the tree lies does not show in the bundle.
    let first = plane.deploy(&token, &using("a", "plain")).await;
    let second = plane.deploy(&token, &using("b", "plain")).await;
    assert_eq!(first["bundleHash"], second["bundleHash"]);
    assert!(!plane.bundle(&first).await.contains(plane.data.path().to_str().unwrap()));
}

#[tokio::test]
async fn what_packages_lack_is_not_told_beside_what_the_owner_has_to_mend() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    plane.provide_tree(&[], &packages()).await;
    let code = "import x from 'optional'; import y from './mine.js'; export default () => [x, y];";
    let mut body = one("a", "f.mjs", code);
    body["dependencies"] = json!({ "optional": "^1" });
    let told = error(&plane, &token, &body).await;
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("f.mjs:1:40: Could not resolve \"./mine.js\""), "{message}");
    assert!(!message.contains("node_modules"), "{message}");
}

#[tokio::test]
async fn packages_that_import_what_is_beside_them_by_name_are_loaded_from_the_tree() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let files = [
        ("pdfjs-dist/package.json", r#"{"name":"pdfjs-dist","exports":"./pdf.mjs"}"#),
        ("pdfjs-dist/pdf.mjs", "export const work = (name = './worker.mjs') => import(name);"),
    ];
    plane.provide_tree(&[], &files).await;
    let code = "import { work } from 'pdfjs-dist'; export default () => work();";
    let mut body = one("a", "f.mjs", code);
    body["dependencies"] = json!({ "pdfjs-dist": "^5" });
    let view = plane.deploy(&token, &body).await;
    let bundle = plane.bundle(&view).await;
    assert!(bundle.contains("from\"pdfjs-dist\""), "{bundle}");
    assert!(plane.sandbox.loaded.lock().last().unwrap().runtime_deps.is_some());
}

#[tokio::test]
async fn large_bundles_are_refused_with_the_limit() {
    let plane = Plane::start_with(|options| options.limits.bundle_bytes = 10_000);
    let token = plane.register("ada").await;
    let code = format!("export default '{}';", "x".repeat(20_000));
    let told = error(&plane, &token, &one("a", "f.mjs", &code)).await;
    assert_eq!(told["code"], "limit_exceeded");
    assert!(told["message"].as_str().unwrap().contains("10000 bytes"), "{told}");
}

#[tokio::test]
async fn builds_that_take_too_much_memory_are_ended() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    for code in ["a=1;\n".repeat(3_000_000), format!("x={}", "[".repeat(10_000_000))] {
        let told = error(&plane, &token, &one("a", "f.mjs", &code)).await;
        assert_eq!(told["code"], "limit_exceeded", "{told}");
        assert!(told["message"].as_str().unwrap().contains("2048 MB"), "{told}");
    }
}

#[tokio::test]
async fn builds_that_take_too_long_are_ended() {
    let plane = Plane::start_with(|options| options.limits.bundle_build_ms = 1);
    let token = plane.register("ada").await;
    let told = error(&plane, &token, &one("a", "f.mjs", "export default 1")).await;
    assert_eq!(told["code"], "limit_exceeded", "{told}");
}
