/*---
{ "package": "moment-timezone", "version": "0.6.6", "tree": "data",
  "exercises": "its own zone data, parsing, calendar arithmetic",
  "expect": { "json": { "tokyo": "2024-01-01T09:00:00+09:00", "abbr": "EDT", "end": "2024-02-29" } } }
---*/
const moment = require("moment-timezone");

exports.handler = (event, context, callback) =>
  callback(null, {
    tokyo: moment.utc("2024-01-01").tz("Asia/Tokyo").format(),
    abbr: moment.tz("2024-07-01", "America/New_York").zoneAbbr(),
    end: moment.utc("2024-02-10").endOf("month").format("YYYY-MM-DD"),
  });
