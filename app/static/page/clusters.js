// k-means: groups of vectors around their means.

const STEPS = 30;

// n rows to the number of each one's cluster, the largest cluster first, the row nearest to each mean, and how far each
// row is from the mean.
export function clusters(rows, n, k) {
  const width = rows.length / n;
  const count = Math.min(k, n);
  let best = null;
  const starts = n < 500 ? 12 : 4; // the best of so many
  for (let start = 1; start <= starts; start++) {
    const found = lloyd(rows, n, width, seeds(rows, n, width, count, start));
    if (!best || found.error < best.error) best = found;
  }
  return bySize(best, n, count);
}

function distance(rows, i, centre, width) {
  let sum = 0;
  for (let k = 0, at = i * width; k < width; k++) {
    const difference = rows[at + k] - centre[k];
    sum += difference * difference;
  }
  return sum;
}

// k-means++ (Arthur and Vassilvitskii 2007), with the same numbers every time.
function seeds(rows, n, width, count, start) {
  let seed = start * 7919;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const row = (i) => Float32Array.from(rows.subarray(i * width, (i + 1) * width));
  const centres = [row(Math.floor(random() * n))];
  const nearest = new Float64Array(n).fill(Infinity);
  while (centres.length < count) {
    let sum = 0;
    for (let i = 0; i < n; i++) {
      nearest[i] = Math.min(nearest[i], distance(rows, i, centres.at(-1), width));
      sum += nearest[i];
    }
    let left = random() * sum;
    let i = 0;
    while (i < n - 1 && (left -= nearest[i]) > 0) i++;
    centres.push(row(i));
  }
  return centres;
}

function lloyd(rows, n, width, centres) {
  const labels = new Int32Array(n).fill(-1);
  const distances = new Float64Array(n);
  for (let step = 0; step < STEPS; step++) {
    let moved = 0;
    for (let i = 0; i < n; i++) {
      let label = 0;
      distances[i] = Infinity;
      centres.forEach((centre, c) => {
        const away = distance(rows, i, centre, width);
        if (away < distances[i]) [label, distances[i]] = [c, away];
      });
      if (label !== labels[i]) moved++;
      labels[i] = label;
    }
    if (!moved) break;
    const sizes = new Array(centres.length).fill(0);
    const sums = centres.map(() => new Float64Array(width));
    for (let i = 0; i < n; i++) {
      sizes[labels[i]]++;
      for (let k = 0; k < width; k++) sums[labels[i]][k] += rows[i * width + k];
    }
    // A centre that nobody is near stays where it is.
    centres.forEach((centre, c) => sizes[c] && centre.set(sums[c].map((sum) => sum / sizes[c])));
  }
  return { labels, distances, error: distances.reduce((sum, value) => sum + value, 0) };
}

function bySize({ labels, distances }, n, count) {
  const found = Array.from({ length: count }, (_, label) => ({ label, size: 0, central: -1 }));
  for (let i = 0; i < n; i++) {
    const one = found[labels[i]];
    one.size++;
    if (one.central < 0 || distances[i] < distances[one.central]) one.central = i;
  }
  const sorted = found.filter(({ size }) => size).sort((a, b) => b.size - a.size || a.central - b.central);
  const place = new Map(sorted.map(({ label }, index) => [label, index]));
  return {
    labels: Array.from(labels, (label) => place.get(label)),
    distances,
    groups: sorted.map(({ size, central }) => ({ size, central })),
  };
}
