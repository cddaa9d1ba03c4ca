// Many texts as points in a plane: near ones mean something alike.

import { orCancel } from "./api.js";
import { choices, chosen, find, make, say, short, style } from "./dom.js";
import { byClusters, byColumn } from "./coloring.js";
import { embed, leftOut, requestBody } from "./embed.js";
import { exportBox } from "./export.js";
import { takeTexts } from "./intake.js";
import { run } from "./jobs.js";
import { onLanguage, t } from "./language.js";
import { mapPicture } from "./mappicture.js";
import { scatter } from "./scatter.js";
import { startSearch } from "./search.js";
import { source } from "./source.js";
import { served } from "./status.js";
import { task } from "./task.js";

const MOST = 2000; // texts

let shown = null; // {texts, places, vectors, rows, pooling, points, shares, grouping, columns, lit}
const work = task("map");
let plot = null;
let take = null;
let clear = null; // what a search has found
let opened = false;

export function startMap() {
  plot = scatter(find("plot"), (index) => {
    const text = [shown.places?.[index], short(shown.texts[index], 160)].filter(Boolean).join(" – ");
    return t("map.point", { text, group: shown.names[index] });
  });
  find("map-form").addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  find("map-example").addEventListener("click", example);
  takeTexts(find("points"), find("points-file"), async (file) => {
    source.read(file.name, await file.text());
    draw();
  });
  source.start(draw);
  for (const radio of document.querySelectorAll('input[name="map-pooling"]')) radio.addEventListener("change", draw);
  find("color-by").addEventListener("change", paint);
  find("clusters").addEventListener("change", regroup);
  clear = startSearch({
    shown: () => shown,
    light: (indices) => {
      shown.lit = indices;
      paint();
    },
    point: (index) => plot.go(index),
  });
  take = exportBox(
    find("map-export"),
    () => shown && { ...shown, body: requestBody(shown.texts, shown.pooling, ["dense"]), picture: () => mapPicture(shown) },
  );
  onLanguage(paint);
}

// The example is drawn when the map is looked at first.
export function openMap() {
  if (!opened) example();
  opened = true;
}

async function example() {
  const answer = await fetch(new URL("example.csv", import.meta.url));
  source.read("example.csv", await answer.text());
  draw();
}

const draw = () =>
  work(async ({ signal, notice, progress: bar }) => {
    const given = await source.texts({ signal, notice });
    const texts = given.texts.slice(0, MOST);
    const progress = (done, of) => {
      bar(done, of);
      if (done < of) notice(t("map.embedding", { done, of }));
    };
    if (texts.length < 3) throw new Error(t("map.few"));
    const { maxTokens } = await orCancel(served(), signal);
    const pooling = chosen("map-pooling");
    const vectors = await embed(texts, { pooling, priority: "bulk", signal, notice, progress });
    notice(t("map.computing"));
    const rows = joined(vectors.map(({ dense }) => dense));
    const n = texts.length;
    const k = clusterCount(n);
    const [{ points, shares }, grouping] = await Promise.all([
      run("components", { rows, n }, { signal }),
      run("clusters", { rows, n, k }, { signal }),
    ]);
    shown = { texts, vectors, rows, pooling, points, shares, grouping, columns: given.columns, places: given.places };
    clear();
    notice(leftOut(given.texts.length, MOST, vectors, maxTokens));
  });

const clusterCount = (n) => Math.min(n, 9, Math.max(1, Number(find("clusters").value) || 6));

async function regroup() {
  if (!shown) return;
  const { rows, texts } = shown;
  const grouping = await run("clusters", { rows, n: texts.length, k: clusterCount(texts.length) });
  if (shown.rows !== rows) return; // other texts meanwhile
  shown.grouping = grouping;
  paint();
}

function joined(vectors) {
  const width = vectors[0].length;
  const rows = new Float32Array(vectors.length * width);
  vectors.forEach((vector, index) => rows.set(vector, index * width));
  return rows;
}

function offerColumns() {
  const columns = shown.columns.map(({ name }, index) => [index, name]);
  choices(find("color-by"), [["cluster", t("map.bycluster")], ...columns]);
}

function paint() {
  if (!shown) return;
  offerColumns();
  const column = shown.columns[find("color-by").value];
  Object.assign(shown, column ? byColumn(column.values.slice(0, MOST)) : byClusters(shown.grouping));
  const percent = (share) => (100 * share).toFixed(0);
  const summary = t("map.summary", {
    n: shown.texts.length,
    width: shown.vectors[0].dense.length,
    x: percent(shown.shares[0]),
    y: percent(shown.shares[1]),
  });
  say(find("map-summary"), summary);
  plot.show({ ...shown, label: t("map.label", { n: shown.texts.length }) });
  find("groups").replaceChildren(...shown.entries.map(entry));
  take.refresh();
}

function entry({ color, name, size, central }) {
  const swatch = style(make("span", { class: "swatch" }), { "background-color": color });
  const count = size === undefined ? [] : [make("span", { class: "count" }, ` ${size}`)];
  const about = central === undefined ? [] : [make("span", { class: "hint" }, ` ${short(shown.texts[central], 60)}`)];
  return make("li", {}, swatch, name, ...count, ...about);
}
