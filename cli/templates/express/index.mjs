import express from 'express';

const app = express();
app.use(express.json());

app.get('/', (request, response) => {
  response.json({ message: `Hello, ${request.query.name ?? 'world'}!` });
});

app.get('/items/:id', (request, response) => {
  response.json({ id: request.params.id });
});

app.post('/items', (request, response) => {
  console.log('new item', request.body);
  response.status(201).json(request.body);
});

export default app;
