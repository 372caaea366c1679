/*---
{ "package": "stripe", "version": "23.1.0", "tree": "http", "needs": ["upstream"],
  "exercises": "form encoding, idempotency keys, webhook signatures, against a local endpoint of its shape",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "sent": "email=ada%40example.org&metadata[plan]=pro", "idempotent": true, "event": "charge.ok", "forged": "StripeSignatureVerificationError" } } }
---*/
import Stripe from "stripe";

export default async () => {
  const { hostname, port } = new URL(process.env.UPSTREAM);
  const stripe = new Stripe("sk_test_x", { host: hostname, port, protocol: "http", maxNetworkRetries: 0, telemetry: false });
  const customer = await stripe.customers.create({ email: "ada@example.org", metadata: { plan: "pro" } }, { idempotencyKey: "once" });
  const payload = JSON.stringify({ id: "evt_1", object: "event", type: "charge.ok" });
  const header = stripe.webhooks.generateTestHeaderString({ payload, secret: "whsec" });
  const forged = () => {
    try {
      return stripe.webhooks.constructEvent(payload, header, "other");
    } catch (error) {
      return error.type;
    }
  };
  return {
    sent: customer.sent,
    idempotent: customer.idempotencyKey === "once",
    event: stripe.webhooks.constructEvent(payload, header, "whsec").type,
    forged: forged(),
  };
};
