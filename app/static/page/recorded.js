// The recorded example: queries and passages with all their vectors, made once with another model than the one served.

import { ask } from "./api.js";

// {about, queries, corpus}: a corpus as corpus.js makes it, whose vectors and queries' are there already.
export async function fetchRecorded(options) {
  const { about, queries, passages } = await (await ask(new URL("recorded/example.json", import.meta.url).href, options)).json();
  const vectors = passages.map(vectorOf);
  return {
    about,
    queries: queries.map(vectorOf),
    corpus: {
      texts: vectors.map(({ text }) => text),
      places: vectors.map((_, index) => ({ unit: "find.passage", number: index + 1 })),
      columns: [{ name: "language", values: passages.map(({ language }) => language) }],
      vectors,
    },
  };
}

function vectorOf({ text, language, tokens, dense, sparse, colbert }) {
  const { shape, scale, data } = colbert;
  const rows = Float32Array.from(new Int8Array(bytes(data).buffer), (value) => value * scale);
  return { text, language, tokens, dense: new Float32Array(bytes(dense).buffer), sparse, colbert: { rows, count: shape[0] } };
}

const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
