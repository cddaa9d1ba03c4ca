"""Arithmetic on weights that the exports of all engines share."""

import numpy as np
from numpy.typing import NDArray

from app.engine.embeddings import FloatArray


def smoothing(largest: FloatArray, matrix: FloatArray, alpha: float) -> FloatArray:
    """The factor that each column of inputs is divided by and of the matrix multiplied by. (columns,)

    SmoothQuant's max|x|^alpha / max|w|^(1 - alpha) (Xiao et al. 2023, eq. 4), with a geometric mean of 1,
    clipped. `alpha`: how much of the difficulty of quantising moves from activations to weights.
    """
    outer = np.maximum(largest, 1e-3) ** alpha
    inner = np.maximum(np.abs(matrix).max(axis=0), 1e-4) ** (1 - alpha)
    scale = outer / inner
    scale = scale / np.exp(np.log(scale).mean())
    return np.asarray(np.clip(scale, 0.02, 50), dtype=np.float32)


def to_bf16(values: FloatArray) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
