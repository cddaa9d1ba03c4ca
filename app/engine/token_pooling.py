"""Fewer rows in a multi-vector: tokens whose vectors are alike share one.

Hierarchical token pooling (Clavié, Chaffin and Adams 2024, arXiv 2409.14683) as PyLate computes it: Ward's
linkage on cosine distances, cut where one cluster is left for `factor` tokens, and the mean of each cluster.
PyLate leaves the means shorter than 1; here they have length 1, as all rows do. Queries are not pooled.
"""

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from app.engine.embeddings import FloatArray, Output, count_numbers
from app.engine.heads import normalize
from app.engine.turn import Turn

# Rows of a longer text are clustered in consecutive blocks of one size: time and memory grow with the square
# of a block. One of 512 rows of 1024 numbers takes about 10 ms and 10 MB.
BLOCK = 512
# Texts are computed in groups of about this many tokens, each pooled or compared before the next is computed,
# so that the multi-vectors of a thousand texts are never in memory together.
GROUP_TOKENS = 16384

Float64Array = NDArray[np.float64]

_turn = Turn()


def pool(
    multi_vectors: list[FloatArray], factor: int, pause: Callable[[], None] = lambda: None
) -> list[FloatArray]:
    """Each multi-vector with its rows clustered. n times (t, d) -> n times (pooled_rows(t, factor), d)

    Rows have length 1. One block at a time is clustered in this process; `pause` is called before each, and
    may raise.
    """
    found = []
    for rows in multi_vectors:
        blocks = []
        for block in np.array_split(rows, _blocks(len(rows))):
            with _turn.taken(pause):
                blocks.append(pool_block(block, _clusters(len(block), factor)))
        found.append(np.concatenate(blocks))
    return found


def pool_block(rows: FloatArray, clusters: int) -> FloatArray:
    """So many clusters' means, of length 1, in the order of the first row of each. (t, d) -> (clusters, d)"""
    if clusters >= len(rows):
        return rows
    labels = ward(1.0 - (rows @ rows.T).astype(np.float64), clusters)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return normalize(np.add.reduceat(rows[order], starts))


def ward(distances: Float64Array, clusters: int) -> NDArray[np.intp]:
    """Ward's clusters of n things, so many, as the first thing in the cluster of each. (n, n) -> (n,)

    As scipy's `linkage(method="ward")` and `fcluster(criterion="maxclust")`, which take any distances as
    Euclidean ones. All pairs that are nearest to each other are merged at once: no later merge can be lower
    (Bruynooghe 1978), so the order does not matter, and a few rounds of large steps, which do not hold the
    interpreter's lock, do what one merge at a time does in hundreds of small ones.
    """
    needed = len(distances) - clusters
    squared = np.square(distances)
    np.fill_diagonal(squared, np.inf)
    sizes, firsts = np.ones(len(squared)), np.arange(len(squared))  # of clusters: things, and the first one
    merges = np.empty((2, 0), np.intp)  # the first things of both clusters, the lower one above
    heights = np.empty(0)
    while len(heights) < needed or np.partition(heights, needed - 1)[needed - 1] > squared.min():
        near = squared.argmin(axis=1)
        places = np.arange(len(near))
        a = np.flatnonzero((near[near] == places) & (near > places))
        b = near[a]
        merges = np.append(merges, [firsts[a], firsts[b]], axis=1)
        height = squared[a, b]
        heights = np.append(heights, height)
        rows = _lance_williams(squared[a], squared[b], height[:, None], sizes[a, None], sizes[b, None], sizes)
        squared[a], squared[:, a] = rows, rows.T
        before, after = sizes[a], (sizes[a] + sizes[b])[:, None]
        both = _lance_williams(rows[:, a], rows[:, b], height, before, sizes[b], after)
        squared[np.ix_(a, a)] = np.minimum(both, both.T)  # the last bits of the two may differ
        sizes[a] += sizes[b]
        kept = np.delete(places, b)
        squared, sizes, firsts = squared[kept][:, kept], sizes[kept], firsts[kept]
    lowest = np.argsort(heights, kind="stable")[:needed]
    found = np.arange(len(distances))
    found[merges[1, lowest]] = merges[0, lowest]
    while not np.array_equal(found[found], found):  # from the first of a part to that of the whole
        found = found[found]
    return found


def _lance_williams(
    to_a: Float64Array,
    to_b: Float64Array,
    a_to_b: Float64Array,
    a: Float64Array,
    b: Float64Array,
    others: Float64Array,
) -> Float64Array:
    """Squared distances of a and b, merged, to others: Lance and Williams 1967, with Ward's coefficients."""
    return np.asarray(((a + others) * to_a + (b + others) * to_b - others * a_to_b) / (a + b + others))


def pooled_rows(rows: int, factor: int) -> int:
    """How many rows are left of so many: a `factor`-th, rounded down in each block, and 1 at least."""
    blocks = _blocks(rows)
    size, larger = divmod(rows, blocks)
    return larger * _clusters(size + 1, factor) + (blocks - larger) * _clusters(size, factor)


def groups(token_counts: list[int], together: bool = False) -> list[list[int]]:
    """Texts of so many tokens, in their order, as many at a time as are GROUP_TOKENS at most, or one.

    `together`: all at a time, as late chunking has them out of the same passes.
    """
    if together:
        return [[*range(len(token_counts))]]
    found: list[list[int]] = [[]]
    size = 0
    for text, tokens in enumerate(token_counts):
        if found[-1] and size + tokens > GROUP_TOKENS:
            found.append([])
            size = 0
        found[-1].append(text)
        size += tokens
    return found


def count_pooled(
    token_counts: list[int],
    width: int,
    outputs: Collection[Output],
    factor: int,
    together: bool = False,
) -> int:
    """As `embeddings.count_numbers`, with multi-vectors that are pooled in `groups`.

    Those of the largest group before it is pooled count too: they are in memory meanwhile.
    """
    others = [output for output in outputs if output != "colbert"]
    rows = [tokens - 1 for tokens in token_counts]
    left = sum(pooled_rows(each, factor) for each in rows)
    before = max(sum(rows[text] for text in group) for group in groups(token_counts, together))
    return count_numbers(token_counts, width, others) + width * (left + before)


def _blocks(rows: int) -> int:
    return max(1, -(-rows // BLOCK))


def _clusters(rows: int, factor: int) -> int:
    return max(1, rows // factor)
