export default async function handler(event) {
  const name = event.query.name ?? 'world';
  console.log('greeting', name);
  return { message: `Hello, ${name}!` };
}
