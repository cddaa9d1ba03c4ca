// The hits of a search: rank, passage, where it stands, scores, and what carried it once that is known.

import { make } from "./dom.js";
import { t } from "./language.js";

const AT_ONCE = 10; // hits; as many again for each "show more"
const LONG = 600; // characters of a passage, after which it is shown whole at a click

// `carry(hit)` is asked for what carried one. What it returns shows the hits of a corpus in an order.
export function hitList(root, more, carry) {
  let [shown, count] = [null, AT_ONCE];

  function draw() {
    const { hits, corpus } = shown;
    const before = root.children.length;
    for (const hit of hits.slice(before, count)) root.append(item(hit, root.children.length + 1, corpus, shown.kind, carry));
    more.hidden = hits.length <= count;
    more.textContent = t("find.more", { n: Math.min(AT_ONCE, hits.length - count) });
  }

  more.addEventListener("click", () => {
    const first = count;
    count += AT_ONCE;
    draw();
    shown.more?.();
    root.children[first]?.focus();
  });

  return {
    clear() {
      shown = null;
      root.replaceChildren();
      more.hidden = true;
    },
    // {hits, corpus, kind, more}: `more` is called when further hits have come into view
    show(next) {
      [shown, count] = [next, AT_ONCE];
      root.replaceChildren();
      draw();
    },
    visible: () => (shown ? shown.hits.slice(0, count) : []),
    // Shows the passage of a hit as these nodes.
    carried(hit, nodes) {
      const element = root.children[shown?.hits.indexOf(hit)];
      element?.querySelector(".passage").replaceChildren(...nodes);
      element?.querySelector(".carry")?.remove();
    },
  };
}

function item(hit, rank, corpus, kind, carry) {
  const text = corpus.texts[hit.index];
  const passage = make("p", { class: "passage", dir: "auto" }, text);
  const buttons = [make("button", { class: "plain carry", click: () => carry(hit) }, t("find.carry"))];
  if (text.length > LONG) {
    passage.classList.add("folded");
    const unfold = make("button", { class: "plain", "aria-expanded": "false" }, t("find.whole"));
    unfold.addEventListener("click", () => {
      const folded = passage.classList.toggle("folded");
      unfold.setAttribute("aria-expanded", String(!folded));
      unfold.textContent = t(folded ? "find.whole" : "find.fold");
    });
    buttons.unshift(unfold);
  }
  const { unit, number } = corpus.places[hit.index];
  const about = corpus.columns.map(({ name, values }) => [name, values[hit.index]]).filter(([, value]) => value);
  return make(
    "li",
    { tabindex: "-1", "data-index": hit.index },
    make("span", { class: "rank-number", "aria-hidden": "true" }, String(rank)),
    make("p", { class: "scores" }, ...scores(hit, kind)),
    passage,
    make("p", { class: "about" }, make("span", {}, t(unit, { n: number })), ...about.map(([name, value]) => make("span", {}, `${name}: ${value}`))),
    make("p", { class: "actions" }, ...buttons),
  );
}

// The one that ranks first and larger, the others beside it.
function scores({ scores: found }, kind) {
  const kinds = [kind, ...["dense", "lexical", "multi", "hybrid", "cross"].filter((other) => other !== kind && other in found)];
  return kinds.map((one) =>
    make("span", { class: one === kind ? "first-score" : null, "data-kind": one }, `${t(`score.${one}`)} `, make("b", {}, written(found[one], one))),
  );
}

export const written = (value, kind) => value.toFixed(kind === "cross" ? 2 : 4).replace("-", "−");
