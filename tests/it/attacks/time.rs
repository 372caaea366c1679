//! Code that does not come back.

use super::End::{Fault, Harmless, RefusedOr};
use super::{Attack, attack, mount};

const TIMEOUT: &[&str] = &["timeout"];
const CPU: &[&str] = &["cpu_limit"];

const ATTACKS: &[Attack] = &[
    attack("endless loop", Fault(TIMEOUT), "for (;;);"),
    attack("endless loop in a generator", Fault(TIMEOUT), "for (const _ of (function* () { for (;;) yield 1; })());"),
    attack("endless loop of short awaits", Fault(TIMEOUT), "for (;;) await null;"),
    attack("endless ticks", Fault(TIMEOUT), "await new Promise(() => { const f = () => process.nextTick(f); f(); });"),
    attack("endless immediates", Fault(TIMEOUT), "await new Promise(() => { const f = () => setImmediate(f); f(); });"),
    attack("a promise that never settles", Fault(TIMEOUT), "await new Promise(() => {});"),
    attack("catastrophic regular expression", Fault(TIMEOUT), "return /^(a+)+$/.test('a'.repeat(60) + 'b');"),
    attack("endless WebAssembly", Fault(TIMEOUT), "
        const bytes = new Uint8Array([0,97,115,109,1,0,0,0,1,4,1,96,0,0,3,2,1,0,7,5,1,1,102,0,0,
          10,9,1,7,0,3,64,12,0,11,11]);
        new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports.f();"),
    attack("Atomics.wait", Fault(TIMEOUT), "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);"),
    attack("endless getters", Fault(TIMEOUT), "const o = { get x() { return o.y; }, get y() { for (;;); } }; return o.x;"),
    attack("endless sort", Fault(TIMEOUT), "[1, 2].sort(() => { for (;;); });"),
    attack("endless loop in a proxy", Fault(TIMEOUT), "return `${new Proxy({}, { get() { for (;;); } })}`;"),
    attack("endless loop in finally", Fault(TIMEOUT), "for (;;) { try { for (;;); } finally { for (;;); } }"),
    attack("synchronous key stretching", Fault(TIMEOUT), "require('node:crypto').pbkdf2Sync('a', 'b', 2_000_000_000, 64, 'sha512');"),
    attack("scrypt of huge cost", RefusedOr(&["timeout", "memory_limit", "cpu_limit"]), "
        require('node:crypto').scryptSync('a', 'b', 64, { N: 2 ** 20, r: 16, p: 64, maxmem: 2 ** 40 });"),
    attack("CPU time of a loop", Fault(CPU), "for (;;);").cpu(300).within(5_000),
    attack("CPU time of short turns", Fault(CPU), "
        for (;;) { const end = Date.now() + 5; while (Date.now() < end); await new Promise((r) => setTimeout(r, 1)); }").cpu(300).within(5_000),
    attack("CPU time of native code", Fault(CPU), "require('node:crypto').pbkdf2Sync('a', 'b', 2_000_000_000, 64, 'sha512');").cpu(300).within(5_000),
    attack("CPU time of helper threads", Fault(CPU), "
        const { pbkdf2 } = require('node:crypto');
        for (let i = 0; i < 8; i++) pbkdf2('a', 'b', 2_000_000_000, 64, 'sha512', () => {});
        await new Promise(() => {});").cpu(300).within(5_000),
    attack("a hundred thousand timers", Harmless, "for (let i = 0; i < 100_000; i++) setTimeout(() => {}, 1e9);"),
    attack("deep recursion", RefusedOr(&["memory_limit"]), "const f = () => f() + 1; f();"),
    attack("deep JSON", RefusedOr(&["memory_limit", "timeout"]), "JSON.parse('['.repeat(5_000_000));"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_does_not_come_back_is_ended() {
    mount(ATTACKS).await;
}
