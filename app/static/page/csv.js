// Tables as text (RFC 4180): fields in quotes may hold commas, quotes and lines.

import { t } from "./language.js";

const DELIMITERS = [",", ";", "\t"];

export const csvLine = (fields) =>
  `${fields.map((field) => (/[",\r\n]/.test(field) ? `"${String(field).replaceAll('"', '""')}"` : field)).join(",")}\r\n`;

// Text to {columns, rows}: the first line names the columns; rows are as wide as it. Where rows had more than that,
// `wide` says how many they are, and of the first one its line and its fields.
export function parseCsv(text) {
  const [head, ...rows] = records(text.replace(/^\uFEFF/, ""), delimiterOf(text));
  const columns = head?.fields ?? [];
  const wide = rows.filter(({ fields }) => fields.slice(columns.length).some(Boolean));
  const found = { columns, rows: rows.map(({ fields }) => columns.map((_, index) => fields[index] ?? "")) };
  if (wide.length) found.wide = { n: wide.length, line: wide[0].line, fields: wide[0].fields.length, columns: columns.length };
  return found;
}

// The one that the first line has most of, outside quotes.
function delimiterOf(text) {
  const line = text.split(/\r?\n/, 1)[0].replace(/"(?:[^"]|"")*"/g, "");
  const count = (delimiter) => line.split(delimiter).length;
  return DELIMITERS.reduce((best, delimiter) => (count(delimiter) > count(best) ? delimiter : best));
}

// Each with the line that it begins on, which is not its number: fields may hold lines.
function records(text, delimiter) {
  const found = [];
  let [fields, field, quoted, start, line] = [[], "", 0, 1, 1];
  const endField = () => {
    fields.push(field);
    field = "";
  };
  const endRecord = () => {
    endField();
    if (fields.length > 1 || fields[0]) found.push({ fields, line: start });
    fields = [];
  };
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === "\n" || (character === "\r" && text[at + 1] !== "\n")) line++;
    if (quoted) {
      if (character !== '"') field += character;
      else if (text[at + 1] === '"') field += text[++at];
      else quoted = 0;
    } else if (character === '"' && !field) quoted = line;
    else if (character === delimiter) endField();
    else if (character === "\n") {
      endRecord();
      start = line;
    } else if (character === "\r") {
      if (text[at + 1] === "\n") continue;
      endRecord();
      start = line;
    } else field += character;
  }
  if (quoted) throw new Error(t("find.bad.quote", { line: quoted }));
  if (field || fields.length) endRecord();
  return found;
}
