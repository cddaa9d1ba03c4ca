// What carried a hit, as shades on its passage: the best matches of late interaction, the tokens that it shares with the
// query, or the words without which the score falls.

import { make } from "./dom.js";
import { embed } from "./embed.js";
import { t } from "./language.js";
import { pieces } from "./leaveout.js";
import { bestMatches, dot, sharedTokens } from "./scores.js";
import { tokenize } from "./tokenize.js";
import { shade } from "./tokens.js";

const PIECES = 20; // of a passage, each left out once: vectors to compute for it

// Of one passage: [{start, end, share, title}] in places of the string; a share goes from 0 to 1.
export async function carriedBy(which, query, passage, options) {
  if (which === "leaveout") return leftOut(query, passage, options);
  const output = which === "multi" ? "colbert" : "sparse";
  const vectors = await embed([query, passage], { ...options, outputs: [output] });
  const tokens = await tokenize([query, passage], options);
  const [mine, others] = tokens.map((list) => list.map(({ id, start, stop, text }) => ({ id, start, end: stop, text })));
  // The first token has no vector of its own.
  return which === "multi"
    ? matches(vectors[0].colbert, vectors[1].colbert, mine.slice(1), others.slice(1), passage)
    : shared(vectors[0].sparse, vectors[1].sparse, others, passage);
}

// Of vectors that are there already, with tokens {id, start, end} for each row.
export function carriedRecorded(which, query, passage) {
  const named = query.tokens.map((token) => ({ ...token, text: [...query.text].slice(token.start, token.end).join("") }));
  return which === "multi"
    ? matches(query.colbert, passage.colbert, named, passage.tokens, passage.text)
    : shared(query.sparse, passage.sparse, passage.tokens, passage.text);
}

// Tokens of the passage that a token of the query matches best, the stronger the better.
function matches(query, passage, mine, others, text) {
  const found = bestMatches(query, passage);
  const values = found.map(({ value }) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const best = new Map();
  found.forEach(({ best: at, value }, index) => {
    if (value > (best.get(at)?.value ?? -Infinity)) best.set(at, { value, token: mine[index]?.text ?? "" });
  });
  const ranges = [...best].map(([at, { value, token }]) => ({
    ...others[at],
    share: high > low ? 0.2 + (0.8 * (value - low)) / (high - low) : 1,
    title: t("carried.match", { token, value: value.toFixed(3) }),
  }));
  return inString(text, ranges);
}

// Tokens that both have, the stronger the more they add to the score.
function shared(query, passage, others, text) {
  const products = new Map(sharedTokens(query, passage).map(({ id, product }) => [id, product]));
  const most = Math.max(...products.values());
  const ranges = others
    .filter(({ id }) => products.get(id) > 0)
    .map((token) => ({
      ...token,
      share: 0.2 + (0.8 * products.get(token.id)) / most,
      title: t("carried.adds", { value: products.get(token.id).toFixed(4) }),
    }));
  return inString(text, ranges);
}

async function leftOut(query, passage, options) {
  const parts = pieces(passage, PIECES);
  const variants = parts.map(({ without }) => without).filter(Boolean);
  const [asked, whole, ...others] = await embed([query, passage, ...variants], { ...options, outputs: ["dense"] });
  const left = new Map(variants.map((text, index) => [text, dot(asked.dense, others[index].dense)]));
  const score = dot(asked.dense, whole.dense);
  let end = 0;
  const found = parts.map(({ text, without }) => {
    const fall = without ? score - left.get(without) : 0;
    return { start: end, end: (end += text.length), fall, title: t("carried.falls", { value: fall.toFixed(4) }) };
  });
  const most = Math.max(...found.map(({ fall }) => fall));
  return found.filter(({ fall }) => fall > 0).map((part) => ({ ...part, share: part.fall / most }));
}

// Places in code points, as the server counts them, to places in the string; empty ones are left out.
function inString(text, ranges) {
  const at = [0];
  for (const character of text) at.push(at.at(-1) + character.length);
  return ranges
    .map((range) => ({ ...range, start: at[range.start], end: at[range.end] }))
    .filter(({ start, end }) => end > start)
    .sort((a, b) => a.start - b.start);
}

// A text with its ranges shaded.
export function shaded(text, ranges) {
  const nodes = [];
  let end = 0;
  for (const range of ranges) {
    if (range.start < end) continue;
    nodes.push(text.slice(end, range.start));
    nodes.push(shade(make("mark", { class: "carried", title: range.title }, text.slice(range.start, range.end)), range.share));
    end = range.end;
  }
  return [...nodes, text.slice(end)];
}
