"""Makes 8-bit weights whose products AVX2 can sum in 16 bits.

`vpmaddubsw` multiplies unsigned by signed bytes and adds neighbours; two of its results are added in 16
bits before they are widened. So of each run of eight input columns k..k+7, one lane sums the columns
{k, k+1, k+4, k+5} and another {k+2, k+3, k+6, k+7}. Inputs are at most 255. So nothing overflows, in any
order and with any inputs, if the positive weights of such a group of four sum to at most 128, and the
negative ones to at least -128: 255 * 128 = 32640 <= 32767.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.embeddings import FloatArray

LARGEST = 127
BUDGET = 128
# Steps tried for a row, as multiples of max|row| / 127: from slight clipping up to a step at which no
# group can exceed its budget.
STEPS = np.geomspace(0.7, 127 / 32, 28).astype(np.float32)

# Added to the mean square of each column's inputs, as a fraction of the mean over all columns, because
# calibration texts do not show every input.
DAMPING = 0.1
# Columns between two full updates of the targets; updates within a block stay in the processor's cache.
BLOCK = 128


def compensated_rounding(
    matrix: FloatArray, hessian: FloatArray, steps: FloatArray = STEPS
) -> tuple[NDArray[np.int8], FloatArray]:
    """Round to integers within the bound, chosen so that the columns' errors cancel in the product.

    (n, k), (k, k) -> (n, k), (n,). `hessian` is the mean of x x^T over the inputs x. The aim is a small mean
    square of (matrix - integers * scales) x. This is GPTQ (Frantar et al. 2022) in the form of Babai's
    nearest plane (Chen et al. 2025, arXiv 2507.18553), which needs no inverse: with hessian = R R^T, R upper
    triangular, the error is |D R|^2, D = matrix - integers * scales, and its column c is smallest if column
    c rounds to matrix_c + sum over i < c of D_i R_ic / R_cc.
    """
    moments = np.diagonal(hessian)
    scales = _best_scales(matrix, _costs(moments), steps)
    n, k = matrix.shape
    # The columns with the largest inputs come first, as later ones compensate for their errors. Whole runs of
    # eight move, so that groups stay together.
    runs = np.argsort(-moments.reshape(-1, 8).sum(axis=1), kind="stable")
    order = (runs[:, None] * 8 + np.arange(8)).ravel()
    factor, cost = _factor(hessian[np.ix_(order, order)])
    exact = np.ascontiguousarray((matrix / scales[:, None])[:, order].T, dtype=np.float32)  # (k, n)
    rounded, off = np.empty_like(exact), np.empty_like(exact)
    for start in range(0, k, BLOCK):
        block = slice(start, min(start + BLOCK, k))
        wanted = exact[block] + factor[:start, block].T @ off[:start]
        for at in range(start, block.stop, 8):
            run = slice(at, at + 8)
            target = wanted[at - start : at - start + 8] + factor[start:at, run].T @ off[start:at]
            _round_run(target, exact[run], factor[run, run], cost[run], rounded[run], off[run])
    result = np.empty((n, k), np.int8)
    result[:, order] = rounded.T
    return result, scales


def repeated_columns(matrix: FloatArray, count: int) -> NDArray[np.int32]:
    """The columns that are to stand again, some of them several times. (n, k) -> (count,)

    A column that stands r times has an r-th of its weights each time: with the largest weights of a row, its
    scale becomes smaller, and so do the errors of all others. This is outlier channel splitting (Zhao et al.
    2019, arXiv 1901.09504).
    """
    largest = np.abs(matrix).max(axis=0)
    times = np.ones(len(largest), dtype=np.int32)
    for _ in range(count):
        times[np.argmax(largest / times)] += 1
    return np.repeat(np.arange(len(largest), dtype=np.int32), times - 1)


def fits_sixteen_bits(weights: NDArray[np.int8]) -> bool:
    """Whether no sum of four products can overflow 16 bits, whatever the inputs. (n, k)"""
    wide = weights.astype(np.int16)
    largest = max(_sums(np.maximum(part, 0)).max(initial=0) for part in (wide, -wide))
    return bool(largest <= BUDGET)


def _costs(moments: FloatArray) -> FloatArray:
    """The cost of an error in each column, from the mean squares of its inputs. (k,) -> (k,)"""
    mean = max(float(moments.mean()), 1e-30)
    return np.asarray(moments / mean + DAMPING, dtype=np.float32)


def _best_scales(matrix: FloatArray, cost: FloatArray, steps: FloatArray) -> FloatArray:
    """The scale of each row among `steps` with the smallest expected weighted error. (n, k) -> (n,)

    Rounding costs s^2 / 12 per weight. A group that needs e more than its budget loses e^2 / sum(1 / cost)
    over the members that share the loss (the projection in `_share`). This estimate needs no rounding.
    """
    largest = np.maximum(np.abs(matrix).max(axis=1), np.float32(1e-8)) / LARGEST
    tried = steps[:, None] * largest  # (steps, n)
    error = tried**2 * (cost.sum() / 12)
    for part in (np.maximum(matrix, 0), np.maximum(-matrix, 0)):
        wanted = _sums(part)
        rows, groups = np.nonzero(wanted > (BUDGET * steps.min()) * largest[:, None])
        members = _members(part)[rows, groups]
        shares = np.where(members > 0, 1 / _members(cost[None])[0, groups], 0).sum(axis=1)
        wanted = wanted[rows, groups]
        for number, scale in enumerate(tried):
            over = np.maximum(wanted - BUDGET * scale[rows], 0)
            error[number] += np.bincount(rows, over * over / shares, minlength=len(matrix))
    return np.asarray(np.take_along_axis(tried, error.argmin(axis=0)[None], axis=0)[0], dtype=np.float32)


def _sums(values: NDArray[Any]) -> NDArray[Any]:
    """Sum of each group. (n, k) -> (n, k / 4)"""
    n, k = values.shape
    pairs = values[:, 0::2] + values[:, 1::2]  # (n, k / 2), a group has every other pair
    quads = pairs.reshape(n, k // 8, 2, 2)
    return np.asarray((quads[:, :, 0] + quads[:, :, 1]).reshape(n, k // 4))


def _members(values: NDArray[Any]) -> NDArray[Any]:
    """Members of each group side by side. (n, k) -> (n, k / 4, 4)"""
    n, k = values.shape
    return values.reshape(n, k // 8, 2, 2, 2).swapaxes(2, 3).reshape(n, k // 4, 4)


def _factor(hessian: FloatArray) -> tuple[FloatArray, FloatArray]:
    """R, with each column divided by its diagonal, and the diagonal's squares. (k, k) -> (k, k), (k,)"""
    k = len(hessian)
    damped = hessian / np.float32(max(float(np.diagonal(hessian).mean()), 1e-30))
    damped[np.arange(k), np.arange(k)] = _costs(np.diagonal(hessian))
    # A lower triangle reversed is an upper triangle: the last columns' conditional variance comes first.
    upper = np.ascontiguousarray(np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1])
    diagonal = np.diagonal(upper).copy()
    return upper / diagonal, diagonal**2


def _round_run(
    target: FloatArray,
    exact: FloatArray,
    factor: FloatArray,
    cost: FloatArray,
    rounded: FloatArray,
    off: FloatArray,
) -> None:
    """Round a run's columns in turn, into `rounded` and `off`. (8, n), but `factor` (8, 8), `cost` (8,).

    `target` is overwritten.
    """
    left = np.full((2, 2, exact.shape[1]), BUDGET, np.float32)  # sign, group of the run, row
    members = ((0, 1, 4, 5), (2, 3, 6, 7))
    for column in range(8):
        group = column // 2 % 2
        rest = [other for other in members[group] if other >= column]
        value = target[column].copy()
        for side, sign in enumerate((1, -1)):
            shares = np.maximum(sign * target[rest], 0)
            over = shares.sum(axis=0) - left[side, group]
            rows = np.nonzero((over > 0) & (shares[0] > 0))[0]
            if len(rows):
                value[rows] = sign * _share(shares[:, rows], left[side, group, rows], cost[rest])
        limits = np.minimum(left[:, group], LARGEST)
        rounded[column] = np.clip(np.rint(value), -limits[1], limits[0])
        left[0, group] -= np.maximum(rounded[column], 0)
        left[1, group] -= np.maximum(-rounded[column], 0)
        off[column] = exact[column] - rounded[column]
        target[column + 1 :] += factor[column, column + 1 :, None] * off[column]


def _share(wanted: FloatArray, budget: FloatArray, cost: FloatArray) -> FloatArray:
    """The first member's share if all are projected onto the budget. (members, v), (v,) -> (v,)"""
    give, price = 1 / cost[:, None], np.zeros_like(budget)
    for _ in range(len(cost)):
        live = wanted > price * give
        price = ((wanted * live).sum(axis=0) - budget) / np.maximum((give * live).sum(axis=0), 1e-30)
    return np.asarray(np.maximum(wanted[0] - price * give[0], 0), dtype=np.float32)
