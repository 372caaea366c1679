export default {
  async fetch() {
    await new Promise((done) => setTimeout(done, 50));
    return Response.json({ slept: 50 });
  },
};
