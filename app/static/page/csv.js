// Tables as text (RFC 4180): fields in quotes may hold commas, quotes and lines.

const DELIMITERS = [",", ";", "\t"];

export const csvLine = (fields) =>
  `${fields.map((field) => (/[",\r\n]/.test(field) ? `"${String(field).replaceAll('"', '""')}"` : field)).join(",")}\r\n`;

// Text to {columns, rows}: the first line names the columns; rows are as wide as it.
export function parseCsv(text) {
  const [columns = [], ...rows] = records(text.replace(/^\uFEFF/, ""), delimiterOf(text));
  return { columns, rows: rows.map((row) => columns.map((_, index) => row[index] ?? "")) };
}

// The one that the first line has most of, outside quotes.
function delimiterOf(text) {
  const line = text.split(/\r?\n/, 1)[0].replace(/"(?:[^"]|"")*"/g, "");
  const count = (delimiter) => line.split(delimiter).length;
  return DELIMITERS.reduce((best, delimiter) => (count(delimiter) > count(best) ? delimiter : best));
}

function records(text, delimiter) {
  const found = [];
  let [record, field, quoted] = [[], "", false];
  const endField = () => {
    record.push(field);
    field = "";
  };
  const endRecord = () => {
    endField();
    if (record.length > 1 || record[0]) found.push(record);
    record = [];
  };
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (quoted) {
      if (character !== '"') field += character;
      else if (text[at + 1] === '"') field += text[++at];
      else quoted = false;
    } else if (character === '"' && !field) quoted = true;
    else if (character === delimiter) endField();
    else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[at + 1] === "\n") at++;
      endRecord();
    } else field += character;
  }
  if (field || record.length) endRecord();
  return found;
}
