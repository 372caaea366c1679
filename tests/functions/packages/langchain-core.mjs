/*---
{ "package": "@langchain/core", "version": "1.4.0", "tree": "serverless",
  "exercises": "a prompt, a model of tests and a parser in a chain, streamed; runnables in parallel",
  "expect": { "json": { "whole": "hi!", "pieces": ["y", "o", "u"], "both": { "a": 4, "b": 6 } } } }
---*/
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { RunnableLambda, RunnableParallel } from "@langchain/core/runnables";
import { FakeListChatModel } from "@langchain/core/utils/testing";

export default async () => {
  const model = new FakeListChatModel({ responses: ["hi!", "you"] });
  const chain = ChatPromptTemplate.fromTemplate("say {what}").pipe(model).pipe(new StringOutputParser());
  const whole = await chain.invoke({ what: "hi" });
  const pieces = [];
  for await (const piece of await chain.stream({ what: "you" })) pieces.push(piece);
  const both = RunnableParallel.from({ a: RunnableLambda.from((n) => n + 1), b: RunnableLambda.from((n) => n * 2) });
  return { whole, pieces, both: await both.invoke(3) };
};
