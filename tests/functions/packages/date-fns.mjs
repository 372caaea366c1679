/*---
{ "package": "date-fns", "version": "4.4.0", "tree": "data",
  "exercises": "arithmetic, formats, a locale by subpath",
  "expect": { "json": { "add": "2024-02-29", "days": 366, "de": "Donnerstag, 29. Februar 2024", "words": "about 2 hours" } } }
---*/
import { addMonths, differenceInDays, format, formatDistanceStrict, formatDistance } from "date-fns";
import { de } from "date-fns/locale/de";

export default () => ({
  add: format(addMonths(new Date(2024, 0, 31), 1), "yyyy-MM-dd"),
  days: differenceInDays(new Date(2025, 0, 1), new Date(2024, 0, 1)),
  de: format(new Date(2024, 1, 29), "EEEE, d. MMMM yyyy", { locale: de }),
  words: formatDistance(0, 7_300_000),
});
