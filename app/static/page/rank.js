// The other texts in order for a query: by dense score, by hybrid score, and by the served cross-encoder.

import { orCancel } from "./api.js";
import { columns, ranked } from "./columns.js";
import { find, say, short } from "./dom.js";
import { embed } from "./embed.js";
import { run } from "./jobs.js";
import { onLanguage, t } from "./language.js";
import { crossScores } from "./reranker.js";
import { dot, NEEDS } from "./scores.js";
import { served } from "./status.js";
import { task } from "./task.js";

const MOST = 20; // texts, the nearest by dense score: the cross-encoder reads the query with each of them

let asked = null; // {texts, query, passage, pooling, failed}
const work = task("rank", "rank-orders");
let view = null;

// `choose(query, passage)` is told the pair of a text that was clicked.
export function startRanking(choose) {
  view = columns(find("rank-orders"), (index) => choose(asked.query, index));
  onLanguage(() => asked && rank(asked));
}

// Texts by their places in `texts`; a passage of a query whose order is shown is only marked.
export function rankFor(next) {
  const same = ["texts", "query", "pooling"].every((name) => asked?.[name] === next[name]);
  if (!same || asked.failed) return rank(next);
  asked.passage = next.passage;
  view.mark(asked.passage);
}

async function rank(next) {
  asked = Object.assign(next, { failed: false });
  const { texts, query, pooling } = next;
  say(find("rank-reading"), null);
  const done = await work(async ({ signal, notice, progress }) => {
    const options = { pooling, signal, notice, progress };
    const { outputs, reranker } = await orCancel(served(), signal);
    find("rank").hidden = !reranker;
    if (!reranker) return;
    const vectors = await embed(texts, options);
    const others = texts.map((_, index) => index).filter((index) => index !== query);
    const cosines = others.map((index) => dot(vectors[query].dense, vectors[index].dense));
    const nearest = ranked(zip(others, cosines)).slice(0, MOST);
    const passages = nearest.map((index) => texts[index]);
    const scoresOf = (values) => zip(nearest, values);
    const orders = [{ kind: "dense", scores: scoresOf(nearest.map((index) => cosines[others.indexOf(index)])) }];
    if (NEEDS.hybrid.every((output) => outputs.includes(output))) {
      const [one, ...rest] = await embed([texts[query], ...passages], { ...options, outputs: NEEDS.hybrid });
      const scores = await run("pairs", { query: one, passages: rest }, { signal });
      orders.push({ kind: "hybrid", scores: scoresOf(scores.map(({ hybrid }) => hybrid)) });
    }
    const cross = { kind: "cross", name: reranker.name, scores: null };
    orders.push(cross);
    view.show(texts, orders, asked.passage);
    cross.scores = scoresOf(await crossScores(texts[query], passages, reranker, options));
    view.show(texts, orders, asked.passage);
    sayFirst(texts, orders);
    notice(others.length > MOST ? t("rank.most", { most: MOST, n: others.length }) : null);
  });
  next.failed = !done; // choosing the same again tries again
}

const zip = (keys, values) => new Map(keys.map((key, index) => [key, values[index]]));

// What the columns show, in words.
function sayFirst(texts, orders) {
  const [before, after] = [ranked(orders[0].scores), ranked(orders.at(-1).scores)];
  const moved = after.filter((index, place) => before[place] !== index).length;
  const values = { text: short(texts[after[0]]), place: before.indexOf(after[0]) + 1, moved, n: after.length };
  say(find("rank-reading"), t("rank.reading", values));
}
