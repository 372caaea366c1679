/*---
{ "package": "twilio", "version": "6.3.1", "tree": "http", "needs": ["upstream"],
  "exercises": "TwiML, signatures of webhooks, a request with its credentials, against a local endpoint",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "twiml": "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Say voice=\"alice\">hello &amp; goodbye</Say></Response>", "isValid": true, "error": ["RestException", 404] } } }
---*/
const twilio = require("twilio");

class Local extends twilio.RequestClient {
  request(options) {
    return super.request({ ...options, uri: `${process.env.UPSTREAM}/status/404` });
  }
}

exports.handler = async () => {
  const response = new twilio.twiml.VoiceResponse();
  response.say({ voice: "alice" }, "hello & goodbye");
  const signature = twilio.getExpectedTwilioSignature("token", "https://h.example/", { a: "1" });
  const client = twilio("AC0", "token", { httpClient: new Local() });
  const error = await client.messages.create({ to: "+1", from: "+2", body: "hi" })
    .catch(({ constructor, status }) => [constructor.name, status]);
  return {
    twiml: response.toString(),
    isValid: twilio.validateRequest("token", signature, "https://h.example/", { a: "1" }),
    error,
  };
};
