/*---
{ "package": "openpgp", "version": "6.3.2", "tree": "more",
  "exercises": "keys, a message encrypted, signed and read back",
  "expect": { "json": { "starts": "-----BEGIN PGP MESSAGE-----", "data": "secret", "isSigned": true } } }
---*/
import {
  createMessage, decrypt, encrypt, generateKey, readMessage,
} from "openpgp";

export default async () => {
  const { privateKey, publicKey } = await generateKey({ userIDs: [{ name: "Ada" }], format: "object" });
  const message = await createMessage({ text: "secret" });
  const armored = await encrypt({ message, encryptionKeys: publicKey, signingKeys: privateKey });
  const read = await readMessage({ armoredMessage: armored });
  const { data, signatures } = await decrypt({ message: read, decryptionKeys: privateKey, verificationKeys: publicKey });
  return { starts: armored.split("\n")[0], data, isSigned: await signatures[0].verified };
};
