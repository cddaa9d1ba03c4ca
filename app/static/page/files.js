// Vectors as files: JSON as /api/embed writes it, or a table.

import { csvLine } from "./csv.js";

// The shortest decimal that is this float32 again.
function number(value) {
  for (let digits = 6; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(text) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}

const list = (values) => `[${Array.from(values, number).join(",")}]`;

// In pieces, because a string of a browser has a largest size and multi-vectors are large.
export function vectorsAsJson({ model, pooling, texts, vectors }) {
  const pieces = [`{"model":${JSON.stringify(model)},"pooling":"${pooling}","input":${JSON.stringify(texts)}`];
  const add = (name, items) => pieces.push(`,"${name}":[`, ...items.flatMap((item, index) => (index ? [",", item] : [item])), "]");
  if (vectors[0].dense) add("embeddings", vectors.map(({ dense }) => list(dense)));
  if (vectors[0].sparse)
    add("sparse", vectors.map(({ sparse }) => `{"indices":${JSON.stringify(sparse.indices)},"values":${list(sparse.values)}}`));
  if (vectors[0].colbert)
    add(
      "colbert_vecs",
      vectors.map(({ colbert: { rows, count } }) => {
        const width = rows.length / count;
        return `[${Array.from({ length: count }, (_, at) => list(rows.subarray(at * width, (at + 1) * width))).join(",")}]`;
      }),
    );
  return new Blob([...pieces, "}\n"], { type: "application/json" });
}

// A row for each text; where the texts have no dense vectors, one for each token's weight or vector.
export function vectorsAsCsv({ texts, vectors }) {
  const [first] = vectors;
  const columns = (width) => Array.from({ length: width }, (_, k) => `v${k}`);
  const rows = [];
  if (first.dense) {
    rows.push(csvLine(["text", ...columns(first.dense.length)]));
    vectors.forEach(({ dense }, index) => rows.push(csvLine([texts[index], ...Array.from(dense, number)])));
  } else if (first.sparse) {
    rows.push(csvLine(["text", "token", "weight"]));
    vectors.forEach(({ sparse }, index) =>
      sparse.indices.forEach((id, k) => rows.push(csvLine([texts[index], id, number(sparse.values[k])]))),
    );
  } else {
    const width = first.colbert.rows.length / first.colbert.count;
    rows.push(csvLine(["text", "token", ...columns(width)]));
    vectors.forEach(({ colbert: { rows: all, count } }, index) => {
      for (let at = 0; at < count; at++)
        rows.push(csvLine([texts[index], at + 1, ...Array.from(all.subarray(at * width, (at + 1) * width), number)]));
    });
  }
  return new Blob(rows, { type: "text/csv" });
}
