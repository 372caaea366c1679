import axios from 'axios';
import _ from 'lodash';

export default {
  fetch() {
    return Response.json({
      hello: _.startCase('bench harness'),
      next: axios.getUri({ url: 'https://example.org', params: { n: 1 } }),
    });
  },
};
