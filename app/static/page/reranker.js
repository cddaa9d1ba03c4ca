// What the served cross-encoder gives a query with texts; what is known already is not asked for again.

import { ask } from "./api.js";
import { batches } from "./embed.js";
import { onModel } from "./status.js";

const known = new Map(); // scores, by query and text
onModel(() => known.clear());

const pair = (query, text) => JSON.stringify([query, text]);

// Without bounds, of the query with each text; `reranker` is as status.js says.
export async function crossScores(query, texts, reranker, { signal, notice, progress = () => {} }) {
  const missing = [...new Set(texts)].filter((text) => !known.has(pair(query, text)));
  let done = 0;
  for (const batch of batches(missing, reranker.mostTexts)) {
    progress(done, missing.length);
    const body = { model: reranker.name, query, texts: batch, raw_scores: true };
    const answer = await (await ask("rerank", { body, signal, notice })).json();
    for (const { index, score } of answer) known.set(pair(query, batch[index]), score);
    done += batch.length;
  }
  return texts.map((text) => known.get(pair(query, text)));
}
