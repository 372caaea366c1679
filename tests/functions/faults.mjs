// Each way in which a function can fail, and one in which it does not.
const hoard = [];

const ways = {
  fine: () => 'fine',
  spin: () => {
    while (true);
  },
  hang: () => new Promise(() => {}),
  throw: () => {
    throw new Error('secret detail');
  },
  reject: async () => Promise.reject(new TypeError('secret detail')),
  rejectLater: () => {
    console.log('answering');
    setTimeout(() => Promise.reject(new Error('too late')), 5);
    return 'answered';
  },
  exit: () => process.exit(1),
  abort: () => process.abort(),
  heap: () => {
    for (;;) hoard.push(Array.from({ length: 10_000 }, (_, i) => `${i}${Math.random()}`));
  },
  buffers: () => {
    for (;;) hoard.push(new Uint8Array(1 << 20).fill(1));
  },
  recurse: () => {
    const deeper = () => deeper() + 1;
    return deeper();
  },
  shout: () => {
    const line = 'x'.repeat(1_023);
    for (let i = 0; i < 50 * 1_024; i += 1) console.log(line);
    return 'hoarse';
  },
  tooMuch: () => 'x'.repeat(7 * 1_024 * 1_024),
};

export default (event) => ways[event.query.way]();
