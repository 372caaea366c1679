//! Code that reaches for processes, its own and others, and for what the platform runs beside it.

use super::End::{Answer, Fault, Harmless, Refused, RefusedOr};
use super::{Attack, attack, mount};

const CRASHED: &[&str] = &["crashed"];
const FAILS: &[&str] = &["handler_error", "timeout", "crashed", "response_too_large"];

const ATTACKS: &[Attack] = &[
    attack("exit", Fault(CRASHED), "process.exit(0);"),
    attack("exit with an error", Fault(CRASHED), "process.exit(1);"),
    attack("Deno.exit", RefusedOr(CRASHED), "Deno.exit(3);"),
    attack("reallyExit", RefusedOr(CRASHED), "process.reallyExit(70);"),
    attack("abort", Fault(CRASHED), "process.abort();"),
    attack("killing itself", RefusedOr(CRASHED), "process.kill(process.pid, 'SIGKILL'); await new Promise((r) => setTimeout(r, 500)); return 'alive';"),
    attack("killing the server", Refused, "process.kill(process.ppid, 'SIGKILL');"),
    attack("killing process 1", Refused, "process.kill(1, 0);"),
    attack("killing everybody", Refused, "process.kill(-1, 'SIGKILL');"),
    attack("a shell", Refused, "return require('node:child_process').execSync('id');"),
    attack("a program", Refused, "return require('node:child_process').execFileSync('/bin/cat', ['/etc/passwd']);"),
    attack("a spawned program", Refused, "
        await new Promise((done, failed) => {
          const child = require('node:child_process').spawn('sleep', ['60']);
          child.on('error', failed); child.on('spawn', done);
        });"),
    attack(
        "a bomb of forks",
        Refused,
        "
        const { spawnSync } = require('node:child_process');
        for (let i = 0; i < 1_000; i++) {
          const { status, error } = spawnSync('true');
          if (status !== 0) throw error ?? new Error(`it did not run: ${status}`);
        }",
    ),
    attack("fork", Refused, "
        await new Promise((done, failed) => {
          const child = require('node:child_process').fork('/tmp/x.js');
          child.on('error', failed); child.on('spawn', done); child.on('exit', () => failed(new Error('it ended')));
        });"),
    attack("Deno.Command", Refused, "return new Deno.Command('id').outputSync().code;"),
    attack("worker threads", RefusedOr(FAILS), "
        const { Worker } = require('node:worker_threads');
        await new Promise((done, failed) => {
          const w = new Worker('for(;;);', { eval: true }); w.on('error', failed); w.on('online', done);
        });"),
    attack("a web worker", RefusedOr(FAILS), "
        await new Promise((done, failed) => {
          const w = new Worker('data:text/javascript,postMessage(1)', { type: 'module' });
          w.onmessage = done; w.onerror = failed;
        });"),
    attack("a library", Refused, "fs.writeFileSync('/tmp/x.node', 'x'); process.dlopen({ exports: {} }, '/tmp/x.node');"),
    attack("the C library", Refused, "process.dlopen({ exports: {} }, '/lib/x86_64-linux-gnu/libc.so.6');"),
    attack("Deno.dlopen", Refused, "Deno.dlopen('/lib/x86_64-linux-gnu/libc.so.6', { getpid: { parameters: [], result: 'i32' } });"),
    attack("the inspector", RefusedOr(FAILS), "const i = require('node:inspector'); i.open(0, '127.0.0.1'); if (!i.url()) throw new Error('not open'); return i.url();"),
    attack("permissions", Answer("denied denied denied"), "
        const ask = async (name) => (await Deno.permissions.request({ name })).state;
        return [await ask('run'), await ask('ffi'), await ask('sys')].map((s) => s === 'granted' ? s : 'denied').join(' ');"),
    attack("another context", Harmless, "
        const out = require('node:vm').runInNewContext('this.constructor.constructor(\"return globalThis\")()');
        return Object.keys(out.process?.env ?? {}).length;"),
    attack("the control socket", Answer("none"), "
        const net = require('node:net');
        const binding = (name) => process.binding(`${name}_wrap`);
        const { TCP } = binding('tcp'), { UDP } = binding('udp');
        // The function's standard output and error are its own.
        const pipe = new net.Socket({ fd: 1, readable: false })._handle;
        const Pipe = pipe.constructor;
        const terminals = [binding('tty').TTY];
        try { terminals.push(new (require('node:tty').WriteStream)(2)._handle.constructor); } catch {}
        const asTerminal = (fd) => terminals.some((Terminal) => {
          const failure = {};
          try { return 'readStart' in new Terminal(fd, failure) && failure.code === undefined; } catch { return false; }
        });
        const ways = {
          socket: (fd) => new net.Socket({ fd, readable: false }).writable,
          pipe: (fd) => new Pipe(0).open(fd) === 0,
          listener: (fd) => new Pipe(1).open(fd) === 0,
          tcp: (fd) => new TCP(0).open(fd) === 0,
          udp: (fd) => new UDP().open(fd) === 0,
          terminal: asTerminal,
          file: (fd) => fs.writeSync(fd, 'x') >= 0 || fs.readSync(fd, Buffer.alloc(1)) >= 0,
          stat: (fd) => fs.fstatSync(fd) !== undefined,
          closed: (fd) => fs.closeSync(fd) === undefined,
        };
        const opened = [];
        for (let fd = 3; fd <= 64; fd++) {
          for (const [name, opens] of Object.entries(ways)) {
            try { if (opens(fd)) opened.push(`${name} ${fd}`); } catch {}
          }
        }
        return opened.join(', ') || 'none';"),
    attack("the bridge", Answer("undefined"), "return String(globalThis.__cloudserve);"),
    attack("the core", RefusedOr(FAILS), "
        const core = Deno[Deno.internal]?.core ?? globalThis.__bootstrap?.core;
        if (!core?.ops?.op_spawn_child) throw new Error('not there');
        return core.ops.op_spawn_child({ cmd: 'id', args: [] });"),
    attack("prototype pollution", Harmless, "
        Object.prototype.fault = 'x'; Object.prototype.status = 999; Object.prototype.then = (r) => r(1);
        Object.prototype.body = 'x'; Array.prototype.push = () => { throw new Error('no'); };
        return 'polluted';"),
    attack("globals replaced", Harmless, "
        globalThis.Promise = globalThis.Response = globalThis.Map = undefined;
        JSON.stringify = JSON.parse = Function.prototype.call = Function.prototype.apply = () => { throw new Error('no'); };
        return 'replaced';"),
    attack("iterators replaced", Harmless, "
        Array.prototype[Symbol.iterator] = function* () { yield ['x-hacked', '1']; };
        Promise.prototype.then = function () { return this; };
        return 'replaced';"),
    attack("stacks of the bridge", Harmless, "
        let seen = [];
        Error.prepareStackTrace = (_, sites) => { seen = sites.map((s) => typeof s.getFunction?.()); return 'x'; };
        new Error('x').stack; return seen.includes('function');"),
    attack("its caller's credentials", Answer("false false false"), "
        const all = JSON.stringify(event).toLowerCase();
        return [all.includes('bearer'), all.includes('x-api-key'), 'authorization' in event.headers].join(' ');"),
    attack("the environment of the server", Answer("0"), "
        const own = ['HOME', 'TMPDIR', 'NODE_ENV'];
        return Object.keys(process.env).filter((name) => !own.includes(name)).length;"),
    attack("a new title and directory", Harmless, "process.title = 'x'; process.umask(0); process.chdir('/tmp'); return process.cwd();"),
    attack("throwing what cannot be shown", RefusedOr(FAILS), "throw { get message() { for (;;); } };"),
    attack("rejections without end", Harmless, "for (let i = 0; i < 10_000; i++) Promise.reject(new Error('x')); return 1;"),
    attack("a signal handler", Harmless, "process.on('SIGTERM', () => {}); process.on('SIGINT', () => {}); return 1;"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_reaches_for_processes_stays_alone() {
    mount(ATTACKS).await;
}
