// The texts of a map: lines of the text area, or the rows of a table with a column of texts.

import { parseCsv } from "./csv.js";
import { choices, find, lines } from "./dom.js";

let table = null; // {columns, rows}, until somebody writes into the text area

export const source = {
  start() {
    find("points").addEventListener("input", () => {
      table = null;
      find("text-column-field").hidden = true;
    });
    find("text-column").addEventListener("change", write);
  },

  // A file, a table if its name ends so.
  read(name, text) {
    table = /\.(csv|tsv)$/i.test(name) ? parseCsv(text) : null;
    if (table && !table.rows.length) table = null;
    find("text-column-field").hidden = !table;
    if (!table) {
      find("points").value = text;
      return;
    }
    choices(find("text-column"), table.columns.map((column, index) => [index, column]));
    find("text-column").value = likely(table);
    write();
  },

  // {texts, columns: [{name, values}]} of the rows that have a text
  texts() {
    if (!table) return { texts: lines(find("points").value), columns: [] };
    const at = Number(find("text-column").value);
    const rows = table.rows.filter((row) => flat(row[at]));
    const columns = table.columns
      .map((name, index) => ({ name, values: rows.map((row) => row[index]), index }))
      .filter(({ index }) => index !== at);
    return { texts: rows.map((row) => flat(row[at])), columns };
  },
};

const flat = (text) => lines(text).join(" ");

function write() {
  find("points").value = table.rows.map((row) => flat(row[Number(find("text-column").value)])).join("\n");
}

// The column called "text", else the one with the most to read.
function likely({ columns, rows }) {
  const named = columns.findIndex((column) => /^(text|sentence|content|文本|内容)$/i.test(column.trim()));
  if (named >= 0) return named;
  const lengths = columns.map((_, index) => rows.reduce((sum, row) => sum + row[index].length, 0));
  return lengths.indexOf(Math.max(...lengths));
}
