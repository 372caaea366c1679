/*---
{ "package": "rxjs", "version": "7.8.2", "tree": "data",
  "exercises": "operators, timers, errors and retry",
  "expect": { "json": { "merged": [1, 4, 9, 16], "ticks": [0, 1, 2], "attempts": 3 } } }
---*/
import { concatMap, defer, from, interval, lastValueFrom, map, of, retry, take, throwError, toArray } from "rxjs";

export default async () => {
  let attempts = 0;
  const flaky = defer(() => (++attempts < 3 ? throwError(() => new Error("no")) : of("yes")));
  await lastValueFrom(flaky.pipe(retry(5)));
  return {
    merged: await lastValueFrom(from([1, 2, 3, 4]).pipe(concatMap((n) => of(n).pipe(map((m) => m * n))), toArray())),
    ticks: await lastValueFrom(interval(1).pipe(take(3), toArray())),
    attempts,
  };
};
