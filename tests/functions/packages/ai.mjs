/*---
{ "package": "ai", "version": "6.0.326", "tree": "serverless",
  "also": { "zod": "4.6.7" },
  "exercises": "text streamed as an answer by a model of tests, after a tool was called",
  "expect": { "text": "It is 42." } }
---*/
import { simulateReadableStream, streamText, tool, stepCountIs } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { z } from "zod";

const usage = { inputTokens: { total: 1 }, outputTokens: { total: 1 } };
const steps = [
  [
    { type: "tool-call", toolCallId: "1", toolName: "double", input: "{\"n\":21}" },
    { type: "finish", finishReason: { unified: "tool-calls" }, usage },
  ],
  [
    { type: "text-start", id: "t" },
    { type: "text-delta", id: "t", delta: "It is " },
    { type: "text-delta", id: "t", delta: "42." },
    { type: "text-end", id: "t" },
    { type: "finish", finishReason: { unified: "stop" }, usage },
  ],
];

export default {
  fetch() {
    let step = 0;
    const doubled = [];
    const doStream = async () => ({ stream: simulateReadableStream({ chunks: steps[step++] }) });
    const result = streamText({
      model: new MockLanguageModelV3({ doStream }),
      prompt: "double 21",
      stopWhen: stepCountIs(3),
      tools: {
        double: tool({ inputSchema: z.object({ n: z.number() }), execute: ({ n }) => void doubled.push(n * 2) }),
      },
    });
    return result.toTextStreamResponse();
  },
};
