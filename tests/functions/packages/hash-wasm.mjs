/*---
{ "package": "hash-wasm", "version": "4.13.0", "tree": "wasm",
  "exercises": "argon2id, BLAKE3 and bcrypt in WebAssembly, known hashes",
  "expect": { "json": { "argon2": true, "blake3": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", "bcrypt": true } } }
---*/
import { argon2Verify, argon2id, bcryptVerify, blake3 } from "hash-wasm";

export default async () => {
  const salt = new Uint8Array(16);
  const hash = await argon2id({ password: "p", salt, iterations: 2, memorySize: 512, parallelism: 1, hashLength: 32, outputType: "encoded" });
  return {
    argon2: await argon2Verify({ password: "p", hash }),
    blake3: await blake3(""),
    bcrypt: await bcryptVerify({ password: "a", hash: "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe" }),
  };
};
