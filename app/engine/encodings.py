"""Smaller numbers for vectors, each defined for the rows of a matrix."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.embeddings import FloatArray


def as_int8(vectors: FloatArray) -> NDArray[np.int8]:
    """Each row stretched so that its largest number is 127. (n, d) -> (n, d)

    Cosines stay, lengths do not.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-12)
    return np.asarray(np.rint(vectors / largest * 127), np.int8)


def as_ubinary(vectors: FloatArray) -> NDArray[np.uint8]:
    """One bit a number, 1 where it is above 0, eight of them in a byte. (n, d) -> (n, d / 8)

    This and the next are those of sentence-transformers' quantize_embeddings.
    """
    return np.packbits(vectors > 0, axis=1)


def as_binary(vectors: FloatArray) -> NDArray[np.int8]:
    """The same bytes, less 128. (n, d) -> (n, d / 8)"""
    return (as_ubinary(vectors).astype(np.int16) - 128).astype(np.int8)


QUANTIZED: dict[str, Callable[[FloatArray], NDArray[Any]]] = {
    "int8": as_int8,
    "binary": as_binary,
    "ubinary": as_ubinary,
}
