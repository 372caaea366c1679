/*---
{ "package": "exceljs", "version": "4.4.0", "tree": "text",
  "exercises": "writing a workbook with a formula and a style, reading it back",
  "limits": { "memoryMb": 256 },
  "expect": { "json": { "zip": "PK", "cells": ["Ada", 36], "formula": "SUM(B1:B1)", "bold": true } } }
---*/
const ExcelJS = require("exceljs");

exports.handler = async () => {
  const made = new ExcelJS.Workbook();
  const sheet = made.addWorksheet("people");
  sheet.addRow(["Ada", 36]);
  sheet.getCell("A1").font = { bold: true };
  sheet.getCell("B2").value = { formula: "SUM(B1:B1)", result: 36 };
  const bytes = await made.xlsx.writeBuffer();
  const read = new ExcelJS.Workbook();
  await read.xlsx.load(bytes);
  const back = read.getWorksheet("people");
  return {
    zip: Buffer.from(bytes).subarray(0, 2).toString(),
    cells: [back.getCell("A1").value, back.getCell("B1").value],
    formula: back.getCell("B2").formula,
    bold: back.getCell("A1").font.bold,
  };
};
