import { Hono } from 'hono';

const app = new Hono();

app.get('/', (c) => c.json({ message: `Hello, ${c.req.query('name') ?? 'world'}!` }));

app.get('/items/:id', (c) => c.json({ id: c.req.param('id') }));

app.post('/items', async (c) => {
  const item = await c.req.json();
  console.log('new item', item);
  return c.json(item, 201);
});

export default app;
