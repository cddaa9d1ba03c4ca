// What the colours mean: a bar with numbers.

import { css, viridis } from "./colors.js";
import { make } from "./dom.js";

const TICKS = 5;

export function bar(context, left, top, width, height) {
  for (let x = 0; x < width; x++) {
    context.fillStyle = css(viridis(x / (width - 1)));
    context.fillRect(left + x, top, 1, height);
  }
}

export function legend({ low, high }, title) {
  const canvas = make("canvas", { width: 128, height: 1, "aria-hidden": "true" });
  bar(canvas.getContext("2d"), 0, 0, 128, 1);
  const digits = high - low < 0.2 ? 3 : 2;
  const ticks = Array.from({ length: TICKS }, (_, index) =>
    make("span", {}, (low + ((high - low) * index) / (TICKS - 1)).toFixed(digits)),
  );
  return [make("p", {}, title), canvas, make("div", { class: "ticks" }, ...ticks)];
}

// What is between the least and the greatest score of two different texts: models keep to a narrow band.
export function scaleOf(scores, n) {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      if (i === j) continue;
      low = Math.min(low, scores[i * n + j]);
      high = Math.max(high, scores[i * n + j]);
    }
  return { low, high };
}

// Where a value lies on a scale, 0 to 1.
export const share = ({ low, high }, value) => (high > low ? (value - low) / (high - low) : 1);

// Of row r and column c, in the order that is shown.
export const score = ({ scores, order }, r, c) => scores[order[r] * order.length + order[c]];
