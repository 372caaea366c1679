import assert from "node:assert/strict";
import { test } from "node:test";
import { codeOf } from "ext:cloudserve/source.js";

test("what is no code is left out", () => {
  for (const [source, code] of [
    ["a /* b */ c // d\ne", "a   c  \ne"],
    ['a("b\\"c", \'d\')', "a( ,  )"],
    ["a(/[/`]b`/, c / d / e)", "a( , c / d / e)"],
    ["a`b`c", "a c"],
    ["`a${b}c${d}e`f", " (b) (d) f"],
    ["`a\\`\\${b}$c`d", " d"],
    ["`a${b(`c${{ d: `}` }.d}e`)}f`g", " (b( ({ d:   }.d) )) g"],
    ["{ `a${(() => { return b; })()}` } }", "{  ((() => { return b; })())  } }"],
    ["`${a /* } */}` + '`'", " (a  )  +  "],
    ["`a", " "],
    ["`a${b", " (b"],
  ]) {
    assert.equal(codeOf(source), code, source);
  }
});
