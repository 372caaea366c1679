/*---
{ "package": "@opentelemetry/sdk-node", "version": "0.223.0", "tree": "telemetry",
  "also": { "@opentelemetry/api": "1.9.1", "@opentelemetry/sdk-trace-base": "2.12.1" },
  "exercises": "spans nested over awaits, by AsyncLocalStorage, into an exporter",
  "limits": { "memoryMb": 512 },
  "expect": { "json": { "names": ["inner", "outer"], "isNested": true } } }
---*/
import { trace } from "@opentelemetry/api";
import { NodeSDK } from "@opentelemetry/sdk-node";
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

const exporter = new InMemorySpanExporter();
const processor = new SimpleSpanProcessor(exporter);
new NodeSDK({ serviceName: "it", spanProcessors: [processor] }).start();
const tracer = trace.getTracer("it");

export default async () => {
  await tracer.startActiveSpan("outer", async (outer) => {
    await new Promise((resolve) => setTimeout(resolve, 2));
    tracer.startSpan("inner").end();
    outer.end();
  });
  await processor.forceFlush();
  const [inner, outer] = exporter.getFinishedSpans();
  return { names: [inner.name, outer.name], isNested: inner.parentSpanContext.spanId === outer.spanContext().spanId };
};
