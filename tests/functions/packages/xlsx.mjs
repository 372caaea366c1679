/*---
{ "package": "xlsx", "version": "0.18.5", "tree": "documents",
  "exercises": "a workbook written and read back, CSV",
  "expect": { "json": { "rows": [{ "name": "Ada", "born": 1815 }, { "name": "Alan", "born": 1912 }], "csv": "name,born\nAda,1815\nAlan,1912" } } }
---*/
import * as XLSX from "xlsx";

export default () => {
  const book = XLSX.utils.book_new();
  const sheet = XLSX.utils.json_to_sheet([{ name: "Ada", born: 1815 }, { name: "Alan", born: 1912 }]);
  XLSX.utils.book_append_sheet(book, sheet, "People");
  const { Sheets } = XLSX.read(XLSX.write(book, { type: "buffer", bookType: "xlsx" }));
  return { rows: XLSX.utils.sheet_to_json(Sheets.People), csv: XLSX.utils.sheet_to_csv(Sheets.People) };
};
