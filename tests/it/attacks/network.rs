//! Code that connects to what is not the public internet, and code that listens.

use super::End::{Answer, Harmless, Refused, RefusedOr};
use super::{Attack, attack, mount};

const ATTACKS: &[Attack] = &[
    attack("what the operator opened", Answer("reached"), "return await (await fetch('http://127.0.0.1:REDIRECT/')).text();"),
    attack("what the operator opened, mapped", Answer("reached"), "return await (await fetch('http://[::ffff:127.0.0.1]:REDIRECT/')).text();"),
    attack("loopback", Refused, "return (await fetch('http://127.0.0.1:API/healthz')).status;"),
    attack("loopback of IPv6", Refused, "return (await fetch('http://[::1]:API/healthz')).status;"),
    attack("loopback, mapped", Refused, "return (await fetch('http://[::ffff:127.0.0.1]:API/healthz')).status;"),
    attack("loopback by NAT64", Refused, "return (await fetch('http://[64:ff9b::7f00:1]:API/healthz')).status;"),
    attack("loopback elsewhere", Refused, "return (await fetch('http://127.1.2.3:API/healthz')).status;"),
    attack("no address", Refused, "return (await fetch('http://0.0.0.0:API/healthz')).status;"),
    attack("no address of IPv6", Refused, "return (await fetch('http://[::]:API/healthz')).status;"),
    attack("decimal", Refused, "return (await fetch('http://2130706433:API/healthz')).status;"),
    attack("octal", Refused, "return (await fetch('http://0177.0.0.1:API/healthz')).status;"),
    attack("hexadecimal", Refused, "return (await fetch('http://0x7f000001:API/healthz')).status;"),
    attack("short", Refused, "return (await fetch('http://127.1:API/healthz')).status;"),
    attack("a name of loopback", Refused, "return (await fetch('http://localhost:API/healthz')).status;"),
    attack("a redirect to loopback", Refused, "return (await fetch('http://127.0.0.1:REDIRECT/to')).status;"),
    attack("metadata of the cloud", Refused, "return (await fetch('http://169.254.169.254/latest/meta-data/')).status;"),
    attack("metadata of IPv6", Refused, "return (await fetch('http://[fd00:ec2::254]/')).status;"),
    attack("a private address", Refused, "return (await fetch('http://10.0.0.1/')).status;"),
    attack("a shared address", Refused, "return (await fetch('http://100.64.0.1/')).status;"),
    attack("mail", Refused, "
        const net = require('node:net');
        return await new Promise((done, failed) => net.connect(25, '1.1.1.1', done).on('error', failed));"),
    attack("node http", Refused, "
        const http = require('node:http');
        return await new Promise((done, failed) => http.get('http://127.0.0.1:API/healthz', (r) => done(r.statusCode)).on('error', failed));"),
    attack("node http with its own lookup", Refused, "
        const http = require('node:http');
        const lookup = (_, options, done) => options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4);
        return await new Promise((done, failed) => http.get({ host: 'example.com', port: API, path: '/healthz', lookup }, (r) => done(r.statusCode)).on('error', failed));"),
    attack("node https", Refused, "
        const https = require('node:https');
        return await new Promise((done, failed) => https.get('https://127.0.0.1:API/', { rejectUnauthorized: false }, (r) => done(r.statusCode)).on('error', (e) => failed(new Error(e.code ?? e.message))));"),
    attack("node net", Refused, "
        const net = require('node:net');
        return await new Promise((done, failed) => net.connect(API, '127.0.0.1', () => done('connected')).on('error', failed));"),
    attack("node net by name", Refused, "
        const net = require('node:net');
        return await new Promise((done, failed) => net.connect(API, 'localhost', () => done('connected')).on('error', failed));"),
    attack("node tls", Refused, "
        const tls = require('node:tls');
        return await new Promise((done, failed) => tls.connect({ port: API, host: '127.0.0.1', rejectUnauthorized: false }, () => done('connected')).on('error', failed));"),
    attack("a datagram", Refused, "
        const socket = require('node:dgram').createSocket('udp4');
        return await new Promise((done, failed) => { socket.on('error', failed); socket.send('x', 9, '127.0.0.1', (e) => e ? failed(e) : done('sent')); });"),
    attack("a connected datagram", Refused, "
        const socket = require('node:dgram').createSocket('udp4');
        return await new Promise((done, failed) => { socket.on('error', failed); socket.connect(9, '127.0.0.1', (e) => { if (e) return failed(e); socket.send('x', (e) => e ? failed(e) : done('sent')); }); });"),
    attack("Deno.connect", Refused, "return (await Deno.connect({ hostname: '127.0.0.1', port: API })).rid;"),
    attack("a web socket", Refused, "
        return await new Promise((done, failed) => {
          const socket = new WebSocket('ws://127.0.0.1:API/'); socket.onopen = () => done('open');
          socket.onerror = (e) => failed(new Error(e.message || 'failed'));
        });"),
    attack("an event source", RefusedOr(&["timeout"]), "
        return await new Promise((done, failed) => {
          const source = new EventSource('http://127.0.0.1:API/healthz'); source.onopen = () => done('open');
          source.onerror = () => { source.close(); failed(new Error('failed')); };
        });"),
    attack("a socket of the host", Refused, "
        const net = require('node:net');
        return await new Promise((done, failed) => net.connect('/var/run/docker.sock', () => done('connected')).on('error', failed));"),
    attack("a socket without a name", Refused, "
        const net = require('node:net');
        return await new Promise((done, failed) => net.connect('\\0evil', () => done('connected')).on('error', failed));"),
    attack("listening", Refused, "
        const net = require('node:net');
        return await new Promise((done, failed) => net.createServer().listen(0, '0.0.0.0', () => done('listens')).on('error', failed));"),
    attack("listening by Deno", Refused, "return Deno.listen({ port: 0 }).addr.port;"),
    attack("listening on a file", Refused, "
        const net = require('node:net');
        return await new Promise((done, failed) => net.createServer().listen('/tmp/s', () => done('listens')).on('error', failed));"),
    attack("listening for datagrams", Refused, "
        const socket = require('node:dgram').createSocket('udp4');
        return await new Promise((done, failed) => socket.on('error', failed).bind(5353, () => done('bound')));"),
    attack("thousands of sockets", Harmless, "
        const net = require('node:net'); let failed = 0;
        await Promise.all(Array.from({ length: 3_000 }, () => new Promise((done) => net.connect(API, '127.0.0.1').on('error', () => { failed++; done(); }).on('connect', done))));
        return failed;").within(10_000),
    attack("a name that is a port scan", Harmless, "
        const open = [];
        for (let port = 1; port < 200; port++) await fetch(`http://127.0.0.1:${port}/`).then(() => open.push(port), () => {});
        if (open.length) throw new Error('reached'); return 'nothing';").within(10_000),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_reaches_the_public_internet_and_nothing_else() {
    mount(ATTACKS).await;
}
