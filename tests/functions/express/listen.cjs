const app = require('./app.cjs');

const server = app.listen(process.env.PORT ?? 3000, () => {
  console.log(`port=${server.address().port}`);
});
