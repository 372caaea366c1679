/*---
{ "package": "typescript", "version": "5.9.3", "tree": "tools",
  "exercises": "transpiling, a type error found by a program over its own lib files (read beside it), syntax trees",
  "limits": { "memoryMb": 512, "timeoutMs": 30000 },
  "expect": { "json": { "js": "const n = 1;", "errors": [[2322, "Type 'string' is not assignable to type 'number'."]], "kinds": ["ImportDeclaration", "ClassDeclaration"] } } }
---*/
import * as ts from "typescript";

const FILES = { "/a.ts": "const n: number = ['x'].map((x) => x + '!')[0];" };

export default () => {
  const options = { noEmit: true, strict: true, types: [], lib: ["lib.es5.d.ts"] };
  const host = ts.createCompilerHost(options);
  const { getSourceFile } = host;
  host.getSourceFile = (name, ...rest) =>
    FILES[name] ? ts.createSourceFile(name, FILES[name], ts.ScriptTarget.ES2022) : getSourceFile(name, ...rest);
  const program = ts.createProgram(["/a.ts"], options, host);
  const source = ts.createSourceFile("b.ts", "import 'x'; class Y {}", ts.ScriptTarget.Latest);
  return {
    js: ts.transpile("const n: number = 1;", { target: ts.ScriptTarget.ES2022 }).trim(),
    errors: ts.getPreEmitDiagnostics(program).map((d) => [d.code, ts.flattenDiagnosticMessageText(d.messageText, "\n")]),
    kinds: source.statements.map((statement) => ts.SyntaxKind[statement.kind]),
  };
};
