// One call: its request body on the way in, its answer's credit on the way out.

import { primordials } from "ext:core/mod.js";
import { describe } from "ext:cloudserve/errors.js";

const {
  ArrayPrototypePush,
  ArrayPrototypeShift,
  DateNow,
  Error,
  MathMin,
  Number,
  Promise,
  PromisePrototypeThen,
  PromiseResolve,
  TypedArrayPrototypeGetByteLength,
  TypedArrayPrototypeSet,
  TypedArrayPrototypeSlice,
  TypedArrayPrototypeSubarray,
  Uint8Array,
} = primordials;

/** The largest piece of a body in one frame; `MAX_CHUNK_BYTES` of the protocol. */
const CHUNK_BYTES = 64 * 1024;

export const LEVEL_ERROR = 3;

/** What a handler form returns that has answered by itself. */
export const ANSWERED = { __proto__: null };

/** A request, as the host hands it over. */
export class Incoming {
  #host;
  #block = null;
  #headers = null;

  /** `headers`: the list, or what the host makes it of when somebody asks. */
  constructor(host, executionId, method, target, headers, body, end) {
    this.#host = host;
    if (typeof headers === "string") this.#block = headers;
    else this.#headers = headers;
    this.executionId = executionId;
    this.method = method;
    this.target = target;
    this.body = body;
    this.end = end;
  }

  /** `[name, value, name, value, ...]` */
  get headers() {
    return this.#headers ??= this.#host.headers(this.#block);
  }

  /** `scheme://host` of the URL, without the list of headers. */
  get origin() {
    return this.#host.origin(this.#block);
  }
}

/** The gateway passes on no `upgrade` but that of a WebSocket. */
function isUpgrade(headers) {
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] === "upgrade") return true;
  }
  return false;
}

/** How long a body is, as its head says; 0 where it does not. */
function announcedBytes(headers) {
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] === "content-length") return Number(headers[i + 1]);
  }
  return 0;
}

/** A call from its request until it is done. */
export class Call {
  constructor(host, id, request, budgetMs, creditBytes) {
    this.host = host;
    this.id = id;
    this.request = request;
    this.startedMs = DateNow();
    this.deadlineMs = this.startedMs + budgetMs;
    this.background = null;
    this.webRequest = null;
    this.cancelled = false;
    this.pieces = request.body === null ? [] : [request.body];
    this.ended = request.end;
    /** `[name, value, ...]` of what came after the body. */
    this.trailers = [];
    this.aborted = false;
    this.wakeReader = null;
    this.creditBytes = creditBytes;
    this.wakeWriter = null;
    this.onCancel = null;
    this.onIdle = null;
    this.hasBegun = false;
    this.isConcluded = false;
    this.onConcluded = null;
    /** The caller asks for a WebSocket: the body is what it says after an answer of 101. */
    this.isUpgrade = !request.end && isUpgrade(request.headers);
    /** Takes the WebSocket of the handler that asked for one. */
    this.openSocket = null;
  }

  /** More of the request's body arrived. */
  receive(bytes, end) {
    if (TypedArrayPrototypeGetByteLength(bytes) > 0) ArrayPrototypePush(this.pieces, bytes);
    this.ended = end;
    this.wake("wakeReader");
  }

  /** The request's body has come to its end, with trailers. */
  receiveTrailers(trailers) {
    this.trailers = trailers;
    this.ended = true;
    this.wake("wakeReader");
  }

  /** The rest of the request's body will not come. */
  abort() {
    this.aborted = true;
    this.wake("wakeReader");
  }

  /** Nobody waits for the answer. */
  cancel() {
    this.cancelled = true;
    this.abort();
    this.wake("wakeWriter");
    this.wake("onCancel");
  }

  /** Nothing is under way in the process that could come to an end. */
  idle() {
    this.wake("onIdle");
  }

  /** More of the answer's body may be sent. */
  grant(bytes) {
    this.creditBytes += bytes;
    this.wake("wakeWriter");
  }

  /** The answer is complete. */
  conclude() {
    this.isConcluded = true;
    this.wake("onConcluded");
  }

  wake(who) {
    const resolve = this[who];
    this[who] = null;
    resolve?.();
  }

  /** Whether `takeWhole` has the whole body without waiting. */
  get isWhole() {
    return this.isUpgrade || this.ended && this.pieces.length <= 1;
  }

  /** Whether there is no body at all, nor anything after it. */
  get isEmpty() {
    return this.ended && this.pieces.length === 0 && this.trailers.length === 0;
  }

  /** Makes a body that was read available again. */
  putBack(bytes) {
    if (bytes !== null) ArrayPrototypePush(this.pieces, bytes);
  }

  /** The body of a call that `isWhole`: bytes, or null when it is empty. */
  takeWhole() {
    return ArrayPrototypeShift(this.pieces) ?? null;
  }

  /** The next piece of the request's body, null at its end, or undefined if it is not there yet. */
  takePiece() {
    if (this.pieces.length === 0) {
      if (this.ended) return null;
      if (this.aborted) throw new Error("the request body was cut off: the caller went away");
      return undefined;
    }
    const piece = ArrayPrototypeShift(this.pieces);
    if (!this.ended) this.host.credit(this.id, TypedArrayPrototypeGetByteLength(piece));
    return piece;
  }

  /** The next piece of the request's body, or null at its end. */
  async nextPiece() {
    for (;;) {
      const piece = this.takePiece();
      if (piece !== undefined) return piece;
      await new Promise((resolve) => {
        this.wakeReader = resolve;
      });
    }
  }

  /** The whole body, however it arrives; null when there is none. */
  async wholeBody() {
    if (this.isWhole) return this.takeWhole();
    const announced = announcedBytes(this.request.headers);
    if (announced > 0) return this.readInto(new Uint8Array(announced));
    const pieces = [];
    let total = 0;
    for (let piece; (piece = await this.nextPiece()) !== null;) {
      ArrayPrototypePush(pieces, piece);
      total += TypedArrayPrototypeGetByteLength(piece);
    }
    if (total === 0) return null;
    const whole = new Uint8Array(total);
    let at = 0;
    for (let i = 0; i < pieces.length; i++) {
      TypedArrayPrototypeSet(whole, pieces[i], at);
      at += TypedArrayPrototypeGetByteLength(pieces[i]);
    }
    return whole;
  }

  /** Reads a body that is as long as the array: what is still to come the host writes where it belongs. */
  async readInto(whole) {
    let at = 0;
    for (let piece; (piece = this.takePiece()) !== null;) {
      if (piece !== undefined) {
        TypedArrayPrototypeSet(whole, piece, at);
        at += TypedArrayPrototypeGetByteLength(piece);
        continue;
      }
      this.host.fill(this.id, whole, at);
      await new Promise((resolve) => {
        this.wakeReader = resolve;
      });
      at = this.host.filled(this.id);
    }
    return at === TypedArrayPrototypeGetByteLength(whole)
      ? whole
      : TypedArrayPrototypeSlice(whole, 0, at);
  }

  /** Sends the head of an answer whose body follows. */
  begin(status, headers) {
    this.hasBegun = true;
    this.host.head(this.id, status, headers);
  }

  /** Sends a small piece of the answer's body at once, if credit allows; says whether it did. */
  writeNow(bytes) {
    const length = TypedArrayPrototypeGetByteLength(bytes);
    if (length > CHUNK_BYTES || length > this.creditBytes || this.cancelled) return false;
    this.host.chunk(this.id, bytes, false);
    this.creditBytes -= length;
    return true;
  }

  /**
   * Sends a piece of the answer's body as far as credit allows, and waits for more. Whole frames
   * only: credit arrives in crumbs, and frames of crumbs would cost more than their bytes.
   */
  async write(bytes) {
    const length = TypedArrayPrototypeGetByteLength(bytes);
    for (let at = 0; at < length;) {
      const wanted = MathMin(length - at, CHUNK_BYTES);
      while (this.creditBytes < wanted && !this.cancelled) {
        await new Promise((resolve) => {
          this.wakeWriter = resolve;
        });
      }
      if (this.cancelled) return;
      this.host.chunk(this.id, TypedArrayPrototypeSubarray(bytes, at, at + wanted), false);
      this.creditBytes -= wanted;
      at += wanted;
    }
  }

  /** Keeps the call open until the promise settles. A rejection is logged, not an error. */
  waitUntil(promise) {
    const settled = PromisePrototypeThen(PromiseResolve(promise), undefined, (error) => {
      this.host.log(LEVEL_ERROR, `waitUntil: ${describe(error)[1]}`);
    });
    ArrayPrototypePush(this.background ??= [], settled);
  }

  /** What was handed to `waitUntil` has settled. */
  async backgroundDone() {
    // By index: what runs in the background may hand in more.
    for (let i = 0; i < this.background.length; i++) await this.background[i];
  }
}
