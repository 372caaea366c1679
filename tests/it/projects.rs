//! Projects of many files: how their modules find each other, their data and their packages, and
//! what their errors point to.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Account, Deploy, Deployed, deploy, send, server, wait_for};

/// `(module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))`
const ADD_WASM: &[u8] = b"\0asm\x01\0\0\0\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f\x03\x02\x01\0\
    \x07\x07\x01\x03add\0\0\x0a\x09\x01\x07\0\x20\0\x20\x01\x6a\x0b";

fn project(name: &str, files: &Value) -> Deploy {
    Deploy(json!({ "name": name, "files": files }))
}

/// Deploys files, whatever is in them, as the archive `tar czf` makes.
async fn deploy_archive(owner: &Account, name: &str, files: &[(&str, &[u8])]) -> Deployed {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("project/{path}"), *bytes).unwrap();
    }
    let packed = archive.into_inner().unwrap().finish().unwrap();
    let path = format!("/api/function/deploy?wait=true&name={name}");
    let request = owner.api(Method::POST, &path).header("content-type", "application/gzip");
    let view = send(request.body(Bytes::from(packed))).await.expect(200).json();
    assert_eq!(view["status"], "active", "{view:#}");
    Deployed { id: view["id"].as_str().unwrap().to_owned(), view }
}

/// As in Deno and Node, although all modules share one file.
#[tokio::test]
async fn only_the_entry_is_the_main_module() {
    let owner = server().await.register().await;
    // Node's way to ask it, before it knew `import.meta.main`.
    let main = "import { realpathSync } from 'node:fs';
        import { fileURLToPath } from 'node:url';
        const own = fileURLToPath(import.meta.url);
        export const main =
          [import.meta.main, process.argv[1] === own && realpathSync(process.argv[1]) === own];";
    for (name, entry, top) in [("main", "index.ts", "."), ("nested", "src/index.ts", "..")] {
        let files = json!({
            entry: format!("
                {main}
                import {{ main as beside }} from '{top}/lib.ts';
                import {{ main as below }} from '{top}/src/lib.ts';
                import old from '{top}/old.cjs';
                if (main[0]) Deno.serve(() => Response.json([main, beside, below, old]));
            "),
            "lib.ts": main,
            "src/lib.ts": main,
            "old.cjs": "module.exports = process.argv[1] === __filename;",
        });
        owner.deploy(&project(name, &files).with("entry", json!(entry))).await;
        let told = owner.call(name).await.expect(200).json();
        assert_eq!(told, json!([[true, true], [false, false], [false, false], false]), "{name}");
    }
}

#[tokio::test]
async fn modules_of_a_project_find_each_other() {
    let owner = server().await.register().await;
    let files = json!({
        "package.json": json!({
            "name": "own-name",
            "type": "module",
            "main": "src/index.tsx",
            "exports": { "./lib": "./src/lib/public.mjs" },
            "imports": { "#inner": { "node": "./src/lib/for-node.mjs", "default": "./src/lib/for-others.mjs" } },
        }).to_string(),
        "tsconfig.json": json!({ "compilerOptions": {
            "paths": { "@lib/*": ["./src/lib/*"] }, "jsx": "react", "jsxFactory": "h",
        } }).to_string(),
        "src/index.tsx": "
            import { alias } from '@lib/alias';
            import { self } from 'own-name/lib';
            import { inner } from '#inner';
            import data from './data.json';
            import text from './note.md';
            const h = (tag: string, _: unknown, ...children: string[]) => `<${tag}>${children.join('')}</${tag}>`;
            const late = await Promise.resolve('awaited');
            const { lazy } = await import('./lib/lazy.cjs');
            export default () => [alias, self, inner, data.n, text, late, lazy, <b>bold</b>];
        ",
        "src/lib/alias.ts": "export const alias: string = 'alias';",
        "src/lib/public.mjs": "export const self = 'self';",
        "src/lib/for-node.mjs": "export const inner = 'for node';",
        "src/lib/for-others.mjs": "export const inner = 'for others';",
        "src/lib/lazy.cjs": "exports.lazy = 'lazy';",
        "src/data.json": "{\"n\": 7}",
        "src/note.md": "# note",
    });
    owner.deploy(&project("modules", &files)).await;
    assert_eq!(
        owner.call("modules").await.expect(200).json(),
        json!(["alias", "self", "for node", 7, "# note", "awaited", "lazy", "<b>bold</b>"])
    );
}

#[tokio::test]
async fn files_lie_beside_the_module_that_reads_them() {
    let owner = server().await.register().await;
    let files = json!({
        "package.json": "{\"main\": \"src/index.mjs\"}",
        "src/index.mjs": "
            import fs from 'node:fs';
            import path from 'node:path';
            import { fileURLToPath } from 'node:url';
            import { fromCommonJs } from './deep/er/old.cjs';
            const __dirname = path.dirname(fileURLToPath(import.meta.url));
            export default () => [
              fs.readFileSync(path.join(__dirname, 'views/page.html'), 'utf8'),
              fs.readFileSync(new URL('../top.txt', import.meta.url), 'utf8'),
              fs.readFileSync(path.join(import.meta.dirname, 'views', 'page.html'), 'utf8').length,
              fs.readFileSync('top.txt', 'utf8'),
              fs.existsSync(path.join(__dirname, 'nothing.txt')),
              ...fromCommonJs(),
            ];
        ",
        "src/views/page.html": "<p>page</p>",
        "src/deep/er/old.cjs": "
            const fs = require('fs');
            const path = require('path');
            exports.fromCommonJs = () => [
              fs.readFileSync(__dirname + '/a b.txt', 'utf8'),
              path.basename(__filename),
              fs.readdirSync(path.join(__dirname, 'plugins')).sort().map((name) => require('./plugins/' + name)),
            ];
        ",
        "src/deep/er/a b.txt": "beside",
        "src/deep/er/plugins/one.js": "module.exports = 1;",
        "src/deep/er/plugins/two.js": "module.exports = 2;",
        "top.txt": "top",
    });
    owner.deploy(&project("files", &files)).await;
    assert_eq!(
        owner.call("files").await.expect(200).json(),
        json!(["<p>page</p>", "top", 11, "top", false, "beside", "old.cjs", [1, 2]])
    );
}

#[tokio::test]
async fn a_file_that_changes_is_a_change() {
    let owner = server().await.register().await;
    let using = |text: &str| {
        project(
            "changing",
            &json!({
                "index.mjs": "import fs from 'node:fs'; export default () => fs.readFileSync('note.txt', 'utf8');",
                "note.txt": text,
            }),
        )
    };
    let first = owner.deploy(&using("first")).await.view;
    assert_eq!(owner.call("changing").await.expect(200).text(), "first");
    let second = owner.deploy(&using("second")).await.view;
    assert_ne!(first["bundleHash"], second["bundleHash"]);
    assert_eq!(owner.call("changing").await.expect(200).text(), "second");
    let again = owner.deploy(&using("first")).await.view;
    assert_eq!(first["bundleHash"], again["bundleHash"]);
}

#[tokio::test]
async fn webassembly_is_imported_and_read() {
    let owner = server().await.register().await;
    let code = b"
        import module, { add } from './add.wasm';
        import { readFileSync } from 'node:fs';
        export default async () => [
          add(1, 2),
          (await WebAssembly.instantiate(module)).exports.add(3, 4),
          new WebAssembly.Instance(new WebAssembly.Module(readFileSync('add.wasm'))).exports.add(5, 6),
        ];
    ";
    deploy_archive(&owner, "wasm", &[("index.mjs", code), ("add.wasm", ADD_WASM)]).await;
    assert_eq!(owner.call("wasm").await.expect(200).json(), json!([3, 7, 11]));
}

#[tokio::test]
async fn stacks_name_the_owners_files_and_lines() {
    let owner = server().await.register().await;
    let files = json!({
        "package.json": "{\"main\": \"src/index.ts\"}",
        "src/index.ts": "import { deep } from './lib/deep.js';\n\nexport default (): never => deep('x');\n",
        "src/lib/deep.ts": "type Unused = {\n  a: string;\n};\n\nexport const deep = (text: string): never => {\n  \
             throw new RangeError(`no ${text} in ${__dirname.length > 1}`);\n};\n",
    });
    let deployed = owner.deploy(&project("stacks", &files)).await;
    let answer = owner.call("stacks").await.expect(500);
    assert_eq!(answer.code(), "handler_error");
    let execution = answer.execution().to_owned();
    let logged = wait_for("the stack", || async {
        let rows = owner.logs_of(&deployed.id, &execution).await;
        rows[0]["logs"].as_array()?.last()?["message"].as_str().map(str::to_owned)
    })
    .await;
    assert!(logged.starts_with("RangeError: no x in true"), "{logged}");
    assert!(
        logged.contains("src/lib/deep.ts:6:") && logged.contains("src/index.ts:3:"),
        "{logged}"
    );
    assert!(!logged.contains("bundle.js") && !logged.contains("/bundles/"), "{logged}");
}

#[tokio::test]
async fn native_addons_are_refused_by_name() {
    let owner = server().await.register().await;
    let code = "import bcrypt from 'bcrypt'; export default () => bcrypt.hash('x', 4);";
    let using = deploy("native", "f.mjs", code).with("dependencies", json!({ "bcrypt": "6.0.0" }));
    // As it is, and for those who say that it works without: loading it shows.
    for external in [json!([]), json!(["bcrypt"])] {
        let error = owner.deploy_failing(&using.clone().with("external", external)).await;
        assert_eq!(error["code"], "native_addon", "{error:#}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("\"bcrypt\"") && message.contains("bcryptjs"), "{message}");
    }
}

#[tokio::test]
async fn what_is_not_the_functions_is_not_there() {
    let owner = server().await.register().await;
    let code = "
        import fs from 'node:fs';
        import { createRequire } from 'node:module';
        const caught = (f) => { try { return f(); } catch (error) { return error.code; } };
        export default () => [
          fs.existsSync('/etc/alpine-release'),
          fs.existsSync('/etc/passwd'),
          caught(() => fs.readFileSync('/etc/passwd', 'utf8')),
          caught(() => fs.readdirSync('../..')),
          caught(() => createRequire(import.meta.url)('not-there')),
        ];
    ";
    owner.deploy(&deploy("outside", "f.mjs", code)).await;
    assert_eq!(
        owner.call("outside").await.expect(200).json(),
        json!([false, false, "ENOENT", "ENOENT", "MODULE_NOT_FOUND"])
    );
}
