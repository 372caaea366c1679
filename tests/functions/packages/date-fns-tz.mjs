/*---
{ "package": "date-fns-tz", "version": "3.2.0", "tree": "more",
  "also": { "date-fns": "4.4.0" },
  "exercises": "zones and daylight saving through Intl",
  "expect": { "json": { "formatted": "1969-12-31 19:00 EST", "summer": "2024-07-01T08:00:00.000Z", "winter": "2024-01-01T09:00:00.000Z" } } }
---*/
import { formatInTimeZone, fromZonedTime } from "date-fns-tz";

export default () => ({
  formatted: formatInTimeZone(new Date(0), "America/New_York", "yyyy-MM-dd HH:mm zzz"),
  summer: fromZonedTime("2024-07-01 10:00", "Europe/Berlin"),
  winter: fromZonedTime("2024-01-01 10:00", "Europe/Berlin"),
});
