// The tokens of a text, from /tokenize, as they can be shown.

import { ask } from "./api.js";
import { onModel, served } from "./status.js";

const known = new Map();
onModel(() => known.clear());

// Of each text a list of {id, text, special, space}: `space` says that a blank stands before it.
// A text over the model's limit keeps its beginning and its last token, as the encoder cuts it.
export async function tokenize(texts, { signal, notice }) {
  const missing = [...new Set(texts)].filter((text) => !known.has(text));
  if (missing.length) {
    const { maxTokens } = await served();
    const answer = await (await ask("tokenize", { body: { inputs: missing }, signal, notice })).json();
    if (known.size > 500) known.clear();
    missing.forEach((text, index) => known.set(text, readable(answer[index], text, maxTokens)));
  }
  return texts.map((text) => known.get(text));
}

function readable(tokens, text, most) {
  const kept = tokens.length > most ? [...tokens.slice(0, most - 1), tokens.at(-1)] : tokens;
  const characters = [...text]; // the server counts code points
  let end = 0;
  return kept.map((token, index) => {
    if (token.special) return { ...token, space: true };
    const next = kept[index + 1];
    // SentencePiece may write the blank before a word as a token of its own; its place is the next one's.
    const mark = next && !next.special && next.start === token.start;
    const space = token.start > end && /\s/.test(characters[token.start - 1]);
    if (!mark) end = token.stop;
    return { ...token, text: mark || !token.text.trim() ? "▁" : token.text, space };
  });
}
