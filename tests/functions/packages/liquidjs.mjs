/*---
{ "package": "liquidjs", "version": "10.30.1", "tree": "render",
  "exercises": "loops, filters, a tag of its own",
  "expect": { "text": "Ada Alan haha" } }
---*/
import { Liquid } from "liquidjs";

const liquid = new Liquid();
liquid.registerTag("twice", {
  parse({ args }) {
    this.text = args;
  },
  render() {
    return this.text.repeat(2);
  },
});

export default () =>
  liquid.parseAndRender("{% for name in names %}{{ name | capitalize }} {% endfor %}{% twice ha %}", { names: ["ada", "alan"] });
