const functions = require('@google-cloud/functions-framework');
const { getTestServer } = require('@google-cloud/functions-framework/testing');
const app = require('./app.cjs');

functions.http('app', app);

const server = getTestServer('app').listen(process.env.PORT ?? 3000, () => {
  console.log(`port=${server.address().port}`);
});
