"""The layout of a model on disk and in memory for the C code: one array of all layers for each weight.

A linear layer has two arrays, `lines` and `bias`, and four more with 8-bit weights. `<layer>.lines` holds
its matrix in panels of 16 outputs. A panel holds the first word (4 bytes) of each output's inputs, then the
second, and so on: (layers, outputs / 16, words, 16 words). The structures are those of tile.h, product.h and
encoder.c.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, Precision
from app.engine.errors import ModelError
from app.engine.export import read_array

PANEL = 16  # outputs
REPEATED = 16  # inputs that stand again behind all others, with 8-bit weights
LINEAR = ("joined", "attended", "grown", "shrunk")
LINEAR_ARRAYS = ("lines", "bias", "scales", "sums", "smooth", "repeated")
NORMS = ("attention_gain", "attention_bias", "output_gain", "output_bias")
# What is stored for each precision, and its number in enum kind of tile.h.
STORED: dict[Precision, str] = {"fp32": "fp32", "bf16": "bf16", "int8": "w8", "w8a16": "w8"}
KINDS = {"fp32": 0, "bf16": 1, "w8": 2}
POINTER = ctypes.c_void_p
INT = ctypes.c_int32


class Linear(ctypes.Structure):
    """A linear layer; what follows `bias` is for 8-bit weights only."""

    _fields_ = (
        *((name, POINTER) for name in LINEAR_ARRAYS),
        ("inputs", INT),
        ("outputs", INT),
    )


class Layer(ctypes.Structure):
    _fields_ = (*((name, Linear) for name in LINEAR), *((name, POINTER) for name in NORMS))


class Model(ctypes.Structure):
    _fields_ = (
        *((name, INT) for name in ("layers", "width", "inner", "heads", "kind", "planes", "attention_kind")),
        ("epsilon", ctypes.c_float),
        ("gain", POINTER),
        ("bias", POINTER),
        ("layer", ctypes.POINTER(Layer)),
    )


def fits(checkpoint: Checkpoint) -> bool:
    """Whether the C code, which works on 16 numbers at a time, can run the checkpoint."""
    head, rest = divmod(checkpoint.width, checkpoint.attention_heads)
    return not rest and not any(size % PANEL for size in (checkpoint.width, checkpoint.inner, head))


def panels(matrix: NDArray[Any]) -> NDArray[np.uint8]:
    """Arrange a matrix of float32, bf16 bits or int8 as lines. (n, k) -> (n / 16, words, 16, 4)"""
    n = len(matrix)
    words = np.ascontiguousarray(matrix).view(np.uint8).reshape(n // PANEL, PANEL, -1, 4)
    return np.ascontiguousarray(words.swapaxes(1, 2))


class Arrays:
    """The arrays of an export, by name; ModelError names the file that is at fault.

    Tables of embeddings are memory-mapped, the rest is read into memory.
    """

    MAPPED = ("words", "positions")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrays = {
            file.stem: read_array(file, file.stem in self.MAPPED) for file in folder.glob("*.npy")
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            raise ModelError(f"{self._folder} has no {name}.npy: remove the folder, and it is made again")
        return self._arrays[name]

    def at(self, name: str, layer: int | None = None) -> int:
        """Address of an array, or of one layer's part of it; 0 if there is no such array."""
        if name not in self._arrays:
            return 0
        array = self._arrays[name]
        return int((array if layer is None else array[layer]).ctypes.data)


def linear(arrays: Arrays, name: str, kind: str, layer: int | None = None) -> Linear:
    """A linear layer as `multiply` takes it. It points into the arrays, which must outlive it."""
    found = Linear(*(arrays.at(f"{name}.{part}", layer) for part in LINEAR_ARRAYS))
    *_, panel_count, words, _, _ = arrays[f"{name}.lines"].shape
    found.outputs = panel_count * PANEL
    found.inputs = words * {"fp32": 1, "bf16": 2, "w8": 4}[kind] - (REPEATED if kind == "w8" else 0)
    return found


def structure(checkpoint: Checkpoint, arrays: Arrays, kind: str, planes: int, bf16: bool) -> Model:
    """The model as `forward` takes it. It points into the arrays, which must outlive it.

    `planes`: how many rows a token's inputs have, 2 for 16 bits. `bf16`: whether attention runs in bf16.
    """
    layers = (Layer * checkpoint.layers)()
    for number, layer in enumerate(layers):
        for name in LINEAR:
            setattr(layer, name, linear(arrays, name, kind, number))
        for name in NORMS:
            setattr(layer, name, arrays.at(name, number))
    return Model(
        checkpoint.layers,
        checkpoint.width,
        checkpoint.inner,
        checkpoint.attention_heads,
        KINDS[kind],
        planes,
        KINDS["bf16" if bf16 else "fp32"],
        checkpoint.epsilon,
        arrays.at("gain"),
        arrays.at("bias"),
        layers,
    )


def embedded(arrays: Arrays, ids: NDArray[Any], positions: NDArray[Any]) -> FloatArray:
    """Sums of word and position embeddings, before their norm. (m,), (m,) -> (m, d)"""
    return np.asarray(np.add(arrays["words"][ids], arrays["positions"][positions], dtype=np.float32))
