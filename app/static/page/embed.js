// Texts to vectors by /api/embed, in batches; what is known already is not asked for again.

import { ask } from "./api.js";
import { t } from "./language.js";
import { onModel } from "./status.js";

const BATCH = 32; // texts; small enough that progress moves and a cancel is soon felt
const BATCH_CHARACTERS = 20_000;
const MOST_KNOWN = 20_000; // texts, after which all is forgotten
const MOST_NUMBERS = 50_000_000; // of multi-vectors, after which these are: 200 MB

const FIELDS = { sparse: "return_sparse", colbert: "return_colbert_vecs" };
// Kind -> text -> what the model makes of it. Only dense vectors depend on the pooling.
const known = { mean: new Map(), cls: new Map(), sparse: new Map(), colbert: new Map() };
const truncated = new Set();
let limit = BATCH; // the server's
let numbers = 0; // of the multi-vectors that are known

onModel(({ mostTexts }) => {
  limit = mostTexts;
  forget();
});

function forget() {
  for (const map of Object.values(known)) map.clear();
  truncated.clear();
  numbers = 0;
}

// Of each text: dense (Float32Array), sparse ({indices, values}), colbert ({rows, count}), as `outputs` asks;
// and whether it was cut. `progress` is told how many are done, known ones too; `priority` is the request's own.
export async function embed(texts, { pooling, outputs = ["dense"], priority, signal, notice, progress = () => {} }) {
  const kinds = outputs.map((output) => (output === "dense" ? pooling : output));
  if (known[kinds[0]].size > MOST_KNOWN || numbers > MOST_NUMBERS) forget();
  const missing = [...new Set(texts)].filter((text) => kinds.some((kind) => !known[kind].has(text)));
  let done = texts.length - missing.length;
  for (const batch of batches(missing, limit)) {
    progress(done, texts.length);
    await request(batch, { pooling, outputs, priority, signal, notice });
    done += batch.length;
  }
  progress(done, texts.length);
  return texts.map((text) => ({
    ...Object.fromEntries(outputs.map((output, index) => [output, known[kinds[index]].get(text)])),
    cut: truncated.has(text),
  }));
}

// What is missing from a result, in words, "" if nothing: texts beyond the first `most` of those `given`,
// and what was cut off at `maxTokens`.
export function leftOut(given, most, vectors, maxTokens) {
  const cut = vectors.filter((vector) => vector.cut).length;
  const said = [given > most && t("compare.many", { most, n: given }), cut && t("texts.cut", { cut, most: maxTokens })];
  return said.filter(Boolean).join(" ");
}

// At most so many texts in each, and not too much to read.
export function* batches(texts, most) {
  let batch = [];
  let characters = 0;
  for (const text of texts) {
    if (batch.length && (batch.length >= Math.min(BATCH, most) || characters + text.length > BATCH_CHARACTERS)) {
      yield batch;
      [batch, characters] = [[], 0];
    }
    batch.push(text);
    characters += text.length;
  }
  if (batch.length) yield batch;
}

// The request as everybody else would send it; base64 because it is a fifth of the bytes.
export function requestBody(texts, pooling, outputs) {
  const body = { input: texts, pooling };
  if (!outputs.includes("dense")) body.return_dense = false;
  for (const [output, field] of Object.entries(FIELDS)) if (outputs.includes(output)) body[field] = true;
  return body;
}

async function request(texts, options) {
  const { pooling, outputs, priority, signal, notice } = options;
  const body = { ...requestBody(texts, pooling, outputs), priority, encoding_format: "base64" };
  let answer;
  try {
    answer = await (await refused(texts[0], ask("api/embed", { body, signal, notice }))).json();
  } catch (error) {
    // Too much for one request, or one text among them is refused: halves find out which.
    if (![413, 422].includes(error.status) || texts.length === 1) throw error;
    const middle = texts.length >> 1;
    await request(texts.slice(0, middle), options);
    await request(texts.slice(middle), options);
    return;
  }
  texts.forEach((text, index) => {
    if (outputs.includes("dense")) known[pooling].set(text, floats(answer.embeddings[index]));
    if (outputs.includes("sparse")) known.sparse.set(text, answer.sparse[index]);
    if (outputs.includes("colbert")) {
      const { shape, data } = answer.colbert_vecs[index];
      known.colbert.set(text, { rows: floats(data), count: shape[0] });
      numbers += shape[0] * shape[1];
    }
  });
  for (const index of answer.truncated ?? []) truncated.add(texts[index]);
}

// What is asked about one text: a refusal says which.
export async function refused(text, asking) {
  try {
    return await asking;
  } catch (error) {
    if ([413, 422].includes(error.status))
      error.message = t("error.text", { text: [...text.slice(0, 60)].slice(0, 30).join(""), said: error.message });
    throw error;
  }
}

// Base64 of little-endian float32 to numbers.
function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
