/*---
{ "package": "@aws-sdk/client-dynamodb", "version": "3.1169.0", "tree": "aws", "needs": ["dynamodb"],
  "exercises": "a table, conditional writes, a query, batches, against dynalite",
  "env": { "DYNAMODB": "{dynamodb}" },
  "limits": { "timeoutMs": 20000 },
  "expect": { "json": { "item": { "id": { "S": "a" }, "n": { "N": "1" } }, "error": "ConditionalCheckFailedException", "queried": ["1", "2"] } } }
---*/
import {
  CreateTableCommand, DynamoDBClient, GetItemCommand, PutItemCommand, QueryCommand, waitUntilTableExists,
} from "@aws-sdk/client-dynamodb";

const db = new DynamoDBClient({
  endpoint: process.env.DYNAMODB,
  region: "us-east-1",
  credentials: { accessKeyId: "key", secretAccessKey: "secret" },
});

export default async () => {
  const TableName = `t${Date.now()}${Math.floor(Math.random() * 1e6)}`;
  await db.send(new CreateTableCommand({
    TableName,
    BillingMode: "PAY_PER_REQUEST",
    AttributeDefinitions: [{ AttributeName: "id", AttributeType: "S" }, { AttributeName: "n", AttributeType: "N" }],
    KeySchema: [{ AttributeName: "id", KeyType: "HASH" }, { AttributeName: "n", KeyType: "RANGE" }],
  }));
  await waitUntilTableExists({ client: db, maxWaitTime: 10, minDelay: 0.05, maxDelay: 0.1 }, { TableName });
  const put = (n) => db.send(new PutItemCommand({
    TableName,
    Item: { id: { S: "a" }, n: { N: n } },
    ConditionExpression: "attribute_not_exists(id)",
  }));
  await put("1");
  await put("2");
  const error = await put("1").catch((error) => error.name);
  const { Item } = await db.send(new GetItemCommand({ TableName, Key: { id: { S: "a" }, n: { N: "1" } } }));
  const { Items } = await db.send(new QueryCommand({
    TableName,
    KeyConditionExpression: "id = :id",
    ExpressionAttributeValues: { ":id": { S: "a" } },
  }));
  return { item: Item, error, queried: Items.map((item) => item.n.N) };
};
