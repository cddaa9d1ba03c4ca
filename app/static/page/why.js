// What carries the score of two texts, as far as the served model lets one see.

import { orCancel } from "./api.js";
import { find, make } from "./dom.js";
import { embed } from "./embed.js";
import { onLanguage, t } from "./language.js";
import { leaveOut } from "./leaveout.js";
import { pairScores, WEIGHTS } from "./scores.js";
import { served } from "./status.js";
import { task } from "./task.js";
import { lexicalPart, multiVectorPart } from "./tokens.js";
import { tokenize } from "./tokenize.js";

const work = task("why", "why-parts");
let asked = null;

onLanguage(() => asked && explain(...asked));

// `long`: also what takes long.
export function explain(query, passage, pooling, long = false) {
  asked = [query, passage, pooling, long];
  work(async ({ signal, notice }) => {
    const { outputs } = await orCancel(served(), signal);
    const options = { pooling, signal, notice };
    const [a, b] = await embed([query, passage], { ...options, outputs });
    const parts = [];
    if (a.sparse || a.colbert) {
      const [mine, others] = await tokenize([query, passage], options);
      if (a.sparse) parts.push(lexicalPart(a.sparse, b.sparse, mine, others));
      if (a.colbert) parts.push(multiVectorPart(a.colbert, b.colbert, mine, others));
    }
    sayScore(pairScores(a, b), outputs);
    find("why-parts").replaceChildren(...parts);
    find("why-parts").append(await leaveOut(query, passage, options, long ? null : () => explain(query, passage, pooling, true)));
  });
}

function sayScore(scores, outputs) {
  const four = Object.fromEntries(Object.entries(scores).map(([name, value]) => [name, value.toFixed(4)]));
  const lines = [make("p", {}, t("why.dense", four))];
  if (scores.hybrid !== undefined) {
    const weights = { wd: WEIGHTS.dense, ws: WEIGHTS.sparse, wc: WEIGHTS.colbert };
    lines.push(make("p", {}, t("why.hybrid", { ...four, ...weights })));
  }
  if (!outputs.includes("sparse") && !outputs.includes("colbert")) lines.push(make("p", { class: "hint" }, t("why.noheads")));
  find("why-score").replaceChildren(...lines);
}
