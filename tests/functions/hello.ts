import axios from 'axios';
import _ from 'lodash';

interface Event {
  method: string;
  query: Record<string, string>;
  body: unknown;
}

export default async function handler(event: Event) {
  console.log('called with', event.method);
  console.warn('careful');
  return {
    hello: _.startCase(event.query.name ?? 'world'),
    next: axios.getUri({ url: 'https://example.org', params: event.query }),
    body: event.body ?? null,
  };
}
