export default () => ({ message: 'hello' });
