/*---
{ "package": "@slack/bolt", "version": "5.1.0", "tree": "http",
  "exercises": "its Lambda receiver: a signed event is checked, an unsigned one refused",
  "limits": { "eventFormat": "lambda" },
  "request": { "method": "POST", "text": "{\"type\":\"url_verification\",\"challenge\":\"abc\"}", "headers": { "content-type": "application/json" } },
  "expect": { "json": { "unsigned": 401, "signed": 200, "body": { "challenge": "abc" } } } }
---*/
const { createHmac } = require("node:crypto");
const { App, AwsLambdaReceiver } = require("@slack/bolt");

const receiver = new AwsLambdaReceiver({ signingSecret: "secret" });
new App({ token: "xoxb-1", receiver });

exports.handler = async (event, context) => {
  const handle = await receiver.start();
  const unsigned = await handle(event, context);
  const timestamp = Math.floor(Date.now() / 1000);
  const signature = createHmac("sha256", "secret").update(`v0:${timestamp}:${event.body}`).digest("hex");
  const headers = {
    ...event.headers,
    "X-Slack-Request-Timestamp": String(timestamp),
    "X-Slack-Signature": `v0=${signature}`,
  };
  const signed = await handle({ ...event, headers }, context);
  return { unsigned: unsigned.statusCode, signed: signed.statusCode, body: JSON.parse(signed.body) };
};
