/*---
{ "package": "@octokit/rest", "version": "22.0.1", "tree": "http", "needs": ["upstream"],
  "exercises": "route methods, pagination by Link headers, RequestError, against a local endpoint of its shape",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "name": "x", "token": "token t", "issues": [1, 2, 3], "status": 404 } } }
---*/
import { Octokit } from "@octokit/rest";

export default async () => {
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const octokit = new Octokit({ auth: "t", baseUrl: `${process.env.UPSTREAM}/github`, log });
  const { data } = await octokit.repos.get({ owner: "o", repo: "x" });
  const issues = await octokit.paginate(octokit.issues.listForRepo, { owner: "o", repo: "x" });
  return {
    name: data.name,
    token: data.token,
    issues: issues.map((issue) => issue.number),
    status: await octokit.repos.get({ owner: "o", repo: "missing" }).catch((error) => error.status),
  };
};
