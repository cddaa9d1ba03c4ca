// A file, or what was pasted, to rows of a table or to text; what cannot be read is an error that says what to do.

import { parseCsv } from "./csv.js";
import { decode } from "./decode.js";
import { parseJsonLines } from "./jsonlines.js";
import { t } from "./language.js";
import { readParquet } from "./parquet.js";

const LARGEST = 100 * 1024 * 1024; // bytes
const TABLES = { csv: parseCsv, tsv: parseCsv, jsonl: parseJsonLines, ndjson: parseJsonLines, json: parseJsonLines };
const TEXTS = ["", "txt", "text", "md", "markdown", "log"];

// {name, notes} and either `text` or `table`: {columns, rows, numbers, texts, total}, the last three where they are known.
// Notes are [key, values] of sentences; `others` is how many files came with this one.
export async function openFile(file, most, others = 0) {
  const ending = file.name.includes(".") ? file.name.split(".").at(-1).toLowerCase() : "";
  const known = ending === "parquet" || ending in TABLES || TEXTS.includes(ending) || file.type === "text/plain";
  if (!known) throw new Error(t("find.type", { name: file.name }));
  if (!file.size) throw new Error(t("find.empty", { name: file.name }));
  if (file.size > LARGEST) throw new Error(t("find.huge", { name: file.name, size: Math.ceil(file.size / 1024 / 1024) }));
  const notes = others ? [["find.others", { n: others + 1 }]] : [];
  if (ending === "parquet") return { name: file.name, notes, table: await readParquet(file, most) };
  let bytes;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch (error) {
    throw new Error(t("find.unreadable", { name: file.name, said: error.message })); // a folder, or it is gone
  }
  const { text, guess } = decode(bytes);
  if (guess) notes.push(["find.guess", { encoding: guess }]);
  if (!(ending in TABLES)) return { name: file.name, notes, text };
  const table = TABLES[ending](text);
  if (table.wide) notes.push(["find.wide", table.wide]);
  return { name: file.name, notes, table };
}

// What was copied out of a spreadsheet or a log has no name that says what it is.
export function openPasted(text) {
  const pasted = { label: "find.pasted", name: t("find.pasted"), notes: [] };
  const [first] = text.trim().split("\n", 1);
  const table = first.startsWith("{") ? parseJsonLines(text) : first.includes("\t") ? parseCsv(text) : null;
  return table?.rows.length ? { ...pasted, table } : { ...pasted, text };
}
