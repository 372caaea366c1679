// A connection that exists in memory only: a request on the way in, an answer on the way out. It
// is what a Node server gets instead of a socket.

import { primordials } from "ext:core/mod.js";
import { Buffer } from "node:buffer";
import { Duplex } from "node:stream";
import { AnswerReader } from "ext:cloudserve/answer_reader.js";
import { peerOf } from "ext:cloudserve/request.js";

const {
  ArrayPrototypeShift,
  Error,
  NumberPrototypeToString,
  PromisePrototypeThen,
  RegExpPrototypeTest,
  SafeRegExp,
  StringPrototypeIncludes,
  TypedArrayPrototypeGetByteLength,
  Uint8Array,
} = primordials;

const NOTHING = new Uint8Array(0);
const HOST = "127.0.0.1";
const CRLF = Buffer.from("\r\n");
/** A character beyond would be written as another one: its low byte may end the line. */
const TARGET = new SafeRegExp(/^[\x21-\x7e]+$/);

/** See the module. `settle` is called once, with an error if there is no answer. */
export class Connection extends Duplex {
  #call;
  #reader;
  #settle;
  #isHeadRead = false;
  #isHeadSent = false;
  #isAnswered = false;
  #isWaiting = false;
  #isChunked = false;
  #isCutOff = false;

  constructor(call, isEncrypted, settle) {
    super({ allowHalfOpen: true, decodeStrings: false });
    this.#call = call;
    this.#reader = new AnswerReader(call.request.method === "HEAD", call.isUpgrade);
    this.#settle = settle;
    this.encrypted = isEncrypted || undefined;
    this.authorized = false;
    this.alpnProtocol = isEncrypted ? "http/1.1" : undefined;
    this.connecting = false;
    this.pending = false;
    this.timeout = 0;
    this.bytesRead = 0;
    this.bytesWritten = 0;
    this.remoteAddress = peerOf(call.request) || HOST;
    this.remoteFamily = StringPrototypeIncludes(this.remoteAddress, ":") ? "IPv6" : "IPv4";
    this.remotePort = 0;
    this.localAddress = HOST;
    this.localFamily = "IPv4";
    this.localPort = 0;
    call.onCancel = () => this.destroy();
  }

  // What `net.Socket` has besides. Calls have a deadline of their own, so these wait for nothing.
  setTimeout(milliseconds, listener) {
    this.timeout = milliseconds;
    if (typeof listener === "function") this.once("timeout", listener);
    return this;
  }
  setNoDelay() {
    return this;
  }
  setKeepAlive() {
    return this;
  }
  ref() {
    return this;
  }
  unref() {
    return this;
  }
  address() {
    return { address: this.localAddress, family: this.localFamily, port: this.localPort };
  }
  getPeerCertificate() {
    return {};
  }
  get readyState() {
    if (this.readable) return this.writable ? "open" : "readOnly";
    return this.writable ? "writeOnly" : "closed";
  }
  destroySoon() {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once("finish", () => this.destroy());
  }

  _read() {
    if (this.#isWaiting) return;
    if (this.#isHeadRead) return this.#pull();
    this.#isHeadRead = true;
    if (RegExpPrototypeTest(TARGET, this.#call.request.target)) this.#push(this.#requestHead());
    else this.destroy(new Error("the target of the request is not visible ASCII"));
  }

  #pull() {
    let piece;
    try {
      piece = this.#call.takePiece();
    } catch (error) {
      return void this.#cutOff(error);
    }
    if (piece !== undefined) return this.#pushPiece(piece);
    this.#isWaiting = true;
    PromisePrototypeThen(
      this.#call.nextPiece(),
      (later) => {
        this.#isWaiting = false;
        this.#pushPiece(later);
      },
      (error) => this.#cutOff(error),
    );
  }

  #cutOff(error) {
    this.#isCutOff = true;
    this.destroy(error);
  }

  /** A connection stays open after the request: null is the end of the body, not of reading. */
  #pushPiece(piece) {
    if (this.destroyed) return;
    if (piece === null) {
      this.#isWaiting = true;
      if (this.#call.isUpgrade) this.#push(null);
      else if (this.#isChunked) {
        this.#push(Buffer.from(`0\r\n${linesOf(this.#call.trailers)}\r\n`, "latin1"));
      }
    } else if (this.#isChunked) {
      const length = TypedArrayPrototypeGetByteLength(piece);
      this.#push(
        Buffer.concat([Buffer.from(`${NumberPrototypeToString(length, 16)}\r\n`), piece, CRLF]),
      );
    } else {
      this.#push(Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength));
    }
  }

  #push(bytes) {
    if (bytes !== null) this.bytesRead += TypedArrayPrototypeGetByteLength(bytes);
    this.push(bytes);
  }

  #requestHead() {
    const { method, target, headers } = this.#call.request;
    let text = `${method} ${target} HTTP/1.1\r\n${linesOf(headers)}`;
    let hasLength = false;
    for (let i = 0; i < headers.length; i += 2) {
      if (headers[i] === "content-length") hasLength = true;
    }
    if (!hasLength && !this.#call.isEmpty && !this.#call.isUpgrade) {
      this.#isChunked = true;
      text += "transfer-encoding: chunked\r\n";
    }
    return Buffer.from(`${text}\r\n`, "latin1");
  }

  _write(chunk, encoding, done) {
    this._writev([{ chunk, encoding }], done);
  }

  _writev(entries, done) {
    try {
      for (let i = 0; i < entries.length; i++) {
        const { chunk, encoding } = entries[i];
        this.bytesWritten += chunk.length;
        this.#reader.push(chunk, encoding);
      }
    } catch (error) {
      return done(error);
    }
    this.#send(done);
  }

  _final(done) {
    this.#reader.end();
    this.#send((error) => {
      if (this.#reader.isRaw) this.#finishAnswer();
      done(error);
    });
  }

  /** Sends what was read of the answer since the last time. */
  #send(done) {
    const { head, isComplete, pieces, trailers } = this.#reader;
    if (head === null || this.#isAnswered) return done();
    if (!this.#isHeadSent) {
      this.#isHeadSent = true;
      if (isComplete && trailers.length === 0) {
        this.#isAnswered = true;
        const { host, id } = this.#call;
        const body = pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
        pieces.length = 0;
        host.answer(id, head.status, head.headers, body.length === 0 ? null : body);
        this.#closeAfterResponse();
        return done();
      }
      this.#call.begin(head.status, head.headers);
    }
    this.#sendPieces(done);
  }

  #sendPieces(done) {
    const { pieces } = this.#reader;
    while (pieces.length > 0) {
      const piece = ArrayPrototypeShift(pieces);
      if (this.#call.writeNow(piece)) continue;
      PromisePrototypeThen(this.#call.write(piece), () => this.#sendPieces(done), done);
      return;
    }
    if (this.#reader.isComplete) this.#finishAnswer();
    done();
  }

  #finishAnswer() {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    const { host, id } = this.#call;
    const { trailers } = this.#reader;
    if (trailers.length === 0) host.chunk(id, NOTHING, true);
    else host.trailers(id, trailers);
    this.#closeAfterResponse();
  }

  /** The call is over when the response has told its listeners so: they may log. */
  #closeAfterResponse() {
    const response = this._httpMessage;
    if (response) response.once("close", () => this.destroy());
    else this.destroySoon();
  }

  _destroy(error, done) {
    // Whatever is still in the way of an answer.
    if (!this.#isAnswered && this.#reader.isRaw && !this.#isCutOff) this.#finishAnswer();
    const isOver = this.#isAnswered || this.#call.cancelled;
    this.#settle(
      isOver
        ? null
        : error ?? new Error("the server closed the connection before it had answered"),
    );
    // Nobody but the call hears of it: without a listener, an error would end the process.
    done(this.listenerCount("error") > 0 ? error : null);
  }
}

/** Lines of a head, from `[name, value, ...]`. */
function linesOf(headers) {
  let lines = "";
  for (let i = 0; i < headers.length; i += 2) lines += `${headers[i]}: ${headers[i + 1]}\r\n`;
  return lines;
}
