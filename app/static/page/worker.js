// What would stop the page from moving is computed here; jobs.js starts it.

import { clusters } from "./clusters.js";
import { named } from "./names.js";
import { byCluster } from "./order.js";
import { principalComponents } from "./components.js";
import { pairScores, scoreMatrix } from "./scores.js";

const JOBS = {
  scores: ({ kind, texts }, progress) => scoreMatrix(kind, texts, progress),
  pairs: ({ query, passages }) => passages.map((passage) => pairScores(query, passage)),
  order: ({ scores, n }) => byCluster(scores, n),
  components: ({ rows, n }) => principalComponents(rows, n),
  clusters: ({ rows, texts, k, language }) => {
    const { labels, distances, groups } = clusters(rows, texts.length, k);
    return { labels, groups: named(texts, { labels, distances, groups }, language) };
  },
};

onmessage = ({ data: { job, input } }) => {
  let told = performance.now();
  const progress = (done, of) => {
    if (performance.now() - told < 100) return;
    told = performance.now();
    postMessage({ done, of });
  };
  postMessage({ result: JOBS[job](input, progress) });
};
