"""Vectors as they are written: shorter, in smaller numbers, as text; row by row of a matrix."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.embeddings import FloatArray


def cut(vectors: FloatArray, dimensions: int | None) -> FloatArray:
    """Keep the first `dimensions` numbers of each vector and make its length 1 again; None or 0 keeps all.

    (n, d) -> (n, dimensions)
    """
    if not dimensions or dimensions >= vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    return np.asarray(kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12))


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


def as_float(vectors: FloatArray) -> FloatArray:
    """The numbers themselves, side by side in memory, as orjson needs them. (n, d) -> (n, d)"""
    return np.ascontiguousarray(vectors)


def as_base64(vectors: FloatArray) -> list[str]:
    """The bytes of each row's little-endian float32. (n, d) -> n"""
    return [base64.b64encode(np.ascontiguousarray(row, "<f4").data).decode() for row in vectors]


QUANTIZED: dict[str, Callable[[FloatArray], NDArray[Any]]] = {
    "int8": as_int8,
    "binary": as_binary,
    "ubinary": as_ubinary,
}
# (n, d) -> n rows of what JSON can hold.
ENCODINGS: dict[str, Callable[[FloatArray], Any]] = {"float": as_float, "base64": as_base64, **QUANTIZED}


def matrix(rows: FloatArray, encoding: str) -> Any:
    """All rows of a matrix in one of ENCODINGS; a string cannot tell its shape, so that comes along."""
    if encoding != "base64":
        return ENCODINGS[encoding](rows)
    return {"shape": rows.shape, "data": base64.b64encode(np.ascontiguousarray(rows, "<f4").data).decode()}
