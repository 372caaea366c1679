/*---
{ "package": "prom-client", "version": "15.1.3", "tree": "telemetry",
  "exercises": "a counter and a histogram as text, the metrics of the process",
  "expect": { "json": { "lines": ["calls 2", "took_bucket{le=\"1\"} 1", "took_bucket{le=\"+Inf\"} 1", "took_sum 0.5", "took_count 1"], "heap": true } } }
---*/
import { collectDefaultMetrics, Counter, Histogram, Registry } from "prom-client";

export default async () => {
  const registry = new Registry();
  new Counter({ name: "calls", help: "calls", registers: [registry] }).inc(2);
  new Histogram({ name: "took", help: "took", buckets: [1], registers: [registry] }).observe(0.5);
  const process = new Registry();
  collectDefaultMetrics({ register: process });
  const named = await process.metrics();
  return { lines: (await registry.metrics()).split("\n").filter((line) => !line.startsWith("#") && line), heap: named.includes("nodejs_heap_size_used_bytes") };
};
