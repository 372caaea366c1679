// Everything a function can see of its caller and its surroundings.
import fs from 'node:fs';

const read = (path) => {
  try {
    return fs.readFileSync(path, 'latin1');
  } catch {
    return '';
  }
};

export default async function (event, context) {
  return {
    event,
    context: JSON.parse(JSON.stringify(context)),
    env: { ...process.env },
    argv: process.argv,
    files: ['/proc/self/environ', '/proc/self/cmdline', '/proc/1/environ'].map(read),
  };
}
