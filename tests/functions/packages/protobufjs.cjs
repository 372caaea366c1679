/*---
{ "package": "protobufjs", "version": "7.6.6", "tree": "more",
  "exercises": "a schema compiled to code, 64 bit numbers, verification",
  "expect": { "json": { "bytes": "0a01611081808080808080101d0000003f", "item": { "name": "a", "count": "9007199254740993", "at": [0.5] }, "wrong": "name: string expected" } } }
---*/
const protobuf = require("protobufjs");

const { root } = protobuf.parse("syntax = 'proto3'; message Item { string name = 1; int64 count = 2; repeated float at = 3; }");
const Item = root.lookupType("Item");

exports.handler = () => {
  const bytes = Item.encode(Item.fromObject({ name: "a", count: "9007199254740993", at: [0.5] })).finish();
  const item = Item.toObject(Item.decode(bytes), { longs: String });
  return { bytes: Buffer.from(bytes).toString("hex"), item, wrong: Item.verify({ name: 1 }) };
};
