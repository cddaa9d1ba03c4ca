// Many texts as points in a plane: near ones mean something alike.

import { orCancel } from "./api.js";
import { choices, chosen, find, make, say, short, style } from "./dom.js";
import { byClusters, byColumn, grouping } from "./coloring.js";
import { embed, leftOut, requestBody } from "./embed.js";
import { exportBox } from "./export.js";
import { takeTexts } from "./intake.js";
import { run } from "./jobs.js";
import { language, onLanguage, t } from "./language.js";
import { mapPicture } from "./mappicture.js";
import { scatter } from "./scatter.js";
import { startSearch } from "./search.js";
import { selectionTable } from "./selection.js";
import { source } from "./source.js";
import { served } from "./status.js";
import { task } from "./task.js";

const MOST = 2000; // texts

let shown = null; // {texts, places, vectors, rows, pooling, points, shares, clusters, columns, entries, lit, selected}
const work = task("map");
let plot = null;
let take = null;
let table = null; // of what is selected
let clear = null; // what a search has found
let opened = false;
let opening = false; // a file, whose columns nobody has chosen from yet

export function startMap() {
  plot = scatter(find("plot"), {
    describe: (index) => {
      const text = [shown.places?.[index], short(shown.texts[index], 160)].filter(Boolean).join(" – ");
      return t("map.point", { text, group: shown.names[index] });
    },
    select,
    framing: () => find("select-drag").getAttribute("aria-pressed") === "true",
  });
  for (const way of ["in", "out", "reset"]) find(`zoom-${way}`).addEventListener("click", () => shown && plot.zoom[way]());
  find("select-drag").addEventListener("click", ({ currentTarget: button }) => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    find("plot").classList.toggle("framing", on);
  });
  table = selectionTable({ shown: () => shown, clear: () => select([]) });
  find("map-form").addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  find("map-example").addEventListener("click", example);
  takeTexts(find("points"), find("points-file"), async (file) => {
    source.read(file.name, await file.text());
    opening = true;
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
  onLanguage(() => {
    paint();
    regroup();
  });
}

// The example is drawn when the map is looked at first.
export function openMap() {
  if (!opened) example();
  opened = true;
}

async function example() {
  const answer = await fetch(new URL("example.csv", import.meta.url));
  source.read("example.csv", await answer.text());
  opening = true;
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
    const [{ points, shares }, clusters] = await Promise.all([run("components", { rows, n }, { signal }), grouped(rows, texts, signal)]);
    shown = { texts, vectors, rows, pooling, points, shares, clusters, columns: given.columns, places: given.places, lit: [], selected: [] };
    if (opening) colorFirst();
    clear();
    table.show();
    notice(leftOut(given.texts.length, MOST, vectors, maxTokens));
  });

function grouped(rows, texts, signal) {
  const k = Math.min(texts.length, 9, Math.max(1, Number(find("clusters").value) || 6));
  return run("clusters", { rows, texts, k, language: language() }, { signal });
}

// By a column that sorts the texts of a new file, where it has one.
function colorFirst() {
  opening = false;
  const column = grouping(shown.columns);
  offerColumns();
  find("color-by").value = column < 0 ? "cluster" : column;
}

async function regroup() {
  if (!shown) return;
  const { rows, texts } = shown;
  const clusters = await grouped(rows, texts);
  if (shown.rows !== rows) return; // other texts meanwhile
  shown.clusters = clusters;
  paint();
}

function select(indices) {
  if (!shown) return;
  shown.selected = indices;
  paint();
  table.show();
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
  Object.assign(shown, column ? byColumn(column.values.slice(0, MOST)) : byClusters(shown.clusters, shown.texts));
  const percent = (share) => (100 * share).toFixed(0);
  const summary = t("map.summary", {
    n: shown.texts.length,
    width: shown.vectors[0].dense.length,
    x: percent(shown.shares[0]),
    y: percent(shown.shares[1]),
  });
  say(find("map-summary"), summary);
  plot.show({ ...shown, label: t("map.label", { n: shown.texts.length }) });
  const focused = document.activeElement.closest("#groups button")?.dataset.name;
  find("groups").replaceChildren(...shown.entries.map(entry));
  if (focused) [...document.querySelectorAll("#groups button")].find(({ dataset }) => dataset.name === focused)?.focus();
  take.refresh();
}

// A button, which selects the texts of its group; a point of a scale has none.
function entry({ color, name, about, members }) {
  const swatch = style(make("span", { class: "swatch" }), { "background-color": color });
  if (!members) return make("li", {}, swatch, name);
  const { selected } = shown;
  const pressed = selected.length === members.length && members.every((index, at) => index === selected[at]);
  const attributes = { "aria-pressed": String(pressed), "data-name": name, click: () => select(pressed ? [] : members) };
  const button = make("button", attributes, swatch, name, make("span", { class: "count" }, ` ${members.length}`));
  return make("li", {}, button, make("span", { class: "hint" }, about ? ` ${about}` : ""));
}
