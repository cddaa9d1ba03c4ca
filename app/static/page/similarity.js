// Texts, one a line, beside each other: a heat map of how near each is to every other.

import { isCancel, orCancel } from "./api.js";
import { chosen, choices, find, lines, save, say, short } from "./dom.js";
import { embed, requestBody } from "./embed.js";
import { EXAMPLE } from "./example.js";
import { heatMap } from "./heatmap.js";
import { takeTexts } from "./intake.js";
import { run } from "./jobs.js";
import { onLanguage, t } from "./language.js";
import { asGiven, byNearness } from "./order.js";
import { heatMapPicture } from "./picture.js";
import { legend, scaleOf } from "./scale.js";
import { NEEDS } from "./scores.js";
import { served } from "./status.js";
import { takeAway } from "./take.js";
import { explain } from "./why.js";

const MOST = 500; // texts
const MOST_MULTI = 100; // where every token of every text meets every other

let shown = null; // {texts, vectors, kind, pooling, scores, order, scale, pair}
let running = null;
let map = null;
let take = null;

export function startSimilarity() {
  map = heatMap(find("heat"), { choose, chooseRow });
  find("lines").value = EXAMPLE.join("\n");
  find("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  find("compare-cancel").addEventListener("click", () => running?.abort());
  find("compare-example").addEventListener("click", () => {
    find("lines").value = EXAMPLE.join("\n");
    compare();
  });
  takeTexts(find("lines"), find("lines-file"), async (file) => {
    find("lines").value = await file.text();
    compare();
  });
  for (const radio of document.querySelectorAll('input[name="score"], input[name="pooling"]'))
    radio.addEventListener("change", compare);
  find("order").addEventListener("change", reorder);
  find("order-row").addEventListener("change", reorder);
  find("query").addEventListener("change", () => choose(Number(find("query").value), shown.pair[1]));
  find("passage").addEventListener("change", () => choose(shown.pair[0], Number(find("passage").value)));
  find("swap").addEventListener("click", () => shown && choose(...shown.pair.toReversed()));
  take = takeAway(
    find("compare-take"),
    () => shown && { ...shown, body: requestBody(shown.texts, shown.pooling, NEEDS[shown.kind]), picture },
  );
  onLanguage(() => shown && draw());
  offer().then(compare, (error) => say(find("compare-say"), error.message, true));
}

// Scores that the served model cannot give are not offered, and a sentence says why.
async function offer() {
  const { outputs, pooling } = await served();
  const why = () => {
    const missing = ["sparse", "colbert"].filter((head) => !outputs.includes(head)).map((head) => t(`head.${head}`));
    say(find("score-why"), missing.length ? t("score.missing", { missing: missing.join(t("score.and")) }) : null);
  };
  for (const radio of document.querySelectorAll('input[name="score"]'))
    radio.disabled = !NEEDS[radio.value].every((output) => outputs.includes(output));
  find(`pooling-${pooling}`).checked = find(`map-pooling-${pooling}`).checked = true;
  why();
  onLanguage(why);
}

async function compare() {
  running?.abort();
  const mine = (running = new AbortController());
  const { signal } = mine;
  const [kind, pooling] = [chosen("score"), chosen("pooling")];
  const given = lines(find("lines").value);
  const most = kind === "multi" || kind === "hybrid" ? MOST_MULTI : MOST;
  const texts = given.slice(0, most);
  const notice = (sentence) => say(find("compare-say"), sentence);
  if (texts.length < 2) return say(find("compare-say"), t("compare.few"), true);
  notice(null);
  find("compare-cancel").hidden = false;
  find("heat").setAttribute("aria-busy", "true");
  const progress = (done, of) => {
    find("compare-progress").hidden = !of || done === of;
    Object.assign(find("compare-progress"), { value: done, max: of || 1 });
  };
  try {
    await orCancel(served(), signal);
    const vectors = await embed(texts, { pooling, outputs: NEEDS[kind], signal, notice, progress });
    const scores = await run("scores", { kind, texts: vectors }, { signal, progress });
    const pair = sameTexts(texts) ? shown.pair : [0, 1];
    shown = { texts, vectors, kind, pooling, scores, pair, scale: scaleOf(scores, texts.length) };
    shown.order = await ordered(signal);
    draw();
    explainPair();
    const cut = vectors.filter((vector) => vector.cut).length;
    const { maxTokens } = await served();
    const said = [
      given.length > most && t("compare.many", { most, n: given.length }),
      cut && t("texts.cut", { cut, most: maxTokens }),
    ].filter(Boolean);
    notice(said.join(" ") || null);
  } catch (error) {
    say(find("compare-say"), isCancel(error) ? (running === mine ? t("cancelled") : null) : error.message, !isCancel(error));
  } finally {
    if (running === mine) {
      find("compare-cancel").hidden = find("compare-progress").hidden = true;
      find("heat").removeAttribute("aria-busy");
    }
  }
}

const sameTexts = (texts) => shown?.texts.length === texts.length && texts.every((text, index) => text === shown.texts[index]);

async function ordered(signal) {
  const { scores, texts } = shown;
  const n = texts.length;
  choices(find("order-row"), texts.map((text, index) => [index, `${index + 1} ${short(text, 50)}`]));
  const by = find("order").value;
  find("order-row-field").hidden = by !== "near";
  if (by === "near") return byNearness(scores, n, Number(find("order-row").value));
  return by === "cluster" ? run("order", { scores, n }, { signal }) : asGiven(n);
}

async function reorder() {
  if (!shown) return;
  const now = shown;
  find("heat").setAttribute("aria-busy", "true");
  try {
    const order = await ordered(running.signal.aborted ? undefined : running.signal);
    if (shown !== now) return; // other texts meanwhile
    shown.order = order;
    draw();
    find("heat").removeAttribute("aria-busy");
  } catch (error) {
    if (!isCancel(error)) say(find("compare-say"), error.message, true);
  }
}

function chooseRow(index) {
  find("order").value = "near";
  find("order-row").value = index;
  reorder();
}

function choose(i, j) {
  shown.pair = [i, j];
  map.mark(shown.pair);
  explainPair();
}

function draw() {
  map.show(shown);
  const title = t("legend.title", { score: t(`score.${shown.kind}`) });
  find("legend").replaceChildren(...legend(shown.scale, title));
  sayNearest();
  take.refresh();
}

// What the picture shows of one row, in words.
function sayNearest() {
  const { texts, scores, pair } = shown;
  const row = pair[0];
  const others = byNearness(scores, texts.length, row).slice(1);
  const value = (index) => scores[row * texts.length + index].toFixed(2);
  const [near, far] = [others[0], others.at(-1)];
  say(
    find("nearest-text"),
    t("compare.reading", {
      text: short(texts[row]),
      near: short(texts[near]),
      nearness: value(near),
      far: short(texts[far]),
      farness: value(far),
    }),
  );
}

function explainPair() {
  const options = shown.texts.map((text, index) => [index, `${index + 1} ${short(text, 70)}`]);
  for (const [id, index] of [["query", shown.pair[0]], ["passage", shown.pair[1]]]) {
    choices(find(id), options);
    find(id).value = index;
  }
  sayNearest();
  const [query, passage] = shown.pair.map((index) => shown.texts[index]);
  explain(query, passage, shown.pooling);
}

const picture = async () => save("similarity.png", await heatMapPicture(shown));
