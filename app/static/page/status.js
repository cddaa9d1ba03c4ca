// The strip on top: is the server up, what does it serve, how busy is it.

import { ask } from "./api.js";
import { find } from "./dom.js";
import { key } from "./key.js";
import { onLanguage, t } from "./language.js";

const EVERY = 3000; // ms
const PATIENCE = 5000;
const WINDOW = 15_000; // over which tokens a second are counted

let known = null; // promise of what is served
let state = "status.asking";
let samples = [];

// {model, pooling, outputs, mostTexts, maxTokens, width, engine, precision}, asked for once.
export function served() {
  known ??= describe().catch((error) => {
    known = null;
    throw error;
  });
  return known;
}

async function describe() {
  const [info, show] = await Promise.all([
    ask("info").then((answer) => answer.json()),
    ask("api/show", { body: {} }).then((answer) => answer.json()),
  ]);
  const model = show.model_info;
  return {
    model: info.model_id,
    pooling: info.model_type.embedding.pooling,
    outputs: info.outputs,
    mostTexts: info.max_client_batch_size,
    maxTokens: info.max_input_length,
    width: model[`${model["general.architecture"]}.embedding_length`],
    engine: model.engine,
    precision: model.precision,
  };
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
      show(await served());
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

// Prometheus' text: "name value" lines.
const metric = (text, name) => Number(new RegExp(`^${name} (\\S+)`, "m").exec(text)?.[1] ?? 0);

function count(text) {
  const now = performance.now();
  const tokens = metric(text, "embed_tokens_total");
  if (samples.length && tokens < samples.at(-1).tokens) samples = []; // it was started anew
  samples = samples.filter(({ at }) => now - at <= WINDOW);
  samples.push({ at: now, tokens, waiting: metric(text, "embed_queue_tokens") });
}

function show(what) {
  for (const name of ["model", "pooling", "precision", "engine"]) find(`status-${name}`).textContent = what[name];
}

function draw() {
  find("status-state").textContent = t(state);
  find("status-state").dataset.state = state.split(".")[1];
  const [first, last] = [samples[0], samples.at(-1)];
  const seconds = samples.length > 1 ? (last.at - first.at) / 1000 : 0;
  find("status-speed").textContent = seconds ? Math.round((last.tokens - first.tokens) / seconds) : "–";
  find("status-waiting").textContent = last ? last.waiting : "–";
}
