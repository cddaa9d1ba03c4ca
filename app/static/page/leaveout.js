// A true account of a dense score: how much the cosine of two texts falls when a word is left out.

import { make } from "./dom.js";
import { embed } from "./embed.js";
import { language, t } from "./language.js";
import { dot } from "./scores.js";
import { part, row, shade } from "./tokens.js";

const AT_ONCE = 5000; // characters of all the texts to embed
const MOST = 40; // vectors to compute for a text; a longer one is cut into so many pieces

// At once where that is a matter of seconds, else behind a button; `redo` is what the button does.
export async function leaveOut(query, passage, options, redo) {
  const [a, b] = [pieces(query), pieces(passage)];
  const all = [...a, ...b];
  const variants = all.filter(({ without }) => without).map(({ without }) => without);
  if (redo && variants.join("").length > AT_ONCE) {
    const button = make("button", { click: redo }, t("leaveout.go", { n: variants.length }));
    return part(t("leaveout.title"), t("leaveout.long"), button);
  }
  const found = await embed([query, passage, ...variants], { ...options, outputs: ["dense"] });
  const vector = new Map([query, passage, ...variants].map((text, index) => [text, found[index].dense]));
  const whole = dot(vector.get(query), vector.get(passage));
  for (const piece of a) piece.fall = piece.without && whole - dot(vector.get(piece.without), vector.get(passage));
  for (const piece of b) piece.fall = piece.without && whole - dot(vector.get(query), vector.get(piece.without));
  const largest = Math.max(...all.map(({ fall }) => Math.abs(fall || 0)), 1e-9);

  const dress = (piece) => {
    if (!piece.without) return piece.text;
    const element = make("span", { class: "token counted" }, piece.text, make("small", {}, signed(piece.fall)));
    return shade(element, Math.abs(piece.fall) / largest, piece.fall < 0 ? "--against" : "--accent");
  };
  const grouped = all.some(({ words }) => words > 1);
  return part(
    t("leaveout.title"),
    t(grouped ? "leaveout.hint.grouped" : "leaveout.hint", { whole: whole.toFixed(4) }),
    row(t("query"), a, dress),
    row(t("passage"), b, dress),
  );
}

// "+0.0312": the cosine falls by so much.
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;

// A text in words, and between them what is no word; `without` is the text with this word left out,
// null for what is no word and where nothing would be left.
export function pieces(text, most = MOST) {
  const found = [...new Intl.Segmenter(language(), { granularity: "word" }).segment(text)];
  const words = found.filter(({ isWordLike }) => isWordLike).length;
  const size = Math.ceil(words / most);
  const groups = [];
  for (const { segment, isWordLike } of found) {
    const last = groups.at(-1);
    const open = last?.words && last.words < size;
    if (open && size > 1) {
      last.text += segment;
      last.words += isWordLike ? 1 : 0;
    } else groups.push({ text: segment, words: isWordLike ? 1 : 0 });
  }
  let start = 0;
  return groups.map(({ text: piece, words: count }) => {
    const rest = `${text.slice(0, start)}${text.slice(start + piece.length)}`.replace(/\s+/g, " ").trim();
    start += piece.length;
    const without = count && /[\p{L}\p{N}]/u.test(rest) ? rest : null;
    return { text: piece, words: count, without };
  });
}
