"""The native engine's exports: weights as they are, or as 8-bit integers fitted to calibration texts."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import write_array_header_1_0

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, Precision
from app.engine.export import layers
from app.engine.native.layout import NORMS, REPEATED, STORED, panels
from app.engine.native.rounding import compensated_rounding, fits_sixteen_bits, repeated_columns
from app.engine.smoothing import smoothing, to_bf16

# Raise it whenever a change affects what is written, how it is read, or arithmetic that changes vectors.
FORMAT = 3
# SmoothQuant's alpha for the inputs of each linear layer, measured on the demo model: more costs accuracy in
# the weights, less in the activations.
SMOOTHING = {"joined": 0.75, "attended": 0.55, "grown": 0.7, "shrunk": 0.62}

if TYPE_CHECKING:  # these import torch
    from app.engine.calibration import Inputs
    from app.engine.weights import Weights

# Matrix (n, k) and bias (n,) of a linear layer, its name, the inputs seen -> its arrays by name
Store = Callable[[FloatArray, FloatArray, str, "Inputs | None"], dict[str, Any]]


class NativeExporter:
    """Writes the arrays for each kind of weights: int8 and w8a16 share theirs."""

    engine = "native"

    def stored(self, precision: Precision) -> str:
        return STORED[precision]

    def identity(self) -> dict[str, Any]:
        return {"format": FORMAT}

    def write(self, checkpoint: Checkpoint, weights: "Weights", stored: str, folder: Path) -> None:
        write_model(checkpoint, weights, stored, folder)


def write_model(checkpoint: Checkpoint, weights: "Weights", stored: str, folder: Path) -> None:
    """Write the arrays of layout.py. 8-bit weights need a forward pass over the calibration texts."""
    d = checkpoint.width
    words = weights("embeddings.word_embeddings.weight", checkpoint.vocabulary, d)
    np.save(folder / "words.npy", words if stored == "fp32" else words.astype(np.float16))
    del words
    np.save(folder / "positions.npy", weights.position_table())
    for name, part in (("gain", "weight"), ("bias", "bias")):
        np.save(folder / f"{name}.npy", weights(f"embeddings.LayerNorm.{part}", d))
    for head in checkpoint.heads:
        matrix, bias = weights.head(head)
        np.save(
            folder / f"{head}.{'lines' if head == 'colbert' else 'matrix'}.npy",
            panels(matrix) if head == "colbert" else matrix,
        )
        np.save(folder / f"{head}.bias.npy", bias)
    _write_layers(checkpoint, weights, stored, folder)


def _write_layers(checkpoint: Checkpoint, weights: "Weights", stored: str, folder: Path) -> None:
    store: Store = {"fp32": _fp32, "bf16": _bf16, "w8": _w8}[stored]
    calibration = None
    if stored == "w8":
        from app.engine.calibration import Calibration

        calibration = Calibration(checkpoint, weights)
    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}

        def put(name: str, array: Any) -> None:
            if name not in files:
                files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                form = {"descr": array.dtype.str, "fortran_order": False}
                write_array_header_1_0(files[name], form | {"shape": (checkpoint.layers, *array.shape)})
            files[name].write(np.ascontiguousarray(array).data)

        for layer in layers(checkpoint):
            seen = calibration.layer(layer) if calibration else {}
            for name, (matrix, bias) in linear_layers(checkpoint, weights, layer).items():
                for part, array in store(matrix, bias, name, seen.get(name)).items():
                    put(f"{name}.{part}", array)
            for name, array in norms(checkpoint, weights, layer).items():
                put(name, array)
    if calibration:
        for name, array in calibration.held_out().items():
            np.save(folder / name, array)


def _fp32(matrix: FloatArray, bias: FloatArray, name: str, seen: "Inputs | None") -> dict[str, Any]:
    return {"lines": panels(matrix), "bias": bias}


def _bf16(matrix: FloatArray, bias: FloatArray, name: str, seen: "Inputs | None") -> dict[str, Any]:
    return {"lines": panels(to_bf16(matrix)), "bias": bias}


def _w8(matrix: FloatArray, bias: FloatArray, name: str, seen: "Inputs | None") -> dict[str, Any]:
    assert seen is not None
    smooth = np.float32(1) / smoothing(seen.largest, matrix, SMOOTHING[name])
    matrix = matrix / smooth
    hessian = seen.moments * smooth[:, None] * smooth
    repeated = repeated_columns(matrix, REPEATED)
    columns = np.concatenate([np.arange(len(smooth)), repeated])
    parts = np.bincount(columns).astype(np.float32)
    integers, scales = compensated_rounding(
        (matrix / parts)[:, columns], np.ascontiguousarray(hessian[np.ix_(columns, columns)])
    )
    assert fits_sixteen_bits(integers)
    return {
        "lines": panels(integers),
        "bias": bias,
        "scales": scales,
        "sums": integers.sum(axis=1, dtype=np.float32),
        "smooth": smooth.astype(np.float32),
        "repeated": repeated,
    }


def linear_layers(
    checkpoint: Checkpoint, weights: "Weights", layer: int
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Matrix (n, k) and bias (n,) of each linear layer of a layer; query, key and value are joined."""
    d, inner, name = checkpoint.width, checkpoint.inner, f"encoder.layer.{layer}."
    parts = [f"{name}attention.self.{part}" for part in ("query", "key", "value")]
    found = {
        "attended": (f"{name}attention.output.dense", d, d),
        "grown": (f"{name}intermediate.dense", inner, d),
        "shrunk": (f"{name}output.dense", d, inner),
    }
    joined = (
        np.concatenate([weights(f"{part}.weight", d, d) for part in parts]),
        np.concatenate([weights(f"{part}.bias", d) for part in parts]),
    )
    return {"joined": joined} | {
        key: (weights(f"{part}.weight", outputs, inputs), weights(f"{part}.bias", outputs))
        for key, (part, outputs, inputs) in found.items()
    }


def norms(checkpoint: Checkpoint, weights: "Weights", layer: int) -> dict[str, FloatArray]:
    """Gains and biases (d,) of the two norms of a layer."""
    name = f"encoder.layer.{layer}."
    parts = (
        f"{norm}.LayerNorm.{part}" for norm in ("attention.output", "output") for part in ("weight", "bias")
    )
    return {key: weights(name + part, checkpoint.width) for key, part in zip(NORMS, parts, strict=True)}
