/*---
{ "package": "nodemailer", "version": "10.6.1", "tree": "http", "needs": ["smtp"],
  "exercises": "MIME with an attachment, delivery over SMTP to a local server",
  "env": { "SMTP_PORT": "{smtp}" },
  "expect": { "json": { "accepted": ["grace@example.org"], "response": "250 queued 1 attachment", "mime": true } } }
---*/
const nodemailer = require("nodemailer");

exports.handler = async () => {
  const mail = {
    from: "ada@example.org",
    to: "grace@example.org",
    subject: "Grüße",
    text: "hello",
    attachments: [{ filename: "a.txt", content: "attached" }],
  };
  const smtp = nodemailer.createTransport({ host: "127.0.0.1", port: Number(process.env.SMTP_PORT), ignoreTLS: true });
  const { accepted, response } = await smtp.sendMail(mail);
  smtp.close();
  const { message } = await nodemailer.createTransport({ streamTransport: true, buffer: true }).sendMail(mail);
  return { accepted, response, mime: message.toString().includes("=?UTF-8?") };
};
