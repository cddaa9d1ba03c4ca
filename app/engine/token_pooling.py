"""Fewer rows in a multi-vector: tokens with similar vectors share a row.

Hierarchical token pooling (Clavié, Chaffin and Adams 2024, arXiv 2409.14683) as PyLate computes it: Ward's
linkage on cosine distances, cut at one cluster for every `factor` tokens, and the mean of each cluster.
PyLate does not normalise the means; here they have length 1, like all rows. Queries are not pooled.
"""

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from app.engine.embeddings import FloatArray, Output, count_numbers
from app.engine.heads import normalize
from app.engine.turn import Turn

# A longer text is clustered in consecutive blocks of equal size, as time and memory grow with the square of
# the block size. A block of 512 rows of 1024 numbers takes about 10 ms and 10 MB.
BLOCK = 512
# Texts are computed in groups of about this many tokens. Each group is pooled or compared before the next is
# computed, so that the multi-vectors of a thousand texts are never in memory together.
GROUP_TOKENS = 16384

Float64Array = NDArray[np.float64]

_turn = Turn()


def pool(
    multi_vectors: list[FloatArray], factor: int, pause: Callable[[], None] = lambda: None
) -> list[FloatArray]:
    """Pool the rows of each multi-vector. n times (t, d) -> n times (pooled_rows(t, factor), d)

    Rows have length 1. This process clusters one block at a time; `pause` is called before each block, and
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
    """The clusters' means, of length 1, in the order of their first rows. (t, d) -> (clusters, d)"""
    if clusters >= len(rows):
        return rows
    labels = ward(1.0 - (rows @ rows.T).astype(np.float64), clusters)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return normalize(np.add.reduceat(rows[order], starts))


def ward(distances: Float64Array, clusters: int) -> NDArray[np.intp]:
    """Ward clustering of n items: for each, the first item of its cluster. (n, n) -> (n,)

    The same as scipy's `linkage(method="ward")` and `fcluster(criterion="maxclust")`, which treat any
    distances as Euclidean. All pairs that are nearest to each other are merged at once: no later merge can
    be lower (Bruynooghe 1978), so the order does not matter. A few rounds of large operations, which release
    the interpreter's lock, replace hundreds of single merges.
    """
    needed = len(distances) - clusters
    squared = np.square(distances)
    np.fill_diagonal(squared, np.inf)
    sizes, firsts = np.ones(len(squared)), np.arange(len(squared))  # of clusters: items, first item
    merges = np.empty((2, 0), np.intp)  # the first items of both clusters, the smaller in the first row
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
        squared[np.ix_(a, a)] = np.minimum(both, both.T)  # both are equal up to rounding
        sizes[a] += sizes[b]
        kept = np.delete(places, b)
        squared, sizes, firsts = squared[kept][:, kept], sizes[kept], firsts[kept]
    lowest = np.argsort(heights, kind="stable")[:needed]
    found = np.arange(len(distances))
    found[merges[1, lowest]] = merges[0, lowest]
    while not np.array_equal(found[found], found):  # follow merges to the whole cluster's first
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
    """Squared distances of a and b merged to others: Lance and Williams 1967, with Ward's coefficients."""
    return np.asarray(((a + others) * to_a + (b + others) * to_b - others * a_to_b) / (a + b + others))


def pooled_rows(rows: int, factor: int) -> int:
    """How many of these rows are left: one in `factor`, rounded down in each block, and at least 1."""
    blocks = _blocks(rows)
    size, larger = divmod(rows, blocks)
    return larger * _clusters(size + 1, factor) + (blocks - larger) * _clusters(size, factor)


def groups(token_counts: list[int], together: bool = False) -> list[list[int]]:
    """Group texts in order, up to GROUP_TOKENS tokens in a group, or a single longer text.

    `together`: all in one group, as late chunking computes them in the same forward passes.
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
    """Like `embeddings.count_numbers`, for multi-vectors that are pooled in `groups`.

    The rows of the largest group before pooling count too, as they are in memory until they are pooled.
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
