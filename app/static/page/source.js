// The texts of a map: lines of the text area, passages of a document in it, or rows of a table.

import { parseCsv } from "./csv.js";
import { choices, find, lines, wellFormed } from "./dom.js";
import { onLanguage, t } from "./language.js";
import { isDocument, passages } from "./passages.js";
import { flat, likely } from "./rows.js";

const OTHER = { lines: "document", document: "lines" };

let table = null; // {columns, rows}, until somebody writes into the text area
let file = ""; // its name, until then
let way = null; // to read what is no table, once somebody chose it
let read = null; // {way, n} of the texts that were read last
let problem = null; // why the file is no table although its name says so

export const source = {
  // `redraw` is called when the texts are to be read the other way.
  start(redraw) {
    find("points").addEventListener("input", () => begin());
    find("text-column").addEventListener("change", write);
    find("read-other").addEventListener("click", () => {
      way = OTHER[read.way];
      redraw();
    });
    onLanguage(tell);
  },

  // A file, a table if its name ends so.
  read(name, text) {
    let [parsed, bad] = [null, null];
    try {
      parsed = /\.(csv|tsv)$/i.test(name) ? parseCsv(text) : null;
    } catch (error) {
      bad = error;
    }
    begin(name, parsed?.rows.length ? parsed : null);
    problem = bad;
    if (!table) {
      find("points").value = text;
      return;
    }
    choices(find("text-column"), table.columns.map((column, index) => [index, column]));
    find("text-column").value = likely(table);
    write();
  },

  // {texts, columns: [{name, values}]} of the rows that have a text; of a document also `places` of its passages
  async texts(options) {
    if (problem) throw problem;
    if (!table) return written(options);
    const at = Number(find("text-column").value);
    const rows = table.rows.filter((row) => flat(row[at]));
    const columns = table.columns
      .map((name, index) => ({ name, values: rows.map((row) => row[index]), index }))
      .filter(({ index }) => index !== at);
    return { texts: rows.map((row) => flat(row[at])), columns };
  },
};

function begin(name = "", parsed = null) {
  [file, table, way, read, problem] = [name, parsed, null, null, null];
  find("text-column-field").hidden = !table;
  tell();
}

async function written(options) {
  const text = wellFormed(find("points").value);
  const now = (read = { way: way ?? (isDocument(file, text) ? "document" : "lines") });
  tell();
  let found = { texts: lines(text) };
  if (now.way === "document") {
    options.notice(t("read.cutting"));
    found = await passages(text, options);
  }
  now.n = found.texts.length;
  tell();
  return { columns: [], ...found };
}

// How the texts were read, and a button to read them the other way.
function tell() {
  find("read").hidden = !read;
  if (!read) return;
  const { way: taken, n } = read;
  find("read-as").textContent = n === undefined ? "" : t(`read.${taken}`, { name: file || t("heat.texts"), n });
  find("read-other").textContent = t(`read.as.${OTHER[taken]}`);
}

function write() {
  find("points").value = table.rows.map((row) => flat(row[Number(find("text-column").value)])).join("\n");
}
