// What colours the points of a map: their cluster, or a column of the file.

import { css, GROUPS, REST, viridis } from "./colors.js";
import { short } from "./dom.js";
import { t } from "./language.js";

// {colors of n points, names of n points, entries of the legend: {color, name, about, members}}; members are the
// points of an entry, which a scale has none of.
export function byClusters({ labels, groups }, texts) {
  const entries = groups.map(({ name, central }, group) => ({
    color: GROUPS[group] ?? REST,
    name: name || t("map.cluster", { n: group + 1 }),
    about: short(texts[central], 60),
    members: where(labels, (label) => label === group),
  }));
  return { entries, colors: labels.map((label) => entries[label].color), names: labels.map((label) => entries[label].name) };
}

const where = (values, wanted) => values.flatMap((value, index) => (wanted(value) ? [index] : []));

// The first column that sorts texts into a few groups: a file is looked at by it first. -1 if there is none.
export const grouping = (columns) =>
  columns.findIndex(({ values }) => {
    const distinct = new Set(values).size;
    return distinct > 1 && distinct <= GROUPS.length && distinct * 2 <= values.length;
  });

// A column of numbers gets the scale, one of words a colour for each of the most frequent.
export function byColumn(values) {
  const numbers = values.map((value) => (value.trim() ? Number(value) : NaN));
  const distinct = new Set(values).size;
  if (distinct > GROUPS.length && numbers.every((value) => !Number.isNaN(value))) return byNumber(values, numbers);
  const sizes = new Map();
  for (const value of values) sizes.set(value, (sizes.get(value) ?? 0) + 1);
  const sorted = [...sizes].sort(([, a], [, b]) => b - a).slice(0, GROUPS.length);
  const color = new Map(sorted.map(([value], index) => [value, GROUPS[index]]));
  const entries = sorted.map(([value]) => ({ color: color.get(value), name: value || "–", members: where(values, (one) => one === value) }));
  const rest = where(values, (value) => !color.has(value));
  if (rest.length) entries.push({ color: REST, name: t("map.others"), members: rest });
  return { colors: values.map((value) => color.get(value) ?? REST), names: values, entries };
}

function byNumber(values, numbers) {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const color = (value) => css(viridis((value - low) / (high - low)));
  const entries = [low, (low + high) / 2, high].map((value) => ({ color: color(value), name: String(Number(value.toPrecision(4))) }));
  return { colors: numbers.map(color), names: values, entries };
}
