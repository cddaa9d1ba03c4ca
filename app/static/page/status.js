// The strip on top: is the server up, what does it serve, how busy is it.

import { ask } from "./api.js";
import { find } from "./dom.js";
import { key } from "./key.js";
import { onLanguage, t } from "./language.js";

const EVERY = 3000; // ms
const PATIENCE = 5000;
const WINDOW = 15_000; // over which tokens a second are counted

let known = null; // promise of what is served
let last = null; // what was served last
const listeners = [];
let state = "status.asking";
let samples = [];
let int8 = {}; // what it would give here, if that was measured

// Called with what is served, once it is known and whenever it is something else.
export function onModel(listener) {
  listeners.push(listener);
  if (last) listener(last);
}

// {model, demo, digest, pooling, outputs, width, unrelated, mostTexts, maxTokens, engine, precision, int8, reranker};
// asked for again if the server was away. `unrelated` is {p5, p50, p95} of the cosines of unrelated texts, null where
// nobody measured them; `reranker` is {name, mostTexts}, null where the model itself ranks.
export function served() {
  known ??= describe().catch((error) => {
    known = null;
    throw error;
  });
  return known;
}

async function describe() {
  const [info, ranking, show] = await Promise.all([
    ask("info").then((answer) => answer.json()),
    ask("reranker/info").then((answer) => answer.json()),
    ask("api/show", { body: {} }).then((answer) => answer.json()),
  ]);
  const { engine, precision, int8, "general.architecture": architecture } = show.model_info;
  const what = {
    model: info.model_id,
    demo: info.demo ?? false,
    digest: info.model_sha,
    pooling: info.model_type.embedding.pooling,
    outputs: info.outputs,
    width: show.model_info[`${architecture}.embedding_length`],
    unrelated: info.unrelated_cosine ?? null,
    mostTexts: info.max_client_batch_size,
    maxTokens: info.max_input_length,
    engine,
    precision,
    int8,
    reranker:
      ranking.model_id === info.model_id ? null : { name: ranking.model_id, mostTexts: ranking.max_client_batch_size },
  };
  if (JSON.stringify(what) !== JSON.stringify(last)) {
    last = what;
    for (const listener of listeners) listener(what);
  }
  return what;
}

export function startStatus() {
  onLanguage(draw);
  draw();
  poll();
}

async function poll() {
  if (!document.hidden) {
    try {
      const ready = await get("readyz");
      state = ready.ok ? "status.up" : "status.busy";
      const metrics = await get("metrics");
      if (metrics.ok) count(await metrics.text());
      await served();
    } catch (error) {
      if (error.name === "TypeError" || error.name === "TimeoutError") {
        state = "status.down";
        samples = [];
        known = null; // it may come back with another model
      }
    }
    draw();
  }
  setTimeout(poll, EVERY);
}

const get = (path) =>
  fetch(path, {
    cache: "no-store",
    headers: key() ? { Authorization: `Bearer ${key()}` } : {},
    signal: AbortSignal.timeout(PATIENCE),
  });

// Prometheus' text, "name{labels} value" lines: the sum over all labels.
const metric = (text, name) =>
  [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)`, "gm"))].reduce((sum, [, value]) => sum + Number(value), 0);

function count(text) {
  const now = performance.now();
  const tokens = metric(text, "embed_tokens_total");
  if (samples.length && tokens < samples.at(-1).tokens) {
    samples = []; // it was started anew, perhaps with another model
    known = null;
  }
  samples = samples.filter(({ at }) => now - at <= WINDOW);
  samples.push({ at: now, tokens, waiting: metric(text, "embed_queue_tokens") });
}

const put = (name, text) => (find(`status-${name}`).textContent = text);

onModel((what) => {
  for (const name of ["model", "pooling", "precision", "engine"]) put(name, what[name]);
  put("reranker", what.reranker?.name ?? "–");
  find("status-reranker").parentElement.hidden = !what.reranker;
  int8 = what.int8;
});

function draw() {
  put("state", t(state));
  const { times_as_fast: times, than, cosine_mean: cosine } = int8 ?? {};
  put("int8", times ? t("status.int8.found", { times: times.toFixed(1), than, cosine: cosine.toFixed(4) }) : "–");
  find("status-state").dataset.state = state.split(".")[1];
  const [first, now] = [samples[0], samples.at(-1)];
  const seconds = samples.length > 1 ? (now.at - first.at) / 1000 : 0;
  put("speed", seconds ? Math.round((now.tokens - first.tokens) / seconds) : "–");
  put("waiting", now ? now.waiting : "–");
}
