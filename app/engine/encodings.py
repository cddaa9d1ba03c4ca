"""How vectors are encoded in answers: truncated, quantised, as base64; row by row of a matrix."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.embeddings import FloatArray


def cut(vectors: FloatArray, dimensions: int | None) -> FloatArray:
    """Truncate each vector to `dimensions` and renormalise it; None or 0 keeps all dimensions.

    (n, d) -> (n, dimensions)
    """
    if not dimensions or dimensions >= vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    return np.asarray(kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12))


def as_int8(vectors: FloatArray) -> NDArray[np.int8]:
    """Scale each row so that its largest magnitude is 127. (n, d) -> (n, d)

    Cosines stay the same up to rounding, lengths do not.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-12)
    return np.asarray(np.rint(vectors / largest * 127), np.int8)


def as_ubinary(vectors: FloatArray) -> NDArray[np.uint8]:
    """One bit for each number, 1 if it is above 0, eight bits in a byte. (n, d) -> (n, d / 8)

    This and `as_binary` do the same as sentence-transformers' quantize_embeddings.
    """
    return np.packbits(vectors > 0, axis=1)


def as_binary(vectors: FloatArray) -> NDArray[np.int8]:
    """The bytes of `as_ubinary` minus 128. (n, d) -> (n, d / 8)"""
    return (as_ubinary(vectors).astype(np.int16) - 128).astype(np.int8)


def as_float(vectors: FloatArray) -> FloatArray:
    """The numbers themselves, contiguous in memory, as orjson needs them. (n, d) -> (n, d)"""
    return np.ascontiguousarray(vectors)


def as_base64(vectors: FloatArray) -> list[str]:
    """The bytes of each row as little-endian float32, in base64. (n, d) -> n"""
    return [base64.b64encode(np.ascontiguousarray(row, "<f4").data).decode() for row in vectors]


QUANTIZED: dict[str, Callable[[FloatArray], NDArray[Any]]] = {
    "int8": as_int8,
    "binary": as_binary,
    "ubinary": as_ubinary,
}
# (n, d) -> n rows that JSON can represent.
ENCODINGS: dict[str, Callable[[FloatArray], Any]] = {"float": as_float, "base64": as_base64, **QUANTIZED}


def matrix(rows: FloatArray, encoding: str) -> Any:
    """Encode a matrix in one of ENCODINGS; base64 does not show the shape, so that is added."""
    if encoding != "base64":
        return ENCODINGS[encoding](rows)
    return {"shape": rows.shape, "data": base64.b64encode(np.ascontiguousarray(rows, "<f4").data).decode()}
