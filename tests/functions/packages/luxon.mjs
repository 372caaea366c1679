/*---
{ "package": "luxon", "version": "3.7.2", "tree": "data",
  "exercises": "zones and daylight saving through Intl, durations, intervals",
  "expect": { "json": { "dst": "2024-03-31T03:30:00.000+02:00", "duration": "1 hour, 5 minutes", "overlap": 30, "ja": "2024年2月29日" } } }
---*/
import { DateTime, Duration, Interval } from "luxon";

const at = (text) => DateTime.fromISO(text, { zone: "utc" });

export default () => ({
  dst: DateTime.fromISO("2024-03-31T01:30", { zone: "Europe/Paris" }).plus({ hours: 1 }).toISO(),
  duration: Duration.fromObject({ minutes: 65 }).shiftTo("hours", "minutes").toHuman(),
  overlap: Interval.fromDateTimes(at("2024-01-01T00:00"), at("2024-01-01T01:00"))
    .intersection(Interval.fromDateTimes(at("2024-01-01T00:30"), at("2024-01-01T02:00")))
    .length("minutes"),
  ja: at("2024-02-29").setLocale("ja").toLocaleString(DateTime.DATE_FULL),
});
