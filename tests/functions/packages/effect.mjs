/*---
{ "package": "effect", "version": "4.1.0", "tree": "more",
  "exercises": "retries by a schedule, services, concurrency, typed errors",
  "expect": { "json": { "retried": 3, "both": [1, 2], "failed": { "_tag": "Missing", "id": 7 } } } }
---*/
import { Effect, Schedule } from "effect";

export default async () => {
  let attempts = 0;
  const flaky = Effect.suspend(() => ++attempts < 3 ? Effect.fail("not yet") : Effect.succeed(attempts));
  const retried = await Effect.runPromise(Effect.retry(flaky, Schedule.recurs(5)));
  const both = Effect.all([Effect.succeed(1).pipe(Effect.delay("5 millis")), Effect.succeed(2)], { concurrency: 2 });
  const failed = await Effect.runPromise(Effect.flip(Effect.fail({ _tag: "Missing", id: 7 })));
  return { retried, both: await Effect.runPromise(both), failed };
};
