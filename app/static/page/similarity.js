// Texts, one per line, beside each other: a heat map of how near each is to every other.

import { orCancel } from "./api.js";
import { chosen, choices, find, lines, reveal, say, short } from "./dom.js";
import { embed, leftOut, requestBody } from "./embed.js";
import { EXAMPLE } from "./example.js";
import { exportBox } from "./export.js";
import { heatMap } from "./heatmap.js";
import { takeTexts } from "./intake.js";
import { run } from "./jobs.js";
import { onLanguage, t } from "./language.js";
import { isDocument } from "./passages.js";
import { asGiven, byNearness } from "./order.js";
import { heatMapPicture } from "./picture.js";
import { rankFor, startRanking } from "./rank.js";
import { legend, scaleOf } from "./scale.js";
import { NEEDS } from "./scores.js";
import { onModel, served } from "./status.js";
import { task } from "./task.js";
import { explain } from "./why.js";

const MOST = 500; // texts
const MOST_MULTI = 100; // where every token of every text meets every other

let shown = null; // {texts, vectors, kind, pooling, scores, order, scale, pair}
const work = task("compare", "heat");
let map = null;
let take = null;
let missing = []; // heads that the served model does not have
let file = ""; // the name of the one that the texts are from

export function startSimilarity() {
  map = heatMap(find("heat"), { choose: chooseCell, chooseRow });
  example();
  find("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  find("compare-example").addEventListener("click", () => {
    example();
    compare();
  });
  find("lines").addEventListener("input", () => (file = ""));
  takeTexts(find("lines"), find("lines-file"), async (taken) => {
    find("lines").value = await taken.text();
    file = taken.name;
    compare();
  });
  find("why-back").addEventListener("click", () => map.back());
  find("why-section").addEventListener("keydown", ({ key }) => key === "Escape" && map.back());
  for (const radio of document.querySelectorAll('input[name="score"], input[name="pooling"]'))
    radio.addEventListener("change", compare);
  find("order").addEventListener("change", reorder);
  find("order-row").addEventListener("change", reorder);
  for (const id of ["query", "rank-query"])
    find(id).addEventListener("change", () => choose(Number(find(id).value), shown.pair[1]));
  find("passage").addEventListener("change", () => choose(shown.pair[0], Number(find("passage").value)));
  find("swap").addEventListener("click", () => shown && choose(...shown.pair.toReversed()));
  startRanking(choose);
  take = exportBox(
    find("compare-export"),
    () => shown && { ...shown, body: requestBody(shown.texts, shown.pooling, NEEDS[shown.kind]), picture: () => heatMapPicture(shown) },
  );
  onModel(offer);
  onLanguage(() => {
    sayMissing();
    if (shown) draw();
  });
  compare();
}

function example() {
  find("lines").value = EXAMPLE.join("\n");
  file = "";
}

// Scores that the served model cannot give are not offered, and a sentence says why.
function offer({ outputs, pooling }) {
  for (const radio of document.querySelectorAll('input[name="score"]')) {
    radio.disabled = !NEEDS[radio.value].every((output) => outputs.includes(output));
    if (radio.disabled && radio.checked) document.querySelector('input[name="score"]').checked = true;
  }
  find(`pooling-${pooling}`).checked = find(`map-pooling-${pooling}`).checked = true;
  missing = ["sparse", "colbert"].filter((head) => !outputs.includes(head));
  sayMissing();
}

function sayMissing() {
  const names = missing.map((head) => t(`head.${head}`)).join(t("score.and"));
  say(find("score-why"), missing.length ? t("score.missing", { missing: names }) : null);
}

const compare = () =>
  work(async ({ signal, notice, progress }) => {
    const given = lines(find("lines").value);
    if (given.length < 2) throw new Error(t("compare.few"));
    const { maxTokens } = await orCancel(served(), signal);
    const [kind, pooling] = [chosen("score"), chosen("pooling")];
    const most = kind === "multi" || kind === "hybrid" ? MOST_MULTI : MOST;
    const texts = given.slice(0, most);
    const vectors = await embed(texts, { pooling, outputs: NEEDS[kind], signal, notice, progress });
    const scores = await run("scores", { kind, texts: vectors }, { signal, progress });
    const pair = sameTexts(texts) ? shown.pair : [0, 1];
    shown = { texts, vectors, kind, pooling, scores, pair, scale: scaleOf(scores, texts.length) };
    shown.order = await ordered(signal);
    draw();
    explainPair();
    const long = vectors.some(({ cut }) => cut) || isDocument(file, find("lines").value);
    notice([leftOut(given.length, most, vectors, maxTokens), long && t("compare.document")].filter(Boolean).join(" "));
  });

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
    const order = await ordered();
    if (shown !== now) return; // other texts meanwhile
    shown.order = order;
    draw();
    if (find("compare-cancel").hidden) find("heat").removeAttribute("aria-busy");
  } catch (error) {
    say(find("compare-say"), error.message, true);
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

// Why stands below, out of sight: it comes into view, and the keyboard and screen readers go on there.
function chooseCell(i, j) {
  choose(i, j);
  find("why-title").focus({ preventScroll: true });
  reveal(find("why-section"), "start");
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
    t(near === far ? "compare.two" : "compare.reading", {
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
  for (const [id, index] of [["query", shown.pair[0]], ["rank-query", shown.pair[0]], ["passage", shown.pair[1]]]) {
    choices(find(id), options);
    find(id).value = index;
  }
  sayNearest();
  const { texts, pooling, pair } = shown;
  rankFor({ texts, pooling, query: pair[0], passage: pair[1] });
  explain(texts[pair[0]], texts[pair[1]], pooling);
}
