/*---
{ "package": "@google-cloud/storage", "version": "7.22.0", "tree": "google", "needs": ["upstream"],
  "exercises": "a V4 signed URL, a request that fails, against a local endpoint",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "path": "/b/a%20file", "algorithm": "GOOG4-RSA-SHA256", "error": "ApiError" } } }
---*/
import { generateKeyPairSync } from "node:crypto";
import { Storage } from "@google-cloud/storage";

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
const credentials = {
  client_email: "a@p.example",
  private_key: privateKey.export({ type: "pkcs8", format: "pem" }),
};

export default async () => {
  const storage = new Storage({
    apiEndpoint: process.env.UPSTREAM,
    projectId: "p",
    useAuthWithCustomEndpoint: false,
    retryOptions: { autoRetry: false },
    credentials,
  });
  const file = storage.bucket("b").file("a file");
  const [signed] = await file.getSignedUrl({ version: "v4", action: "read", expires: Date.now() + 60_000 });
  const url = new URL(signed);
  const error = await file.getMetadata().catch(({ constructor }) => constructor.name);
  return { path: url.pathname, algorithm: url.searchParams.get("X-Goog-Algorithm"), error };
};
