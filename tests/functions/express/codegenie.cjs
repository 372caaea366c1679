const serverlessExpress = require('@codegenie/serverless-express');
const app = require('./app.cjs');

module.exports.handler = serverlessExpress({ app, binarySettings: { isBinary: () => true } });
