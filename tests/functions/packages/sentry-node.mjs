/*---
{ "package": "@sentry/node", "version": "11.12.0", "tree": "telemetry", "needs": ["upstream"],
  "exercises": "an error captured with its scope and sent, a span",
  "env": { "UPSTREAM": "{upstream}" },
  "limits": { "memoryMb": 512 },
  "expect": { "json": { "who": "Ada", "type": "RangeError", "value": "too much" } } }
---*/
import * as Sentry from "@sentry/node";

const sent = [];
const { host } = new URL(process.env.UPSTREAM);
Sentry.init({
  dsn: `http://key@${host}/1`,
  tracesSampleRate: 1,
  beforeSend(event) {
    sent.push(event);
    return event;
  },
});

export default async () => {
  await Sentry.startSpan({ name: "work" }, async () => {
    Sentry.setTag("who", "Ada");
    Sentry.captureException(new RangeError("too much"));
  });
  await Sentry.flush(1_000);
  const [{ tags, exception: { values: [{ type, value }] } }] = sent;
  return { who: tags.who, type, value };
};
