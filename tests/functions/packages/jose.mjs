/*---
{ "package": "jose", "version": "6.2.18", "tree": "data",
  "exercises": "EdDSA and RSA-OAEP through WebCrypto, a local JWKS",
  "expect": { "json": { "sub": "ada", "kid": "k1", "plain": "hello", "code": "ERR_JWT_CLAIM_VALIDATION_FAILED" } } }
---*/
import { CompactEncrypt, SignJWT, compactDecrypt, createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from "jose";

export default async () => {
  const { publicKey, privateKey } = await generateKeyPair("EdDSA", { extractable: true });
  const jwks = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: "k1", alg: "EdDSA" }] });
  const token = await new SignJWT({}).setProtectedHeader({ alg: "EdDSA", kid: "k1" })
    .setSubject("ada").setAudience("app").setExpirationTime("1h").sign(privateKey);
  const { payload, protectedHeader } = await jwtVerify(token, jwks, { audience: "app" });
  const rsa = await generateKeyPair("RSA-OAEP-256");
  const jwe = await new CompactEncrypt(new TextEncoder().encode("hello"))
    .setProtectedHeader({ alg: "RSA-OAEP-256", enc: "A256GCM" }).encrypt(rsa.publicKey);
  const { plaintext } = await compactDecrypt(jwe, rsa.privateKey);
  return {
    sub: payload.sub,
    kid: protectedHeader.kid,
    plain: new TextDecoder().decode(plaintext),
    code: await jwtVerify(token, jwks, { audience: "other" }).catch((error) => error.code),
  };
};
