export default {
  fetch() {
    return Response.json({ message: 'hello' });
  },
};
