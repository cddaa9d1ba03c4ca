// How near two texts are, as FlagEmbedding defines it; /api/score gives the same numbers.

export const WEIGHTS = { dense: 0.4, sparse: 0.2, colbert: 0.4 }; // of a hybrid score, by default

// What each kind of score needs of a text.
export const NEEDS = {
  dense: ["dense"],
  lexical: ["sparse"],
  multi: ["colbert"],
  hybrid: ["dense", "sparse", "colbert"],
};

// Of vectors of length 1 the cosine.
export function dot(a, b) {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += a[k] * b[k];
  return sum;
}

// Tokens of both texts, with the product of their weights; ids ascend.
export function sharedTokens(a, b) {
  const found = [];
  for (let i = 0, j = 0; i < a.indices.length && j < b.indices.length; ) {
    if (a.indices[i] < b.indices[j]) i++;
    else if (a.indices[i] > b.indices[j]) j++;
    else {
      const [mine, other] = [a.values[i++], b.values[j]];
      found.push({ id: b.indices[j++], mine, other, product: mine * other });
    }
  }
  return found;
}

export const lexicalScore = (a, b) => sharedTokens(a, b).reduce((sum, { product }) => sum + product, 0);

// For each token vector of the query its best match in the passage: index and inner product.
export function bestMatches(query, passage) {
  const width = query.rows.length / query.count;
  return Array.from({ length: query.count }, (_, q) => {
    let [best, value] = [-1, -Infinity];
    for (let p = 0; p < passage.count; p++) {
      let sum = 0;
      for (let k = 0; k < width; k++) sum += query.rows[q * width + k] * passage.rows[p * width + k];
      if (sum > value) [best, value] = [p, sum];
    }
    return { best, value };
  });
}

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

const multiVectorScore = (query, passage) => mean(bestMatches(query, passage).map(({ value }) => value));

const hybridScore = ({ dense, sparse, colbert }) =>
  WEIGHTS.dense * dense + WEIGHTS.sparse * sparse + WEIGHTS.colbert * colbert;

// Every score of a pair that both texts have what it takes for.
export function pairScores(query, passage) {
  const found = {};
  if (query.dense) found.dense = dot(query.dense, passage.dense);
  if (query.sparse) found.sparse = lexicalScore(query.sparse, passage.sparse);
  if (query.colbert) found.colbert = multiVectorScore(query.colbert, passage.colbert);
  if (Object.keys(found).length === 3) found.hybrid = hybridScore(found);
  return found;
}

const OF_PAIR = {
  dense: (a, b) => dot(a.dense, b.dense),
  lexical: (a, b) => lexicalScore(a.sparse, b.sparse),
  multi: (a, b) => multiVectorScore(a.colbert, b.colbert),
  hybrid: (a, b) => pairScores(a, b).hybrid,
};

// n texts to n x n scores; rows are queries, columns passages.
export function scoreMatrix(kind, texts, progress = () => {}) {
  const n = texts.length;
  const scores = new Float32Array(n * n);
  const symmetric = kind === "dense" || kind === "lexical";
  for (let i = 0; i < n; i++) {
    for (let j = symmetric ? i : 0; j < n; j++) {
      scores[i * n + j] = OF_PAIR[kind](texts[i], texts[j]);
      if (symmetric) scores[j * n + i] = scores[i * n + j];
    }
    progress(i + 1, n);
  }
  return scores;
}
