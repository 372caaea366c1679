const app = require('./app.cjs');

module.exports = (req, res) => app(req, res);
