/*---
{ "package": "bcrypt", "version": "6.0.0", "tree": "bcrypt", "refused": "bcryptjs", "exercises": "native addon" }
---*/
const bcrypt = require("bcrypt");

exports.handler = () => bcrypt.hash("x", 4);
