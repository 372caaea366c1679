/*---
{ "package": "bcryptjs", "version": "3.0.3", "tree": "data",
  "exercises": "a known hash, hash and compare",
  "expect": { "json": { "known": true, "own": true, "wrong": false, "prefix": "$2b$04$" } } }
---*/
import bcrypt from "bcryptjs";

const KNOWN = "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe";

export default async () => {
  const hash = await bcrypt.hash("correct horse", 4);
  return {
    known: await bcrypt.compare("a", KNOWN),
    own: await bcrypt.compare("correct horse", hash),
    wrong: await bcrypt.compare("other", hash),
    prefix: hash.slice(0, 7),
  };
};
