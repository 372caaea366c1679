import { z } from 'zod';

interface Event {
  method: string;
  query: Record<string, string>;
  headers: Record<string, string>;
  body: unknown;
}

interface Result {
  statusCode: number;
  body: unknown;
}

const Order = z.object({
  item: z.string().min(1),
  quantity: z.number().int().positive().default(1),
});

export default async function handler(event: Event): Promise<Result> {
  if (event.method !== 'POST') {
    return { statusCode: 200, body: { usage: 'POST {"item":"tea","quantity":2}' } };
  }
  const order = Order.safeParse(event.body);
  if (!order.success) {
    return { statusCode: 422, body: { problems: order.error.issues.map((issue) => issue.message) } };
  }
  console.log('ordered', order.data);
  return { statusCode: 201, body: { ordered: order.data } };
}
