/*---
{ "package": "commander", "version": "14.0.3", "tree": "data",
  "exercises": "subcommands, options, errors without process.exit",
  "expect": { "json": { "ran": ["add", ["a", "b"], { "force": true, "level": 3 }], "code": "commander.unknownOption" } } }
---*/
import { Command } from "commander";

export default async () => {
  let ran;
  const program = () => {
    const command = new Command("tool").exitOverride().configureOutput({ writeErr() {} });
    command.command("add").argument("<names...>").option("-f, --force").option("-l, --level <n>", "", Number)
      .action((names, options) => (ran = ["add", names, options]));
    return command;
  };
  await program().parseAsync(["add", "a", "b", "-f", "--level", "3"], { from: "user" });
  const code = await program().parseAsync(["add", "x", "--nope"], { from: "user" }).catch((e) => e.code);
  return { ran, code };
};
