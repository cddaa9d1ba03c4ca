// What is searched: passages of a table, of lines or of a document, with what is shown beside them.

import { lines, wellFormed } from "./dom.js";
import { t } from "./language.js";
import { isDocument, passages } from "./passages.js";
import { flat, likely } from "./rows.js";

// Of what open.js gives, at most `most` passages: {texts, places, columns, total, way, column}, and `vectors`, still
// empty. `way` is how text was read, "lines" or "document"; `column` is the text column of a table.
export async function corpusOf(opened, { most, column, way, ...options }) {
  const found = opened.table ? ofTable(opened.table, column) : await ofText(opened, way, options);
  if (!found.texts.length) throw new Error(t("find.nothing", { name: opened.name }));
  const total = Math.max(found.texts.length, opened.table?.total ?? 0);
  const columns = found.columns.map(({ name, values }) => ({ name, values: values.slice(0, most) }));
  const [texts, places] = [found.texts.slice(0, most), found.places.slice(0, most)];
  return { ...found, texts, places, columns, total, vectors: [] };
}

function ofTable(table, column = likely(table)) {
  const numbered = table.rows.map((row, index) => ({ row, number: table.numbers?.[index] ?? index + 1 }));
  const rows = numbered.filter(({ row }) => flat(row[column] ?? ""));
  const unit = table.numbers ? "find.line" : "find.row";
  return {
    column,
    texts: rows.map(({ row }) => wellFormed(row[column]).trim()),
    places: rows.map(({ number }) => ({ unit, number })),
    columns: table.columns
      .map((name, at) => ({ name, at, values: rows.map(({ row }) => row[at]) }))
      .filter(({ at }) => at !== column),
  };
}

async function ofText({ name, text: given }, way, options) {
  const text = wellFormed(given);
  way ??= isDocument(name, text) ? "document" : "lines";
  if (way === "document") {
    options.notice(t("read.cutting"));
    const { texts, places } = await passages(text, options);
    return { way, texts, places: places.map((number) => ({ unit: "find.passage", number })), columns: [] };
  }
  const numbered = text.split(/\r\n|\r|\n/).map((line, index) => ({ line: line.trim(), number: index + 1 }));
  const kept = numbered.filter(({ line }) => line);
  return {
    way,
    texts: lines(text),
    places: kept.map(({ number }) => ({ unit: "find.line", number })),
    columns: [],
  };
}
