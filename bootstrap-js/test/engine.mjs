// Lets plain Node load the modules of this folder: it resolves `ext:cloudserve/` to the files and
// stands in for the few parts of the engine they import.

import { register } from "node:module";

register(new URL("./resolve.mjs", import.meta.url));

const upper = (key) =>
  typeof key === "symbol"
    ? `Symbol${key.description[7].toUpperCase()}${key.description.slice(8)}`
    : key[0].toUpperCase() + key.slice(1);

/** As `ext:core/mod.js` names them: `ArrayPrototypePush(array, value)`. */
function primordialsOf(global) {
  const uncurryThis = (f) => (self, ...args) => Reflect.apply(f, self, args);
  const made = { decodeURIComponent, SafeMap: Map, SafeRegExp: RegExp, SafeWeakSet: WeakSet };
  const copy = (source, prefix, wrap) => {
    for (const key of Reflect.ownKeys(source)) {
      const { get, value } = Reflect.getOwnPropertyDescriptor(source, key);
      if (get) made[`${prefix}Get${upper(key)}`] = uncurryThis(get);
      else made[prefix + upper(key)] = typeof value === "function" ? wrap(value) : value;
    }
  };
  const TypedArray = Object.getPrototypeOf(Uint8Array);
  const names = [
    "Array", "ArrayBuffer", "Date", "Error", "Function", "Map", "Number", "Object", "Promise",
    "RegExp", "String", "Symbol", "TypeError", "Uint8Array", "WeakSet",
  ];
  for (const name of names) {
    made[name] = global[name];
    copy(global[name], name, (f) => (name === "Promise" ? f.bind(Promise) : f));
    made[`${name}Prototype`] = global[name].prototype;
    copy(global[name].prototype, `${name}Prototype`, uncurryThis);
  }
  copy(TypedArray.prototype, "TypedArrayPrototype", uncurryThis);
  for (const name of ["JSON", "Math", "Reflect"]) copy(global[name], name, (f) => f);
  return made;
}

const bodyOf = Object.getOwnPropertyDescriptor(Response.prototype, "body").get;

/** What tests say of a `Response`: that `fetch` has decoded its body, or what it was made of. */
globalThis.decodedForTests = new WeakSet();
globalThis.sourcesForTests = new WeakMap();

// Node 20 has none yet.
Response.prototype.bytes ??= async function bytes() {
  return new Uint8Array(await new Response(bodyOf.call(this)).arrayBuffer());
};

function innerOf(response) {
  const source = sourcesForTests.get(response);
  const isWhole = typeof source === "string" || ArrayBuffer.isView(source);
  const body = bodyOf.call(response);
  return {
    status: response.status,
    headerList: [...response.headers],
    bodyDecoded: decodedForTests.has(response),
    body: body && {
      source,
      unusable: () => response.bodyUsed,
      streamOrStatic: isWhole ? { body: source, consumed: false } : body,
    },
  };
}

globalThis.engineForTests = {
  primordials: primordialsOf(globalThis),
  core: {
    loadExtScript: () => ({
      InnerBody: class {},
      ResponsePrototype: Response.prototype,
      getInnerResponse: innerOf,
      toInnerResponse: innerOf,
      extractBody(value) {
        const { body, headers } = new Response(value);
        return { body: { stream: body }, contentType: headers.get("content-type") };
      },
      forgivingBase64Encode: (bytes) => Buffer.from(bytes).toString("base64"),
      forgivingBase64Decode: (text) => new Uint8Array(Buffer.from(text, "base64")),
      inspect: (value) => (value instanceof Error ? value.stack : JSON.stringify(value)),
    }),
  },
};
