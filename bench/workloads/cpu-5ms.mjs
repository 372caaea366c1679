// A fixed amount of work, some 5 ms of it: a loop that watches the clock would measure the clock,
// which stands still in some runtimes while code runs.
const ROUNDS = 3_500_000;

function work() {
  let x = 1;
  for (let i = 0; i < ROUNDS; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  return x;
}

export default {
  fetch() {
    return Response.json({ x: work() });
  },
};
