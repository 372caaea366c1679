/*---
{ "package": "react-dom", "version": "19.3.1", "tree": "render",
  "also": { "react": "19.3.1" },
  "exercises": "fetch style: a stream of HTML with a part that comes later",
  "expect": { "json": { "starts": "<p>", "inOrder": true } } }
---*/
import { Suspense, use } from "react";
import { renderToReadableStream } from "react-dom/server.edge";

const Late = ({ text }: { text: Promise<string> }) => <b>{use(text)}</b>;

export default {
  async fetch(): Promise<Response> {
    const text = new Promise<string>((resolve) => setTimeout(resolve, 5, "late"));
    const page = <p>soon: <Suspense fallback={<i>wait</i>}><Late text={text} /></Suspense></p>;
    const stream = await renderToReadableStream(page);
    const parts = await new Response(stream).text();
    const order = ["<i>wait</i>", "<b>late</b>"].map((part) => parts.indexOf(part));
    return Response.json({ starts: parts.slice(0, 3), inOrder: order[0] > 0 && order[0] < order[1] });
  },
};
