// AWS's response streaming: a handler marked by `awslambda.streamifyResponse` gets a stream to
// write its answer to, and may set status and headers before the first byte.

import { primordials } from "ext:core/mod.js";
import { Writable } from "node:stream";
import { ANSWERED } from "ext:cloudserve/call.js";
import { Context, eventOf } from "ext:cloudserve/event.js";
import { STREAMING } from "ext:cloudserve/handlers.js";
import { headOf } from "ext:cloudserve/response.js";

const {
  Error,
  ObjectFreeze,
  Promise,
  PromisePrototypeThen,
  PromiseResolve,
  ReflectApply,
  TypeError,
  Uint8Array,
} = primordials;

const NOTHING = new Uint8Array(0);
const DEFAULT_HEAD = { statusCode: 200, headers: { "content-type": "application/octet-stream" } };

class ResponseStream extends Writable {
  #call;
  #head = DEFAULT_HEAD;
  #isSent = false;
  #isComplete = false;

  constructor(call) {
    super();
    this.#call = call;
  }

  /** All of the answer is sent. */
  get isComplete() {
    return this.#isComplete;
  }

  setContentType(type) {
    this.#head = { ...this.#head, headers: { ...this.#head.headers, "content-type": type } };
  }

  /** What `HttpResponseStream.from` sets. */
  setHead(head) {
    if (this.#isSent) throw new TypeError("the answer has begun already");
    headOf(head);
    this.#head = head;
  }

  #begin() {
    if (this.#isSent) return;
    this.#isSent = true;
    const { status, headers } = headOf(this.#head);
    this.#call.begin(status, headers);
  }

  _write(chunk, _encoding, done) {
    try {
      this.#begin();
    } catch (error) {
      return done(error);
    }
    if (this.#call.writeNow(chunk)) return done();
    PromisePrototypeThen(this.#call.write(chunk), () => done(), done);
  }

  _final(done) {
    try {
      this.#begin();
    } catch (error) {
      return done(error);
    }
    this.#isComplete = true;
    this.#call.host.chunk(this.#call.id, NOTHING, true);
    done();
  }
}

/** The global `awslambda`. Open: the AWS SDK keeps things of its own in it. */
export const awslambda = {
  streamifyResponse(handler) {
    if (typeof handler !== "function") {
      throw new TypeError("awslambda.streamifyResponse takes a function");
    }
    handler[STREAMING] = "response";
    return handler;
  },
  HttpResponseStream: ObjectFreeze({
    from(stream, head) {
      stream.setHead(head);
      return stream;
    },
  }),
};

/** `awslambda.streamifyResponse(async (event, responseStream, context) => ...)` */
export async function callStream(call, { handler }, settings) {
  const event = await eventOf(call, settings);
  const stream = new ResponseStream(call);
  const context = new Context(call, settings);
  return new Promise((resolve, reject) => {
    // The answer is complete when the stream is; the handler may fail before, or give it up.
    stream.once("close", () => {
      if (stream.isComplete || call.cancelled) resolve(ANSWERED);
      else reject(new Error("the handler destroyed its stream before it had answered"));
    });
    stream.once("error", reject);
    call.onCancel = () => stream.destroy();
    const returned = ReflectApply(handler, undefined, [event, stream, context]);
    PromisePrototypeThen(PromiseResolve(returned), undefined, reject);
  });
}
