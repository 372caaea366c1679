//! Code that reads and writes what is not its own.

use super::End::{Answer, Harmless, Refused, RefusedOr};
use super::{Attack, attack, mount};

const ATTACKS: &[Attack] = &[
    attack(
        "the environment of the process",
        Refused,
        "return fs.readFileSync('/proc/self/environ');",
    ),
    attack("the memory of the process", Refused, "return fs.openSync('/proc/self/mem', 'r+');"),
    attack("the memory map", Refused, "return fs.readFileSync('/proc/self/maps');"),
    attack(
        "the environment of the server",
        Refused,
        "return fs.readFileSync(`/proc/${process.ppid}/environ`);",
    ),
    attack("the processes of the host", Refused, "return fs.readdirSync('/proc');"),
    attack("etc passwd", Refused, "return fs.readFileSync('/etc/passwd', 'utf8');"),
    attack(
        "etc passwd, later",
        Refused,
        "return await fs.promises.readFile('/etc/passwd', 'utf8');",
    ),
    attack("etc passwd by Deno", Refused, "return Deno.readTextFileSync('/etc/passwd');"),
    attack(
        "etc passwd by a detour",
        Refused,
        "return fs.readFileSync('/tmp/../etc/passwd', 'utf8');",
    ),
    attack(
        "etc passwd by a URL",
        Refused,
        "return await (await fetch('file:///etc/passwd')).text();",
    ),
    attack(
        "etc passwd as a module",
        Refused,
        "return await import(['file:', '/etc/passwd'].join('//'));",
    ),
    attack("etc passwd as CommonJS", Refused, "return require('/etc/passwd');"),
    attack(
        "etc passwd by a stream",
        Refused,
        "for await (const piece of fs.createReadStream('/etc/passwd')) return piece;",
    ),
    attack(
        "etc passwd as a blob",
        Refused,
        "return await (await fs.openAsBlob('/etc/passwd')).text();",
    ),
    attack("the root directory", Refused, "return fs.readdirSync('/');"),
    attack("the home of root", Refused, "return fs.readdirSync('/root');"),
    attack("the data directory", Refused, "return fs.readdirSync('DATA');"),
    attack(
        "the secrets of the platform",
        Refused,
        "return fs.readFileSync('DATA/secrets/master-key', 'utf8');",
    ),
    attack("the database", Refused, "return fs.readFileSync('DATA/meta.db').length;"),
    attack(
        "the database by SQLite",
        Refused,
        "const { DatabaseSync } = require('node:sqlite'); return new DatabaseSync('DATA/meta.db').prepare('select * from users').all().length;",
    ),
    attack("the cache of bundles", Refused, "return fs.readdirSync('DATA/cache/bundles');"),
    attack("the directories of workers", Refused, "return fs.readdirSync('DATA/workers');"),
    attack("another's tmp", Refused, "return fs.readFileSync('/tmp/secret', 'utf8');"),
    attack("a tmp that is empty", Answer(""), "return fs.readdirSync('/tmp').join();"),
    attack(
        "a tmp that is its own",
        Answer("mine"),
        "fs.writeFileSync('/tmp/mine', 'mine'); return fs.readFileSync(require('node:os').tmpdir() + '/mine', 'utf8');",
    ),
    attack(
        "a link out of tmp",
        Refused,
        "fs.symlinkSync('/etc/passwd', '/tmp/link'); return fs.readFileSync('/tmp/link', 'utf8');",
    ),
    attack(
        "a link to a directory",
        Refused,
        "fs.symlinkSync('/etc', '/tmp/etc'); return fs.readFileSync('/tmp/etc/passwd', 'utf8');",
    ),
    attack(
        "a link to write through",
        Refused,
        "fs.symlinkSync('DATA', '/tmp/d'); fs.writeFileSync('/tmp/d/evil', 'x');",
    ),
    attack(
        "a hard link",
        Refused,
        "fs.linkSync('/etc/passwd', '/tmp/link'); return fs.readFileSync('/tmp/link', 'utf8');",
    ),
    attack(
        "a copy",
        Refused,
        "fs.copyFileSync('/etc/passwd', '/tmp/copy'); return fs.readFileSync('/tmp/copy', 'utf8');",
    ),
    attack(
        "a pipe",
        Refused,
        "require('node:child_process').execSync('mkfifo /tmp/p'); fs.readFileSync('/tmp/p');",
    ),
    attack(
        "its bundle, to write",
        Refused,
        "fs.writeFileSync(new URL(import.meta.url), 'export default () => 1');",
    ),
    attack("its bundle, to remove", Refused, "fs.unlinkSync(new URL(import.meta.url));"),
    attack(
        "beside its bundle",
        Refused,
        "fs.writeFileSync(new URL('./evil.js', import.meta.url), 'x');",
    ),
    attack("a file in etc", Refused, "fs.writeFileSync('/etc/evil', 'x');"),
    attack("a device", Refused, "return fs.openSync('/dev/sda');"),
    attack("shared memory", Refused, "fs.writeFileSync('/dev/shm/evil', 'x');"),
    attack("rights of others' files", Refused, "fs.chmodSync('DATA', 0o777);"),
    attack(
        "watching a directory",
        RefusedOr(&["handler_error", "timeout"]),
        "for await (const e of fs.promises.watch('/etc')) return e.filename;",
    ),
    attack("watching its tmp", Refused, "return Deno.watchFs('/tmp').rid;"),
    attack("the root as its directory", Refused, "process.chdir('/'); return fs.readdirSync('.');"),
    attack(
        "random numbers without end",
        Harmless,
        "return fs.readFileSync('/dev/urandom').length;",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_sees_its_own_files_and_no_others() {
    mount(ATTACKS).await;
}
