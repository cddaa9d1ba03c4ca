// The passages of a corpus in order for a query, by one of the kinds of score.

import { embed } from "./embed.js";
import { run } from "./jobs.js";
import { crossScores } from "./reranker.js";
import { dot, lexicalScore, NEEDS, WEIGHTS } from "./scores.js";

// How many passages multi-vectors and the cross-encoder put in order, the best by what costs less: multi-vectors are
// large, and a cross-encoder reads the query with each passage.
const CANDIDATES = 20;

const KINDS = { dense: "dense", lexical: "sparse", multi: "colbert", hybrid: "hybrid" };

// Whether only the best few are put in this order.
export const isSecond = (kind) => ["multi", "hybrid", "cross"].includes(kind);

// [{index, scores}], the best first; scores by kind.
export async function retrieve(query, corpus, { kind, pooling, reranker, signal, notice }) {
  const outputs = Object.keys(corpus.vectors[0]).filter((name) => ["dense", "sparse"].includes(name));
  const options = { pooling, signal, notice, priority: "interactive" };
  const [asked] = await embed([query], { ...options, outputs });
  const first = firstStage(asked, corpus.vectors);
  if (!isSecond(kind)) return sorted(first, kind);
  const candidates = sorted(first, kind === "hybrid" ? "first" : "dense").slice(0, CANDIDATES);
  const texts = candidates.map(({ index }) => corpus.texts[index]);
  if (kind === "cross") {
    const values = await crossScores(query, texts, reranker, options);
    candidates.forEach(({ scores }, place) => (scores.cross = values[place]));
  } else {
    const [one, ...passages] = await embed([query, ...texts], { ...options, outputs: NEEDS[kind] });
    await score(one, passages, candidates, signal);
  }
  return sorted(candidates, kind);
}

// The same of a corpus that brings all vectors, and those of the query.
export async function retrieveRecorded(asked, corpus, { kind, signal }) {
  const hits = corpus.vectors.map((_, index) => ({ index, scores: {} }));
  await score(asked, corpus.vectors, hits, signal);
  return sorted(hits, kind);
}

function firstStage(query, vectors) {
  return vectors.map((vector, index) => {
    const scores = { dense: dot(query.dense, vector.dense) };
    if (query.sparse) scores.lexical = lexicalScore(query.sparse, vector.sparse);
    scores.first = WEIGHTS.dense * scores.dense + WEIGHTS.sparse * (scores.lexical ?? 0);
    return { index, scores };
  });
}

async function score(query, passages, hits, signal) {
  const found = await run("pairs", { query, passages }, { signal });
  found.forEach((values, place) => {
    for (const [kind, name] of Object.entries(KINDS)) if (name in values) hits[place].scores[kind] = values[name];
  });
}

// A passage without any token of the query is no hit of a lexical search.
function sorted(hits, kind) {
  const found = kind === "lexical" ? hits.filter(({ scores }) => scores.lexical > 0) : [...hits];
  return found.sort((a, b) => b.scores[kind] - a.scores[kind] || a.index - b.index);
}
