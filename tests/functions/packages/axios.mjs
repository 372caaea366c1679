/*---
{ "package": "axios", "version": "1.21.1", "tree": "http", "needs": ["upstream"],
  "exercises": "GET with parameters, POST of JSON, interceptors, error statuses, gzip",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "echo": ["GET", "/echo?q=a+b", "yes"], "posted": "{\"n\":1}", "status": 418, "gzip": "compressed" } } }
---*/
import axios from "axios";

export default async () => {
  const client = axios.create({ baseURL: process.env.UPSTREAM, timeout: 4000 });
  client.interceptors.request.use((config) => (config.headers.set("x-seen", "yes"), config));
  const { data } = await client.get("/echo", { params: { q: "a b" } });
  const { data: posted } = await client.post("/echo", { n: 1 });
  const status = await client.get("/status/418").catch((error) => error.response.status);
  const { data: gzip } = await client.get("/gzip");
  return { echo: [data.method, data.url, data.headers["x-seen"]], posted: posted.body, status, gzip };
};
