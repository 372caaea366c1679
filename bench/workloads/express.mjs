import express from 'express';

const app = express();
app.get('/', (request, response) => response.json({ message: 'hello' }));
app.use((request, response) => response.json({ message: 'hello' }));
export default app;
