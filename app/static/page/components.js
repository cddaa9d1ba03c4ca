// Principal component analysis: the two directions in which vectors differ most.

import { dot } from "./scores.js";

const ITERATIONS = 200;
const ENOUGH = 1e-7; // change of a direction, after which it counts as found

// n rows to points [x, y] each, and the share of the variance along both axes.
export function principalComponents(rows, n) {
  const width = rows.length / n;
  const centred = Float64Array.from(rows);
  for (let k = 0; k < width; k++) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += rows[i * width + k];
    for (let i = 0; i < n; i++) centred[i * width + k] -= sum / n;
  }
  let variance = 0;
  for (const value of centred) variance += value * value;
  const [x, y] = topDirections(centred, n, width, 4).slice(0, 2).map((direction) => project(centred, n, direction));
  const share = (points) => (variance ? points.reduce((sum, value) => sum + value * value, 0) / variance : 0);
  return { points: Array.from({ length: n }, (_, i) => [x[i], y[i]]), shares: [share(x), share(y)] };
}

// Orthogonal iteration with more directions than are wanted: the wanted ones settle much sooner.
function topDirections(centred, n, width, count) {
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647 - 0.5;
  let directions = Array.from({ length: Math.min(count, width) }, () => Float64Array.from({ length: width }, random));
  orthonormal(directions);
  for (let step = 0; step < ITERATIONS; step++) {
    const next = directions.map((direction) => {
      const points = project(centred, n, direction);
      const sum = new Float64Array(width);
      for (let i = 0; i < n; i++)
        for (let k = 0, at = i * width; k < width; k++) sum[k] += points[i] * centred[at + k];
      return sum;
    });
    orthonormal(next);
    const settled = [0, 1].every((d) => !next[d] || 1 - Math.abs(dot(next[d], directions[d])) < ENOUGH);
    directions = next;
    if (settled) break;
  }
  // The same picture every time: the largest number of a direction is positive.
  for (const direction of directions) {
    const largest = direction.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
    if (largest < 0) for (let k = 0; k < width; k++) direction[k] = -direction[k];
  }
  while (directions.length < 2) directions.push(new Float64Array(width));
  return directions;
}

function project(centred, n, direction) {
  const width = direction.length;
  const points = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let k = 0, at = i * width; k < width; k++) sum += centred[at + k] * direction[k];
    points[i] = sum;
  }
  return points;
}

// Gram and Schmidt, in place; a direction with nothing left stays zero.
function orthonormal(directions) {
  directions.forEach((direction, index) => {
    for (const earlier of directions.slice(0, index)) {
      const along = dot(direction, earlier);
      for (let k = 0; k < direction.length; k++) direction[k] -= along * earlier[k];
    }
    const length = Math.sqrt(dot(direction, direction));
    for (let k = 0; k < direction.length; k++) direction[k] = length > 1e-12 ? direction[k] / length : 0;
  });
}
