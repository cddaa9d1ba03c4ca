// Hits as files: a table, or JSON with the question.

import { csvLine } from "./csv.js";
import { save } from "./dom.js";
import { t } from "./language.js";

// Buttons for the export, as {label, act}.
export const hitFiles = () => [
  { label: t("export.hits.csv"), act: (found) => save("hits.csv", hitsAsCsv(found), "text/csv") },
  { label: t("export.hits.json"), act: (found) => save("hits.json", hitsAsJson(found), "application/json") },
];

const kindsOf = (hits) => ["dense", "lexical", "multi", "hybrid", "cross"].filter((kind) => hits[0] && kind in hits[0].scores);

function hitsAsCsv({ hits, corpus }) {
  const kinds = kindsOf(hits);
  const head = csvLine(["rank", "number", ...kinds, "text", ...corpus.columns.map(({ name }) => name)]);
  const rows = hits.map(({ index, scores }, place) =>
    csvLine([
      place + 1,
      corpus.places[index].number,
      ...kinds.map((kind) => scores[kind]),
      corpus.texts[index],
      ...corpus.columns.map(({ values }) => values[index]),
    ]),
  );
  return [head, ...rows].join("");
}

function hitsAsJson({ query, kind, hits, corpus, model, pooling }) {
  const kinds = kindsOf(hits);
  const items = hits.map(({ index, scores }, place) => ({
    rank: place + 1,
    number: corpus.places[index].number,
    scores: Object.fromEntries(kinds.map((one) => [one, scores[one]])),
    text: corpus.texts[index],
    columns: Object.fromEntries(corpus.columns.map(({ name, values }) => [name, values[index]])),
  }));
  return JSON.stringify({ query, model, pooling, order: kind, hits: items }, null, 2);
}
