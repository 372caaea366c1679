/*---
{ "package": "dayjs", "version": "1.11.23", "tree": "data",
  "exercises": "plugins (utc, timezone, relative time), a locale",
  "expect": { "json": { "zone": "2024-07-01T14:00:00+02:00", "fr": "lundi", "ago": "2 days ago" } } }
---*/
const dayjs = require("dayjs");
dayjs.extend(require("dayjs/plugin/utc"));
dayjs.extend(require("dayjs/plugin/timezone"));
dayjs.extend(require("dayjs/plugin/relativeTime"));
require("dayjs/locale/fr");

module.exports = () => ({
  zone: dayjs.utc("2024-07-01T12:00:00Z").tz("Europe/Berlin").format(),
  fr: dayjs.utc("2024-07-01").locale("fr").format("dddd"),
  ago: dayjs("2024-01-01").from(dayjs("2024-01-03")),
});
