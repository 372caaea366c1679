module.exports = require('./app.cjs');
