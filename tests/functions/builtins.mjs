// Functions of `node:` modules whose source is not that of a function.
import { builtinModules } from 'node:module';

const TEXT = /^(static )?(async )?(get |set )?(function\b|class\b|\(|[\w$]+ =>|\*? ?(\[[^\]]+\]|[\w$#"'-]+) ?\()/;
const source = (value) => Function.prototype.toString.call(value);
const isWrong = (value) =>
  typeof value === 'function' && !(TEXT.test(source(value)) || source(value).includes('[native code]'));

export default async function () {
  const wrong = [];
  let checked = 0;
  for (const name of builtinModules) {
    const module = await import(`node:${name}`).catch(() => ({}));
    for (const [key, value] of Object.entries(module)) {
      if (typeof value !== 'function') continue;
      const methods = Object.entries(Object.getOwnPropertyDescriptors(value.prototype ?? {}));
      for (const [method, one] of [['', value], ...methods.map(([m, d]) => [m, d.value])]) {
        checked += 1;
        if (isWrong(one)) wrong.push(`${name}.${key} ${method}: ${source(one).slice(0, 60)}`);
      }
    }
  }
  return { checked, wrong };
}
