// Loads the function it is given, answers one call over the channel to its parent.
const handler = require(process.argv[2]);

process.once('message', async (event) => process.send(await handler(event)));
