// Points in a plane: the text of one on hover and on keyboard focus, some lit up, some selected; a part can be seen large.

import { themed } from "./colors.js";
import { make, onMove, style } from "./dom.js";
import { drawLabels } from "./labels.js";
import { zoom } from "./zoom.js";

const REACH = 16; // pixels from the mouse to a point that it means
const MARGIN = 18;

// `describe(index)` says what a point is, `select(indices)` is told which are selected, and `framing()` tells whether
// a drag selects.
export function scatter(root, { describe, select, framing }) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const ring = make("div", { class: "ring", hidden: true });
  const frame = make("div", { class: "frame", hidden: true });
  const tip = make("div", { class: "tip", "aria-hidden": "true", hidden: true });
  // One list item, the current point, for screen readers; arrows lead from point to point.
  const list = make("div", { role: "listbox", tabindex: "0", "aria-multiselectable": "true", class: "points" });
  root.replaceChildren(canvas, ring, frame, tip, list);
  const view = zoom(list, { changed: paint, framed, framing });
  let shown = null; // {points, colors, entries, lit, selected}
  let whole = []; // places of all points, before zooming
  let places = [];
  let current = 0;
  let told = 0;

  function show(next) {
    const other = shown?.points !== next.points;
    shown = next;
    if (other) {
      current = 0;
      view.reset();
    }
    list.setAttribute("aria-label", next.label);
    item();
    paint();
  }

  function paint() {
    if (!shown || !root.clientWidth) return;
    const [width, height] = [root.clientWidth, root.clientHeight];
    const sharp = devicePixelRatio;
    Object.assign(canvas, { width: width * sharp, height: height * sharp });
    whole = fitted(shown.points, width, height);
    places = whole.map(view.seen);
    const context = canvas.getContext("2d");
    context.scale(sharp, sharp);
    drawPoints(context, places, shown);
    drawLabels(context, shown.entries, places, [width, height]);
    hideHint();
  }

  function item() {
    if (!shown) return;
    const id = `${root.id}-point-${told++ % 2}`;
    const option = make(
      "div",
      { role: "option", id, class: "unseen", "aria-selected": String(shown.selected.includes(current)), "aria-setsize": shown.points.length, "aria-posinset": current + 1 },
      describe(current),
    );
    list.replaceChildren(option);
    list.setAttribute("aria-activedescendant", id);
  }

  function hint(index) {
    const [x, y] = places[index];
    tip.textContent = describe(index);
    tip.hidden = ring.hidden = false;
    style(ring, { transform: `translate(${x}px, ${y}px)` });
    const left = Math.min(Math.max(0, x + 12), Math.max(0, root.clientWidth - tip.offsetWidth));
    const below = y + 14 + tip.offsetHeight < root.clientHeight;
    style(tip, { left: `${left}px`, top: `${below ? y + 14 : y - 14 - tip.offsetHeight}px` });
  }

  function hideHint() {
    tip.hidden = ring.hidden = true;
  }

  function go(index) {
    current = index;
    item();
    view.show(whole[index]);
    hint(index);
  }

  // The points between two corners, while the second one moves and once it is there.
  function framed(from, to, done) {
    const [[left, right], [top, bottom]] = [0, 1].map((axis) => [from[axis], to[axis]].sort((a, b) => a - b));
    hideHint();
    frame.hidden = done !== undefined;
    style(frame, { left: `${left}px`, top: `${top}px`, width: `${right - left}px`, height: `${bottom - top}px` });
    const inside = ([x, y]) => x >= left && x <= right && y >= top && y <= bottom;
    if (done) select(places.flatMap((place, index) => (inside(place) ? [index] : [])));
  }

  function toggle(index) {
    const { selected } = shown;
    select(selected.includes(index) ? selected.filter((other) => other !== index) : [...selected, index].sort((a, b) => a - b));
    hint(index);
  }

  onMove(root, ({ clientX, clientY }) => {
    const { left, top } = canvas.getBoundingClientRect();
    const index = nearest(places, [clientX - left, clientY - top], REACH);
    if (index < 0) hideHint();
    else hint(index);
  });
  root.addEventListener("pointerleave", hideHint);
  list.addEventListener("focus", () => places.length && hint(current));
  list.addEventListener("blur", hideHint);
  list.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return tip.hidden ? select([]) : hideHint();
    const last = places.length - 1;
    if (last < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { "+": view.in, "=": view.in, "-": view.out, 0: view.reset, Enter: () => toggle(current), " ": () => toggle(current) }[event.key];
    if (act) {
      event.preventDefault();
      return act();
    }
    const next = {
      ArrowLeft: () => towards(places, current, [-1, 0]),
      ArrowRight: () => towards(places, current, [1, 0]),
      ArrowUp: () => towards(places, current, [0, -1]),
      ArrowDown: () => towards(places, current, [0, 1]),
      PageUp: () => Math.max(0, current - 1),
      PageDown: () => Math.min(last, current + 1),
      Home: () => 0,
      End: () => last,
    }[event.key];
    if (!next) return;
    event.preventDefault();
    go(next());
  });
  new ResizeObserver(paint).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  return { show, go, zoom: view };
}

// Both axes in the same measure, as large as fits.
export function fitted(points, width, height) {
  const range = (axis) => {
    const values = points.map((point) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  };
  const [[left, right], [bottom, top]] = [range(0), range(1)];
  const scale = Math.min(
    (width - 2 * MARGIN) / (right - left || 1),
    (height - 2 * MARGIN) / (top - bottom || 1),
  );
  return points.map(([x, y]) => [
    width / 2 + (x - (left + right) / 2) * scale,
    height / 2 - (y - (bottom + top) / 2) * scale,
  ]);
}

export function drawPoints(context, places, { colors, lit, selected }) {
  const all = [...new Set([...lit, ...selected])];
  const radius = places.length < 100 ? 6 : places.length < 500 ? 4.5 : 3.2;
  const dot = ([x, y], size) => {
    context.beginPath();
    context.arc(x, y, size, 0, 2 * Math.PI);
  };
  places.forEach((place, index) => {
    context.globalAlpha = !all.length ? 0.85 : 0.2;
    context.fillStyle = colors[index];
    dot(place, radius);
    context.fill();
  });
  context.globalAlpha = 1;
  context.lineWidth = 2;
  context.strokeStyle = themed("--ink");
  for (const index of all.toReversed()) {
    context.fillStyle = colors[index];
    dot(places[index], radius + 2.5);
    context.fill();
    context.stroke();
  }
}

function nearest(places, [x, y], reach) {
  let [best, least] = [-1, reach * reach];
  places.forEach(([px, py], index) => {
    const away = (px - x) ** 2 + (py - y) ** 2;
    if (away <= least) [best, least] = [index, away];
  });
  return best;
}

// The nearest point in this direction; straying to the side counts double.
function towards(places, from, [dx, dy]) {
  const [x, y] = places[from];
  let [best, least] = [from, Infinity];
  places.forEach(([px, py], index) => {
    const ahead = (px - x) * dx + (py - y) * dy;
    const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (index === from || ahead <= 0 || aside > 2 * ahead) return;
    if (ahead + 2 * aside < least) [best, least] = [index, ahead + 2 * aside];
  });
  return best;
}
