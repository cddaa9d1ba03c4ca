// Tokens shaded by what they count for: lexical weights, and the best matches of multi-vectors.

import { make, style } from "./dom.js";
import { t } from "./language.js";
import { bestMatches, mean, sharedTokens } from "./scores.js";

const DEEPEST = 0.5; // of the shade, so that the text on it stays easy to read

export function shade(element, share, name = "--accent") {
  const percent = (100 * DEEPEST * Math.min(1, Math.max(0, share))).toFixed(1);
  return style(element, { "background-color": `color-mix(in srgb, var(${name}) ${percent}%, transparent)` });
}

// A text as a row of tokens, each an element that `dress` may change.
export function row(label, tokens, dress) {
  const pieces = tokens.flatMap((token, index) => {
    const element = dress(token, index);
    return token.space && index ? [" ", element] : [element];
  });
  return make("div", { class: "tokens" }, make("span", { class: "which" }, label), make("p", {}, ...pieces));
}

export function part(title, sentence, ...content) {
  return make("section", { class: "part" }, make("h3", {}, title), make("p", { class: "hint" }, sentence), ...content);
}

export function lexicalPart(a, b, mine, others) {
  const shared = sharedTokens(a, b).sort((one, two) => two.product - one.product);
  const both = new Set(shared.map(({ id }) => id));
  const heaviest = Math.max(...a.values, ...b.values, 1e-9);
  const words = (weights) => {
    const weight = new Map(weights.indices.map((id, index) => [id, weights.values[index]]));
    return (token) => {
      const value = weight.get(token.id) ?? 0;
      const marked = both.has(token.id) && !token.special;
      const element = make(marked ? "mark" : "span", { class: "token", title: `${token.text} ${value.toFixed(4)}` }, token.text);
      return shade(element, token.special ? 0 : value / heaviest);
    };
  };
  const name = new Map([...mine, ...others].map(({ id, text }) => [id, text]));
  const total = shared.reduce((sum, { product }) => sum + product, 0);
  const rows = shared.map(({ id, mine: one, other, product }) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, name.get(id) ?? String(id)),
      ...[one, other, product].map((value) => make("td", {}, value.toFixed(4))),
      make("td", {}, `${((100 * product) / total).toFixed(0)} %`),
    ),
  );
  const heads = ["lexical.token", "rank.query", "lexical.passage", "lexical.product", "lexical.share"];
  const table = make(
    "table",
    { class: "numbers" },
    make("caption", {}, t("lexical.sum", { total: total.toFixed(4) })),
    make("thead", {}, make("tr", {}, ...heads.map((key) => make("th", { scope: "col" }, t(key))))),
    make("tbody", {}, ...rows),
  );
  return part(
    t("lexical.title"),
    t("lexical.hint"),
    row(t("query"), mine, words(a)),
    row(t("passage"), others, words(b)),
    shared.length ? table : make("p", {}, t("lexical.none")),
  );
}

// The first token has no vector of its own: the row of matrix index i is token i + 1.
export function multiVectorPart(query, passage, mine, others) {
  const matches = bestMatches(query, passage);
  const values = matches.map(({ value }) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const targets = others.slice(1).map((token) => ({ token, element: make("span", { class: "token" }, token.text) }));
  const read = make("p", { class: "match", "aria-live": "polite" }, t("multi.choose"));

  const asking = row(t("query"), mine.slice(1), (token, index) => {
    const { best, value } = matches[index];
    const name = t("multi.match", { token: token.text, match: targets[best]?.token.text ?? "", value: value.toFixed(4) });
    const button = make("button", { class: "token", "aria-label": name }, token.text);
    const light = () => {
      for (const { element } of targets) element.classList.remove("lit");
      targets[best]?.element.classList.add("lit");
      read.textContent = name;
    };
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, light);
    return shade(button, high > low ? (value - low) / (high - low) : 1);
  });
  const answering = row(t("passage"), others.slice(1), (token, index) => targets[index].element);
  const title = t("multi.title");
  return part(title, t("multi.hint", { score: mean(values).toFixed(4), low: low.toFixed(2), high: high.toFixed(2) }), asking, answering, read);
}

