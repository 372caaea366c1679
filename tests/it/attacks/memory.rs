//! Code that wants all memory, and other things there is an end of.

use super::End::{Fault, Harmless, RefusedOr};
use super::{Attack, attack, mount};

const MEMORY: &[&str] = &["memory_limit"];

const ATTACKS: &[Attack] = &[
    attack("a huge array", Fault(&["memory_limit", "timeout"]), "return new Array(1e9).fill(0).length;").within(4_000),
    attack("a growing array", Fault(MEMORY), "const a = []; for (;;) a.push({ x: a.length, y: `${a.length}` });").within(5_000),
    attack("a doubling string", RefusedOr(MEMORY), "let s = 'x'; for (;;) { s += s; s.at(-1); JSON.stringify(s.slice(0, 1)); }").within(5_000),
    attack("a flat doubling string", RefusedOr(MEMORY), "let s = 'x'; for (;;) s = JSON.parse(JSON.stringify(s + s));").within(5_000),
    attack("buffers", Fault(MEMORY), "const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1));").within(5_000),
    attack("typed arrays", Fault(MEMORY), "const a = []; for (;;) a.push(new Float64Array(1 << 17).fill(1));").within(5_000),
    attack("one huge buffer", RefusedOr(MEMORY), "return Buffer.alloc(2 ** 31).length;").within(5_000),
    attack("shared buffers", RefusedOr(MEMORY), "const a = []; for (;;) a.push(new Uint8Array(new SharedArrayBuffer(1 << 20)).fill(1));").within(5_000),
    attack("a resizable buffer", RefusedOr(&["memory_limit", "timeout"]), "
        const b = new ArrayBuffer(1, { maxByteLength: 2 ** 31 });
        for (let n = 1 << 20; ; n += 1 << 20) { b.resize(n); new Uint8Array(b).fill(1); }").within(5_000),
    attack("growing WebAssembly memory", RefusedOr(MEMORY), "
        const m = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
        for (;;) { m.grow(64); new Uint8Array(m.buffer).fill(1); }").within(8_000),
    attack("many WebAssembly memories", RefusedOr(MEMORY), "
        const a = [];
        for (;;) { const m = new WebAssembly.Memory({ initial: 16 }); new Uint8Array(m.buffer).fill(1); a.push(m); }").within(8_000),
    attack("a map", Fault(MEMORY), "const m = new Map(); for (let i = 0; ; i++) m.set(i, [i]);").within(6_000),
    attack("closures", Fault(MEMORY), "let f = () => 0; for (;;) { const g = f, big = [1, 2, 3, Math.random()]; f = () => [g, big]; }").within(6_000),
    attack("promises", Fault(MEMORY), "const a = []; for (;;) a.push(Promise.resolve([a.length]).then((x) => [x]));").within(6_000),
    attack("blobs", RefusedOr(MEMORY), "const a = [], b = new Uint8Array(1 << 20).fill(1); for (;;) { a.push(new Blob([b])); await a.at(-1).slice(0, 1).text(); }").within(8_000),
    attack("a bomb of zlib", RefusedOr(&["memory_limit", "timeout"]), "
        const zlib = require('node:zlib'), one = zlib.gzipSync(Buffer.alloc(8 << 20));
        return zlib.gunzipSync(Buffer.concat(Array(256).fill(one))).length;").within(5_000),
    attack("a bomb of brotli", RefusedOr(&["memory_limit", "timeout"]), "
        const zlib = require('node:zlib');
        let bomb = zlib.brotliCompressSync(Buffer.alloc(16 << 20), { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 1 } });
        const a = []; for (;;) a.push(zlib.brotliDecompressSync(bomb));").within(5_000),
    attack("JSON that is huge", RefusedOr(&["memory_limit", "timeout"]), "return JSON.parse(`[${'{\"a\":[1,2,3]},'.repeat(3e6)}1]`).length;").within(5_000),
    attack("copies", RefusedOr(MEMORY), "let o = { a: [1, 2, 3] }; for (;;) o = structuredClone({ o, p: structuredClone(o) });").within(6_000),
    attack("an endless log", Harmless, "for (let i = 0; i < 200_000; i++) console.log('x'.repeat(1_000));").within(5_000),
    attack("endless standard output", Harmless, "for (let i = 0; i < 2_000; i++) process.stdout.write('x'.repeat(60_000));").within(5_000),
    attack("an answer that is huge", Fault(&["response_too_large", "memory_limit"]), "return 'x'.repeat(20 << 20);"),
    attack("filling tmp", RefusedOr(MEMORY), "const piece = Buffer.alloc(1 << 20, 1); for (let i = 0; ; i++) fs.writeFileSync(`/tmp/f${i}`, piece);").within(5_000),
    attack("filling tmp with one file", RefusedOr(MEMORY), "const piece = Buffer.alloc(1 << 20, 1); for (;;) fs.appendFileSync('/tmp/f', piece);").within(5_000),
    attack("filling tmp with names", RefusedOr(&["timeout"]), "for (let i = 0; ; i++) fs.writeFileSync(`/tmp/f${i}`, '');").within(5_000),
    attack("a sparse file", RefusedOr(MEMORY), "fs.writeFileSync('/tmp/f', ''); fs.truncateSync('/tmp/f', 2 ** 40);"),
    attack("open files", RefusedOr(MEMORY), "fs.writeFileSync('/tmp/f', ''); for (;;) fs.openSync('/tmp/f');").within(5_000),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_wants_everything_gets_its_share() {
    mount(ATTACKS).await;
}
