// WebSockets of handlers that answer with a `Response`: `Deno.upgradeWebSocket`, and `WebSocketPair`
// of Workers. The engine's own WebSocket speaks the protocol at one end of a pipe; what is here
// passes bytes between the other end and the call.

import { core, primordials } from "ext:core/mod.js";
import { isPairEnd, connectPairEnd } from "ext:cloudserve/web_socket_pair.js";

const { upgradeWebSocket } = core.loadExtScript("ext:deno_http/02_websocket.ts");
const { toInnerResponse } = core.loadExtScript("ext:deno_fetch/23_response.js");

const {
  ArrayPrototypePush,
  Error,
  Promise,
  PromisePrototypeThen,
  TypeError,
  TypedArrayPrototypeSubarray,
  Uint8Array,
} = primordials;

const NOTHING = new Uint8Array(0);
const SWITCHING_PROTOCOLS = 101;
/** What is read of a pipe at once: as much as a frame of the answer holds. */
const PIECE_BYTES = 64 * 1024;

/** Headers of the handshake, which are not the handler's to choose. */
const HANDSHAKE = {
  __proto__: null,
  upgrade: true,
  connection: true,
  "sec-websocket-accept": true,
};

/** Makes the request of an upgrade one that `Deno.upgradeWebSocket` takes. */
export function offerUpgrade(call, inner) {
  inner._throwIfUpgraded = () => {
    if (call.openSocket !== null) throw new TypeError("the request was upgraded already");
  };
  inner._wantsUpgrade = () =>
    new Promise((resolve) => {
      call.openSocket = resolve;
    });
}

/**
 * Answers with 101 and stays until the connection is over. `end` is what Workers call
 * `webSocket`: the end of a pair that is the caller's.
 */
export async function acceptUpgrade(call, headers, end) {
  if (isPairEnd(end)) {
    if (!call.isUpgrade) throw new TypeError("the request does not ask for a WebSocket");
    if (call.webRequest === null) {
      throw new TypeError("only a handler that takes a Request may answer with a WebSocketPair");
    }
    const { response, socket } = upgradeWebSocket(call.webRequest, { idleTimeout: 0 });
    headers = withHandshake(headers, toInnerResponse(response).headerList);
    connectPairEnd(end, socket);
  }
  if (call.openSocket === null) {
    throw new TypeError(
      "a Response of status 101 is one of Deno.upgradeWebSocket or has a webSocket of a WebSocketPair",
    );
  }
  const ends = call.host.openWebSocket();
  if (ends === undefined) throw new Error("the function has too many descriptors open");
  const { 0: socket, 1: pipe } = ends;
  call.begin(SWITCHING_PROTOCOLS, headers);
  call.openSocket(socket);
  const close = () => core.tryClose(pipe);
  if (call.cancelled) close();
  call.onCancel = close;
  let cutOff = null;
  PromisePrototypeThen(hear(call, pipe), undefined, (error) => {
    cutOff = error;
    close();
  });
  await say(call, pipe);
  close();
  if (cutOff !== null && !call.cancelled) throw cutOff;
  call.host.chunk(call.id, NOTHING, true);
}

function withHandshake(headers, handshake) {
  const all = [];
  for (let i = 0; i < handshake.length; i++) {
    ArrayPrototypePush(all, handshake[i][0], handshake[i][1]);
  }
  for (let i = 0; i < headers.length; i += 2) {
    if (!HANDSHAKE[headers[i]]) ArrayPrototypePush(all, headers[i], headers[i + 1]);
  }
  return all;
}

/** What the caller sends. Fails if it was cut off. */
async function hear(call, pipe) {
  for (let piece; (piece = await call.nextPiece()) !== null;) {
    try {
      await core.writeAll(pipe, piece);
    } catch {
      // The WebSocket is closed: it listens no more.
      return;
    }
  }
  try {
    await core.shutdown(pipe);
  } catch {
    // As above.
  }
}

/** What the WebSocket sends, until it is closed. */
async function say(call, pipe) {
  const buffer = new Uint8Array(PIECE_BYTES);
  for (;;) {
    let length;
    try {
      length = await core.read(pipe, buffer);
    } catch {
      // It was closed while it had not read all, or the caller has gone.
      length = 0;
    }
    if (length === 0) break;
    const bytes = TypedArrayPrototypeSubarray(buffer, 0, length);
    if (!call.writeNow(bytes)) await call.write(bytes);
  }
}
