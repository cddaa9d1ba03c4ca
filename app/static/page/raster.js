// A heat map of many texts: a canvas, a pixel of it for each score, blown up by the browser.

import { viridis } from "./colors.js";
import { make, onMove, style } from "./dom.js";
import { t } from "./language.js";
import { share } from "./scale.js";

const NUMBER = 11; // pixels that a line of numbers takes
const GUTTER = 26; // for the numbers beside the rows, as the style sheet says

export function raster(shown, hooks, scroller, at) {
  const { order } = shown;
  const n = order.length;
  const size = Math.max(1.5, Math.min(20, (scroller.clientWidth - GUTTER - 8) / n));
  const canvas = make("canvas", { width: n, height: n, "aria-hidden": "true" });
  paintPixels(canvas, shown);
  const row = make("div", { class: "cross" });
  const column = make("div", { class: "cross" });
  const chosen = make("div", { class: "chosen" });
  // Screen readers get the grid cell by cell: only the one that has the focus exists.
  const grid = make("div", { role: "grid", "aria-label": t("heat.name", { n }), "aria-rowcount": n, "aria-colcount": n });
  const pixels = make("div", { class: "raster" }, canvas, row, column, chosen, grid);
  const element = make("div", { class: "numbered" }, numbers("columns", "left"), numbers("rows", "top"), pixels);
  const span = (box, columns, rows) => style(box, { width: `${columns * size}px`, height: `${rows * size}px` });
  span(pixels, n, n);
  span(row, n, 1);
  span(column, 1, n);
  span(chosen, 1, 1);
  place(...at.map((value) => Math.min(value, n - 1)));

  // The numbers of the texts along a side: of each, or of as many as there is room for.
  function numbers(kind, from) {
    const step = [1, 2, 5, 10, 20, 50].find((every) => every * size >= NUMBER) ?? 100;
    const places = order.map((_, at) => at).filter((at) => at % step === 0);
    const labels = places.map((at) => style(make("span", {}, String(order[at] + 1)), { [from]: `${(at + 0.5) * size}px` }));
    return make("div", { class: kind, "aria-hidden": "true" }, ...labels);
  }

  function place(r, c) {
    const cell = make("div", { role: "gridcell", tabindex: "0", "aria-colindex": c + 1, "aria-label": hooks.name(r, c) });
    style(span(cell, 1, 1), { left: `${c * size}px`, top: `${r * size}px` });
    cell.addEventListener("focus", () => {
      cross(r, c);
      hooks.focused(r, c);
    });
    cell.addEventListener("blur", leave);
    cell.addEventListener("keydown", hooks.key);
    grid.replaceChildren(make("div", { role: "row", "aria-rowindex": r + 1 }, cell));
    return cell;
  }

  function cross(r, c) {
    pixels.classList.add("crossed");
    style(row, { transform: `translateY(${r * size}px)` });
    style(column, { transform: `translateX(${c * size}px)` });
  }

  function leave() {
    pixels.classList.remove("crossed");
    hooks.out();
  }

  const under = (event) => {
    const frame = canvas.getBoundingClientRect();
    const index = (offset) => Math.min(n - 1, Math.max(0, Math.floor(offset / size)));
    return [index(event.clientY - frame.top), index(event.clientX - frame.left)];
  };
  onMove(pixels, (event) => {
    cross(...under(event));
    hooks.over(...under(event));
  });
  pixels.addEventListener("pointerleave", leave);
  pixels.addEventListener("click", (event) => hooks.choose(...under(event)));

  return {
    element,
    cell: place,
    box(r, c) {
      const frame = canvas.getBoundingClientRect();
      const [top, left] = [frame.top + r * size, frame.left + c * size];
      return { top, left, bottom: top + size, right: left + size };
    },
    mark: (r, c) => style(chosen, { transform: `translate(${c * size}px, ${r * size}px)` }),
  };
}

// One pixel for each score; the diagonal, a text beside itself, stays clear.
export function paintPixels(canvas, { scores, order, scale }) {
  const n = order.length;
  const image = new ImageData(n, n);
  const palette = Array.from({ length: 256 }, (_, index) => [...viridis(index / 255), 255]);
  for (let r = 0, at = 0; r < n; r++) {
    const from = order[r] * n;
    for (let c = 0; c < n; c++, at += 4) {
      if (r === c) continue;
      const place = Math.round(255 * Math.min(1, Math.max(0, share(scale, scores[from + order[c]]))));
      image.data.set(palette[place], at);
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
