/*---
{ "package": "jsonwebtoken", "version": "9.0.3", "tree": "data",
  "exercises": "HS256 against a known token, RS256, ES256, expiry, tampering",
  "expect": { "json": { "known": "Ada", "rs256": 7, "es256": 8, "errors": ["TokenExpiredError", "invalid signature"] } } }
---*/
const { generateKeyPairSync } = require("node:crypto");
const jwt = require("jsonwebtoken");

const KNOWN = "eyJhbGciOiJIUzI1NiJ9.eyJuYW1lIjoiQWRhIn0.BWzTxw2zArhyjxraBJ7ZseSiS6OOKNswdnAEHAaM7pI";

const caught = (f) => {
  try {
    return f();
  } catch (error) {
    return error;
  }
};

exports.handler = async () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const through = (payload, { privateKey, publicKey }, algorithm) =>
    jwt.verify(jwt.sign(payload, privateKey, { algorithm }), publicKey, { algorithms: [algorithm] });
  return {
    known: jwt.verify(KNOWN, "secret").name,
    rs256: through({ n: 7 }, rsa, "RS256").n,
    es256: through({ n: 8 }, ec, "ES256").n,
    errors: [
      caught(() => jwt.verify(jwt.sign({}, "s", { expiresIn: -1 }), "s")).name,
      caught(() => jwt.verify(KNOWN, "other")).message,
    ],
  };
};
