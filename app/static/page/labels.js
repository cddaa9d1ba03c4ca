// Names of groups, drawn where their points are: none over another, and over as few points as may be.

import { themed } from "./colors.js";
import { short } from "./dom.js";

const [HEIGHT, PADDING, GAP, STEPS] = [18, 3, 2, 8]; // pixels; so many places are tried, up and down

// Entries of a legend to [{text, left, top, width}], the largest group first; one that finds no room is left out.
export function placed(entries, places, measure, [width, height]) {
  const taken = [];
  for (const { name, members } of entries.toSorted((a, b) => (b.members?.length ?? 0) - (a.members?.length ?? 0))) {
    if (!members) continue;
    const text = `${short(name, 28)} ${members.length}`;
    const wide = measure(text) + 2 * PADDING;
    const [x, y] = [0, 1].map((axis) => median(members.map((index) => places[index][axis])));
    if (x < 0 || y < 0 || x > width || y > height) continue; // zoomed away
    const left = Math.max(0, Math.min(width - wide, x - wide / 2));
    let [best, least] = [null, Infinity];
    for (let step = -STEPS; step <= STEPS; step++) {
      const top = y - HEIGHT / 2 + step * (HEIGHT + GAP);
      const box = { text, left, top, width: wide };
      if (top < 0 || top + HEIGHT > height || taken.some((other) => overlap(box, other))) continue;
      const cost = Math.abs(step) + places.filter((place) => covers(box, place)).length;
      if (cost < least) [best, least] = [box, cost];
    }
    if (best) taken.push(best);
  }
  return taken;
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

const covers = ({ left, top, width }, [x, y]) => x > left - GAP && x < left + width + GAP && y > top - GAP && y < top + HEIGHT + GAP;

const overlap = (a, b) => Math.abs(a.top - b.top) < HEIGHT + GAP && a.left < b.left + b.width + GAP && b.left < a.left + a.width + GAP;

export function drawLabels(context, entries, places, size) {
  context.font = "600 13px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = themed("--ground");
  context.fillStyle = themed("--ink");
  for (const { text, left, top } of placed(entries, places, (one) => context.measureText(one).width, size)) {
    context.strokeText(text, left + PADDING, top + HEIGHT / 2);
    context.fillText(text, left + PADDING, top + HEIGHT / 2);
  }
}
