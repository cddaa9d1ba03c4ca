// What the Search view searches: opened, cut where it is a document, and embedded piece by piece.

import { orCancel } from "./api.js";
import { corpusOf } from "./corpus.js";
import { parseCsv } from "./csv.js";
import { choices, find, say } from "./dom.js";
import { embed } from "./embed.js";
import { takeFiles } from "./intake.js";
import { onLanguage, t } from "./language.js";
import { onModel, served } from "./status.js";
import { task } from "./task.js";

const MOST = 2000; // passages
const STEP = 32; // passages, after which those that are embedded can be searched
const OTHER = { lines: "document", document: "lines" };

const work = task("find");
let opened = null; // as open.js gives it
let corpus = null; // as corpus.js makes it of that
let digest = null; // of the model that its vectors are of
let hooks = null;

export const searched = {
  // `opened` is called with every other corpus, `grown` when there are more vectors of it to search.
  start(given) {
    hooks = given;
    takeFiles(find("find"), find("find-drop"), find("find-file"), openFile);
    find("find-example").addEventListener("click", example);
    find("find-resume").addEventListener("click", () => start(fill));
    find("find-column").addEventListener("change", () => load(() => opened, { column: Number(find("find-column").value) }));
    find("find-other").addEventListener("click", () => load(() => opened, { way: OTHER[corpus.way] }));
    find("find-paste").addEventListener("click", () => unfold(find("paste-form").hidden));
    find("paste-form").addEventListener("submit", (event) => {
      event.preventDefault();
      paste(find("paste-text").value);
    });
    addEventListener("paste", (event) => {
      const elsewhere = find("find").hidden || event.target.closest?.("input, textarea");
      const text = event.clipboardData.getData("text/plain");
      if (!elsewhere && text.trim()) paste(text);
    });
    onModel((what) => {
      const other = digest && digest !== what.digest;
      digest = what.digest;
      if (!other || !corpus) return;
      corpus.vectors = [];
      start(fill);
    });
    onLanguage(draw);
    return example();
  },
  corpus: () => corpus,
  isExample: () => opened?.label === "find.example",
};

function unfold(open) {
  find("paste-form").hidden = !open;
  find("find-paste").setAttribute("aria-expanded", String(open));
  if (open) find("paste-text").focus();
}

function paste(text) {
  unfold(false);
  load(async () => (await import("./open.js")).openPasted(text));
}

const openFile = (file, others) => load(async () => (await import("./open.js")).openFile(file, MOST, others));

const example = () =>
  load(async () => {
    const answer = await fetch(new URL("example.csv", import.meta.url));
    return { label: "find.example", notes: [], table: parseCsv(await answer.text()) };
  });

async function start(act) {
  await work(act);
  draw();
  hooks.grown();
}

const load = (open, settings = {}) =>
  start(async (options) => {
    const next = await open();
    options.signal.throwIfAborted();
    const made = await corpusOf(next, { most: MOST, ...settings, ...options });
    [opened, corpus] = [next, made];
    hooks.opened();
    draw();
    await fill(options);
  });

// Embeds what is not embedded yet; what is, stays when it is cancelled.
async function fill({ signal, notice, progress }) {
  const now = corpus;
  const of = now.texts.length;
  const { outputs, pooling } = await orCancel(served(), signal);
  const kinds = outputs.filter((output) => output !== "colbert");
  while (now.vectors.length < of) {
    const done = now.vectors.length;
    progress(done, of);
    if (of > STEP) notice(t("find.embedding", { done, of }));
    const texts = now.texts.slice(done, done + STEP);
    now.vectors.push(...(await embed(texts, { pooling, outputs: kinds, priority: "bulk", signal, notice })));
  }
  notice(null);
}

function draw() {
  if (!corpus) return;
  const { texts, total, vectors, way } = corpus;
  const name = opened.label ? t(opened.label) : opened.name;
  say(find("find-about"), t(texts.length === 1 ? "find.about.one" : "find.about", { name, n: texts.length }));
  const part = vectors.length < texts.length;
  const busy = !find("find-cancel").hidden;
  const cut = vectors.filter((vector) => vector.cut).length;
  const notes = [
    total > texts.length && t("find.many", { most: texts.length, n: total }),
    ...opened.notes.map(([key, values]) => t(key, values)),
    cut && t("find.cut", { cut }),
    part && !busy && t("find.part", { done: vectors.length, of: texts.length }),
  ];
  say(find("find-notes"), notes.filter(Boolean).join(t("scores.space")));
  find("find-resume").hidden = !part || busy;
  find("find-other").hidden = !way;
  if (way) find("find-other").textContent = t(`read.as.${OTHER[way]}`);
  const table = searched.isExample() ? null : opened.table;
  find("find-column-field").hidden = !table;
  if (!table) return;
  const names = (table.texts ?? [...table.columns.keys()]).map((at) => [at, table.columns[at] || t("find.column.n", { n: at + 1 })]);
  choices(find("find-column"), names);
  find("find-column").value = corpus.column;
}
