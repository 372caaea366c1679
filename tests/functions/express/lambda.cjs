const serverless = require('serverless-http');
const app = require('./app.cjs');

module.exports.handler = serverless(app, { binary: ['*/*'] });
