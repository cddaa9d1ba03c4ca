// The Search view: a question goes in, and out come the passages nearest to it, with what carried them.

import { orCancel } from "./api.js";
import { chosen, find, make, say } from "./dom.js";
import { embed, requestBody } from "./embed.js";
import { hitList } from "./hits.js";
import { language, onLanguage, t } from "./language.js";
import { isSecond, retrieve, retrieveRecorded } from "./retrieve.js";
import { NEEDS } from "./scores.js";
import { searched } from "./searched.js";
import { onModel, served } from "./status.js";
import { task } from "./task.js";

const SHADED = 3; // hits that are accounted for by themselves where that takes embedding
const LONGEST = 1000; // characters of a passage that is
const OUTPUTS = ["dense", "sparse", "colbert"];
// In languages that no passage of the example is in.
const QUESTIONS = [
  ["ko", "내일 비가 올까요?"],
  ["it", "Come si prepara il pane?"],
  ["ar", "كيف تتعلم الآلات؟"],
  ["tr", "Tren bileti nereden alınır?"],
  ["hi", "मेरी पीठ में दर्द है"],
];

const work = task("hits", "hits");
const account = task("carried");
let model = null; // what is served
let recorded = null; // {about, queries, corpus} while the recorded example is shown
let found = null; // {query, recorded, kind, hits, corpus, pooling} that are shown
let asked = null; // the question that was asked last
let list = null;
let box = null;

const corpus = () => recorded?.corpus ?? searched.corpus();
const outputs = () => (recorded ? OUTPUTS : (model?.outputs ?? []));

export function startFind() {
  list = hitList(find("hits"), find("hits-more"), (hit) => carry([hit]));
  find("find-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search(find("find-query").value.trim());
  });
  for (const radio of document.querySelectorAll('input[name="find-order"]'))
    radio.addEventListener("change", again);
  find("recorded-open").addEventListener("click", openRecorded);
  find("recorded-close").addEventListener("click", () => show(null));
  onModel((what) => {
    model = what;
    offer();
  });
  onLanguage(() => {
    draw();
    again();
  });
  searched.start({ opened: () => show(null), grown: () => !recorded && again() });
  draw();
}

const again = () => asked && search(asked);

const search = (query) =>
  work(async ({ signal, notice }) => {
    asked = query;
    const now = corpus();
    if (!query) return clear();
    if (!now?.vectors.length) throw new Error(t("find.wait"));
    const { pooling, reranker } = recorded ? {} : await orCancel(served(), signal);
    const kind = chosen("find-order");
    const one = recorded?.queries.find(({ text }) => text === query);
    const hits = recorded
      ? await retrieveRecorded(one, now, { kind, signal })
      : await retrieve(query, now, { kind, pooling, reranker, signal, notice });
    found = { query, recorded: one, kind, hits, corpus: now, pooling };
    list.show({ hits, corpus: now, kind, more: accountFor });
    draw();
    accountFor();
    offerExport();
  });

function clear() {
  found = asked = null;
  list.clear();
  account.stop();
  draw();
}

// How the hits of an order can be accounted for with what the model has.
function way(kind) {
  if (kind === "lexical") return "lexical";
  return outputs().includes("colbert") ? "multi" : outputs().includes("sparse") ? "lexical" : "leaveout";
}

// Shades the hits in view, but of those that have to be embedded for it only the first.
function accountFor() {
  const which = way(found.kind);
  const hits = list.visible();
  const short = ({ index }) => found.corpus.texts[index].length <= LONGEST;
  carry(which === "leaveout" ? hits.slice(0, SHADED).filter(short) : hits);
}

const carry = (hits) =>
  account(async ({ signal, notice }) => {
    const { query, recorded: one, kind, corpus: now, pooling } = found;
    const which = way(kind);
    const options = { pooling, signal, notice };
    const { carriedBy, carriedRecorded, shaded } = await import("./carried.js");
    if (!one && which !== "leaveout") {
      const texts = hits.map(({ index }) => now.texts[index]);
      await embed([query, ...texts], { ...options, outputs: [which === "multi" ? "colbert" : "sparse"] });
    }
    for (const hit of hits) {
      if (which === "leaveout") notice(t("carried.working", { n: hits.indexOf(hit) + 1, of: hits.length }));
      const ranges = one
        ? carriedRecorded(which, one, now.vectors[hit.index])
        : await carriedBy(which, query, now.texts[hit.index], options);
      list.carried(hit, shaded(now.texts[hit.index], ranges));
    }
    notice(null);
  });

const openRecorded = () =>
  work(async ({ signal, notice }) => {
    const { fetchRecorded } = await import("./recorded.js");
    show(await fetchRecorded({ signal, notice }));
    document.querySelector('input[name="find-order"][value="hybrid"]').checked = true;
    search(recorded.queries[0].text);
    find("recorded-close").focus();
  });

// The recorded example in place of one's own texts, or these again.
function show(next) {
  if (recorded || next) find("find-query").value = "";
  recorded = next;
  offer();
  clear();
}

// Orders that cannot be given here are not offered, and sentences say why.
function offer() {
  for (const radio of document.querySelectorAll('input[name="find-order"]')) {
    const needed = NEEDS[radio.value];
    radio.disabled = needed ? !needed.every((output) => outputs().includes(output)) : Boolean(recorded) || !model?.reranker;
    if (radio.disabled && radio.checked) document.querySelector('input[name="find-order"]').checked = true;
  }
  draw();
}

function draw() {
  for (const id of ["find-own", "find-form"]) find(id).hidden = Boolean(recorded);
  find("find-scores").hidden = !found || Boolean(recorded);
  find("recorded").hidden = !recorded;
  if (recorded) say(find("recorded-say"), t("recorded.about", recorded.about));
  const lacking = model && !recorded && !OUTPUTS.every((output) => model.outputs.includes(output));
  find("recorded-open").hidden = !lacking;
  const why = [lacking && t("find.heads"), model && !recorded && !model.reranker && t("find.reranker")];
  say(find("find-why"), why.filter(Boolean).join(t("scores.space")));
  questions();
  say(find("find-found"), found && sentence());
  say(find("find-shade"), found?.hits.length ? t(`carried.${way(found.kind)}`) : null);
  find("find-export").hidden = !found || Boolean(recorded);
  box?.refresh();
}

function sentence() {
  const { kind, hits } = found;
  if (!hits.length) return t("find.noshared");
  return t(isSecond(kind) && !recorded ? "find.second" : "find.found", { n: hits.length });
}

// Questions that may be asked with a click: of an example.
function questions() {
  const own = searched.isExample() ? QUESTIONS : [];
  const offered = recorded ? recorded.queries.map(({ language: code, text }) => [code, text]) : own;
  const names = new Intl.DisplayNames([language()], { type: "language" });
  find("find-try").hidden = !offered.length;
  find("find-questions").replaceChildren(
    ...offered.map(([code, text]) => {
      const ask = () => {
        find("find-query").value = text;
        search(text);
      };
      const pressed = String(found?.query === text);
      return make("button", { lang: code, title: names.of(code), "aria-pressed": pressed, click: ask }, text);
    }),
  );
}

async function offerExport() {
  if (box) return;
  const [{ exportBox }, { hitFiles }] = await Promise.all([import("./export.js"), import("./hitfiles.js")]);
  box ??= exportBox(find("find-export"), () => found && { ...found, body: bodyOf(found) }, hitFiles);
}

// What a program would send for the vectors of the question and of the hits in view.
function bodyOf({ query, kind, corpus: now, pooling }) {
  const texts = list.visible().map(({ index }) => now.texts[index]);
  return requestBody([query, ...texts], pooling, NEEDS[kind] ?? ["dense"]);
}
