// What carries the score of two texts, as far as the served model lets one see.

import { isCancel, orCancel } from "./api.js";
import { find, make, say } from "./dom.js";
import { embed } from "./embed.js";
import { onLanguage, t } from "./language.js";
import { leaveOut } from "./leaveout.js";
import { pairScores, WEIGHTS } from "./scores.js";
import { served } from "./status.js";
import { lexicalPart, multiVectorPart } from "./tokens.js";
import { tokenize } from "./tokenize.js";

let running = null;
let asked = null;

onLanguage(() => asked && explain(...asked));
find("why-cancel").addEventListener("click", () => running?.abort());

// `long`: also what takes long.
export async function explain(query, passage, pooling, long = false) {
  asked = [query, passage, pooling, long];
  running?.abort();
  const { signal } = (running = new AbortController());
  const notice = (sentence) => say(find("why-say"), sentence);
  find("why-parts").setAttribute("aria-busy", "true");
  notice(null);
  find("why-cancel").hidden = false;
  try {
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
  } catch (error) {
    if (!isCancel(error)) say(find("why-say"), error.message, true);
    else if (running.signal === signal) notice(t("cancelled"));
  } finally {
    if (running.signal === signal) {
      find("why-cancel").hidden = true;
      find("why-parts").removeAttribute("aria-busy");
    }
  }
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
