/*---
{ "package": "@azure/storage-blob", "version": "12.32.0", "tree": "http", "needs": ["upstream"],
  "exercises": "a signature of shared access, a request that fails, against a local endpoint",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "signature": "2UO3qWxf3nyHIqOIn5Oh6DgyVblX0RIeEiZy%2BVrcm%2FI%3D", "error": ["RestError", 404] } } }
---*/
import {
  BlobSASPermissions, BlobServiceClient, StorageSharedKeyCredential, generateBlobSASQueryParameters,
} from "@azure/storage-blob";

const credential = new StorageSharedKeyCredential("account", Buffer.from("key").toString("base64"));

export default async () => {
  const sas = generateBlobSASQueryParameters({
    containerName: "c",
    blobName: "b",
    permissions: BlobSASPermissions.parse("r"),
    startsOn: new Date(0),
    expiresOn: new Date(1_000_000),
    version: "2022-11-02",
  }, credential);
  const service = new BlobServiceClient(process.env.UPSTREAM, credential, { retryOptions: { maxTries: 1 } });
  const blob = service.getContainerClient("none").getBlockBlobClient("b");
  const error = await blob.upload("hello", 5).catch(({ name, statusCode }) => [name, statusCode]);
  return { signature: sas.toString().split("sig=")[1], error };
};
