//! What functions learn of the host and its network: little, in words that packages know from Node.

use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{TestServer, deploy, server};

/// Packages ask while they are loaded, many of them without catching what is thrown.
#[tokio::test]
async fn questions_about_the_host_have_answers_that_packages_know() {
    let code = "
        import os from 'node:os';
        import tls from 'node:tls';
        import { exec, spawn, spawnSync } from 'node:child_process';
        import { Worker as Thread } from 'node:worker_threads';
        const { username, homedir, shell } = os.userInfo();
        const of = ({ code, syscall }) => [code, syscall];
        const thrown = (make) => {
            try { make(); } catch (error) { return error.message; }
        };
        const trusted = () => {
            try { return tls.getCACertificates('system').length; } catch { return 0; }
        };
        export default async () => ({
            interfaces: os.networkInterfaces(),
            report: typeof process.report.getReport().header,
            user: [username, homedir, shell],
            group: process.getegid() === process.getgid(),
            authority: tls.rootCertificates[0].slice(0, 27),
            trusted: trusted(),
            spawned: await new Promise((done) => spawn('git').on('error', (error) => done(of(error)))),
            executed: await new Promise((done) => exec('git', (error) => done(of(error)))),
            waited: of(spawnSync('git').error),
            threads: [thrown(() => new Thread('1', { eval: true })), thrown(() => new Worker('data:text/javascript,1'))],
        });
    ";
    let owner = server().await.register().await;
    owner.deploy(&deploy("asks", "a.mjs", code)).await;
    let no_thread = "a function has no threads: Worker and worker_threads start none";
    assert_eq!(
        owner.call("asks").await.expect(200).json(),
        json!({
            "interfaces": { "lo": [{
                "address": "127.0.0.1", "netmask": "255.0.0.0", "family": "IPv4",
                "mac": "00:00:00:00:00:00", "internal": true, "cidr": "127.0.0.1/8",
            }] },
            "report": "object",
            "user": ["function", "/tmp", null],
            "group": true,
            "authority": "-----BEGIN CERTIFICATE-----",
            "trusted": 0,
            "spawned": ["ENOENT", "spawn git"],
            "executed": ["ENOENT", "spawn /bin/sh"],
            "waited": ["ENOENT", "spawnSync git"],
            "threads": [no_thread, no_thread],
        }),
    );
}

/// An import of a name that is not exported fails the deploy.
#[tokio::test]
async fn all_that_process_has_can_be_imported_by_its_name() {
    let code = "
        import { isBuiltin } from 'node:module';
        import nodeProcess, {
            _debugEnd, _debugProcess, _exiting, _fatalException, _getActiveHandles, _getActiveRequests,
            _kill, _rawDebug, binding, config, debugPort, exitCode, features, getgroups,
            hasUncaughtExceptionCaptureCallback, initgroups, moduleLoadList, openStdin, reallyExit, ref,
            release, setSourceMapsEnabled, setUncaughtExceptionCaptureCallback, setgroups,
            sourceMapsEnabled, title, unref, uptime,
        } from 'node:process';
        import * as all from 'process';
        const named = {
            _debugEnd, _debugProcess, _exiting, _fatalException, _getActiveHandles, _getActiveRequests,
            _kill, _rawDebug, binding, config, debugPort, exitCode, features, getgroups,
            hasUncaughtExceptionCaptureCallback, initgroups, moduleLoadList, openStdin, reallyExit, ref,
            setSourceMapsEnabled, setUncaughtExceptionCaptureCallback, setgroups, sourceMapsEnabled, title,
            unref, uptime,
        };
        const refused = (call) => {
            try { call(); } catch ({ code, syscall }) { return [code, syscall]; }
        };
        export default async () => {
            const again = await import('node:process');
            const told = [];
            ref({ ref: () => told.push('held') });
            unref({ ref() {}, [Symbol.for('nodejs.unref')]: () => told.push('let go') });
            return {
                others: Object.keys(named).filter((name) => named[name] !== process[name]),
                same: [nodeProcess, all.default, again.default].every((one) => one === process),
                one: again === all,
                found: ['process', 'node:process'].map((name) => import.meta.resolve(name)),
                known: isBuiltin(import.meta.resolve('process')),
                release: release.name,
                arch: config.variables.host_arch === process.arch,
                runs: uptime() > 0,
                live: [all.pid === process.pid, all.platform, all.env.NAME],
                told,
                refused: [refused(() => setgroups([0])), refused(() => initgroups('root', 0))],
            };
        };
    ";
    let owner = server().await.register().await;
    owner.deploy(&deploy("named", "n.mjs", code).with("env", json!({ "NAME": "value" }))).await;
    assert_eq!(
        owner.call("named").await.expect(200).json(),
        json!({
            "others": [],
            "same": true,
            "one": true,
            "found": ["node:process", "node:process"],
            "known": true,
            "release": "node",
            "arch": true,
            "runs": true,
            "live": [true, "linux", "value"],
            "told": ["held", "let go"],
            "refused": [["EPERM", "setgroups"], ["EPERM", "initgroups"]],
        }),
    );
}

/// Who tries again looks at the code.
#[tokio::test]
async fn a_failed_fetch_says_why_by_its_code() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let server = TestServer::start_with(&[("CLOUDSERVE_EGRESS_ALLOW", &address)]).await;
    let owner = server.register().await;
    let code = format!(
        "export default () => fetch('http://{address}/').catch(({{ name, message, cause }}) => \
         [name, message, cause.code, cause.syscall, cause.errno])"
    );
    owner.deploy(&deploy("refused", "r.mjs", &code)).await;
    assert_eq!(
        owner.call("refused").await.expect(200).json(),
        json!(["TypeError", "fetch failed", "ECONNREFUSED", "connect", -111]),
    );
}
