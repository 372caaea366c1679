// Takes as long as it is told to.
export default async (event) => {
  const ms = Number(event.query.ms ?? 0);
  if (ms > 0) await new Promise((done) => setTimeout(done, ms));
  return { ms };
};
