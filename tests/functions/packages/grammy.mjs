/*---
{ "package": "grammy", "version": "1.46.0", "tree": "http",
  "exercises": "fetch style: a webhook's command, answered in the webhook's answer",
  "request": { "method": "POST", "json": { "update_id": 1, "message": { "message_id": 1, "date": 1, "chat": { "id": 5, "type": "private", "first_name": "A" }, "from": { "id": 2, "is_bot": false, "first_name": "A" }, "text": "/start", "entities": [{ "type": "bot_command", "offset": 0, "length": 6 }] } } },
  "expect": { "json": { "chat_id": 5, "text": "welcome", "method": "sendMessage" } } }
---*/
import { Bot, webhookCallback } from "grammy";

const botInfo = { id: 1, is_bot: true, first_name: "bot", username: "bot" };
const bot = new Bot("token", { botInfo, client: { canUseWebhookReply: (method) => method === "sendMessage" } });
bot.command("start", (context) => context.reply("welcome"));

export default { fetch: webhookCallback(bot, "std/http") };
