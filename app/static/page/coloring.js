// What colours the points of a map: their cluster, or a column of the file.

import { css, GROUPS, REST, viridis } from "./colors.js";
import { t } from "./language.js";

// {colors of n points, names of n points, entries of the legend: {color, name, size, central}}
export function byClusters({ labels, groups }) {
  const color = (group) => GROUPS[group] ?? REST;
  const name = (group) => t("map.cluster", { n: group + 1 });
  return {
    colors: labels.map(color),
    names: labels.map(name),
    entries: groups.map(({ size, central }, group) => ({ color: color(group), name: name(group), size, central })),
  };
}

// A column of numbers gets the scale, one of words a colour for each of the most frequent.
export function byColumn(values) {
  const numbers = values.map((value) => (value.trim() ? Number(value) : NaN));
  const distinct = new Set(values).size;
  if (distinct > GROUPS.length && numbers.every((value) => !Number.isNaN(value))) return byNumber(values, numbers);
  const sizes = new Map();
  for (const value of values) sizes.set(value, (sizes.get(value) ?? 0) + 1);
  const sorted = [...sizes].sort(([, a], [, b]) => b - a);
  const color = new Map(sorted.slice(0, GROUPS.length).map(([value], index) => [value, GROUPS[index]]));
  const entries = sorted.slice(0, GROUPS.length).map(([value, size]) => ({ color: color.get(value), name: value || "–", size }));
  const rest = sorted.slice(GROUPS.length).reduce((sum, [, size]) => sum + size, 0);
  if (rest) entries.push({ color: REST, name: t("map.others"), size: rest });
  return { colors: values.map((value) => color.get(value) ?? REST), names: values, entries };
}

function byNumber(values, numbers) {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const color = (value) => css(viridis((value - low) / (high - low)));
  const entries = [low, (low + high) / 2, high].map((value) => ({ color: color(value), name: String(Number(value.toPrecision(4))) }));
  return { colors: numbers.map(color), names: values, entries };
}
