// A heat map of few texts: a table whose cells carry their values.

import { css, inkOn, viridis } from "./colors.js";
import { along, make, short, style } from "./dom.js";
import { t } from "./language.js";
import { score, share } from "./scale.js";

// Pixels.
const PADDING = 3; // of the scroller, for the focus ring
const SMALL = 34; // cells narrower than this have no room for "0.93"
const VALUE = 20; // the narrowest that has room for ".93"
const LINE = 15; // the lowest row whose label can be read
const TARGET = 24; // what a finger hits

export function table(shown, hooks, scroller, at) {
  const { texts, order, scale } = shown;
  const n = order.length;
  const { side, gap, label } = sizes(scroller.clientWidth - 2 * PADDING, n);
  const cells = order.map((_, r) => order.map((_, c) => cell(r, c)));
  const heads = order.map((index) =>
    make("th", { scope: "col", "aria-label": `${index + 1} ${short(texts[index])}` }, String(index + 1)),
  );
  const labels = order.map((index, r) =>
    make(
      "button",
      { tabindex: r ? "-1" : "0", "data-row": r, title: texts[index], "aria-label": t("heat.sort", { n: index + 1, text: texts[index] }) },
      make("span", { class: "number" }, String(index + 1)),
      make("span", { class: "text" }, texts[index]),
    ),
  );
  const rows = order.map((_, r) => make("tr", {}, make("th", { scope: "row" }, labels[r]), ...cells[r]));
  const element = make(
    "table",
    { class: "cells", role: "grid", "aria-label": t("heat.name", { n }) },
    make("thead", {}, make("tr", {}, make("th", { class: "corner" }, make("span", { class: "unseen" }, t("heat.texts"))), ...heads)),
    make("tbody", {}, ...rows),
  );
  const height = Math.max(Math.round(side * 0.78), matchMedia("(pointer: coarse)").matches ? TARGET : LINE);
  const width = label + n * side + (n + 2) * gap;
  for (const [name, value] of Object.entries({ "--side": side, "--height": height, "--gap": gap, "--label": label, width }))
    style(element, { [name]: `${value}px` });
  element.classList.toggle("small", side < SMALL);
  element.classList.toggle("tiny", side < VALUE);
  let current = cells[Math.min(at[0], n - 1)][Math.min(at[1], n - 1)];
  let marked = null;
  current.tabIndex = 0;

  function cell(r, c) {
    const value = score(shown, r, c);
    const same = order[r] === order[c];
    const made = make("td", { tabindex: "-1", class: same ? "same" : null, "data-at": `${r} ${c}`, "aria-label": hooks.name(r, c) }, shortest(value.toFixed(2)));
    if (!same) {
      const color = viridis(share(scale, value));
      style(made, { "background-color": css(color), color: inkOn(color) });
    }
    return made;
  }

  // "0.93", in a small cell ".93"
  function shortest(text) {
    if (side < VALUE) return "";
    return side < SMALL ? text.replace("0.", ".").slice(0, 3) : text;
  }

  const place = (event) => event.target.closest?.("td")?.dataset.at.split(" ").map(Number);
  const cross = (r, c) => {
    labels.forEach((label, index) => label.parentElement.classList.toggle("crossed", index === r));
    heads.forEach((head, index) => head.classList.toggle("crossed", index === c));
  };
  element.addEventListener("pointerover", (event) => {
    const found = place(event);
    cross(...(found ?? [-1, -1]));
    if (found) hooks.over(...found);
    else hooks.out();
  });
  element.addEventListener("pointerleave", () => {
    cross(-1, -1);
    hooks.out();
  });
  element.addEventListener("click", (event) => {
    const found = place(event);
    const label = event.target.closest("button");
    if (found) hooks.choose(...found);
    else if (label) hooks.chooseRow(Number(label.dataset.row));
  });
  element.addEventListener("focusin", (event) => {
    const found = place(event);
    if (!found) return;
    current.tabIndex = -1;
    current = event.target;
    current.tabIndex = 0;
    cross(...found);
    hooks.focused(...found);
  });
  element.addEventListener("focusout", hooks.out);
  element.addEventListener("keydown", (event) => {
    if (place(event)) hooks.key(event);
    else along(labels, event);
  });

  return {
    element,
    cell: (r, c) => cells[r][c],
    box: (r, c) => cells[r][c].getBoundingClientRect(),
    mark(r, c) {
      marked?.removeAttribute("aria-selected");
      marked = cells[r][c];
      marked.setAttribute("aria-selected", "true");
    },
  };
}

// The whole table fits where there is room, however many texts: cells grow no wider than looks good, labels take what
// is left. On a narrow screen cells stay wide enough for a finger, and a large table scrolls.
function sizes(room, n) {
  const narrow = room < 600;
  const least = narrow ? (room < 60 + n * TARGET ? 110 : 60) : Math.min(240, Math.max(150, room - 48 * n));
  const share = (room - least) / (n + 2);
  const gap = share < 24 ? 1 : 2;
  const side = Math.min(58, Math.max(narrow ? TARGET - gap : 6, Math.floor((room - least - 2 * gap) / n) - gap));
  return { side, gap, label: Math.max(least, Math.min(340, room - n * side - (n + 2) * gap)) };
}
