/*---
{ "package": "firebase-admin", "version": "13.10.0", "tree": "google",
  "exercises": "a custom token made and its signature checked, a token refused, without the network",
  "expect": { "json": { "uid": "ada", "claims": { "admin": true }, "iss": "a@p.example", "isSigned": true, "error": "auth/argument-error" } } }
---*/
import { createVerify, generateKeyPairSync } from "node:crypto";
import { cert, initializeApp } from "firebase-admin/app";
import { getAuth } from "firebase-admin/auth";

const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
const pem = privateKey.export({ type: "pkcs8", format: "pem" });
const credential = cert({ projectId: "p", clientEmail: "a@p.example", privateKey: pem });
const auth = getAuth(initializeApp({ credential }));

export default async () => {
  const token = await auth.createCustomToken("ada", { admin: true });
  const [head, payload, signature] = token.split(".");
  const { uid, claims, iss } = JSON.parse(Buffer.from(payload, "base64url"));
  const isSigned = createVerify("RSA-SHA256").update(`${head}.${payload}`).verify(publicKey, signature, "base64url");
  const error = await auth.verifyIdToken("none").catch(({ code }) => code);
  return { uid, claims, iss, isSigned, error };
};
