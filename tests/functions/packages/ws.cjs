/*---
{ "package": "ws", "version": "8.23.0", "tree": "web",
  "exercises": "its protocol without a socket: masked and compressed frames sent and received, close codes",
  "expect": { "json": { "messages": ["hello", "hellohellohello"], "close": [1000, "bye"] } } }
---*/
const { PassThrough } = require("node:stream");
const { PerMessageDeflate, Receiver, Sender } = require("ws");

exports.handler = async () => {
  const deflate = (isServer) => {
    const extension = new PerMessageDeflate({ isServer, threshold: 10 });
    extension.accept([{}]);
    return { [PerMessageDeflate.extensionName]: extension };
  };
  const wire = new PassThrough();
  wire.cork = wire.uncork = () => {};
  const sender = new Sender(wire, deflate(false));
  const receiver = new Receiver({ isServer: true, extensions: deflate(true) });
  wire.pipe(receiver);
  const messages = [];
  receiver.on("message", (data) => messages.push(data.toString()));
  const closed = new Promise((resolve) => receiver.on("conclude", (code, reason) => resolve([code, reason.toString()])));
  const options = { fin: true, mask: true, binary: false };
  sender.send("hello", { ...options, compress: false });
  sender.send("hello".repeat(3), { ...options, compress: true });
  sender.close(1000, "bye", true);
  return { close: await closed, messages };
};
