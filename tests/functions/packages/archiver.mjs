/*---
{ "package": "archiver", "version": "8.0.0", "tree": "documents",
  "also": { "unzipper": "0.12.5" },
  "exercises": "an archive of strings and streams, read back by unzipper",
  "expect": { "json": [["a.txt", "one"], ["d/b.txt", "two"]] } }
---*/
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { ZipArchive } from "archiver";
import unzipper from "unzipper";

export default async () => {
  const archive = new ZipArchive({ zlib: { level: 9 } });
  archive.append("one", { name: "a.txt" });
  archive.append(Readable.from(["t", "wo"]), { name: "d/b.txt" });
  archive.finalize();
  const { files } = await unzipper.Open.buffer(await buffer(archive));
  return Promise.all(files.map(async (file) => [file.path, String(await file.buffer())]));
};
