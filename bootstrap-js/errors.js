// What was thrown, as text.

import { core, primordials } from "ext:core/mod.js";

const { inspect } = core.loadExtScript("ext:deno_web/01_console.js");
const { ErrorPrototype, ObjectPrototypeIsPrototypeOf, StringPrototypeIndexOf, StringPrototypeSlice } =
  primordials;

function firstLine(text) {
  const end = StringPrototypeIndexOf(text, "\n");
  return end < 0 ? text : StringPrototypeSlice(text, 0, end);
}

/** `[one line, everything]` of a thrown value, whatever it is. */
export function describe(error) {
  try {
    if (ObjectPrototypeIsPrototypeOf(ErrorPrototype, error)) {
      const message = `${error.message}`;
      const line = message === "" ? `${error.name}` : `${error.name}: ${message}`;
      return [firstLine(line), inspect(error)];
    }
    const text = `Uncaught ${typeof error === "string" ? error : inspect(error)}`;
    return [firstLine(text), text];
  } catch {
    return ["Uncaught value that cannot be shown", ""];
  }
}
