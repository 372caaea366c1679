/*---
{ "package": "isomorphic-git", "version": "1.44.19", "tree": "more",
  "exercises": "a repository in /tmp: a commit with a known hash, the log, the status",
  "expect": { "json": { "hash": "7a479e3f482ba141b74e3583ae1cd80237a06022", "message": "first\n", "status": "*modified" } } }
---*/
import fs from "node:fs";
import git from "isomorphic-git";

export default async () => {
  const dir = fs.mkdtempSync("/tmp/repository-");
  await git.init({ fs, dir, defaultBranch: "main" });
  fs.writeFileSync(`${dir}/a.txt`, "x");
  await git.add({ fs, dir, filepath: "a.txt" });
  const author = { name: "Ada", email: "a@b.c", timestamp: 0, timezoneOffset: 0 };
  const hash = await git.commit({ fs, dir, message: "first", author });
  const [{ commit }] = await git.log({ fs, dir });
  fs.writeFileSync(`${dir}/a.txt`, "changed");
  return { hash, message: commit.message, status: await git.status({ fs, dir, filepath: "a.txt" }) };
};
