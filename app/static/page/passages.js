// Documents: texts that are one whole, which the server cuts into passages.

import { ask } from "./api.js";
import { lines } from "./dom.js";
import { refused } from "./embed.js";
import { onModel } from "./status.js";

let last = {}; // {text, found}: a document is not cut twice
onModel(() => (last = {}));

// About as wide as they are printed, in characters: Chinese, Japanese and Korean ones count double.
const width = (text) => text.length + (text.match(/[\u2e80-\uffff]/g)?.length ?? 0);
const SENTENCE = /[.!?。！？]["'”’»」）)]*$/;

// Whether a text reads as a document: Markdown; lines indented as in Chinese books; very long lines; or blank
// lines between paragraphs that are long or broken in the middle of sentences. Else each line is a text.
export function isDocument(name, text) {
  if (/\.(md|markdown)$/i.test(name) || /^\u3000/m.test(text)) return true;
  const all = lines(text);
  const mean = width(all.join("")) / all.length;
  if (mean > (all.length < 3 ? 300 : 1000)) return true;
  const paragraphs = text.trim().split(/\n\s*\n/).length;
  if (paragraphs < 2) return false;
  const ends = all.filter((line) => SENTENCE.test(line)).length;
  return mean > 150 || (mean > 40 && paragraphs < 0.7 * all.length && ends < all.length / 2);
}

// {texts, places} of its passages; a place is "12/40", and the heading above it where there is one.
export async function passages(text, options) {
  if (last.text === text) return last.found;
  // Without overlap: nothing is found twice, and a section's first passage begins with its heading.
  const body = { input: text, chunk: { overlap: 0 }, return_dense: false };
  const answer = await refused(text, ask("api/embed", { body, ...options }));
  const { chunks } = await answer.json();
  const characters = Array.from(text); // the server counts code points
  // Markdown's, but not what looks like one in code.
  const headings = [...text.matchAll(/^(```|~~~)[^]*?^\1|^#{1,6}[ \t]+(.+)/gm)].filter(([, , title]) => title);
  let [heading, at, point] = ["", 0, 0];
  const found = { texts: [], places: [] };
  for (const { start, end } of chunks) {
    at += characters.slice(point, start).join("").length;
    point = start;
    while (headings[0]?.index <= at) heading = ` · ${headings.shift()[2].trim()}`;
    const n = found.texts.push(characters.slice(start, end).join(""));
    found.places.push(`${n}/${chunks.length}${heading}`);
  }
  last = { text, found };
  return found;
}
