/*---
{ "package": "@aws-sdk/client-s3", "version": "3.1175.0", "tree": "aws", "needs": ["s3"],
  "exercises": "put and get with checksums, conditional put, a range, listing, errors, against SeaweedFS",
  "env": { "S3": "{s3}", "S3_KEY": "{s3Key}", "S3_SECRET": "{s3Secret}" },
  "limits": { "timeoutMs": 20000 },
  "expect": { "json": { "text": "hello", "range": "ell", "status": 412, "keys": ["a", "b"], "missing": "NoSuchKey" } } }
---*/
import {
  CreateBucketCommand, GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client,
} from "@aws-sdk/client-s3";

const s3 = new S3Client({
  endpoint: process.env.S3,
  region: "us-east-1",
  forcePathStyle: true,
  credentials: { accessKeyId: process.env.S3_KEY, secretAccessKey: process.env.S3_SECRET },
});
const at = { Bucket: "packages" };

export default async () => {
  await s3.send(new CreateBucketCommand(at)).catch(() => {});
  await s3.send(new PutObjectCommand({ ...at, Key: "a", Body: "hello" }));
  await s3.send(new PutObjectCommand({ ...at, Key: "b", Body: Buffer.alloc(100_000) }));
  const text = async (more) =>
    (await s3.send(new GetObjectCommand({ ...at, Key: "a", ...more }))).Body.transformToString();
  return {
    text: await text(),
    range: await text({ Range: "bytes=1-3" }),
    status: await s3.send(new PutObjectCommand({ ...at, Key: "a", Body: "x", IfNoneMatch: "*" }))
      .catch((error) => error.$metadata.httpStatusCode),
    keys: (await s3.send(new ListObjectsV2Command(at))).Contents.map((object) => object.Key),
    missing: await text({ Key: "none" }).catch((error) => error.name),
  };
};
