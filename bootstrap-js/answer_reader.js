// Reads the HTTP/1.1 a Node server writes to its connection: heads, and bodies without their
// framing. It believes what it reads: the function wrote it, and can only spoil its own answer.

import { primordials } from "ext:core/mod.js";
import { Buffer } from "node:buffer";

const {
  ArrayPrototypePush,
  Error,
  MathMin,
  Number,
  NumberIsInteger,
  NumberParseInt,
  RegExpPrototypeExec,
  RegExpPrototypeTest,
  SafeRegExp,
  StringFromCharCode,
  StringPrototypeIndexOf,
  StringPrototypeSlice,
  StringPrototypeSplit,
  StringPrototypeToLowerCase,
  StringPrototypeTrim,
  TypedArrayPrototypeGetByteLength,
  TypedArrayPrototypeSubarray,
} = primordials;

const STATUS_LINE = new SafeRegExp(/^HTTP\/1\.[01] ([0-9]{3})(?: |$)/);
const BEYOND_ASCII = new SafeRegExp(/[^\x00-\x7f]/);
const CHUNKED = new SafeRegExp(/(?:^|\W)chunked(?:$|\W)/i);

/** Longest head. The supervisor refuses smaller ones already. */
const MAX_HEAD_LENGTH = 1024 * 1024;
/** Longest line with the size of a chunk, extensions included. */
const MAX_SIZE_LINE_LENGTH = 1024;

const MAX_TRAILERS = 10_000;

const LF = 10;

// Where in an answer the reader is.
const HEAD = 0;
const FIXED = 1;
const UNTIL_END = 2;
const SIZE = 3;
const CHUNK = 4;
const CHUNK_END = 5;
const TRAILERS = 6;
const COMPLETE = 7;
const RAW = 8;

/** See the module. `head` and `pieces` hold what was read and not taken yet. */
export class AnswerReader {
  #state = HEAD;
  #text = "";
  #left = 0;
  #isHeadOnly;
  #isUpgrade;

  constructor(isHeadOnly, isUpgrade) {
    this.#isHeadOnly = isHeadOnly;
    this.#isUpgrade = isUpgrade;
    /** `{status, headers}` of the final answer, once. */
    this.head = null;
    this.pieces = [];
    /** `[name, value, ...]` of what came after the body. */
    this.trailers = [];
  }

  get isComplete() {
    return this.#state === COMPLETE;
  }

  /** Whether the connection is not HTTP any more. */
  get isRaw() {
    return this.#state === RAW;
  }

  /** What is written next: text in an encoding, or bytes. */
  push(chunk, encoding) {
    if (this.#state === HEAD) {
      if (typeof chunk === "string") return this.#pushHead(chunk, encoding);
      return this.#pushHead(Buffer.from(chunk).latin1Slice(), "latin1");
    }
    const bytes = typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk;
    if (TypedArrayPrototypeGetByteLength(bytes) > 0) this.#pushBody(bytes);
  }

  /** Nothing more is written. */
  end() {
    if (this.#state === UNTIL_END) this.#state = COMPLETE;
  }

  #pushHead(text, encoding) {
    if (this.#text !== "") {
      // A head in several pieces: rare, so the rest may be converted once more.
      text = this.#text + latin1(text, encoding);
      encoding = "latin1";
      this.#text = "";
    }
    const end = StringPrototypeIndexOf(text, "\r\n\r\n");
    if (end < 0) {
      this.#text = latin1(text, encoding);
      if (this.#text.length > MAX_HEAD_LENGTH) throw new Error("the head of the answer is too long");
      return;
    }
    this.#readHead(latin1(StringPrototypeSlice(text, 0, end), encoding));
    const rest = StringPrototypeSlice(text, end + 4);
    if (rest !== "") this.push(rest, encoding);
  }

  #readHead(text) {
    const lines = StringPrototypeSplit(text, "\r\n");
    const found = RegExpPrototypeExec(STATUS_LINE, lines[0]);
    if (found === null) throw new Error("the server wrote what is no HTTP answer");
    const status = Number(found[1]);
    // Answers before the answer: 100, 102, 103; and 101 to a caller that has not asked for it.
    const isSwitch = status === 101 && this.#isUpgrade;
    if (status < 200 && !isSwitch) return;
    const headers = [];
    let length = -1;
    let isChunked = false;
    for (let i = 1; i < lines.length; i++) {
      const { 0: name, 1: value } = fieldOf(lines[i]);
      switch (name) {
        case "connection":
        case "keep-alive":
          break;
        case "transfer-encoding":
          isChunked ||= RegExpPrototypeTest(CHUNKED, value);
          break;
        case "content-length":
          length = Number(value);
          // falls through
        default:
          ArrayPrototypePush(headers, name, value);
      }
    }
    this.head = { status, headers };
    if (isSwitch) {
      this.#state = RAW;
    } else if (this.#isHeadOnly || status === 204 || status === 304) {
      this.#state = COMPLETE;
    } else if (isChunked) {
      this.#state = SIZE;
    } else if (NumberIsInteger(length) && length >= 0) {
      this.#left = length;
      this.#state = length === 0 ? COMPLETE : FIXED;
    } else {
      this.#state = UNTIL_END;
    }
  }

  #pushBody(bytes) {
    const length = TypedArrayPrototypeGetByteLength(bytes);
    for (let at = 0; at < length;) {
      switch (this.#state) {
        case FIXED:
        case CHUNK: {
          const end = at + MathMin(this.#left, length - at);
          ArrayPrototypePush(this.pieces, TypedArrayPrototypeSubarray(bytes, at, end));
          this.#left -= end - at;
          if (this.#left === 0) this.#state = this.#state === FIXED ? COMPLETE : CHUNK_END;
          at = end;
          break;
        }
        case SIZE:
        case CHUNK_END:
        case TRAILERS:
          at = this.#pushLine(bytes, at, length);
          break;
        case UNTIL_END:
        case RAW:
          ArrayPrototypePush(this.pieces, at === 0 ? bytes : TypedArrayPrototypeSubarray(bytes, at));
          return;
        default:
          // Past the end: there is no second answer.
          return;
      }
    }
  }

  #addTrailer(line) {
    const { 0: name, 1: value } = fieldOf(line);
    ArrayPrototypePush(this.trailers, name, value);
    // The supervisor refuses fewer already.
    if (this.trailers.length > 2 * MAX_TRAILERS) throw new Error("the answer has too many trailers");
  }

  /** Reads a line of the framing as far as it goes; says where it ends. */
  #pushLine(bytes, at, length) {
    while (at < length && bytes[at] !== LF) {
      this.#text += StringFromCharCode(bytes[at++]);
      if (this.#text.length > (this.#state === TRAILERS ? MAX_HEAD_LENGTH : MAX_SIZE_LINE_LENGTH)) {
        throw new Error("the server wrote too long a line between or after the chunks");
      }
    }
    if (at === length) return at;
    const line = StringPrototypeTrim(this.#text);
    this.#text = "";
    if (this.#state === CHUNK_END) {
      this.#state = SIZE;
    } else if (this.#state === TRAILERS) {
      if (line === "") this.#state = COMPLETE;
      else this.#addTrailer(line);
    } else {
      this.#left = NumberParseInt(line, 16);
      if (!(this.#left >= 0)) throw new Error("the server wrote a chunk of no size");
      this.#state = this.#left === 0 ? TRAILERS : CHUNK;
    }
    return at + 1;
  }
}

/** `[name, value]` of a line. */
function fieldOf(line) {
  const colon = StringPrototypeIndexOf(line, ":");
  return [
    StringPrototypeToLowerCase(StringPrototypeSlice(line, 0, colon)),
    StringPrototypeTrim(StringPrototypeSlice(line, colon + 1)),
  ];
}

/** Text that holds a character for each byte `encoding` makes of it. */
function latin1(text, encoding) {
  if (encoding === "latin1" || encoding === "binary" || !RegExpPrototypeTest(BEYOND_ASCII, text)) {
    return text;
  }
  return Buffer.from(text, encoding).latin1Slice();
}
