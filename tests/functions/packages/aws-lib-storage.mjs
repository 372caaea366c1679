/*---
{ "package": "@aws-sdk/lib-storage", "version": "3.1175.0", "tree": "aws", "needs": ["s3"],
  "also": { "@aws-sdk/client-s3": "3.1175.0" },
  "exercises": "a stream uploaded in parts, against SeaweedFS",
  "env": { "S3": "{s3}", "S3_KEY": "{s3Key}", "S3_SECRET": "{s3Secret}" },
  "expect": { "json": { "parts": [1, 2], "length": 6291456 } } }
---*/
import { CreateBucketCommand, GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { Readable } from "node:stream";

const s3 = new S3Client({
  region: "us-east-1",
  endpoint: process.env.S3,
  forcePathStyle: true,
  credentials: { accessKeyId: process.env.S3_KEY, secretAccessKey: process.env.S3_SECRET },
});

export default async () => {
  const at = { Bucket: "lib-storage", Key: "large" };
  await s3.send(new CreateBucketCommand({ Bucket: at.Bucket })).catch(() => {});
  const megabyte = Buffer.alloc(1024 * 1024, "x");
  const Body = Readable.from(Array.from({ length: 6 }, () => megabyte));
  const parts = [];
  const upload = new Upload({ client: s3, params: { ...at, Body }, partSize: 5 * 1024 * 1024 });
  upload.on("httpUploadProgress", ({ part }) => parts.push(part));
  await upload.done();
  const { ContentLength } = await s3.send(new GetObjectCommand(at));
  return { parts: parts.sort(), length: ContentLength };
};
