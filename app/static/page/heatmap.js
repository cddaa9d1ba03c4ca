// A heat map of n x n scores: values on hover and on keyboard focus, a cell chosen by click or Enter.

import { make, reveal, short, style } from "./dom.js";
import { t } from "./language.js";
import { raster } from "./raster.js";
import { score } from "./scale.js";
import { table } from "./table.js";

const TABLE_MOST = 60; // texts with a cell of their own each; more are pixels of a canvas

// `choose(i, j)` is told the texts of a chosen cell, `chooseRow(i)` that of a row's label.
export function heatMap(root, { choose, chooseRow }) {
  const scroller = make("div", { class: "scroller" });
  const tip = make("div", { class: "tip", "aria-hidden": "true", hidden: true });
  root.replaceChildren(scroller, tip);
  let shown = null;
  let body = null;
  let at = [0, 0];
  let width = 0; // for which it was drawn
  scroller.addEventListener("scroll", () => (tip.hidden = true), { passive: true });

  const hooks = {
    over: hint,
    out: () => (tip.hidden = true),
    choose: (r, c) => {
      at = [r, c];
      tip.hidden = true;
      choose(shown.order[r], shown.order[c]);
    },
    chooseRow: (r) => chooseRow(shown.order[r]),
    focused: (r, c) => {
      at = [r, c];
      hint(r, c);
    },
    key: (event) => {
      if (event.key === "Escape") tip.hidden = true;
      const next = moved(event, at, shown.order.length);
      if (next) {
        event.preventDefault();
        focus(next);
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        hooks.choose(...at);
      }
    },
    name: (r, c) => name(shown, r, c),
  };

  function hint(r, c) {
    const { texts, order } = shown;
    const [i, j] = [order[r], order[c]];
    const line = (index, which) => [make("span", { class: "number" }, t(which, { n: index + 1 })), ` ${short(texts[index], 140)}`];
    tip.replaceChildren(
      make("strong", {}, score(shown, r, c).toFixed(4)),
      make("div", {}, ...line(i, "heat.row")),
      make("div", {}, ...line(j, "heat.column")),
    );
    tip.hidden = false;
    place(body.box(r, c));
  }

  // Below the cell, or above where there is no room, and never out of the picture at its sides.
  function place(box) {
    const frame = root.getBoundingClientRect();
    const left = Math.min(Math.max(0, box.left - frame.left + 8), Math.max(0, frame.width - tip.offsetWidth));
    const room = window.innerHeight - box.bottom;
    const top = box.bottom - frame.top + 8;
    style(tip, {
      left: `${left}px`,
      top: `${room > tip.offsetHeight + 16 ? top : box.top - frame.top - tip.offsetHeight - 8}px`,
    });
  }

  function focus([r, c], see = (cell) => cell.scrollIntoView({ block: "nearest", inline: "nearest" })) {
    const cell = body.cell(r, c);
    cell.focus({ preventScroll: true });
    see(cell);
  }

  // texts, scores, order, scale {low, high}, pair [i, j]
  function show(next) {
    const focused = scroller.contains(document.activeElement);
    if (shown && next.order.length !== shown.order.length) at = [0, 0];
    shown = next;
    tip.hidden = true;
    width = root.clientWidth;
    body = (shown.order.length <= TABLE_MOST ? table : raster)(shown, hooks, scroller, at);
    scroller.replaceChildren(body.element);
    body.mark(...positions(shown));
    if (focused) focus(at);
  }

  // Cells fit the room there is; there is none while another view is open.
  new ResizeObserver(() => {
    if (shown && root.clientWidth && root.clientWidth !== width) show(shown);
  }).observe(root);

  return {
    show,
    mark(pair) {
      shown.pair = pair;
      body.mark(...positions(shown));
    },
    // To the cell that was chosen, with the focus.
    back() {
      focus(positions(shown), reveal);
    },
  };
}

const positions = ({ order, pair }) => pair.map((index) => order.indexOf(index));

function name(shown, r, c) {
  const [row, column] = [shown.texts[shown.order[r]], shown.texts[shown.order[c]]];
  return t("heat.cell", { row: short(row, 80), column: short(column, 80), value: score(shown, r, c).toFixed(2) });
}

// Where a key leads from [r, c], null if it is none of ours.
function moved({ key, ctrlKey }, [r, c], n) {
  const next = {
    ArrowUp: [r - 1, c],
    ArrowDown: [r + 1, c],
    ArrowLeft: [r, c - 1],
    ArrowRight: [r, c + 1],
    Home: [ctrlKey ? 0 : r, 0],
    End: [ctrlKey ? n - 1 : r, n - 1],
    PageUp: [r - 10, c],
    PageDown: [r + 10, c],
  }[key];
  return next?.map((value) => Math.min(n - 1, Math.max(0, value)));
}
