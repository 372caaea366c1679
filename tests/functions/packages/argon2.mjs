/*---
{ "package": "argon2", "version": "0.45.1", "tree": "argon2", "refused": "hash-wasm", "exercises": "native addon" }
---*/
import argon2 from "argon2";

export default () => argon2.hash("x");
