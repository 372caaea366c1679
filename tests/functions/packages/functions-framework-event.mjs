/*---
{ "package": "@google-cloud/functions-framework", "version": "5.0.5", "tree": "web4",
  "exercises": "a CloudEvent, for the one of two functions that `FUNCTION_TARGET` names",
  "env": { "FUNCTION_TARGET": "stored" },
  "request": { "method": "POST", "path": "/",
    "json": { "specversion": "1.0", "id": "7", "source": "//s", "type": "object.stored", "data": { "name": "a.txt" } } },
  "expect": { "status": 204, "text": "", "log": "object.stored a.txt" } }
---*/
import functions from "@google-cloud/functions-framework";

functions.cloudEvent("stored", (event) => {
  console.log(event.type, event.data.name);
});
functions.http("other", (req, res) => res.send("other"));
