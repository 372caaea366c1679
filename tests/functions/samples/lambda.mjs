// A Lambda function behind an HTTP API.
export const handler = async (event, context) => {
  console.log('EVENT', event.requestContext.http.method, event.rawPath);
  let body;
  let statusCode = 200;
  const headers = { 'Content-Type': 'application/json' };
  try {
    switch (`${event.requestContext.http.method} ${event.rawPath}`) {
      case 'GET /items':
        body = { items: [], limit: event.queryStringParameters?.limit };
        break;
      case 'PUT /items': {
        const requestJSON = JSON.parse(event.body);
        body = `Put item ${requestJSON.id}`;
        break;
      }
      default:
        throw new Error(`Unsupported route: "${event.rawPath}"`);
    }
  } catch (err) {
    statusCode = 400;
    body = err.message;
  } finally {
    body = JSON.stringify(body);
  }
  return { statusCode, body, headers, cookies: ['seen=1'] };
};
