// JSON Lines: on each line an object, or a string that is a text by itself. Or all of them in one array.

import { t } from "./language.js";

// Text to {columns, rows, numbers}: the columns are all names that occur, the numbers those of the lines where there are
// lines.
export function parseJsonLines(text) {
  const array = text.trimStart().startsWith("[");
  const records = array ? fromArray(text) : fromLines(text);
  const columns = new Set();
  for (const { value } of records) for (const name of Object.keys(value)) columns.add(name);
  return {
    columns: [...columns],
    rows: records.map(({ value }) => [...columns].map((name) => written(value[name]))),
    numbers: array ? undefined : records.map(({ line }) => line),
  };
}

function fromArray(text) {
  let values;
  try {
    values = JSON.parse(text);
  } catch (error) {
    throw new Error(t("find.bad.json", { said: error.message }));
  }
  return values.map((value, index) => record(value, index + 1));
}

function fromLines(text) {
  return text.split(/\r\n|\r|\n/).flatMap((line, index) => {
    if (!line.trim()) return [];
    try {
      return [record(JSON.parse(line), index + 1)];
    } catch {
      throw new Error(t("find.bad.line", { line: index + 1 }));
    }
  });
}

function record(value, line) {
  if (typeof value === "string") return { line, value: { text: value } };
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error(t("find.bad.line", { line }));
  return { line, value };
}

const written = (value) => (typeof value === "string" ? value : value === null || value === undefined ? "" : JSON.stringify(value));
