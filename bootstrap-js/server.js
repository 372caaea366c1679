// Node servers without a socket: requests reach `http.Server` over a connection in memory, so that
// `req` and `res` are Node's own.

import { primordials } from "ext:core/mod.js";
import http from "node:http";
import https from "node:https";
import { ANSWERED } from "ext:cloudserve/call.js";
import { startInMemory } from "ext:cloudserve/capture.js";
import { Connection } from "ext:cloudserve/connection.js";

const { ObjectPrototypeIsPrototypeOf, Promise } = primordials;

/** What an app that exports itself is told that it listens on. */
const APP_PORT = 8000;

/** A server that listened, or one that was made for what was exported. */
export function callServer(call, { server }) {
  return exchange(call, server, undefined);
}

/** Hands the call to the server. `prepare` sees the connection first. */
export function exchange(call, server, prepare) {
  const isEncrypted = ObjectPrototypeIsPrototypeOf(https.Server.prototype, server);
  return new Promise((resolve, reject) => {
    const connection = new Connection(
      call,
      isEncrypted,
      (error) => error === null ? resolve(ANSWERED) : reject(error),
    );
    prepare?.(connection);
    server.emit(isEncrypted ? "secureConnection" : "connection", connection);
  });
}

/**
 * A server of ours. Node would look at its connections twice a minute, for what has taken too long; calls
 * have a deadline of their own, and a worker that has none sleeps.
 */
export function makeServer(options, listener) {
  const made = http.createServer(options, listener);
  made.removeAllListeners("listening");
  return made;
}

/**
 * The `http.Server` behind a handler: the one that was captured, or one made for an app or a
 * listener.
 */
export function serverOf({ server, listener }) {
  const speaksHttp1 = server === undefined ||
    ObjectPrototypeIsPrototypeOf(http.Server.prototype, server) ||
    ObjectPrototypeIsPrototypeOf(https.Server.prototype, server);
  if (server !== undefined && speaksHttp1) {
    if (!server.listening) startInMemory(server, APP_PORT);
    return server;
  }
  // Of `node:http2`, the compatible API is served.
  const made = makeServer({}, listener ?? ((req, res) => server.emit("request", req, res)));
  startInMemory(made, APP_PORT);
  return made;
}
