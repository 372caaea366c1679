// The code in a function's source.

import { primordials } from "ext:core/mod.js";

const {
  ArrayPrototypePop,
  ArrayPrototypePush,
  RegExpPrototypeExec,
  SafeRegExp,
  StringPrototypeEndsWith,
  StringPrototypeSlice,
} = primordials;

/**
 * Comments, strings, and regular expressions where no operand has ended, which are no code; and what
 * begins and ends the parts of a template.
 */
const TOKEN = [
  "/\\*[^]*?\\*/|//.*",
  '"(?:\\\\[^]|[^"\\\\\\n])*"',
  "'(?:\\\\[^]|[^'\\\\\\n])*'",
  "(?=/)(?<=(?:[(,=:[!&|?{};<>+*%^~-]|\\breturn)\\s*)/(?:\\\\.|\\[(?:\\\\.|[^\\]\\\\\\n])*\\]|[^/\\\\\\n[])+/",
  "[`{}]",
].join("|");
/** The text of a template, to its end or to the next expression in it. */
const TEXT = "(?:\\\\[^]|\\$(?!\\{)|[^`\\\\$])*(?:`|\\$\\{)?";

/** The source with a blank for all that is no code. What a template evaluates is code, in parentheses. */
export function codeOf(source) {
  const tokens = new SafeRegExp(TOKEN, "g");
  const text = new SafeRegExp(TEXT, "y");
  // For each template around: how many braces were open where its expression began.
  const templates = [];
  let depth = 0;
  let code = "";
  let from = 0;
  for (let found; (found = RegExpPrototypeExec(tokens, source)) !== null;) {
    const token = found[0];
    if (token === "{") {
      depth += 1;
      continue;
    }
    const isResumed = token === "}" && templates.length > 0 &&
      templates[templates.length - 1] === depth;
    if (token === "}" && !isResumed) {
      depth -= 1;
      continue;
    }
    code += StringPrototypeSlice(source, from, found.index) + (isResumed ? ") " : " ");
    from = tokens.lastIndex;
    if (token !== "`" && !isResumed) continue;
    text.lastIndex = from;
    const part = RegExpPrototypeExec(text, source)[0];
    from = tokens.lastIndex = from + part.length;
    if (isResumed) ArrayPrototypePop(templates);
    if (StringPrototypeEndsWith(part, "${")) {
      ArrayPrototypePush(templates, depth);
      code += "(";
    }
  }
  return code + StringPrototypeSlice(source, from);
}
