// In which order texts stand: by nearness to one of them, or so that those near each other are neighbours.

export const asGiven = (n) => Array.from({ length: n }, (_, index) => index);

// The chosen one first, then the others, the nearest first.
export function byNearness(scores, n, row) {
  const nearness = (index) => (index === row ? Infinity : scores[row * n + index]);
  return asGiven(n).sort((a, b) => nearness(b) - nearness(a) || a - b);
}

// Leaves of a tree of clusters, merged by average linkage (nearest-neighbour chain, Murtagh 1983).
export function byCluster(scores, n) {
  const near = new Float32Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) near[i * n + j] = (scores[i * n + j] + scores[j * n + i]) / 2;
  const original = near.slice();
  const members = asGiven(n).map((index) => [index]);
  const alive = new Set(asGiven(n));
  const chain = [];
  while (alive.size > 1) {
    if (!chain.length) chain.push(alive.values().next().value);
    const last = chain.at(-1);
    const before = chain.at(-2);
    // Of equally near ones the one before, or the chain would never end.
    let next = before ?? -1;
    for (const other of alive)
      if (other !== last && (next < 0 || near[last * n + other] > near[last * n + next])) next = other;
    if (next !== before) {
      chain.push(next);
      continue;
    }
    chain.length -= 2;
    const [a, b] = last < next ? [last, next] : [next, last];
    const [one, two] = [members[a].length, members[b].length];
    for (const other of alive) {
      const average = (one * near[a * n + other] + two * near[b * n + other]) / (one + two);
      near[a * n + other] = near[other * n + a] = average;
    }
    members[a] = joined(members[a], members[b], original, n);
    alive.delete(b);
  }
  return members[alive.values().next().value] ?? [];
}

// Both lists end to end, each turned so that the nearest ends meet.
function joined(a, b, near, n) {
  const ends = [
    [a, b],
    [a, b.toReversed()],
    [a.toReversed(), b],
    [a.toReversed(), b.toReversed()],
  ];
  const meeting = ([left, right]) => near[left.at(-1) * n + right[0]];
  const [left, right] = ends.reduce((best, pair) => (meeting(pair) > meeting(best) ? pair : best));
  return [...left, ...right];
}
