// Orders of the same texts side by side, lines between them, and at each text how far it moved.

import { along, make, short, style } from "./dom.js";
import { t } from "./language.js";

const SVG = "http://www.w3.org/2000/svg";

// The keys of a Map of scores, the best first.
export const ranked = (scores) => [...scores.keys()].sort((a, b) => scores.get(b) - scores.get(a) || a - b);

// `choose(index)` is told which text was clicked.
export function columns(root, choose) {
  const row = (event) => event.target.closest("button[data-text]");
  const light = (text) => {
    for (const element of root.querySelectorAll("[data-text]")) element.classList.toggle("lit", element.dataset.text === text);
  };
  const mark = (index) => {
    for (const button of root.querySelectorAll("button")) button.setAttribute("aria-current", button.dataset.text === String(index));
  };
  root.addEventListener("click", (event) => row(event) && choose(Number(row(event).dataset.text)));
  for (const event of ["pointerover", "focusin"]) root.addEventListener(event, (event) => light(row(event)?.dataset.text));
  for (const event of ["pointerleave", "focusout"]) root.addEventListener(event, () => light());
  root.addEventListener("keydown", (event) => {
    const order = event.target.closest("ol");
    if (order) along([...order.querySelectorAll("button")], event);
  });

  return {
    mark,
    // orders: {kind, name, scores}, where scores is null as long as they are waited for; `chosen` is the text to mark
    show(texts, orders, chosen) {
      const focused = root.contains(document.activeElement) && document.activeElement;
      const kind = focused && focused.closest("section")?.dataset.order;
      const places = orders.map(({ scores }) => scores && ranked(scores));
      root.replaceChildren(
        ...orders.flatMap((order, number) => {
          const [before, after] = [places[number - 1], places[number]];
          const made = column(texts, order, before, after);
          return before ? [after ? lines(before, after) : make("span"), made] : [made];
        }),
      );
      mark(chosen);
      if (kind) root.querySelector(`[data-order="${kind}"] [data-text="${focused.dataset.text}"]`)?.focus();
    },
  };
}

function column(texts, { kind, name, scores }, before, after) {
  const title = t(`score.${kind}`);
  const head = make("h3", {}, title, " ", make("small", {}, name ?? ""));
  if (!after) return make("section", { "data-order": kind }, head);
  const rows = after.map((index, place) =>
    make(
      "li",
      {},
      make(
        "button",
        { tabindex: place ? "-1" : "0", "data-text": index, title: texts[index] },
        make("span", { class: "place" }, String(place + 1)),
        " ",
        make("span", { class: "text" }, short(texts[index], 160)),
        " ",
        ...(before ? [move(before.indexOf(index) - place), " "] : []),
        make("span", { class: "value" }, scores.get(index).toFixed(kind === "cross" ? 2 : 4).replace("-", "−")),
      ),
    ),
  );
  return make("section", { "data-order": kind }, head, make("ol", { role: "list", "aria-label": title }, ...rows));
}

const direction = (up) => (up > 0 ? "up" : up < 0 ? "down" : "same");

// "▲ 3", which a screen reader is told in words.
function move(up) {
  const sign = { up: `▲ ${up}`, down: `▼ ${-up}`, same: "=" }[direction(up)];
  const words = t(`rank.${direction(up)}`, { n: Math.abs(up) });
  const seen = make("span", { "aria-hidden": "true" }, sign);
  return make("span", { class: `move ${direction(up)}` }, seen, make("span", { class: "unseen" }, words));
}

function lines(before, after) {
  const picture = svg("svg", { viewBox: `0 0 1 ${after.length}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  after.forEach((index, place) => {
    const [from, to] = [before.indexOf(index) + 0.5, place + 0.5];
    picture.append(svg("path", { d: `M0 ${from}C.5 ${from} .5 ${to} 1 ${to}`, "data-text": index, class: direction(from - to) }));
  });
  return style(picture, { "--rows": after.length });
}

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
