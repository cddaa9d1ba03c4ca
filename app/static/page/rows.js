// Tables of texts: which column holds them, and a cell as one line.

import { lines } from "./dom.js";

// The column called "text", else the one with the most to read, of those that may be asked for.
export function likely({ columns, rows, texts = [...columns.keys()] }) {
  const named = texts.find((at) => /^(text|sentence|content|文本|内容)$/i.test(columns[at].trim()));
  if (named !== undefined) return named;
  const lengths = texts.map((at) => rows.reduce((sum, row) => sum + row[at].length, 0));
  return texts[lengths.indexOf(Math.max(...lengths))];
}

export const flat = (text) => lines(text).join(" ");
