/*---
{ "package": "crypto-js", "version": "4.2.0", "tree": "data",
  "exercises": "SHA-256, HMAC and PBKDF2 against node:crypto, AES both ways, a subpath",
  "expect": { "json": { "same": [true, true, true], "aes": "hello" } } }
---*/
const crypto = require("node:crypto");
const CryptoJS = require("crypto-js");
const sha256 = require("crypto-js/sha256");

module.exports = () => {
  const sealed = CryptoJS.AES.encrypt("hello", "key").toString();
  return {
    same: [
      sha256("x").toString() === crypto.createHash("sha256").update("x").digest("hex"),
      CryptoJS.HmacSHA1("x", "k").toString() === crypto.createHmac("sha1", "k").update("x").digest("hex"),
      CryptoJS.PBKDF2("p", "s", { keySize: 8, iterations: 10, hasher: CryptoJS.algo.SHA256 }).toString() ===
        crypto.pbkdf2Sync("p", "s", 10, 32, "sha256").toString("hex"),
    ],
    aes: CryptoJS.AES.decrypt(sealed, "key").toString(CryptoJS.enc.Utf8),
  };
};
