// A heat map of few texts: a table whose cells carry their values.

import { css, inkOn, viridis } from "./colors.js";
import { along, make, short, style } from "./dom.js";
import { t } from "./language.js";
import { score, share } from "./scale.js";

// Pixels, as the style sheet says: between cells, and around the table for the focus ring.
const GAP = 2;
const PADDING = 3;

export function table(shown, hooks, scroller, at) {
  const { texts, order, scale } = shown;
  const n = order.length;
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
  const { cell: side, label } = sizes(scroller.clientWidth - 2 * PADDING, n);
  style(element, { "--cell": `${side}px`, "--label": `${label}px`, width: `${label + n * (side + GAP) + 2 * GAP}px` });
  let current = cells[Math.min(at[0], n - 1)][Math.min(at[1], n - 1)];
  current.tabIndex = 0;

  function cell(r, c) {
    const value = score(shown, r, c);
    const same = order[r] === order[c];
    const made = make("td", { tabindex: "-1", class: same ? "same" : null, "data-at": `${r} ${c}`, "aria-label": hooks.name(r, c) }, value.toFixed(2));
    if (!same) {
      const color = viridis(share(scale, value));
      style(made, { "background-color": css(color), color: inkOn(color) });
    }
    return made;
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
    focus: (r, c) => cells[r][c].focus(),
    box: (r, c) => cells[r][c].getBoundingClientRect(),
    mark(r, c) {
      for (const row of cells) for (const one of row) one.removeAttribute("aria-selected");
      cells[r]?.[c]?.setAttribute("aria-selected", "true");
    },
  };
}

// Cells wide enough for "0.93", and no wider than looks good; labels take what is left.
function sizes(room, n) {
  const least = Math.min(240, room * 0.38);
  const cell = Math.min(58, Math.max(34, Math.floor((room - least) / n) - GAP));
  return { cell, label: Math.max(least, Math.min(340, room - n * (cell + GAP) - 2 * GAP)) };
}
